//! What holds on a host: a profile, and what an operator adds to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::file::{self, PolicyFileError};
use super::limits::Defaults;
use crate::domain::{Limits, NANO_CPUS, ObjectName, Subdomain};

/// Where the rules start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// For stacks written by strangers: nothing reaches the host or another tenant. The default.
    Baseline,
    /// Baseline, and besides: not root, no capabilities, a read-only root file system, no undefined variables.
    Restricted,
    /// For hosts whose stacks are the operator's own: only names, ownership labels and `.agent` are protected.
    Trusted,
}

impl Profile {
    /// The word used in settings and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
            Self::Trusted => "trusted",
        }
    }

    /// The profile of this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Baseline, Self::Restricted, Self::Trusted].into_iter().find(|profile| profile.as_str() == text)
    }

    /// Whether its stacks are written by strangers.
    pub fn confines(self) -> bool {
        self != Self::Trusted
    }
}

/// A directory or file of the host that containers may bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindGrant {
    /// An absolute, clean path; what is below it is granted too.
    pub path: String,
    /// Whether containers may write there.
    pub read_write: bool,
}

/// What an operator allows beyond a profile. Data only: the last gate of a backend reads it too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// Capabilities for `cap_add`, without `CAP_`, in capitals.
    pub capabilities: BTreeSet<String>,
    /// Host paths for binds.
    pub binds: Vec<BindGrant>,
    /// Fixed host ports outside the publish range, both ends included.
    pub ports: Vec<(u16, u16)>,
    /// Addresses of the host on which ports may be published besides the publish host.
    pub publish_hosts: BTreeSet<IpAddr>,
    /// Networks that exist outside the tenants, for `external: true`.
    pub external_networks: BTreeSet<ObjectName>,
    /// Prefixes of labels that are reserved otherwise, such as `traefik.`; never those of ownership.
    pub labels: BTreeSet<String>,
    /// Kernel parameters for `sysctls`.
    pub sysctls: BTreeSet<String>,
}

impl Grants {
    /// Both together.
    fn extended(mut self, more: &Self) -> Self {
        self.capabilities.extend(more.capabilities.iter().cloned());
        self.binds.extend(more.binds.iter().cloned());
        self.ports.extend(more.ports.iter().copied());
        self.publish_hosts.extend(more.publish_hosts.iter().copied());
        self.external_networks.extend(more.external_networks.iter().cloned());
        self.labels.extend(more.labels.iter().cloned());
        self.sysctls.extend(more.sysctls.iter().cloned());
        self
    }
}

/// How much of the host the tenants may have together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HostShare {
    /// Bytes of memory that are kept back for the host itself.
    pub reserve_memory: u64,
    /// Billionths of a CPU, likewise.
    pub reserve_nano_cpus: u64,
    /// How often the rest of the memory is given away.
    pub memory_overcommit: f64,
    /// How often the rest of the CPUs is given away: they can be shared, memory cannot.
    pub cpu_overcommit: f64,
}

impl Default for HostShare {
    fn default() -> Self {
        Self { reserve_memory: 512 << 20, reserve_nano_cpus: 0, memory_overcommit: 1.0, cpu_overcommit: 8.0 }
    }
}

impl HostShare {
    /// What the tenants of a host of this size may reserve together: bytes of memory.
    pub fn memory(&self, host: u64) -> u64 {
        scaled(host.saturating_sub(self.reserve_memory), self.memory_overcommit)
    }

    /// Likewise billionths of a CPU.
    pub fn nano_cpus(&self, cpus: u64) -> u64 {
        scaled(cpus.saturating_mul(NANO_CPUS).saturating_sub(self.reserve_nano_cpus), self.cpu_overcommit)
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a host needs no more digits; the factor is positive"
)]
fn scaled(amount: u64, factor: f64) -> u64 {
    (amount as f64 * factor) as u64
}

/// The rules of one host (`Q8_AGENT_POLICY`).
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub(super) profile: Profile,
    pub(super) registries: Option<BTreeSet<String>>,
    pub(super) host_credentials: bool,
    pub(super) grants: Grants,
    pub(super) limits: Limits,
    pub(super) defaults: Defaults,
    pub(super) host: HostShare,
    pub(super) tenants: BTreeMap<Subdomain, OfTenant>,
}

/// What differs for one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OfTenant {
    pub(super) profile: Option<Profile>,
    pub(super) registries: Option<BTreeSet<String>>,
    pub(super) host_credentials: Option<bool>,
    pub(super) grants: Grants,
    pub(super) limits: Limits,
}

/// The rules for one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRules {
    /// Where they start from.
    pub profile: Profile,
    /// The registries that images may come from; none: any but loopback, IP addresses and single-label hosts.
    pub registries: Option<BTreeSet<String>>,
    /// Whether its images are pulled with the host's own registry credentials where its request has none.
    pub host_credentials: bool,
    /// What is allowed beyond the profile.
    pub grants: Grants,
    /// The most that it may have.
    pub limits: Limits,
    /// What its containers get that ask for nothing.
    pub defaults: Defaults,
}

impl From<Profile> for Rules {
    fn from(profile: Profile) -> Self {
        Self {
            profile,
            registries: None,
            host_credentials: true,
            grants: Grants::default(),
            limits: Limits::default(),
            defaults: Defaults::default(),
            host: HostShare::default(),
            tenants: BTreeMap::new(),
        }
    }
}

impl From<Profile> for TenantRules {
    fn from(profile: Profile) -> Self {
        Rules::from(profile).resolve(&OfTenant::default())
    }
}

impl Rules {
    /// Reads a policy file (the module `file` says what may stand in it).
    pub fn parse(text: &str) -> Result<Self, PolicyFileError> {
        file::parse(text)
    }

    /// The profile of tenants for which the file says nothing else.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// For a host on which no process may have more open files than this: the engine cannot start a container with more,
    /// so the default is not more. What a file says stays.
    #[must_use]
    pub fn with_most_open_files(mut self, most: u64) -> Self {
        if self.defaults.nofile == Defaults::default().nofile {
            self.defaults.nofile = self.defaults.nofile.min(most);
        }
        self
    }

    /// How much of the host the tenants may have together.
    pub fn host(&self) -> HostShare {
        self.host
    }

    /// The rules for a tenant.
    pub fn of(&self, tenant: &Subdomain) -> TenantRules {
        self.resolve(&self.tenants.get(tenant).cloned().unwrap_or_default())
    }

    /// The rules for a tenant for which the file says nothing of its own.
    pub fn of_any(&self) -> TenantRules {
        self.resolve(&OfTenant::default())
    }

    fn resolve(&self, own: &OfTenant) -> TenantRules {
        let profile = own.profile.unwrap_or(self.profile);
        let registries = match (&self.registries, &own.registries) {
            (Some(all), Some(own)) => Some(all | own),
            (all, own) => own.clone().or_else(|| all.clone()),
        };
        // An operator's own stacks have the limits that the operator writes down and no others.
        // So many containers that planning them would take the host's memory are nobody's intention, though.
        let unlimited = Limits { containers: Some(1000), ..Limits::default() };
        let default = if profile.confines() { Limits::DEFAULT } else { unlimited };
        TenantRules {
            profile,
            registries,
            host_credentials: own.host_credentials.unwrap_or(self.host_credentials),
            grants: self.grants.clone().extended(&own.grants),
            limits: own.limits.or(self.limits).or(default),
            defaults: self.defaults,
        }
    }
}
