//! What there is, what is used and what is promised of this host, and whether it takes another tenant.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::{Begun, Carried, PATIENCE, RECORDS, SELDOM};
use crate::backend::{BackendError, Holdings, HostInfo};
use crate::domain::{BackendName, Demand, DesiredState, Generation, NANO_CPUS, Subdomain};
use crate::orchestrator::{Error, Orchestrator, room};
use crate::telemetry::host::{CpuTimes, Disk, HostSample, Pressure};
use crate::tenant_fs::{Listed, TenantFs};

/// The answer to `GET /v1/system/stats`. What cannot be seen is null. Units are in the names; cores may have fractions.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct SystemStats {
    /// This agent's version.
    pub version: &'static str,
    pub uptime_s: u64,
    /// Whether the next tenant may be placed here.
    pub schedulable: bool,
    /// Why not.
    pub reasons: Vec<Reason>,
    pub cpu: Cores,
    pub memory: HostMemory,
    pub disks: Disks,
    pub load: Option<Load>,
    /// Percentages of time in which tasks waited (PSI).
    pub pressure: Pressure,
    pub tenants: Slots,
    pub ports: Ports,
    pub subnets: Subnets,
    pub images: CountedImages,
    pub engine: EngineSeen,
    /// How old all of this is; zero until it is told. The last member: see [`super::Snapshot::json`].
    pub age_ms: u64,
}

/// Why no tenant should be placed on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// An operator has closed the host for new tenants.
    Cordoned,
    /// The agent is ending.
    Stopping,
    /// The agent has not looked at all its tenants yet.
    InventoryNotDone,
    /// The engine does not answer.
    EngineAway,
    /// There are as many tenants as there may be.
    Slots,
    /// Memory is promised but for less than a container needs that asks for nothing, or hardly any is available.
    Memory,
    /// CPUs are promised but for less than such a container needs.
    Cpu,
    /// No host port of the publish range is free.
    Ports,
    /// No subnet of the pool is free.
    Subnets,
    /// A disk is nearly full, of bytes or of inodes, or the one of the tenants root does not answer.
    Disk,
    /// The tenants root is read-only.
    ReadOnly,
}

impl Reason {
    /// The word in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cordoned => "cordoned",
            Self::Stopping => "stopping",
            Self::InventoryNotDone => "inventory_not_done",
            Self::EngineAway => "engine_away",
            Self::Slots => "slots",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Ports => "ports",
            Self::Subnets => "subnets",
            Self::Disk => "disk",
            Self::ReadOnly => "read_only",
        }
    }
}

/// What tenants have reserved together, and how much that may be.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Committable {
    /// Reserved, what is being brought up included.
    pub committed: u64,
    /// The most; none when the host's size is not known.
    pub committable: Option<u64>,
}

impl Committable {
    /// Whether less than this is left.
    fn lacks(self, needed: u64) -> bool {
        self.committable.is_some_and(|most| most.saturating_sub(self.committed) < needed)
    }
}

/// CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct Cores {
    pub total_cores: Option<u64>,
    pub used_cores: Option<f64>,
    pub committed_cores: f64,
    pub committable_cores: Option<f64>,
}

/// Memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct HostMemory {
    pub total_bytes: Option<u64>,
    pub used_bytes: Option<u64>,
    pub available_bytes: Option<u64>,
    pub swap_used_bytes: Option<u64>,
    pub committed_bytes: u64,
    pub committable_bytes: Option<u64>,
}

/// The file systems that tenants fill. They may be the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Disks {
    /// The one of the tenants root.
    pub tenants_root: Option<Disk>,
    /// The one of the engine's images and volumes; null when it is not visible from where the agent runs.
    pub engine_root: Option<Disk>,
}

/// Load averages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "minutes")]
pub struct Load {
    pub avg1: f64,
    pub avg5: f64,
    pub avg15: f64,
}

/// Tenants of the default backend, by what their records say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct Slots {
    /// Meant to run.
    pub running: u64,
    /// Stopped on request.
    pub stopped: u64,
    /// Torn down, with data kept. They take no slot.
    pub kept: u64,
    /// Of which nothing is known but that they are there.
    pub unreadable: u64,
    pub max: u64,
    pub free: u64,
}

/// Host ports of the publish range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct Ports {
    pub total: u64,
    /// That no container has.
    pub free: Option<u64>,
}

/// Subnets of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct Subnets {
    pub free: Option<u64>,
}

/// Images on the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct CountedImages {
    pub count: Option<u64>,
    /// Layers that several images share are counted for each.
    pub bytes: Option<u64>,
}

/// Whether the engine can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EngineState {
    /// It answers.
    Up,
    /// It does not.
    #[default]
    Away,
}

