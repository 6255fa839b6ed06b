//! Which services are init containers, and the one restart policy of a group.
//!
//! A group starts all its containers at once, after its init containers, one after the other. So a service that others await
//! by its completion is an init container; any other order of starting cannot be had.

use super::{BackendError, Services, unsupported};
use crate::backend::aci::models::RestartWord;
use crate::compose::{Condition, Project, RestartPolicy, Service, start_order};
use crate::domain::ServiceName;

/// A project's services by what becomes of them.
pub(super) struct Order<'a> {
    /// One-shots, in the order they run in.
    pub(super) init: Vec<&'a ServiceName>,
    /// All others, by name.
    pub(super) containers: Vec<&'a ServiceName>,
}

/// Divides the services; refuses a one-shot that waits for something that goes on running.
pub(super) fn order<'a>(
    project: &Project,
    services: &Services<'a>,
    warnings: &mut Vec<String>,
) -> Result<Order<'a>, BackendError> {
    let starts = start_order(project);
    let is_init = |name: &ServiceName| project.is_awaited_by_completion(name);
    let known = |name: &ServiceName| services.get_key_value(name).map(|(name, _)| *name);
    let init: Vec<&ServiceName> = starts.iter().filter(|name| is_init(name)).filter_map(known).collect();
    let containers: Vec<&ServiceName> = services.keys().copied().filter(|name| !is_init(name)).collect();
    if containers.is_empty() {
        return Err(unsupported("services", "a group needs a service that is not only awaited by its completion"));
    }
    for name in &init {
        one_shot(project, name, services[name], warnings)?;
    }
    for name in &containers {
        let others = services[name].depends_on.iter().filter(|(other, _)| !is_init(other));
        for (other, dependency) in others {
            let waits = match dependency.condition {
                Condition::ServiceHealthy => "until that is healthy",
                _ => "for it",
            };
            warnings.push(format!(
                "services.{name}.depends_on.{other}: the containers of a group start together; {name} does not wait {waits}"
            ));
        }
    }
    Ok(Order { init, containers })
}

/// What an init container cannot have.
fn one_shot(
    project: &Project,
    name: &ServiceName,
    service: &Service,
    warnings: &mut Vec<String>,
) -> Result<(), BackendError> {
    const WHY: &str = "others await the end of this service, so it runs before them as an init container";
    let at = |attribute: &str| format!("services.{name}.{attribute}");
    if let Some(other) = service.depends_on.keys().find(|other| !project.is_awaited_by_completion(other)) {
        return Err(unsupported(
            at(&format!("depends_on.{other}")),
            format!("{WHY}, when {other} does not run yet; do its work in the service that needs it"),
        ));
    }
    if !service.ports.is_empty() {
        return Err(unsupported(at("ports[0]"), format!("{WHY}, and has no ports")));
    }
    if service.healthcheck.as_ref().is_some_and(|check| !check.is_disabled()) {
        return Err(unsupported(at("healthcheck"), format!("{WHY}, and has no probes")));
    }
    if let RestartPolicy::Always | RestartPolicy::UnlessStopped = service.restart_policy() {
        warnings.push(format!("{}: {WHY}; it is not started again after it has ended well", at("restart")));
    }
    Ok(())
}

/// The policy of the whole group: that of all services that are no one-shots.
pub(super) fn restart_policy(
    services: &Services<'_>,
    order: &Order<'_>,
    warnings: &mut Vec<String>,
) -> Result<RestartWord, BackendError> {
    let mut chosen: Option<(&ServiceName, RestartWord)> = None;
    for name in &order.containers {
        let service = services[name];
        let policy = service.restart_policy();
        let word = match policy {
            RestartPolicy::No => RestartWord::Never,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => RestartWord::Always,
            RestartPolicy::OnFailure(_) => RestartWord::OnFailure,
        };
        if let RestartPolicy::OnFailure(Some(attempts)) = policy {
            warnings.push(format!("{}: a group does not stop after {attempts} attempts", field(name, service)));
        }
        match &chosen {
            None => chosen = Some((name, word)),
            Some((first, theirs)) if *theirs != word => {
                return Err(unsupported(
                    field(name, service),
                    format!(
                        "a group has one restart policy for all its containers, and {first} has another ({} there, {} \
                         here)",
                        written(theirs),
                        written(&word)
                    ),
                ));
            }
            Some(_) => {}
        }
    }
    // There is at least one.
    Ok(chosen.map_or(RestartWord::Always, |(_, word)| word))
}

/// A policy in the words of Compose.
fn written(word: &RestartWord) -> &'static str {
    match word {
        RestartWord::Always => "always",
        RestartWord::OnFailure => "on-failure",
        _ => "no",
    }
}

/// The attribute that says it.
fn field(name: &ServiceName, service: &Service) -> String {
    let deployed = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref()?.condition.as_deref());
    let attribute = match deployed {
        Some(condition) if !condition.is_empty() => "deploy.restart_policy.condition",
        _ => "restart",
    };
    format!("services.{name}.{attribute}")
}
