//! A healthcheck as probes.
//!
//! A group restarts a container whose liveness probe fails; docker only says that it is unhealthy. The readiness probe is the
//! same check, from the start: it decides when the container is used.

use std::time::Duration;

use super::{BackendError, unsupported};
use crate::backend::aci::models::{ExecAction, Probe};
use crate::compose::{Healthcheck, Service};
use crate::domain::ServiceName;

/// The two probes of a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Probes {
    pub(super) liveness: Option<Probe>,
    pub(super) readiness: Option<Probe>,
}

/// What docker takes where a file says nothing (Engine API, `HealthConfig`).
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;

/// The probes of a service; none when it has no healthcheck of its own.
pub(super) fn probes(
    name: &ServiceName,
    service: &Service,
    warnings: &mut Vec<String>,
) -> Result<Probes, BackendError> {
    let Some(check) = service.healthcheck.as_ref().filter(|check| !check.is_disabled()) else {
        return Ok(Probes::default());
    };
    let field = format!("services.{name}.healthcheck");
    let Some(command) = command(&field, check)? else {
        warnings.push(format!("{field}: has no test; the image's own healthcheck is not run in a group"));
        return Ok(Probes::default());
    };
    if check.start_interval.is_some() {
        warnings.push(format!("{field}.start_interval: a probe has one interval"));
    }
    warnings.push(format!("{field}: a group restarts a container that fails its healthcheck"));
    let readiness = Probe {
        exec: Some(ExecAction { command }),
        http_get: None,
        initial_delay_seconds: None,
        period_seconds: Some(seconds(check.interval, INTERVAL)),
        failure_threshold: Some(i64::from(check.retries.filter(|&retries| retries > 0).unwrap_or(RETRIES))),
        success_threshold: None,
        timeout_seconds: Some(seconds(check.timeout, TIMEOUT)),
    };
    let start = check.start_period.filter(|period| !period.is_zero());
    let liveness =
        Probe { initial_delay_seconds: start.map(|period| seconds(Some(period), INTERVAL)), ..readiness.clone() };
    Ok(Probes { liveness: Some(liveness), readiness: Some(readiness) })
}

/// What the probe runs; none where the file leaves the test to the image.
fn command(field: &str, check: &Healthcheck) -> Result<Option<Vec<String>>, BackendError> {
    let Some((kind, rest)) = check.test.as_deref().and_then(<[String]>::split_first) else { return Ok(None) };
    let command = match kind.as_str() {
        "CMD-SHELL" => ["/bin/sh", "-c"].into_iter().map(str::to_owned).chain([rest.join(" ")]).collect(),
        // `CMD`: the loader takes no other word.
        _ => rest.to_vec(),
    };
    let says_nothing = command.last().is_none_or(String::is_empty);
    if says_nothing {
        return Err(unsupported(format!("{field}.test"), "a probe needs a command"));
    }
    Ok(Some(command))
}

/// Whole seconds, rounded up, at least one. 0 stands for the default, as for docker.
fn seconds(given: Option<Duration>, default: Duration) -> i64 {
    let time = given.filter(|time| !time.is_zero()).unwrap_or(default);
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    i64::try_from(whole).unwrap_or(i64::MAX).max(1)
}
