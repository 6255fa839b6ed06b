//! A tenant's containers as the engine lists them for people.

use std::collections::{BTreeMap, HashMap};

use bollard::models::ContainerSummary;
use futures::future::try_join_all;

use super::engine::{Engine, EngineError};
use super::{labels, status};
use crate::backend::{Listed, TenantRef};
use crate::domain::ContainerId;

/// Labels of docker compose that hold paths of the host. The first is what binds are shown relative to.
const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
const PATHS: [&str; 3] =
    [WORKING_DIR, "com.docker.compose.project.config_files", "com.docker.compose.project.environment_file"];

/// Each container's own words in the list, beside what an inspect tells.
pub(super) async fn tenant(engine: &Engine, tenant: &TenantRef) -> Result<Vec<Listed>, EngineError> {
    let listed = engine.containers(&labels::filter(tenant)).await?;
    let looks = listed.into_iter().filter_map(|summary| {
        let id = ContainerId::parse(summary.id.as_deref()?).ok()?;
        Some(async move {
            let container = status::container(engine, &id).await?;
            Ok::<_, EngineError>(container.map(|container| read(container, summary)))
        })
    });
    Ok(try_join_all(looks).await?.into_iter().flatten().collect())
}

fn read(container: crate::backend::ObservedContainer, summary: ContainerSummary) -> Listed {
    let all = summary.labels.unwrap_or_default();
    let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut networks: Vec<String> = networks.into_keys().collect();
    networks.sort();
    let mounts = summary.mounts.unwrap_or_default();
    let mut listed = Listed {
        command: summary.command.unwrap_or_default(),
        created: summary.created.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()).unwrap_or_default(),
        local_volumes: mounts.iter().filter(|mount| mount.driver.as_deref() == Some("local")).count(),
        mounts: mounts
            .into_iter()
            .map(|mount| match mount.name.filter(|name| !name.is_empty()) {
                Some(name) => name,
                None => within(mount.source.unwrap_or_default(), all.get(WORKING_DIR)),
            })
            .collect(),
        networks,
        status: summary.status.unwrap_or_default(),
        ports: summary
            .ports
            .unwrap_or_default()
            .into_iter()
            .map(|port| status::endpoint(&container.service, port))
            .collect(),
        labels: own(all),
        container,
    };
    listed.ports.sort_by_key(|port| port.port);
    listed
}

/// A path of the tenant's directory as the tenant knows it.
fn within(path: String, directory: Option<&String>) -> String {
    let rest = directory.and_then(|directory| path.strip_prefix(directory.as_str()));
    match rest {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!(".{rest}"),
        _ => path,
    }
}

fn own(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    let is_own = |name: &str| name.starts_with("com.docker.compose.") || name.starts_with("dev.q8.");
    labels.into_iter().filter(|(name, _)| is_own(name) && !PATHS.contains(&name.as_str())).collect()
}
