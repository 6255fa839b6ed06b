//! How a tenant's containers are doing, in the words of `domain`.

use std::sync::Arc;

use bollard::models::{ContainerInspectResponse, ContainerSummary, PortSummary, PortSummaryTypeEnum};
use futures::future::try_join_all;

use super::engine::{Engine, EngineError};
use super::observe;
use super::{details, images, labels, watch};
use crate::backend::{ObservedContainer, TenantRef};
use crate::domain::{
    AgentId, ContainerId, ContainerName, ContainerStatus, Endpoint, Health, ImageInfo, ServiceName, Subdomain, TenantId,
};

/// One tenant's containers, each inspected.
pub(super) async fn tenant(engine: &Engine, tenant: &TenantRef) -> Result<Vec<ObservedContainer>, EngineError> {
    let listed = engine.containers(&labels::filter(tenant)).await?;
    let ids: Vec<ContainerId> = listed.into_iter().filter_map(read).map(|container| container.status.id).collect();
    let detailed = try_join_all(ids.iter().map(|id| container(engine, id))).await?;
    Ok(sorted(detailed.into_iter().flatten().collect()))
}

/// A port as the engine lists it; one that is not published has host port 0.
pub(super) fn endpoint(service: &ServiceName, port: PortSummary) -> Endpoint {
    Endpoint {
        service: service.clone(),
        port: port.private_port,
        protocol: match port.typ {
            Some(PortSummaryTypeEnum::UDP) => "udp",
            Some(PortSummaryTypeEnum::SCTP) => "sctp",
            _ => "tcp",
        }
        .to_owned(),
        host: port.ip.unwrap_or_default(),
        host_port: port.public_port.unwrap_or(0),
        address: None,
    }
}

