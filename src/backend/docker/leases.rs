//! Which host port a container gets, and whether the ones that its file names can be had.
//!
//! A port of a range is chosen here, once, when the container is made, and not by the engine at each start: so it stays the
//! same for as long as its slot exists. The choice begins at a place that depends on who asks and not at the lowest free
//! port: a port that one tenant gave back is not the next tenant's at once, while others may still send requests there.
//!
//! ```text
//! free = no container of the engine has it, running or not     (one list call: bindings, and the label that is written
//!        and nothing on the host is bound to it                 when a container is made)
//!        and no creation in flight has it                      (the leases)
//! ```
//!
//! A port without a number under `trusted` is none of this: the engine gives any free one at each start.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard::models::{ContainerSummary, PortSummaryTypeEnum};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::engine::Engine;
use super::labels;
use crate::backend::plan::Slot;
use crate::backend::{Action, BackendError, Deployment, Plan, Work};
use crate::compose::{NetworkMode, PortMapping, Protocol};
use crate::domain::{ContainerId, ServiceName};

/// How long a port is passed over that the engine refused although it looked free: somebody has it whom the agent cannot
/// see.
const PASSED_OVER: Duration = Duration::from_mins(10);

/// A host port that somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    protocol: Protocol,
    /// None for every address of the host.
    address: Option<IpAddr>,
    port: u16,
    /// The container's port behind it.
    target: u16,
}

impl Held {
    fn clashes(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.port == other.port && meet(self.address, other.address)
    }
}

/// Whether two sockets on these addresses cannot have one port.
fn meet(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return true };
    let (one, other) = (one.to_canonical(), other.to_canonical());
    one == other || (one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified()))
}

impl std::fmt::Display for Held {
    /// As in the label [`labels::PORTS`].
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            None => write!(f, "*:{}", self.port)?,
            Some(address) => write!(f, "{}", SocketAddr::new(address, self.port))?,
        }
        write!(f, "->{}/{}", self.target, self.protocol.as_str())
    }
}

impl std::str::FromStr for Held {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, target) = text.split_once("->").ok_or(())?;
        let (target, protocol) = target.split_once('/').ok_or(())?;
        let (address, port) = if let Some(port) = host.strip_prefix("*:") {
            (None, port.parse().map_err(drop)?)
        } else {
            let host: SocketAddr = host.parse().map_err(drop)?;
            (Some(host.ip()), host.port())
        };
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.as_str() == protocol);
        Ok(Self { protocol: protocol.ok_or(())?, address, port, target: target.parse().map_err(drop)? })
    }
}

/// The host ports of one container of the engine.
#[derive(Debug, Default)]
struct Holder {
    ports: Vec<Held>,
    /// It runs, so that nobody else is bound to them.
    bound: bool,
}

impl Holder {
    /// Not only the ports of what runs: a label says what a container will have when it starts.
    fn of(summary: ContainerSummary) -> Option<(ContainerId, Self)> {
        let id = ContainerId::parse(summary.id.as_deref()?).ok()?;
        let label = summary.labels.and_then(|mut labels| labels.remove(labels::PORTS)).unwrap_or_default();
        let mut ports: Vec<Held> = label.split(',').filter_map(|text| text.parse().ok()).collect();
        let promised = ports.len();
        ports.extend(summary.ports.unwrap_or_default().into_iter().filter_map(|port| {
            let protocol = match port.typ {
                Some(PortSummaryTypeEnum::UDP) => Protocol::Udp,
                Some(PortSummaryTypeEnum::SCTP) => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            let address = port.ip.and_then(|ip| ip.parse().ok());
            Some(Held { protocol, address, port: port.public_port?, target: port.private_port })
        }));
        let bound = ports.len() > promised;
        Some((id, Self { ports, bound }))
    }
}

/// A published port that a container to be made asks for.
#[derive(Debug)]
struct Asked<'a> {
    slot: Slot<'a>,
    /// Its place in the service's `ports`.
    at: usize,
    mapping: &'a PortMapping,
    range: (u16, u16),
    /// The container that it replaces runs on beside it.
    beside: bool,
}

