//! Chains `compose`, `policy`, `tenant_fs` and a backend, one mutation per tenant at a time.
//!
//! ```text
//!             load            stage + journal        put in place        apply
//!  request ─> compose, ──────────────────────────> files of N+1 ──────> backend ───┐
//!             policy,                                                              │ all services
//!             images, plan: nothing touched yet                                    │ as they should be
//!                                                                                  v
//!  answer <── journal ends <── settle(N+1): what was replaced goes <── COMMIT: record says N+1
//!
//!  any failure before the commit: files of N back in place ─> settle(N): what was set aside runs again
//! ```
//!
//! Invariants: the record is the only decision point; a journal exists exactly while effects may be half done, and the
//! next operation (or the next start of the agent) finishes or undoes it first; an operation runs to its end whether or
//! not anybody waits for it; no lock of the tenant map is held across an await.

mod answers;
mod bring;
mod compose_lines;
mod contained;
mod cordon;
mod deaths;
mod error;
mod feed;
mod follow;
mod health;
mod ledger;
mod left;
mod lifecycle;
mod load;
mod mirror;
mod on_host;
mod operations;
mod place;
mod plan;
mod prune;
mod recover;
mod requests;
mod room;
mod standing;
mod stats;
mod strays;
mod submit;
mod summary;
#[cfg(test)]
mod tests;
mod view;
mod watching;

pub use answers::*;
pub use error::{Error, HostFull, LocatedRefusal};
#[cfg(test)]
pub(crate) use feed::Data as FeedData;
pub use feed::FeedEvent;
pub use follow::Followed;
pub use plan::{Fit, Planned, PlannedPort, PlannedStep};
pub use requests::*;
pub use room::Room;
pub use stats::*;
pub use view::Text;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::load::Loaded;
use self::operations::Operations;
#[cfg(feature = "aci")]
use crate::backend::aci::AciBackend;
use crate::backend::docker::{self, DockerBackend, PoolOverlap, Subnet};
use crate::backend::memory::MemoryBackend;
use crate::backend::{Backend, HostKey, TenantRef};
use crate::config::Config;
use crate::domain::{BackendName, Generation, OperationKind, RegistryAuth, ServiceName, Subdomain};
use crate::policy::Rules;
use crate::telemetry::Metrics;
use crate::tenant_fs::{Cordon, FsError, Record, TenantFs};

/// The agent's work, behind the HTTP API. Cheap to clone. Mutations run to their end even if the caller goes away.
#[derive(Clone)]
pub struct Orchestrator {
    inner: Arc<Inner>,
}

struct Inner {
    fs: Arc<TenantFs>,
    key: HostKey,
    backends: BTreeMap<BackendName, Arc<dyn Backend>>,
    settings: Settings,
    operations: Operations,
    /// Room on the host for what is being brought up.
    claims: room::Claims,
    /// The memory in bytes and the CPUs of this host, where they can be seen.
    host_size: tokio::sync::OnceCell<(Option<u64>, Option<u64>)>,
    /// What is known of all tenants without asking.
    mirror: mirror::Mirror,
    /// What happened to them.
    feed: Arc<feed::Feed>,
    /// Specifications that operations have loaded, by tenant and generation.
    loaded: DashMap<Subdomain, (Generation, Arc<Loaded>)>,
    /// Tenants whose last recovery failed, or whose record cannot be read.
    degraded: DashMap<Subdomain, Arc<recover::Waiting>>,
    /// How it stands with the backends that are not the default.
    health: health::Health,
    cordon: cordon::CordonState,
    /// When what is left over elsewhere was first seen to be so.
    left_over: prune::Seen,
    /// Held while the list of pulled images changes.
    pulled: tokio::sync::Mutex<()>,
    inventory_done: AtomicBool,
    /// Cancelled when the agent is to end: no new operation begins, background work stops.
    stopping: CancellationToken,
    tasks: TaskTracker,
    started: Instant,
    stats: stats::Stats,
    metrics: Arc<Metrics>,
}

