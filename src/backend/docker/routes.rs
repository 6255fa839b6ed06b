//! What this host routes to. A tenant network that lies on such a route takes it away: the host, and all on it, would then
//! reach a tenant where it means its own neighbour.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::networks::Subnet;

/// All routes of all tables, without interfaces (`fib_trie`, as the kernel prints it).
const TRIE: &str = "/proc/self/net/fib_trie";
/// The main table, with interfaces.
const MAIN: &str = "/proc/self/net/route";

/// How often an obstacle must be seen, and the time between two looks.
const LOOKS: usize = 5;
const BETWEEN: Duration = Duration::from_millis(200);

/// One IPv4 route, or an address of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) subnet: Subnet,
    /// None where only the other table has it.
    interface: Option<String>,
}

impl Route {
    /// Whether it leads to a bridge that the engine named (`br-` and the first digits of the network's id).
    fn is_bridge(&self) -> bool {
        let id = self.interface.as_deref().and_then(|name| name.strip_prefix("br-"));
        id.is_some_and(|id| id.len() == 12 && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{} ({interface})", self.subnet),
            None => write!(f, "{}", self.subnet),
        }
    }
}

/// Why a pool cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pool} overlaps {route}, to which this host has a route; {}", .proposal.map_or_else(
    || "no private range of a usual size is free".to_owned(),
    |free| format!("{free} is free"),
))]
pub struct PoolOverlap {
    pool: Subnet,
    route: String,
    proposal: Option<Subnet>,
}

/// Checks a pool against the routes that this process sees: the host's, if it is in the host's network namespace.
///
/// A bridge that the engine is just making or removing has an address, but no route: what is an obstacle stays one.
pub async fn check_pool(pool: Subnet) -> Result<(), PoolOverlap> {
    let mut routes = of_this_host();
    let mut lasting = obstacles(pool, &routes);
    for _ in 1..LOOKS {
        if lasting.is_empty() {
            break;
        }
        tokio::time::sleep(BETWEEN).await;
        routes = of_this_host();
        let now = obstacles(pool, &routes);
        lasting.retain(|route| now.contains(route));
    }
    judge(pool, &lasting, &routes)
}

/// The routes of this network namespace, the default routes left out. A table that cannot be read has none.
pub(super) fn of_this_host() -> Vec<Route> {
    let read = |path: &str| {
        std::fs::read_to_string(path).unwrap_or_else(|error| {
            tracing::debug!(path, %error, "routes cannot be read");
            String::new()
        })
    };
    parse(&read(TRIE), &read(MAIN))
}

/// Whether these are the host's own: a process in another network namespace sees no bridge of the engine.
pub(super) fn are_the_hosts() -> bool {
    of_this_host().iter().any(|route| route.is_bridge() || route.interface.as_deref() == Some("docker0"))
}

fn parse(trie: &str, main: &str) -> Vec<Route> {
    let mut routes: Vec<Route> = main.lines().skip(1).filter_map(parse_line).collect();
    let mut address = Ipv4Addr::UNSPECIFIED;
    for line in trie.lines().map(str::trim_start) {
        if let Some(found) = line.strip_prefix("|-- ") {
            address = found.trim_end().parse().unwrap_or(address);
        } else if let Some(found) = line.strip_prefix('/') {
            let mut words = found.split_whitespace();
            let (prefix, kind) = (words.next().and_then(|length| length.parse().ok()), words.nth(1));
            // The others lead nowhere: broadcast addresses, and `throw`, which sends on to the next table.
            let leads = matches!(kind, Some("UNICAST" | "LOCAL" | "BLACKHOLE" | "UNREACHABLE" | "PROHIBIT"));
            let subnet = prefix.filter(|_| leads).map(|prefix| Subnet::new(address, prefix));
            let is_known = |subnet: Subnet| routes.iter().any(|route| route.subnet == subnet);
            routes.extend(subnet.filter(|s| !is_known(*s)).map(|subnet| Route { subnet, interface: None }));
        }
    }
    routes.retain(|route| route.subnet.prefix() > 0);
    routes
}

/// `eth0 000200C0 00000000 0001 0 0 0 00FFFFFF …`: the kernel prints the four bytes of an address as one number of this
/// machine.
fn parse_line(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number =
        |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(u32::to_ne_bytes).map(u32::from_be_bytes);
    let (destination, mask) = (number(1)?, number(7)?);
    let prefix = u8::try_from(mask.leading_ones()).ok()?;
    let interface = fields.first().filter(|name| **name != "*").map(|name| (*name).to_owned());
    Some(Route { subnet: Subnet::new(destination.into(), prefix), interface })
}

/// The routes that a pool overlaps. Networks of tenants are there when the agent starts again: bridges of the engine within
/// the pool are no obstacle.
fn obstacles(pool: Subnet, routes: &[Route]) -> Vec<Route> {
    let bridges: Vec<Subnet> =
        routes.iter().filter(|route| route.is_bridge()).map(|r| r.subnet).filter(|s| pool.contains(*s)).collect();
    let overlapping = routes.iter().filter(|route| route.subnet.overlaps(pool));
    overlapping.filter(|route| !bridges.iter().any(|bridge| bridge.contains(route.subnet))).cloned().collect()
}

