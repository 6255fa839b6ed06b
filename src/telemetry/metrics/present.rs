//! Gauges of what is rather than of what happens: written anew each time somebody asks. What is not known has no series,
//! which is not the same as zero.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Series;
use prometheus_client::metrics::gauge::Gauge;

use super::registry::Filling;

/// A label's value; names are words of the source.
type Label = (&'static str, String);
type Family = Series<Vec<Label>, Gauge<f64, AtomicU64>>;

macro_rules! facts {
    ($($(#[$doc:meta])* $fact:ident $name:literal $help:literal)*) => {
        /// What a gauge says. Each is a family; labels are in its help.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the help says it")]
        pub enum Fact { $($fact,)* }

        impl Fact {
            const ALL: &[(&str, &'static str)] = &[$(($name, $help),)*];
        }
    };
}

facts! {
    Build "q8_agent_build_info" "Always 1; labels version and backend"
    Uptime "q8_agent_uptime_seconds" "Time since the agent's start"
    Resident "process_resident_memory_bytes" "Resident memory of the agent"
    Descriptors "process_open_fds" "Open descriptors of the agent"
    DescriptorLimit "process_max_fds" "Descriptors that the agent may have open"
    Threads "process_threads" "Threads of the agent"
    StatsAge "q8_agent_stats_age_seconds" "Age of the numbers about the host"
    EngineAge "q8_agent_engine_view_age_seconds" "Age of what the engine was last asked seldom: images, ports, subnets"
    EngineUp "q8_agent_engine_up" "1 when the default backend answers, else 0"
    BackendUp "q8_agent_backend_up" "1 when a backend could be used when it was last asked, else 0"
    Schedulable "q8_agent_schedulable" "1 when the host takes new tenants, else 0"
    Unschedulable "q8_agent_unschedulable" "1 for each reason why not; label reason"
    EventLag "q8_agent_event_lag_seconds" "How late the newest event of the last minute came, or how long a change has waited to be looked at"
    CacheAge "q8_agent_status_cache_age_seconds" "Age of what is known of the tenants' containers"
    Cores "q8_agent_host_cpu_cores" "CPUs of the host"
    UsedCores "q8_agent_host_cpu_used_cores" "CPUs of the host that are busy"
    CommittedCores "q8_agent_host_cpu_committed_cores" "CPUs that tenants have reserved"
    CommittableCores "q8_agent_host_cpu_committable_cores" "CPUs that tenants may reserve together"
    Memory "q8_agent_host_memory_bytes" "Memory of the host"
    UsedMemory "q8_agent_host_memory_used_bytes" "Memory of the host that is not available"
    AvailableMemory "q8_agent_host_memory_available_bytes" "Memory of the host that is available without swapping"
    CommittedMemory "q8_agent_host_memory_committed_bytes" "Memory that tenants have reserved"
    CommittableMemory "q8_agent_host_memory_committable_bytes" "Memory that tenants may reserve together"
    Load "q8_agent_host_load" "Load average; label window (1m, 5m, 15m)"
    Pressure "q8_agent_host_pressure_ratio" "Part of the last 10 seconds in which tasks waited; labels resource (cpu, memory, io) and share (some, full)"
    Disk "q8_agent_disk_bytes" "Size of a file system; label disk (tenants_root, engine_root)"
    FreeDisk "q8_agent_disk_free_bytes" "Free space of a file system; label disk"
    Inodes "q8_agent_disk_inodes" "Inodes of a file system; label disk"
    FreeInodes "q8_agent_disk_free_inodes" "Free inodes of a file system; label disk"
    Tenants "q8_agent_tenants" "Tenants; label state"
    MaxTenants "q8_agent_tenants_max" "Most tenants that the host takes"
    Degraded "q8_agent_tenants_degraded" "Tenants with an operation that could not be finished yet, or an unreadable record"
    OpenJournals "q8_agent_journals_open" "Operations that have begun and not ended, as the journals on the disk say"
    OldestJournal "q8_agent_journal_oldest_seconds" "Age of the oldest open journal, 0 without one"
    Containers "q8_agent_containers" "Containers of tenants; label state"
    FreePorts "q8_agent_publish_ports_free" "Host ports of the publish range that no container has"
    FreeSubnets "q8_agent_subnets_free" "Subnets of the pool that are free"
    Images "q8_agent_images" "Images on the engine"
    ImageBytes "q8_agent_images_bytes" "Sizes of the images, shared layers counted for each"
    UsageMeasured "q8_agent_tenant_usage_measured" "1 when the usage of tenants is measured, 0 when there are too many containers for that"
    TenantCores "q8_agent_tenant_cpu_cores" "CPUs that a tenant uses; label subdomain"
    TenantMemory "q8_agent_tenant_memory_bytes" "Memory that a tenant uses, file cache that can go left out; label subdomain"
    TenantPids "q8_agent_tenant_pids" "Processes of a tenant; label subdomain"
    TenantReceived "q8_agent_tenant_network_received_bytes" "Bytes that a tenant's running containers have received since they started; label subdomain"
    TenantSent "q8_agent_tenant_network_sent_bytes" "Bytes that a tenant's running containers have sent since they started; label subdomain"
}

/// What is known now. A fact that is not said has no series.
#[derive(Debug, Clone, Default)]
pub struct Present {
    facts: Vec<(Fact, Vec<Label>, f64)>,
    /// CPU time that the agent has used, in seconds.
    cpu_seconds: Option<f64>,
}

impl Present {
    /// Says a fact without labels, if it is known.
    pub fn say(&mut self, fact: Fact, value: Option<f64>) {
        self.facts.extend(value.map(|value| (fact, Vec::new(), value)));
    }

    /// Says a fact of the thing that these labels name, if it is known.
    pub fn say_of(&mut self, fact: Fact, labels: &[(&'static str, &str)], value: Option<f64>) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned()));
        self.facts.extend(value.map(|value| (fact, labels.collect(), value)));
    }

    /// Says how much CPU time the agent has used, in seconds.
    pub fn say_cpu(&mut self, seconds: Option<f64>) {
        self.cpu_seconds = seconds;
    }
}

/// The gauges of all facts, and the counter that somebody else keeps.
pub(super) struct Gauges {
    facts: Vec<Family>,
    cpu: Counter<f64, AtomicU64>,
}

impl Gauges {
    pub(super) fn new(all: &mut Filling) -> Self {
        Self {
            cpu: all.add("process_cpu_seconds", "CPU time that the agent has used", Counter::default()),
            facts: Fact::ALL.iter().map(|(name, help)| all.add(name, help, Family::default())).collect(),
        }
    }

    pub(super) fn show(&self, present: &Present) {
        let more = present.cpu_seconds.map_or(0.0, |seconds| seconds - self.cpu.get());
        if more > 0.0 {
            self.cpu.inc_by(more);
        }
        for family in &self.facts {
            family.clear();
        }
        for (fact, labels, value) in &present.facts {
            self.facts[*fact as usize].get_or_create(labels).set(*value);
        }
    }
}
