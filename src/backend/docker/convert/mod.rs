//! From a service of the allowed project to the engine's create request. Pure; facts/attributes follow the Engine API's
//! `ContainerCreate` (`Config`, `HostConfig`, `NetworkingConfig`).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount as EngineMount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountImageOptions, MountTmpfsOptions, MountType, MountVolumeOptions,
    NetworkingConfig, PortBinding, ResourcesUlimits, RestartPolicy as EngineRestart, RestartPolicyNameEnum,
};

use super::labels;
use crate::backend::{BackendError, Deployment};
use crate::compose::{
    FileObject, FileReference, Healthcheck, Mount, MountSource, NamespaceMode, NetworkMode, RestartPolicy, Service,
    ServiceNetwork,
};
use crate::domain::{ContainerId, DesiredState, ObjectKey, ServiceName};

/// What the request depends on besides the service itself.
pub(super) struct Surroundings<'a> {
    /// The container's number within the service.
    pub(super) number: u32,
    /// The name it will have.
    pub(super) container_name: &'a str,
    /// The image reference or id to run.
    pub(super) image: &'a str,
    /// The image's id.
    pub(super) image_id: &'a str,
    /// The first container of each service, for `service:x` namespaces.
    pub(super) containers: &'a BTreeMap<ServiceName, ContainerId>,
    /// Anonymous volumes of the container that this one replaces: volume name -> path.
    pub(super) inherited: &'a BTreeMap<String, String>,
    /// Whether the engine takes several networks at once (Engine API 1.44).
    pub(super) many_networks: bool,
}

/// A create request, and the networks that have to be connected in calls of their own.
pub(super) struct Request {
    pub(super) body: ContainerCreateBody,
    pub(super) connect_later: Vec<(String, EndpointSettings)>,
}

/// Builds the create request of one container.
pub(super) fn container(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
    around: &Surroundings<'_>,
) -> Result<Request, BackendError> {
    let spec = deployment.service_hash(service);
    let Connections { mode, at_creation, later } = networks(deployment, name, service, around)?;
    let exposed: Vec<String> = {
        let published = service.ports.iter().map(|port| format!("{}/{}", port.target, port.protocol.as_str()));
        let exposed = service.expose.iter().flat_map(|exposed| {
            (exposed.ports.0..=exposed.ports.1).map(|port| format!("{port}/{}", exposed.protocol.as_str()))
        });
        let mut all: Vec<String> = published.chain(exposed).collect();
        all.sort();
        all.dedup();
        all
    };
    let body = ContainerCreateBody {
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        user: service.user.clone(),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        exposed_ports: some(exposed),
        tty: Some(service.tty),
        open_stdin: Some(service.stdin_open),
        env: some(
            service
                .environment
                .iter()
                .map(|(key, value)| value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}")))
                .collect(),
        ),
        cmd: service.command.clone(),
        entrypoint: service.entrypoint.clone(),
        healthcheck: service.healthcheck.as_ref().map(healthcheck),
        image: Some(around.image.to_owned()),
        working_dir: service.working_dir.clone(),
        labels: Some(labels::container(deployment, name, service, around.number, &spec, around.image_id)),
        stop_signal: service.stop_signal.clone(),
        stop_timeout: service.stop_grace_period.map(whole_seconds),
        host_config: Some(host_config(deployment, name, service, around, mode)?),
        networking_config: at_creation.map(|endpoints| NetworkingConfig { endpoints_config: Some(endpoints) }),
        ..Default::default()
    };
    Ok(Request { body, connect_later: later })
}

