//! What a place to run tenants must be able to do, in the words of `domain`.
//!
//! An apply has two phases with one decision point. [`Backend::apply`] keeps every container it replaces; writing the
//! tenant's record is the commit (the orchestrator does that); [`Backend::settle`] then makes the backend hold exactly
//! what the record says. Settling to generation N+1 removes what was replaced; settling to N, after a failure or a
//! crash, removes what was made for N+1 and brings back what ran before. It may be repeated at any time.

mod converge;
mod cursor;
mod deployment;
mod error;
mod execute;
mod graph;
mod hooks;
mod listed;
mod logs;
mod owned;
mod plan;
mod progress;
mod rolling;
#[cfg(test)]
pub(crate) mod sample;
mod sightings;
mod stray;
#[cfg(test)]
mod tests;
mod usage;

#[cfg(feature = "aci")]
pub mod aci;
pub mod docker;
pub mod memory;

pub use cursor::{InvalidCursor, LineMark, LogCursor, LogSource, Mark, Position};
pub use deployment::{Deployment, HostKey, MountFile, TenantRef};
pub use error::{BackendError, FailureDetails};
pub use hooks::PreStop;
pub use listed::Listed;
pub use logs::{GapReason, LogEvent, LogGap, LogLine, LogOrigin, LogQuery, LogStream, LogStreamKind, Tail};
pub use owned::{Owned, OwnedKind};
pub use plan::{Action, Adoption, After, Plan, PlannedObject, Step, Task, UndoNote, Until, Work};
pub use progress::{News, Progress, ProgressEvent, StepState, TAKEN_UP, Told};
pub use sightings::{Ended, Sighting, Sightings};
pub use stray::Stray;
pub use usage::{ContainerUsage, Holdings, Used, VolumeSize};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::{
    BackendName, ContainerStatus, Endpoint, Generation, ImageInfo, ObjectName, RegistryAuth, ServiceName, Subdomain,
    TenantId,
};

/// Twice as long as the watch of an engine on this host takes to say that all is as it was.
pub const FRESH_FOR: Duration = Duration::from_millis(2500);

/// What a backend can and cannot do. Asking for the rest is 422 `UNSUPPORTED_ON_BACKEND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Capabilities {
    /// One service of a tenant can be restarted, stopped or started alone.
    pub single_service: bool,
    /// Standard output and standard error can be told apart.
    pub split_streams: bool,
    /// Unchanged services keep running during an update.
    pub partial_update: bool,
    /// Containers outlive the agent; if not, tenants are applied again at start.
    pub survives_agent: bool,
}

/// How one operation is to be carried out.
#[derive(Clone)]
pub struct Run {
    /// When it must have ended; every wait respects it.
    pub deadline: Instant,
    /// Says what is being done.
    pub progress: Progress,
    /// Cancelled when the operation is to be given up; an apply then fails as soon as nothing is being made any more.
    pub cancel: CancellationToken,
    /// Credentials for registries, chosen by exact host.
    pub credentials: Arc<Vec<RegistryAuth>>,
    /// Pull images even when they are there (`update` with `pull`).
    pub pull: bool,
    /// Touch these services only; all when none.
    pub only: Option<BTreeSet<ServiceName>>,
    /// The `pre_stop` hooks of what an apply may replace: those of the committed generation.
    pub pre_stop: BTreeMap<ServiceName, PreStop>,
    /// The images, by id, that a pull of this operation has brought to the host.
    pub brought: Arc<Mutex<BTreeSet<String>>>,
}

impl Run {
    /// One of everything that nobody follows or gives up, without credentials and hooks.
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            progress: Progress::new(),
            cancel: CancellationToken::new(),
            credentials: Arc::default(),
            pull: false,
            only: None,
            pre_stop: BTreeMap::new(),
            brought: Arc::default(),
        }
    }

    /// An image was not on the host before it was pulled just now.
    pub fn has_brought(&self, image: &str) {
        self.brought.lock().unwrap_or_else(PoisonError::into_inner).insert(image.to_owned());
    }

    /// Those images, each told once.
    pub fn take_brought(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.brought.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a stranger's container says in place of its image, where the image says what a file may not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Instead {
    /// Time between two healthchecks.
    pub interval: Option<Duration>,
    /// Time between two healthchecks in the start period.
    pub start_interval: Option<Duration>,
    /// The signal that ends it.
    pub stop_signal: Option<String>,
}

/// The image a service's reference stands for right now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// What containers are made from: the reference in the file, or the id when that is what was asked for.
    pub image: String,
    /// The local image id, `sha256:…`.
    pub id: String,
    /// The registry digest, when there is one.
    pub digest: Option<String>,
    /// Volumes that each container of the service gets because the image says so.
    pub volumes: u64,
    /// What the container says in place of the image.
    pub instead: Instead,
}

