//! `deploy` of a service, and the limits that it can also say itself (Compose Specification, "deploy").

use serde_json::Value;

use super::foreign::{self, Shape};
use super::resources::{device_requests, nano_cpus, pids, quoted_amount};
use crate::compose::error::ComposeError;
use crate::compose::field::Field;
use crate::compose::model::{
    Deploy, DeployLimits, DeployReservations, DeployResources, DeployRestartPolicy, FailureAction, Resources,
    UpdateConfig, UpdateOrder,
};

const KNOWN: &[&str] = &[
    "endpoint_mode",
    "labels",
    "mode",
    "placement",
    "replicas",
    "resources",
    "restart_policy",
    "rollback_config",
    "update_config",
];

/// A swarm's rules for where to put containers: kept to be printed.
const PLACEMENT: Shape = Shape::Fields(&[
    ("constraints", Shape::List(&Shape::Text)),
    ("preferences", Shape::List(&Shape::Fields(&[("spread", Shape::Text)]))),
    ("max_replicas_per_node", Shape::Int),
]);
const GENERIC_RESOURCES: Shape = Shape::List(&Shape::Fields(&[(
    "discrete_resource_spec",
    Shape::Fields(&[("kind", Shape::Text), ("value", Shape::Number)]),
)]));

/// Reads `deploy`; null is nothing.
pub(super) fn read(field: &Field<'_>) -> Result<Option<Deploy>, ComposeError> {
    if field.is_null() {
        return Ok(None);
    }
    let mut deploy = Deploy::default();
    for attribute in field.attributes()? {
        let a = &attribute;
        if matches!(a.key(), "mode" | "endpoint_mode" | "labels" | "placement" | "rollback_config") {
            a.ignored();
        }
        match a.key() {
            "mode" => deploy.mode = Some(a.text()?.to_owned()),
            "endpoint_mode" => deploy.endpoint_mode = Some(a.text()?.to_owned()),
            "replicas" => deploy.replicas = Some(a.count()?),
            "labels" => deploy.labels = a.pairs()?,
            "resources" => deploy.resources = resources(a)?,
            "restart_policy" => deploy.restart_policy = Some(restart_policy(a)?),
            "update_config" => deploy.update_config = Some(update_config(a)?),
            "rollback_config" => deploy.rollback_config = Some(update_config(a)?),
            "placement" => {
                if let Value::Object(members) = foreign::read(a, &PLACEMENT)? {
                    deploy.placement = members.into_iter().collect();
                }
            }
            _ => return Err(a.unknown(KNOWN)),
        }
    }
    Ok(Some(deploy))
}

fn resources(field: &Field<'_>) -> Result<DeployResources, ComposeError> {
    let mut resources = DeployResources::default();
    for part in field.attributes()? {
        match part.key() {
            "limits" => resources.limits = Some(limits(&part)?),
            "reservations" => resources.reservations = reservations(&part)?,
            _ => return Err(part.unknown(&["limits", "reservations"])),
        }
    }
    Ok(resources)
}

fn limits(field: &Field<'_>) -> Result<DeployLimits, ComposeError> {
    let mut limits = DeployLimits::default();
    for attribute in field.attributes()? {
        match attribute.key() {
            "cpus" => limits.nano_cpus = nano_cpus(&attribute)?,
            "memory" => limits.memory = quoted_amount(&attribute)?,
            "pids" => limits.pids = pids(&attribute)?,
            _ => return Err(attribute.unknown(&["cpus", "memory", "pids"])),
        }
    }
    Ok(limits)
}

fn reservations(field: &Field<'_>) -> Result<DeployReservations, ComposeError> {
    let mut reservations = DeployReservations { is_given: true, ..DeployReservations::default() };
    for attribute in field.attributes()? {
        match attribute.key() {
            "cpus" => {
                reservations.nano_cpus = nano_cpus(&attribute)?;
                attribute.ignored();
            }
            "memory" => reservations.memory = quoted_amount(&attribute)?,
            "devices" => reservations.devices = device_requests(&attribute)?,
            "generic_resources" => {
                attribute.ignored();
                if let Value::Array(items) = foreign::read(&attribute, &GENERIC_RESOURCES)? {
                    reservations.generic_resources = items;
                }
            }
            _ => return Err(attribute.unknown(&["cpus", "devices", "generic_resources", "memory"])),
        }
    }
    Ok(reservations)
}

