//! Making networks and volumes, each with a check that what exists under the name is really the tenant's.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use bollard::models::{
    Ipam as EngineIpam, IpamConfig, Network as EngineNetwork, NetworkCreateRequest, NetworkInspect, VolumeCreateRequest,
};

use super::engine::{Engine, EngineError};
use super::gate::{Allowance, Checked};
use super::observe::Observed;
use super::peers::Peers;
use super::{adoption, labels, routes};
use crate::backend::{BackendError, Deployment};
use crate::compose::{Ipam, Network, Volume};
use crate::domain::{ContainerName, ObjectKey, ObjectName};

/// Prefix length of a tenant network: 62 usable addresses.
const SUBNET_PREFIX: u8 = 26;
/// How often another subnet is tried when somebody else takes the chosen one at the same moment.
const ATTEMPTS: usize = 64;

/// An IPv4 network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    /// First address.
    base: u32,
    /// Prefix length.
    prefix: u8,
}

impl Subnet {
    /// The network of this size that contains `address`.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Self { base: u32::from(address) & mask, prefix }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        Some(Self::new(address.parse().ok()?, prefix.parse().ok()?))
    }

    fn size(self) -> u64 {
        1 << (32 - self.prefix)
    }

    pub(super) fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether all of `other` lies in it.
    pub(super) fn contains(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.overlaps(other)
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        let end = |subnet: Self| u64::from(subnet.base) + subnet.size();
        u64::from(self.base) < end(other) && u64::from(other.base) < end(self)
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// The pauses between attempts to remove a network: a second and a half together while containers are on it, six seconds if
/// none is. The engine forgets an endpoint first and counts it off when its firewall rules are gone, which takes time on a
/// busy host.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE_IN_USE: Duration = Duration::from_millis(800);
const LAST_PAUSE: Duration = Duration::from_millis(3200);

/// Why a network is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Kept {
    #[error("containers are on it")]
    InUse,
    /// moby/moby#42119
    #[error("nothing is on it, but the engine counts endpoints that are gone; only its restart corrects the count")]
    Miscounted,
}