/// Images by service.
pub type ResolvedImages = BTreeMap<ServiceName, ResolvedImage>;

/// What [`Backend::prepare`] would find and do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// What each reference stands for now. The id is empty where the image is not there.
    pub images: ResolvedImages,
    /// What would be pulled, or asked of a registry.
    pub pulls: Vec<ImagePull>,
}

/// One image that somebody has to be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ImagePull {
    /// The reference in the file.
    pub image: String,
    /// The services that use it.
    pub services: Vec<ServiceName>,
    /// Why, for a person.
    pub reason: &'static str,
}

/// How a tenant's containers were at a time.
#[derive(Debug)]
pub struct Snapshot {
    /// When they were asked for.
    pub as_of: Instant,
    /// As status has them.
    pub containers: Vec<ObservedContainer>,
}

/// One container as a backend sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedContainer {
    /// Whose it is.
    pub tenant: Subdomain,
    /// The identity that it was made for.
    pub owner: TenantId,
    /// Its service.
    pub service: ServiceName,
    /// Its number within the service, from 1.
    pub number: u32,
    /// How it is doing. [`Backend::tenants`] may leave exit code, start time and restart count out.
    pub status: ContainerStatus,
    /// Where it can be reached.
    pub endpoints: Vec<Endpoint>,
}

/// What [`Backend::remove`] left in place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Containers and networks that were there and are gone.
    pub objects: usize,
    /// Volumes that are still there.
    pub volumes_kept: Vec<ObjectName>,
}

/// The machine behind a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HostInfo {
    /// What runs the containers, e.g. `docker`.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// The version of its API in use.
    pub api_version: String,
    /// Operating system, e.g. `linux`.
    pub os: String,
    /// Processor architecture, e.g. `x86_64`.
    pub arch: String,
    /// Number of CPUs; none when it cannot be seen.
    pub cpus: Option<u64>,
    /// Bytes of memory; none when it cannot be seen.
    pub memory: Option<u64>,
    /// Where it keeps images and volumes, as it names the place; it need not be visible from here.
    #[serde(skip)]
    pub data_root: Option<PathBuf>,
    /// What stands between its containers and the host.
    #[serde(skip)]
    pub guards: Guards,
}

/// What an engine says about itself that keeps containers from the host and from each other. None where it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Guards {
    /// System calls are filtered unless a container asks for no filter.
    pub seccomp: Option<bool>,
    /// `AppArmor` or `SELinux` confines containers.
    pub mandatory_access_control: Option<bool>,
    /// Root in a container is nobody on the host.
    pub user_namespaces: Option<bool>,
    /// The engine itself is not root.
    pub rootless: Option<bool>,
    /// Containers go on while the engine is down.
    pub live_restore: Option<bool>,
}