impl Asked<'_> {
    fn is_fixed(&self) -> bool {
        self.range.0 == self.range.1
    }

    fn held(&self, port: u16) -> Held {
        let PortMapping { protocol, host_ip: address, target, .. } = *self.mapping;
        Held { protocol, address, port, target }
    }

    fn field(&self) -> String {
        format!("services.{}.ports[{}]", self.slot.service, self.at)
    }

    /// No host can give a port to two containers of one tenant.
    fn is_taken_by(&self, other: &Self) -> BackendError {
        let port = self.range.0;
        let reason = if self.slot.service == other.slot.service && self.at == other.at {
            format!("each replica would need host port {port}; a range has one for each")
        } else {
            format!("host port {port} is published by {} as well", other.field())
        };
        BackendError::Unsupported { field: self.field(), reason }
    }

    fn taken(&self) -> BackendError {
        BackendError::PortTaken { service: self.slot.service.clone(), at: Some(self.at), port: self.range.0 }
    }
}

/// What the containers of a plan ask for.
fn asked<'a>(wanted: &'a Deployment, plan: &'a Plan) -> Vec<Asked<'a>> {
    let mut all = Vec::new();
    for (at, step) in plan.steps.iter().enumerate() {
        let Some(slot) = step.slot() else { continue };
        if !matches!(slot.action, Action::Create | Action::Recreate) {
            continue;
        }
        let Some(service) = wanted.service(slot.service) else { continue };
        // In somebody else's network namespace, or in none, nothing is published.
        if !matches!(service.network_mode, None | Some(NetworkMode::Bridge | NetworkMode::Named(_))) {
            continue;
        }
        let beside = starts_beside(plan, at);
        all.extend(service.ports.iter().enumerate().filter_map(|(at, mapping)| {
            let (first, last) = mapping.host_ports()?;
            Some(Asked { slot, at, mapping, range: (first.max(1), last), beside })
        }));
    }
    all
}

/// Whether the container of a step starts before the one that it replaces stops.
fn starts_beside(plan: &Plan, at: usize) -> bool {
    let place = |work: Work| plan.tasks.iter().position(|task| task.work == work);
    matches!((place(Work::Start(at)), place(Work::Stop(at))), (Some(start), Some(stop)) if start < stop)
}

/// What is taken when a choice is made.
struct Ground<'a> {
    holders: BTreeMap<ContainerId, Holder>,
    /// Containers that stop before anything of the plan starts.
    leaving: BTreeSet<&'a ContainerId>,
    /// Containers that have done their work before anything else needs their ports.
    idle: BTreeSet<&'a ContainerId>,
    in_flight: Vec<Held>,
    passed_over: BTreeSet<(Protocol, u16)>,
    /// Whether something on the host is bound to it.
    is_bound: &'a dyn Fn(&Held) -> bool,
}

impl<'a> Ground<'a> {
    fn new(wanted: &Deployment, plan: &'a Plan, holders: BTreeMap<ContainerId, Holder>) -> Self {
        let project = wanted.project.project();
        let (mut leaving, mut idle) = (BTreeSet::new(), BTreeSet::new());
        for (at, slot) in plan.steps.iter().enumerate().filter_map(|(at, step)| Some((at, step.slot()?))) {
            let Some(existing) = slot.existing else { continue };
            let goes = matches!(slot.action, Action::Recreate | Action::Remove);
            if goes && !starts_beside(plan, at) {
                leaving.insert(existing);
            } else if project.is_awaited_by_completion(slot.service) {
                idle.insert(existing);
            }
        }
        Self { holders, leaving, idle, in_flight: Vec::new(), passed_over: BTreeSet::new(), is_bound: &is_bound }
    }

