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
mod cordon;
mod error;
mod lifecycle;
mod load;
mod operations;
mod prune;
mod recover;
mod requests;
mod room;
mod summary;
#[cfg(test)]
mod tests;
mod view;

pub use answers::*;
pub use error::{Error, HostFull, LocatedRefusal};
pub use requests::*;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::load::Loaded;
use self::operations::{Op, Operations};
use crate::backend::docker::{self, DockerBackend, PoolOverlap, Subnet};
use crate::backend::memory::MemoryBackend;
use crate::backend::{Backend, HostKey, TenantRef};
use crate::config::Config;
use crate::domain::{BackendName, Generation, OperationKind, RegistryAuth, ServiceName, Subdomain};
use crate::policy::Rules;
use crate::tenant_fs::{Cordon, FsError, Record, TenantFs};

/// How long after its deadline an operation may go on, to undo what it did, before its caller is told without its end.
const UNDO_TIME: Duration = Duration::from_secs(30);

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
    /// The memory in bytes and the CPUs of the host behind the backend, where it can be seen.
    host_size: tokio::sync::OnceCell<(Option<u64>, Option<u64>)>,
    /// Loaded specifications, by tenant and generation, so that status need not read and parse.
    loaded: DashMap<Subdomain, (Generation, Arc<Loaded>)>,
    /// Tenants whose last recovery failed, or whose record cannot be read.
    degraded: DashMap<Subdomain, ()>,
    cordon: cordon::CordonState,
    /// Held by the one prune that runs.
    pruning: tokio::sync::Mutex<()>,
    /// Held while the list of pulled images changes.
    pulled: tokio::sync::Mutex<()>,
    inventory_done: AtomicBool,
    /// Cancelled when the agent is to end: no new operation begins, background work stops.
    stopping: CancellationToken,
    tasks: TaskTracker,
    started: Instant,
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
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        let root = config.tenants_root.clone();
        let opened = tokio::task::spawn_blocking(move || TenantFs::open(&root)).await;
        let fs = opened.map_err(|_| StartError::Interrupted)??;
        let key = HostKey::new(fs.host_key());
        let backend: Arc<dyn Backend> = match config.backend {
            BackendName::Docker => {
                let pool = Subnet::new(config.subnet_pool.address, config.subnet_pool.prefix);
                docker::check_pool(pool).await?;
                let backend = DockerBackend::new(fs.agent_id().clone(), config.docker_socket.clone(), pool);
                Arc::new(backend.publishing(config.publish_host, config.publish_ports))
            }
            BackendName::Memory => Arc::new(MemoryBackend::new(fs.agent_id().clone(), key.clone())),
            BackendName::Aci => return Err(StartError::Backend(BackendName::Aci)),
        };
        let orchestrator = Self::with_backend(config, fs, backend);
        orchestrator.take_stock().await?;
        let first_look = orchestrator.clone();
        // From then on the backend knows whose addresses are tenants' before anything is asked of it.
        tokio::spawn(async move { first_look.readiness().await });
        Ok(orchestrator)
    }

    /// As [`Self::open`], on a backend that the caller made. Nothing is recovered until [`Self::take_stock`].
    pub fn with_backend(config: &Config, fs: TenantFs, backend: Arc<dyn Backend>) -> Self {
        let settings = Settings {
            default_backend: backend.name(),
            policy: config.policy.clone(),
            listens_on: config.listen.ip(),
            publish_host: config.publish_host,
            publish_ports: config.publish_ports,
            max_tenants: config.max_tenants,
            operation_timeout: config.operation_timeout,
            busy_wait: config.busy_wait,
            archive_retention: config.archive_retention,
            registry: config.registry.clone(),
        };
        // One that cannot be read holds: whoever cordoned the host had a reason.
        let unreadable = |error| {
            tracing::warn!(%error, "the cordon cannot be read and holds");
            Some(Cordon { since: jiff::Timestamp::now(), reason: None })
        };
        let cordon = cordon::CordonState::new(fs.cordoned().unwrap_or_else(unreadable));
        let inner = Inner {
            key: HostKey::new(fs.host_key()),
            fs: Arc::new(fs),
            backends: BTreeMap::from([(backend.name(), backend)]),
            settings,
            operations: Operations::default(),
            claims: room::Claims::default(),
            host_size: tokio::sync::OnceCell::new(),
            loaded: DashMap::new(),
            degraded: DashMap::new(),
            cordon,
            pruning: tokio::sync::Mutex::default(),
            pulled: tokio::sync::Mutex::default(),
            inventory_done: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            started: Instant::now(),
        };
        Self { inner: Arc::new(inner) }
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
        let tenant = request.subdomain.clone();
        self.operate(tenant, OperationKind::Provision, async move |this, op| this.do_provision(&op, request).await)
            .await
    }

    /// Changes parts of a tenant's specification.
    pub async fn update(&self, request: UpdateRequest) -> Result<Provisioned, Error> {
        let tenant = request.subdomain.clone();
        self.operate(tenant, OperationKind::Update, async move |this, op| this.do_update(&op, request).await).await
    }

    /// Makes a new generation with the content and the images of the previous one.
    pub async fn rollback(&self, tenant: &Subdomain, from: Option<Generation>) -> Result<Provisioned, Error> {
        let operation = async move |this: Self, op: Op| this.do_rollback(&op, from).await;
        self.operate(tenant.clone(), OperationKind::Rollback, operation).await
    }

    /// Stops and starts what runs.
    pub async fn restart(&self, tenant: &Subdomain, service: Option<ServiceName>) -> Result<Done, Error> {
        let operation = async move |this: Self, op: Op| this.do_restart(&op, service).await;
        self.operate(tenant.clone(), OperationKind::Restart, operation).await
    }

    /// Stops, durably.
    pub async fn stop(&self, tenant: &Subdomain, service: Option<ServiceName>) -> Result<Done, Error> {
        let operation = async move |this: Self, op: Op| this.do_stop(&op, service).await;
        self.operate(tenant.clone(), OperationKind::Stop, operation).await
    }

    /// Starts what is stopped.
    pub async fn start(&self, tenant: &Subdomain, service: Option<ServiceName>) -> Result<Done, Error> {
        let operation = async move |this: Self, op: Op| this.do_start(&op, service).await;
        self.operate(tenant.clone(), OperationKind::Start, operation).await
    }

    /// Removes a tenant's containers and networks; data too with `purge`.
    pub async fn teardown(&self, tenant: &Subdomain, purge: bool) -> Result<TornDown, Error> {
        let operation = async move |this: Self, op: Op| this.do_teardown(&op, purge).await;
        self.operate(tenant.clone(), OperationKind::Teardown, operation).await
    }

    /// Runs a mutation on a task of its own, under the tenant's lock, after finishing what an earlier one left open.
    async fn operate<T, F, Fut>(&self, tenant: Subdomain, kind: OperationKind, mutation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(Self, Op) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + Send,
    {
        if self.inner.stopping.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        let this = self.clone();
        let work = async move {
            let settings = &this.inner.settings;
            let op = this.inner.operations.begin(tenant, kind, settings.busy_wait, settings.operation_timeout).await?;
            let (id, tenant, begun) = (op.id(), op.tenant().clone(), Instant::now());
            match this.finish_open_operation(&op).await {
                // What cannot be finished can still be torn down: nothing of it is needed for that.
                Err(error) if kind == OperationKind::Teardown && !error.is_backend_away() => {
                    tracing::warn!(%tenant, %error, "tearing down with an operation open that cannot be finished");
                }
                finished => finished?,
            }
            let result = mutation(this.clone(), op).await;
            let duration_ms = begun.elapsed().as_millis();
            match &result {
                Ok(_) => tracing::info!(operation = %id, %tenant, ?kind, duration_ms, "operation succeeded"),
                Err(error) => {
                    tracing::warn!(operation = %id, %tenant, ?kind, duration_ms, %error, "operation failed");
                }
            }
            result
        };
        let running = self.inner.tasks.spawn(work.instrument(tracing::Span::current()));
        let settings = &self.inner.settings;
        // A call of the engine that has begun is waited for, whatever the deadline says: an undo must see what it made. But
        // nobody has to wait for that.
        let patience = settings.busy_wait + settings.operation_timeout + UNDO_TIME;
        match tokio::time::timeout(patience, running).await {
            Ok(ended) => ended.unwrap_or_else(|error| {
                tracing::error!(%error, "an operation ended abnormally");
                Err(Error::Internal)
            }),
            Err(_) => Err(Error::Overdue),
        }
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
            Some(record) if !record.kept && record.generation != Generation::NONE => Ok(record),
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
            adopted: record.adopted.clone(),
        }
    }
}
