//! Makes the pretend engine hold exactly what the record says; stops and removes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::apply::named_or_all;
use super::container::Store;
use super::engine::State;
use super::{MemoryBackend, hooks};
use crate::backend::{BackendError, Deployment, Owned, OwnedKind, PreStop, Removed, Run, TenantRef, UndoNote};
use crate::compose::{Service, start_order};
use crate::domain::{ContainerId, Generation, ObjectName, ServiceName};

/// How long the `post_start` hooks of a container that comes back may take.
const HOOKS: Duration = Duration::from_mins(1);

impl MemoryBackend {
    pub(super) async fn settle_at(
        &self,
        tenant: &TenantRef,
        committed: Generation,
        deployment: Option<&Deployment>,
        undo: Option<&UndoNote>,
    ) -> Result<(), BackendError> {
        let shared = &self.engine.shared;
        let (gone, back) = decide(&*shared.reachable()?, tenant, committed, deployment, undo);
        for id in self.ordered(tenant, deployment, |id| gone.contains(id))?.iter().rev() {
            shared.stop(id, None).await?;
            shared.remove_container(id)?;
        }
        for id in &back {
            shared.change(None, |state| {
                if let Some(container) = state.containers.get_mut(id) {
                    container.bring_back();
                }
                Ok(())
            })?;
        }
        shared.change(None, |state| {
            settle_networks(state, tenant, committed, deployment);
            if let Some(undo) = undo {
                state.volumes.retain(|name, volume| {
                    let is_late = volume.owner.as_ref() == Some(tenant) && volume.generation > committed;
                    !is_late || undo.volumes.contains(name)
                });
            }
            Ok(())
        })?;
        if let Some(undo) = undo {
            for id in self.ordered(tenant, deployment, |id| undo.running.contains(id))? {
                let stopped = shared
                    .reachable()?
                    .containers
                    .get(&id)
                    .filter(|there| !there.state.is_active())
                    .map(|container| container.service.clone());
                let Some(service) = stopped else { continue };
                shared.start(&id)?;
                let known = deployment.and_then(|deployment| deployment.service(&service));
                let post_start = known.map_or(&[][..], |known| &known.post_start);
                let limit = Instant::now() + HOOKS;
                if let Err(error) = hooks::post_start(shared, &service, &id, post_start, limit).await {
                    tracing::warn!(%service, %error, "a container that ran before runs again, but not its hook");
                }
            }
        }
        Ok(())
    }

    /// The tenant's containers that are asked for, in start order; services that the project does not know come last.
    fn ordered(
        &self,
        tenant: &TenantRef,
        deployment: Option<&Deployment>,
        wants: impl Fn(&ContainerId) -> bool,
    ) -> Result<Vec<ContainerId>, BackendError> {
        let order = deployment.map(|deployment| start_order(deployment.project.project())).unwrap_or_default();
        let place = |service: &ServiceName| order.iter().position(|name| name == service).unwrap_or(order.len());
        let state = self.engine.shared.reachable()?;
        let mut found: Vec<(usize, u32, ContainerId)> = state
            .of(tenant)
            .filter(|container| wants(&container.id))
            .map(|container| (place(&container.service), container.number, container.id.clone()))
            .collect();
        found.sort();
        Ok(found.into_iter().map(|(_, _, id)| id).collect())
    }

    /// Stops what runs, dependents first, and tells what that was.
    pub(super) async fn stop_services(
        &self,
        deployment: &Deployment,
        service: Option<&ServiceName>,
        run: &Run,
    ) -> Result<BTreeSet<ContainerId>, BackendError> {
        let services = named_or_all(deployment.project.project(), service)?;
        let running: BTreeMap<ContainerId, ServiceName> = {
            let state = self.engine.shared.reachable()?;
            let running = state.current(&deployment.tenant).filter(|container| container.state.is_active());
            let wanted = running.filter(|container| service.is_none() || services.contains(&container.service));
            wanted.map(|container| (container.id.clone(), container.service.clone())).collect()
        };
        for id in self.ordered(&deployment.tenant, Some(deployment), |id| running.contains_key(id))?.iter().rev() {
            if let Some(service) = running.get(id) {
                run.progress.report(format!("stopping service {service}"));
                let before = PreStop::of(deployment.service(service));
                hooks::pre_stop(&self.engine.shared, id, &before, Some(run.deadline)).await;
            }
            self.engine.shared.stop(id, Some(run.deadline)).await?;
        }
        Ok(running.into_keys().collect())
    }

