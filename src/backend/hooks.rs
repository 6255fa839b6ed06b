//! Hooks: commands that run inside a container right after it was started and right before it is stopped (Compose
//! Specification, `post_start` and `pre_stop`).
//!
//! A `post_start` hook that fails, or does not end by the operation's deadline, fails the service. A `pre_stop` hook keeps
//! nothing alive: one that fails, or takes longer than the container's grace period, is logged and the container stops all
//! the same. Both run for starts and stops of the agent's only: when the engine restarts a container by itself, none does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{BackendError, Deployment, FailureDetails};
use crate::compose::{Hook, Service};
use crate::domain::ServiceName;

/// How long a container that says nothing may take to stop (Docker Engine's default).
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// How much longer than that its hooks may take: a command has to begin, too.
const SLACK: Duration = Duration::from_secs(2);

/// What runs in a container before it stops.
#[derive(Debug, Clone, Default)]
pub struct PreStop {
    /// One after the other.
    pub(super) hooks: Vec<Hook>,
    /// For all of them together.
    pub(super) limit: Duration,
}

impl PreStop {
    pub(super) fn of(service: Option<&Service>) -> Self {
        let Some(service) = service else { return Self::default() };
        let limit = service.stop_grace_period.unwrap_or(DEFAULT_GRACE).saturating_add(SLACK);
        Self { hooks: service.pre_stop.clone(), limit }
    }

    /// Of every service that has any.
    pub fn of_all(deployment: &Deployment) -> BTreeMap<ServiceName, Self> {
        let services = deployment.project.project().services.iter();
        services
            .filter(|(_, service)| !service.pre_stop.is_empty())
            .map(|(name, service)| (name.clone(), Self::of(Some(service))))
            .collect()
    }
}

/// How a hook that has ended did.
#[derive(Debug)]
pub(super) struct HookEnd {
    pub(super) code: i64,
    /// The last of what it printed.
    pub(super) output: Vec<String>,
}

/// A `post_start` hook's end as the service's.
pub(super) fn judge(service: &ServiceName, index: usize, end: HookEnd) -> Result<(), BackendError> {
    if end.code == 0 {
        return Ok(());
    }
    Err(BackendError::ServiceExited {
        service: service.clone(),
        what: format!("failed: its hook post_start[{index}] exited with code {}", end.code),
        details: Box::new(FailureDetails { exit_code: Some(end.code), health_output: None, logs: end.output }),
    })
}

/// A `post_start` hook that was still running when the operation had to end.
pub(super) fn too_late(service: &ServiceName, index: usize, output: Vec<String>) -> BackendError {
    BackendError::DeadlineExceeded {
        step: format!("waiting for the hook post_start[{index}] of service {service}"),
        details: Some(Box::new(FailureDetails { exit_code: None, health_output: None, logs: output })),
    }
}

/// A container that had ended before its `post_start` hook could run.
pub(super) fn ended_before(service: &ServiceName, index: usize, details: FailureDetails) -> BackendError {
    BackendError::ServiceExited {
        service: service.clone(),
        what: format!("ended before its hook post_start[{index}] could run"),
        details: Box::new(details),
    }
}
