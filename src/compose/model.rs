//! The resolved project: what a Compose file means once everything in it has been read, interpolated and checked.
//!
//! Names follow the Compose Specification. Short forms are gone (a port is always a [`PortMapping`]), relative paths
//! are absolute, variables are values. Everything is ordered, so two loads of one text are equal byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use crate::domain::{ImageRef, ObjectKey, ObjectName, ProjectName, ServiceName};

/// A whole Compose project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Project {
    /// The project's name.
    pub name: ProjectName,
    /// The project directory, absolute and clean; every relative path of the file has been joined to it.
    pub directory: String,
    /// Enabled services (profiles that are not active are gone).
    pub services: BTreeMap<ServiceName, Service>,
    /// Services that exist in the file but whose profile is not active.
    pub disabled_services: BTreeSet<ServiceName>,
    /// Networks that an enabled service uses, the implicit `default` among them.
    pub networks: BTreeMap<ObjectKey, Network>,
    /// All declared volumes.
    pub volumes: BTreeMap<ObjectKey, Volume>,
    /// All declared configs.
    pub configs: BTreeMap<ObjectKey, FileObject>,
    /// All declared secrets.
    pub secrets: BTreeMap<ObjectKey, FileObject>,
}

/// One service. `None` means that the image's or the engine's default holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct Service {
    /// Where it comes from; a service with only `build` has the name docker compose would tag: `{project}-{service}`.
    pub image: ImageRef,
    /// `build` is present: the loader accepts it, no backend runs it.
    pub build: bool,
    pub pull_policy: PullPolicy,
    pub platform: Option<String>,
    pub container_name: Option<String>,
    pub replicas: u32,

    /// `Some([])` clears the image's command.
    pub command: Option<Vec<String>>,
    /// `Some([])` clears the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// `env_file`s and `environment` merged. A `None` value unsets what the image has.
    pub environment: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub init: Option<bool>,
    pub tty: bool,
    pub stdin_open: bool,
    pub read_only: bool,
    pub stop_signal: Option<String>,
    pub stop_grace_period: Option<Duration>,
    pub restart: RestartPolicy,

    pub depends_on: BTreeMap<ServiceName, Dependency>,
    pub healthcheck: Option<Healthcheck>,

    pub ports: Vec<PortMapping>,
    /// `80/tcp` and the like, in the order written.
    pub expose: Vec<ExposedPort>,
    pub network_mode: Option<NetworkMode>,
    pub networks: BTreeMap<ObjectKey, ServiceNetwork>,
    pub mac_address: Option<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_opt: Vec<String>,
    /// `host -> addresses`.
    pub extra_hosts: BTreeMap<String, Vec<String>>,

    /// Volumes, binds and tmpfs of `volumes`, in the order written.
    pub mounts: Vec<Mount>,
    /// The `tmpfs` attribute: path -> options.
    pub tmpfs: BTreeMap<String, String>,
    pub configs: Vec<FileReference>,
    pub secrets: Vec<FileReference>,

    pub resources: Resources,
    pub ulimits: BTreeMap<String, Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub logging: Option<Logging>,

    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: Vec<String>,
    pub devices: Vec<String>,
    pub device_cgroup_rules: Vec<String>,
    pub cgroup_parent: Option<String>,
    pub runtime: Option<String>,
    pub pid: Option<NamespaceMode>,
    pub ipc: Option<NamespaceMode>,
    pub uts: Option<NamespaceMode>,
    pub userns_mode: Option<NamespaceMode>,
    pub cgroup: Option<NamespaceMode>,
    pub oom_score_adj: Option<i64>,
    pub oom_kill_disable: bool,
}

/// Compose Specification, `pull_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// Before every apply.
    Always,
    /// The image must be there already.
    Never,
    /// When the image is not there: the default.
    Missing,
    /// `build`: no backend does it.
    Build,
}