    /// Removes one object that is left over, unless a container uses it.
    pub(super) async fn discard_one(&self, object: &Owned) -> Result<bool, BackendError> {
        let shared = &self.engine.shared;
        if object.kind == OwnedKind::Container {
            let Ok(id) = ContainerId::parse(&object.id) else { return Ok(false) };
            shared.stop(&id, None).await?;
            shared.remove_container(&id)?;
            return Ok(true);
        }
        shared.change(None, |state| {
            let is_used = state.containers.values().any(|container| match object.kind {
                OwnedKind::Network => container.networks.contains(&object.id),
                OwnedKind::Volume => {
                    let is_it = |store: &Store| matches!(store, Store::Volume(name) if *name == object.name);
                    container.mounts.iter().any(|(_, store)| is_it(store))
                }
                OwnedKind::Container | OwnedKind::Image => false,
            });
            match object.kind {
                _ if is_used => {}
                OwnedKind::Network => state.networks.retain(|network| network.id != object.id),
                OwnedKind::Volume => drop(state.volumes.remove(&object.name)),
                OwnedKind::Container | OwnedKind::Image => {}
            }
            Ok(!is_used)
        })
    }

    pub(super) async fn remove_all(
        &self,
        tenant: &TenantRef,
        deployment: Option<&Deployment>,
        purge: bool,
        run: &Run,
    ) -> Result<Removed, BackendError> {
        let shared = &self.engine.shared;
        run.progress.report("stopping and removing containers");
        let mut removed = Removed::default();
        for id in self.ordered(tenant, deployment, |_| true)?.iter().rev() {
            let service = shared.reachable()?.containers.get(id).map(|container| container.service.clone());
            let service = service.and_then(|service| deployment?.service(&service));
            hooks::pre_stop(shared, id, &PreStop::of(service), Some(run.deadline)).await;
            shared.stop(id, Some(run.deadline)).await?;
            shared.remove_container(id)?;
            removed.objects += 1;
        }
        shared.change(None, |state| {
            let before = state.networks.len();
            state.networks.retain(|network| network.owner.as_ref() != Some(tenant));
            removed.objects += before - state.networks.len();
            if purge {
                state.volumes.retain(|_, volume| volume.owner.as_ref() != Some(tenant));
                if let Some(deployment) = deployment {
                    let root = format!("{}/", deployment.project.project().directory);
                    state.directories.retain(|path, _| !path.starts_with(&root));
                }
            }
            let kept = state.volumes.iter().filter(|(_, volume)| volume.owner.as_ref() == Some(tenant));
            removed.volumes_kept = kept.filter_map(|(name, _)| ObjectName::parse(name).ok()).collect();
            Ok(())
        })?;
        Ok(removed)
    }
}

/// Which containers go and which come back to their place.
fn decide(
    state: &State,
    tenant: &TenantRef,
    committed: Generation,
    deployment: Option<&Deployment>,
    undo: Option<&UndoNote>,
) -> (BTreeSet<ContainerId>, BTreeSet<ContainerId>) {
    let (mut gone, mut back) = (BTreeSet::new(), BTreeSet::new());
    let mut slots: BTreeMap<(&ServiceName, u32), Vec<&super::container::Container>> = BTreeMap::new();
    for container in state.of(tenant) {
        let replicas =
            deployment.and_then(|deployment| deployment.service(&container.service)).map_or(0, Service::replicas);
        if container.generation > committed || container.number > replicas {
            gone.insert(container.id.clone());
        } else {
            slots.entry((&container.service, container.number)).or_default().push(container);
        }
    }
    for mut candidates in slots.into_values() {
        // The newest wins. Between two of one generation (a repair), undoing prefers the one that ran before.
        candidates.sort_by_key(|container| {
            let ran_before = undo.is_some_and(|undo| undo.running.contains(&container.id));
            (container.generation, ran_before, !container.is_aside())
        });
        if let Some(winner) = candidates.pop()
            && winner.is_aside()
        {
            back.insert(winner.id.clone());
        }
        gone.extend(candidates.into_iter().map(|container| container.id.clone()));
    }
    (gone, back)
}

fn settle_networks(state: &mut State, tenant: &TenantRef, committed: Generation, deployment: Option<&Deployment>) {
    let project = deployment.map(|deployment| deployment.project.project());
    let is_wanted = |name: &str| {
        project.is_some_and(|project| project.networks.values().any(|network| network.name.as_str() == name))
    };
    state.networks.retain(|network| {
        network.owner.as_ref() != Some(tenant) || (network.generation <= committed && is_wanted(&network.name))
    });
    let current: BTreeSet<String> =
        state.networks.iter().filter(|network| !network.aside).map(|network| network.name.clone()).collect();
    state
        .networks
        .retain(|network| network.owner.as_ref() != Some(tenant) || !network.aside || !current.contains(&network.name));
    for network in state.networks.iter_mut().filter(|network| network.owner.as_ref() == Some(tenant)) {
        network.aside = false;
    }
}
