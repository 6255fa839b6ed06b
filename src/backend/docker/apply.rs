//! Carrying a plan out.
//!
//! Order: volumes and networks; then every new container is made beside the old one, which is set aside under another
//! name but still runs; then, service by service as dependencies allow, the old container stops and the new one starts.
//! A failure before the first stop has therefore cost nothing, and after it nothing is lost: what was set aside stays
//! until `settle`.
//!
//! Calls that make something are all waited for, also when one of them has failed: the engine finishes what it has begun
//! even when its caller hangs up, and an undo that looks before that is there would leave it behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{join, join_all};
use tokio::sync::Semaphore;

use super::convert::{self, Surroundings};
use super::engine::{Engine, EngineError};
use super::networks::{self, SubnetPool};
use super::observe::{self, Container, Observed, State};
use super::start::{self, Starting, StopFirst};
use super::{adoption, anonymous, labels, nesting, stop};
use crate::backend::converge::{self, is_one_shot, parents};
use crate::backend::{Action, BackendError, Deployment, Plan, PlannedObject, ResolvedImages, Run, Step};
use crate::compose::{Service, start_order};
use crate::domain::{ContainerId, ContainerName, DesiredState, ServiceName};

/// How many calls that make something the engine gets at once.
const PARALLEL: usize = 16;

/// One container of the plan.
struct Work<'a> {
    service_name: &'a ServiceName,
    service: &'a Service,
    number: u32,
    name: &'a ContainerName,
    existing: Option<&'a ContainerId>,
    action: Action,
}

/// Carries out a plan that was made for this deployment.
pub(super) async fn apply(
    engine: &Arc<Engine>,
    pool: &SubnetPool,
    wanted: &Deployment,
    images: &ResolvedImages,
    plan: &Plan,
    run: &Run,
) -> Result<(), BackendError> {
    let observed = observe::tenant(engine, &wanted.tenant).await.map_err(|e| e.into_backend("listing the tenant"))?;
    let work = containers_of(wanted, plan);
    run.progress.report("making networks and volumes");
    free_replaced_networks(engine, &observed, plan, run).await?;
    let (volumes, networks) = join(make_volumes(engine, wanted, plan), make_networks(engine, pool, wanted, plan)).await;
    volumes.and(networks)?;

    run.progress.report("making containers");
    let made = make_containers(engine, wanted, images, &work, &observed).await?;

    for step in &plan.steps {
        if let (Action::Remove, PlannedObject::Container { existing: Some(id), .. }) = (step.action, &step.object) {
            // Stopped first of all: it may hold a port that another service takes over.
            let stopping = observed.containers.iter().find(|container| container.id == *id);
            if let Some(container) = stopping {
                stop_aside(engine, container, run).await?;
            }
        }
    }
    if wanted.desired == DesiredState::Stopped {
        return Ok(());
    }
    let mut starting = Vec::new();
    for item in &work {
        let id = made.get(&(item.service_name.clone(), item.number)).or(item.existing);
        let Some(id) = id else { continue };
        let state = observed.containers.iter().find(|container| container.id == *id).map(|container| container.state);
        let stop_first = match item.action {
            Action::Recreate => {
                let old = observed.containers.iter().find(|container| Some(&container.id) == item.existing);
                old.map(|old| StopFirst { id: old.id.clone(), name: Some(old.stopping_name()) })
            }
            // A running container that is to be started restarts.
            Action::Start if matches!(state, Some(State::Running)) => Some(StopFirst { id: id.clone(), name: None }),
            _ => None,
        };
        let needs_start = matches!(item.action, Action::Create | Action::Recreate | Action::Start);
        starting.push(Starting {
            service: item.service_name.clone(),
            id: id.clone(),
            needs_start,
            paused: state == Some(State::Paused),
            stop_first,
            may_end: is_one_shot(wanted.project.project(), item.service_name),
            restart: item.service.restart_policy(),
            restore_policy: item.action == Action::Start,
        });
    }
    start::all(engine, wanted, starting, run).await
}