fn host_config(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
    around: &Surroundings<'_>,
    network_mode: String,
) -> Result<HostConfig, BackendError> {
    let resources = &service.limits();
    let namespace = |mode: &Option<NamespaceMode>, field: &str| {
        mode.as_ref().map(|mode| namespace(mode, around, &format!("services.{name}.{field}"))).transpose()
    };
    Ok(HostConfig {
        network_mode: Some(network_mode),
        port_bindings: port_bindings(service),
        restart_policy: Some(match deployment.desired {
            // The engine would start a container that was never run when it starts itself, policy permitting.
            DesiredState::Stopped => restart_policy(RestartPolicy::No),
            DesiredState::Running => restart_policy(service.restart_policy()),
        }),
        mounts: some(mounts(deployment, name, service, around)?),
        tmpfs: some_map(&service.tmpfs.iter().map(|mount| (mount.path.clone(), mount.options.clone())).collect()),
        init: service.init,
        readonly_rootfs: Some(service.read_only),
        group_add: some(service.group_add.clone()),
        dns: some(service.dns.clone()),
        dns_search: some(service.dns_search.clone()),
        dns_options: some(service.dns_opt.clone()),
        extra_hosts: some(
            service
                .extra_hosts
                .iter()
                .flat_map(|(host, addresses)| addresses.iter().map(move |address| format!("{host}:{address}")))
                .collect(),
        ),
        nano_cpus: resources.nano_cpus,
        cpu_shares: resources.cpu_shares,
        cpu_quota: resources.cpu_quota,
        cpu_period: resources.cpu_period,
        cpuset_cpus: resources.cpuset.clone(),
        memory: resources.memory,
        memory_reservation: resources.memory_reservation,
        memory_swap: resources.memory_swap,
        memory_swappiness: resources.memory_swappiness,
        pids_limit: resources.pids,
        shm_size: resources.shm_size,
        ulimits: some(
            service
                .ulimits
                .iter()
                .map(|(name, limit)| ResourcesUlimits {
                    name: Some(name.clone()),
                    soft: Some(limit.soft),
                    hard: Some(limit.hard),
                })
                .collect(),
        ),
        sysctls: some_map(&service.sysctls),
        log_config: service
            .logging
            .as_ref()
            .map(|logging| HostConfigLogConfig { typ: logging.driver.clone(), config: some_map(&logging.options) }),
        privileged: Some(service.privileged),
        cap_add: some(service.cap_add.clone()),
        cap_drop: some(service.cap_drop.clone()),
        security_opt: some(service.security_opt.clone()),
        devices: some(service.devices.iter().map(|text| device(text)).collect()),
        device_cgroup_rules: some(service.device_cgroup_rules.clone()),
        cgroup_parent: service.cgroup_parent.clone(),
        runtime: service.runtime.clone(),
        pid_mode: namespace(&service.pid, "pid")?,
        ipc_mode: namespace(&service.ipc, "ipc")?,
        uts_mode: namespace(&service.uts, "uts")?,
        userns_mode: namespace(&service.userns_mode, "userns_mode")?,
        cgroupns_mode: service.cgroup.as_ref().map(|mode| match mode {
            NamespaceMode::Host => HostConfigCgroupnsModeEnum::HOST,
            _ => HostConfigCgroupnsModeEnum::PRIVATE,
        }),
        oom_score_adj: service.oom_score_adj,
        oom_kill_disable: Some(service.oom_kill_disable),
        annotations: some_map(&service.annotations),
        ..Default::default()
    })
}

/// Lists that say nothing are left out of the request.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

fn some_map(map: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    if map.is_empty() { None } else { Some(map.clone().into_iter().collect()) }
}

/// The engine counts whole seconds; half a second rounded down would be an immediate SIGKILL.
fn whole_seconds(duration: Duration) -> i64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    HealthConfig {
        test: check.test.clone(),
        interval: check.interval.map(nanoseconds),
        timeout: check.timeout.map(nanoseconds),
        retries: check.retries.map(i64::from),
        start_period: check.start_period.map(nanoseconds),
        start_interval: check.start_interval.map(nanoseconds),
    }
}

/// The engine's form of a restart policy.
pub(super) fn restart_policy(policy: RestartPolicy) -> EngineRestart {
    let (name, count) = match policy {
        RestartPolicy::No => (RestartPolicyNameEnum::NO, None),
        RestartPolicy::Always => (RestartPolicyNameEnum::ALWAYS, None),
        RestartPolicy::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        RestartPolicy::OnFailure(count) => (RestartPolicyNameEnum::ON_FAILURE, count),
    };
    EngineRestart { name: Some(name), maximum_retry_count: count.map(i64::from) }
}

fn port_bindings(service: &Service) -> Option<HashMap<String, Option<Vec<PortBinding>>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &service.ports {
        let host_port = port.host_ports().map_or_else(String::new, |(first, last)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        });
        let binding = PortBinding { host_ip: port.host_ip.map(|ip| ip.to_string()), host_port: Some(host_port) };
        let key = format!("{}/{}", port.target, port.protocol.as_str());
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    if bindings.is_empty() { None } else { Some(bindings) }
}

fn device(text: &str) -> DeviceMapping {
    let mut parts = text.splitn(3, ':');
    let host = parts.next().unwrap_or_default().to_owned();
    let inside = parts.next().map_or_else(|| host.clone(), str::to_owned);
    let permissions = parts.next().unwrap_or("rwm").to_owned();
    DeviceMapping { path_on_host: Some(host), path_in_container: Some(inside), cgroup_permissions: Some(permissions) }
}

