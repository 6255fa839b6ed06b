//! Whom a container may reach, and who may reach it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::verdict::Verdict;
use super::{Grants, Ground};
use crate::compose::{NetworkMode, PortMapping, Project, Protocol, ServiceNetwork};
use crate::domain::ObjectKey;

/// Where clouds hand out a machine's credentials, besides 169.254.169.254: Azure, Alibaba, Oracle.
const METADATA_V4: &[Ipv4Addr] =
    &[Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];

/// Likewise AWS and Google.
const METADATA_V6: &[Ipv6Addr] =
    &[Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

pub(super) fn judge_mode(project: &Project, field: &str, mode: Option<&NetworkMode>, verdict: &mut Verdict) {
    let confined = match mode {
        None | Some(NetworkMode::None) => true,
        Some(NetworkMode::Service(service)) => project.services.contains_key(service),
        // The default bridge joins the containers of all tenants that are on it.
        Some(NetworkMode::Host | NetworkMode::Bridge | NetworkMode::Container(_) | NetworkMode::Named(_)) => false,
    };
    verdict.refuse_if(
        !confined,
        format!("{field}.network_mode"),
        "network-mode",
        "none, or service: with a service of this project; else use networks",
    );
}

pub(super) fn judge_memberships(field: &str, networks: &BTreeMap<ObjectKey, ServiceNetwork>, verdict: &mut Verdict) {
    const ADDRESS: &str = "no address: subnets are the agent's, and services find each other by name";
    for (key, membership) in networks {
        let ServiceNetwork {
            aliases: _,
            ipv4_address,
            ipv6_address,
            link_local_ips,
            mac_address,
            driver_opts,
            priority: _,
            gw_priority: _,
            interface_name,
            is_mapping: _,
        } = membership;
        let at = |attribute: &str| format!("{field}.networks.{key}.{attribute}");
        let plain = |name: &String| {
            (1..=15).contains(&name.len())
                && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
        };
        verdict.refuse_if(
            !interface_name.as_ref().is_none_or(plain),
            at("interface_name"),
            "interface-name",
            "1 to 15 letters, digits, dots, _ and -",
        );
        verdict.refuse_if(ipv4_address.is_some(), at("ipv4_address"), "fixed-address", ADDRESS);
        verdict.refuse_if(ipv6_address.is_some(), at("ipv6_address"), "fixed-address", ADDRESS);
        verdict.refuse_if(!link_local_ips.is_empty(), at("link_local_ips"), "link-local", ADDRESS);
        verdict.refuse_if(mac_address.is_some(), at("mac_address"), "mac-address", "none: the engine gives it");
        verdict.refuse_if(!driver_opts.is_empty(), at("driver_opts"), "driver-opts", "none");
    }
}

pub(super) fn judge_ports(
    ground: &Ground<'_>,
    grants: &Grants,
    field: &str,
    ports: &[PortMapping],
    verdict: &mut Verdict,
) {
    let (low, high) = ground.publish_ports;
    for (index, port) in ports.iter().enumerate() {
        let PortMapping { target: _, protocol, host_ip, published: _, name: _, mode: _, app_protocol: _ } = port;
        let field = format!("{field}.ports[{index}]");
        // The first SCTP port loads a module into the host's kernel.
        verdict.refuse_if(*protocol == Protocol::Sctp, field.as_str(), "port-protocol", "tcp or udp");
        let allowed = host_ip.is_none_or(|address| {
            address.is_loopback() || address == ground.publish_host || grants.publish_hosts.contains(&address)
        });
        verdict.refuse_if(
            !allowed,
            field.as_str(),
            "host-ip",
            "no host address, a loopback address, or the address that this host publishes on",
        );
        let fits = |(from, to): (u16, u16)| {
            let within = |&(low, high): &(u16, u16)| low <= from && to <= high;
            within(&ground.publish_ports) || grants.ports.iter().any(within)
        };
        verdict.refuse_if(
            !port.host_ports().is_none_or(fits),
            field,
            "host-port",
            &format!("no host port (one is given), or one from {low} to {high}"),
        );
    }
}

pub(super) fn judge_extra_hosts(field: &str, hosts: &BTreeMap<String, Vec<String>>, verdict: &mut Verdict) {
    for (host, addresses) in hosts {
        judge_hostname(format!("{field}.extra_hosts"), Some(host), verdict);
        let reachable = |text: &String| is_reachable(text.trim_start_matches('[').trim_end_matches(']'));
        verdict.refuse_if(
            !addresses.iter().all(reachable),
            format!("{field}.extra_hosts.{host}"),
            "extra-hosts",
            "IP addresses that are neither the host's own (host-gateway) nor link-local",
        );
    }
}

/// Whether a container may be given a name for this address. Names do not open a way by themselves; the rule keeps a stack
/// from relying on addresses that the host's firewall closes.
fn is_reachable(text: &str) -> bool {
    let Ok(address) = text.parse::<IpAddr>() else { return false };
    match plain(address) {
        IpAddr::V4(address) => !address.is_link_local() && !METADATA_V4.contains(&address),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !METADATA_V6.contains(&address),
    }
}

/// The IPv4 address that an IPv6 address is a way of writing: mapped, compatible (RFC 4291, 2.5.5), or behind the well-known
/// prefix of a translator (RFC 6052, 2.1).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [.., a, b, c, d] = v6.octets();
    // `::` and `::1` are addresses of their own.
    let is_one = matches!(v6.to_bits() >> 32, 0 | 0xffff | 0x0064_ff9b_0000_0000_0000_0000) && v6.to_bits() > 1;
    if is_one { IpAddr::V4(Ipv4Addr::new(a, b, c, d)) } else { address }
}

/// The engine asks these from the container's network, or from the host's own for a loopback address.
pub(super) fn judge_dns(field: &str, servers: &[String], verdict: &mut Verdict) {
    for (index, server) in servers.iter().enumerate() {
        let public = server.parse::<IpAddr>().is_ok_and(|address| {
            let address = plain(address);
            !address.is_loopback() && !address.is_unspecified() && !address.is_multicast() && is_reachable(server)
        });
        verdict.refuse_if(
            !public,
            format!("{field}.dns[{index}]"),
            "dns",
            "IP addresses of servers that are neither the host's own nor link-local",
        );
    }
}

/// Both become lines of the container's resolv.conf.
pub(super) fn judge_resolver(field: &str, search: &[String], options: &[String], verdict: &mut Verdict) {
    for (index, domain) in search.iter().enumerate() {
        judge_hostname(format!("{field}.dns_search[{index}]"), Some(domain), verdict);
    }
    for (index, option) in options.iter().enumerate() {
        let plain = option.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b':' | b'.'));
        verdict.refuse_if(!plain, format!("{field}.dns_opt[{index}]"), "dns-option", "options of resolv.conf(5)");
    }
}

/// Letters, digits, `-`, `_` and dots: what an author needs, and nothing that `/etc/hosts` would read as something else.
pub(super) fn judge_hostname(field: String, name: Option<&str>, verdict: &mut Verdict) {
    let good = |name: &str| {
        name.len() <= 253 && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
    };
    verdict.refuse_if(!name.is_none_or(good), field, "hostname", "letters, digits, -, _ and dots, at most 253");
}
