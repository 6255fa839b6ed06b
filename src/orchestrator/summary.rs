//! From containers to the state of services and of the tenant. Pure.

use std::collections::BTreeMap;

use crate::backend::ObservedContainer;
use crate::compose::{Condition, Project, RestartPolicy};
use crate::domain::{
    ContainerStatus, DesiredState, Health, ServiceName, ServiceState, ServiceStatus, TenantState, WaitsFor,
};

/// What of a specification its status needs.
#[derive(Debug)]
pub(super) struct Shape {
    services: Vec<ServiceShape>,
    /// What the author of the Compose file should know.
    pub(super) warnings: Vec<String>,
}

#[derive(Debug)]
struct ServiceShape {
    name: ServiceName,
    replicas: u32,
    /// Ending with code 0 is no failure.
    may_end: bool,
    depends_on: Vec<(ServiceName, Condition)>,
}

impl Shape {
    pub(super) fn of(project: &Project, warnings: &[String]) -> Self {
        let services = project.services.iter().map(|(name, service)| ServiceShape {
            name: name.clone(),
            replicas: service.replicas(),
            may_end: service.restart_policy() == RestartPolicy::No || project.is_awaited_by_completion(name),
            depends_on: service
                .depends_on
                .iter()
                .map(|(name, dependency)| (name.clone(), dependency.condition))
                .collect(),
        });
        Self { services: services.collect(), warnings: warnings.to_vec() }
    }

    /// Of a specification that is lost, as far as its containers tell.
    pub(super) fn of_containers(containers: &[ObservedContainer]) -> Self {
        let mut counts: BTreeMap<&ServiceName, u32> = BTreeMap::new();
        for container in containers {
            *counts.entry(&container.service).or_default() += 1;
        }
        let services = counts.into_iter().map(|(name, replicas)| ServiceShape {
            name: name.clone(),
            replicas,
            may_end: true,
            depends_on: Vec::new(),
        });
        Self { services: services.collect(), warnings: Vec::new() }
    }
}

/// Each service with its containers. `operating`: something is being brought up, so that services wait for others.
pub(super) fn services(
    shape: &Shape,
    desired: DesiredState,
    observed: Vec<ObservedContainer>,
    operating: bool,
) -> Vec<ServiceStatus> {
    let mut containers: BTreeMap<ServiceName, Vec<ObservedContainer>> = BTreeMap::new();
    for container in observed {
        containers.entry(container.service.clone()).or_default().push(container);
    }
    let mut services: Vec<ServiceStatus> = shape
        .services
        .iter()
        .map(|service| {
            let own = containers.remove(&service.name).unwrap_or_default();
            status(service.name.clone(), service.replicas, service.may_end, desired, own)
        })
        .collect();
    if operating {
        let waits: Vec<Vec<WaitsFor>> = shape.services.iter().map(|service| waits_for(service, &services)).collect();
        for (service, waits_for) in services.iter_mut().zip(waits) {
            service.waits_for = waits_for;
        }
    }
    // Of a service that is in the file no more (an update that was limited to others left it).
    services.extend(containers.into_iter().map(|(name, own)| status(name, 0, false, desired, own)));
    for service in &mut services {
        service.reason = reason(service);
    }
    services
}

fn status(
    name: ServiceName,
    replicas: u32,
    may_end: bool,
    desired: DesiredState,
    mut own: Vec<ObservedContainer>,
) -> ServiceStatus {
    own.sort_by_key(|container| container.number);
    let mut state =
        own.iter().map(|container| container_state(container, may_end, desired)).max_by_key(|state| badness(*state));
    if (own.len() as u64) < u64::from(replicas) {
        let absent = if desired == DesiredState::Stopped { ServiceState::Stopped } else { ServiceState::Pending };
        state = state.into_iter().chain([absent]).max_by_key(|state| badness(*state));
    }
    let health = own.iter().map(|container| container.status.health).max_by_key(|health| match health {
        Health::None => 0,
        Health::Healthy => 1,
        Health::Starting => 2,
        Health::Unhealthy => 3,
    });
    ServiceStatus {
        name,
        state: state.unwrap_or(ServiceState::Running),
        health: health.unwrap_or(Health::None),
        replicas,
        reason: None,
        waits_for: Vec::new(),
        containers: own.into_iter().map(|container| container.status).collect(),
    }
}

/// Which of its dependencies a service that has not started is still waiting for.
fn waits_for(service: &ServiceShape, all: &[ServiceStatus]) -> Vec<WaitsFor> {
    let own = all.iter().find(|status| status.name == service.name);
    let runs = |one: &ContainerStatus| matches!(one.state.as_str(), "running" | "paused" | "restarting");
    if own.is_none_or(|own| is_ready(own) || own.containers.iter().any(runs)) {
        return Vec::new();
    }
    let is_met = |name: &ServiceName, condition: Condition| {
        all.iter().find(|status| status.name == *name).is_none_or(|other| match condition {
            Condition::ServiceStarted => is_ready(other) || other.containers.iter().any(runs),
            Condition::ServiceHealthy => other.state == ServiceState::Healthy,
            Condition::ServiceCompletedSuccessfully => {
                !other.containers.is_empty()
                    && other.containers.iter().all(|one| one.state == "exited" && one.exit_code == Some(0))
            }
        })
    };
    let unmet = service.depends_on.iter().filter(|(name, condition)| !is_met(name, *condition));
    unmet.map(|(name, condition)| WaitsFor { service: name.clone(), condition: condition.as_str() }).collect()
}

