//! Ports, networks, and a service's place in them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::domain::{ObjectName, ServiceName};

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
    /// The host's port, or the range from which the engine may take one, as written.
    pub published: Option<(u16, u16)>,
    /// A name for people.
    pub name: Option<String>,
    /// `ingress` or `host`: a swarm's business.
    pub mode: Option<String>,
    /// The application's protocol: a hint.
    pub app_protocol: Option<String>,
}

impl PortMapping {
    /// The host's port, or the range from which one may be taken; none for any free port, which 0 says too.
    pub fn host_ports(&self) -> Option<(u16, u16)> {
        self.published.filter(|&ports| ports != (0, 0))
    }

    /// A port of the container on any free port of the host.
    pub fn of(target: u16, protocol: Protocol) -> Self {
        Self { target, protocol, host_ip: None, published: None, name: None, mode: None, app_protocol: None }
    }
}

/// One entry of `expose`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exposed {
    /// As written, such as `8000-8010/udp`.
    pub text: String,
    /// First and last port. None: the text names none, which loads, and no host runs it (`policy`).
    pub ports: Option<(u16, u16)>,
    /// The protocol.
    pub protocol: Protocol,
}

impl Exposed {
    /// How many ports these are.
    pub fn count(&self) -> usize {
        self.ports.map_or(0, |(first, last)| usize::from(last.saturating_sub(first)) + 1)
    }

    /// Each of them.
    pub fn each(&self) -> impl Iterator<Item = u16> {
        self.ports.into_iter().flat_map(|(first, last)| first..=last)
    }
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
    /// Order of connecting, highest first.
    pub priority: i64,
    /// Which network has the default route, highest first (Engine API 1.48).
    pub gw_priority: i64,
    /// The interface's name in the container (Engine API 1.49).
    pub interface_name: Option<String>,
    /// Whether it is written as a mapping, if an empty one: only for printing.
    #[serde(skip)]
    pub is_mapping: bool,
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
    /// Engine API 1.48.
    pub enable_ipv4: Option<bool>,
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

impl Network {
    /// A network that says nothing but its name.
    pub fn of(name: ObjectName) -> Self {
        Self {
            name,
            external: false,
            driver: None,
            driver_opts: BTreeMap::new(),
            internal: false,
            attachable: false,
            enable_ipv4: None,
            enable_ipv6: None,
            labels: BTreeMap::new(),
            ipam: None,
        }
    }
}
