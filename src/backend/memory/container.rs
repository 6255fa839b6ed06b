//! One pretend container: what it was made from and how it is doing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use super::logs::Ring;
use super::shell::{Program, Unknown};
use crate::backend::converge::{KnownContainer, RunState};
use crate::backend::{
    Deployment, FailureDetails, Listed, LogOrigin, LogSource, ObservedContainer, ResolvedImage, TenantRef,
};
use crate::compose::{Healthcheck, MountSource, PortMapping, Protocol, RestartPolicy, Service};
use crate::domain::{
    ContainerId, ContainerName, ContainerStatus, Endpoint, Generation, Health, ImageInfo, ImageRef, ServiceName,
};

/// Files by path.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// How long a container may take to stop (Docker Engine default).
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// What a program inside a container is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// The container's stop signal.
    Stop,
    /// SIGKILL.
    Kill,
}

/// Where the files below a mount's target live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Store {
    /// In a volume of this name.
    Volume(String),
    /// In a directory of the host.
    Host(String),
}

/// A published port while its container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BoundPort {
    pub(super) host: IpAddr,
    pub(super) port: u16,
    pub(super) target: u16,
    pub(super) protocol: Protocol,
}

/// A healthcheck with its defaults filled in (Engine API `HealthConfig`).
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) program: Program,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) start_period: Duration,
    pub(super) start_interval: Duration,
}

