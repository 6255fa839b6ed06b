//! `deploy` of a service, and limits (Compose Specification, "deploy").

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Number, Value};

use super::RestartPolicy;

/// What `deploy` says, as written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct Deploy {
    pub mode: Option<String>,
    pub replicas: Option<u32>,
    pub labels: BTreeMap<String, String>,
    pub update_config: Option<UpdateConfig>,
    pub rollback_config: Option<UpdateConfig>,
    pub resources: DeployResources,
    pub restart_policy: Option<DeployRestartPolicy>,
    /// A swarm's business; printed, never used.
    pub placement: BTreeMap<String, Value>,
    pub endpoint_mode: Option<String>,
}

/// Compose Specification, `deploy.update_config` and `deploy.rollback_config`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct UpdateConfig {
    /// Containers replaced at the same time; 0 is all.
    pub parallelism: Option<u32>,
    /// Pause between two groups of containers.
    pub delay: Option<Duration>,
    pub failure_action: Option<FailureAction>,
    /// How long a new container must stay well after it has started.
    pub monitor: Option<Duration>,
    pub max_failure_ratio: Option<Number>,
    pub order: Option<UpdateOrder>,
}

/// What follows when a new container fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the words of the specification")]
pub enum FailureAction {
    Continue,
    Pause,
    Rollback,
}

/// Whether the new container starts before or after the old one stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the words of the specification")]
pub enum UpdateOrder {
    StartFirst,
    StopFirst,
}

/// Compose Specification, `deploy.resources`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "self-explaining")]
pub struct DeployResources {
    /// None when the file says nothing.
    pub limits: Option<DeployLimits>,
    pub reservations: DeployReservations,
}

/// Compose Specification, `deploy.resources.limits`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DeployLimits {
    /// Billionths of a CPU.
    pub nano_cpus: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
    /// Processes.
    pub pids: Option<i64>,
}

/// Compose Specification, `deploy.resources.reservations`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DeployReservations {
    /// Whether the file has the attribute.
    pub is_given: bool,
    /// Billionths of a CPU; printed, not enforced.
    pub nano_cpus: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
    /// GPUs and the like.
    pub devices: Vec<DeviceRequest>,
    /// A swarm's business; printed, never used.
    pub generic_resources: Vec<Value>,
}

impl DeployResources {
    /// Puts what is said here into limits that say nothing about it.
    pub(super) fn limit(&self, limits: &mut Resources) {
        let own = self.limits.clone().unwrap_or_default();
        for (limit, own) in [
            (&mut limits.nano_cpus, own.nano_cpus),
            (&mut limits.memory, own.memory),
            (&mut limits.pids, own.pids),
            (&mut limits.memory_reservation, self.reservations.memory),
        ] {
            *limit = own.or(*limit);
        }
    }
}

/// Compose Specification, `gpus` and `deploy.resources.reservations.devices` (Engine API `DeviceRequest`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct DeviceRequest {
    pub capabilities: Vec<String>,
    pub driver: Option<String>,
    /// -1 is all.
    pub count: Option<i64>,
    pub device_ids: Vec<String>,
    pub options: BTreeMap<String, String>,
}

/// Compose Specification, `deploy.restart_policy`. `delay` and `window` are printed, not obeyed: the engine has its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct DeployRestartPolicy {
    /// `none`, `on-failure`, `any` or empty.
    pub condition: Option<String>,
    pub delay: Option<Duration>,
    pub max_attempts: Option<u32>,
    pub window: Option<Duration>,
}

impl DeployRestartPolicy {
    /// In the words of `restart`; none when it names no condition.
    pub(super) fn as_restart(&self) -> Option<RestartPolicy> {
        match self.condition.as_deref()? {
            "none" => Some(RestartPolicy::No),
            "on-failure" => Some(RestartPolicy::OnFailure(self.max_attempts.filter(|&attempts| attempts > 0))),
            "any" => Some(RestartPolicy::Always),
            _ => None,
        }
    }
}

/// Limits and shares.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct Resources {
    /// Billionths of a CPU (Engine API `NanoCpus`).
    pub nano_cpus: Option<i64>,
    pub cpu_shares: Option<i64>,
    /// Microseconds.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<i64>,
    /// Microseconds.
    pub cpu_rt_period: Option<i64>,
    /// Microseconds.
    pub cpu_rt_runtime: Option<i64>,
    /// Windows only.
    pub cpu_count: Option<i64>,
    /// Hundredths of a per cent; Windows only.
    pub cpu_percent: Option<i64>,
    pub cpuset: Option<String>,
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes.
    pub memory_reservation: Option<i64>,
    /// Bytes of memory and swap together; -1 is no limit.
    pub memory_swap: Option<i64>,
    pub memory_swappiness: Option<i64>,
    pub pids: Option<i64>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<i64>,
}

/// Compose Specification, `blkio_config`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct BlkioConfig {
    pub weight: Option<u16>,
    /// Device path and weight.
    pub weight_device: Vec<(String, u16)>,
    /// Device path and bytes a second.
    pub device_read_bps: Vec<(String, i64)>,
    /// Device path and bytes a second.
    pub device_write_bps: Vec<(String, i64)>,
    /// Device path and operations a second.
    pub device_read_iops: Vec<(String, i64)>,
    /// Device path and operations a second.
    pub device_write_iops: Vec<(String, i64)>,
}
