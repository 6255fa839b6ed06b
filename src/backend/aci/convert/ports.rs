//! Ports of the containers, and the one address of the group with its DNS label.

use std::collections::{BTreeMap, BTreeSet};

use super::{BackendError, Ground, Services, unsupported};
use crate::backend::Deployment;
use crate::backend::aci::models::{AddressType, ContainerPort, IpAddress, LabelScope, Port, Transport};
use crate::backend::aci::names;
use crate::compose::{PortMapping, Protocol};
use crate::domain::ServiceName;

/// Most ports of the address.
const MAX_PORTS: usize = 5;

/// What can be reached from outside.
pub(super) struct Published {
    /// By service.
    pub(super) ports: BTreeMap<ServiceName, Vec<ContainerPort>>,
    /// None when no port is published: such a group needs no address.
    pub(super) address: Option<IpAddress>,
}

/// Works out ports and address.
pub(super) fn published(
    wanted: &Deployment,
    services: &Services<'_>,
    ground: &Ground<'_>,
    warnings: &mut Vec<String>,
) -> Result<Published, BackendError> {
    judge_listeners(services)?;
    let mut ports: BTreeMap<ServiceName, Vec<ContainerPort>> = BTreeMap::new();
    let mut open: BTreeSet<(u16, bool)> = BTreeSet::new();
    for (name, service) in services {
        for (at, port) in service.ports.iter().enumerate() {
            let field = format!("services.{name}.ports[{at}]");
            check_host_side(wanted, &field, port)?;
            if !open.insert((port.target, port.protocol == Protocol::Udp)) {
                // Twice in one service: on two addresses of the host, which are one here.
                continue;
            }
            if open.len() > MAX_PORTS {
                return Err(unsupported(field, format!("a group publishes at most {MAX_PORTS} ports")));
            }
            let own = ports.entry((*name).clone()).or_default();
            own.push(ContainerPort { port: port.target, protocol: Some(transport(port.protocol)) });
        }
    }
    let asked = asked_label(services)?;
    if ports.is_empty() {
        if let Some((name, _)) = asked {
            warnings.push(format!(
                "services.{name}.domainname: no port is published, so the group has no address and no name"
            ));
        }
        return Ok(Published { ports, address: None });
    }
    let label = match (ground.dns_label, asked) {
        (Some(label), _) => label.to_owned(),
        (None, Some((_, label))) => label.to_owned(),
        (None, None) => names::dns_label(wanted.tenant.subdomain.as_str()),
    };
    let local = |port: &PortMapping| port.host_ip.is_some_and(|ip| ip.is_loopback());
    if services.values().any(|service| service.ports.iter().any(local)) {
        warnings.push(
            "services: a group publishes its ports on a public address, whatever address a host would use".to_owned(),
        );
    }
    let transport = |udp| if udp { Transport::Udp } else { Transport::Tcp };
    let address = IpAddress {
        kind: AddressType::Public,
        ports: open.into_iter().map(|(port, udp)| Port { port, protocol: Some(transport(udp)) }).collect(),
        dns_name_label: Some(label),
        // A label that is freed leads to nobody else of another directory, and a stranger's label is no conflict.
        auto_generated_domain_name_label_scope: Some(LabelScope::TenantReuse),
        ip: None,
        fqdn: None,
    };
    Ok(Published { ports, address: Some(address) })
}

/// Refuses two services that listen on one port, as far as the file says so: all share one network.
fn judge_listeners(services: &Services<'_>) -> Result<(), BackendError> {
    let mut listens: BTreeMap<(u16, bool), &ServiceName> = BTreeMap::new();
    for (name, service) in services {
        let ports = service.ports.iter().enumerate().map(|(at, port)| {
            let field = format!("services.{name}.ports[{at}]");
            (field, (port.target, port.target), port.protocol)
        });
        let exposed = service.expose.iter().enumerate().filter_map(|(at, exposed)| {
            let field = format!("services.{name}.expose[{at}]");
            Some((field, exposed.ports?, exposed.protocol))
        });
        for (field, (first, last), protocol) in ports.chain(exposed) {
            if protocol == Protocol::Sctp {
                return Err(unsupported(field, "a group has TCP and UDP ports only"));
            }
            for port in first..=last {
                let other = *listens.entry((port, protocol == Protocol::Udp)).or_insert(name);
                if other != *name {
                    return Err(unsupported(
                        field,
                        format!("the containers of a group share one network, and {other} listens on port {port} too"),
                    ));
                }
            }
        }
    }
    Ok(())
}

/// A port is published under its own number, on the group's address.
fn check_host_side(wanted: &Deployment, field: &str, port: &PortMapping) -> Result<(), BackendError> {
    let confined = wanted.project.is_confined();
    let target = port.target;
    if let Some((first, last)) = port.host_ports() {
        // A confining policy gives a range to every port that has none.
        let filled_in = confined && first != last;
        if !filled_in && !(first..=last).contains(&target) {
            return Err(unsupported(
                field,
                format!("a group publishes a port under its own number: {target} as {target}, not as {first}"),
            ));
        }
    }
    match port.host_ip {
        // Likewise an address.
        Some(ip) if !confined && !ip.is_unspecified() => Err(unsupported(
            field,
            format!("a group publishes on its own public address, not on {ip}; leave the address out to publish there"),
        )),
        _ => Ok(()),
    }
}

/// `domainname` as docker compose reads it for Azure: the label. All services that have one must agree.
fn asked_label<'a>(services: &Services<'a>) -> Result<Option<(&'a ServiceName, &'a str)>, BackendError> {
    let mut asked: Option<(&ServiceName, &str)> = None;
    for (name, service) in services {
        let Some(label) = service.domainname.as_deref().filter(|label| !label.is_empty()) else { continue };
        let field = format!("services.{name}.domainname");
        if !names::is_dns_label(label) {
            return Err(unsupported(
                field,
                "it is the group's DNS label: 5 to 63 of a-z, 0-9 and -, beginning with a letter and ending with a letter or \
                 digit",
            ));
        }
        match asked {
            Some((first, other)) if other != label => {
                return Err(unsupported(field, format!("it is the group's one DNS label, and {first} has another")));
            }
            Some(_) => {}
            None => asked = Some((*name, label)),
        }
    }
    Ok(asked)
}

fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Udp => Transport::Udp,
        Protocol::Tcp | Protocol::Sctp => Transport::Tcp,
    }
}