impl Check {
    /// None when nothing is checked: the pretend images bring no test of their own.
    fn of(healthcheck: &Healthcheck) -> Option<Self> {
        let (kind, rest) = healthcheck.test.as_ref()?.split_first()?;
        let program = match kind.as_str() {
            "NONE" => return None,
            "CMD-SHELL" => Program::of_script(rest.first().map_or("", String::as_str)),
            _ => Program::of_words(rest, Unknown::Succeeds),
        };
        let interval = healthcheck.interval.unwrap_or(Duration::from_secs(30));
        Some(Self {
            program,
            interval,
            timeout: healthcheck.timeout.unwrap_or(Duration::from_secs(30)),
            retries: healthcheck.retries.unwrap_or(3).max(1),
            start_period: healthcheck.start_period.unwrap_or_default(),
            start_interval: healthcheck.start_interval.unwrap_or(interval),
        })
    }
}

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: ContainerId,
    /// The name it has now; another than `final_name` while it is set aside.
    pub(super) name: String,
    pub(super) final_name: ContainerName,
    pub(super) owner: TenantRef,
    pub(super) service: ServiceName,
    pub(super) number: u32,
    pub(super) generation: Generation,
    pub(super) spec: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) image: ImageRef,
    pub(super) image_id: String,
    pub(super) digest: Option<String>,
    pub(super) program: Program,
    /// The program as it was written.
    words: String,
    created: jiff::Timestamp,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) directory: String,
    pub(super) check: Option<Check>,
    pub(super) restart: RestartPolicy,
    pub(super) stop_signal: String,
    pub(super) grace: Duration,
    pub(super) ports: Vec<PortMapping>,
    /// Mount targets and what is behind them.
    pub(super) mounts: Vec<(String, Store)>,
    pub(super) networks: BTreeSet<String>,

    pub(super) state: RunState,
    pub(super) last_exit: Option<i64>,
    /// Stopped on request: nothing but a request starts it again.
    pub(super) stopped: bool,
    pub(super) health: Health,
    pub(super) health_output: Option<String>,
    pub(super) started_at: Option<jiff::Timestamp>,
    pub(super) restarts: u64,
    pub(super) bound: Vec<BoundPort>,
    pub(super) files: Files,
    pub(super) logs: Ring,
    /// Counts starts, so that a task of an earlier run cannot speak for a later one.
    pub(super) run: u64,
    /// Reaches the task that runs it.
    pub(super) signals: Option<UnboundedSender<Signal>>,
    pub(super) task: Option<AbortHandle>,
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Container {
    /// A created container that has never run.
    pub(super) fn new(
        wanted: &Deployment,
        service_name: &ServiceName,
        service: &Service,
        number: u32,
        name: &ContainerName,
        image: &ResolvedImage,
        networks: BTreeSet<String>,
    ) -> Self {
        let id = new_id();
        let project = wanted.project.project();
        let spec = wanted.service_hash(service);
        let mut environment: BTreeMap<String, String> =
            service.environment.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
        let hostname = service.hostname.clone().unwrap_or_else(|| id.short().to_owned());
        environment.entry(String::from("HOSTNAME")).or_insert(hostname);
        let words: Vec<String> =
            service.entrypoint.iter().flatten().chain(service.command.iter().flatten()).cloned().collect();
        let mut labels = service.labels.clone();
        labels.extend(
            [
                ("com.docker.compose.project", project.name.as_str()),
                ("com.docker.compose.service", service_name.as_str()),
                ("com.docker.compose.container-number", &number.to_string()),
                ("com.docker.compose.oneoff", "False"),
                ("com.docker.compose.config-hash", &spec),
                ("com.docker.compose.image", &image.id),
            ]
            .into_iter()
            .chain(owner_labels(&wanted.tenant, wanted.generation, &spec).iter().map(|(k, v)| (*k, v.as_str())))
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        Self {
            name: name.as_str().to_owned(),
            final_name: name.clone(),
            owner: wanted.tenant.clone(),
            service: service_name.clone(),
            number,
            generation: wanted.generation,
            spec,
            labels,
            image: service.image.clone(),
            image_id: image.id.clone(),
            digest: image.digest.clone(),
            program: Program::of_words(&words, Unknown::Serves),
            words: words.join(" "),
            created: jiff::Timestamp::now(),
            environment,
            directory: service.working_dir.clone().unwrap_or_else(|| String::from("/")),
            check: service.healthcheck.as_ref().and_then(Check::of),
            restart: service.restart_policy(),
            stop_signal: service.stop_signal.clone().unwrap_or_else(|| String::from("SIGTERM")),
            grace: service.stop_grace_period.unwrap_or(DEFAULT_GRACE),
            ports: service.ports.clone(),
            mounts: mounts(wanted, service),
            networks,
            state: RunState::Created,
            last_exit: None,
            stopped: false,
            health: Health::None,
            health_output: None,
            started_at: None,
            restarts: 0,
            bound: Vec::new(),
            files: given_files(wanted, service),
            logs: Ring::default(),
            run: 0,
            signals: None,
            task: None,
            id,
        }
    }

    /// Whether an unfinished apply has replaced it.
    pub(super) fn is_aside(&self) -> bool {
        self.name != self.final_name.as_str()
    }

    /// Takes it out of the way of the container that replaces it.
    pub(super) fn set_aside(&mut self) {
        self.name = format!("{}_{}", self.id.short(), self.final_name);
    }

    /// Gives it its place back.
    pub(super) fn bring_back(&mut self) {
        self.final_name.as_str().clone_into(&mut self.name);
    }

    /// Whether its restart policy starts it again after this exit.
    pub(super) fn restarts_after(&self, code: i64) -> bool {
        !self.stopped
            && match self.restart {
                RestartPolicy::No => false,
                RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
                RestartPolicy::OnFailure(limit) => {
                    code != 0 && limit.is_none_or(|limit| self.restarts < u64::from(limit))
                }
            }
    }

    /// Where a path's file lives: in a store, under a path there, or in the container itself.
    pub(super) fn locate(&self, path: &str) -> (Option<&Store>, String) {
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.directory.trim_end_matches('/'))
        };
        let below = |target: &str| {
            path.strip_prefix(target.trim_end_matches('/')).filter(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mount =
            self.mounts.iter().filter(|(target, _)| below(target).is_some()).max_by_key(|(target, _)| target.len());
        match mount {
            Some((target, store)) => (Some(store), below(target).unwrap_or_default().to_owned()),
            None => (None, path),
        }
    }

    /// For the planner.
    pub(super) fn known(&self) -> KnownContainer {
        KnownContainer {
            id: self.id.clone(),
            name: self.final_name.clone(),
            service: self.service.clone(),
            number: self.number,
            spec: self.spec.clone(),
            image: self.image_id.clone(),
            state: self.state,
            stopped: self.stopped,
            networks: self.networks.clone(),
        }
    }

    /// What it leaves behind when it fails.
    pub(super) fn failure(&self) -> FailureDetails {
        FailureDetails {
            exit_code: self.last_exit.filter(|_| self.state != RunState::Running),
            health_output: self.health_output.clone(),
            logs: self.logs.last_words(),
        }
    }

    /// For status.
    pub(super) fn observed(&self) -> ObservedContainer {
        let state = match self.state {
            RunState::Created => "created",
            RunState::Running => "running",
            RunState::Restarting => "restarting",
            RunState::Exited(_) => "exited",
        };
        ObservedContainer {
            tenant: self.owner.subdomain.clone(),
            owner: self.owner.id.clone(),
            service: self.service.clone(),
            number: self.number,
            status: ContainerStatus {
                name: self.final_name.clone(),
                id: self.id.clone(),
                state: state.to_owned(),
                health: self.health,
                exit_code: self.last_exit.filter(|_| self.state != RunState::Running),
                started_at: self.started_at,
                restart_count: self.restarts,
                image: self.image.to_string(),
                oom_killed: false,
                health_output: self
                    .health_output
                    .clone()
                    .filter(|output| !output.is_empty() && matches!(self.health, Health::Starting | Health::Unhealthy)),
                last_exits: Vec::new(),
                crash_loop: false,
            },
            endpoints: self
                .bound
                .iter()
                .map(|bound| Endpoint {
                    service: self.service.clone(),
                    port: bound.target,
                    protocol: bound.protocol.as_str().to_owned(),
                    host: bound.host.to_string(),
                    host_port: bound.port,
                    address: None,
                })
                .collect(),
        }
    }

    /// For lists that people read.
    pub(super) fn listed(&self) -> Listed {
        let container = self.observed();
        let status = match (self.state, self.health) {
            (RunState::Running, Health::None) => "Up".to_owned(),
            (RunState::Running, Health::Starting) => "Up (health: starting)".to_owned(),
            (RunState::Running, Health::Healthy) => "Up (healthy)".to_owned(),
            (RunState::Running, Health::Unhealthy) => "Up (unhealthy)".to_owned(),
            (RunState::Created, _) => "Created".to_owned(),
            (RunState::Restarting, _) => format!("Restarting ({})", self.last_exit.unwrap_or_default()),
            (RunState::Exited(code), _) => format!("Exited ({code})"),
        };
        let volumes: Vec<String> = self
            .mounts
            .iter()
            .filter_map(|(_, store)| match store {
                Store::Volume(name) => Some(name.clone()),
                Store::Host(_) => None,
            })
            .collect();
        let own = |name: &str| name.starts_with("com.docker.compose.") || name.starts_with("dev.q8.");
        Listed {
            command: self.words.clone(),
            created: self.created,
            local_volumes: volumes.len(),
            mounts: volumes,
            networks: self.networks.iter().cloned().collect(),
            status,
            labels: self.labels.iter().filter(|(name, _)| own(name)).map(|(a, b)| (a.clone(), b.clone())).collect(),
            ports: container.endpoints.clone(),
            container,
        }
    }

    /// The image it was made from. Pretend images have no bytes and no date.
    pub(super) fn image_info(&self) -> ImageInfo {
        ImageInfo {
            service: self.service.clone(),
            container: self.final_name.clone(),
            image: self.image.to_string(),
            id: self.image_id.clone(),
            digest: self.digest.clone(),
            tag: self.image.tag().map(str::to_owned),
            size: 0,
            created: None,
        }
    }

    /// For its log lines.
    pub(super) fn log_origin(&self) -> LogOrigin {
        LogOrigin {
            source: LogSource::of(&self.id),
            container: self.final_name.clone(),
            service: self.service.clone(),
            number: self.number,
        }
    }
}

/// The labels that say whose object it is (design: "ownership").
fn owner_labels(tenant: &TenantRef, generation: Generation, spec: &str) -> [(&'static str, String); 5] {
    [
        ("dev.q8.agent", tenant.agent.to_string()),
        ("dev.q8.tenant", tenant.subdomain.to_string()),
        ("dev.q8.id", tenant.id.to_string()),
        ("dev.q8.generation", generation.to_string()),
        ("dev.q8.spec", spec.to_owned()),
    ]
}

fn new_id() -> ContainerId {
    let text = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    ContainerId::parse(&text).expect("two UUIDs are 64 hexadecimal digits")
}

/// Volumes and the writable directories of the host; whatever else is mounted starts as a copy ([`given_files`]).
fn mounts(wanted: &Deployment, service: &Service) -> Vec<(String, Store)> {
    let project = wanted.project.project();
    let mut mounts = Vec::new();
    for mount in &service.mounts {
        let store = match &mount.source {
            MountSource::Volume { key, subpath, .. } => match project.volumes.get(key) {
                Some(volume) if subpath.is_none() => Store::Volume(volume.name.to_string()),
                _ => continue,
            },
            MountSource::Bind { source, .. } if is_data(project.relative(source)) => Store::Host(source.clone()),
            _ => continue,
        };
        mounts.push((mount.target.clone(), store));
    }
    mounts
}

fn is_data(relative: Option<&str>) -> bool {
    relative.is_some_and(|path| path == "data" || path.starts_with("data/"))
}

/// The request's files, configs and secrets where the service mounts them.
fn given_files(wanted: &Deployment, service: &Service) -> Files {
    let project = wanted.project.project();
    let mut files = Files::new();
    for (references, objects) in [(&service.configs, &project.configs), (&service.secrets, &project.secrets)] {
        for reference in references {
            if let Some(bytes) = objects.get(&reference.source).and_then(|object| object.source.bytes()) {
                files.insert(reference.target.clone(), bytes.to_vec());
            }
        }
    }
    for mount in &service.mounts {
        let MountSource::Bind { source, .. } = &mount.source else { continue };
        let Some(bound) = project.relative(source) else { continue };
        for (path, file) in &wanted.files {
            let rest = if bound.is_empty() { Some("") } else { path.as_str().strip_prefix(bound) };
            let target = match rest {
                Some("") if !bound.is_empty() => mount.target.clone(),
                Some(rest) if bound.is_empty() || rest.starts_with('/') => {
                    let rest = if bound.is_empty() { path.as_str() } else { &rest[1..] };
                    format!("{}/{rest}", mount.target.trim_end_matches('/'))
                }
                _ => continue,
            };
            files.insert(target, file.bytes.clone());
        }
    }
    files
}
