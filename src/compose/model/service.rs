//! One service of a project.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{
    BlkioConfig, Condition, Deploy, DeviceRequest, Exposed, FileReference, Healthcheck, Hook, Logging, Mount,
    NamespaceMode, NetworkMode, PortMapping, PullPolicy, Resources, RestartPolicy, ServiceNetwork, TmpfsMount, Ulimit,
    VolumesFrom,
};
use crate::domain::{ImageRef, ObjectKey, ServiceName};

/// One service. `None` means that the image's or the engine's default holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct Service {
    /// Where it comes from; a service with only `build` has the name docker compose would tag: `{project}-{service}`.
    pub image: ImageRef,
    /// The file has no `image`: the name above follows from `build`.
    pub image_is_implied: bool,
    /// How to build it, as docker compose prints it; no backend does.
    pub build: Option<Value>,
    /// Attributes that no backend runs (`provider`, `develop`, `models`, …), as docker compose prints them.
    pub foreign: BTreeMap<String, Value>,
    pub profiles: Vec<String>,
    pub attach: Option<bool>,
    /// None: when the image is not there.
    pub pull_policy: Option<PullPolicy>,
    pub platform: Option<String>,
    pub container_name: Option<String>,
    pub scale: Option<u32>,
    pub deploy: Option<Deploy>,

    /// `Some([])` clears the image's command.
    pub command: Option<Vec<String>>,
    /// `Some([])` clears the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// `env_file`s and `environment` merged. A `None` value unsets what the image has.
    pub environment: BTreeMap<String, Option<String>>,
    /// `label_file`s and `labels` merged.
    pub labels: BTreeMap<String, String>,
    /// The `label_file`s that the loader was not given: absolute paths.
    pub missing_label_files: Vec<String>,
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
    /// The service's own `restart`; what holds is [`Service::restart_policy`].
    pub restart: Option<RestartPolicy>,
    pub post_start: Vec<Hook>,
    pub pre_stop: Vec<Hook>,

    /// Services that exist and are enabled.
    pub depends_on: BTreeMap<ServiceName, Dependency>,
    /// Services that do not exist or are disabled, and are not required.
    pub absent_dependencies: BTreeMap<ServiceName, Dependency>,
    pub healthcheck: Option<Healthcheck>,

    pub ports: Vec<PortMapping>,
    /// In the order written.
    pub expose: Vec<Exposed>,
    pub network_mode: Option<NetworkMode>,
    pub networks: BTreeMap<ObjectKey, ServiceNetwork>,
    pub mac_address: Option<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_opt: Vec<String>,
    /// `host -> addresses`.
    pub extra_hosts: BTreeMap<String, Vec<String>>,
    /// `service` or `service:alias`.
    pub links: Vec<Link>,
    /// `container` or `container:alias`, containers of other projects.
    pub external_links: Vec<String>,

    /// Volumes, binds and tmpfs of `volumes`, in the order written.
    pub mounts: Vec<Mount>,
    /// The `tmpfs` attribute, in the order written.
    pub tmpfs: Vec<TmpfsMount>,
    pub volumes_from: Vec<VolumesFrom>,
    pub configs: Vec<FileReference>,
    pub secrets: Vec<FileReference>,
    pub storage_opt: BTreeMap<String, String>,

    /// The service's own attributes; what holds is [`Service::limits`].
    pub resources: Resources,
    pub blkio_config: Option<BlkioConfig>,
    pub ulimits: BTreeMap<String, Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub logging: Option<Logging>,

    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: Vec<String>,
    pub devices: Vec<String>,
    pub device_cgroup_rules: Vec<String>,
    pub gpus: Vec<DeviceRequest>,
    pub cgroup_parent: Option<String>,
    pub runtime: Option<String>,
    pub isolation: Option<String>,
    pub pid: Option<NamespaceMode>,
    pub ipc: Option<NamespaceMode>,
    pub uts: Option<NamespaceMode>,
    pub userns_mode: Option<NamespaceMode>,
    pub cgroup: Option<NamespaceMode>,
    pub oom_score_adj: Option<i64>,
    pub oom_kill_disable: bool,
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