/// Removes a network; one that is not there is no error. What keeps it, if something does.
///
/// On a busy host the engine may still count the endpoint of a container that has ended or is gone ("has active endpoints",
/// 403). What no container has any more is taken off by force, as `docker network disconnect --force` does. An engine before
/// 28.1 keeps the count apart from the endpoints, and containers that start and stop at once may leave it too high for good.
pub(super) async fn remove(engine: &Engine, id: &str) -> Result<Option<Kept>, EngineError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match engine.remove_network(id).await {
            Err(EngineError::Refused { status: 403, .. }) => {}
            other => return other.map(|()| None),
        }
        let Some(endpoints) = release_the_gone(engine, id).await? else { return Ok(None) };
        let (last, kept) =
            if endpoints.is_empty() { (LAST_PAUSE, Kept::Miscounted) } else { (LAST_PAUSE_IN_USE, Kept::InUse) };
        if pause > last {
            return Ok(Some(kept));
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// Takes endpoints off a network that no container has any more. The names of those that it had; none if it is gone.
async fn release_the_gone(engine: &Engine, id: &str) -> Result<Option<Vec<String>>, EngineError> {
    let network = match engine.inspect_network_by(id).await {
        Ok(network) => network,
        Err(EngineError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let endpoints: Vec<String> =
        network.containers.into_iter().flatten().filter_map(|(_, endpoint)| endpoint.name).collect();
    tracing::info!(network = id, ?endpoints, "a network cannot be removed yet");
    for name in endpoints.iter().filter_map(|name| ContainerName::parse(name).ok()) {
        if matches!(engine.inspect_named(&name).await, Err(EngineError::NotFound(_))) {
            tracing::warn!(network = id, %name, "an endpoint has outlived its container");
            engine.release(id, name.as_str()).await?;
        }
    }
    Ok(Some(endpoints))
}

/// Hands out subnets for tenant networks. The engine's own list is the truth; only what is being made right now is
/// kept here, so that two tenants at once do not choose the same one.
pub(super) struct SubnetPool {
    pool: Subnet,
    peers: Peers,
    choosing: tokio::sync::Mutex<()>,
    in_flight: Mutex<BTreeSet<Subnet>>,
}

impl SubnetPool {
    pub(super) fn new(pool: Subnet) -> Self {
        Self {
            pool,
            peers: Peers::new(pool),
            choosing: tokio::sync::Mutex::new(()),
            in_flight: Mutex::new(BTreeSet::new()),
        }
    }

    pub(super) fn pool(&self) -> Subnet {
        self.pool
    }

    /// Whose addresses are tenants'.
    pub(super) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Asks the engine whose addresses are tenants'.
    pub(super) async fn look_around(&self, engine: &Engine) -> Result<(), EngineError> {
        self.peers.learn(&engine.networks(None).await?);
        Ok(())
    }

    /// How many subnets of the pool are free, going by these networks of the engine.
    pub(super) fn free(&self, networks: &[EngineNetwork]) -> u64 {
        let routes = routes::of_this_host().into_iter().map(|route| route.subnet);
        let in_flight = self.in_flight.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let taken: Vec<Subnet> = subnets_of(networks).chain(routes).chain(in_flight.iter().copied()).collect();
        count_free(self.pool, SUBNET_PREFIX, &taken)
    }

    /// The lowest free subnet; it stays reserved until the reservation is dropped.
    async fn reserve(&self, engine: &Engine, avoid: &BTreeSet<Subnet>) -> Result<Option<Reservation<'_>>, EngineError> {
        let _one_at_a_time = self.choosing.lock().await;
        let networks = engine.networks(None).await?;
        self.peers.learn(&networks);
        // Some may have come up after the agent's start, such as a VPN's.
        let routes = routes::of_this_host().into_iter().map(|route| route.subnet);
        let taken = subnets_of(&networks);
        let mut in_flight = self.in_flight.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let taken: Vec<Subnet> =
            taken.chain(routes).chain(in_flight.iter().copied()).chain(avoid.iter().copied()).collect();
        let Some(subnet) = lowest_free(self.pool, SUBNET_PREFIX, &taken) else { return Ok(None) };
        in_flight.insert(subnet);
        Ok(Some(Reservation { pool: self, subnet }))
    }
}

/// The IPv4 subnets that the engine's networks have.
fn subnets_of(networks: &[EngineNetwork]) -> impl Iterator<Item = Subnet> {
    let configs = networks.iter().filter_map(|network| network.ipam.as_ref()?.config.as_ref()).flatten();
    configs.filter_map(|config| Subnet::parse(config.subnet.as_deref()?))
}

struct Reservation<'a> {
    pool: &'a SubnetPool,
    subnet: Subnet,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.pool.in_flight.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&self.subnet);
    }
}

/// The lowest subnet of the pool that overlaps none of the taken ones. Skips over whole taken networks, so the time it
/// takes depends on how many there are and not on the size of the pool.
fn lowest_free(pool: Subnet, prefix: u8, taken: &[Subnet]) -> Option<Subnet> {
    let prefix = prefix.max(pool.prefix);
    let end = u64::from(pool.base) + pool.size();
    let mut base = u64::from(pool.base);
    loop {
        let candidate = Subnet { base: u32::try_from(base).ok()?, prefix };
        if base + candidate.size() > end {
            return None;
        }
        match taken
            .iter()
            .filter(|other| candidate.overlaps(**other))
            .map(|other| u64::from(other.base) + other.size())
            .max()
        {
            None => return Some(candidate),
            Some(behind) => base = behind.next_multiple_of(candidate.size()),
        }
    }
}

/// How many subnets of this size in the pool overlap none of the taken ones. The time it takes depends on how many are
/// taken, not on the size of the pool.
fn count_free(pool: Subnet, prefix: u8, taken: &[Subnet]) -> u64 {
    let size = Subnet { base: 0, prefix: prefix.max(pool.prefix) }.size();
    let (start, end) = (u64::from(pool.base), u64::from(pool.base) + pool.size());
    let mut ranges: Vec<(u64, u64)> = taken
        .iter()
        .filter(|other| other.overlaps(pool))
        .map(|other| {
            let base = u64::from(other.base);
            let first = (base.max(start) - start) / size;
            (first, ((base + other.size()).min(end) - start).div_ceil(size))
        })
        .collect();
    ranges.sort_unstable();
    let (mut used, mut behind) = (0, 0);
    for (first, last) in ranges {
        used += last.saturating_sub(first.max(behind));
        behind = behind.max(last);
    }
    (pool.size() / size).saturating_sub(used)
}

