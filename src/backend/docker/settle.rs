//! Making the engine hold exactly what the record says, and removing a tenant.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::future::{join_all, try_join_all};
use tokio::time::{Instant, timeout_at};

use super::convert::{self, Surroundings};
use super::engine::{Engine, EngineError};
use super::gate::{Allowance, Connection};
use super::networks::{self, SubnetPool};
use super::observe::{self, Container, Network, Observed, State};
use super::{adoption, anonymous, hooks, pending, renaming, stop};
use crate::backend::{BackendError, Deployment, Removed, Run, TenantRef, UndoNote};
use crate::compose::start_order;
use crate::domain::{ContainerName, DesiredState, Generation, ObjectName, ServiceName};

/// How long the `post_start` hooks of a container that comes back may take.
const HOOKS: Duration = Duration::from_mins(1);

/// See `Backend::settle`.
pub(super) async fn settle(
    engine: &Engine,
    pool: &SubnetPool,
    tenant: &TenantRef,
    committed: Generation,
    deployment: Option<&Deployment>,
    undo: Option<&UndoNote>,
) -> Result<(), BackendError> {
    let seen = adoption::with_foreign(tenant, undo);
    let mut observed = observe::tenant(engine, &seen).await.map_err(|e| e.into_backend("listing the tenant"))?;
    let all = std::mem::take(&mut observed.containers);
    let is_foreign = |container: &Container| undo.is_some_and(|undo| undo.adopted.contains(&container.id));
    let (foreign, others): (Vec<Container>, Vec<Container>) = all.into_iter().partition(is_foreign);
    let (replaced, own): (Vec<Container>, Vec<Container>) =
        others.into_iter().partition(|container| is_taken_over(tenant, container));
    observed.containers = own;
    remove_containers(engine, replaced.iter()).await?;
    let (keep, drop): (Vec<&Container>, Vec<&Container>) =
        observed.containers.iter().partition(|container| stays(container, &observed, committed, deployment));
    remove_containers(engine, drop.into_iter()).await?;
    if let Some(undo) = undo {
        let volumes = observed.volumes.iter().filter(|volume| {
            let was_there = undo.volumes.iter().any(|name| name == volume.name.as_str());
            volume.generation > committed && !was_there
        });
        try_join_all(volumes.map(|volume| engine.remove_volume(&volume.name)))
            .await
            .map_err(|error| error.into_backend("removing a volume"))?;
    }
    let stale = observed.networks.iter().filter(|network| is_stale(network, &keep, committed, deployment));
    let stale: Vec<String> = stale.map(|network| network.id.clone()).collect();
    for container in &keep {
        for (name, id) in container.networks.iter().filter(|(_, id)| stale.contains(id)) {
            let left = engine.disconnect(name, &container.id).await;
            left.map_err(|error| error.into_backend("leaving a network"))?;
            tracing::debug!(network = %id, container = %container.id, "left a network that goes");
        }
    }
    remove_networks(engine, stale.iter().map(String::as_str)).await?;
    if let Some(undo) = undo {
        adoption::give_back(engine, &foreign, undo).await?;
    }
    match deployment {
        Some(deployment) => bring_back(engine, pool, deployment, &keep, undo).await,
        None => Ok(()),
    }
}

/// Whether settling would change nothing once this deployment is committed.
pub(super) fn is_settled(observed: &Observed, deployment: &Deployment) -> bool {
    let (committed, containers) = (deployment.generation, &observed.containers);
    let keep: Vec<&Container> = containers.iter().collect();
    containers.iter().all(|container| {
        !is_taken_over(&deployment.tenant, container)
            && !container.is_aside()
            && stays(container, observed, committed, Some(deployment))
    }) && !observed.networks.iter().any(|network| is_stale(network, &keep, committed, Some(deployment)))
}

/// Taken over and replaced, says the record.
fn is_taken_over(tenant: &TenantRef, container: &Container) -> bool {
    tenant.adopted.containers.contains(&container.id)
}

