//! `deploy` of a service, and the resource attributes that it can also say (Compose Specification, "deploy").

use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{Resources, RestartPolicy};
use crate::compose::units;

/// What `deploy` says.
#[derive(Default)]
pub(super) struct Deploy {
    pub(super) replicas: Option<u32>,
    pub(super) restart: Option<RestartPolicy>,
    nano_cpus: Option<i64>,
    memory: Option<i64>,
    memory_reservation: Option<i64>,
    pids: Option<i64>,
}

/// Attributes that matter to a swarm only; compose takes and ignores them.
const IGNORED: &[&str] = &["mode", "endpoint_mode", "placement", "labels", "update_config", "rollback_config"];

/// Reads `deploy`; null is nothing.
pub(super) fn read(field: &Field<'_>) -> Result<Deploy, ComposeError> {
    let mut deploy = Deploy::default();
    if field.is_null() {
        return Ok(deploy);
    }
    for attribute in field.attributes()? {
        match attribute.key() {
            "replicas" => deploy.replicas = Some(attribute.count()?),
            "resources" => resources(&attribute, &mut deploy)?,
            "restart_policy" => deploy.restart = restart_policy(&attribute)?,
            key if IGNORED.contains(&key) => attribute.ignored(),
            _ => {
                let known: Vec<&str> =
                    ["replicas", "resources", "restart_policy"].into_iter().chain(IGNORED.iter().copied()).collect();
                return Err(attribute.unknown(&known, &[]));
            }
        }
    }
    Ok(deploy)
}

fn resources(field: &Field<'_>, deploy: &mut Deploy) -> Result<(), ComposeError> {
    for part in field.attributes()? {
        let is_limit = match part.key() {
            "limits" => true,
            "reservations" => false,
            _ => return Err(part.unknown(&["limits", "reservations"], &[])),
        };
        for attribute in part.attributes()? {
            match (attribute.key(), is_limit) {
                ("cpus", true) => deploy.nano_cpus = nano_cpus(&attribute)?,
                ("cpus", false) => {
                    nano_cpus(&attribute)?;
                    attribute.ignored();
                }
                ("memory", true) => deploy.memory = amount(&attribute)?,
                ("memory", false) => deploy.memory_reservation = amount(&attribute)?,
                ("pids", true) => deploy.pids = pids(&attribute)?,
                (_, true) => return Err(attribute.unknown(&["cpus", "memory", "pids"], &[])),
                (_, false) => {
                    return Err(attribute.unknown(&["cpus", "memory"], &["devices", "generic_resources"]));
                }
            }
        }
    }
    Ok(())
}

fn restart_policy(field: &Field<'_>) -> Result<Option<RestartPolicy>, ComposeError> {
    let mut condition = None;
    let mut attempts = None;
    for attribute in field.attributes()? {
        match attribute.key() {
            "condition" => {
                let text = attribute.text()?;
                if !matches!(text, "" | "none" | "on-failure" | "any") {
                    return Err(attribute.error("must be none, on-failure or any"));
                }
                condition = Some(text.to_owned());
            }
            "max_attempts" => attempts = Some(attribute.count()?),
            "delay" | "window" => attribute.ignored(),
            _ => return Err(attribute.unknown(&["condition", "max_attempts", "delay", "window"], &[])),
        }
    }
    Ok(match condition.as_deref() {
        Some("none") => Some(RestartPolicy::No),
        Some("on-failure") => Some(RestartPolicy::OnFailure(attempts.filter(|&attempts| attempts > 0))),
        Some("any") => Some(RestartPolicy::Always),
        _ => None,
    })
}

/// A number of CPUs in billionths; 0 is no limit.
pub(super) fn nano_cpus(field: &Field<'_>) -> Result<Option<i64>, ComposeError> {
    let cpus = field.number()?;
    let nanos = units::nano_cpus(cpus).ok_or_else(|| field.error("must be a number of CPUs such as 0.5"))?;
    Ok(Some(nanos).filter(|&nanos| nanos != 0))
}

/// Bytes; 0 is no limit.
pub(super) fn amount(field: &Field<'_>) -> Result<Option<i64>, ComposeError> {
    Ok(Some(field.bytes()?).filter(|&bytes| bytes != 0))
}

/// A number of processes; 0 is no limit.
pub(super) fn pids(field: &Field<'_>) -> Result<Option<i64>, ComposeError> {
    Ok(Some(field.integer()?).filter(|&pids| pids != 0))
}

impl Deploy {
    /// Joins what `deploy` and the service's own attributes say. Where both speak they must agree.
    pub(super) fn join(
        &self,
        service: &Field<'_>,
        resources: &mut Resources,
        scale: Option<u32>,
    ) -> Result<u32, ComposeError> {
        for (ours, theirs, name, place) in [
            (&mut resources.nano_cpus, self.nano_cpus, "cpus", "deploy.resources.limits.cpus"),
            (&mut resources.memory, self.memory, "mem_limit", "deploy.resources.limits.memory"),
            (
                &mut resources.memory_reservation,
                self.memory_reservation,
                "mem_reservation",
                "deploy.resources.reservations.memory",
            ),
            (&mut resources.pids, self.pids, "pids_limit", "deploy.resources.limits.pids"),
        ] {
            match (*ours, theirs) {
                (Some(a), Some(b)) if a != b => return Err(disagree(service, name, place)),
                (None, Some(_)) => *ours = theirs,
                _ => {}
            }
        }
        match (scale, self.replicas) {
            (Some(a), Some(b)) if a != b => Err(disagree(service, "scale", "deploy.replicas")),
            (scale, replicas) => Ok(scale.or(replicas).unwrap_or(1)),
        }
    }
}

fn disagree(service: &Field<'_>, name: &str, place: &str) -> ComposeError {
    let reason = format!("says something else than `{place}`: leave one of them out");
    match service.get(name) {
        Some(field) => field.error(reason),
        None => service.error(reason),
    }
}