/// Makes a network, or finds it when an earlier attempt made it and its answer was lost.
pub(super) async fn ensure_network(
    engine: &Engine,
    pool: &SubnetPool,
    deployment: &Deployment,
    key: &ObjectKey,
    network: &Network,
) -> Result<(), BackendError> {
    let doing = "making a network";
    let spec = deployment.object_hash(network);
    match the_one(engine, deployment, &network.name, None).await {
        Ok(found) => {
            let (id, found_labels) = (found.id.as_deref(), found.labels.unwrap_or_default());
            if !adoption::owns_network(&deployment.tenant, id, &found_labels) {
                return Err(taken("network", network.name.as_str()));
            }
            let adopted = id.and_then(|id| deployment.tenant.adopted.networks.get(id));
            if adopted.or(found_labels.get(labels::SPEC)) == Some(&spec) {
                return Ok(());
            }
            return Err(BackendError::Refused { message: format!("network {key} could not be replaced") });
        }
        Err(EngineError::NotFound(_)) => {}
        Err(error) => return Err(error.into_backend(doing)),
    }
    let allowance = Allowance::of(deployment, engine.ground());
    let own = network.ipam.clone().unwrap_or_default();
    // Whoever chooses a subnet or another address manager has chosen; the rest gets its subnet here, options and all.
    if !own.config.is_empty() || own.driver.as_ref().is_some_and(|driver| driver != "default") {
        let made = async {
            engine
                .create_network(allowance.network(request(deployment, (key, network), None))?)
                .await
                .map_err(|error| error.into_backend(doing))?;
            pool.look_around(engine).await.map_err(|error| error.into_backend(doing))
        };
        return made.await;
    }
    let mut avoid = BTreeSet::new();
    for _ in 0..ATTEMPTS {
        let reservation = pool.reserve(engine, &avoid).await.map_err(|error| error.into_backend(doing))?;
        let Some(reservation) = reservation else {
            return Err(BackendError::HostFull { what: "subnet in Q8_AGENT_SUBNET_POOL".to_owned(), field: None });
        };
        let request = request(deployment, (key, network), Some(reservation.subnet.to_string()));
        let request = allowance.network(request)?;
        match engine.create_network(request.clone()).await {
            Ok(id) => {
                as_sent(engine, deployment, &request, &network.name, &id).await?;
                // The engine adds a subnet of IPv6 by itself.
                if network.enable_ipv6 == Some(true) {
                    pool.look_around(engine).await.map_err(|error| error.into_backend(doing))?;
                }
                return Ok(());
            }
            // Somebody outside this agent took it, or a route of the host lies there.
            Err(EngineError::Refused { message, .. }) if message.to_ascii_lowercase().contains("overlap") => {
                avoid.insert(reservation.subnet);
            }
            // "network with name … already exists": made meanwhile, by us or by somebody else.
            Err(EngineError::Conflict(_)) => {
                return match engine.inspect_network(&network.name).await {
                    Ok(found) => {
                        let ours = labels::is_ours(&found.labels.unwrap_or_default(), &deployment.tenant);
                        if ours { Ok(()) } else { Err(taken("network", network.name.as_str())) }
                    }
                    Err(error) => Err(error.into_backend(doing)),
                };
            }
            Err(error) => return Err(error.into_backend(doing)),
        }
    }
    Err(BackendError::Refused { message: "no subnet of Q8_AGENT_SUBNET_POOL could be used".to_owned() })
}

/// The create request of a network, in this subnet or in those that it has chosen itself.
pub(super) fn request(
    deployment: &Deployment,
    (key, network): (&ObjectKey, &Network),
    subnet: Option<String>,
) -> NetworkCreateRequest {
    let spec = deployment.object_hash(network);
    let mut ipam = engine_ipam(&network.ipam.clone().unwrap_or_default());
    if let Some(subnet) = subnet {
        ipam.config = Some(vec![IpamConfig { subnet: Some(subnet), ..Default::default() }]);
    }
    NetworkCreateRequest {
        name: network.name.as_str().to_owned(),
        driver: network.driver.clone(),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        ipam: Some(ipam),
        options: (!network.driver_opts.is_empty()).then(|| network.driver_opts.clone().into_iter().collect()),
        labels: Some(labels::object(deployment, labels::NETWORK, key.as_str(), &spec, network.labels.clone())),
        ..Default::default()
    }
}