fn containers_of<'a>(wanted: &'a Deployment, plan: &'a Plan) -> Vec<Work<'a>> {
    plan.steps
        .iter()
        .filter(|step| step.action != Action::Remove)
        .filter_map(|Step { object, action, .. }| match object {
            PlannedObject::Container { service, number, name, existing } => Some(Work {
                service_name: service,
                service: wanted.service(service)?,
                number: *number,
                name,
                existing: existing.as_ref(),
                action: *action,
            }),
            _ => None,
        })
        .collect()
}

/// A network can be replaced only when no running container is on it.
async fn free_replaced_networks(
    engine: &Engine,
    observed: &Observed,
    plan: &Plan,
    run: &Run,
) -> Result<(), BackendError> {
    for step in &plan.steps {
        let (PlannedObject::Network { name, .. }, Action::Recreate) = (&step.object, step.action) else { continue };
        for container in observed.containers.iter().filter(|container| container.networks.contains_key(name)) {
            if matches!(container.state, State::Running | State::Restarting | State::Paused) {
                // All containers of a network that is made anew are made anew, or removed.
                stop_aside(engine, container, run).await?;
            }
            engine.disconnect(name, &container.id).await.map_err(|e| e.into_backend("leaving a network"))?;
        }
        for network in observed.networks.iter().filter(|network| network.name == *name) {
            engine.remove_network(&network.id).await.map_err(|e| e.into_backend("removing a network"))?;
        }
    }
    Ok(())
}

async fn make_networks(
    engine: &Engine,
    pool: &SubnetPool,
    wanted: &Deployment,
    plan: &Plan,
) -> Result<(), BackendError> {
    let networks = plan.steps.iter().filter_map(|step| match (&step.object, step.action) {
        (PlannedObject::Network { key: Some(key), .. }, Action::Create | Action::Recreate) => {
            Some((key, wanted.project.project().networks.get(key)?))
        }
        _ => None,
    });
    let making = networks.map(|(key, network)| networks::ensure_network(engine, pool, wanted, key, network));
    all(making).await.map(drop)
}

async fn make_volumes(engine: &Engine, wanted: &Deployment, plan: &Plan) -> Result<(), BackendError> {
    let volumes = plan.steps.iter().filter_map(|step| match (&step.object, step.action) {
        (PlannedObject::Volume { key, .. }, Action::Create) => Some((key, wanted.project.project().volumes.get(key)?)),
        _ => None,
    });
    all(volumes.map(|(key, volume)| networks::ensure_volume(engine, wanted, key, volume))).await.map(drop)
}

/// Waits for every call, then gives the first failure: the engine goes on with a call whose answer nobody awaits any more,
/// and what it makes after an undo has looked around is nobody's.
async fn all<T>(
    calls: impl Iterator<Item = impl Future<Output = Result<T, BackendError>>>,
) -> Result<Vec<T>, BackendError> {
    join_all(calls).await.into_iter().collect()
}

type Made = HashMap<(ServiceName, u32), ContainerId>;

/// Makes all containers at once, but for those that are tied to another's: these come after the ones they are tied to.
async fn make_containers(
    engine: &Engine,
    wanted: &Deployment,
    images: &ResolvedImages,
    work: &[Work<'_>],
    observed: &Observed,
) -> Result<Made, BackendError> {
    let (joining, free): (Vec<_>, Vec<_>) = work
        .iter()
        .filter(|item| matches!(item.action, Action::Create | Action::Recreate))
        .partition(|item| !parents(item.service).is_empty());
    let made = Mutex::new(Made::new());
    let mut names: BTreeMap<ServiceName, Vec<ContainerName>> = BTreeMap::new();
    for item in work {
        names.entry(item.service_name.clone()).or_default().push(item.name.clone());
    }
    let slots = Semaphore::new(PARALLEL);
    let make_one = async |item: &Work<'_>| {
        let _slot = slots.acquire().await;
        let mut first: BTreeMap<ServiceName, ContainerId> = work
            .iter()
            .filter(|other| other.number == 1)
            .filter_map(|other| Some((other.service_name.clone(), other.existing?.clone())))
            .collect();
        for ((service, number), id) in made.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if *number == 1 {
                first.insert(service.clone(), id.clone());
            }
        }
        let replaced = item.existing.and_then(|id| observed.containers.iter().find(|container| container.id == *id));
        let id = make_container(engine, wanted, images, item, replaced, &first, &names).await?;
        let key = (item.service_name.clone(), item.number);
        made.lock().unwrap_or_else(PoisonError::into_inner).insert(key, id);
        Ok::<(), BackendError>(())
    };
    all(free.into_iter().map(make_one)).await?;
    for name in start_order(wanted.project.project()) {
        let next = joining.iter().filter(|item| *item.service_name == name).map(|item| make_one(item));
        all(next).await?;
    }
    Ok(made.into_inner().unwrap_or_else(PoisonError::into_inner))
}

