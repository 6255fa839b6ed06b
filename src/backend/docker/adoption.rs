//! Taking over what docker compose, or another agent, made for a tenant's project.
//!
//! The engine cannot change the labels of a network or volume, so those stay as they are and the tenant's record remembers
//! them: a network by its id, a volume by its name as long as it bears the project's label (the time of creation that the
//! engine tells of a volume changes with what is in it). Containers are made anew once. Until the record is written nothing
//! but their names and whether they run has changed, and an undo puts that right.

use std::collections::HashMap;

use bollard::models::ContainerSummary;
use futures::future::try_join_all;

use super::engine::{Engine, EngineError};
use super::labels;
use super::observe::{Container, Observed, State};
use super::{pending, renaming};
use crate::backend::{Adoption, BackendError, Deployment, TenantRef, UndoNote};
use crate::compose::{MountSource, start_order};
use crate::domain::{Adopted, ContainerId, ContainerName, ObjectName, ServiceName};

type Labels = HashMap<String, String>;

/// Whether a network is the tenant's, by its labels or because it was taken over.
pub(super) fn owns_network(tenant: &TenantRef, id: Option<&str>, labels: &Labels) -> bool {
    labels::is_ours(labels, tenant) || id.is_some_and(|id| tenant.adopted.networks.contains_key(id))
}

/// Whether a volume is the tenant's, by its labels or because it was taken over.
pub(super) fn owns_volume(tenant: &TenantRef, name: &ObjectName, labels: &Labels) -> bool {
    labels::is_ours(labels, tenant) || (tenant.adopted.volumes.contains_key(name) && is_foreign(tenant, labels))
}

/// Whether a container is the tenant's, by its labels or because it is being taken over.
pub(super) fn owns_container(tenant: &TenantRef, container: &ContainerSummary) -> bool {
    let is_adopted = |id: &str| ContainerId::parse(id).is_ok_and(|id| tenant.adopted.containers.contains(&id));
    container.labels.as_ref().is_some_and(|labels| labels::is_ours(labels, tenant))
        || container.id.as_deref().is_some_and(is_adopted)
}

/// Whether an object is of the tenant's project, and no tenant's of this agent.
fn is_foreign(tenant: &TenantRef, labels: &Labels) -> bool {
    labels.get(labels::PROJECT).is_some_and(|project| project == tenant.project().as_str())
        && labels.get(labels::AGENT).is_none_or(|agent| agent != tenant.agent.as_str())
}

/// Whether an object may be taken over. Another agent's says whose data it is: that does not change with the agent.
fn is_adoptable(tenant: &TenantRef, kind: &'static str, name: &str, labels: &Labels) -> Result<bool, BackendError> {
    if !is_foreign(tenant, labels) {
        return Ok(false);
    }
    match labels.get(labels::ID) {
        Some(id) if id != tenant.id.as_str() => Err(BackendError::NameTaken { kind, name: name.to_owned() }),
        _ => Ok(true),
    }
}

/// See `Backend::adoptable`.
pub(super) async fn find(engine: &Engine, wanted: &Deployment) -> Result<Adoption, BackendError> {
    let doing = "listing what there is to take over";
    let (tenant, project) = (&wanted.tenant, wanted.project.project());
    let filter = labels::project_filter(tenant);
    let listed = tokio::try_join!(engine.containers(&filter), engine.networks(Some(&filter)), engine.volumes(&filter));
    let (containers, networks, volumes) = listed.map_err(|error| error.into_backend(doing))?;
    let mut found = Adoption::default();
    let mut members: Vec<String> = Vec::new();
    for container in containers {
        let labels = container.labels.unwrap_or_default();
        let name = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
        let Some(id) = container.id else { continue };
        members.push(id.clone());
        if !is_adoptable(tenant, "container", name.trim_start_matches('/'), &labels)? {
            continue;
        }
        let Ok(id) = ContainerId::parse(&id) else { continue };
        found.adopted.containers.insert(id);
        let service = labels.get(labels::SERVICE).and_then(|name| ServiceName::parse(name).ok());
        let Some((name, service)) = service.and_then(|name| Some((name.clone(), wanted.service(&name)?))) else {
            continue;
        };
        let bound =
            container.mounts.unwrap_or_default().into_iter().filter(|mount| mount.typ.as_deref() == Some("bind"));
        let elsewhere = bound.filter_map(|mount| mount.source).any(|source| {
            let is_same =
                |wanted: &MountSource| matches!(wanted, MountSource::Bind { source: other, .. } if *other == source);
            !service.mounts.iter().any(|mount| is_same(&mount.source))
        });
        if elsewhere {
            found.warnings.push(format!(
                "services.{name}: its containers had bound paths of the host that the tenant does not bind; what is there \
                 is not taken over"
            ));
        }
    }
    for network in networks {
        let (labels, name) = (network.labels.unwrap_or_default(), network.name.unwrap_or_default());
        let Some(id) = network.id.filter(|_| name.len() < 256) else { continue };
        if !is_adoptable(tenant, "network", &name, &labels)? {
            continue;
        }
        let own = |network: &&crate::compose::Network| network.name.as_str() == name && !network.external;
        let definition = project.networks.values().find(own);
        found.adopted.networks.insert(id, definition.map_or_else(String::new, |network| wanted.object_hash(network)));
        if let Ok(name) = ObjectName::parse(&name) {
            found.warnings.extend(strangers(engine, &name, &members).await?);
        }
    }
    for volume in volumes {
        if !is_adoptable(tenant, "volume", &volume.name, &volume.labels)? {
            continue;
        }
        let Ok(name) = ObjectName::parse(&volume.name) else { continue };
        let definition = project.volumes.values().find(|volume| volume.name == name && !volume.external);
        found.adopted.volumes.insert(name, definition.map_or_else(String::new, |volume| wanted.object_hash(volume)));
    }
    Ok(found)
}