/// The engine. What it was asked last stays when it goes away, with its age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct EngineSeen {
    pub kind: Option<String>,
    pub state: EngineState,
    pub version: Option<String>,
    pub api_version: Option<String>,
    /// Age of ports, subnets and images; null when it was never asked.
    pub age_ms: Option<u64>,
}

/// What the engine was asked seldom.
#[derive(Default)]
pub(super) struct EngineView {
    asked: Option<Instant>,
    asking: Begun<(Result<HostInfo, BackendError>, Result<Holdings, BackendError>)>,
    /// Since when no question has had an answer in time.
    unanswered: Option<Instant>,
    info: Option<HostInfo>,
    holdings: Holdings,
}

/// What the records say.
#[derive(Debug, Clone, Default)]
pub(super) struct Committed {
    running: u64,
    stopped: u64,
    kept: u64,
    unreadable: u64,
    /// What each tenant that takes a slot has reserved.
    demands: BTreeMap<Subdomain, Demand>,
}

/// A look at the CPUs, and how many were found to be busy.
#[derive(Debug, Clone, Copy)]
pub(super) struct CpuLook {
    at: Instant,
    times: CpuTimes,
    used: Option<f64>,
}

/// A look at the CPUs that is older than this says too little about now.
const CPU_WINDOW: Duration = Duration::from_secs(10);
/// And one that is younger than this is too inexact: the kernel counts in hundredths of a second.
const CPU_PAUSE: Duration = Duration::from_millis(100);

/// An engine that answers, but has not told for so long what it holds, cannot be used.
const HALF_AWAY: Duration = Duration::from_secs(3 * SELDOM.as_secs());

/// Less than this part of the memory is hardly any.
const LITTLE_MEMORY: u64 = 20;
/// A disk is nearly full when less than this part of it is free, or less than [`LITTLE_DISK`] of a large one.
const LITTLE_PART: u64 = 20;
const LITTLE_DISK: u64 = 10 << 30;

impl Orchestrator {
    /// The numbers, and the count of changes that they show.
    pub(super) async fn look_at_host(&self, carried: &mut Carried, change: u64) -> (SystemStats, u64) {
        let Carried { cpu, committed, engine, tenants_root, engine_root, records } = carried;
        let here = self.inner.fs.root().to_owned();
        let disk = |path: PathBuf| move || tokio::task::spawn_blocking(move || Disk::of(&path));
        let (up, machine, committed, tenants_root) = tokio::join!(
            self.look_at_engine(engine),
            self.look_at_machine(cpu),
            self.look_at_records(committed, records, change),
            tenants_root.wait_anew(disk(here)),
        );
        // Where that is, the engine says.
        let engine_root = match engine.info.as_ref().and_then(|info| info.data_root.clone()) {
            Some(path) => engine_root.wait_anew(disk(path)).await.flatten(),
            None => None,
        };
        let disks = Disks { tenants_root: tenants_root.flatten(), engine_root };
        let shown = committed.as_ref().map_or(0, |(shown, _)| *shown);
        (self.numbers(up, engine, &machine, disks, committed.map(|(_, committed)| committed)), shown)
    }

    /// Whether it answers; asks it what it holds when that is old. One that hangs is away, and so is one that answers the
    /// simplest question only.
    async fn look_at_engine(&self, view: &mut EngineView) -> EngineState {
        let backend = &self.inner.backends[&self.inner.settings.default_backend];
        if !matches!(timeout(PATIENCE, backend.health()).await, Ok(Ok(()))) {
            return EngineState::Away;
        }
        if view.asked.is_none_or(|asked| asked.elapsed() >= SELDOM) {
            let backend = Arc::clone(backend);
            let both = async move { tokio::join!(backend.host(), backend.holdings()) };
            match view.asking.wait(|| tokio::spawn(both)).await {
                Some((asked, (Ok(info), Ok(holdings)))) => {
                    (view.asked, view.unanswered) = (Some(asked), None);
                    (view.info, view.holdings) = (Some(info), holdings);
                }
                _ => drop(view.unanswered.get_or_insert_with(Instant::now)),
            }
        }
        let is_mute = view.unanswered.is_some_and(|since| since.elapsed() >= HALF_AWAY);
        if is_mute { EngineState::Away } else { EngineState::Up }
    }

    /// Used CPUs need two looks: the one of the refresh before, if that is not long ago.
    async fn look_at_machine(&self, before: &mut Option<CpuLook>) -> (HostSample, Option<f64>) {
        let known = before.filter(|look| look.at.elapsed() < CPU_WINDOW);
        let first = if let Some(look) = known {
            Some(look.times)
        } else {
            let reader = self.inner.stats.reader.clone();
            let first = tokio::task::spawn_blocking(move || reader.cpu()).await.ok().flatten();
            tokio::time::sleep(CPU_PAUSE).await;
            first
        };
        let reader = self.inner.stats.reader.clone();
        let sample = tokio::task::spawn_blocking(move || reader.sample()).await.unwrap_or_default();
        if let Some(look) = known.filter(|look| look.at.elapsed() < CPU_PAUSE) {
            // Too near: what was found then is as good.
            return (sample, look.used);
        }
        let used = first.zip(sample.cpu).and_then(|(first, now)| now.used_since(&first));
        *before = sample.cpu.map(|times| CpuLook { at: Instant::now(), times, used });
        (sample, used)
    }