async fn make_container(
    engine: &Engine,
    wanted: &Deployment,
    images: &ResolvedImages,
    item: &Work<'_>,
    replaced: Option<&Container>,
    first: &BTreeMap<ServiceName, ContainerId>,
    names: &BTreeMap<ServiceName, Vec<ContainerName>>,
) -> Result<ContainerId, BackendError> {
    let doing = "making a container";
    let mut inherited = BTreeMap::new();
    if let Some(old) = replaced {
        let details = engine.inspect(&old.id).await.map_err(|error| error.into_backend(doing))?;
        inherited = anonymous::inherited_from(engine, &details).await.map_err(|error| error.into_backend(doing))?;
        if !old.is_aside() {
            engine.rename(&old.id, &old.aside_name()).await.map_err(|error| error.into_backend(doing))?;
        }
    }
    let image = images.get(item.service_name);
    let image_id = image.map(|image| image.id.as_str()).unwrap_or_default();
    let reference = image.map_or(item.service.image.as_str(), |image| image.image.as_str());
    let api = engine.api_version().await.map_err(|error| error.into_backend(doing))?;
    let mut name = item.name.clone();
    for attempt in 0..3 {
        let around = Surroundings {
            number: item.number,
            container_name: name.as_str(),
            image: reference,
            image_id,
            containers: first,
            inherited: &inherited,
            names,
            api,
        };
        let request = convert::container(wanted, item.service_name, item.service, &around)?;
        match engine.create(&name, item.service.platform.as_deref(), request.body, request.mac_address).await {
            Ok(id) => {
                for (network, endpoint) in request.connect_later {
                    engine.connect(&network, &id, endpoint).await.map_err(|error| error.into_backend(doing))?;
                }
                return Ok(id);
            }
            Err(EngineError::Conflict(_)) if attempt < 2 => match holder(engine, wanted, item, &name).await? {
                Holder::MadeAlready(id) => {
                    for (network, endpoint) in request.connect_later {
                        match engine.connect(&network, &id, endpoint).await {
                            // "endpoint with name … already exists in network …"
                            Err(EngineError::Refused { status: 403, .. }) => {}
                            other => other.map_err(|error| error.into_backend(doing))?,
                        }
                    }
                    return Ok(id);
                }
                Holder::LeftOver(id) => {
                    engine.remove_container(&id).await.map_err(|error| error.into_backend(doing))?;
                }
                Holder::AnotherTenant => name = suffixed(wanted, &name),
                Holder::Gone => {}
                Holder::Foreign => {
                    return Err(BackendError::NameTaken { kind: "container", name: name.as_str().to_owned() });
                }
            },
            Err(EngineError::Refused { status: 400, message })
                if message.contains("bind source path does not exist") =>
            {
                tracing::warn!(%message, "a bind source is missing");
                return Err(BackendError::Unsupported {
                    field: format!("services.{}.volumes", item.service_name),
                    reason: "the path to bind does not exist on the host".to_owned(),
                });
            }
            Err(EngineError::Refused { status: 400, message }) => {
                tracing::warn!(%message, "the engine refused a container");
                return Err(BackendError::Unsupported {
                    field: format!("services.{}", item.service_name),
                    reason: "the engine does not accept this combination of attributes".to_owned(),
                });
            }
            Err(EngineError::NotFound(_)) => {
                return Err(BackendError::ImageNotFound {
                    service: item.service_name.clone(),
                    image: reference.to_owned(),
                    hint: " on this host any more",
                });
            }
            Err(error) => return Err(error.into_backend(doing)),
        }
    }
    Err(BackendError::Refused { message: format!("container name {name} could not be had") })
}

