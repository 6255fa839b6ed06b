//! `HostConfig`: what a container may use of the host, and which of the host's namespaces it shares.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    DeviceMapping, DeviceRequest as EngineDeviceRequest, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigIsolationEnum, HostConfigLogConfig, PortBinding, ResourcesBlkioWeightDevice, ResourcesUlimits,
    RestartPolicy as EngineRestart, RestartPolicyNameEnum, ThrottleDevice,
};

use super::{Surroundings, container_of, mounts, security_options, some, some_map};
use crate::backend::{BackendError, Deployment};
use crate::compose::{DeviceRequest, NamespaceMode, RestartPolicy, Service};
use crate::domain::{DesiredState, ServiceName};

/// Everything but the networks.
pub(super) fn host_config(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
    around: &Surroundings<'_>,
) -> Result<HostConfig, BackendError> {
    let resources = service.limits();
    let namespace = |mode: &Option<NamespaceMode>, field: &str| {
        mode.as_ref().map(|mode| namespace(mode, around, &format!("services.{name}.{field}"))).transpose()
    };
    let security = security_options(deployment, name, service)?;
    let blkio = service.blkio_config.clone().unwrap_or_default();
    Ok(HostConfig {
        port_bindings: port_bindings(service, around.ports),
        restart_policy: restart(deployment, service),
        mounts: some(mounts::mounts(deployment, name, service, around)?),
        volumes_from: some(mounts::volumes_from(name, service, around)?),
        tmpfs: some_map(&service.tmpfs.iter().map(|mount| (mount.path.clone(), mount.options.clone())).collect()),
        storage_opt: some_map(&service.storage_opt),
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
        cpu_realtime_period: resources.cpu_rt_period,
        cpu_realtime_runtime: resources.cpu_rt_runtime,
        cpu_count: resources.cpu_count,
        cpu_percent: resources.cpu_percent,
        cpuset_cpus: resources.cpuset.clone(),
        memory: resources.memory,
        memory_reservation: resources.memory_reservation,
        memory_swap: resources.memory_swap,
        // 0 is what docker compose calls "not set" for these two.
        memory_swappiness: resources.memory_swappiness.filter(|&swappiness| swappiness != 0),
        pids_limit: resources.pids.filter(|&pids| pids != 0),
        shm_size: resources.shm_size,
        blkio_weight: blkio.weight,
        blkio_weight_device: some(
            blkio
                .weight_device
                .into_iter()
                .map(|(path, weight)| ResourcesBlkioWeightDevice {
                    path: Some(path),
                    weight: Some(usize::from(weight)),
                })
                .collect(),
        ),
        blkio_device_read_bps: throttles(blkio.device_read_bps),
        blkio_device_write_bps: throttles(blkio.device_write_bps),
        blkio_device_read_iops: throttles(blkio.device_read_iops),
        blkio_device_write_iops: throttles(blkio.device_write_iops),
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
        security_opt: some(security.options),
        masked_paths: security.all_paths.then(Vec::new),
        readonly_paths: security.all_paths.then(Vec::new),
        devices: some(
            service.devices.iter().filter(|text| cdi_name(text).is_none()).map(|text| device(text)).collect(),
        ),
        device_requests: some(device_requests(service)),
        device_cgroup_rules: some(service.device_cgroup_rules.clone()),
        cgroup_parent: service.cgroup_parent.clone(),
        runtime: service.runtime.clone(),
        isolation: isolation(name, service)?,
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

/// None where the file says nothing: that is `no` too.
fn restart(deployment: &Deployment, service: &Service) -> Option<EngineRestart> {
    match (deployment.desired, service.restart_policy()) {
        // The engine would start a container that was never run when it starts itself, policy permitting.
        (DesiredState::Stopped, _) => Some(restart_policy(RestartPolicy::No)),
        (DesiredState::Running, RestartPolicy::No) if service.restart.is_none() => None,
        (DesiredState::Running, policy) => Some(restart_policy(policy)),
    }
}

/// The engine's form of a restart policy.
pub(in crate::backend::docker) fn restart_policy(policy: RestartPolicy) -> EngineRestart {
    let (name, count) = match policy {
        RestartPolicy::No => (RestartPolicyNameEnum::NO, None),
        RestartPolicy::Always => (RestartPolicyNameEnum::ALWAYS, None),
        RestartPolicy::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        RestartPolicy::OnFailure(count) => (RestartPolicyNameEnum::ON_FAILURE, count),
    };
    EngineRestart { name: Some(name), maximum_retry_count: count.map(i64::from) }
}

/// A port that was chosen is asked for by its number; otherwise the engine is asked for what the file says.
fn port_bindings(
    service: &Service,
    chosen: &BTreeMap<usize, u16>,
) -> Option<HashMap<String, Option<Vec<PortBinding>>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for (at, port) in service.ports.iter().enumerate() {
        let range = chosen.get(&at).map(|port| (*port, *port)).or_else(|| port.host_ports());
        let host_port =
            range.map_or_else(
                String::new,
                |(first, last)| {
                    if first == last { first.to_string() } else { format!("{first}-{last}") }
                },
            );
        let binding = PortBinding { host_ip: port.host_ip.map(|ip| ip.to_string()), host_port: Some(host_port) };
        let key = format!("{}/{}", port.target, port.protocol.as_str());
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    if bindings.is_empty() { None } else { Some(bindings) }
}

fn throttles(limits: Vec<(String, i64)>) -> Option<Vec<ThrottleDevice>> {
    some(limits.into_iter().map(|(path, rate)| ThrottleDevice { path: Some(path), rate: Some(rate) }).collect())
}

fn device(text: &str) -> DeviceMapping {
    let mut parts = text.splitn(3, ':');
    let host = parts.next().unwrap_or_default().to_owned();
    let inside = parts.next().map_or_else(|| host.clone(), str::to_owned);
    let permissions = parts.next().unwrap_or("rwm").to_owned();
    DeviceMapping { path_on_host: Some(host), path_in_container: Some(inside), cgroup_permissions: Some(permissions) }
}

/// The name in an entry of `devices` that is a device of the Container Device Interface, `vendor/class=name`, and no path.
fn cdi_name(text: &str) -> Option<&str> {
    let mut parts = text.splitn(3, ':');
    let (source, target) = (parts.next()?, parts.next());
    let (kind, device) = source.split_once('=')?;
    let (vendor, class) = kind.split_once('/')?;
    let is_name = target.is_none_or(|target| target == source) && [vendor, class, device].iter().all(|w| !w.is_empty());
    is_name.then_some(source)
}

/// As docker compose asks for them: reservations, then devices by name, then `gpus`.
fn device_requests(service: &Service) -> Vec<EngineDeviceRequest> {
    let reserved = service.deploy.iter().flat_map(|deploy| &deploy.resources.reservations.devices);
    let mut requests: Vec<EngineDeviceRequest> = reserved.map(device_request).collect();
    let named: Vec<String> = service.devices.iter().filter_map(|text| cdi_name(text)).map(str::to_owned).collect();
    if !named.is_empty() {
        requests.push(EngineDeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(named),
            ..Default::default()
        });
    }
    requests.extend(service.gpus.iter().map(device_request));
    requests
}

fn device_request(request: &DeviceRequest) -> EngineDeviceRequest {
    EngineDeviceRequest {
        driver: request.driver.clone(),
        // Without a number and without ids, all that there are (Compose Specification, "count").
        count: request.count.or_else(|| request.device_ids.is_empty().then_some(-1)),
        device_ids: some(request.device_ids.clone()),
        capabilities: Some(vec![request.capabilities.clone()]),
        options: some_map(&request.options),
    }
}

/// Compose Specification, `isolation`; the engine says which words its host knows.
pub(in crate::backend::docker) fn isolation(
    name: &ServiceName,
    service: &Service,
) -> Result<Option<HostConfigIsolationEnum>, BackendError> {
    match service.isolation.as_deref() {
        None | Some("") => Ok(None),
        Some("default") => Ok(Some(HostConfigIsolationEnum::DEFAULT)),
        Some(_) => Err(BackendError::Unsupported {
            field: format!("services.{name}.isolation"),
            reason: "a Linux host knows `default` only".to_owned(),
        }),
    }
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