/// Compose Specification, `restart`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never: the default.
    No,
    /// Whenever it ends.
    Always,
    /// When it ends with another code than 0, so many times at most.
    OnFailure(Option<u32>),
    /// Whenever it ends, unless somebody stopped it.
    UnlessStopped,
}

/// When a dependent may start (Compose Specification, `depends_on.condition`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::enum_variant_names, reason = "the words of the specification")]
pub enum Condition {
    /// Its containers run.
    ServiceStarted,
    /// Its containers are healthy.
    ServiceHealthy,
    /// Its containers have exited with code 0.
    ServiceCompletedSuccessfully,
}

/// One entry of `depends_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// What to wait for.
    pub condition: Condition,
    /// Restart this service when the dependency is recreated.
    pub restart: bool,
    /// `false`: its absence or failure is only a warning.
    pub required: bool,
}

/// Compose Specification, `healthcheck`. Absent members keep the image's or the engine's values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", text]` or `["NONE"]` (also for `disable: true`); none keeps the image's test.
    pub test: Option<Vec<String>>,
    /// Time between two checks.
    pub interval: Option<Duration>,
    /// Time after which a check has failed.
    pub timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
    /// Time in which failures do not count.
    pub start_period: Option<Duration>,
    /// Time between two checks within the start period (Engine API 1.44).
    pub start_interval: Option<Duration>,
}

impl Healthcheck {
    /// Whether it switches the image's healthcheck off.
    pub fn is_disabled(&self) -> bool {
        self.test.as_ref().is_some_and(|test| test.first().is_some_and(|word| word == "NONE"))
    }
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named after the protocols")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As in `80/tcp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// One container port published on the host (ranges that map one to one are already expanded).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortMapping {
    /// The container's port.
    pub target: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The host's address; none when the file names none.
    pub host_ip: Option<IpAddr>,
    /// The host's port, or the range from which the engine may take one; none for any free port.
    pub published: Option<(u16, u16)>,
}

/// One `expose` entry, ranges expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[allow(missing_docs, reason = "self-explaining")]
pub struct ExposedPort {
    pub port: u16,
    pub protocol: Protocol,
}

/// Compose Specification, `network_mode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// No network but loopback.
    None,
    /// The host's network namespace.
    Host,
    /// The engine's default bridge.
    Bridge,
    /// Another service's network namespace.
    Service(ServiceName),
    /// Some container's network namespace.
    Container(String),
    /// A network of this name in the engine.
    Named(String),
}

/// `pid`, `ipc`, `uts`, `userns_mode` and `cgroup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// The host's.
    Host,
    /// Its own.
    Private,
    /// Its own, and others may join it (`ipc` only).
    Shareable,
    /// None at all (`ipc` only).
    None,
    /// Another service's.
    Service(ServiceName),
    /// Some container's.
    Container(String),
}

/// A service's membership in one network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct ServiceNetwork {
    /// Additional names; the service's own name is always one.
    pub aliases: Vec<String>,
    pub ipv4_address: Option<String>,
    pub ipv6_address: Option<String>,
    pub link_local_ips: Vec<String>,
    pub mac_address: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub priority: i64,
}

/// One entry of a service's `volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute, clean path in the container.
    pub target: String,
    /// What the file says; none when it says nothing (the engine then mounts read-write).
    pub read_only: Option<bool>,
}

/// What a [`Mount`] mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub enum MountSource {
    /// A volume of the top-level `volumes`.
    Volume { key: ObjectKey, nocopy: bool, subpath: Option<String> },
    /// A volume that belongs to the container alone.
    Anonymous { nocopy: bool },
    /// A path of the host.
    Bind {
        /// Absolute and clean; a path that begins with `~` is as written.
        source: String,
        create_host_path: bool,
        propagation: Option<String>,
        selinux: Option<String>,
    },
    /// Memory.
    Tmpfs { size: Option<u64>, mode: Option<u32> },
}