/// Who holds a container name.
enum Holder {
    /// The very container that is wanted: it was made, and the answer was lost.
    MadeAlready(ContainerId),
    /// One of an earlier attempt at this generation that wanted something else.
    LeftOver(ContainerId),
    AnotherTenant,
    Foreign,
    Gone,
}

async fn holder(
    engine: &Engine,
    wanted: &Deployment,
    item: &Work<'_>,
    name: &ContainerName,
) -> Result<Holder, BackendError> {
    let found = match engine.inspect_named(name).await {
        Ok(found) => found,
        Err(EngineError::NotFound(_)) => return Ok(Holder::Gone),
        Err(error) => return Err(error.into_backend("looking for a container")),
    };
    let found_labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    if !labels::is_ours(&found_labels, &wanted.tenant) {
        let same_agent = found_labels.get(labels::AGENT).is_some_and(|agent| agent == wanted.tenant.agent.as_str());
        return Ok(if same_agent { Holder::AnotherTenant } else { Holder::Foreign });
    }
    let same_place = found_labels.get(labels::SERVICE).is_some_and(|service| service == item.service_name.as_str())
        && labels::generation(&found_labels) == wanted.generation;
    match found.id.as_deref().and_then(|id| ContainerId::parse(id).ok()) {
        Some(id) if same_place => {
            let same = found_labels.get(labels::SPEC) == Some(&wanted.service_hash(item.service));
            Ok(if same { Holder::MadeAlready(id) } else { Holder::LeftOver(id) })
        }
        // Ours, but another service's (`a-b` + `c` and `a` + `b-c`).
        _ => Ok(Holder::AnotherTenant),
    }
}

/// `web-1` of tenant `a` is also `1` of a service of tenant `a-web`: the second one gets a short hash.
fn suffixed(wanted: &Deployment, name: &ContainerName) -> ContainerName {
    let hash = wanted.key.hash(&[b"name", wanted.tenant.subdomain.as_str().as_bytes(), name.as_str().as_bytes()]);
    let mut text = name.as_str().to_owned();
    text.truncate(246);
    ContainerName::parse(&format!("{text}-{}", &hash[..8]))
        .expect("a valid name and hexadecimal digits are a valid name")
}

/// Sets a container aside and stops it.
async fn stop_aside(engine: &Engine, container: &Container, run: &Run) -> Result<(), BackendError> {
    let renamed = engine.rename(&container.id, &container.stopping_name()).await;
    renamed.map_err(|e| e.into_backend("renaming a container"))?;
    let stopped = engine.stop_within(&container.id, stop::patience(run)).await;
    stopped.map_err(|error| error.into_backend("stopping a container"))
}

/// The plan of what is there for what is wanted.
pub(super) async fn plan(
    engine: &Engine,
    wanted: &Deployment,
    images: &ResolvedImages,
    run: &Run,
) -> Result<Plan, BackendError> {
    networks::check_external(engine, wanted).await?;
    let mut observed =
        observe::tenant(engine, &wanted.tenant).await.map_err(|e| e.into_backend("listing the tenant"))?;
    nesting::check(wanted, &observed)?;
    let surplus = adoption::surplus(&wanted.tenant, &mut observed);
    let mut plan = converge::plan(wanted, images, run.only.as_ref(), &observed.known(wanted.generation))?;
    adoption::note(&mut plan, wanted, &observed, surplus);
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_failure_is_told_when_nothing_is_under_way_any_more() {
        let made = AtomicBool::new(false);
        let call = async |fails: bool| {
            if fails {
                return Err(BackendError::NoSpace);
            }
            tokio::task::yield_now().await;
            made.store(true, Ordering::Relaxed);
            Ok(())
        };
        let result = all([true, false].into_iter().map(call)).await;
        assert!(matches!(result, Err(BackendError::NoSpace)), "{result:?}");
        assert!(made.load(Ordering::Relaxed), "the second call was given up");
    }
}