fn namespace(mode: &NamespaceMode, around: &Surroundings<'_>, field: &str) -> Result<String, BackendError> {
    Ok(match mode {
        NamespaceMode::Host => "host".to_owned(),
        NamespaceMode::Private => "private".to_owned(),
        NamespaceMode::Shareable => "shareable".to_owned(),
        NamespaceMode::None => "none".to_owned(),
        NamespaceMode::Container(container) => format!("container:{container}"),
        NamespaceMode::Service(service) => format!("container:{}", container_of(service, around, field)?),
    })
}

fn container_of<'a>(
    service: &ServiceName,
    around: &'a Surroundings<'_>,
    field: &str,
) -> Result<&'a ContainerId, BackendError> {
    around.containers.get(service).ok_or_else(|| BackendError::Unsupported {
        field: field.to_owned(),
        reason: format!("service {service} has no container to share"),
    })
}

type Endpoints = HashMap<String, EndpointSettings>;

/// How a container is connected.
struct Connections {
    /// `HostConfig.NetworkMode`.
    mode: String,
    /// The endpoints of the create request.
    at_creation: Option<Endpoints>,
    /// Those that have to be connected afterwards.
    later: Vec<(String, EndpointSettings)>,
}

fn networks(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
    around: &Surroundings<'_>,
) -> Result<Connections, BackendError> {
    let without_networks = |mode: String| Connections { mode, at_creation: None, later: Vec::new() };
    if let Some(mode) = &service.network_mode {
        let mode = match mode {
            NetworkMode::None => "none".to_owned(),
            NetworkMode::Host => "host".to_owned(),
            NetworkMode::Bridge => "bridge".to_owned(),
            NetworkMode::Container(container) => format!("container:{container}"),
            NetworkMode::Named(network) => network.clone(),
            NetworkMode::Service(other) => {
                format!("container:{}", container_of(other, around, &format!("services.{name}.network_mode"))?)
            }
        };
        return Ok(without_networks(mode));
    }
    let mut joined: Vec<(&ObjectKey, &ServiceNetwork)> = service.networks.iter().collect();
    joined.sort_by(|(a_key, a), (b_key, b)| b.priority.cmp(&a.priority).then(a_key.cmp(b_key)));
    let mut endpoints = joined.into_iter().filter_map(|(key, membership)| {
        let network = deployment.project.project().networks.get(key)?;
        Some((network.name.as_str().to_owned(), endpoint(name, membership, service, around)))
    });
    let Some((mode, settings)) = endpoints.next() else { return Ok(without_networks("none".to_owned())) };
    let mut at_creation = Endpoints::from([(mode.clone(), settings)]);
    let mut later: Vec<(String, EndpointSettings)> = endpoints.collect();
    if around.many_networks {
        at_creation.extend(later.drain(..));
    }
    Ok(Connections { mode, at_creation: Some(at_creation), later })
}

/// One membership, as at creation and as when a container is connected again.
pub(super) fn endpoint(
    name: &ServiceName,
    membership: &ServiceNetwork,
    service: &Service,
    around: &Surroundings<'_>,
) -> EndpointSettings {
    let mut aliases = vec![around.container_name.to_owned(), name.as_str().to_owned()];
    aliases.extend(membership.aliases.iter().cloned());
    let addressed =
        membership.ipv4_address.is_some() || membership.ipv6_address.is_some() || !membership.link_local_ips.is_empty();
    EndpointSettings {
        aliases: Some(aliases),
        mac_address: membership.mac_address.clone().or_else(|| service.mac_address.clone()),
        ipam_config: addressed.then(|| EndpointIpamConfig {
            ipv4_address: membership.ipv4_address.clone(),
            ipv6_address: membership.ipv6_address.clone(),
            link_local_ips: some(membership.link_local_ips.clone()),
        }),
        driver_opts: some_map(&membership.driver_opts),
        ..Default::default()
    }
}