/// A warning for each container on a network that is not the project's.
async fn strangers(engine: &Engine, name: &ObjectName, members: &[String]) -> Result<Vec<String>, BackendError> {
    let on_it = match engine.inspect_network(name).await {
        Ok(network) => network.containers.unwrap_or_default(),
        Err(EngineError::NotFound(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into_backend("looking at a network")),
    };
    let strange = on_it.into_iter().filter(|(id, _)| !members.contains(id));
    Ok(strange
        .map(|(id, endpoint)| {
            let other = endpoint.name.unwrap_or(id);
            format!("container {other} is on network {name} but not of this project; it is left alone")
        })
        .collect())
}

/// Takes out the containers whose place another one of the tenant has already.
pub(super) fn surplus(tenant: &TenantRef, observed: &mut Observed) -> Vec<Container> {
    let is_adopted = |container: &Container| tenant.adopted.containers.contains(&container.id);
    let mut places: Vec<(ServiceName, u32)> = Vec::new();
    let (mut kept, mut surplus) = (Vec::new(), Vec::new());
    let all = std::mem::take(&mut observed.containers);
    let (mut adopted, own): (Vec<Container>, Vec<Container>) = all.into_iter().partition(is_adopted);
    // One of `docker compose run` has a number as well, but no claim to the place of the service's own.
    let has_usual_name = |container: &Container| {
        let Container { service, number, .. } = container;
        container.final_name() == format!("{}-{service}-{number}", tenant.project())
    };
    adopted.sort_by_key(|container| !has_usual_name(container));
    for container in own.into_iter().filter(|container| !container.is_aside()).chain(adopted) {
        let place = (container.service.clone(), container.number);
        if is_adopted(&container) && places.contains(&place) {
            surplus.push(container);
        } else {
            places.push(place);
            kept.push(container);
        }
    }
    observed.containers = kept;
    surplus
}

/// Adds to the undo of a plan what comes back: in the order in which it has to be started.
pub(super) fn note(undo: &mut UndoNote, wanted: &Deployment, observed: &Observed, surplus: &[Container]) {
    let order = start_order(wanted.project.project());
    let mut adopted: Vec<&Container> = observed
        .containers
        .iter()
        .chain(surplus)
        .filter(|container| wanted.tenant.adopted.containers.contains(&container.id))
        .collect();
    adopted.sort_by_key(|container| order.iter().position(|service| *service == container.service));
    undo.adopted = adopted.iter().map(|container| container.id.clone()).collect();
    let runs = |container: &&Container| matches!(container.state, State::Running | State::Restarting | State::Paused);
    undo.running.extend(surplus.iter().filter(runs).map(|container| container.id.clone()));
}

/// Undo: the names of the containers that were to be taken over, and what ran of them runs again.
pub(super) async fn give_back(engine: &Engine, containers: &[Container], undo: &UndoNote) -> Result<(), BackendError> {
    let in_order = || undo.adopted.iter().filter_map(|id| containers.iter().find(|container| container.id == *id));
    try_join_all(in_order().filter(|container| container.is_aside()).map(|container| async move {
        if container.is_stopping() {
            // Until it has ended it looks as if it needed no start. Its name goes on telling so until then.
            let stopped = engine.stop_within(&container.id, pending::LAST_STOP).await;
            stopped.map_err(|error| error.into_backend("stopping a container"))?;
        }
        let Ok(name) = ContainerName::parse(container.final_name()) else { return Ok(()) };
        let renamed = renaming::rename(engine, &container.id, &name, renaming::Then::Started).await;
        renamed.map_err(|error| error.into_backend("renaming a container"))
    }))
    .await?;
    for container in in_order().filter(|container| undo.running.contains(&container.id)) {
        let runs = matches!(container.state, State::Running | State::Restarting | State::Paused);
        if runs && !container.is_stopping() {
            continue;
        }
        match engine.start(&container.id).await {
            Ok(()) => {}
            Err(error @ (EngineError::Timeout | EngineError::Unreachable(_))) => {
                return Err(error.into_backend("starting a container"));
            }
            // One that cannot be started again must not keep the others down.
            Err(error) => {
                let service = &container.service;
                tracing::error!(%service, %error, "a container that ran before could not be started again");
            }
        }
    }
    Ok(())
}

/// What an undo has to look at besides what is the tenant's.
pub(super) fn with_foreign(tenant: &TenantRef, undo: Option<&UndoNote>) -> TenantRef {
    let mut seen = tenant.clone();
    let containers = undo.map(|undo| undo.adopted.iter().cloned().collect()).unwrap_or_default();
    seen.adopted.extend(Adopted { containers, ..Adopted::default() });
    seen
}
