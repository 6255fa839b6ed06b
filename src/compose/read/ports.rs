//! `ports` and `expose` of a service (Compose Specification, "ports"): short and long syntax, ranges.

use std::net::IpAddr;

use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{Exposed, PortMapping, Protocol};
use crate::compose::scalar::Resolved;

/// Why a port was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
enum PortError {
    #[error("has no container port: write [[ip:]host-port:]container-port[/protocol]")]
    NoTarget,
    #[error("the container port must be a port from 1 to 65535 or a range such as 8000-8010")]
    Target,
    #[error("the host port must be a port from 0 to 65535 or a range such as 8000-8010")]
    Published,
    #[error("the host address must be an IP address, an IPv6 one in brackets")]
    Address,
    #[error("the protocol must be tcp, udp or sctp")]
    Protocol,
    #[error("the host's range and the container's range differ in length")]
    Ranges,
}

/// Reads `[[ip:]published:]target[/protocol]`; a target range becomes one mapping per port.
fn parse_port(text: &str) -> Result<Vec<PortMapping>, PortError> {
    let mut parts = text.split('/');
    let spec = parts.next().unwrap_or_default();
    let protocol = parts.next().map_or(Ok(Protocol::Tcp), protocol)?;
    let (before, target) = spec.rsplit_once(':').map_or((None, spec), |(before, target)| (Some(before), target));
    if target.is_empty() {
        return Err(PortError::NoTarget);
    }
    let target = range(target, PortError::Target)?;
    if target.0 == 0 {
        return Err(PortError::NoTarget);
    }
    let (host_ip, published) = match before {
        None => (None, None),
        Some(before) => {
            let (address, published) = before.rsplit_once(':').unwrap_or(("", before));
            let address = if address.is_empty() { None } else { Some(parse_address(address)?) };
            (address, published_range(published)?)
        }
    };
    mappings(target, protocol, host_ip, published)
}

/// Pairs the ports of two ranges; a single target takes a whole range as its choice.
fn mappings(
    (first, last): (u16, u16),
    protocol: Protocol,
    host_ip: Option<IpAddr>,
    published: Option<(u16, u16)>,
) -> Result<Vec<PortMapping>, PortError> {
    if first == last {
        return Ok(vec![PortMapping { host_ip, published, ..PortMapping::of(first, protocol) }]);
    }
    if published.is_some_and(|(low, high)| high - low != last - first) {
        return Err(PortError::Ranges);
    }
    let mapping = |target: u16| {
        let published = published.map(|(low, _)| (low + (target - first), low + (target - first)));
        PortMapping { host_ip, published, ..PortMapping::of(target, protocol) }
    };
    Ok((first..=last).map(mapping).collect())
}

fn protocol(text: &str) -> Result<Protocol, PortError> {
    match text.to_ascii_lowercase().as_str() {
        "" | "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(PortError::Protocol),
    }
}

fn parse_address(text: &str) -> Result<IpAddr, PortError> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address: IpAddr = inner.unwrap_or(text).parse().map_err(|_| PortError::Address)?;
    if address.is_ipv6() == inner.is_some() { Ok(address) } else { Err(PortError::Address) }
}

/// `80` or `80-90`, digits only.
fn range(text: &str, error: PortError) -> Result<(u16, u16), PortError> {
    let port = |text: &str| {
        if text.bytes().all(|digit| digit.is_ascii_digit()) {
            text.parse::<u16>().map_err(|_| error)
        } else {
            Err(error)
        }
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first <= last { Ok((first, last)) } else { Err(error) }
}

/// A host port or range; nothing before a colon is any free port.
fn published_range(text: &str) -> Result<Option<(u16, u16)>, PortError> {
    if text.is_empty() {
        return Ok(None);
    }
    range(text, PortError::Published).map(Some)
}

/// Reads `80`, `8000-8010` or `53/udp`; and, as docker compose does, whatever else is written.
fn parse_expose(text: &str) -> Exposed {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, name)) => (ports, self::protocol(name)),
        None => (text, Ok(Protocol::Tcp)),
    };
    let range = range(ports, PortError::Target).ok().filter(|&(first, _)| first > 0);
    let ports = range.filter(|_| protocol.is_ok());
    Exposed { text: text.to_owned(), ports, protocol: protocol.unwrap_or(Protocol::Tcp) }
}

/// The attribute `ports`. A mapping that is there twice counts once.
pub(super) fn ports(field: &Field<'_>) -> Result<Vec<PortMapping>, ComposeError> {
    let mut all: Vec<PortMapping> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for item in field.items()? {
        let mappings = if item.is_mapping() { long(&item)? } else { short(&item)? };
        item.spend_ports(mappings.len())?;
        for mapping in mappings {
            if seen.insert((mapping.target, mapping.protocol, mapping.host_ip, mapping.published)) {
                all.push(mapping);
            }
        }
    }
    Ok(all)
}

fn short(item: &Field<'_>) -> Result<Vec<PortMapping>, ComposeError> {
    let text = match item.as_scalar().map(crate::compose::node::Scalar::resolve) {
        Some(Resolved::Text(_) | Resolved::Int(_)) => item.text_or_number()?,
        _ => return Err(item.expected("a port number, a string such as \"8080:80\" or a mapping")),
    };
    parse_port(&text).map_err(|error| item.error(error.to_string()))
}

fn long(item: &Field<'_>) -> Result<Vec<PortMapping>, ComposeError> {
    let mut port = PortMapping::of(0, Protocol::Tcp);
    for attribute in item.attributes()? {
        let refuse = |error: PortError| attribute.error(error.to_string());
        match attribute.key() {
            "target" => {
                let target = u16::try_from(attribute.integer()?).ok().filter(|&target| target > 0);
                port.target = target.ok_or_else(|| attribute.error("must be a port from 1 to 65535"))?;
            }
            "published" => port.published = published_range(&attribute.text_or_number()?).map_err(refuse)?,
            "protocol" => port.protocol = self::protocol(attribute.text()?).map_err(refuse)?,
            "host_ip" => {
                let text = attribute.text()?;
                let address = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
                port.host_ip =
                    if text.is_empty() { None } else { Some(address.map_err(|_| refuse(PortError::Address))?) };
            }
            "mode" => {
                if !matches!(attribute.text()?, "" | "ingress" | "host") {
                    return Err(attribute.error("must be ingress or host"));
                }
                port.mode = Some(attribute.text()?.to_owned()).filter(|mode| !mode.is_empty());
            }
            "name" => port.name = Some(attribute.text()?.to_owned()),
            "app_protocol" => port.app_protocol = Some(attribute.text()?.to_owned()),
            _ => {
                let known = ["target", "published", "protocol", "host_ip", "mode", "name", "app_protocol"];
                return Err(attribute.unknown(&known));
            }
        }
    }
    if port.target == 0 {
        return Err(item.error("has no `target`, the container's port"));
    }
    Ok(vec![port])
}

/// The attribute `expose`.
pub(super) fn expose(field: &Field<'_>) -> Result<Vec<Exposed>, ComposeError> {
    let mut all: Vec<Exposed> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for item in field.items()? {
        let exposed = parse_expose(&item.text_or_number()?);
        item.spend_ports(exposed.count().max(1))?;
        if seen.insert(exposed.text.clone()) {
            all.push(exposed);
        }
    }
    Ok(all)
}