/// Whether a network goes, where these containers stay.
fn is_stale(network: &Network, keep: &[&Container], committed: Generation, deployment: Option<&Deployment>) -> bool {
    let is_wanted = deployment.is_some_and(|deployment| {
        deployment.project.project().networks.values().any(|wanted| wanted.name.as_str() == network.name)
    });
    // A service that an update was not about may still be on a network that the file has no more.
    let is_used = keep.iter().any(|container| {
        // The engine does not always tell the id of the network of a container that does not run.
        let on_it = |(name, id): (&String, &String)| *id == network.id || (id.is_empty() && *name == network.name);
        container.networks.iter().any(on_it)
    });
    // Of a network that was replaced, the one of the later generation goes even though its name stays.
    network.generation > committed || !(is_wanted || is_used)
}

/// Whether a container belongs to the committed generation.
fn stays(container: &Container, observed: &Observed, committed: Generation, deployment: Option<&Deployment>) -> bool {
    let Some(deployment) = deployment else { return false };
    if container.generation > committed {
        return false;
    }
    if !container.is_aside() {
        return true;
    }
    let replaced = observed.containers.iter().any(|other| {
        other.service == container.service
            && other.number == container.number
            && !other.is_aside()
            && other.generation <= committed
    });
    let in_place = deployment.service(&container.service).is_some_and(|service| container.number <= service.replicas());
    in_place && !replaced
}

/// Undo: names, networks and running state of what an uncommitted apply had set aside.
async fn bring_back(
    engine: &Engine,
    pool: &SubnetPool,
    deployment: &Deployment,
    keep: &[&Container],
    undo: Option<&UndoNote>,
) -> Result<(), BackendError> {
    let project = deployment.project.project();
    for container in keep.iter().filter(|container| container.is_aside()) {
        if container.is_stopping() {
            // Until it has ended it looks as if it needed no start. Its name goes on telling so until then.
            let stopped = engine.stop_within(&container.id, pending::LAST_STOP).await;
            stopped.map_err(|error| error.into_backend("stopping a container"))?;
        }
        if let Ok(name) = ContainerName::parse(container.final_name()) {
            let renamed = renaming::rename(engine, &container.id, &name, renaming::Then::Started).await;
            renamed.map_err(|error| error.into_backend("renaming a container"))?;
        }
    }
    // After a commit, what stays was never disturbed.
    let Some(undo) = undo.filter(|_| !keep.is_empty()) else { return Ok(()) };
    for (key, network) in project.networks.iter().filter(|(_, network)| !network.external) {
        match networks::ensure_network(engine, pool, deployment, key, network).await {
            // It was accepted under other rules. Without it the tenant still comes back, and says what it lacks.
            Err(BackendError::GateRefused { .. }) => {}
            other => other?,
        }
    }
    let mut names: BTreeMap<ServiceName, Vec<ContainerName>> = BTreeMap::new();
    for container in keep {
        if let Ok(name) = ContainerName::parse(container.final_name()) {
            names.entry(container.service.clone()).or_default().push(name);
        }
    }
    for container in keep {
        match reattach(engine, deployment, &names, container).await {
            Err(BackendError::GateRefused { .. }) => {}
            other => other?,
        }
    }
    if deployment.desired == DesiredState::Stopped {
        return Ok(());
    }
    let profile = deployment.project.profile();
    let ran = || keep.iter().copied().filter(|container| undo.running.contains(&container.id));
    // What was set aside before it was told to stop has ended above.
    let others = ran().filter(|container| !container.is_stopping());
    let ended = pending::await_stops(engine, others).await.map_err(|e| e.into_backend("stopping a container"))?;
    for service in start_order(project) {
        let stopped = ran().filter(|container| {
            let runs = matches!(container.state, State::Running | State::Restarting) && !container.is_stopping();
            container.service == service && (ended.contains(&container.id) || !runs)
        });
        let post_start = deployment.service(&service).map_or(&[][..], |known| &known.post_start);
        let start = async |container: &Container| {
            engine.start(&container.id).await?;
            let limit = Instant::now() + HOOKS;
            if let Err(error) = hooks::post_start(engine, profile, &service, (&container.id, post_start), limit).await {
                tracing::warn!(%service, %error, "a container that ran before runs again, but not its hook");
            }
            Ok(())
        };
        let starts = join_all(stopped.map(start)).await;
        // One that cannot be started again must not keep the others down.
        for error in starts.into_iter().filter_map(Result::err) {
            match error {
                EngineError::Timeout | EngineError::Unreachable(_) => {
                    return Err(error.into_backend("starting a container"));
                }
                error => tracing::error!(%service, %error, "a container that ran before could not be started again"),
            }
        }
    }
    Ok(())
}

