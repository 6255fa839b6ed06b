//! From containers to the state of services and of the tenant. Pure.

use std::collections::BTreeMap;

use crate::backend::ObservedContainer;
use crate::compose::{Project, RestartPolicy};
use crate::domain::{DesiredState, Health, ServiceName, ServiceState, ServiceStatus, TenantState};

/// Each service of the project with its containers.
pub(super) fn services(
    project: &Project,
    desired: DesiredState,
    observed: Vec<ObservedContainer>,
) -> Vec<ServiceStatus> {
    let mut containers: BTreeMap<ServiceName, Vec<ObservedContainer>> = BTreeMap::new();
    for container in observed {
        containers.entry(container.service.clone()).or_default().push(container);
    }
    let mut services: Vec<ServiceStatus> = project
        .services
        .iter()
        .map(|(name, service)| {
            let own = containers.remove(name).unwrap_or_default();
            let may_end = service.restart_policy() == RestartPolicy::No || project.is_awaited_by_completion(name);
            status(name.clone(), service.replicas(), may_end, desired, own)
        })
        .collect();
    // Of a service that is in the file no more (an update that was limited to others left it).
    services.extend(containers.into_iter().map(|(name, own)| status(name, 0, false, desired, own)));
    services
}

fn status(
    name: ServiceName,
    replicas: u32,
    may_end: bool,
    desired: DesiredState,
    own: Vec<ObservedContainer>,
) -> ServiceStatus {
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
        containers: own.into_iter().map(|container| container.status).collect(),
    }
}

fn container_state(container: &ObservedContainer, may_end: bool, desired: DesiredState) -> ServiceState {
    let status = &container.status;
    match (status.state.as_str(), status.health) {
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
