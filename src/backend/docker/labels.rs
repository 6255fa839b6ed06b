//! The labels that say whose an engine object is. Ownership is read from these, never from a name.

use std::collections::HashMap;

use crate::backend::{Deployment, TenantRef};
use crate::compose::Service;
use crate::domain::{AgentId, Generation, ServiceName};

pub(super) const AGENT: &str = "dev.q8.agent";
pub(super) const TENANT: &str = "dev.q8.tenant";
pub(super) const ID: &str = "dev.q8.id";
pub(super) const GENERATION: &str = "dev.q8.generation";
pub(super) const SPEC: &str = "dev.q8.spec";
/// The host ports that a container has whenever it runs (`leases`); the engine's list has them only while it does.
pub(super) const PORTS: &str = "dev.q8.ports";

pub(super) const PROJECT: &str = "com.docker.compose.project";
pub(super) const SERVICE: &str = "com.docker.compose.service";
pub(super) const NUMBER: &str = "com.docker.compose.container-number";
pub(super) const NETWORK: &str = "com.docker.compose.network";
pub(super) const VOLUME: &str = "com.docker.compose.volume";

/// Labels that every object of a tenant bears, container, network or volume.
fn ownership(deployment: &Deployment, spec: &str) -> HashMap<String, String> {
    let tenant = &deployment.tenant;
    [
        (AGENT, tenant.agent.as_str().to_owned()),
        (TENANT, tenant.subdomain.as_str().to_owned()),
        (ID, tenant.id.as_str().to_owned()),
        (GENERATION, deployment.generation.to_string()),
        (SPEC, spec.to_owned()),
        (PROJECT, deployment.project.project().name.as_str().to_owned()),
        ("com.docker.compose.version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// A container's labels: the user's first, so that none of ours can be overwritten.
///
/// The `com.docker.compose.*` set is what lets `docker compose -p q8-x ps|logs|exec|stop|start|down` manage it.
pub(super) fn container(
    deployment: &Deployment,
    name: &ServiceName,
    service: &Service,
    number: u32,
    spec: &str,
    image_id: &str,
) -> HashMap<String, String> {
    let depends_on: Vec<String> = service
        .depends_on
        .iter()
        .map(|(other, dependency)| format!("{other}:{}:{}", dependency.condition.as_str(), dependency.restart))
        .collect();
    let directory = &deployment.project.project().directory;
    let mut labels: HashMap<String, String> = service.labels.clone().into_iter().collect();
    labels.extend(ownership(deployment, spec));
    labels.extend(
        [
            (SERVICE, name.as_str().to_owned()),
            (NUMBER, number.to_string()),
            ("com.docker.compose.oneoff", "False".to_owned()),
            ("com.docker.compose.config-hash", spec.to_owned()),
            ("com.docker.compose.depends_on", depends_on.join(",")),
            ("com.docker.compose.image", image_id.to_owned()),
            ("com.docker.compose.project.working_dir", directory.clone()),
            ("com.docker.compose.project.config_files", format!("{directory}/compose.yaml")),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    labels
}

/// A network's or volume's labels; `kind` is [`NETWORK`] or [`VOLUME`].
pub(super) fn object(
    deployment: &Deployment,
    kind: &str,
    key: &str,
    spec: &str,
    own: impl IntoIterator<Item = (String, String)>,
) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = own.into_iter().collect();
    labels.extend(ownership(deployment, spec));
    labels.insert(kind.to_owned(), key.to_owned());
    labels.insert("com.docker.compose.config-hash".to_owned(), spec.to_owned());
    labels
}

/// Whether an object with these labels is this tenant's, on this agent.
pub(super) fn is_ours(labels: &HashMap<String, String>, tenant: &TenantRef) -> bool {
    labels.get(AGENT).is_some_and(|agent| agent == tenant.agent.as_str())
        && labels.get(TENANT).is_some_and(|name| name == tenant.subdomain.as_str())
        && labels.get(ID).is_some_and(|id| id == tenant.id.as_str())
}

/// The filter that selects a tenant's objects, for the engine's list calls.
pub(super) fn filter(tenant: &TenantRef) -> HashMap<String, Vec<String>> {
    HashMap::from([(
        "label".to_owned(),
        vec![
            format!("{AGENT}={}", tenant.agent),
            format!("{TENANT}={}", tenant.subdomain),
            format!("{ID}={}", tenant.id),
        ],
    )])
}

/// The filter that selects all that this agent has made.
pub(super) fn filter_agent(agent: &AgentId) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{AGENT}={agent}")])])
}

/// The filter that selects all of the project, whoever made it.
pub(super) fn project_filter(tenant: &TenantRef) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{PROJECT}={}", tenant.project())])])
}

/// The generation that made an object; an unreadable label counts as the oldest.
pub(super) fn generation(labels: &HashMap<String, String>) -> Generation {
    labels.get(GENERATION).and_then(|text| text.parse().ok()).map_or(Generation::NONE, Generation)
}
