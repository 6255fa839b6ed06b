//! The text for Prometheus. What would cost the engine much is refreshed behind a scrape and told by the next one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::host::EngineState;
use super::tenant::Numbers;
use super::{PATIENCE, SystemStats};
use crate::domain::Subdomain;
use crate::orchestrator::contained::contained;
use crate::orchestrator::{Error, Orchestrator};
use crate::telemetry::host::{Disk, ProcessSample};
use crate::telemetry::{Fact, Present};

/// How old the states of tenants and containers may become.
const STATES: Duration = Duration::from_secs(10);
/// How old the usage of tenants may become.
const USAGE: Duration = Duration::from_secs(30);
/// With more running containers than this, usage by tenant is not measured for Prometheus: each costs the engine some
/// milliseconds, again and again.
const MOST_CONTAINERS: usize = 300;
/// And series by tenant are bounded.
const MOST_TENANTS: usize = 200;

/// What scrapes leave to later ones.
#[derive(Default)]
pub(super) struct Scraped {
    states: Mutex<Option<(Instant, States)>>,
    usage: Mutex<Option<(Instant, Usage)>>,
    measuring: AtomicBool,
}

/// How many there are of each state.
#[derive(Debug, Clone, Default)]
struct States {
    tenants: BTreeMap<String, u64>,
    containers: BTreeMap<String, u64>,
    /// Running ones.
    active: usize,
}

/// None when there are too many containers.
type Usage = Option<Vec<(Subdomain, Numbers)>>;

impl Orchestrator {
    /// What `/metrics` says.
    pub async fn metrics_text(&self) -> String {
        let snapshot = self.system_stats().await;
        let reader = self.inner.stats.reader.clone();
        let process = tokio::task::spawn_blocking(move || reader.process()).await.unwrap_or_default();
        let states = self.states().await;
        let mut present = Present::default();
        let backend = self.inner.settings.default_backend;
        present.say_of(
            Fact::Build,
            &[("version", env!("CARGO_PKG_VERSION")), ("backend", backend.as_str())],
            Some(1.0),
        );
        say_process(&mut present, process);
        say_host(&mut present, &snapshot.stats);
        for name in self.inner.backends.keys() {
            let usable = if *name == backend {
                Some(snapshot.stats.engine.state == EngineState::Up)
            } else {
                self.inner.health.heard(*name)
            };
            let value = usable.map(|usable| if usable { 1.0 } else { 0.0 });
            present.say_of(Fact::BackendUp, &[("backend", name.as_str())], value);
        }
        if let Some(link) = self.inner.mirror.links.get(&backend) {
            let standing = link.standing.borrow();
            // Also while the backend cannot be watched: that is when it grows.
            let as_of = standing.in_step.or(standing.last_in_step).unwrap_or(self.inner.started);
            present.say(Fact::CacheAge, Some(as_of.elapsed().as_secs_f64()));
            present.say(Fact::EventLag, Some(standing.lag().as_secs_f64()));
        }
        present.say(Fact::StatsAge, Some(snapshot.age().as_secs_f64()));
        present.say(Fact::Degraded, Some(number(self.to_recover().len() as u64)));
        // A disk that does not answer says nothing, and keeps nobody waiting.
        if let Ok(Ok(open)) = timeout(PATIENCE, self.disk(crate::tenant_fs::TenantFs::open_journals)).await {
            present.say(Fact::OpenJournals, Some(number(open.len() as u64)));
            let oldest = open.into_iter().min().and_then(|begun| begun.elapsed().ok()).unwrap_or_default();
            present.say(Fact::OldestJournal, Some(oldest.as_secs_f64()));
        }
        if let Some(states) = &states {
            for (fact, counts) in [(Fact::Tenants, &states.tenants), (Fact::Containers, &states.containers)] {
                for (state, count) in counts {
                    present.say_of(fact, &[("state", state)], Some(number(*count)));
                }
            }
            self.measure_usage(states.active);
        }
        self.say_usage(&mut present);
        self.inner.metrics.text(&present)
    }

