//! Tenants on this host's Docker Engine, through its API.
//!
//! ```text
//! observe  what the engine has of a tenant         (list calls, by label); `converge` plans from it
//! gates    what the engine is too old for          refused before anything is touched
//! convert  service -> create request               pure
//! leases   host ports: which one a container gets, and whether it can be had
//! gate     an independent look at every finished request
//! stack    what the plan's tasks do here           `apply` makes; waits are driven by `watch`: the engine's events
//! adoption what others made becomes the tenant's
//! sightings every change of a tenant's container, as one stream
//! peers    whose addresses are tenants'       routes  what the host reaches besides
//! usage    what containers use       holdings  what is left for tenants
//! settle   the record decides: keep new, drop old, or the reverse
//! ```
//!
//! A container that is replaced is *set aside*: renamed to `{id}_{name}` and stopped, never removed before the commit.
//! An object is the tenant's by its labels only (`labels`), or because its record says that it was taken over (`adoption`).

mod adoption;
mod anonymous;
mod apply;
mod convert;
mod demux;
mod details;
mod engine;
mod gate;
mod gates;
mod holdings;
mod hooks;
mod image_config;
mod images;
mod labels;
mod layers;
mod leases;
mod leftovers;
mod listing;
mod logs;
mod nesting;
mod networks;
mod observe;
mod peers;
mod pending;
mod platform;
mod pulls;
mod renaming;
mod routes;
mod settle;
mod sightings;
mod stack;
mod start;
mod status;
mod stop;
mod usage;
mod watch;

pub use networks::Subnet;
pub use routes::{PoolOverlap, check_pool};

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::models::SystemInfo;
use tokio::sync::Semaphore;

use self::engine::{Engine, EngineError};
use self::gate::Ground;
use self::leases::{Claims, Leases};
use self::networks::SubnetPool;
use self::observe::{Container, Observed, State};
use self::pulls::Pulls;
use self::stack::{Sight, Stack};
use super::{
    Action, Adoption, Backend, BackendError, Capabilities, ContainerUsage, Deployment, Guards, Holdings, HostInfo,
    Listed, LogQuery, LogStream, ObservedContainer, Owned, Plan, PlannedObject, Removed, ResolvedImages, Run,
    Sightings, Snapshot, Step, Survey, TenantRef, UndoNote, VolumeSize,
};
use crate::domain::{AgentId, BackendName, Generation, ImageInfo, ServiceName};
use crate::telemetry::Metrics;

/// The Docker Engine of this host.
pub struct DockerBackend {
    agent: AgentId,
    engine: Arc<Engine>,
    subnets: SubnetPool,
    leases: Leases,
    pulls: Pulls,
    /// Containers whose usage is being read.
    measuring: Semaphore,
    /// The time of the last event that a watch has read.
    read: Arc<sightings::Read>,
}

impl DockerBackend {
    /// An engine behind a Unix socket. Nothing is sent yet: the engine may start later than the agent.
    pub fn new(agent: AgentId, socket: PathBuf, subnet_pool: Subnet) -> Self {
        Self {
            agent,
            engine: Arc::new(Engine::at(socket, Ground { publish: None, pool: subnet_pool })),
            subnets: SubnetPool::new(subnet_pool),
            leases: Leases::default(),
            pulls: Pulls::default(),
            measuring: Semaphore::new(usage::AT_ONCE),
            read: Arc::default(),
        }
    }

    /// The address of this host on which tenants publish ports, and which ports. Without it, confined tenants publish
    /// nothing but what they are granted.
    #[must_use]
    pub fn publishing(mut self, host: IpAddr, ports: (u16, u16)) -> Self {
        let ground = Ground { publish: Some((host, ports)), ..self.engine.ground().clone() };
        let metrics = Arc::clone(self.engine.metrics());
        self.engine = Arc::new(Engine::at(self.engine.socket().to_owned(), ground).counting(metrics));
        self
    }

    /// Counts the engine's calls and pulls there.
    #[must_use]
    pub fn counting(mut self, metrics: Arc<Metrics>) -> Self {
        let engine = Engine::at(self.engine.socket().to_owned(), self.engine.ground().clone());
        self.engine = Arc::new(engine.counting(metrics));
        self
    }

    /// Asked before the first list or look of whatever somebody waits for: an engine that is frozen takes the connection and
    /// says nothing, and a list has the patience that a busy engine needs.
    async fn answers(&self) -> Result<(), BackendError> {
        self.engine.ping().await.map_err(|error| error.into_backend("asking whether it answers"))
    }