    /// The first of the ports that are asked for that somebody else has, or a port for each. Those that the file names come
    /// first, so that no other gets one of them.
    fn choose(&self, wanted: &Deployment, asked: &[Asked<'_>]) -> Result<Vec<u16>, BackendError> {
        let mut chosen: Vec<Option<u16>> = vec![None; asked.len()];
        for (place, ask) in asked.iter().enumerate().filter(|(_, ask)| ask.is_fixed()) {
            let held = ask.held(ask.range.0);
            let mut earlier = asked[..place].iter().filter(|other| other.is_fixed());
            if let Some(other) = earlier.find(|other| collide(wanted, ask, other, &held)) {
                return Err(ask.is_taken_by(other));
            }
            if !self.can_have(&held) {
                return Err(ask.taken());
            }
            chosen[place] = Some(ask.range.0);
        }
        let mut taken: BTreeSet<(Protocol, u16)> = self.passed_over.clone();
        taken.extend(self.in_flight.iter().map(|held| (held.protocol, held.port)));
        taken.extend(asked.iter().zip(&chosen).filter_map(|(ask, port)| Some((ask.mapping.protocol, (*port)?))));
        for (place, ask) in asked.iter().enumerate().filter(|(_, ask)| !ask.is_fixed()) {
            let protocol = ask.mapping.protocol;
            let before = self.before(ask);
            let mine = ask.slot.existing.filter(|id| self.leaving.contains(id));
            let theirs = self.holders.iter().filter(|(id, _)| Some(*id) != mine);
            let theirs: BTreeSet<(Protocol, u16)> =
                theirs.flat_map(|(_, holder)| &holder.ports).map(|held| (held.protocol, held.port)).collect();
            let is_free = |port: &u16| {
                !taken.contains(&(protocol, *port))
                    && !theirs.contains(&(protocol, *port))
                    && (before.contains(&(*port, true)) || !(self.is_bound)(&ask.held(*port)))
            };
            let kept = before.iter().map(|(port, _)| *port);
            let port = kept.chain(from_own_place(wanted, ask)).find(is_free);
            let Some(port) = port else {
                let (first, last) = ask.range;
                return Err(BackendError::HostFull {
                    what: format!("host port from {first} to {last}"),
                    field: Some(ask.field()),
                });
            };
            taken.insert((protocol, port));
            chosen[place] = Some(port);
        }
        Ok(chosen.into_iter().flatten().collect())
    }

    /// Whether a port that the file names can be had once what leaves has left.
    fn can_have(&self, wanted: &Held) -> bool {
        if self.in_flight.iter().any(|held| held.clashes(wanted)) {
            return false;
        }
        let mut is_ours = false;
        for (id, holder) in &self.holders {
            if !holder.ports.iter().any(|held| held.clashes(wanted)) {
                continue;
            }
            if self.leaving.contains(id) {
                is_ours |= holder.bound;
            } else if holder.bound || !self.idle.contains(id) {
                return false;
            }
        }
        is_ours || !(self.is_bound)(wanted)
    }

    /// The ports that the container before had for the same purpose, and whether it is bound to them: the new one gets the
    /// same.
    fn before(&self, ask: &Asked<'_>) -> Vec<(u16, bool)> {
        let existing = ask.slot.existing.filter(|id| !ask.beside && self.leaving.contains(id));
        let Some(holder) = existing.and_then(|id| self.holders.get(id)) else { return Vec::new() };
        let same = holder.ports.iter().filter(|held| {
            (held.protocol, held.target) == (ask.mapping.protocol, ask.mapping.target)
                && (ask.range.0..=ask.range.1).contains(&held.port)
        });
        same.map(|held| (held.port, holder.bound)).collect()
    }
}

/// Whether two containers of one plan want the same port at the same time.
fn collide(wanted: &Deployment, ask: &Asked<'_>, other: &Asked<'_>, held: &Held) -> bool {
    let project = wanted.project.project();
    let ends = |ask: &Asked<'_>| project.is_awaited_by_completion(ask.slot.service);
    let together = ask.slot.service == other.slot.service || !(ends(ask) || ends(other));
    together && held.clashes(&other.held(other.range.0))
}

/// The ports of a range, beginning at a place that only this agent can tell.
fn from_own_place(wanted: &Deployment, ask: &Asked<'_>) -> impl Iterator<Item = u16> + use<> {
    let (first, last) = ask.range;
    let number = ask.slot.number.to_be_bytes();
    let target = format!("{}/{}", ask.mapping.target, ask.mapping.protocol.as_str());
    let (tenant, service) = (wanted.tenant.subdomain.as_str(), ask.slot.service.as_str());
    let hash = wanted.key.hash(&[b"port", tenant.as_bytes(), service.as_bytes(), &number, target.as_bytes()]);
    let length = u32::from(last - first) + 1;
    let start = u32::from_str_radix(&hash[..8], 16).unwrap_or(0) % length;
    (0..length).map(move |step| first + u16::try_from((start + step) % length).unwrap_or(0))
}

/// Whether something on this host is bound to it, so that the engine could not be. What cannot be told, such as a port on an
/// address that is not this network namespace's, is for the engine to say.
///
/// The socket is bound as the engine's own proxy binds it, and neither listens nor is in its way.
fn is_bound(held: &Held) -> bool {
    let kind = match held.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
        Protocol::Sctp => return false,
    };
    let addresses = match held.address {
        Some(address) => vec![address.to_canonical()],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let bind = |address: IpAddr| -> Result<(), Errno> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket_with(family, kind, rustix::net::SocketFlags::CLOEXEC, None)?;
        if family == AddressFamily::INET6 {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if kind == SocketType::STREAM {
            // Connections that have ended (TIME_WAIT) hold no port.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        rustix::net::bind(&socket, &SocketAddr::new(address, held.port))
    };
    addresses.into_iter().any(|address| bind(address) == Err(Errno::ADDRINUSE))
}

/// What creations in flight have, and what the engine refused.
#[derive(Default)]
struct Ledger {
    in_flight: Vec<Held>,
    refused: BTreeMap<(Protocol, u16), Instant>,
}

/// Hands out host ports. The engine's own list is the truth; only what is being made right now is kept here.
#[derive(Default)]
pub(super) struct Leases {
    choosing: tokio::sync::Mutex<()>,
    ledger: Arc<Mutex<Ledger>>,
}

fn open(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Leases {
    /// A port for each one that the plan's new containers ask for. They are nobody else's until the claims are dropped; by
    /// then the containers bear them in a label, or have not been made.
    pub(super) async fn claim(
        &self,
        engine: &Engine,
        wanted: &Deployment,
        plan: &Plan,
    ) -> Result<Claims, BackendError> {
        let asked = asked(wanted, plan);
        if asked.is_empty() {
            return Ok(Claims::default());
        }
        let _one_at_a_time = self.choosing.lock().await;
        let listed = engine.containers(&HashMap::new()).await.map_err(|error| error.into_backend("listing ports"))?;
        let mut ground = Ground::new(wanted, plan, listed.into_iter().filter_map(Holder::of).collect());
        let mut ledger = open(&self.ledger);
        ledger.refused.retain(|_, since| since.elapsed() < PASSED_OVER);
        ground.in_flight.clone_from(&ledger.in_flight);
        ground.passed_over.extend(ledger.refused.keys());
        let chosen = ground.choose(wanted, &asked)?;
        let held: Vec<Held> = asked.iter().zip(&chosen).map(|(ask, port)| ask.held(*port)).collect();
        ledger.in_flight.extend(&held);
        let mut ports: BTreeMap<(ServiceName, u32), BTreeMap<usize, u16>> = BTreeMap::new();
        for (ask, port) in asked.iter().zip(chosen) {
            ports.entry((ask.slot.service.clone(), ask.slot.number)).or_default().insert(ask.at, port);
        }
        Ok(Claims { ports, held, ledger: Arc::clone(&self.ledger) })
    }

    /// How many ports of the range no container has, running or not, and none is being made with. What else on the host is
    /// bound there is not looked at: that would be a socket for each.
    pub(super) fn free(&self, containers: Vec<ContainerSummary>, (first, last): (u16, u16)) -> u64 {
        let holders: Vec<Holder> = containers.into_iter().filter_map(Holder::of).map(|(_, holder)| holder).collect();
        let in_flight = open(&self.ledger).in_flight.clone();
        let held = holders.iter().flat_map(|holder| &holder.ports).chain(&in_flight).map(|held| held.port);
        let held: BTreeSet<u16> = held.filter(|port| (first..=last).contains(port)).collect();
        (u64::from(last.saturating_sub(first)) + 1).saturating_sub(held.len() as u64)
    }

    /// Whether the ports that the file names can be had. Takes nothing.
    pub(super) async fn check(&self, engine: &Engine, wanted: &Deployment, plan: &Plan) -> Result<(), BackendError> {
        if asked(wanted, plan).iter().any(Asked::is_fixed) {
            self.claim(engine, wanted, plan).await?;
        }
        Ok(())
    }
}

/// The ports of the containers that one plan makes.
#[derive(Default)]
pub(super) struct Claims {
    /// By service and number; by the place in the service's `ports`.
    ports: BTreeMap<(ServiceName, u32), BTreeMap<usize, u16>>,
    held: Vec<Held>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Claims {
    /// The host ports of a new container.
    pub(super) fn of(&self, slot: Slot<'_>) -> BTreeMap<usize, u16> {
        self.ports.get(&(slot.service.clone(), slot.number)).cloned().unwrap_or_default()
    }

    /// The engine could not have this port, whoever has it.
    pub(super) fn refused(&self, port: u16) {
        let refused = self.held.iter().filter(|held| held.port == port);
        open(&self.ledger).refused.extend(refused.map(|held| ((held.protocol, port), Instant::now())));
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        let mut ledger = open(&self.ledger);
        for held in &self.held {
            if let Some(place) = ledger.in_flight.iter().position(|other| other == held) {
                ledger.in_flight.swap_remove(place);
            }
        }
    }
}

/// What the label says of a container that is made with these ports.
pub(super) fn label(mappings: &[PortMapping], ports: &BTreeMap<usize, u16>) -> String {
    let held = mappings.iter().enumerate().filter_map(|(at, mapping)| {
        let PortMapping { protocol, host_ip: address, target, .. } = *mapping;
        Some(Held { protocol, address, port: *ports.get(&at)?, target }.to_string())
    });
    held.collect::<Vec<_>>().join(",")
}

/// The place in a service's `ports` that a container has this host port by, read from its label or, where that says nothing,
/// from what the file asks for.
pub(super) fn place_of(port: u16, mappings: &[PortMapping], label: &str) -> Option<usize> {
    let named = label.split(',').filter_map(|text| text.parse::<Held>().ok()).find(|held| held.port == port);
    let has = |mapping: &PortMapping, held: Held| {
        (mapping.target, mapping.protocol, mapping.host_ip) == (held.target, held.protocol, held.address)
    };
    let in_range = |mapping: &PortMapping| mapping.host_ports().is_some_and(|(low, high)| (low..=high).contains(&port));
    let labelled = named.and_then(|held| mappings.iter().position(|mapping| has(mapping, held)));
    labelled.or_else(|| mappings.iter().position(in_range))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::backend::{PlannedObject, ResolvedImages, Step, converge, graph, sample};
    use crate::domain::{ContainerName, ErrorCode};
    use crate::policy::Profile;

    fn wanted(services: &str) -> Deployment {
        sample::deployment(Profile::Trusted, &format!("services: {{{services}}}"), &[])
    }

    fn id(digit: char) -> ContainerId {
        ContainerId::parse(&digit.to_string().repeat(64)).unwrap()
    }

    /// A plan that makes everything; `replaced` are the containers of services that are there, with what becomes of them.
    fn plan(wanted: &Deployment, replaced: &[(&str, char, Action)]) -> Plan {
        let fresh = converge::plan(wanted, &ResolvedImages::new(), None, &converge::Observed::default()).unwrap();
        let mut steps: Vec<Step> = fresh.steps;
        for (service, digit, action) in replaced {
            let service = ServiceName::parse(service).unwrap();
            let name = ContainerName::parse("x").unwrap();
            let object =
                PlannedObject::Container { service: service.clone(), number: 1, name, existing: Some(id(*digit)) };
            steps.retain(|step| step.slot().is_none_or(|slot| *slot.service != service));
            steps.push(Step { object, action: *action, reason: String::new() });
        }
        let project = wanted.project.project();
        let tasks = graph::tasks(&steps, project, &graph::Circumstances::default()).unwrap();
        Plan { steps, tasks, ..Plan::default() }
    }

    /// What a container has; `bound` when it runs.
    fn holder(digit: char, ports: &str, bound: bool) -> (ContainerId, Holder) {
        (id(digit), Holder { ports: ports.split(',').map(|text| text.parse().unwrap()).collect(), bound })
    }

    fn choose(
        wanted: &Deployment,
        plan: &Plan,
        holders: &[(char, &str, bool)],
        is_bound: &dyn Fn(&Held) -> bool,
    ) -> Result<Vec<u16>, String> {
        let holders = holders.iter().map(|(digit, ports, bound)| holder(*digit, ports, *bound)).collect();
        let ground = Ground { is_bound, ..Ground::new(wanted, plan, holders) };
        ground.choose(wanted, &asked(wanted, plan)).map_err(|error| {
            let codes = [ErrorCode::PortTaken, ErrorCode::HostFull, ErrorCode::UnsupportedOnBackend];
            assert!(codes.contains(&error.code()), "{error:?}");
            format!("{} {error}", error.field().unwrap_or_default())
        })
    }

    const FREE: &dyn Fn(&Held) -> bool = &|_| false;

    #[test]
    fn the_label_is_read_as_it_was_written() {
        for text in ["127.0.0.1:20000->80/tcp", "[::1]:53->53/udp", "*:9->65535/sctp"] {
            assert_eq!(text.parse::<Held>().map(|held| held.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "20000->80/tcp", "*:20000-80/tcp", "*:70000->80/tcp", "*:1->80", "*:1->80/icmp", "a:1->80/tcp"]
        {
            assert_eq!(text.parse::<Held>(), Err(()), "{text}");
        }
    }

    #[test]
    fn the_place_of_a_port() {
        let wanted = wanted("a: {image: x, ports: ['9000-9003:90', '127.0.0.1:9000-9003:91', '80:80']}");
        let ports = &wanted.project.project().services[&ServiceName::parse("a").unwrap()].ports;
        for (port, label, place) in [
            (9001, "127.0.0.1:9001->91/tcp,*:9000->90/tcp", Some(1)),
            (9000, "127.0.0.1:9001->91/tcp,*:9000->90/tcp", Some(0)),
            (9001, "", Some(0)),
            (80, "", Some(2)),
            (81, "*:81->1/tcp", None),
        ] {
            assert_eq!(place_of(port, ports, label), place, "{port} {label}");
        }
    }

    #[test]
    fn addresses_that_meet() {
        for (one, other, clash) in [
            ("*:80->1/tcp", "127.0.0.1:80->2/tcp", true),
            ("*:80->1/tcp", "[::1]:80->2/tcp", true),
            ("0.0.0.0:80->1/tcp", "127.0.0.1:80->2/tcp", true),
            ("0.0.0.0:80->1/tcp", "[::]:80->2/tcp", false),
            ("127.0.0.1:80->1/tcp", "127.0.0.2:80->2/tcp", false),
            ("127.0.0.1:80->1/tcp", "[::ffff:127.0.0.1]:80->2/tcp", true),
            ("127.0.0.1:80->1/tcp", "127.0.0.1:80->1/udp", false),
            ("127.0.0.1:80->1/tcp", "127.0.0.1:81->1/tcp", false),
        ] {
            let (one, other): (Held, Held) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!((one.clashes(&other), other.clashes(&one)), (clash, clash), "{one} {other}");
        }
    }

    #[test]
    fn ports_that_the_file_names() {
        let two = |a: &str, b: &str| format!("a: {{image: x, ports: ['{a}']}}, b: {{image: x, ports: ['{b}']}}");
        let here = "127.0.0.1:8080:80";
        let taken = |field: &str| Err(format!("services.{field} host port 8080 is in use"));
        let twice =
            |field: &str, why: &str| Err(format!("services.{field} services.{field} cannot be done here: {why}"));
        let one = format!("a: {{image: x, ports: ['9:9', '{here}']}}");
        for (services, replaced, holders, expected) in [
            (one.as_str(), &[][..], &[][..], Ok(vec![9, 8080])),
            (&one, &[], &[('e', "0.0.0.0:8080->1/tcp", true)], taken("a.ports[1]")),
            // One that is stopped wants it again when it is started.
            (&one, &[], &[('e', "*:8080->1/tcp", false)], taken("a.ports[1]")),
            (&one, &[], &[('e', "127.0.0.2:8080->1/tcp", true), ('f', "*:8080->1/udp", true)], Ok(vec![9, 8080])),
            // Its own container leaves it.
            (&one, &[("a", 'e', Action::Recreate)], &[('e', "127.0.0.1:8080->80/tcp", true)], Ok(vec![9, 8080])),
            (&one, &[("gone", 'e', Action::Remove)], &[('e', "127.0.0.1:8080->80/tcp", true)], Ok(vec![9, 8080])),
            // And another of the tenant's own goes on.
            (&two(here, "5:5"), &[("b", 'e', Action::Keep)], &[('e', "*:8080->80/tcp", true)], taken("a.ports[0]")),
            (
                &two(here, "8080:1"),
                &[],
                &[],
                twice("b.ports[0]", "host port 8080 is published by services.a.ports[0] as well"),
            ),
            (&two(here, "8080:1/udp"), &[], &[], Ok(vec![8080, 8080])),
            (&two(here, "127.0.0.2:8080:1"), &[], &[], Ok(vec![8080, 8080])),
            (
                "a: {image: x, scale: 2, ports: ['8080:80']}",
                &[],
                &[],
                twice("a.ports[0]", "each replica would need host port 8080; a range has one for each"),
            ),
            ("a: {image: x, network_mode: host, ports: ['8080:80']}", &[], &[('e', "*:8080->1/tcp", true)], Ok(vec![])),
            // What has ended before the other begins leaves its port to it.
            (
                "a: {image: x, ports: ['8080:80']}, b: {image: x, ports: ['8080:80'], \
                 depends_on: {a: {condition: service_completed_successfully}}}",
                &[],
                &[],
                Ok(vec![8080, 8080]),
            ),
        ] {
            let wanted = wanted(services);
            let plan = plan(&wanted, replaced);
            assert_eq!(choose(&wanted, &plan, holders, FREE), expected, "{services} {holders:?}");
        }
    }

    #[test]
    fn a_listener_of_the_host_has_its_port() {
        let wanted = wanted("a: {image: x, ports: ['8080:80', '9000-9002:90']}");
        let (fresh, again) = (plan(&wanted, &[]), plan(&wanted, &[("a", 'e', Action::Recreate)]));
        let there = &[('e', "*:8080->80/tcp,*:9001->90/tcp", true)][..];
        let named = |held: &Held| held.port == 8080;
        assert!(choose(&wanted, &fresh, &[], &named).is_err());
        // Bound by the container that is replaced: nobody else can be.
        assert_eq!(choose(&wanted, &again, there, &|_| true), Ok(vec![8080, 9001]));
        // A container that does not run is bound to nothing.
        let stopped = &[('e', "*:8080->80/tcp,*:9001->90/tcp", false)][..];
        assert!(choose(&wanted, &again, stopped, &named).is_err());
        assert_eq!(choose(&wanted, &again, stopped, FREE), Ok(vec![8080, 9001]));
        assert_ne!(choose(&wanted, &again, stopped, &|held| held.port == 9001).unwrap()[1], 9001);
        assert_eq!(choose(&wanted, &fresh, &[], &|held| held.port == 9000 || held.port == 9001), Ok(vec![8080, 9002]));
    }

    #[test]
    fn a_port_of_a_range() {
        let wanted = wanted(
            "a: {image: x, scale: 3, ports: ['9000-9003:90', '9000-9003:91']}, b: {image: x, ports: ['9001:1']}",
        );
        let full = choose(&wanted, &plan(&wanted, &[]), &[], FREE);
        assert_eq!(full, Err("services.a.ports[1] this host has no host port from 9000 to 9003 left".to_owned()));
        let wanted = self::wanted("a: {image: x, scale: 3, ports: ['9000-9003:90']}, b: {image: x, ports: ['9001:1']}");
        let fresh = plan(&wanted, &[]);
        let chosen = choose(&wanted, &fresh, &[], FREE).unwrap();
        assert_eq!(choose(&wanted, &fresh, &[], FREE), Ok(chosen.clone()), "the same again");
        assert_eq!(chosen.iter().copied().collect::<BTreeSet<u16>>(), BTreeSet::from([9000, 9001, 9002, 9003]));
        let left = choose(&wanted, &fresh, &[('e', "127.0.0.1:9000->1/tcp", false)], FREE);
        assert!(left.is_err(), "three replicas and two ports: {left:?}");
        assert!(choose(&wanted, &fresh, &[('e', "127.0.0.1:9000->1/udp", false)], FREE).is_ok());
    }

    #[test]
    fn a_container_that_replaces_another_one_gets_its_ports() {
        let wanted = wanted(
            "a: {image: x, ports: ['20000-29999:80', '20000-29999:81', '20000-29999:82'], \
             deploy: {update_config: {order: start-first}}}",
        );
        let again = plan(&wanted, &[("a", 'e', Action::Recreate)]);
        let there = &[('e', "*:25001->81/tcp,*:25000->80/tcp,*:19999->82/tcp,*:25000->80/tcp", true)][..];
        let chosen = choose(&wanted, &again, there, FREE).unwrap();
        assert_eq!(chosen[..2], [25000, 25001]);
        assert_ne!(chosen[2], 19999, "it is not of the range any more");
        // Both run for a while.
        let mut beside = again;
        let stop = beside.tasks.iter().position(|task| matches!(task.work, Work::Stop(_))).unwrap();
        let stop = beside.tasks.remove(stop);
        beside.tasks.push(stop);
        let chosen = choose(&wanted, &beside, there, FREE).unwrap();
        assert!(!chosen.contains(&25000) && !chosen.contains(&25001), "{chosen:?}");
    }

    #[test]
    fn what_is_bound_on_this_host() {
        let held = |protocol, address: &str, port| Held { protocol, address: address.parse().ok(), port, target: 1 };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for (address, bound) in
            [("127.0.0.1", true), ("0.0.0.0", true), ("*", true), ("127.0.0.2", false), ("::1", false)]
        {
            assert_eq!(is_bound(&held(Protocol::Tcp, address, port)), bound, "{address}");
        }
        assert!(
            !is_bound(&held(Protocol::Udp, "127.0.0.1", port)) && !is_bound(&held(Protocol::Sctp, "127.0.0.1", port))
        );
        // Not an address of this host: the engine will say.
        assert!(!is_bound(&held(Protocol::Tcp, "203.0.113.1", port)));
        // A connection that has ended on this side holds no port.
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        drop(listener.accept().unwrap());
        drop((client, listener));
        assert!(!is_bound(&held(Protocol::Tcp, "127.0.0.1", port)));
        let everywhere = TcpListener::bind("[::]:0").unwrap();
        let port = everywhere.local_addr().unwrap().port();
        assert!(is_bound(&held(Protocol::Tcp, "127.0.0.1", port)), "a socket for both families");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(is_bound(&held(Protocol::Udp, "127.0.0.1", socket.local_addr().unwrap().port())));
    }
}