fn update_config(field: &Field<'_>) -> Result<UpdateConfig, ComposeError> {
    let mut config = UpdateConfig::default();
    for attribute in field.attributes()? {
        let a = &attribute;
        match a.key() {
            "parallelism" => config.parallelism = Some(a.count()?),
            "delay" => config.delay = Some(a.duration()?),
            "monitor" => config.monitor = Some(a.duration()?),
            "failure_action" => {
                config.failure_action = Some(match a.text()? {
                    "continue" => FailureAction::Continue,
                    "pause" => FailureAction::Pause,
                    "rollback" => FailureAction::Rollback,
                    _ => return Err(a.error("must be continue, pause or rollback")),
                });
            }
            "order" => {
                config.order = Some(match a.text()? {
                    "start-first" => UpdateOrder::StartFirst,
                    "stop-first" => UpdateOrder::StopFirst,
                    _ => return Err(a.error("must be start-first or stop-first")),
                });
            }
            "max_failure_ratio" => {
                let ratio = serde_json::Number::from_f64(a.number()?).filter(|_| a.number().is_ok_and(|r| r >= 0.0));
                config.max_failure_ratio = Some(ratio.ok_or_else(|| a.error("must be a number from 0 to 1"))?);
            }
            _ => {
                let known = ["parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order"];
                return Err(a.unknown(&known));
            }
        }
    }
    Ok(config)
}

fn restart_policy(field: &Field<'_>) -> Result<DeployRestartPolicy, ComposeError> {
    let mut policy = DeployRestartPolicy::default();
    for attribute in field.attributes()? {
        if matches!(attribute.key(), "delay" | "window") {
            attribute.ignored();
        }
        match attribute.key() {
            "condition" => {
                let text = attribute.text()?;
                if !matches!(text, "" | "none" | "on-failure" | "any") {
                    return Err(attribute.error("must be none, on-failure or any"));
                }
                policy.condition = Some(text.to_owned());
            }
            "max_attempts" => policy.max_attempts = Some(attribute.count()?),
            "delay" => policy.delay = Some(attribute.duration()?),
            "window" => policy.window = Some(attribute.duration()?),
            _ => return Err(attribute.unknown(&["condition", "max_attempts", "delay", "window"])),
        }
    }
    Ok(policy)
}

/// Where `deploy` and the service's own attributes both speak they must agree. A part of `deploy` that is there speaks for
/// all its members: what it leaves out is 0, as in docker compose.
pub(super) fn agrees(
    service: &Field<'_>,
    deploy: &Deploy,
    own: &Resources,
    scale: Option<u32>,
) -> Result<(), ComposeError> {
    let limits = deploy.resources.limits.as_ref();
    let reserved = Some(&deploy.resources.reservations).filter(|reservations| reservations.is_given);
    let pairs = [
        (own.nano_cpus, limits.map(|l| l.nano_cpus), "cpus", "deploy.resources.limits.cpus"),
        (own.memory, limits.map(|l| l.memory), "mem_limit", "deploy.resources.limits.memory"),
        (own.memory_reservation, reserved.map(|r| r.memory), "mem_reservation", "deploy.resources.reservations.memory"),
        (own.pids, limits.map(|l| l.pids), "pids_limit", "deploy.resources.limits.pids"),
        (scale.map(i64::from), deploy.replicas.map(|replicas| Some(i64::from(replicas))), "scale", "deploy.replicas"),
    ];
    let refuse = |name: &str, reason: String| match service.get(name) {
        Some(field) => field.error(reason),
        None => service.error(reason),
    };
    for (ours, theirs, name, place) in &pairs {
        if let (Some(ours), Some(Some(theirs))) = (ours, theirs)
            && ours != theirs
        {
            return Err(refuse(name, format!("says something else than `{place}`: leave one of them out")));
        }
    }
    for (ours, theirs, name, place) in &pairs {
        if let (Some(_), Some(None)) = (ours, theirs) {
            let (part, member) = place.rsplit_once('.').unwrap_or((place, place));
            let reason = format!("has to be `{member}` in `{part}`, which is there and says what the limits are");
            return Err(refuse(name, reason));
        }
    }
    Ok(())
}
