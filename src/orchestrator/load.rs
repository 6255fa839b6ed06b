//! From a specification to a deployment: compose, then policy.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::error::LocatedRefusal;
use super::{Error, Orchestrator};
use crate::backend::{Deployment, TenantRef};
use crate::compose::{self, Document, Files, LoadInput};
use crate::domain::{Demand, DesiredState, FileContent, Generation, ProjectName, ProjectPath, Subdomain, TenantSpec};
use crate::policy::{self, Admitted, Ground};
use crate::tenant_fs::Record;

/// What errors call the Compose file of a request.
const COMPOSE_FILE: &str = "compose.yaml";

/// How many specifications are remembered, each with its files. Status needs none of them.
const REMEMBERED: usize = 16;

/// A specification as it is to run.
pub(super) struct Loaded {
    pub(super) deployment: Deployment,
    pub(super) warnings: Vec<String>,
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
        let ground = Ground {
            files: &files,
            undefined: &loaded.undefined,
            publish_host: settings.publish_host,
            publish_ports: settings.publish_ports,
        };
        let demand = policy::demand(&loaded.project, &rules.defaults);
        let mut warnings = loaded.warnings;
        let admitted = match standing {
            Standing::Asked => policy::admit(&rules, loaded.project, &ground).map_err(|refusals| {
                let located = refusals.into_iter().map(|refusal| {
                    let found = loaded.locations.locate(&refusal.field);
                    let location = found.map(|(_, location)| location);
                    LocatedRefusal {
                        file: found.map(|(file, _)| file).filter(|file| *file != COMPOSE_FILE).map(str::to_owned),
                        line: location.map(|location| location.line),
                        column: location.map(|location| location.column),
                        refusal,
                    }
                });
                Error::Policy(located.collect())
            })?,
            Standing::Accepted => {
                let (admitted, refused) = policy::readmit(&rules, loaded.project, &ground);
                if refused {
                    warnings.push("the policy of this host would refuse this specification today".to_owned());
                }
                admitted
            }
        };
        if standing == Standing::Asked {
            let excesses = rules.limits.and(spec.limits).exceeded_by(&demand);
            if !excesses.is_empty() {
                return Err(Error::Quota(excesses));
            }
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
        Ok(Loaded { deployment, warnings, demand })
    }

    /// The committed specification of a tenant. It was accepted once, so a policy that became stricter since then does
    /// not stop it from being started, stopped or put back; its next update is refused.
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