    async fn containers(&self, tenant: &TenantRef) -> Result<Vec<Container>, BackendError> {
        self.answers().await?;
        let listed = observe::containers(&self.engine, &labels::filter(tenant)).await;
        listed.map_err(|error| error.into_backend("listing containers"))
    }

    /// The containers of one service, or of all.
    async fn containers_of(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
    ) -> Result<Vec<Container>, BackendError> {
        if let Some(service) = service
            && deployment.service(service).is_none()
        {
            return Err(BackendError::NoSuchService { service: service.clone() });
        }
        let mut containers = self.containers(&deployment.tenant).await?;
        containers.retain(|container| service.is_none_or(|service| container.service == *service));
        Ok(containers)
    }

    /// Refuses what this engine cannot do.
    async fn check_gates(&self, wanted: &Deployment) -> Result<(), BackendError> {
        let asking = |error: EngineError| error.into_backend("asking for its version");
        let api = self.engine.api_version().await.map_err(asking)?;
        gates::check(wanted, api, self.engine.platform().await.map_err(asking)?)
    }

    async fn start_these(
        &self,
        deployment: &Deployment,
        containers: &[Container],
        needs_start: impl Fn(&Container) -> bool,
        run: &Run,
    ) -> Result<(), BackendError> {
        let known = containers.iter().filter(|container| deployment.service(&container.service).is_some());
        let steps = known.map(|container| {
            let object = PlannedObject::Container {
                service: container.service.clone(),
                number: container.number,
                name: container.name.clone(),
                existing: Some(container.id.clone()),
            };
            let starts = needs_start(container);
            let (action, reason) = if starts { (Action::Start, "does not run") } else { (Action::Keep, "as wanted") };
            Step { object, action, reason: reason.to_owned() }
        });
        // A single service is started whatever its dependencies do: they are simply not among these.
        let plan = Plan::of_steps(steps.collect(), deployment.project.project())?;
        let observed = Observed { containers: containers.to_vec(), ..Observed::default() };
        let images = ResolvedImages::new();
        let place = (&self.engine, &self.subnets, &Claims::default());
        Stack::new(place, (deployment, &images, &plan), Some(observed), run).carry_out().await.map(drop)
    }
}

/// Reads the engine's `SecurityOptions`, such as `name=seccomp,profile=builtin`.
fn guards(info: &SystemInfo) -> Guards {
    let has = |name: &str| {
        let named = |option: &String| option.split(',').any(|word| word.strip_prefix("name=") == Some(name));
        info.security_options.as_ref().map(|options| options.iter().any(named))
    };
    let unfiltered = |option: &String| option.contains("name=seccomp") && option.contains("profile=unconfined");
    let filters = |options: &Vec<String>| !options.iter().any(unfiltered);
    Guards {
        seccomp: has("seccomp").map(|has| has && info.security_options.as_ref().is_some_and(filters)),
        mandatory_access_control: has("apparmor").zip(has("selinux")).map(|(apparmor, selinux)| apparmor || selinux),
        user_namespaces: has("userns"),
        rootless: has("rootless"),
        live_restore: info.live_restore_enabled,
    }
}

/// Whether others wait for a service's completion and have it. Any other service that ended with code 0 may have been
/// stopped on request (the engine does not tell), so starting the tenant starts it again.
fn has_completed(deployment: &Deployment, container: &Container) -> bool {
    container.state == State::Exited(0) && deployment.project.project().is_awaited_by_completion(&container.service)
}

#[async_trait]
impl Backend for DockerBackend {
    fn name(&self) -> BackendName {
        BackendName::Docker
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { single_service: true, split_streams: true, partial_update: true, survives_agent: true }
    }

    async fn prepare(&self, wanted: &Deployment, run: &Run) -> Result<ResolvedImages, BackendError> {
        self.answers().await?;
        self.check_gates(wanted).await?;
        images::prepare(&self.engine, &self.pulls, wanted, run, None).await
    }

    async fn survey(&self, wanted: &Deployment, run: &Run) -> Result<Survey, BackendError> {
        self.answers().await?;
        self.check_gates(wanted).await?;
        let pulls = images::Survey::default();
        let images = images::prepare(&self.engine, &self.pulls, wanted, run, Some(&pulls)).await?;
        Ok(Survey { images, pulls: pulls.into_pulls() })
    }

    async fn adoptable(&self, wanted: &Deployment) -> Result<Adoption, BackendError> {
        self.answers().await?;
        let found = adoption::find(&self.engine, wanted).await?;
        // Their networks have subnets that are not of the pool.
        let looked = self.subnets.look_around(&self.engine).await;
        looked.map_err(|error| error.into_backend("listing networks"))?;
        Ok(found)
    }

