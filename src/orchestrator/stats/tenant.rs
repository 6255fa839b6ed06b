//! What one tenant uses: each container and all together.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Serialize;

use crate::backend::{ContainerUsage, TenantRef, Used};
use crate::domain::{
    BackendName, ContainerId, ContainerName, Generation, ObjectName, ServiceName, Subdomain, TenantId,
};
use crate::orchestrator::{Error, Orchestrator};
use crate::tenant_fs::Record;

/// The answer to `GET /v1/tenants/stats/{subdomain}`. What cannot be seen is null. Counters (`_bytes` of network and
/// blocks, `_seconds`) grow while a container runs and begin anew with its next start.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct TenantStats {
    pub subdomain: Subdomain,
    pub id: TenantId,
    pub generation: Generation,
    pub total: Numbers,
    pub containers: Vec<ContainerStats>,
    pub disk: DiskUse,
}

/// One container.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct ContainerStats {
    pub service: ServiceName,
    pub number: u32,
    pub name: ContainerName,
    pub id: ContainerId,
    pub running: bool,
    #[serde(flatten)]
    pub numbers: Numbers,
}

/// What is used now.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct Numbers {
    /// CPUs that were busy between two looks.
    pub cpu_used_cores: Option<f64>,
    pub cpu_seconds: Option<f64>,
    /// Time in which it was not let run because its CPU limit was used up.
    pub cpu_throttled_seconds: Option<f64>,
    /// As `docker stats` counts: without the file cache that can go at once.
    pub memory_bytes: Option<u64>,
    /// The host's memory for a container without a limit.
    pub memory_limit_bytes: Option<u64>,
    pub pids: Option<u64>,
    pub network_received_bytes: Option<u64>,
    pub network_sent_bytes: Option<u64>,
    pub block_read_bytes: Option<u64>,
    pub block_written_bytes: Option<u64>,
}

/// What is taken of the disks: as it was measured last. Null until that has been done once; asking has it done.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct DiskUse {
    pub directory: Option<DirectoryUse>,
    pub volumes: Option<VolumesUse>,
}

/// The tenant's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct DirectoryUse {
    pub total_bytes: u64,
    /// Of `data/`.
    pub data_bytes: u64,
    /// False when there was more than the agent counts.
    pub complete: bool,
    pub age_s: u64,
}

/// The tenant's volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct VolumesUse {
    pub total_bytes: u64,
    pub each: Vec<VolumeUse>,
    pub age_s: u64,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct VolumeUse {
    pub name: ObjectName,
    pub bytes: u64,
}

/// A look at a container's CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    at: jiff::Timestamp,
    cpu: Duration,
}

/// Two looks must be at least so far apart (the engine counts exactly, but a program works in bursts) …
const APART: Duration = Duration::from_millis(400);
/// … and at most so far: what was long ago is not now.
const TOGETHER: Duration = Duration::from_secs(60);

impl Look {
    fn of(used: &Used) -> Option<Self> {
        Some(Self { at: used.at?, cpu: used.cpu })
    }

    /// Whether an earlier look is one of the same run, but too near for a rate.
    fn is_near(self, earlier: Self) -> bool {
        let passed = Duration::try_from(self.at.duration_since(earlier.at)).unwrap_or_default();
        passed < APART && self.cpu >= earlier.cpu
    }

    /// How many CPUs were used between an earlier look and this one; none when that one is no use.
    fn cores_since(self, earlier: Self) -> Option<f64> {
        let passed = Duration::try_from(self.at.duration_since(earlier.at)).ok()?;
        // Less than before: it was started again.
        let used = self.cpu.checked_sub(earlier.cpu)?;
        (APART..TOGETHER).contains(&passed).then(|| used.as_secs_f64() / passed.as_secs_f64())
    }
}

impl Orchestrator {
    /// What a tenant uses. Takes half a second when nobody has asked within the last minute: a rate needs two looks.
    pub async fn tenant_stats(&self, tenant: &Subdomain) -> Result<TenantStats, Error> {
        let record = self.record(tenant).await?.ok_or_else(|| Error::NoSuchTenant(tenant.clone()))?;
        let measured = if record.is_live() {
            self.measured(record.backend, Some(&self.tenant_ref(&record))).await?
        } else {
            Vec::new()
        };
        self.measure_sizes(tenant);
        let containers: Vec<ContainerStats> = measured
            .into_iter()
            .map(|(usage, cores)| {
                let numbers = Numbers::of(&usage, cores);
                let ContainerUsage { service, number, name, id, running, .. } = usage;
                ContainerStats { service, number, name, id, running, numbers }
            })
            .collect();
        Ok(TenantStats {
            subdomain: record.subdomain.clone(),
            id: record.id.clone(),
            generation: record.generation,
            total: Numbers::sum(containers.iter().map(|container| &container.numbers)),
            containers,
            disk: self.disk_use(&record),
        })
    }

