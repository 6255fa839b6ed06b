//! From a specification to a deployment: compose, then policy.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::error::LocatedRefusal;
use super::{Error, Orchestrator};
use crate::backend::{Deployment, TenantRef};
use crate::compose::{self, Document, Files, LoadInput};
use crate::domain::{
    Demand, DesiredState, FileContent, Generation, ProjectName, ProjectPath, Subdomain, TenantSpec, own_platform,
};
use crate::policy::{self, Admitted, Ground, Refusal};
use crate::tenant_fs::Record;

/// What errors call the Compose file of a request.
const COMPOSE_FILE: &str = "compose.yaml";

/// Where a tenant's ports are published that has an address of its own: tenants share none.
const ELSEWHERE: (IpAddr, (u16, u16)) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), (1, u16::MAX));

/// What Azure runs (Container Instances have no other).
const PLATFORM_ELSEWHERE: &str = "linux/amd64";

/// How many specifications are remembered, each with its files. Status needs none of them.
const REMEMBERED: usize = 16;

/// A specification as it is to run.
pub(super) struct Loaded {
    pub(super) deployment: Deployment,
    pub(super) warnings: Vec<String>,
    /// What today's policy refuses of it, if it was accepted under another one.
    pub(super) refused: Vec<LocatedRefusal>,
    /// What it needs of the host.
    pub(super) demand: Demand,
}

/// Whether a specification is to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Somebody asks for it now.
    Asked,
    /// It was accepted before.
    Accepted,
}

/// The request's files, as the Compose file may name them.
struct RequestFiles<'a> {
    directory: &'a str,
    env: &'a str,
    files: &'a BTreeMap<ProjectPath, FileContent>,
}

impl Files for RequestFiles<'_> {
    fn read(&self, path: &str) -> Option<Cow<'_, [u8]>> {
        let relative = path.strip_prefix(self.directory)?.strip_prefix('/')?;
        if relative == ".env" {
            return Some(Cow::Borrowed(self.env.as_bytes()));
        }
        self.files.get(&ProjectPath::parse(relative).ok()?).map(|file| Cow::Borrowed(file.bytes.as_slice()))
    }
}

impl Orchestrator {
    /// Loads a request's specification under this host's policy.
    pub(super) async fn load(
        &self,
        tenant: TenantRef,
        spec: TenantSpec,
        generation: Generation,
        desired: DesiredState,
    ) -> Result<Loaded, Error> {
        self.load_as(Standing::Asked, tenant, spec, generation, desired).await
    }

    /// Parsing is bounded, but not short enough for an async worker.
    async fn load_as(
        &self,
        standing: Standing,
        tenant: TenantRef,
        spec: TenantSpec,
        generation: Generation,
        desired: DesiredState,
    ) -> Result<Loaded, Error> {
        let this = self.clone();
        let loading =
            tokio::task::spawn_blocking(move || this.load_blocking(standing, tenant, spec, generation, desired));
        loading.await.unwrap_or_else(|error| {
            tracing::error!(%error, "loading ended abnormally");
            Err(Error::Internal)
        })
    }

    fn load_blocking(
        &self,
        standing: Standing,
        tenant: TenantRef,
        spec: TenantSpec,
        generation: Generation,
        desired: DesiredState,
    ) -> Result<Loaded, Error> {
        let directory = self.inner.fs.project_directory(&spec.subdomain).to_string_lossy().into_owned();
        let variables = compose::read_env(".env", &spec.env)?;
        let loaded = compose::load(&LoadInput {
            documents: &[Document { name: COMPOSE_FILE, bytes: spec.compose.as_bytes() }],
            variables: &variables,
            files: &RequestFiles { directory: &directory, env: &spec.env, files: &spec.files },
            profiles: &spec.profiles,
            project: &ProjectName::of(&spec.subdomain),
            names_the_project: true,
            directory: &directory,
        })?;
        let files: BTreeSet<ProjectPath> = spec.files.keys().cloned().collect();
        let settings = &self.inner.settings;
        let rules = settings.policy.of(&spec.subdomain);
        let here = own_platform();
        let ((publish_host, publish_ports), platform) = if spec.placement.backend.is_on_this_host() {
            ((settings.publish_host, settings.publish_ports), here.as_str())
        } else {
            (ELSEWHERE, PLATFORM_ELSEWHERE)
        };
        let ground = Ground { files: &files, undefined: &loaded.undefined, publish_host, publish_ports, platform };
        let demand = policy::demand(&loaded.project, &rules.defaults);
        let mut warnings = loaded.warnings;
        let locations = loaded.locations;
        let located = |refusals: Vec<Refusal>| -> Vec<LocatedRefusal> {
            let located = refusals.into_iter().map(|refusal| {
                let found = locations.locate(&refusal.field);
                let location = found.map(|(_, location)| location);
                LocatedRefusal {
                    file: found.map(|(file, _)| file).filter(|file| *file != COMPOSE_FILE).map(str::to_owned),
                    line: location.map(|location| location.line),
                    column: location.map(|location| location.column),
                    refusal,
                }
            });
            located.collect()
        };
        let (admitted, refused) = match standing {
            Standing::Asked => {
                let admitted = policy::admit(&rules, loaded.project, &ground);
                (admitted.map_err(|refusals| Error::Policy(located(refusals)))?, Vec::new())
            }
            Standing::Accepted => {
                let (admitted, refused) = policy::readmit(&rules, loaded.project, &ground);
                if !refused.is_empty() {
                    warnings.push("the policy of this host would refuse this specification today".to_owned());
                }
                (admitted, located(refused))
            }
        };
        if standing == Standing::Asked {
            self.within_limits(&spec, &demand)?;
        }
        let Admitted { project, warnings: changes } = admitted;
        warnings.extend(changes);
        let deployment = Deployment {
            tenant,
            generation,
            desired,
            project,
            files: spec.files,
            pinned_images: spec.pinned_images,
            authorised_images: BTreeSet::new(),
            key: self.inner.key.clone(),
        };
        Ok(Loaded { deployment, warnings, refused, demand })
    }