/// The network of this name. Engines look for the name before they make a network, but not at the same time for two calls:
/// what a killed agent has asked for may be made beside what its successor asks for. Of such twins the one to `keep` stays,
/// and one that is in use.
async fn the_one(
    engine: &Engine,
    deployment: &Deployment,
    name: &ObjectName,
    keep: Option<&str>,
) -> Result<NetworkInspect, EngineError> {
    match engine.inspect_network(name).await {
        Err(EngineError::Refused { status: 400, message }) if message.contains("ambiguous") => {
            tracing::warn!(%name, "there are several networks of one name");
        }
        other => return other,
    }
    let filters = HashMap::from([("name".to_owned(), vec![name.as_str().to_owned()])]);
    for twin in engine.networks(Some(&filters)).await? {
        let ours = labels::is_ours(&twin.labels.unwrap_or_default(), &deployment.tenant);
        let id = twin.id.filter(|id| ours && twin.name.as_deref() == Some(name.as_str()) && keep != Some(id.as_str()));
        let Some(id) = id else { continue };
        match engine.remove_network(&id).await {
            // Containers are on it.
            Err(EngineError::Refused { status: 403, .. }) => {}
            other => other?,
        }
    }
    engine.inspect_network(name).await
}

/// Looks at a network that was made, and removes it again if it is not what was asked for.
async fn as_sent(
    engine: &Engine,
    deployment: &Deployment,
    request: &Checked<NetworkCreateRequest>,
    name: &ObjectName,
    id: &str,
) -> Result<(), BackendError> {
    let allowance = Allowance::of(deployment, engine.ground());
    if !allowance.confines() {
        return Ok(());
    }
    let found = the_one(engine, deployment, name, Some(id)).await;
    let found = found.map_err(|error| error.into_backend("looking at a network"))?;
    let verdict = allowance.network_is_as_sent(request, &found);
    if verdict.is_err() {
        engine.remove_network(id).await.map_err(|error| error.into_backend("removing a network"))?;
    }
    verdict
}

fn engine_ipam(ipam: &Ipam) -> EngineIpam {
    let config = ipam
        .config
        .iter()
        .map(|pool| IpamConfig {
            subnet: pool.subnet.clone(),
            gateway: pool.gateway.clone(),
            ip_range: pool.ip_range.clone(),
            auxiliary_addresses: (!pool.aux_addresses.is_empty())
                .then(|| pool.aux_addresses.clone().into_iter().collect()),
        })
        .collect();
    EngineIpam {
        driver: ipam.driver.clone(),
        config: Some(config),
        options: (!ipam.options.is_empty()).then(|| ipam.options.clone().into_iter().collect::<HashMap<_, _>>()),
    }
}

fn taken(kind: &'static str, name: &str) -> BackendError {
    BackendError::NameTaken { kind, name: name.to_owned() }
}

/// The create request of a volume.
pub(super) fn volume_request(deployment: &Deployment, key: &ObjectKey, volume: &Volume) -> VolumeCreateRequest {
    let spec = deployment.object_hash(volume);
    VolumeCreateRequest {
        name: Some(volume.name.as_str().to_owned()),
        driver: volume.driver.clone(),
        driver_opts: (!volume.driver_opts.is_empty()).then(|| volume.driver_opts.clone().into_iter().collect()),
        labels: Some(labels::object(deployment, labels::VOLUME, key.as_str(), &spec, volume.labels.clone())),
        ..Default::default()
    }
}

/// Makes a volume. The engine answers with an existing volume of the name, whoever owns it, so the labels of what came
/// back decide.
pub(super) async fn ensure_volume(
    engine: &Engine,
    deployment: &Deployment,
    key: &ObjectKey,
    volume: &Volume,
) -> Result<(), BackendError> {
    let allowance = Allowance::of(deployment, engine.ground());
    let body = allowance.volume(volume_request(deployment, key, volume))?;
    let made = engine.create_volume(body).await.map_err(|error| error.into_backend("making a volume"))?;
    if !labels::is_ours(&made.labels, &deployment.tenant) {
        return Err(taken("volume", volume.name.as_str()));
    }
    allowance.volume_is_as_sent(&made)
}

