//! What the engine has of one tenant.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{ContainerState, ContainerStateStatusEnum, ContainerSummary};
use futures::future::try_join_all;

use super::engine::{Engine, EngineError};
use super::{adoption, labels, status};
use crate::backend::converge::{self, KnownContainer, KnownNetwork, KnownVolume, RunState};
use crate::backend::{ObservedContainer, TenantRef};
use crate::domain::{ContainerId, ContainerName, Generation, ObjectName, ServiceName};

/// A container's state as far as planning cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Made, never started.
    Created,
    Running,
    Paused,
    /// Between two runs of its restart policy.
    Restarting,
    /// Ended with this code.
    Exited(i64),
    /// Being removed, or dead.
    Gone,
}

/// A container of the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: ContainerId,
    pub(super) name: ContainerName,
    pub(super) service: ServiceName,
    pub(super) number: u32,
    pub(super) generation: Generation,
    pub(super) spec: String,
    pub(super) image_id: String,
    pub(super) state: State,
    /// Network name -> network id.
    pub(super) networks: BTreeMap<String, String>,
    /// Paths of the host that it has bound, and whether it may write there.
    pub(super) binds: Vec<(String, bool)>,
    /// As status has it; none for one that is set aside.
    pub(super) standing: Option<ObservedContainer>,
}

impl Container {
    /// The name it bears, or bore before it was set aside.
    pub(super) fn final_name(&self) -> &str {
        self.aside().unwrap_or(self.name.as_str())
    }

    /// Whether a replacement has taken (or was about to take) its name.
    pub(super) fn is_aside(&self) -> bool {
        self.aside().is_some()
    }

    /// Whether it was told to stop when it was set aside. The engine goes on with a stop whatever becomes of whoever asked
    /// for it, so one that still runs may end at any moment.
    pub(super) fn is_stopping(&self) -> bool {
        self.after_id().is_some_and(|rest| rest.starts_with("__"))
    }

    fn after_id(&self) -> Option<&str> {
        self.name.as_str().strip_prefix(self.id.short())
    }

    /// Container names begin with a letter or digit: the second underscore cannot be part of one.
    fn aside(&self) -> Option<&str> {
        let rest = self.after_id()?.strip_prefix('_')?;
        Some(rest.strip_prefix('_').unwrap_or(rest))
    }

    /// The name under which it waits for the commit: as docker compose names the ones it replaces.
    pub(super) fn aside_name(&self) -> ContainerName {
        aside_name(&self.id, "_", self.final_name())
    }

    /// The name that it gets before it is stopped.
    pub(super) fn stopping_name(&self) -> ContainerName {
        aside_name(&self.id, "__", self.final_name())
    }
}

fn aside_name(id: &ContainerId, mark: &str, name: &str) -> ContainerName {
    let mut text = format!("{}{mark}{name}", id.short());
    text.truncate(255);
    ContainerName::parse(&text).expect("an id, underscores and a valid name are a valid name")
}

/// A network of the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) generation: Generation,
    pub(super) spec: String,
    pub(super) driver: Option<String>,
}

/// A named volume of the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) name: ObjectName,
    pub(super) generation: Generation,
    pub(super) spec: String,
    /// Whether it is a directory of the engine's own, and no way to anything else.
    pub(super) is_plain: bool,
}

/// All of one tenant's objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Observed {
    pub(super) containers: Vec<Container>,
    pub(super) networks: Vec<Network>,
    pub(super) volumes: Vec<Volume>,
}

impl Observed {
    /// As status has it.
    pub(super) fn standing(&self) -> Vec<ObservedContainer> {
        status::sorted(self.containers.iter().filter_map(|container| container.standing.clone()).collect())
    }