    /// Reads the records again only when an operation has ended since, or after a long time. Gives the count of changes that
    /// they show with them; none when they have never been read.
    async fn look_at_records(
        &self,
        kept: &mut Option<(Instant, u64, Committed)>,
        begun: &mut Begun<(u64, Result<Committed, Error>)>,
        change: u64,
    ) -> Option<(u64, Committed)> {
        let known = kept.as_ref().filter(|(at, seen, _)| *seen == change && at.elapsed() < RECORDS);
        if known.is_none() {
            let this = self.clone();
            let reading = async move {
                let read = this.disk(TenantFs::tenants).await;
                (change, read.map(|tenants| Committed::of(tenants, this.inner.settings.default_backend)))
            };
            match begun.wait(|| tokio::spawn(reading)).await {
                Some((asked, (shown, Ok(committed)))) => *kept = Some((asked, shown, committed)),
                Some((_, (_, Err(error)))) => {
                    tracing::warn!(%error, "the records cannot be read for the host's numbers");
                }
                None => tracing::warn!("the disk of the tenants root does not answer"),
            }
        }
        let (_, shown, mut committed) = kept.clone()?;
        // What is being brought up counts from the moment at which it was promised.
        room::promise(&mut committed.demands, self.inner.claims.open(self.inner.settings.default_backend));
        Some((shown, committed))
    }

    fn numbers(
        &self,
        state: EngineState,
        view: &EngineView,
        (sample, used_cores): &(HostSample, Option<f64>),
        disks: Disks,
        committed: Option<Committed>,
    ) -> SystemStats {
        let are_records_read = committed.is_some();
        let committed = committed.unwrap_or_default();
        let settings = &self.inner.settings;
        let (info, share) = (view.info.as_ref(), settings.policy.host());
        let total_cores = info.and_then(|info| info.cpus).or(sample.cpu.map(|cpu| cpu.cores));
        let total_bytes = info.and_then(|info| info.memory).or(sample.memory.map(|memory| memory.total_bytes));
        // What runs elsewhere needs nothing of this host.
        let here = settings.default_backend.is_on_this_host();
        let sum = |part: fn(&Demand) -> u64| if here { committed.sum(part) } else { 0 };
        let cpu = Committable {
            committed: sum(|demand| demand.reserved_nano_cpus),
            committable: total_cores.map(|cores| share.nano_cpus(cores)),
        };
        let memory = Committable {
            committed: sum(|demand| demand.reserved_memory),
            committable: total_bytes.map(|bytes| share.memory(bytes)),
        };
        let max = u64::try_from(settings.max_tenants).unwrap_or(u64::MAX);
        let tenants = Slots {
            running: committed.running,
            stopped: committed.stopped,
            kept: committed.kept,
            unreadable: committed.unreadable,
            max,
            free: max.saturating_sub(committed.demands.len() as u64),
        };
        let (first, last) = settings.publish_ports;
        let ports = Ports { total: u64::from(last.saturating_sub(first)) + 1, free: view.holdings.free_ports };
        let subnets = Subnets { free: view.holdings.free_subnets };
        let needs = settings.policy.of_any().defaults;
        let low_memory =
            sample.memory.is_some_and(|memory| memory.available_bytes < memory.total_bytes / LITTLE_MEMORY);
        let low_disk = [disks.tenants_root, disks.engine_root].iter().flatten().any(is_low);
        let reasons = [
            (self.cordoned().is_some(), Reason::Cordoned),
            (self.inner.stopping.is_cancelled(), Reason::Stopping),
            (!self.inner.inventory_done.load(Ordering::Acquire), Reason::InventoryNotDone),
            (state == EngineState::Away, Reason::EngineAway),
            (tenants.free == 0, Reason::Slots),
            (memory.lacks(needs.reserved_memory) || low_memory, Reason::Memory),
            (cpu.lacks(needs.reserved_nano_cpus), Reason::Cpu),
            (ports.free == Some(0), Reason::Ports),
            (subnets.free == Some(0), Reason::Subnets),
            (low_disk || disks.tenants_root.is_none() || !are_records_read, Reason::Disk),
            (is_read_only(&disks), Reason::ReadOnly),
        ];
        let reasons: Vec<Reason> = reasons.into_iter().filter(|(holds, _)| *holds).map(|(_, reason)| reason).collect();
        SystemStats {
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.inner.started.elapsed().as_secs(),
            schedulable: reasons.is_empty(),
            reasons,
            cpu: Cores {
                total_cores,
                used_cores: *used_cores,
                committed_cores: cores(cpu.committed),
                committable_cores: cpu.committable.map(cores),
            },
            memory: HostMemory {
                total_bytes,
                used_bytes: sample.memory.map(|memory| memory.used_bytes),
                available_bytes: sample.memory.map(|memory| memory.available_bytes),
                swap_used_bytes: sample.memory.map(|memory| memory.swap_used_bytes),
                committed_bytes: memory.committed,
                committable_bytes: memory.committable,
            },
            disks,
            load: sample.load.map(|[avg1, avg5, avg15]| Load { avg1, avg5, avg15 }),
            pressure: sample.pressure,
            tenants,
            ports,
            subnets,
            images: CountedImages { count: view.holdings.images, bytes: view.holdings.image_bytes },
            engine: EngineSeen {
                kind: info.map(|info| info.engine.clone()),
                state,
                version: info.map(|info| info.version.clone()),
                api_version: info.map(|info| info.api_version.clone()),
                age_ms: view.asked.map(|asked| u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX)),
            },
            age_ms: 0,
        }
    }
}

