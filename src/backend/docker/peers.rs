//! Which addresses are tenants': their containers must not reach the agent's own API.
//!
//! Nearly all lie in the pool. The others, which an operator chose in a file or which were taken over, are learnt from every
//! list of networks that is asked for anyway, so that nobody who connects costs a call to the engine.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{PoisonError, RwLock};

use bollard::models::Network;

use super::labels;
use super::networks::Subnet;

/// An IPv4 or IPv6 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    address: IpAddr,
    prefix: u8,
}

impl Block {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= most).then_some(Self { address, prefix })
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// The tenants' addresses, as far as they are known.
pub(super) struct Peers {
    pool: Subnet,
    /// Outside the pool; none until the engine has been asked once.
    others: RwLock<Option<Vec<Block>>>,
}

impl Peers {
    pub(super) fn new(pool: Subnet) -> Self {
        Self { pool, others: RwLock::new(None) }
    }

    /// Whether this is a tenant's address, or the end of its bridge on this host.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if let IpAddr::V4(v4) = address
            && self.pool.contains(Subnet::new(v4, 32))
        {
            return true;
        }
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        others.iter().flatten().any(|block| block.contains(address))
    }

    /// Takes over what a list of all networks says.
    pub(super) fn learn(&self, networks: &[Network]) {
        let tenants = networks.iter().filter(|network| network.labels.as_ref().is_some_and(is_tenants));
        let subnets = tenants.filter_map(|network| network.ipam.as_ref()?.config.as_ref()).flatten();
        let blocks = subnets.filter_map(|config| Block::parse(config.subnet.as_deref()?));
        let outside = blocks.filter(|block| match block.address {
            IpAddr::V4(address) => !self.pool.contains(Subnet::new(address, block.prefix)),
            IpAddr::V6(_) => true,
        });
        let outside: Vec<Block> = outside.collect();
        *self.others.write().unwrap_or_else(PoisonError::into_inner) = Some(outside);
    }

    /// Whether it has been told of all networks at least once.
    pub(super) fn has_learnt(&self) -> bool {
        self.others.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// A network that was taken over has its project's label only.
fn is_tenants(labels: &HashMap<String, String>) -> bool {
    labels.contains_key(labels::AGENT) || labels.get(labels::PROJECT).is_some_and(|project| project.starts_with("q8-"))
}

#[cfg(test)]
mod tests {
    use bollard::models::{Ipam, IpamConfig};

    use super::*;

    fn network(label: (&str, &str), subnets: &[&str]) -> Network {
        let config = subnets.iter().map(|text| IpamConfig { subnet: Some((*text).to_owned()), ..Default::default() });
        Network {
            labels: Some(HashMap::from([(label.0.to_owned(), label.1.to_owned())])),
            ipam: Some(Ipam { config: Some(config.collect()), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn tenants_addresses() {
        let peers = Peers::new(Subnet::new([10, 213, 0, 0].into(), 16));
        let is = |text: &str| peers.contains(text.parse().unwrap());
        assert!(is("10.213.255.255") && is("::ffff:10.213.0.2") && !is("10.214.0.0") && !is("127.0.0.1") && !is("::1"));
        assert!(!peers.has_learnt() && !is("172.30.0.2"));
        peers.learn(&[
            network((labels::AGENT, "a"), &["172.30.0.0/24", "fd12::/64"]),
            network((labels::PROJECT, "q8-acme"), &["172.31.0.0/16", "10.213.4.0/24"]),
            network((labels::PROJECT, "mine"), &["172.20.0.0/16"]),
            network(("x", "y"), &["0.0.0.0/0"]),
            network((labels::AGENT, "a"), &["", "nonsense", "10.0.0.0/33"]),
        ]);
        assert!(peers.has_learnt());
        for tenants in ["172.30.0.255", "::ffff:172.30.0.1", "fd12::1", "172.31.9.9", "10.213.4.4"] {
            assert!(is(tenants), "{tenants}");
        }
        for other in ["172.30.1.0", "fd13::1", "172.20.0.1", "8.8.8.8", "10.0.0.1"] {
            assert!(!is(other), "{other}");
        }
        peers.learn(&[]);
        assert!(!is("172.30.0.255") && is("10.213.0.1"));
    }
}
