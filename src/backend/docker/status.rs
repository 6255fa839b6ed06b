//! How a tenant's containers are doing, in the words of `domain`.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::models::{ContainerInspectResponse, ContainerSummary, PortSummaryTypeEnum};
use futures::future::try_join_all;

use super::engine::{Engine, EngineError};
use super::observe;
use super::{images, labels, watch};
use crate::backend::{ObservedContainer, TenantRef};
use crate::domain::{
    AgentId, ContainerId, ContainerName, ContainerStatus, Endpoint, Health, ImageInfo, ServiceName, Subdomain,
};

/// One tenant's containers, each inspected.
pub(super) async fn tenant(engine: &Engine, tenant: &TenantRef) -> Result<Vec<ObservedContainer>, EngineError> {
    let listed = engine.containers(&labels::filter(tenant)).await?;
    let observed: Vec<ObservedContainer> = listed.into_iter().filter_map(read).collect();
    let detailed = try_join_all(observed.into_iter().map(|mut container| async move {
        match engine.inspect(&container.status.id).await {
            Ok(details) => {
                refine(&mut container.status, &details);
                Ok(Some(container))
            }
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }))
    .await?;
    Ok(sorted(detailed.into_iter().flatten().collect()))
}

/// All tenants' containers in one call.
pub(super) async fn host(engine: &Engine, agent: &AgentId) -> Result<Vec<ObservedContainer>, EngineError> {
    let filter = HashMap::from([("label".to_owned(), vec![format!("{}={agent}", labels::AGENT)])]);
    let listed = engine.containers(&filter).await?;
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
    if name.strip_prefix(id.short()).is_some_and(|rest| rest.starts_with('_')) {
        return None;
    }
    let service = ServiceName::parse(labels.get(labels::SERVICE)?).ok()?;
    let text = summary.status.unwrap_or_default();
    let endpoints = summary
        .ports
        .unwrap_or_default()
        .into_iter()
        .filter_map(|port| {
            Some(Endpoint {
                service: service.clone(),
                port: port.private_port,
                protocol: match port.typ {
                    Some(PortSummaryTypeEnum::UDP) => "udp",
                    Some(PortSummaryTypeEnum::SCTP) => "sctp",
                    _ => "tcp",
                }
                .to_owned(),
                host: port.ip.unwrap_or_default(),
                host_port: port.public_port?,
            })
        })
        .collect();
    Some(ObservedContainer {
        tenant: Subdomain::parse(labels.get(labels::TENANT)?).ok()?,
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
        },
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

pub(super) fn refine(status: &mut ContainerStatus, details: &ContainerInspectResponse) {
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