fn judge(pool: Subnet, obstacles: &[Route], routes: &[Route]) -> Result<(), PoolOverlap> {
    match obstacles.first() {
        None => Ok(()),
        Some(route) => Err(PoolOverlap { pool, route: route.to_string(), proposal: propose(routes) }),
    }
}

/// The first range of a usual size that the host has no route to.
fn propose(routes: &[Route]) -> Option<Subnet> {
    let like_the_default = (213..=254).map(|n| Subnet::new([10, n, 0, 0].into(), 16));
    let others = (16..=31).rev().map(|n| Subnet::new([172, n, 0, 0].into(), 16));
    let shared = (64..=127).rev().map(|n| Subnet::new([100, n, 0, 0].into(), 16));
    let rest = (0..=212).rev().map(|n| Subnet::new([10, n, 0, 0].into(), 16));
    let small = (0..=255).rev().map(|n| Subnet::new([192, 168, n, 0].into(), 24));
    let mut all = like_the_default.chain(others).chain(shared).chain(rest).chain(small);
    all.find(|free| !routes.iter().any(|route| route.subnet.overlaps(*free)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Route {
        let (subnet, interface) = text.split_once(' ').map_or((text, None), |(s, i)| (s, Some(i.to_owned())));
        Route { subnet: Subnet::parse(subnet).expect(subnet), interface }
    }

    #[test]
    fn tables_of_the_kernel() {
        let main = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                    *\t00004D0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                    \x20    +-- 192.0.2.0/24 2 0 2\n        |-- 192.0.2.0\n           /24 link UNICAST\n\
                    \x20       |-- 192.0.2.2\n           /32 host LOCAL\n\
                    \x20       |-- 192.0.2.255\n           /32 link BROADCAST\n\
                    Id 52:\n  |-- 10.8.0.0\n     /13 universe UNICAST tos=16\n     /16 universe THROW\n";
        let expected = ["192.0.2.0/24 eth0", "10.77.0.0/16", "192.0.2.2/32", "10.8.0.0/13"].map(route);
        if cfg!(target_endian = "little") {
            assert_eq!(parse(trie, main), expected);
        }
        assert_eq!(parse("", ""), []);
        assert_eq!(parse("nonsense\n|-- x\n/y\n/99 host LOCAL\n", "a\nb c\n"), [route("0.0.0.0/32")]);
    }

    #[test]
    fn this_host_has_itself() {
        let routes = of_this_host();
        assert!(routes.iter().any(|route| route.subnet.contains(Subnet::new(Ipv4Addr::LOCALHOST, 32))), "{routes:?}");
    }

    #[test]
    fn a_pool_must_be_free() {
        let lan = "192.168.1.0/24 eth0";
        for (pool, routes, message) in [
            ("10.213.0.0/16", &[lan, "172.17.0.0/16 docker0"][..], ""),
            ("10.213.0.0/16", &[lan, "10.0.0.0/8 tun0"], "overlaps 10.0.0.0/8 (tun0), … 172.31.0.0/16 is free"),
            ("10.213.0.0/16", &["10.213.7.0/24 eth1"], "overlaps 10.213.7.0/24 (eth1), … 10.214.0.0/16 is free"),
            ("10.213.0.0/16", &["10.213.7.1/32"], "overlaps 10.213.7.1/32, … 10.214.0.0/16 is free"),
            // Tenants of before, with the gateways' own addresses.
            ("10.213.0.0/16", &["10.213.0.0/26 br-0123456789ab", "10.213.0.1/32"], ""),
            (
                "10.213.0.0/16",
                &["10.213.0.0/26 br-0123456789ab", "10.213.0.65/32"],
                "overlaps 10.213.0.65/32, … 10.214.0.0/16 is free",
            ),
            ("10.213.0.0/16", &["10.213.0.0/26 br-lan"], "overlaps 10.213.0.0/26 (br-lan), … 10.214.0.0/16 is free"),
            // A bridge that the pool is only a part of is nobody's whom the pool has made.
            (
                "10.213.0.0/16",
                &["10.212.0.0/15 br-0123456789ab"],
                "overlaps 10.212.0.0/15 (br-0123456789ab), … 10.214.0.0/16 is free",
            ),
            (
                "192.168.0.0/16",
                &[lan, "10.0.0.0/8", "172.16.0.0/12", "100.64.0.0/10"],
                "overlaps 192.168.1.0/24 (eth0), … 192.168.255.0/24 is free",
            ),
            (
                "10.0.0.0/8",
                &["10.0.0.0/8 a", "172.16.0.0/12 b", "100.64.0.0/10 c", "192.168.0.0/16 d"],
                "overlaps 10.0.0.0/8 (a), … no private range of a usual size is free",
            ),
        ] {
            let routes: Vec<Route> = routes.iter().map(|text| route(text)).collect();
            let pool = Subnet::parse(pool).unwrap();
            let told =
                judge(pool, &obstacles(pool, &routes), &routes).map_or_else(|e| e.to_string(), |()| String::new());
            let expected = match message.split_once(" … ") {
                Some((overlap, proposal)) => format!("{pool} {overlap} to which this host has a route; {proposal}"),
                None => String::new(),
            };
            assert_eq!(told, expected, "{routes:?}");
        }
    }
}