/// Why a service is not as it should be, as far as its containers tell.
fn reason(service: &ServiceStatus) -> Option<String> {
    if is_ready(service) {
        return None;
    }
    let containers = &service.containers;
    let is_stopped = service.state == ServiceState::Stopped;
    if let Some(looping) = containers.iter().find(|container| container.crash_loop && !is_stopped) {
        let codes: Vec<String> = looping.last_exits.iter().map(|exit| exit.code.to_string()).collect();
        let why = if looping.oom_killed { "; the last time for lack of memory" } else { "" };
        let codes = codes.join(", ");
        return Some(match looping.state.as_str() {
            "running" | "restarting" => format!("ends again and again, with exit codes {codes}{why}"),
            _ => format!("ended again and again, with exit codes {codes}{why}, until the agent stopped it"),
        });
    }
    if let Some(WaitsFor { service, condition }) = service.waits_for.first() {
        return Some(format!("waits for {service} ({condition})"));
    }
    if is_stopped {
        return None;
    }
    let ended = containers.iter().find(|container| container.exit_code.is_some_and(|code| code != 0));
    let how = |container: &ContainerStatus| match container.exit_code {
        Some(code) if container.oom_killed => format!("was killed for lack of memory (exit code {code})"),
        Some(code) => format!("exited with code {code}"),
        None => "ended".to_owned(),
    };
    Some(match service.state {
        ServiceState::Restarting => {
            let which = containers.iter().find(|container| container.state == "restarting")?;
            format!("{} and is being restarted", how(which))
        }
        ServiceState::Unhealthy => "its healthcheck fails".to_owned(),
        ServiceState::Starting => "its healthcheck has not succeeded yet".to_owned(),
        ServiceState::Exited => ended.or(containers.first()).map_or_else(|| "ended".to_owned(), how),
        ServiceState::Pending if (containers.len() as u64) < u64::from(service.replicas) => {
            format!("has {} of {} containers", containers.len(), service.replicas)
        }
        ServiceState::Pending => "has not been started".to_owned(),
        ServiceState::Running | ServiceState::Healthy | ServiceState::Stopped => return None,
    })
}

fn container_state(container: &ObservedContainer, may_end: bool, desired: DesiredState) -> ServiceState {
    let status = &container.status;
    match (status.state.as_str(), status.health) {
        // Whether it runs at this moment says nothing.
        ("running" | "restarting", _) if status.crash_loop => ServiceState::Restarting,
        ("running" | "paused", Health::Starting) => ServiceState::Starting,
        ("running" | "paused", Health::Healthy) => ServiceState::Healthy,
        ("running" | "paused", Health::Unhealthy) => ServiceState::Unhealthy,
        ("running" | "paused", Health::None) => ServiceState::Running,
        ("restarting", _) => ServiceState::Restarting,
        ("exited", _) if may_end && status.exit_code == Some(0) => ServiceState::Exited,
        (_, _) if desired == DesiredState::Stopped => ServiceState::Stopped,
        ("created", _) => ServiceState::Pending,
        (_, _) => ServiceState::Exited,
    }
}

/// The worst state of its containers is the service's.
fn badness(state: ServiceState) -> u8 {
    match state {
        ServiceState::Healthy => 0,
        ServiceState::Running => 1,
        ServiceState::Stopped => 2,
        ServiceState::Starting => 3,
        ServiceState::Pending => 4,
        ServiceState::Exited => 5,
        ServiceState::Unhealthy => 6,
        ServiceState::Restarting => 7,
    }
}

/// Whether a service is as it should be while its tenant is meant to run.
pub(super) fn is_ready(service: &ServiceStatus) -> bool {
    match service.state {
        ServiceState::Healthy | ServiceState::Running => true,
        // Completed: an exit with another code than 0 is an exit code that says so.
        ServiceState::Exited => service.containers.iter().all(|container| {
            matches!(container.state.as_str(), "running" | "paused") || container.exit_code == Some(0)
        }),
        _ => false,
    }
}

/// The state of a tenant that is up or stopped.
pub(super) fn tenant_state(desired: DesiredState, services: &[ServiceStatus]) -> TenantState {
    let ready = services.iter().filter(|service| is_ready(service)).count();
    match desired {
        DesiredState::Stopped => TenantState::Stopped,
        DesiredState::Running if ready == services.len() => TenantState::Running,
        DesiredState::Running if ready == 0 => TenantState::Failed,
        DesiredState::Running => TenantState::Degraded,
    }
}