impl Committed {
    /// Of the tenants of one backend.
    fn of(tenants: Vec<Listed>, backend: BackendName) -> Self {
        let mut counted = Self::default();
        for (_, record) in &tenants {
            let count = match record {
                Err(_) => &mut counted.unreadable,
                Ok(record) if record.backend != backend => continue,
                Ok(record) if record.kept => &mut counted.kept,
                // Its first operation has not ended yet.
                Ok(record) if record.generation == Generation::NONE => continue,
                Ok(record) if record.desired == DesiredState::Stopped => &mut counted.stopped,
                Ok(_) => &mut counted.running,
            };
            *count += 1;
        }
        Self { demands: room::demands(tenants, backend), ..counted }
    }

    fn sum(&self, part: fn(&Demand) -> u64) -> u64 {
        self.demands.values().map(part).fold(0, u64::saturating_add)
    }
}

/// Whether hardly anything can be written any more.
fn is_low(disk: &Disk) -> bool {
    disk.free_bytes < (disk.total_bytes / LITTLE_PART).min(LITTLE_DISK)
        || disk.free_inodes < disk.total_inodes / LITTLE_PART
}

/// Whether no record can be written. The engine's disk may well be shown to the agent for reading only.
fn is_read_only(disks: &Disks) -> bool {
    disks.tenants_root.is_some_and(|disk| disk.read_only)
}

#[allow(clippy::cast_precision_loss, reason = "billionths of more CPUs than a host has are exact enough")]
fn cores(nano_cpus: u64) -> f64 {
    nano_cpus as f64 / NANO_CPUS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_by_part_or_by_size() {
        const GIB: u64 = 1 << 30;
        for (total, free, inodes, free_inodes, low) in [
            (100 * GIB, 6 * GIB, 1000, 500, false),
            (100 * GIB, 4 * GIB, 1000, 500, true),
            (10_000 * GIB, 11 * GIB, 1000, 500, false),
            (10_000 * GIB, 9 * GIB, 1000, 500, true),
            (100 * GIB, 50 * GIB, 1000, 49, true),
            (100 * GIB, 50 * GIB, 0, 0, false),
        ] {
            let disk = Disk {
                total_bytes: total,
                used_bytes: total - free,
                free_bytes: free,
                total_inodes: inodes,
                free_inodes,
                read_only: false,
            };
            assert_eq!(is_low(&disk), low, "{disk:?}");
        }
    }

    #[test]
    fn a_read_only_disk_counts_where_the_records_are() {
        let writable = Disk { read_only: false, ..Disk::of(std::path::Path::new("/proc")).unwrap() };
        let frozen = Disk { read_only: true, ..writable };
        for (tenants_root, engine_root, read_only) in
            [(None, None, false), (Some(writable), Some(frozen), false), (Some(frozen), Some(writable), true)]
        {
            assert_eq!(is_read_only(&Disks { tenants_root, engine_root }), read_only);
        }
    }

    #[test]
    fn what_is_left_must_do_for_a_container() {
        let of = |committed, committable| Committable { committed, committable };
        assert!(of(90, Some(100)).lacks(11) && !of(90, Some(100)).lacks(10) && of(200, Some(100)).lacks(1));
        assert!(!of(90, None).lacks(11), "what cannot be seen is no reason");
    }

    #[test]
    fn words_of_reasons_are_those_of_the_answer() {
        for reason in [Reason::Cordoned, Reason::InventoryNotDone, Reason::EngineAway, Reason::Cpu, Reason::ReadOnly] {
            assert_eq!(serde_json::to_value(reason).ok(), Some(reason.as_str().into()));
        }
    }
}
