//! How much one tenant may have, and how much it needs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Billionths in one CPU (Engine API `NanoCpus`).
pub const NANO_CPUS: u64 = 1_000_000_000;

/// The most that one tenant may have in sum over its containers; none is no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Services.
    pub services: Option<u64>,
    /// Containers, replicas counted.
    pub containers: Option<u64>,
    /// Networks.
    pub networks: Option<u64>,
    /// Volumes, anonymous ones of the file counted.
    pub volumes: Option<u64>,
    /// Published ports.
    pub ports: Option<u64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes.
    pub pids: Option<u64>,
}

/// What is counted against a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the members of `Limits`, and the tenants of a host")]
pub enum Quantity {
    Services,
    Containers,
    Networks,
    Volumes,
    Ports,
    Tenants,
    Cpus,
    Memory,
    Pids,
}

impl Quantity {
    /// The word used in settings and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Containers => "containers",
            Self::Networks => "networks",
            Self::Volumes => "volumes",
            Self::Ports => "ports",
            Self::Tenants => "tenants",
            Self::Cpus => "cpus",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// An amount as people write it: CPUs with their fraction, bytes, or a count.
    pub fn show(self, amount: u64) -> String {
        match self {
            Self::Cpus => {
                let text = format!("{}.{:09}", amount / NANO_CPUS, amount % NANO_CPUS);
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            Self::Memory => format!("{amount} bytes"),
            _ => amount.to_string(),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Limits {
    /// For tenants under a confining profile when the operator says nothing. CPU and memory are bounded by the host's
    /// capacity alone.
    pub const DEFAULT: Self = Self {
        services: Some(40),
        containers: Some(60),
        networks: Some(16),
        volumes: Some(60),
        ports: Some(64),
        nano_cpus: None,
        memory: None,
        pids: Some(32_768),
    };

    fn each(self) -> [(Quantity, Option<u64>); 8] {
        [
            (Quantity::Services, self.services),
            (Quantity::Containers, self.containers),
            (Quantity::Networks, self.networks),
            (Quantity::Volumes, self.volumes),
            (Quantity::Ports, self.ports),
            (Quantity::Cpus, self.nano_cpus),
            (Quantity::Memory, self.memory),
            (Quantity::Pids, self.pids),
        ]
    }

    /// These, and where they say nothing the others.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            services: self.services.or(other.services),
            containers: self.containers.or(other.containers),
            networks: self.networks.or(other.networks),
            volumes: self.volumes.or(other.volumes),
            ports: self.ports.or(other.ports),
            nano_cpus: self.nano_cpus.or(other.nano_cpus),
            memory: self.memory.or(other.memory),
            pids: self.pids.or(other.pids),
        }
    }

    /// The lower of both, each for itself.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        fn lower(a: Option<u64>, b: Option<u64>) -> Option<u64> {
            a.into_iter().chain(b).min()
        }
        Self {
            services: lower(self.services, other.services),
            containers: lower(self.containers, other.containers),
            networks: lower(self.networks, other.networks),
            volumes: lower(self.volumes, other.volumes),
            ports: lower(self.ports, other.ports),
            nano_cpus: lower(self.nano_cpus, other.nano_cpus),
            memory: lower(self.memory, other.memory),
            pids: lower(self.pids, other.pids),
        }
    }

    /// What a project needs beyond these limits.
    pub fn exceeded_by(self, demand: &Demand) -> Vec<Excess> {
        let asked = demand.counted().each();
        let over = self.each().into_iter().zip(asked).filter_map(|((quantity, allowed), (_, asked))| {
            let (allowed, asked) = (allowed?, asked?);
            (asked > allowed).then_some(Excess { limit: quantity, asked, allowed })
        });
        over.collect()
    }
}

/// One limit that a project exceeds: CPUs in billionths, memory in bytes, the rest counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Excess {
    /// Which limit.
    pub limit: Quantity,
    /// What the project needs.
    pub asked: u64,
    /// What it may have.
    pub allowed: u64,
}

/// What a project needs, summed over its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in `Limits`")]
pub struct Demand {
    pub services: u64,
    pub containers: u64,
    pub networks: u64,
    pub volumes: u64,
    pub ports: u64,
    pub nano_cpus: u64,
    pub memory: u64,
    pub pids: u64,
    /// Bytes that the host has to keep for it: limits, or reservations that are larger, else a default. The author of a stack
    /// chooses both, so the smaller of them is no promise.
    pub reserved_memory: u64,
    /// Billionths of a CPU, likewise.
    pub reserved_nano_cpus: u64,
}

impl Demand {
    fn counted(&self) -> Limits {
        Limits {
            services: Some(self.services),
            containers: Some(self.containers),
            networks: Some(self.networks),
            volumes: Some(self.volumes),
            ports: Some(self.ports),
            nano_cpus: Some(self.nano_cpus),
            memory: Some(self.memory),
            pids: Some(self.pids),
        }
    }
}