    /// As the planner wants to know it. What is set aside is not part of it.
    ///
    /// Objects of a later generation than the wanted one are there only if the tenant's record was lost. They count as
    /// changed: settling would take them for leftovers of a failed attempt.
    pub(super) fn known(&self, wanted: Generation) -> converge::Observed {
        let networks = self.networks.iter().map(|network| KnownNetwork {
            id: network.id.clone(),
            name: network.name.clone(),
            spec: if network.generation > wanted { String::new() } else { network.spec.clone() },
        });
        let volumes = self
            .volumes
            .iter()
            .map(|volume| KnownVolume { name: volume.name.as_str().to_owned(), spec: volume.spec.clone() });
        converge::Observed {
            containers: self.known_containers(&self.containers, wanted),
            networks: networks.collect(),
            volumes: volumes.collect(),
            // Names that others hold show when something is made: listing every object of the host would cost more.
            ..converge::Observed::default()
        }
    }

    /// Some of the tenant's containers, without those that are set aside.
    pub(super) fn known_containers(&self, containers: &[Container], wanted: Generation) -> Vec<KnownContainer> {
        let network_id = |name: &str, id: &str| match id {
            // The engine names the network of a container that was never started, but not its id.
            "" => self.networks.iter().find(|network| network.name == name).map(|network| network.id.clone()),
            id => Some(id.to_owned()),
        };
        let known = containers.iter().filter(|container| !container.is_aside()).map(|container| {
            KnownContainer {
                id: container.id.clone(),
                name: container.name.clone(),
                service: container.service.clone(),
                number: container.number,
                // A dead container cannot be started again: no definition is its own.
                spec: if container.state == State::Gone || container.generation > wanted {
                    String::new()
                } else {
                    container.spec.clone()
                },
                image: container.image_id.clone(),
                state: match container.state {
                    State::Created => RunState::Created,
                    // Whoever paused it did so on purpose.
                    State::Running | State::Paused => RunState::Running,
                    State::Restarting => RunState::Restarting,
                    State::Exited(code) => RunState::Exited(code),
                    State::Gone => RunState::Exited(-1),
                },
                // The engine does not tell who ended a container.
                stopped: false,
                networks: container.networks.iter().filter_map(|(name, id)| network_id(name, id)).collect(),
            }
        });
        known.collect()
    }
}

/// Lists the tenant's objects: three calls, and one more for each container.
pub(super) async fn tenant(engine: &Engine, tenant: &TenantRef) -> Result<Observed, EngineError> {
    let adopted = &tenant.adopted;
    // What was taken over bears the project's label, but not the tenant's.
    let filter = if adopted.is_empty() { labels::filter(tenant) } else { labels::project_filter(tenant) };
    let (containers, networks, volumes) =
        tokio::try_join!(engine.containers(&filter), engine.networks(Some(&filter)), engine.volumes(&filter))?;
    let own = containers.into_iter().filter(|summary| adoption::owns_container(tenant, summary));
    let mut containers = read_all(engine, own).await?;
    for container in containers.iter_mut().filter(|container| adopted.containers.contains(&container.id)) {
        // No generation made it, and no definition is its own.
        (container.generation, container.spec) = (Generation::NONE, String::new());
    }
    let networks = networks.into_iter().filter_map(|network| {
        let labels = network.labels.unwrap_or_default();
        let id = network.id.filter(|id| adoption::owns_network(tenant, Some(id), &labels))?;
        let (generation, spec) = made_by(&labels, adopted.networks.get(&id));
        Some(Network { id, name: network.name?, generation, spec, driver: network.driver })
    });
    let volumes = volumes.into_iter().filter_map(|volume| {
        let name = ObjectName::parse(&volume.name).ok()?;
        let name = Some(name).filter(|name| adoption::owns_volume(tenant, name, &volume.labels))?;
        let remembered = adopted.volumes.get(&name).filter(|_| !labels::is_ours(&volume.labels, tenant));
        let (generation, spec) = made_by(&volume.labels, remembered);
        let is_plain = volume.driver == "local" && volume.options.is_empty();
        Some(Volume { name, generation, spec, is_plain })
    });
    Ok(Observed { containers, networks: networks.collect(), volumes: volumes.collect() })
}

