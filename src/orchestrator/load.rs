//! From a specification to a deployment: compose, then policy.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::error::LocatedRefusal;
use super::{Error, Orchestrator};
use crate::backend::{Deployment, TenantRef};
use crate::compose::{self, Document, Files, LoadInput};
use crate::domain::{DesiredState, FileContent, Generation, ProjectName, ProjectPath, Subdomain, TenantSpec};
use crate::policy::{self, Ground, Profile};
use crate::tenant_fs::Record;

/// What errors call the Compose file of a request.
const COMPOSE_FILE: &str = "compose.yaml";

/// A specification as it is to run.
pub(super) struct Loaded {
    pub(super) deployment: Deployment,
    pub(super) warnings: Vec<String>,
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
        let profile = self.inner.settings.policy;
        self.load_under(profile, tenant, spec, generation, desired).await
    }

    /// Parsing is bounded, but not short enough for an async worker.
    async fn load_under(
        &self,
        profile: Profile,
        tenant: TenantRef,
        spec: TenantSpec,
        generation: Generation,
        desired: DesiredState,
    ) -> Result<Loaded, Error> {
        let this = self.clone();
        let loading =
            tokio::task::spawn_blocking(move || this.load_blocking(profile, tenant, spec, generation, desired));
        loading.await.unwrap_or_else(|error| {
            tracing::error!(%error, "loading ended abnormally");
            Err(Error::Internal)
        })
    }

    fn load_blocking(
        &self,
        profile: Profile,
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
        let ground =
            Ground { files: &files, publish_host: settings.publish_host, publish_ports: settings.publish_ports };
        let admitted = policy::admit(profile, loaded.project, &ground).map_err(|refusals| {
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
        })?;
        let mut warnings = loaded.warnings;
        warnings.extend(admitted.warnings);
        let deployment = Deployment {
            tenant,
            generation,
            desired,
            project: admitted.project,
            files: spec.files,
            pinned_images: spec.pinned_images,
            key: self.inner.key.clone(),
        };
        Ok(Loaded { deployment, warnings })
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
        let (tenant, generation) = (record.subdomain.clone(), record.generation);
        let stored = self.disk(move |fs| fs.generation(&tenant, generation)).await?;
        let reference = self.tenant_ref(record);
        let first = self.load(reference.clone(), stored.spec.clone(), generation, record.desired).await;
        let loaded = match first {
            Err(Error::Policy(_)) => {
                let mut loaded =
                    self.load_under(Profile::Trusted, reference, stored.spec, generation, record.desired).await?;
                loaded.warnings.push("the policy of this host would refuse this specification today".to_owned());
                loaded
            }
            other => other?,
        };
        let loaded = Arc::new(loaded);
        self.remember(&record.subdomain, &loaded);
        Ok(loaded)
    }

    pub(super) fn remember(&self, tenant: &Subdomain, loaded: &Arc<Loaded>) {
        self.inner.loaded.insert(tenant.clone(), (loaded.deployment.generation, Arc::clone(loaded)));
    }

    /// A keyed hash of all that a request says about a tenant, to recognise the same request again.
    pub(super) fn fingerprint(&self, spec: &TenantSpec) -> String {
        let comparable = TenantSpec { pinned_images: BTreeMap::new(), ..spec.clone() };
        let text = serde_json::to_vec(&comparable).expect("a specification serialises");
        self.inner.key.hash(&[b"spec", &text])
    }
}