/// The settings that the orchestrator itself obeys.
struct Settings {
    default_backend: BackendName,
    policy: Rules,
    listens_on: IpAddr,
    publish_host: IpAddr,
    publish_ports: (u16, u16),
    max_tenants: usize,
    operation_timeout: Duration,
    busy_wait: Duration,
    archive_retention: Duration,
    crash_loop_limit: Option<Duration>,
    registry: Option<RegistryAuth>,
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tenants root cannot be used.
    #[error("Q8_AGENT_TENANTS_ROOT: {0}")]
    TenantsRoot(#[from] FsError),
    /// The tenants' networks would take addresses that the host needs.
    #[error("Q8_AGENT_SUBNET_POOL: {0}")]
    SubnetPool(#[from] PoolOverlap),
    /// The backend is not part of this build.
    #[error("Q8_AGENT_BACKEND: {0} is not built into this agent")]
    Backend(BackendName),
    /// The runtime is shutting down.
    #[error("the start was interrupted")]
    Interrupted,
}

impl Orchestrator {
    /// Opens the tenants root and takes stock. Tenants with an open operation stay locked while they are recovered in
    /// the background; the backend need not be reachable yet.
    pub async fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let root = config.tenants_root.clone();
        let opened = tokio::task::spawn_blocking(move || TenantFs::open(&root)).await;
        let fs = opened.map_err(|_| StartError::Interrupted)??;
        let key = HostKey::new(fs.host_key());
        let elsewhere = elsewhere(config, &fs, &metrics);
        let here: Option<Arc<dyn Backend>> = match config.backend {
            BackendName::Docker => {
                let pool = Subnet::new(config.subnet_pool.address, config.subnet_pool.prefix);
                docker::check_pool(pool).await?;
                let backend = DockerBackend::new(fs.agent_id().clone(), config.docker_socket.clone(), pool);
                let backend = backend.publishing(config.publish_host, config.publish_ports);
                Some(Arc::new(backend.counting(Arc::clone(&metrics))))
            }
            BackendName::Memory => Some(Arc::new(MemoryBackend::new(fs.agent_id().clone(), key.clone()))),
            // This host runs no tenants: it needs no engine, and its addresses are its own.
            BackendName::Aci => None,
        };
        let mut backends = here.into_iter().chain(elsewhere);
        let default = backends.next().ok_or(StartError::Backend(config.backend))?;
        let orchestrator = Self::with_backends(config, fs, default, backends.collect(), metrics);
        orchestrator.take_stock().await?;
        let first_look = orchestrator.clone();
        // From then on the backend knows whose addresses are tenants' before anything is asked of it.
        tokio::spawn(async move { first_look.readiness().await });
        Ok(orchestrator)
    }

    /// As [`Self::open`], on a backend that the caller made. Nothing is recovered until [`Self::take_stock`].
    pub fn with_backend(config: &Config, fs: TenantFs, backend: Arc<dyn Backend>, metrics: Arc<Metrics>) -> Self {
        Self::with_backends(config, fs, backend, Vec::new(), metrics)
    }

    /// The same on several, each under a name of its own. The first is for tenants that name none, and decides whether
    /// the agent is ready.
    pub fn with_backends(
        config: &Config,
        fs: TenantFs,
        default: Arc<dyn Backend>,
        others: Vec<Arc<dyn Backend>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let settings = Settings {
            default_backend: default.name(),
            policy: config.policy.clone(),
            listens_on: config.listen.ip(),
            publish_host: config.publish_host,
            publish_ports: config.publish_ports,
            max_tenants: config.max_tenants,
            operation_timeout: config.operation_timeout,
            busy_wait: config.busy_wait,
            archive_retention: config.archive_retention,
            crash_loop_limit: config.crash_loop_limit,
            registry: config.registry.clone(),
        };
        // One that cannot be read holds: whoever cordoned the host had a reason.
        let unreadable = |error| {
            tracing::warn!(%error, "the cordon cannot be read and holds");
            Some(Cordon { since: jiff::Timestamp::now(), reason: None })
        };
        let cordon = cordon::CordonState::new(fs.cordoned().unwrap_or_else(unreadable));
        // Should two have one name, the default is the one that is meant.
        let backends: BTreeMap<BackendName, Arc<dyn Backend>> =
            others.into_iter().chain([default]).map(|backend| (backend.name(), backend)).collect();
        let inner = Inner {
            key: HostKey::new(fs.host_key()),
            fs: Arc::new(fs),
            mirror: mirror::Mirror::new(backends.values().map(|backend| (backend.name(), backend.fresh_for()))),
            feed: Arc::new(feed::Feed::new()),
            health: health::Health::of(backends.keys().copied()),
            backends,
            settings,
            operations: Operations::default(),
            claims: room::Claims::default(),
            host_size: tokio::sync::OnceCell::new(),
            loaded: DashMap::new(),
            degraded: DashMap::new(),
            cordon,
            left_over: prune::Seen::default(),
            pulled: tokio::sync::Mutex::default(),
            inventory_done: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            started: Instant::now(),
            stats: stats::Stats::default(),
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Where this agent counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Lets running operations end, for so long at most; new ones are refused from now on. What has not ended by then
    /// is recovered at the next start.
    pub async fn shutdown(&self, within: Duration) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(within, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("operations were still running at the end of the grace period");
        }
    }

    /// Brings a tenant to a specification, making it if it does not exist.
    pub async fn provision(&self, request: ProvisionRequest) -> Result<Provisioned, Error> {
        self.provisioned(Mutation::Provision(Box::new(request))).await
    }

    /// Changes parts of a tenant's specification.
    pub async fn update(&self, request: UpdateRequest) -> Result<Provisioned, Error> {
        self.provisioned(Mutation::Update(Box::new(request))).await
    }

    /// Makes a new generation with the content and the images of the previous one.
    pub async fn rollback(&self, tenant: &Subdomain, from: Option<Generation>) -> Result<Provisioned, Error> {
        self.provisioned(Mutation::Rollback { tenant: tenant.clone(), from }).await
    }

    /// Stops and starts what runs.
    pub async fn restart(&self, tenant: &Subdomain, service: Option<ServiceName>) -> Result<Done, Error> {
        self.done(Mutation::Restart { tenant: tenant.clone(), service }).await
    }

    /// Stops, durably.
    pub async fn stop(&self, tenant: &Subdomain, service: Option<ServiceName>) -> Result<Done, Error> {
        self.done(Mutation::Stop { tenant: tenant.clone(), service }).await
    }

    /// Starts what is stopped.
    pub async fn start(&self, tenant: &Subdomain, service: Option<ServiceName>) -> Result<Done, Error> {
        self.done(Mutation::Start { tenant: tenant.clone(), service }).await
    }

    /// Removes a tenant's containers and networks; data too with `purge`.
    pub async fn teardown(&self, tenant: &Subdomain, purge: bool) -> Result<TornDown, Error> {
        match self.answer(Mutation::Teardown { tenant: tenant.clone(), purge }).await? {
            Answered::TornDown(torn_down) => Ok(torn_down),
            _ => Err(Error::Internal),
        }
    }

    /// Removes what is left over; only says what that is in a dry run.
    pub async fn prune(&self, request: PruneRequest) -> Result<Pruned, Error> {
        if request.dry_run {
            return self.what_is_left_over(request).await;
        }
        match self.answer(HostMutation::Prune(request)).await? {
            Answered::Pruned(pruned) => Ok(pruned),
            _ => Err(Error::Internal),
        }
    }

    async fn provisioned(&self, mutation: Mutation) -> Result<Provisioned, Error> {
        match self.answer(mutation).await? {
            Answered::Provisioned(provisioned) => Ok(provisioned),
            _ => Err(Error::Internal),
        }
    }

    async fn done(&self, mutation: Mutation) -> Result<Done, Error> {
        match self.answer(mutation).await? {
            Answered::Done(done) => Ok(done),
            _ => Err(Error::Internal),
        }
    }

    /// Does what is asked for by nobody who could ask again or go away.
    async fn answer(&self, change: impl Into<Change>) -> Result<Answered, Error> {
        match self.submit(change, Ask::default()).await? {
            Submitted::Done { answer, .. } => answer,
            _ => Err(Error::Internal),
        }
    }

    /// One step of an operation, timed under its name.
    async fn timed<T>(&self, op: &operations::Op, step: &'static str, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let done = work.await;
        self.inner.metrics.step(op.running().now().kind, step, begun.elapsed());
        done
    }

    /// Writes a record for an operation of this kind, and what it says into the mirror.
    async fn commit(&self, record: &Record, by: OperationKind) -> Result<(), Error> {
        let written = record.clone();
        self.disk(move |fs| fs.commit(&written, by)).await?;
        self.on_record(record);
        Ok(())
    }

    /// Runs a call of `tenant_fs` off the async workers.
    async fn disk<T: Send + 'static>(
        &self,
        call: impl FnOnce(&TenantFs) -> Result<T, FsError> + Send + 'static,
    ) -> Result<T, Error> {
        let fs = Arc::clone(&self.inner.fs);
        match tokio::task::spawn_blocking(move || call(&fs)).await {
            Ok(result) => result.map_err(Error::Fs),
            Err(error) => {
                tracing::error!(%error, "a disk task ended abnormally");
                Err(Error::Internal)
            }
        }
    }

    async fn record(&self, tenant: &Subdomain) -> Result<Option<Record>, Error> {
        let tenant = tenant.clone();
        self.disk(move |fs| fs.record(&tenant)).await
    }

    /// The record of a tenant that is up (or stopped), not merely kept.
    async fn live_record(&self, tenant: &Subdomain) -> Result<Record, Error> {
        match self.record(tenant).await? {
            Some(record) if record.is_live() => Ok(record),
            _ => Err(Error::NoSuchTenant(tenant.clone())),
        }
    }

    fn backend(&self, name: BackendName) -> Result<&Arc<dyn Backend>, Error> {
        self.inner.backends.get(&name).ok_or(Error::BackendNotConfigured(name))
    }

    fn tenant_ref(&self, record: &Record) -> TenantRef {
        TenantRef {
            agent: self.inner.fs.agent_id().clone(),
            subdomain: record.subdomain.clone(),
            id: record.id.clone(),
            region: record.region.clone(),
            adopted: record.adopted.clone(),
        }
    }
}

/// The backend that is not on this host, if the settings have one and it is built in.
#[cfg(feature = "aci")]
fn elsewhere(config: &Config, fs: &TenantFs, metrics: &Arc<Metrics>) -> Option<Arc<dyn Backend>> {
    let settings = config.aci.as_ref()?;
    Some(Arc::new(AciBackend::new(fs.agent_id().clone(), settings, Arc::clone(metrics))))
}

/// The same in an agent without one.
#[cfg(not(feature = "aci"))]
fn elsewhere(config: &Config, _fs: &TenantFs, _metrics: &Arc<Metrics>) -> Option<Arc<dyn Backend>> {
    config.aci.as_ref()?;
    tracing::warn!("Q8_AGENT_ACI_REGIONS is set, but Azure Container Instances are not built into this agent");
    None
}