/// The generation and the definition that an object was made by; one that was taken over is older than any generation.
fn made_by(labels: &HashMap<String, String>, adopted: Option<&String>) -> (Generation, String) {
    match adopted {
        Some(spec) => (Generation::NONE, spec.clone()),
        None => (labels::generation(labels), labels.get(labels::SPEC).cloned().unwrap_or_default()),
    }
}

/// Only the tenant's containers, in order of service and number.
pub(super) async fn containers(
    engine: &Engine,
    filter: &HashMap<String, Vec<String>>,
) -> Result<Vec<Container>, EngineError> {
    read_all(engine, engine.containers(filter).await?.into_iter()).await
}

async fn read_all(
    engine: &Engine,
    listed: impl Iterator<Item = ContainerSummary>,
) -> Result<Vec<Container>, EngineError> {
    let mut containers = try_join_all(listed.map(|summary| read(engine, summary))).await?;
    let mut containers: Vec<Container> = containers.drain(..).flatten().collect();
    containers.sort_by(|a, b| (&a.service, a.number, &a.name).cmp(&(&b.service, b.number, &b.name)));
    Ok(containers)
}

/// One listed container; none when it lacks what makes it a service's container, or went away meanwhile.
///
/// The list may be late: Engine 26.1 still shows a container as running for 2 ms (200 on a busy host) after it has answered
/// that it is stopped. Only a look at the container itself tells how it is now.
async fn read(engine: &Engine, summary: ContainerSummary) -> Result<Option<Container>, EngineError> {
    let Some(container) = parse(summary) else { return Ok(None) };
    match engine.inspect(&container.id).await {
        Ok(details) => {
            let standing = status::inspected(&details);
            let state = details.state.as_ref().map_or(State::Gone, state);
            Ok(Some(Container { state, standing, ..container }))
        }
        Err(EngineError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A container's own name. On the default bridge it has another one for each container that links to it, such as
/// `/web/alias`.
pub(super) fn own_name(names: &[String]) -> Option<&str> {
    names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'))
}

fn state(inspected: &ContainerState) -> State {
    match inspected.status {
        Some(ContainerStateStatusEnum::CREATED) => State::Created,
        Some(ContainerStateStatusEnum::RUNNING) => State::Running,
        Some(ContainerStateStatusEnum::PAUSED) => State::Paused,
        Some(ContainerStateStatusEnum::RESTARTING) => State::Restarting,
        Some(ContainerStateStatusEnum::EXITED) => State::Exited(inspected.exit_code.unwrap_or(-1)),
        _ => State::Gone,
    }
}

/// What the list says for sure. It does not say how the container is.
fn parse(summary: ContainerSummary) -> Option<Container> {
    let labels = summary.labels.unwrap_or_default();
    let name = own_name(summary.names.as_deref()?)?;
    let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    Some(Container {
        id: ContainerId::parse(summary.id.as_deref()?).ok()?,
        name: ContainerName::parse(name).ok()?,
        service: ServiceName::parse(labels.get(labels::SERVICE)?).ok()?,
        number: labels.get(labels::NUMBER)?.parse().ok()?,
        generation: labels::generation(&labels),
        spec: labels.get(labels::SPEC).cloned().unwrap_or_default(),
        image_id: summary.image_id.unwrap_or_default(),
        state: State::Gone,
        networks: networks
            .into_iter()
            .map(|(name, endpoint)| (name, endpoint.network_id.unwrap_or_default()))
            .collect(),
        binds: summary
            .mounts
            .unwrap_or_default()
            .into_iter()
            .filter(|mount| mount.typ.as_deref() == Some("bind"))
            .filter_map(|mount| Some((mount.source?, mount.rw.unwrap_or(true))))
            .collect(),
        standing: None,
    })
}