/// One container as it is now; none when it has gone or is set aside.
pub(super) async fn container(engine: &Engine, id: &ContainerId) -> Result<Option<ObservedContainer>, EngineError> {
    match engine.inspect(id).await {
        Ok(details) => Ok(inspected(&details)),
        Err(EngineError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All tenants' containers in one call.
pub(super) async fn host(engine: &Engine, agent: &AgentId) -> Result<Vec<ObservedContainer>, EngineError> {
    let listed = engine.containers(&labels::filter_agent(agent)).await?;
    Ok(sorted(listed.into_iter().filter_map(read).collect()))
}

pub(super) fn sorted(mut containers: Vec<ObservedContainer>) -> Vec<ObservedContainer> {
    containers.sort_by(|a, b| (&a.tenant, &a.service, a.number).cmp(&(&b.tenant, &b.service, b.number)));
    containers
}

/// What the list tells about a container; none for one that is set aside during an apply.
pub(super) fn read(summary: ContainerSummary) -> Option<ObservedContainer> {
    let labels = summary.labels.unwrap_or_default();
    let id = ContainerId::parse(summary.id.as_deref()?).ok()?;
    let name = observe::own_name(summary.names.as_deref()?)?.to_owned();
    if is_aside(&id, &name) {
        return None;
    }
    let service = ServiceName::parse(labels.get(labels::SERVICE)?).ok()?;
    let text = summary.status.unwrap_or_default();
    let endpoints = summary
        .ports
        .unwrap_or_default()
        .into_iter()
        .filter(|port| port.public_port.is_some())
        .map(|port| endpoint(&service, port))
        .collect();
    Some(ObservedContainer {
        tenant: Subdomain::parse(labels.get(labels::TENANT)?).ok()?,
        owner: TenantId::parse(labels.get(labels::ID)?).ok()?,
        number: labels.get(labels::NUMBER)?.parse().ok()?,
        service,
        status: ContainerStatus {
            name: ContainerName::parse(&name).ok()?,
            id,
            state: summary.state.map_or_else(String::new, |state| state.to_string()),
            health: health_in(&text),
            exit_code: exit_code_in(&text),
            started_at: None,
            restart_count: 0,
            image: summary.image.unwrap_or_default(),
            oom_killed: false,
            health_output: None,
            last_exits: Vec::new(),
            crash_loop: false,
        },
        endpoints,
    })
}

/// An apply has renamed it out of the way of its replacement.
fn is_aside(id: &ContainerId, name: &str) -> bool {
    name.strip_prefix(id.short()).is_some_and(|rest| rest.starts_with('_'))
}

/// What an inspect tells; none for a container that is set aside, or that is no service's.
pub(super) fn inspected(details: &ContainerInspectResponse) -> Option<ObservedContainer> {
    let config = details.config.as_ref()?;
    let labels = config.labels.as_ref()?;
    let id = ContainerId::parse(details.id.as_deref()?).ok()?;
    let name = details.name.as_deref()?.trim_start_matches('/');
    if is_aside(&id, name) {
        return None;
    }
    let service = ServiceName::parse(labels.get(labels::SERVICE)?).ok()?;
    let ports = details.network_settings.as_ref().and_then(|settings| settings.ports.as_ref());
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (port, bindings) in ports.into_iter().flatten() {
        let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        for binding in bindings.iter().flatten() {
            let host_port = binding.host_port.as_deref().and_then(|text| text.parse().ok());
            if let (Ok(port), Some(host_port)) = (port.parse(), host_port) {
                let (service, protocol) = (service.clone(), protocol.to_owned());
                let host = binding.host_ip.clone().unwrap_or_default();
                endpoints.push(Endpoint { service, port, protocol, host, host_port, address: None });
            }
        }
    }
    // The engine has them in no order.
    endpoints
        .sort_by(|a, b| (a.port, &a.protocol, &a.host, a.host_port).cmp(&(b.port, &b.protocol, &b.host, b.host_port)));
    let mut status = ContainerStatus {
        name: ContainerName::parse(name).ok()?,
        id,
        state: String::new(),
        health: Health::None,
        exit_code: None,
        started_at: None,
        restart_count: 0,
        image: String::new(),
        oom_killed: false,
        health_output: None,
        last_exits: Vec::new(),
        crash_loop: false,
    };
    refine(&mut status, details);
    Some(ObservedContainer {
        tenant: Subdomain::parse(labels.get(labels::TENANT)?).ok()?,
        owner: TenantId::parse(labels.get(labels::ID)?).ok()?,
        number: labels.get(labels::NUMBER)?.parse().ok()?,
        service,
        status,
        endpoints,
    })
}

/// The list has health only in the words meant for people: `Up 2 minutes (healthy)`.
fn health_in(text: &str) -> Health {
    if text.ends_with("(healthy)") {
        Health::Healthy
    } else if text.ends_with("(unhealthy)") {
        Health::Unhealthy
    } else if text.ends_with("(health: starting)") {
        Health::Starting
    } else {
        Health::None
    }
}

/// And the exit code too: `Exited (137) 4 seconds ago`.
fn exit_code_in(text: &str) -> Option<i64> {
    text.strip_prefix("Exited (")?.split_once(')')?.0.parse().ok()
}

/// The longest output of a healthcheck that is told on, in bytes. The engine itself keeps 4 KiB.
const HEALTH_OUTPUT: usize = 4096;

fn refine(status: &mut ContainerStatus, details: &ContainerInspectResponse) {
    status.health = watch::health(details);
    status.restart_count = details.restart_count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
    if let Some(image) = details.config.as_ref().and_then(|config| config.image.clone()) {
        status.image = image;
    }
    let Some(state) = &details.state else { return };
    if let Some(word) = state.status {
        status.state = word.to_string();
    }
    let ended = matches!(status.state.as_str(), "exited" | "dead" | "restarting");
    if ended {
        // The engine goes on reporting what the last check of a container that has ended said.
        status.health = Health::None;
    }
    status.exit_code = state.exit_code.filter(|_| ended);
    status.oom_killed = ended && state.oom_killed.unwrap_or(false);
    // While a service is well its checks say nothing that anybody asks for.
    if matches!(status.health, Health::Starting | Health::Unhealthy) {
        status.health_output = details::health_output(state, HEALTH_OUTPUT);
    }
    // The engine writes the year 1 for a container that was never started.
    status.started_at = state
        .started_at
        .as_deref()
        .and_then(|text| text.parse().ok())
        .filter(|time: &jiff::Timestamp| time.as_second() > 0);
}

/// The images behind a tenant's containers.
pub(super) async fn images(engine: &Arc<Engine>, tenant: &TenantRef) -> Result<Vec<ImageInfo>, EngineError> {
    let listed = engine.containers(&labels::filter(tenant)).await?;
    let with_images = listed.into_iter().filter_map(|summary| {
        let id = summary.image_id.clone()?;
        Some((id, read(summary)?))
    });
    let mut found = try_join_all(with_images.map(|(id, container)| async move {
        let details = match engine.inspect(&container.status.id).await {
            Ok(details) => details,
            Err(EngineError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let reference = details.config.and_then(|config| config.image).unwrap_or(container.status.image);
        let facts = images::facts(engine, &reference, &id).await?;
        Ok(Some(ImageInfo {
            service: container.service,
            container: container.status.name,
            image: reference,
            id,
            digest: facts.digest,
            tag: facts.tag,
            size: facts.size,
            created: facts.created,
        }))
    }))
    .await?;
    let mut found: Vec<ImageInfo> = found.drain(..).flatten().collect();
    found.sort_by(|a, b| a.container.cmp(&b.container));
    Ok(found)
}