/// One entry of `links`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The service that is linked to.
    pub service: ServiceName,
    /// A further name for it, in this service alone.
    pub alias: Option<String>,
}

impl Service {
    /// A service that says nothing but its image.
    pub fn of(image: ImageRef) -> Self {
        Self {
            image,
            image_is_implied: false,
            build: None,
            foreign: BTreeMap::new(),
            profiles: Vec::new(),
            attach: None,
            pull_policy: None,
            platform: None,
            container_name: None,
            scale: None,
            deploy: None,
            command: None,
            entrypoint: None,
            environment: BTreeMap::new(),
            labels: BTreeMap::new(),
            missing_label_files: Vec::new(),
            annotations: BTreeMap::new(),
            user: None,
            group_add: Vec::new(),
            working_dir: None,
            hostname: None,
            domainname: None,
            init: None,
            tty: false,
            stdin_open: false,
            read_only: false,
            stop_signal: None,
            stop_grace_period: None,
            restart: None,
            post_start: Vec::new(),
            pre_stop: Vec::new(),
            depends_on: BTreeMap::new(),
            absent_dependencies: BTreeMap::new(),
            healthcheck: None,
            ports: Vec::new(),
            expose: Vec::new(),
            network_mode: None,
            networks: BTreeMap::new(),
            mac_address: None,
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_opt: Vec::new(),
            extra_hosts: BTreeMap::new(),
            links: Vec::new(),
            external_links: Vec::new(),
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            volumes_from: Vec::new(),
            configs: Vec::new(),
            secrets: Vec::new(),
            storage_opt: BTreeMap::new(),
            resources: Resources::default(),
            blkio_config: None,
            ulimits: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            logging: None,
            privileged: false,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            security_opt: Vec::new(),
            devices: Vec::new(),
            device_cgroup_rules: Vec::new(),
            gpus: Vec::new(),
            cgroup_parent: None,
            runtime: None,
            isolation: None,
            pid: None,
            ipc: None,
            uts: None,
            userns_mode: None,
            cgroup: None,
            oom_score_adj: None,
            oom_kill_disable: false,
        }
    }

    /// How many containers it has: `scale`, `deploy.replicas` (which agree), else one.
    pub fn replicas(&self) -> u32 {
        self.scale.or_else(|| self.deploy.as_ref()?.replicas).unwrap_or(1)
    }

    /// The restart policy that holds: `deploy.restart_policy.condition` before `restart`, else none.
    pub fn restart_policy(&self) -> RestartPolicy {
        let deployed = self.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref()?.as_restart());
        deployed.or(self.restart).unwrap_or(RestartPolicy::No)
    }

    /// The limits that hold: those of `deploy.resources` before the service's own (where both speak they agree).
    pub fn limits(&self) -> Resources {
        let mut limits = self.resources.clone();
        if let Some(deploy) = &self.deploy {
            deploy.resources.limit(&mut limits);
        }
        limits
    }

    /// The devices it asks for: `gpus` and `deploy.resources.reservations.devices`.
    pub fn device_requests(&self) -> impl Iterator<Item = &DeviceRequest> {
        let reserved = self.deploy.iter().flat_map(|deploy| &deploy.resources.reservations.devices);
        self.gpus.iter().chain(reserved)
    }

    /// The services whose namespaces it shares, each with the attribute that says so.
    pub fn namespace_parents(&self) -> impl Iterator<Item = (&'static str, &ServiceName)> {
        let network = match &self.network_mode {
            Some(NetworkMode::Service(name)) => Some(("network_mode", name)),
            _ => None,
        };
        let others = [
            ("pid", &self.pid),
            ("ipc", &self.ipc),
            ("uts", &self.uts),
            ("userns_mode", &self.userns_mode),
            ("cgroup", &self.cgroup),
        ];
        network.into_iter().chain(others.into_iter().filter_map(|(attribute, mode)| match mode {
            Some(NamespaceMode::Service(name)) => Some((attribute, name)),
            _ => None,
        }))
    }
}