    /// How many tenants and containers are in which state. None when that cannot be told now.
    async fn states(&self) -> Option<States> {
        let kept = &self.inner.stats.scraped.states;
        let known = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, states)) = known
            && at.elapsed() < STATES
        {
            return Some(states);
        }
        // From memory, like any list; unless what is there is not known now.
        timeout(PATIENCE, self.list()).await.ok()?.ok()?;
        let mut states = States::default();
        for entry in &self.inner.mirror.tenants {
            let tenant = entry.status(self.inner.operations.current(entry.key()), 0);
            let state = serde_json::to_value(tenant.state).ok()?.as_str()?.to_owned();
            *states.tenants.entry(state).or_default() += 1;
            for container in tenant.services.iter().flat_map(|service| &service.containers) {
                let state = container.state.as_str();
                states.active += usize::from(matches!(state, "running" | "paused" | "restarting"));
                *states.containers.entry(state.to_owned()).or_default() += 1;
            }
        }
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), states.clone()));
        Some(states)
    }

    /// Has the usage of all tenants measured in the background if it is old and there are not too many containers.
    fn measure_usage(&self, active: usize) {
        let scraped = &self.inner.stats.scraped;
        let mut kept = scraped.usage.lock().unwrap_or_else(PoisonError::into_inner);
        if active > MOST_CONTAINERS {
            *kept = Some((Instant::now(), None));
            return;
        }
        let old = kept.as_ref().is_none_or(|(at, _)| at.elapsed() >= USAGE);
        if !old || scraped.measuring.swap(true, Ordering::AcqRel) {
            return;
        }
        let (this, stopping) = (self.clone(), self.inner.stopping.clone());
        tokio::spawn(async move {
            stopping.run_until_cancelled(contained(this.take_usage())).await;
            this.inner.stats.scraped.measuring.store(false, Ordering::Release);
        });
    }

    async fn take_usage(&self) -> Result<(), Error> {
        let mut tenants: BTreeMap<Subdomain, Vec<Numbers>> = BTreeMap::new();
        for (usage, cores) in self.measured(self.inner.settings.default_backend, None).await? {
            let numbers = Numbers::of(&usage, cores);
            tenants.entry(usage.tenant).or_default().push(numbers);
        }
        let sums = tenants.into_iter().map(|(tenant, all)| (tenant, Numbers::sum(all.iter()))).collect();
        let mut kept = self.inner.stats.scraped.usage.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((Instant::now(), Some(largest(sums))));
        Ok(())
    }

    /// What was measured not long ago.
    fn say_usage(&self, present: &mut Present) {
        let kept = self.inner.stats.scraped.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, usage)) = kept.as_ref().filter(|(at, _)| at.elapsed() < 3 * USAGE) else { return };
        present.say(Fact::UsageMeasured, Some(if usage.is_some() { 1.0 } else { 0.0 }));
        for (tenant, used) in usage.iter().flatten() {
            let labels = &[("subdomain", tenant.as_str())];
            present.say_of(Fact::TenantCores, labels, used.cpu_used_cores);
            present.say_of(Fact::TenantMemory, labels, used.memory_bytes.map(number));
            present.say_of(Fact::TenantPids, labels, used.pids.map(number));
            present.say_of(Fact::TenantReceived, labels, used.network_received_bytes.map(number));
            present.say_of(Fact::TenantSent, labels, used.network_sent_bytes.map(number));
        }
    }
}

/// Those that use the most memory, when there are too many.
fn largest(mut tenants: Vec<(Subdomain, Numbers)>) -> Vec<(Subdomain, Numbers)> {
    if tenants.len() > MOST_TENANTS {
        tenants.sort_by_key(|(_, numbers)| std::cmp::Reverse(numbers.memory_bytes));
        tenants.truncate(MOST_TENANTS);
    }
    tenants
}

fn say_process(present: &mut Present, process: ProcessSample) {
    present.say(Fact::Resident, process.resident_bytes.map(number));
    present.say_cpu(process.cpu_seconds);
    present.say(Fact::Threads, process.threads.map(number));
    present.say(Fact::Descriptors, process.open_descriptors.map(number));
    present.say(Fact::DescriptorLimit, process.descriptor_limit.map(number));
}