/// Connects a container to the networks that were made again under their old names.
async fn reattach(
    engine: &Engine,
    deployment: &Deployment,
    names: &BTreeMap<ServiceName, Vec<ContainerName>>,
    container: &Container,
) -> Result<(), BackendError> {
    let doing = "joining a network";
    let Some(service) = deployment.service(&container.service) else { return Ok(()) };
    let api = engine.api_version().await.map_err(|error| error.into_backend(doing))?;
    let allowance = Allowance::of(deployment, engine.ground());
    let nothing = BTreeMap::new();
    let around = Surroundings {
        number: container.number,
        container_name: container.final_name(),
        image: "",
        image_id: "",
        instead: &crate::backend::Instead::default(),
        containers: &BTreeMap::new(),
        inherited: &nothing,
        ports: &BTreeMap::new(),
        names,
        api,
    };
    for key in service.networks.keys() {
        let Some(network) = deployment.project.project().networks.get(key) else { continue };
        let current = engine.inspect_network(&network.name).await.map_err(|error| error.into_backend(doing))?;
        let attached = container.networks.get(network.name.as_str());
        if attached.is_some_and(|id| id.is_empty() || Some(id.as_str()) == current.id.as_deref()) {
            continue;
        }
        engine.disconnect(network.name.as_str(), &container.id).await.map_err(|error| error.into_backend(doing))?;
        let Some(endpoint) = convert::endpoint(deployment, &container.service, service, key, &around) else { continue };
        let connection =
            Connection { network: network.name.as_str().to_owned(), container: container.id.clone(), endpoint };
        let joined = engine.connect(allowance.connection(connection)?).await;
        joined.map_err(|error| error.into_backend(doing))?;
    }
    Ok(())
}

/// See `Backend::remove`.
pub(super) async fn remove(
    engine: &Engine,
    tenant: &TenantRef,
    deployment: Option<&Deployment>,
    purge: bool,
    run: &Run,
) -> Result<Removed, BackendError> {
    let observed = observe::tenant(engine, tenant).await.map_err(|e| e.into_backend("listing the tenant"))?;
    run.progress.report("stopping and removing containers");
    let (ended, endings) = mpsc::unbounded();
    let containers = &observed.containers;
    let stopping = async move {
        // Nobody to hear it any more: this was dropped with it.
        let tell = |service: &ServiceName| drop(ended.unbounded_send(service.clone()));
        stop::in_order(engine, deployment, containers, tell, run).await
    };
    // A container goes while others still stop, and what cannot be removed keeps none from being stopped.
    let removing = endings.map(|service| async move {
        remove_containers(engine, containers.iter().filter(|container| container.service == service)).await
    });
    let removing = removing.buffer_unordered(containers.len().max(1)).collect::<Vec<_>>();
    let (stopped, removed) =
        timeout_at(run.deadline, async { tokio::join!(stopping, removing) }).await.map_err(|_| {
            BackendError::DeadlineExceeded { step: "stopping and removing containers".to_owned(), details: None }
        })?;
    stopped?;
    removed.into_iter().collect::<Result<(), _>>()?;
    run.progress.report("removing networks and volumes");
    let mut kept: Vec<ObjectName> = observed.volumes.iter().map(|volume| volume.name.clone()).collect();
    let volumes = async {
        if !purge {
            return Ok(());
        }
        let removals = try_join_all(kept.iter().map(|name| engine.remove_volume(name))).await;
        removals.map(drop).map_err(|error| error.into_backend("removing a volume"))
    };
    let networks = remove_networks(engine, observed.networks.iter().map(|network| network.id.as_str()));
    tokio::try_join!(networks, volumes)?;
    if purge {
        kept.clear();
    }
    Ok(Removed { objects: observed.containers.len() + observed.networks.len(), volumes_kept: kept })
}