/// All mounts as `Mounts`, never `Binds`: the engine makes a missing source of a bind as a root-owned directory.
fn mounts(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
    around: &Surroundings<'_>,
) -> Result<Vec<EngineMount>, BackendError> {
    let project = deployment.project.project();
    let mut mounts = Vec::new();
    for (index, mount) in service.mounts.iter().enumerate() {
        mounts.push(engine_mount(deployment, mount, &format!("services.{name}.volumes[{index}]"))?);
    }
    let files = [("configs", &service.configs, &project.configs), ("secrets", &service.secrets, &project.secrets)];
    for (field, references, objects) in files {
        for (index, reference) in references.iter().enumerate() {
            mounts.push(file_mount(deployment, reference, objects, &format!("services.{name}.{field}[{index}]"))?);
        }
    }
    for (volume, path) in around.inherited {
        match mounts.iter_mut().find(|mount| mount.target.as_deref() == Some(path)) {
            // The file's own anonymous volume: it is the one that the container before had.
            Some(mount) if mount.typ == Some(MountType::VOLUME) && mount.source.is_none() => {
                mount.source = Some(volume.clone());
            }
            Some(_) => {}
            // The image's.
            None => mounts.push(EngineMount {
                typ: Some(MountType::VOLUME),
                source: Some(volume.clone()),
                target: Some(path.clone()),
                ..Default::default()
            }),
        }
    }
    Ok(mounts)
}

fn engine_mount(deployment: &Deployment, mount: &Mount, field: &str) -> Result<EngineMount, BackendError> {
    let unsupported = |reason: &str| BackendError::Unsupported { field: field.to_owned(), reason: reason.to_owned() };
    let mut result =
        EngineMount { target: Some(mount.target.clone()), read_only: mount.read_only, ..Default::default() };
    match &mount.source {
        MountSource::Volume { key, nocopy, subpath, .. } => {
            let volume = deployment.project.project().volumes.get(key);
            let volume = volume.ok_or_else(|| unsupported("the volume is not declared"))?;
            result.typ = Some(MountType::VOLUME);
            result.source = Some(volume.name.as_str().to_owned());
            if *nocopy || subpath.is_some() {
                let no_copy = nocopy.then_some(true);
                result.volume_options =
                    Some(MountVolumeOptions { no_copy, subpath: subpath.clone(), ..Default::default() });
            }
        }
        MountSource::Anonymous { nocopy, .. } => {
            result.typ = Some(MountType::VOLUME);
            if *nocopy {
                result.volume_options = Some(MountVolumeOptions { no_copy: Some(true), ..Default::default() });
            }
        }
        MountSource::Bind { source, propagation, .. } => {
            result.typ = Some(MountType::BIND);
            result.source = Some(source.clone());
            let propagation = match propagation.as_deref() {
                None => None,
                Some("private") => Some(MountBindOptionsPropagationEnum::PRIVATE),
                Some("rprivate") => Some(MountBindOptionsPropagationEnum::RPRIVATE),
                Some("shared") => Some(MountBindOptionsPropagationEnum::SHARED),
                Some("rshared") => Some(MountBindOptionsPropagationEnum::RSHARED),
                Some("slave") => Some(MountBindOptionsPropagationEnum::SLAVE),
                Some("rslave") => Some(MountBindOptionsPropagationEnum::RSLAVE),
                Some(_) => return Err(unsupported("not a bind propagation")),
            };
            if propagation.is_some() {
                result.bind_options = Some(MountBindOptions { propagation, ..Default::default() });
            }
        }
        MountSource::Tmpfs { size, mode } => {
            result.typ = Some(MountType::TMPFS);
            if size.is_some() || mode.is_some() {
                result.tmpfs_options = Some(MountTmpfsOptions {
                    size_bytes: size.and_then(|size| i64::try_from(size).ok()),
                    mode: mode.map(i64::from),
                    ..Default::default()
                });
            }
        }
        MountSource::Image { source, subpath } => {
            result.typ = Some(MountType::IMAGE);
            result.source = Some(source.clone());
            result.image_options = subpath.as_ref().map(|subpath| MountImageOptions { subpath: Some(subpath.clone()) });
        }
        MountSource::Foreign { .. } => return Err(unsupported("the engine has no mounts of this type")),
    }
    Ok(result)
}

/// A config or secret: a file that the agent wrote with its owner and mode, mounted read-only.
fn file_mount(
    deployment: &Deployment,
    reference: &FileReference,
    objects: &BTreeMap<ObjectKey, FileObject>,
    field: &str,
) -> Result<EngineMount, BackendError> {
    let file = deployment.mount_file(reference, objects).ok_or_else(|| BackendError::Unsupported {
        field: field.to_owned(),
        reason: "it has no content in the request".to_owned(),
    })?;
    Ok(EngineMount {
        typ: Some(MountType::BIND),
        source: Some(format!("{}/.agent/mounts/{}", deployment.project.project().directory, file.name)),
        target: Some(reference.target.clone()),
        read_only: Some(true),
        ..Default::default()
    })
}