/// Checks what a confined tenant has already under the names of its volumes and networks: it may have been made under other
/// rules, or by somebody else and be taken over, and its driver or options may reach the host. What is not the tenant's is
/// found out when it is to be made.
pub(super) fn check_kept(deployment: &Deployment, observed: &Observed) -> Result<(), BackendError> {
    if !deployment.project.is_confined() {
        return Ok(());
    }
    let refused = |field: String, allowed: &str| {
        Err(BackendError::Unsupported { field, reason: format!("what is there under its name is not {allowed}") })
    };
    let project = deployment.project.project();
    for (key, volume) in project.volumes.iter().filter(|(_, volume)| !volume.external) {
        if observed.volumes.iter().any(|found| found.name == volume.name && !found.is_plain) {
            return refused(format!("volumes.{key}"), "a local volume without options");
        }
    }
    for (key, network) in project.networks.iter().filter(|(_, network)| !network.external) {
        let found = observed.networks.iter().filter(|found| found.name == network.name.as_str());
        if found.into_iter().any(|found| found.driver.as_deref() != Some("bridge")) {
            return refused(format!("networks.{key}"), "a bridge");
        }
    }
    Ok(())
}

/// Checks that the external networks and volumes of a project exist (Compose Specification, `external`).
pub(super) async fn check_external(engine: &Engine, deployment: &Deployment) -> Result<(), BackendError> {
    let missing = |field: String| BackendError::Unsupported {
        field,
        reason: "it is external, and does not exist on this host".to_owned(),
    };
    let project = deployment.project.project();
    for (key, network) in project.networks.iter().filter(|(_, network)| network.external) {
        match engine.inspect_network(&network.name).await {
            Ok(_) => {}
            Err(EngineError::NotFound(_)) => return Err(missing(format!("networks.{key}"))),
            Err(error) => return Err(error.into_backend("looking for an external network")),
        }
    }
    for (key, volume) in project.volumes.iter().filter(|(_, volume)| volume.external) {
        match engine.inspect_volume(&volume.name).await {
            Ok(_) => {}
            Err(EngineError::NotFound(_)) => return Err(missing(format!("volumes.{key}"))),
            Err(error) => return Err(error.into_backend("looking for an external volume")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).expect(text)
    }

    #[test]
    fn the_lowest_free_subnet() {
        let pool = subnet("10.213.0.0/16");
        for (taken, expected) in [
            (vec![], Some("10.213.0.0/26")),
            (vec!["10.213.0.0/26"], Some("10.213.0.64/26")),
            (vec!["10.213.0.64/26"], Some("10.213.0.0/26")),
            (vec!["10.213.0.0/26", "10.213.0.64/27"], Some("10.213.0.128/26")),
            (vec!["10.0.0.0/8"], None),
            (vec!["10.213.0.0/24", "172.17.0.0/16"], Some("10.213.1.0/26")),
            (vec!["10.213.0.3/32"], Some("10.213.0.64/26")),
        ] {
            let taken: Vec<Subnet> = taken.into_iter().map(subnet).collect();
            assert_eq!(lowest_free(pool, 26, &taken).map(|found| found.to_string()).as_deref(), expected, "{taken:?}");
        }
        let full: Vec<Subnet> = (0..1024).map(|n| Subnet { base: pool.base + n * 64, prefix: 26 }).collect();
        assert_eq!(lowest_free(pool, 26, &full), None);
        assert_eq!(lowest_free(subnet("255.255.255.192/26"), 26, &[]), Some(subnet("255.255.255.192/26")));
    }
    #[test]
    fn free_subnets_are_counted() {
        let pool = subnet("10.213.0.0/16");
        for (taken, expected) in [
            (vec![], 1024),
            (vec!["10.213.0.0/26"], 1023),
            (vec!["10.213.0.0/26", "10.213.0.0/27", "10.213.0.3/32"], 1023),
            (vec!["10.213.0.0/26", "10.213.0.64/27"], 1022),
            (vec!["10.213.0.0/24", "10.213.0.128/26", "10.213.0.192/26", "10.213.1.0/26"], 1019),
            (vec!["172.17.0.0/16", "10.214.0.0/16"], 1024),
            (vec!["10.0.0.0/8"], 0),
            (vec!["10.213.255.255/32"], 1023),
        ] {
            let taken: Vec<Subnet> = taken.into_iter().map(subnet).collect();
            assert_eq!(count_free(pool, 26, &taken), expected, "{taken:?}");
        }
        assert_eq!(count_free(subnet("255.255.255.224/27"), 26, &[]), 1);
    }
}
