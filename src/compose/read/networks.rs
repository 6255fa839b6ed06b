//! `networks` of a service and of the project, and `network_mode` (Compose Specification, "networks").

use std::collections::BTreeMap;

use super::{is_external, real_name};
use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{Ipam, IpamPool, Network, NetworkMode, ServiceNetwork};
use crate::compose::suggest;
use crate::domain::ObjectKey;

/// The attribute `networks` of a service: a list of keys, or a mapping with details.
pub(super) fn of_service(
    field: &Field<'_>,
    enabled: bool,
) -> Result<BTreeMap<ObjectKey, ServiceNetwork>, ComposeError> {
    let mut networks = BTreeMap::new();
    if field.is_sequence() {
        field.distinct()?;
        for item in field.items()? {
            networks.insert(network_key(&item, item.text()?, enabled)?, ServiceNetwork::default());
        }
    } else if field.is_mapping() {
        for entry in field.entries()? {
            let key = network_key(&entry, entry.key(), enabled)?;
            let network = if entry.is_null() { ServiceNetwork::default() } else { membership(&entry)? };
            networks.insert(key, network);
        }
    } else {
        return Err(field.expected("a list or a mapping"));
    }
    Ok(networks)
}

fn network_key(field: &Field<'_>, key: &str, enabled: bool) -> Result<ObjectKey, ComposeError> {
    let declared = &field.cx.declared.networks;
    if enabled && key != "default" && !declared.contains(key) {
        let hint = suggest::hint(key, declared.iter().copied());
        return Err(field.error(format!("is not under the top-level `networks`{hint}")));
    }
    ObjectKey::parse(key).map_err(|error| field.error(error.to_string()))
}

const MEMBERSHIP: &[&str] = &[
    "aliases",
    "driver_opts",
    "gw_priority",
    "interface_name",
    "ipv4_address",
    "ipv6_address",
    "link_local_ips",
    "mac_address",
    "priority",
];

fn membership(entry: &Field<'_>) -> Result<ServiceNetwork, ComposeError> {
    let mut network = ServiceNetwork { is_mapping: true, ..ServiceNetwork::default() };
    for attribute in entry.attributes()? {
        match attribute.key() {
            "aliases" => network.aliases = attribute.texts()?,
            "ipv4_address" => network.ipv4_address = Some(address(&attribute, true)?),
            "ipv6_address" => network.ipv6_address = Some(address(&attribute, false)?),
            "link_local_ips" => network.link_local_ips = attribute.texts()?,
            "mac_address" => network.mac_address = Some(attribute.some_text()?.to_owned()),
            "driver_opts" => network.driver_opts = attribute.options()?,
            "priority" => network.priority = attribute.plain_integer()?,
            "gw_priority" => network.gw_priority = attribute.plain_integer()?,
            "interface_name" => network.interface_name = Some(attribute.some_text()?.to_owned()),
            _ => return Err(attribute.unknown(MEMBERSHIP)),
        }
    }
    Ok(network)
}

fn address(field: &Field<'_>, v4: bool) -> Result<String, ComposeError> {
    let text = field.text()?;
    let good = if v4 { text.parse::<std::net::Ipv4Addr>().is_ok() } else { text.parse::<std::net::Ipv6Addr>().is_ok() };
    if good {
        Ok(text.to_owned())
    } else {
        Err(field.error(format!("must be an IPv{} address", if v4 { 4 } else { 6 })))
    }
}

/// The attribute `network_mode`. A service or container that it names is checked by the caller.
pub(super) fn mode(field: &Field<'_>) -> Result<NetworkMode, ComposeError> {
    let text = field.some_text()?;
    Ok(match text.split_once(':') {
        Some(("service", service)) => NetworkMode::Service(super::depends::reference(field, service)?),
        Some(("container", container)) => NetworkMode::Container(container.to_owned()),
        _ => match text {
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            "bridge" => NetworkMode::Bridge,
            other => NetworkMode::Named(other.to_owned()),
        },
    })
}

/// The top-level `networks`.
pub(super) fn top_level(section: &Field<'_>) -> Result<BTreeMap<ObjectKey, Network>, ComposeError> {
    let mut networks = BTreeMap::new();
    for entry in section.entries()? {
        networks.insert(entry.parsed_key(ObjectKey::parse)?, network(&entry)?);
    }
    Ok(networks)
}

const NETWORK: &[&str] = &[
    "attachable",
    "driver",
    "driver_opts",
    "enable_ipv4",
    "enable_ipv6",
    "external",
    "internal",
    "ipam",
    "labels",
    "name",
];

fn network(entry: &Field<'_>) -> Result<Network, ComposeError> {
    let (external, external_name) = is_external(entry)?;
    let name = match external_name {
        Some(name) => crate::domain::ObjectName::parse(&name).map_err(|error| entry.error(error.to_string()))?,
        None => real_name(entry, entry.get("name").as_ref(), external)?,
    };
    let mut network = Network::of(name);
    network.external = external;
    if entry.is_null() {
        return Ok(network);
    }
    for attribute in entry.attributes()? {
        if external && !matches!(attribute.key(), "name" | "external") {
            attribute.warn("is ignored: an external network is used as it is");
        }
        match attribute.key() {
            "name" | "external" => {}
            "driver" => network.driver = attribute.optional_text()?,
            "driver_opts" => network.driver_opts = attribute.options()?,
            "internal" => network.internal = attribute.boolean()?,
            "attachable" => network.attachable = attribute.boolean()?,
            "enable_ipv4" => network.enable_ipv4 = Some(attribute.boolean()?),
            "enable_ipv6" => network.enable_ipv6 = Some(attribute.boolean()?),
            "labels" => network.labels = attribute.pairs()?,
            "ipam" => network.ipam = Some(ipam(&attribute)?),
            _ => return Err(attribute.unknown(NETWORK)),
        }
    }
    Ok(network)
}

fn ipam(field: &Field<'_>) -> Result<Ipam, ComposeError> {
    let mut ipam = Ipam::default();
    for attribute in field.attributes()? {
        match attribute.key() {
            "driver" => ipam.driver = Some(attribute.some_text()?.to_owned()),
            "options" => ipam.options = attribute.options()?,
            "config" => ipam.config = attribute.items()?.map(|item| pool(&item)).collect::<Result<_, _>>()?,
            _ => return Err(attribute.unknown(&["driver", "options", "config"])),
        }
    }
    Ok(ipam)
}

fn pool(item: &Field<'_>) -> Result<IpamPool, ComposeError> {
    let mut pool = IpamPool::default();
    for attribute in item.attributes()? {
        match attribute.key() {
            "subnet" => pool.subnet = Some(attribute.some_text()?.to_owned()),
            "gateway" => pool.gateway = Some(attribute.some_text()?.to_owned()),
            "ip_range" => pool.ip_range = Some(attribute.some_text()?.to_owned()),
            "aux_addresses" => pool.aux_addresses = attribute.options()?,
            _ => return Err(attribute.unknown(&["subnet", "gateway", "ip_range", "aux_addresses"])),
        }
    }
    Ok(pool)
}