    /// What containers use, and the CPUs that they used of late. Looks a second time if a rate needs it.
    pub(super) async fn measured(
        &self,
        backend: BackendName,
        tenant: Option<&TenantRef>,
    ) -> Result<Vec<(ContainerUsage, Option<f64>)>, Error> {
        let backend = self.backend(backend)?;
        let first = self.rates(backend.usage(tenant).await?);
        if first.iter().all(|(usage, cores)| cores.is_some() || usage.used.at.is_none()) {
            return Ok(first);
        }
        tokio::time::sleep(APART + Duration::from_millis(100)).await;
        Ok(self.rates(backend.usage(tenant).await?))
    }

    /// The rate of each since the last look, which this look takes the place of.
    fn rates(&self, all: Vec<ContainerUsage>) -> Vec<(ContainerUsage, Option<f64>)> {
        let mut looks = self.inner.stats.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = jiff::Timestamp::now();
        looks.retain(|_, look| is_recent(look, now));
        all.into_iter()
            .map(|usage| {
                let cores = rate(&mut looks, &usage);
                (usage, cores)
            })
            .collect()
    }

    fn disk_use(&self, record: &Record) -> DiskUse {
        let sizes = &self.inner.stats.sizes;
        let directory = sizes.directory(&record.subdomain).map(|(age, size)| DirectoryUse {
            total_bytes: size.total,
            data_bytes: size.data,
            complete: size.complete,
            age_s: age.as_secs(),
        });
        let volumes = sizes.volumes(record.backend, |volume| {
            volume
                .owner
                .as_ref()
                .map_or_else(|| record.adopted.volumes.contains_key(&volume.name), |owner| *owner == record.subdomain)
        });
        let volumes = volumes.map(|(age, all)| VolumesUse {
            total_bytes: all.iter().map(|volume| volume.bytes).fold(0, u64::saturating_add),
            each: all.into_iter().map(|volume| VolumeUse { name: volume.name, bytes: volume.bytes }).collect(),
            age_s: age.as_secs(),
        });
        DiskUse { directory, volumes }
    }
}

/// Clocks of engine and agent are one; what seems to come from the future is no use.
fn is_recent(look: &Look, now: jiff::Timestamp) -> bool {
    Duration::try_from(now.duration_since(look.at)).is_ok_and(|age| age < TOGETHER)
}

fn rate(looks: &mut HashMap<ContainerId, Look>, usage: &ContainerUsage) -> Option<f64> {
    let Some(now) = Look::of(&usage.used) else {
        looks.remove(&usage.id);
        return None;
    };
    let earlier = looks.get(&usage.id).copied();
    // A look that is too near leaves the earlier one, or several who ask in turn would never get a rate.
    if earlier.is_none_or(|earlier| !now.is_near(earlier)) {
        looks.insert(usage.id.clone(), now);
    }
    earlier.and_then(|earlier| now.cores_since(earlier))
}

impl Numbers {
    pub(super) fn of(ContainerUsage { used, running, .. }: &ContainerUsage, cores: Option<f64>) -> Self {
        if used.at.is_none() && *running {
            // Its backend tells nothing.
            return Self::default();
        }
        if used.at.is_none() {
            // What does not run uses nothing.
            let none = Some(0);
            return Self {
                cpu_used_cores: Some(0.0),
                cpu_seconds: Some(0.0),
                cpu_throttled_seconds: Some(0.0),
                memory_bytes: none,
                pids: none,
                network_received_bytes: none,
                network_sent_bytes: none,
                block_read_bytes: none,
                block_written_bytes: none,
                ..Self::default()
            };
        }
        Self {
            cpu_used_cores: cores,
            cpu_seconds: Some(used.cpu.as_secs_f64()),
            cpu_throttled_seconds: used.throttled.map(|time| time.as_secs_f64()),
            memory_bytes: Some(used.memory),
            memory_limit_bytes: used.memory_limit,
            pids: used.pids,
            network_received_bytes: used.received,
            network_sent_bytes: used.sent,
            block_read_bytes: used.read,
            block_written_bytes: used.written,
        }
    }

