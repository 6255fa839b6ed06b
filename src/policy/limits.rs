//! What a container gets that asks for nothing, and what a project needs.

use crate::compose::{MountSource, Project, Service};
use crate::domain::{Demand, NANO_CPUS};

/// What a container gets under a confining profile when its service says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Billionths of a CPU.
    pub nano_cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// Processes.
    pub pids: u64,
    /// Open files.
    pub nofile: u64,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    /// Bytes in one log file.
    pub log_size: u64,
    /// Log files kept.
    pub log_files: u64,
    /// Bytes counted against the host for a container that reserves none and has no limit of its own.
    pub reserved_memory: u64,
    /// Billionths of a CPU, likewise.
    pub reserved_nano_cpus: u64,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            nano_cpus: NANO_CPUS,
            memory: 512 << 20,
            pids: 256,
            nofile: 65_536,
            shm_size: 64 << 20,
            log_size: 10_000_000,
            log_files: 3,
            reserved_memory: 32 << 20,
            reserved_nano_cpus: NANO_CPUS / 50,
        }
    }
}

/// What a project needs; what it does not say is given the defaults.
pub fn demand(project: &Project, defaults: &Defaults) -> Demand {
    let mut demand = Demand {
        services: count(project.services.len()),
        networks: count(project.networks.values().filter(|network| !network.external).count()),
        volumes: count(project.volumes.values().filter(|volume| !volume.external).count()),
        ..Demand::default()
    };
    for service in project.services.values() {
        let replicas = u64::from(service.replicas());
        let times = |amount: u64| amount.saturating_mul(replicas);
        let limits = service.limits();
        let (cpus, memory) = (nano_cpus(service), positive(limits.memory));
        let reserved_cpus = service.deploy.as_ref().and_then(|deploy| deploy.resources.reservations.nano_cpus);
        let anonymous = service.mounts.iter().filter(|m| matches!(m.source, MountSource::Anonymous { .. })).count();
        for (sum, more) in [
            (&mut demand.containers, 1),
            (&mut demand.ports, count(service.ports.len())),
            (&mut demand.volumes, count(anonymous)),
            (&mut demand.nano_cpus, cpus.unwrap_or(defaults.nano_cpus)),
            (&mut demand.memory, memory.unwrap_or(defaults.memory)),
            (&mut demand.pids, positive(limits.pids).unwrap_or(defaults.pids)),
            (
                &mut demand.reserved_memory,
                memory.unwrap_or(defaults.reserved_memory).max(positive(limits.memory_reservation).unwrap_or(0)),
            ),
            (
                &mut demand.reserved_nano_cpus,
                cpus.unwrap_or(defaults.reserved_nano_cpus).max(positive(reserved_cpus).unwrap_or(0)),
            ),
        ] {
            *sum = sum.saturating_add(times(more));
        }
    }
    demand
}

/// The CPU limit of a service in billionths: `cpus`, or `cpu_quota` for each `cpu_period` (100 ms when it says nothing).
pub fn nano_cpus(service: &Service) -> Option<u64> {
    let limits = service.limits();
    positive(limits.nano_cpus).or_else(|| {
        let quota = positive(limits.cpu_quota)?;
        let period = positive(limits.cpu_period).unwrap_or(100_000);
        Some(u64::try_from(u128::from(quota) * u128::from(NANO_CPUS) / u128::from(period)).unwrap_or(u64::MAX))
    })
}

/// What says something: 0 and less do not.
pub(super) fn positive(amount: Option<i64>) -> Option<u64> {
    amount.and_then(|amount| u64::try_from(amount).ok()).filter(|&amount| amount > 0)
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}