/// A config or secret as a service uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct FileReference {
    /// Key under the top-level `configs` or `secrets`.
    pub source: ObjectKey,
    /// Absolute path in the container.
    pub target: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Permission bits; `0o444` when none are given.
    pub mode: Option<u32>,
}

/// A top-level config or secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileObject {
    /// Its name: `{project}_{key}` unless the file gives one.
    pub name: String,
    /// Where its content comes from.
    pub source: FileSource,
}

/// The one source of a config or secret.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSource {
    /// A file: its absolute path, and its bytes when it is a file of the request.
    File {
        /// Absolute and clean.
        path: String,
        /// None when the loader was not given this file.
        bytes: Option<Vec<u8>>,
    },
    /// Text in the Compose file itself.
    Content(String),
    /// A variable of the request's env file; the value is none when it is not set.
    Environment {
        /// The variable.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// An object that exists elsewhere.
    External,
}

impl std::fmt::Debug for FileSource {
    /// Without the content, which is a secret as often as not.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "File({path:?})"),
            Self::Content(_) => f.write_str("Content(…)"),
            Self::Environment { name, .. } => write!(f, "Environment({name:?})"),
            Self::External => f.write_str("External"),
        }
    }
}

impl FileSource {
    /// The content, when the loader had it.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::File { bytes, .. } => bytes.as_deref(),
            Self::Content(text) => Some(text.as_bytes()),
            Self::Environment { value, .. } => value.as_deref().map(str::as_bytes),
            Self::External => None,
        }
    }
}

/// Limits and shares, from the service's own attributes and from `deploy.resources` (which must agree).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct Resources {
    /// Billionths of a CPU (Engine API `NanoCpus`).
    pub nano_cpus: Option<i64>,
    pub cpu_shares: Option<i64>,
    pub cpu_quota: Option<i64>,
    pub cpu_period: Option<i64>,
    pub cpuset: Option<String>,
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes.
    pub memory_reservation: Option<i64>,
    /// Bytes of memory and swap together; -1 is no limit.
    pub memory_swap: Option<i64>,
    pub memory_swappiness: Option<i64>,
    pub pids: Option<i64>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<i64>,
}

/// Compose Specification, `ulimits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "self-explaining")]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

/// Compose Specification, `logging`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "self-explaining")]
pub struct Logging {
    pub driver: Option<String>,
    pub options: BTreeMap<String, String>,
}

/// A top-level network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct Network {
    /// The real name: `{project}_{key}` unless the file gives one (an external one: its key).
    pub name: ObjectName,
    pub external: bool,
    pub driver: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub internal: bool,
    pub attachable: bool,
    pub enable_ipv6: Option<bool>,
    pub labels: BTreeMap<String, String>,
    pub ipam: Option<Ipam>,
}

/// Compose Specification, `networks.*.ipam`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct Ipam {
    pub driver: Option<String>,
    pub options: BTreeMap<String, String>,
    pub config: Vec<IpamPool>,
}

/// One address pool of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct IpamPool {
    pub subnet: Option<String>,
    pub gateway: Option<String>,
    pub ip_range: Option<String>,
    pub aux_addresses: BTreeMap<String, String>,
}

/// A top-level volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct Volume {
    /// The real name: `{project}_{key}` unless the file gives one (an external one: its key).
    pub name: ObjectName,
    pub external: bool,
    pub driver: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

impl Project {
    /// The services that wait for this one's completion make it a one-shot: its exit with code 0 is its success.
    pub fn is_awaited_by_completion(&self, service: &ServiceName) -> bool {
        self.services.values().any(|other| {
            other
                .depends_on
                .get(service)
                .is_some_and(|dependency| dependency.condition == Condition::ServiceCompletedSuccessfully)
        })
    }

    /// The path relative to the project directory, `""` for the directory itself; none for paths outside it.
    pub fn relative<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.directory.as_str())?;
        if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
    }
}
