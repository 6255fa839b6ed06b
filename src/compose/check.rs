//! What holds across attributes and services: the `default` network, what nobody uses, and the rules that no single
//! attribute can break alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::model::{MountSource, Network, Project, Service, ServiceNetwork};
use super::{ComposeError, Locations};
use crate::domain::{ObjectKey, ObjectName, ServiceName};

/// A broken rule, not yet located.
struct Broken {
    field: String,
    reason: String,
}

/// Completes the project and checks it.
pub(super) fn complete(project: &mut Project, locations: &Locations) -> Result<(), ComposeError> {
    normalise(project).and_then(|()| check(project)).map_err(|Broken { field, reason }| {
        let found = locations.locate(&field);
        ComposeError {
            file: found.map_or(super::COMPOSE_FILE, |(file, _)| file).to_owned(),
            location: found.map(|(_, location)| location),
            field,
            reason,
        }
    })
}

fn normalise(project: &mut Project) -> Result<(), Broken> {
    let default = ObjectKey::parse("default")
        .map_err(|error| Broken { field: "networks.default".to_owned(), reason: error.to_string() })?;
    for service in project.services.values_mut() {
        if service.network_mode.is_none() && service.networks.is_empty() {
            service.networks.insert(default.clone(), ServiceNetwork::default());
        }
    }
    let used: BTreeSet<ObjectKey> =
        project.services.values().flat_map(|service| service.networks.keys().cloned()).collect();
    project.networks.retain(|key, _| used.contains(key));
    if used.contains(&default) && !project.networks.contains_key(&default) {
        let name = ObjectName::parse(&format!("{}_default", project.name))
            .map_err(|error| Broken { field: "networks.default".to_owned(), reason: error.to_string() })?;
        project.networks.insert(default, Network::of(name));
    }
    let services: Vec<&Service> = project.services.values().map(AsRef::as_ref).collect();
    let volumes: BTreeSet<&ObjectKey> = services
        .iter()
        .flat_map(|service| &service.mounts)
        .filter_map(|mount| match &mount.source {
            MountSource::Volume { key, .. } => Some(key),
            _ => None,
        })
        .collect();
    project.volumes.retain(|key, _| volumes.contains(key));
    let used: BTreeSet<&ObjectKey> =
        services.iter().flat_map(|service| &service.configs).map(|config| &config.source).collect();
    project.configs.retain(|key, _| used.contains(key));
    let used: BTreeSet<&str> = services
        .iter()
        .flat_map(|service| service.secrets.iter().map(|secret| secret.source.as_str()).chain(build_secrets(service)))
        .collect();
    project.secrets.retain(|key, _| used.contains(key.as_str()));
    Ok(())
}

/// The secrets that a build would use.
fn build_secrets(service: &Service) -> impl Iterator<Item = &str> {
    let secrets = service.build.iter().filter_map(|build| build.get("secrets")?.as_array()).flatten();
    secrets.filter_map(|secret| secret.get("source")?.as_str())
}

fn check(project: &Project) -> Result<(), Broken> {
    let mut container_names: BTreeMap<&str, &ServiceName> = BTreeMap::new();
    for (name, service) in &project.services {
        let broken = |field: &str, reason: String| Broken { field: format!("services.{name}.{field}"), reason };
        if service.network_mode.is_some() && !service.networks.is_empty() {
            return Err(broken("network_mode", "cannot be used together with `networks`".to_owned()));
        }
        if let Some(container) = &service.container_name {
            if service.replicas() > 1 {
                let reason = "a service with more than one replica cannot have a container name of its own";
                return Err(broken("container_name", reason.to_owned()));
            }
            if let Some(other) = container_names.insert(container, name) {
                return Err(broken("container_name", format!("service `{other}` has the same one")));
            }
        }
        if let Some(build) = &service.build {
            let missing =
                build_secrets(service).find(|key| !project.secrets.keys().any(|other| other.as_str() == *key));
            if missing.is_some() {
                return Err(broken("build.secrets", "names one that is not under the top-level `secrets`".to_owned()));
            }
            if build.get("dockerfile").is_some() && build.get("dockerfile_inline").is_some() {
                return Err(broken("build.dockerfile_inline", "cannot be used together with `dockerfile`".to_owned()));
            }
            let platforms = build.get("platforms").and_then(Value::as_array).filter(|platforms| !platforms.is_empty());
            if let (Some(platforms), Some(platform)) = (platforms, &service.platform)
                && !platforms.iter().any(|one| one == platform)
            {
                return Err(broken("build.platforms", "must have the service's `platform`".to_owned()));
            }
        }
        let in_memory: BTreeSet<String> = service.tmpfs.iter().map(|tmpfs| super::paths::clean(&tmpfs.path)).collect();
        if !in_memory.is_empty() && service.mounts.iter().any(|mount| in_memory.contains(&mount.target)) {
            return Err(broken("tmpfs", "one of its paths is already mounted under `volumes`".to_owned()));
        }
    }
    if let Some(cycle) = super::graph::cycle(project) {
        let chain: Vec<&str> = cycle.iter().map(ServiceName::as_str).collect();
        let (first, second) = (chain.first().copied().unwrap_or_default(), chain.get(1).copied().unwrap_or_default());
        return Err(Broken {
            field: format!("services.{first}.depends_on.{second}"),
            reason: format!("services wait for each other: {}", chain.join(" -> ")),
        });
    }
    Ok(())
}