fn say_host(present: &mut Present, stats: &SystemStats) {
    let is = |holds: bool| Some(if holds { 1.0 } else { 0.0 });
    present.say(Fact::Uptime, Some(number(stats.uptime_s)));
    present.say(Fact::EngineUp, is(stats.engine.state == EngineState::Up));
    present.say(Fact::EngineAge, stats.engine.age_ms.map(|ms| Duration::from_millis(ms).as_secs_f64()));
    present.say(Fact::Schedulable, is(stats.schedulable));
    for reason in &stats.reasons {
        present.say_of(Fact::Unschedulable, &[("reason", reason.as_str())], Some(1.0));
    }
    present.say(Fact::Cores, stats.cpu.total_cores.map(number));
    present.say(Fact::UsedCores, stats.cpu.used_cores);
    present.say(Fact::CommittedCores, Some(stats.cpu.committed_cores));
    present.say(Fact::CommittableCores, stats.cpu.committable_cores);
    present.say(Fact::Memory, stats.memory.total_bytes.map(number));
    present.say(Fact::UsedMemory, stats.memory.used_bytes.map(number));
    present.say(Fact::AvailableMemory, stats.memory.available_bytes.map(number));
    present.say(Fact::CommittedMemory, Some(number(stats.memory.committed_bytes)));
    present.say(Fact::CommittableMemory, stats.memory.committable_bytes.map(number));
    if let Some(load) = stats.load {
        for (window, average) in [("1m", load.avg1), ("5m", load.avg5), ("15m", load.avg15)] {
            present.say_of(Fact::Load, &[("window", window)], Some(average));
        }
    }
    let pressure = &stats.pressure;
    for (resource, stalls) in [("cpu", pressure.cpu), ("memory", pressure.memory), ("io", pressure.io)] {
        let Some(stalls) = stalls else { continue };
        for (share, averages) in [("some", Some(stalls.some)), ("full", stalls.full)] {
            let ratio = averages.map(|averages| f64::from(averages.avg10) / 100.0);
            present.say_of(Fact::Pressure, &[("resource", resource), ("share", share)], ratio);
        }
    }
    for (name, disk) in [("tenants_root", stats.disks.tenants_root), ("engine_root", stats.disks.engine_root)] {
        let of = |part: fn(&Disk) -> u64| disk.as_ref().map(|disk| number(part(disk)));
        let labels = &[("disk", name)];
        present.say_of(Fact::Disk, labels, of(|disk| disk.total_bytes));
        present.say_of(Fact::FreeDisk, labels, of(|disk| disk.free_bytes));
        present.say_of(Fact::Inodes, labels, of(|disk| disk.total_inodes));
        present.say_of(Fact::FreeInodes, labels, of(|disk| disk.free_inodes));
    }
    present.say(Fact::MaxTenants, Some(number(stats.tenants.max)));
    present.say(Fact::FreePorts, stats.ports.free.map(number));
    present.say(Fact::FreeSubnets, stats.subnets.free.map(number));
    present.say(Fact::Images, stats.images.count.map(number));
    present.say(Fact::ImageBytes, stats.images.bytes.map(number));
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn using(memory: impl IntoIterator<Item = Option<u64>>) -> Vec<(Subdomain, Numbers)> {
        let tenant = |(number, memory_bytes)| {
            let name = Subdomain::parse(&format!("t{number}")).unwrap();
            (name, Numbers { memory_bytes, ..Numbers::default() })
        };
        memory.into_iter().enumerate().map(tenant).collect()
    }

    fn memory(tenants: &[(Subdomain, Numbers)]) -> Vec<Option<u64>> {
        let mut all: Vec<_> = tenants.iter().map(|(_, numbers)| numbers.memory_bytes).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn of_too_many_tenants_those_that_use_most_memory_are_told() {
        let most = MOST_TENANTS as u64;
        let all: Vec<_> = (0..most).map(Some).collect();
        let fit = using(all.iter().copied());
        assert_eq!(largest(fit.clone()), fit, "as many as there may be are left as they are");
        // One of which nothing is known, then one that uses as little as any: both of the beginning.
        let more = using([None, Some(0)].into_iter().chain(all.iter().copied().rev()));
        assert_eq!(memory(&largest(more)), all, "what uses least goes, and what nobody knows about before that");
        let larger = using(all.iter().copied().chain([Some(most), Some(most + 1)]));
        let kept = largest(larger);
        assert_eq!(memory(&kept), (2..most + 2).map(Some).collect::<Vec<_>>());
        let last = Subdomain::parse(&format!("t{}", most + 1)).unwrap();
        assert!(
            kept.iter().any(|(tenant, used)| *tenant == last && used.memory_bytes == Some(most + 1)),
            "each has its own"
        );
    }
}