    /// Refuses what is more than the tenant may have, by the policy of this host and by its own request.
    pub(super) fn within_limits(&self, spec: &TenantSpec, demand: &Demand) -> Result<(), Error> {
        let limits = self.inner.settings.policy.of(&spec.subdomain).limits.and(spec.limits);
        let excesses = limits.exceeded_by(demand);
        if excesses.is_empty() { Ok(()) } else { Err(Error::Quota(excesses)) }
    }

    /// The committed specification of a tenant. It was accepted once, so a policy that became stricter since then does
    /// not stop it from running on, being stopped or put back; its next start or update is refused.
    pub(super) async fn committed(&self, record: &Record) -> Result<Arc<Loaded>, Error> {
        let cached = self.inner.loaded.get(&record.subdomain).map(|entry| entry.value().clone());
        if let Some((generation, loaded)) = cached
            && generation == record.generation
            && loaded.deployment.desired == record.desired
        {
            return Ok(loaded);
        }
        let loaded = Arc::new(self.stored(record, record.generation).await?);
        self.remember(&record.subdomain, &loaded);
        Ok(loaded)
    }

    /// A keyed hash of the rules that a tenant's containers are confined by, and of the agent that reads them.
    pub(super) fn rules(&self, tenant: &Subdomain) -> String {
        let settings = &self.inner.settings;
        let policy::TenantRules { profile, registries: _, host_credentials: _, grants, limits: _, defaults } =
            settings.policy.of(tenant);
        let text =
            format!("{profile:?} {grants:?} {defaults:?} {} {:?}", settings.publish_host, settings.publish_ports);
        self.inner.key.hash(&[b"rules", env!("CARGO_PKG_VERSION").as_bytes(), text.as_bytes()])
    }

    /// A stored specification of a tenant, as it was accepted.
    pub(super) async fn stored(&self, record: &Record, generation: Generation) -> Result<Loaded, Error> {
        let tenant = record.subdomain.clone();
        let stored = self.disk(move |fs| fs.generation(&tenant, generation)).await?;
        let reference = self.tenant_ref(record);
        self.load_as(Standing::Accepted, reference, stored.spec, generation, record.desired).await
    }

    pub(super) fn remember(&self, tenant: &Subdomain, loaded: &Arc<Loaded>) {
        // Only to save reading it again within one operation or soon after: any of the others may go.
        while self.inner.loaded.len() >= REMEMBERED && !self.inner.loaded.contains_key(tenant) {
            let Some(other) = self.inner.loaded.iter().next().map(|entry| entry.key().clone()) else { break };
            self.inner.loaded.remove(&other);
        }
        self.inner.loaded.insert(tenant.clone(), (loaded.deployment.generation, Arc::clone(loaded)));
    }

    /// A keyed hash of all that a request says about a tenant, to recognise the same request again.
    pub(super) fn fingerprint(&self, spec: &TenantSpec) -> String {
        let comparable = TenantSpec { pinned_images: BTreeMap::new(), ..spec.clone() };
        let text = serde_json::to_vec(&comparable).expect("a specification serialises");
        self.inner.key.hash(&[b"spec", &text])
    }
}