async fn remove_containers(engine: &Engine, containers: impl Iterator<Item = &Container>) -> Result<(), BackendError> {
    // Each to its end: one that is gone without its anonymous volumes is not found again.
    let removals = join_all(containers.map(|container| anonymous::remove_with_container(engine, &container.id))).await;
    removals.into_iter().collect::<Result<(), _>>().map_err(|error| error.into_backend("removing a container"))
}

async fn remove_networks(engine: &Engine, ids: impl Iterator<Item = &str>) -> Result<(), BackendError> {
    let removing = ids.map(async |id| (id, networks::remove(engine, id).await));
    for (id, removed) in join_all(removing).await {
        // Somebody connected a container of their own, or the engine errs: no reason to keep the tenant up.
        if let Some(kept) = removed.map_err(|error| error.into_backend("removing a network"))? {
            tracing::warn!(network = id, %kept, "a network is left");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::sample;
    use crate::domain::ContainerId;
    use crate::policy::Profile;

    fn container(name: &str, generation: u64) -> Container {
        Container {
            id: ContainerId::parse(&"a".repeat(64)).unwrap(),
            name: ContainerName::parse(name).unwrap(),
            service: ServiceName::parse("web").unwrap(),
            number: 1,
            generation: Generation(generation),
            spec: String::new(),
            image_id: String::new(),
            state: State::Running,
            networks: BTreeMap::from([("q8-acme_default".to_owned(), "n1".to_owned())]),
            binds: Vec::new(),
            standing: None,
        }
    }

    fn network(id: &str, name: &str, generation: u64) -> Network {
        let (id, name) = (id.to_owned(), name.to_owned());
        Network { id, name, generation: Generation(generation), spec: String::new(), driver: None }
    }

    #[test]
    fn what_is_as_the_record_will_say_needs_no_settling() {
        let wanted = sample::deployment(Profile::Baseline, "services: {web: {image: x}}", &[]);
        let now = wanted.generation.0;
        let (web, default) = (container("q8-acme-web-1", now), network("n1", "q8-acme_default", now));
        let aside = ContainerName::parse("aaaaaaaaaaaa_q8-acme-web-1").unwrap();
        for (case, containers, networks, settled) in [
            ("as made", vec![web.clone()], vec![default.clone()], true),
            ("kept", vec![container("q8-acme-web-1", now - 1)], vec![network("n1", "q8-acme_default", now - 1)], true),
            ("replaced", vec![Container { name: aside, ..web.clone() }, web.clone()], vec![default.clone()], false),
            ("of a later attempt", vec![container("q8-acme-web-1", now + 1)], vec![default.clone()], false),
            ("a network of before", vec![web.clone()], vec![default.clone(), network("n2", "q8-acme_old", 1)], false),
            ("a network that was replaced", vec![web], vec![default, network("n2", "q8-acme_default", now + 1)], false),
        ] {
            let observed = Observed { containers, networks, volumes: Vec::new() };
            assert_eq!(is_settled(&observed, &wanted), settled, "{case}");
        }
    }
}
