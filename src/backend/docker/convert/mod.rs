//! From a service of the allowed project to the engine's create request. Pure.
//!
//! ```text
//! mod          Config: what runs, as whom, with which environment, labels, healthcheck
//! host_config  HostConfig: limits, devices, namespaces, ports, restart policy
//! mounts       HostConfig.Mounts and VolumesFrom
//! endpoints    HostConfig.NetworkMode and NetworkingConfig
//! security     HostConfig.SecurityOpt, MaskedPaths, ReadonlyPaths
//! ```
//!
//! Names follow the Engine API's `ContainerCreate`. What the engine is too old for has been refused before (`gates`).

mod endpoints;
mod host_config;
mod mounts;
mod security;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, EndpointSettings, HealthConfig, NetworkingConfig};

pub(super) use self::endpoints::{endpoint, primary_network};
pub(super) use self::host_config::{isolation, restart_policy};
pub(super) use self::security::security_options;
use super::gates::{API_1_44, ApiVersion};
use super::{labels, leases};
use crate::backend::deployment::seccomp_file;
use crate::backend::{BackendError, Deployment, Instead};
use crate::compose::{Exposed, Healthcheck, Service};
use crate::domain::{ContainerId, ContainerName, ServiceName};

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
    /// What it says in place of the image.
    pub(super) instead: &'a Instead,
    /// The first container of each service, for `service:x` namespaces and `volumes_from`.
    pub(super) containers: &'a BTreeMap<ServiceName, ContainerId>,
    /// The names of each service's containers, for `links`.
    pub(super) names: &'a BTreeMap<ServiceName, Vec<ContainerName>>,
    /// Anonymous volumes of the container that this one replaces: volume name -> path.
    pub(super) inherited: &'a BTreeMap<String, String>,
    /// The host ports that were chosen for it, by their place in `ports`.
    pub(super) ports: &'a BTreeMap<usize, u16>,
    /// What the engine speaks.
    pub(super) api: ApiVersion,
}

/// A create request, and the networks that have to be connected in calls of their own.
pub(super) struct Request {
    pub(super) body: ContainerCreateBody,
    /// `Config.MacAddress`, where engines before API 1.44 look for it.
    pub(super) mac_address: Option<String>,
    pub(super) connect_later: Vec<(String, EndpointSettings)>,
}

/// About how many bytes the create request of a container will have, without making it: a few words of a file can become
/// very many of a request.
pub(super) fn size(deployment: &Deployment, service: &Service) -> usize {
    let project = deployment.project.project();
    let said = serde_json::to_vec(service).map_or(usize::MAX, |text| text.len());
    // Each quote of a profile is two bytes in a string.
    let profiles = service.security_opt.iter().filter_map(|option| seccomp_file(option));
    let profiles = profiles.filter_map(|path| deployment.request_file(path)).map(|bytes| 2 * bytes.len());
    let said = profiles.fold(said, usize::saturating_add);
    // `"65535/tcp":{},`
    let exposed = service.expose.iter().map(Exposed::count).fold(0_usize, usize::saturating_add).saturating_mul(16);
    // On each network three names for each container of the linked service; a network mode is one network.
    let links = service.links.iter().map(|link| {
        let containers = project.services.get(&link.service).map_or(0, |other| other.replicas() as usize);
        let alias = link.alias.as_ref().map_or(link.service.as_str().len(), String::len);
        let names = 6 * (project.name.as_str().len() + link.service.as_str().len() + 16) + alias;
        containers.saturating_mul(names)
    });
    let links = links.fold(0, usize::saturating_add);
    let external = service.external_links.iter().map(|link| 2 * link.len() + 4).fold(0, usize::saturating_add);
    let links = links.saturating_add(external).saturating_mul(service.networks.len().max(1));
    said.saturating_add(exposed).saturating_add(links)
}

/// Builds the create request of one container.
pub(super) fn container(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
    around: &Surroundings<'_>,
) -> Result<Request, BackendError> {
    let spec = deployment.service_hash(service);
    let connections = endpoints::connections(deployment, name, service, around)?;
    let mut host_config = host_config::host_config(deployment, name, service, around)?;
    host_config.network_mode = Some(connections.mode);
    host_config.links = some(connections.bridge_links);
    let mut labels = labels::container(deployment, name, service, around.number, &spec, around.image_id);
    // Even if it says nothing, or the image's own label of this name would hold.
    labels.insert(labels::PORTS.to_owned(), leases::label(&service.ports, around.ports));
    let body = ContainerCreateBody {
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        user: service.user.clone(),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        exposed_ports: some(exposed_ports(service)),
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
        healthcheck: healthcheck(service.healthcheck.as_ref(), around),
        image: Some(around.image.to_owned()),
        working_dir: service.working_dir.clone(),
        labels: Some(labels),
        stop_signal: service.stop_signal.clone().or_else(|| around.instead.stop_signal.clone()),
        stop_timeout: service.stop_grace_period.map(whole_seconds),
        host_config: Some(host_config),
        networking_config: connections
            .at_creation
            .map(|endpoints| NetworkingConfig { endpoints_config: Some(endpoints) }),
        ..Default::default()
    };
    Ok(Request { body, mac_address: connections.mac_address, connect_later: connections.later })
}

/// `port/protocol` of everything that is published or exposed.
fn exposed_ports(service: &Service) -> Vec<String> {
    let published = service.ports.iter().map(|port| format!("{}/{}", port.target, port.protocol.as_str()));
    let exposed = service
        .expose
        .iter()
        .flat_map(|exposed| exposed.each().map(|port| format!("{port}/{}", exposed.protocol.as_str())));
    let mut all: Vec<String> = published.chain(exposed).collect();
    all.sort();
    all.dedup();
    all
}

/// What is not said is the image's, part by part.
fn healthcheck(check: Option<&Healthcheck>, around: &Surroundings<'_>) -> Option<HealthConfig> {
    let Instead { interval, start_interval, stop_signal: _ } = around.instead;
    let nothing = Healthcheck::default();
    let check = check.or_else(|| (interval.is_some() || start_interval.is_some()).then_some(&nothing))?;
    let said = |own: Option<Duration>, instead: Option<Duration>| match own {
        Some(own) if !own.is_zero() || instead.is_none() => Some(own),
        _ => instead,
    };
    Some(HealthConfig {
        test: if check.is_disabled() { Some(vec!["NONE".to_owned()]) } else { check.test.clone() },
        interval: said(check.interval, *interval).map(nanoseconds),
        timeout: check.timeout.map(nanoseconds),
        retries: check.retries.map(i64::from),
        start_period: check.start_period.map(nanoseconds),
        start_interval: said(check.start_interval, *start_interval).filter(|_| around.api >= API_1_44).map(nanoseconds),
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

/// The first container of a service that this one shares something with.
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