    /// All together, as far as it is known; what is known of none is not known.
    pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut sum =
            Self { cpu_used_cores: Some(0.0), cpu_seconds: Some(0.0), memory_bytes: Some(0), ..Self::default() };
        for numbers in all {
            // What every container has: a sum that leaves one out would be wrong.
            sum.cpu_used_cores = sum.cpu_used_cores.zip(numbers.cpu_used_cores).map(|(a, b)| a + b);
            sum.cpu_seconds = sum.cpu_seconds.zip(numbers.cpu_seconds).map(|(a, b)| a + b);
            sum.memory_bytes = sum.memory_bytes.zip(numbers.memory_bytes).map(|(a, b)| a.saturating_add(b));
            sum.cpu_throttled_seconds = add(sum.cpu_throttled_seconds, numbers.cpu_throttled_seconds, |a, b| a + b);
            for (part, more) in [
                (&mut sum.memory_limit_bytes, numbers.memory_limit_bytes),
                (&mut sum.pids, numbers.pids),
                (&mut sum.network_received_bytes, numbers.network_received_bytes),
                (&mut sum.network_sent_bytes, numbers.network_sent_bytes),
                (&mut sum.block_read_bytes, numbers.block_read_bytes),
                (&mut sum.block_written_bytes, numbers.block_written_bytes),
            ] {
                *part = add(*part, more, u64::saturating_add);
            }
        }
        sum
    }
}

fn add<T>(one: Option<T>, other: Option<T>, plus: impl FnOnce(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(plus(one, other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(at_ms: i64, cpu_ms: u64) -> ContainerUsage {
        let at = jiff::Timestamp::from_millisecond(1_800_000_000_000 + at_ms).ok();
        ContainerUsage {
            tenant: Subdomain::parse("acme").unwrap(),
            service: ServiceName::parse("web").unwrap(),
            number: 1,
            name: ContainerName::parse("q8-acme-web-1").unwrap(),
            id: ContainerId::parse(&"a".repeat(64)).unwrap(),
            running: true,
            used: Used { at, cpu: Duration::from_millis(cpu_ms), ..Used::default() },
        }
    }

    #[test]
    fn a_rate_needs_two_looks_that_are_apart() {
        let mut looks = HashMap::new();
        for (at, cpu, expected) in [
            (0, 100, None),
            // Too near: the first look stays.
            (100, 110, None),
            (500, 350, Some(0.5)),
            (1500, 2350, Some(2.0)),
            // Started again.
            (2500, 10, None),
            (3500, 260, Some(0.25)),
            // Long ago.
            (200_000, 300, None),
        ] {
            let found = rate(&mut looks, &usage(at, cpu));
            assert_eq!(found, expected, "at {at}");
        }
        let mut stopped = usage(0, 0);
        stopped.used = Used::default();
        assert_eq!(rate(&mut looks, &stopped), None);
        assert!(looks.is_empty(), "what does not run is not remembered");
    }

    #[test]
    fn sums_say_what_is_known() {
        let of = |cores, received| Numbers {
            cpu_used_cores: cores,
            memory_bytes: Some(10),
            network_received_bytes: received,
            ..Numbers::default()
        };
        let sum = Numbers::sum([of(Some(0.5), Some(3)), of(Some(0.25), None)].iter());
        assert_eq!((sum.cpu_used_cores, sum.memory_bytes, sum.network_received_bytes), (Some(0.75), Some(20), Some(3)));
        assert_eq!(Numbers::sum([of(None, None), of(Some(1.0), None)].iter()).cpu_used_cores, None);
        let nothing = Numbers::sum([].iter());
        assert_eq!((nothing.cpu_used_cores, nothing.pids), (Some(0.0), None));
    }

    #[test]
    fn what_is_not_told_is_not_nothing() {
        let mut unseen = usage(0, 0);
        unseen.used = Used::default();
        let numbers = Numbers::of(&unseen, None);
        assert_eq!(numbers, Numbers::default());
        let sum = Numbers::sum([Numbers::of(&usage(0, 5000), None), numbers].iter());
        assert_eq!((sum.cpu_seconds, sum.memory_bytes), (None, None), "of one of two");
        unseen.running = false;
        let stopped = Numbers::of(&unseen, None);
        assert_eq!((stopped.cpu_seconds, stopped.memory_bytes, stopped.pids), (Some(0.0), Some(0), Some(0)));
    }
}
