//! Networks, aliases, links and addresses: `HostConfig.NetworkMode`, `HostConfig.Links` and `NetworkingConfig`.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{EndpointIpamConfig, EndpointSettings};

use super::{Surroundings, container_of, some, some_map};
use crate::backend::docker::gates::API_1_44;
use crate::backend::{BackendError, Deployment};
use crate::compose::{NetworkMode, Service, ServiceNetwork};
use crate::domain::{ObjectKey, ServiceName};

type Endpoints = HashMap<String, EndpointSettings>;

/// How a container is connected.
pub(super) struct Connections {
    /// `HostConfig.NetworkMode`.
    pub(super) mode: String,
    /// The endpoints of the create request.
    pub(super) at_creation: Option<Endpoints>,
    /// Those that have to be connected afterwards.
    pub(super) later: Vec<(String, EndpointSettings)>,
    /// `HostConfig.Links`: the default bridge has no names, other networks have their links in the endpoints.
    pub(super) bridge_links: Vec<String>,
    /// `Config.MacAddress`, for engines that do not read it in an endpoint.
    pub(super) mac_address: Option<String>,
}

/// Works out the connections of one container.
pub(super) fn connections(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
    around: &Surroundings<'_>,
) -> Result<Connections, BackendError> {
    if let Some(mode) = &service.network_mode {
        return with_mode(deployment, name, service, mode, around);
    }
    let mut endpoints = by_priority(service).into_iter().filter_map(|(key, _)| {
        let network = deployment.project.project().networks.get(key)?;
        Some((network.name.as_str().to_owned(), endpoint(deployment, name, service, key, around)?))
    });
    let mac_address = if around.api < API_1_44 { primary_mac(service) } else { None };
    let without = Connections {
        mode: "none".to_owned(),
        at_creation: None,
        later: Vec::new(),
        bridge_links: Vec::new(),
        mac_address: None,
    };
    let Some((mode, settings)) = endpoints.next() else { return Ok(without) };
    let mut at_creation = Endpoints::from([(mode.clone(), settings)]);
    let mut later: Vec<(String, EndpointSettings)> = endpoints.collect();
    if around.api >= API_1_44 {
        at_creation.extend(later.drain(..));
    }
    Ok(Connections { mode, at_creation: Some(at_creation), later, mac_address, ..without })
}

fn with_mode(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
    mode: &NetworkMode,
    around: &Surroundings<'_>,
) -> Result<Connections, BackendError> {
    let text = match mode {
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Bridge => "bridge".to_owned(),
        NetworkMode::Container(container) => format!("container:{container}"),
        NetworkMode::Named(network) => network.clone(),
        NetworkMode::Service(other) => {
            format!("container:{}", container_of(other, around, &format!("services.{name}.network_mode"))?)
        }
    };
    let links = links(deployment, service, around);
    let mut mac_address = service.mac_address.clone();
    let mut endpoint = EndpointSettings::default();
    let mut bridge_links = Vec::new();
    match mode {
        NetworkMode::Bridge => bridge_links = links,
        NetworkMode::Named(_) => endpoint.links = some(links),
        _ => {}
    }
    if around.api >= API_1_44 && matches!(mode, NetworkMode::Bridge | NetworkMode::Named(_)) {
        endpoint.mac_address = mac_address.take();
    }
    let at_creation = (endpoint != EndpointSettings::default()).then(|| Endpoints::from([(text.clone(), endpoint)]));
    Ok(Connections { mode: text, at_creation, later: Vec::new(), bridge_links, mac_address })
}

/// The memberships in the order of connecting: highest priority first, then by key.
fn by_priority(service: &Service) -> Vec<(&ObjectKey, &ServiceNetwork)> {
    let mut joined: Vec<(&ObjectKey, &ServiceNetwork)> = service.networks.iter().collect();
    joined.sort_by(|(a_key, a), (b_key, b)| b.priority.cmp(&a.priority).then(a_key.cmp(b_key)));
    joined
}

/// The network that a service is created in; its own `mac_address` is that of its interface there.
pub(in crate::backend::docker) fn primary_network(service: &Service) -> Option<&ObjectKey> {
    by_priority(service).first().map(|(key, _)| *key)
}

fn primary_mac(service: &Service) -> Option<String> {
    let membership = primary_network(service).and_then(|key| service.networks.get(key));
    membership.and_then(|membership| membership.mac_address.clone()).or_else(|| service.mac_address.clone())
}

/// One membership, as at creation and as when a container is connected again.
pub(in crate::backend::docker) fn endpoint(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
    key: &ObjectKey,
    around: &Surroundings<'_>,
) -> Option<EndpointSettings> {
    let membership = service.networks.get(key)?;
    let project = deployment.project.project();
    let foreign = project.networks.get(key).is_some_and(|network| network.external);
    let aliases = if foreign && deployment.project.is_confined() {
        // No subdomain has a dot: nobody else can have this name, and the rest could be anybody's.
        vec![format!("{name}.{}", project.name)]
    } else {
        let own = [around.container_name, name.as_str()].map(str::to_owned);
        own.into_iter().chain(membership.aliases.iter().cloned()).collect()
    };
    let addressed =
        membership.ipv4_address.is_some() || membership.ipv6_address.is_some() || !membership.link_local_ips.is_empty();
    let mac_address = match around.api {
        // Engines before this read it in the container's own configuration only.
        api if api < API_1_44 => None,
        _ if primary_network(service) == Some(key) => primary_mac(service),
        _ => membership.mac_address.clone(),
    };
    let mut driver_opts: BTreeMap<String, String> = membership.driver_opts.clone();
    if let Some(interface) = &membership.interface_name {
        driver_opts.insert("com.docker.network.endpoint.ifname".to_owned(), interface.clone());
    }
    Some(EndpointSettings {
        aliases: Some(aliases),
        links: some(links(deployment, service, around)),
        mac_address,
        ipam_config: addressed.then(|| EndpointIpamConfig {
            ipv4_address: membership.ipv4_address.clone(),
            ipv6_address: membership.ipv6_address.clone(),
            link_local_ips: some(membership.link_local_ips.clone()),
        }),
        driver_opts: some_map(&driver_opts),
        gw_priority: (membership.gw_priority != 0).then_some(membership.gw_priority),
        ..Default::default()
    })
}

/// `container:alias` for every container of every linked service, under the three names that docker compose gives it, and
/// for every external link.
fn links(deployment: &Deployment, service: &Service, around: &Surroundings<'_>) -> Vec<String> {
    let (project, number) = (&deployment.project.project().name, around.number);
    let mut links = Vec::new();
    for link in &service.links {
        let other = &link.service;
        for container in around.names.get(other).into_iter().flatten() {
            let alias = link.alias.as_deref().unwrap_or(other.as_str());
            links.push(format!("{container}:{alias}"));
            links.push(format!("{container}:{other}-{number}"));
            links.push(format!("{container}:{project}-{other}-{number}"));
        }
    }
    links.extend(service.external_links.iter().map(|link| match link.split_once(':') {
        Some(_) => link.clone(),
        None => format!("{link}:{link}"),
    }));
    links
}