/// A place that runs tenants.
///
/// Every method may be repeated after any failure, including one where the work was done and only the answer was lost:
/// implementations find by name and label what exists.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Its name in requests and records.
    fn name(&self) -> BackendName;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// The locations that it can place tenants in, the default first; none where it has one place only.
    fn regions(&self) -> &[String] {
        &[]
    }

    /// What [`Self::watch`] told so long ago counts as known now: longer than the watch takes to say that all is as it
    /// was. Where that is longer than by default, whoever wants to know of one tenant asks for it rather than wait for
    /// the watch.
    fn fresh_for(&self) -> Duration {
        FRESH_FOR
    }

    /// Makes the images available and says what each reference stands for. Touches nothing of the tenant.
    async fn prepare(&self, wanted: &Deployment, run: &Run) -> Result<ResolvedImages, BackendError>;

    /// What `prepare` would find and do, without doing it: nothing is pulled and no registry is asked.
    async fn survey(&self, wanted: &Deployment, run: &Run) -> Result<Survey, BackendError>;

    /// What others have made for this tenant's project and the tenant may take over. Changes nothing: whoever wants it
    /// adds it to the deployment's tenant, and to the record with the commit.
    async fn adoptable(&self, _wanted: &Deployment) -> Result<Adoption, BackendError> {
        let reason = format!("nobody but the agent makes anything on backend {}", self.name());
        Err(BackendError::Unsupported { field: "adopt".to_owned(), reason })
    }

    /// Compares what is wanted with what is there. Changes nothing. The plan of a settled, healthy deployment is empty.
    async fn plan(&self, wanted: &Deployment, images: &ResolvedImages, run: &Run) -> Result<Plan, BackendError>;

    /// Carries the plan out and waits until every service is as it should be (design: "Success of an apply").
    /// On an error, what was replaced is still there and `settle` brings it back.
    ///
    /// Gives how all was at the end if that was seen and leaves nothing for `settle` to do once this is committed.
    async fn apply(
        &self,
        wanted: &Deployment,
        images: &ResolvedImages,
        plan: &Plan,
        run: &Run,
    ) -> Result<Option<Snapshot>, BackendError>;

    /// Makes the backend hold exactly the `committed` generation: `deployment` is its content, none when no generation
    /// is (or stays) up. Objects that a later generation made go; containers that were set aside for them come back.
    /// `undo` is there after a failure: what it names as running runs again, and volumes of a later generation go
    /// unless it names them.
    async fn settle(
        &self,
        tenant: &TenantRef,
        committed: Generation,
        deployment: Option<&Deployment>,
        undo: Option<&UndoNote>,
    ) -> Result<(), BackendError>;

    /// Removes the tenant's containers and networks and, if `purge`, its volumes. `project` gives order when it is known.
    async fn remove(
        &self,
        tenant: &TenantRef,
        deployment: Option<&Deployment>,
        purge: bool,
        run: &Run,
    ) -> Result<Removed, BackendError>;

    /// Whether containers are there that were made of something else than this deployment, such as the same specification
    /// under other rules.
    async fn is_outdated(&self, _deployment: &Deployment) -> Result<bool, BackendError> {
        Ok(false)
    }

    /// Starts what is stopped, in dependency order, and waits as `apply` does.
    async fn start(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError>;

    /// Stops in reverse dependency order, so that not even a restart of the engine brings the containers back.
    async fn stop(&self, deployment: &Deployment, service: Option<&ServiceName>, run: &Run)
    -> Result<(), BackendError>;

    /// Stops and starts what runs.
    async fn restart(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError>;

    /// Everything that bears this agent's labels, whosever it was, and those of the `pulled` images (by id) that nothing
    /// uses.
    async fn owned(&self, pulled: &BTreeSet<String>) -> Result<Vec<Owned>, BackendError>;

    /// Those of these images, by id, that are not there any more. Where the backend keeps no images there are none.
    async fn gone(&self, _images: &BTreeSet<String>) -> Result<BTreeSet<String>, BackendError> {
        Ok(BTreeSet::new())
    }

    /// Removes one of [`Self::owned`], with its data; false when something uses it by now.
    async fn discard(&self, object: &Owned) -> Result<bool, BackendError>;

    /// A tenant of this agent by what its objects say, for one of which no record tells. None where there is none, and on
    /// backends that are lost together with the records of this host.
    async fn find(&self, _tenant: &Subdomain) -> Result<Option<Stray>, BackendError> {
        Ok(None)
    }

    /// The tenant's containers in detail.
    async fn status(&self, tenant: &TenantRef) -> Result<Vec<ObservedContainer>, BackendError>;

    /// Every container of this agent's tenants, in one cheap call.
    async fn tenants(&self) -> Result<Vec<ObservedContainer>, BackendError>;

    /// The tenant's containers as lists for people show them.
    async fn listed(&self, tenant: &TenantRef) -> Result<Vec<Listed>, BackendError>;

    /// Follows every container of this agent's tenants: [`Sighting::All`] first, then what changes. The stream ends when
    /// anything may have been missed; whoever wants to know more watches again. Dropping it ends the watching.
    async fn watch(&self) -> Result<Sightings, BackendError>;

    /// The images that the tenant's containers were made from.
    async fn images(&self, tenant: &TenantRef) -> Result<Vec<ImageInfo>, BackendError>;

    /// The log lines of the tenant's containers, merged by time as far as the waiting is bounded. Following goes on as
    /// long as the tenant has a container: those that are started again or made anew are read too. Dropping the stream ends
    /// the reading.
    async fn logs(&self, tenant: &TenantRef, query: &LogQuery) -> Result<LogStream, BackendError>;

    /// What one tenant's containers use now, or all tenants', those that do not run included.
    async fn usage(&self, tenant: Option<&TenantRef>) -> Result<Vec<ContainerUsage>, BackendError>;

    /// What it holds, and what is left for tenants. Dearer than [`Self::health`]: asked seldom.
    async fn holdings(&self) -> Result<Holdings, BackendError>;

    /// The sizes of all tenants' volumes; none when it cannot tell. May take minutes and be hard on the disks.
    async fn volume_sizes(&self) -> Result<Option<Vec<VolumeSize>>, BackendError>;

    /// Whether an address is a tenant's on this host, as far as is known without asking anybody.
    fn is_tenant_address(&self, _address: IpAddr) -> bool {
        false
    }

    /// Whether the addresses that it gives to tenants lead nowhere else from this host; none where it cannot tell.
    async fn is_pool_free(&self) -> Option<bool> {
        None
    }

    /// The machine behind it.
    async fn host(&self) -> Result<HostInfo, BackendError>;

    /// Whether it can be used now. Answers within 5 seconds.
    async fn health(&self) -> Result<(), BackendError>;
}
