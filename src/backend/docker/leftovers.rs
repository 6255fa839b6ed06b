//! Everything that bears this agent's label, the images that it has pulled, and removing one of them.

use std::collections::{BTreeSet, HashMap};

use bollard::models::ContainerSummary;
use futures::future::try_join_all;

use super::engine::{Engine, EngineError};
use super::{anonymous, labels, networks, observe};
use crate::backend::{Owned, OwnedKind};
use crate::domain::{AgentId, ContainerId, ImageRef, ObjectName, Subdomain};

type Labels = HashMap<String, String>;

/// Everything that is this agent's by label, and those of the `pulled` images that no container uses, whoever's it is.
pub(super) async fn find(
    engine: &Engine,
    agent: &AgentId,
    pulled: &BTreeSet<String>,
) -> Result<Vec<Owned>, EngineError> {
    let filter = labels::filter_agent(agent);
    let (containers, networks, volumes) =
        tokio::try_join!(engine.containers(&filter), engine.networks(Some(&filter)), engine.volumes(&filter))?;
    let containers = containers.into_iter().filter_map(|container| {
        let name = observe::own_name(container.names.as_deref()?)?.to_owned();
        let tenant = tenant(container.labels.as_ref()?)?;
        Some(Owned {
            kind: OwnedKind::Container,
            name,
            id: container.id?,
            tenant: Some(tenant),
            region: None,
            bytes: None,
            since: None,
        })
    });
    let networks = networks.into_iter().filter_map(|network| {
        let tenant = tenant(network.labels.as_ref()?)?;
        Some(Owned {
            kind: OwnedKind::Network,
            name: network.name?,
            id: network.id?,
            tenant: Some(tenant),
            region: None,
            bytes: None,
            since: None,
        })
    });
    let volumes = volumes.into_iter().filter_map(|volume| {
        let tenant = tenant(&volume.labels)?;
        let (kind, id) = (OwnedKind::Volume, volume.name.clone());
        Some(Owned { kind, name: volume.name, id, tenant: Some(tenant), region: None, bytes: None, since: None })
    });
    let mut found: Vec<Owned> = containers.chain(networks).chain(volumes).collect();
    found.extend(unused_images(engine, agent, pulled).await?);
    Ok(found)
}

fn tenant(labels: &Labels) -> Option<Subdomain> {
    Subdomain::parse(labels.get(labels::TENANT)?).ok()
}

/// Those of a repository that another agent's containers are from stay: what its rollbacks need is in no container.
async fn unused_images(engine: &Engine, agent: &AgentId, pulled: &BTreeSet<String>) -> Result<Vec<Owned>, EngineError> {
    if pulled.is_empty() {
        return Ok(Vec::new());
    }
    let all = engine.containers(&HashMap::new()).await?;
    let is_anothers = |container: &&ContainerSummary| {
        let labels = container.labels.as_ref();
        labels.and_then(|labels| labels.get(labels::AGENT)).is_some_and(|other| other.as_str() != agent.as_str())
    };
    let repository = |reference: &str| Some(ImageRef::parse(reference).ok()?.name().to_owned());
    let anothers: BTreeSet<String> =
        all.iter().filter(is_anothers).filter_map(|container| repository(container.image.as_deref()?)).collect();
    let used: BTreeSet<String> = all.into_iter().filter_map(|container| container.image_id).collect();
    let candidates = pulled.iter().filter(|id| !used.contains(*id));
    let looked = try_join_all(candidates.map(|id| async move {
        match engine.inspect_image_id(id).await {
            Ok(found) => Ok(Some(found)),
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }));
    let images = looked.await?.into_iter().flatten().filter_map(|found| {
        let tags = found.repo_tags.unwrap_or_default();
        // Under a second name it is somebody else's as well.
        let digests = found.repo_digests.unwrap_or_default();
        let mut repositories = tags.iter().chain(&digests).filter_map(|name| repository(name));
        if tags.len() > 1 || repositories.any(|name| anothers.contains(&name)) {
            return None;
        }
        let id = found.id?;
        let name = tags.into_iter().next().unwrap_or_else(|| id.clone());
        let bytes = found.size.and_then(|size| u64::try_from(size).ok());
        Some(Owned { kind: OwnedKind::Image, name, id, tenant: None, region: None, bytes, since: None })
    });
    Ok(images.collect())
}

/// Those of these images that the engine does not have.
pub(super) async fn gone(engine: &Engine, images: &BTreeSet<String>) -> Result<BTreeSet<String>, EngineError> {
    let looked = try_join_all(images.iter().map(|id| async move {
        match engine.inspect_image_id(id).await {
            Err(EngineError::NotFound(_)) => Ok(Some(id.clone())),
            found => found.map(|_| None),
        }
    }));
    Ok(looked.await?.into_iter().flatten().collect())
}

/// Removes one of them; false when something else uses it by now. What is gone already counts as removed.
pub(super) async fn discard(engine: &Engine, agent: &AgentId, object: &Owned) -> Result<bool, EngineError> {
    let removed = match object.kind {
        OwnedKind::Container => match ContainerId::parse(&object.id) {
            Ok(id) => anonymous::remove_with_container(engine, &id).await,
            Err(_) => return Ok(false),
        },
        OwnedKind::Network => return Ok(networks::remove(engine, &object.id).await?.is_none()),
        OwnedKind::Volume => match ObjectName::parse(&object.id) {
            // A volume has no id: by now its name may be somebody else's.
            Ok(name) => match engine.inspect_volume(&name).await {
                Ok(volume) if volume.labels.get(labels::AGENT).map(String::as_str) == Some(agent.as_str()) => {
                    engine.remove_volume(&name).await
                }
                Ok(_) => return Ok(false),
                Err(EngineError::NotFound(_)) => Ok(()),
                Err(error) => Err(error),
            },
            Err(_) => return Ok(false),
        },
        OwnedKind::Image => engine.remove_image(&object.id).await,
    };
    match removed {
        Ok(()) => Ok(true),
        Err(EngineError::Conflict(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