    async fn plan(&self, wanted: &Deployment, images: &ResolvedImages, run: &Run) -> Result<Plan, BackendError> {
        let plan = apply::plan(&self.engine, wanted, images, run).await?;
        self.leases.check(&self.engine, wanted, &plan).await?;
        Ok(plan)
    }

    async fn apply(
        &self,
        wanted: &Deployment,
        images: &ResolvedImages,
        plan: &Plan,
        run: &Run,
    ) -> Result<Option<Snapshot>, BackendError> {
        let ports = self.leases.claim(&self.engine, wanted, plan).await?;
        let place = (&self.engine, &self.subnets, &ports);
        let sight = Stack::new(place, (wanted, images, plan), None, run).carry_out().await?;
        let settled = sight.filter(|sight| settle::is_settled(&sight.observed, wanted));
        Ok(settled.map(|Sight { as_of, observed }| Snapshot { as_of, containers: observed.standing() }))
    }

    async fn settle(
        &self,
        tenant: &TenantRef,
        committed: Generation,
        deployment: Option<&Deployment>,
        undo: Option<&UndoNote>,
    ) -> Result<(), BackendError> {
        settle::settle(&self.engine, &self.subnets, tenant, committed, deployment, undo).await
    }

    async fn remove(
        &self,
        tenant: &TenantRef,
        deployment: Option<&Deployment>,
        purge: bool,
        run: &Run,
    ) -> Result<Removed, BackendError> {
        self.answers().await?;
        settle::remove(&self.engine, tenant, deployment, purge, run).await
    }

    async fn is_outdated(&self, deployment: &Deployment) -> Result<bool, BackendError> {
        let containers = self.containers(&deployment.tenant).await?;
        let differs = |container: &Container| {
            let service = deployment.service(&container.service);
            service.is_none_or(|service| deployment.service_hash(service) != container.spec)
        };
        Ok(containers.iter().any(|container| !container.is_aside() && differs(container)))
    }

    async fn start(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        let containers = self.containers_of(deployment, service).await?;
        let ended = pending::await_stops(&self.engine, containers.iter()).await;
        let ended = ended.map_err(|error| error.into_backend("stopping a container"))?;
        let needs_start = |container: &Container| {
            let runs = matches!(container.state, State::Running | State::Restarting);
            ended.contains(&container.id) || (!runs && !has_completed(deployment, container))
        };
        self.start_these(deployment, &containers, needs_start, run).await
    }

    async fn stop(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        let containers = self.containers_of(deployment, service).await?;
        run.progress.report("stopping containers");
        stop::durably(&self.engine, deployment, &containers, run).await
    }

    async fn restart(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<(), BackendError> {
        let containers = self.containers_of(deployment, service).await?;
        let (done, running): (Vec<Container>, Vec<Container>) = containers
            .into_iter()
            // A completed one-shot is restarted only when it is asked for by name.
            .partition(|container| service.is_none() && has_completed(deployment, container));
        run.progress.report("stopping containers");
        stop::in_order(&self.engine, Some(deployment), &running, |_| {}, run).await?;
        let all: Vec<Container> = running.iter().chain(&done).cloned().collect();
        let needs_start = |container: &Container| running.iter().any(|other| other.id == container.id);
        self.start_these(deployment, &all, needs_start, run).await
    }

    async fn owned(&self, pulled: &BTreeSet<String>) -> Result<Vec<Owned>, BackendError> {
        self.answers().await?;
        let found = leftovers::find(&self.engine, &self.agent, pulled).await;
        found.map_err(|error| error.into_backend("listing what the agent has made"))
    }

    async fn gone(&self, images: &BTreeSet<String>) -> Result<BTreeSet<String>, BackendError> {
        let gone = leftovers::gone(&self.engine, images).await;
        gone.map_err(|error| error.into_backend("looking for images"))
    }

    async fn discard(&self, object: &Owned) -> Result<bool, BackendError> {
        let removed = leftovers::discard(&self.engine, &self.agent, object).await;
        removed.map_err(|error| error.into_backend("removing what is left over"))
    }

    async fn status(&self, tenant: &TenantRef) -> Result<Vec<ObservedContainer>, BackendError> {
        status::tenant(&self.engine, tenant).await.map_err(|error| error.into_backend("reading status"))
    }

    async fn tenants(&self) -> Result<Vec<ObservedContainer>, BackendError> {
        status::host(&self.engine, &self.agent).await.map_err(|error| error.into_backend("reading status"))
    }

    async fn listed(&self, tenant: &TenantRef) -> Result<Vec<Listed>, BackendError> {
        self.answers().await?;
        listing::tenant(&self.engine, tenant).await.map_err(|error| error.into_backend("listing containers"))
    }

    async fn watch(&self) -> Result<Sightings, BackendError> {
        sightings::watch(&self.engine, &self.agent, &self.read).await.map_err(|error| {
            // Tried again and again while the engine is away.
            tracing::debug!(%error, "the engine cannot be watched");
            BackendError::Unavailable
        })
    }

    async fn images(&self, tenant: &TenantRef) -> Result<Vec<ImageInfo>, BackendError> {
        self.answers().await?;
        status::images(&self.engine, tenant).await.map_err(|error| error.into_backend("reading images"))
    }

    async fn logs(&self, tenant: &TenantRef, query: &LogQuery) -> Result<LogStream, BackendError> {
        self.answers().await?;
        logs::stream(&self.engine, tenant, query).await
    }

    async fn usage(&self, tenant: Option<&TenantRef>) -> Result<Vec<ContainerUsage>, BackendError> {
        self.answers().await?;
        let filter = tenant.map_or_else(|| labels::filter_agent(&self.agent), labels::filter);
        let measured = usage::containers(&self.engine, &self.measuring, &filter).await;
        measured.map_err(|error| error.into_backend("reading usage"))
    }

    async fn holdings(&self) -> Result<Holdings, BackendError> {
        let looked = holdings::look(&self.engine, &self.leases, &self.subnets).await;
        looked.map_err(|error| error.into_backend("looking at what is left"))
    }

    async fn volume_sizes(&self) -> Result<Option<Vec<VolumeSize>>, BackendError> {
        let measured = async {
            let body = self.engine.volume_usage().await?;
            let containers = self.engine.containers(&labels::filter_agent(&self.agent)).await?;
            Ok::<_, EngineError>(usage::volume_sizes(&body, &self.agent, &usage::users(containers)))
        };
        measured.await.map_err(|error| error.into_backend("measuring volumes"))
    }

    fn is_tenant_address(&self, address: IpAddr) -> bool {
        self.subnets.peers().contains(address)
    }

    async fn is_pool_free(&self) -> Option<bool> {
        if !routes::are_the_hosts() {
            return None;
        }
        Some(check_pool(self.subnets.pool()).await.is_ok())
    }

    async fn host(&self) -> Result<HostInfo, BackendError> {
        let (version, info) = tokio::try_join!(self.engine.version(), self.engine.info())
            .map_err(|error| error.into_backend("asking about the host"))?;
        let guards = guards(&info);
        Ok(HostInfo {
            engine: "docker".to_owned(),
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
            os: info.os_type.unwrap_or_default(),
            arch: info.architecture.unwrap_or_default(),
            cpus: info.ncpu.and_then(|count| u64::try_from(count).ok()),
            guards,
            memory: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()),
            data_root: info.docker_root_dir.map(PathBuf::from),
        })
    }

    async fn health(&self) -> Result<(), BackendError> {
        let usable = async {
            self.engine.ping().await?;
            if !self.subnets.peers().has_learnt() {
                self.subnets.look_around(&self.engine).await?;
            }
            Ok::<_, EngineError>(())
        };
        usable.await.map_err(|error| {
            tracing::debug!(%error, "the engine does not answer");
            BackendError::Unavailable
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_of_an_engine() {
        let of = |options: Option<&[&str]>| {
            let security_options = options.map(|options| options.iter().map(|text| (*text).to_owned()).collect());
            guards(&SystemInfo { security_options, live_restore_enabled: Some(true), ..SystemInfo::default() })
        };
        let silent = Guards { live_restore: Some(true), ..Guards::default() };
        assert_eq!(of(None), silent);
        let none = Guards {
            seccomp: Some(false),
            mandatory_access_control: Some(false),
            user_namespaces: Some(false),
            rootless: Some(false),
            live_restore: Some(true),
        };
        assert_eq!(of(Some(&[])), none);
        assert_eq!(of(Some(&["name=seccomp,profile=unconfined"])), none);
        let all = of(Some(&["name=apparmor", "name=seccomp,profile=builtin", "name=userns", "name=cgroupns"]));
        let expected = Guards { mandatory_access_control: Some(true), user_namespaces: Some(true), ..none };
        assert_eq!(all, Guards { seccomp: Some(true), ..expected });
        assert_eq!(of(Some(&["name=rootless", "name=selinux"])).rootless, Some(true));
    }
}
