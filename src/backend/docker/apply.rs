//! Making what a plan asks for, each container beside the one that it replaces, which is set aside under another name but
//! still runs. A failure before the first stop has therefore cost nothing, and after it nothing is lost: what was set aside
//! stays until `settle`. The order is the plan's (`graph`).

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{ContainerInspectResponse, EndpointSettings};

use super::convert::{self, Surroundings};
use super::engine::{Engine, EngineError};
use super::gate::{Allowance, Checked, Connection, Creation, Known};
use super::networks;
use super::observe;
use super::stack::{Made, Stack};
use super::{adoption, anonymous, gates, image_config, labels, nesting, renaming};
use crate::backend::plan::Slot;
use crate::backend::{Action, BackendError, Deployment, Plan, PlannedObject, ResolvedImages, Run, converge};
use crate::domain::{ContainerId, ContainerName};

/// Makes a network or volume.
pub(super) async fn make_object(stack: &Stack<'_>, object: &PlannedObject, action: Action) -> Result<(), BackendError> {
    let (engine, wanted) = (stack.engine, stack.wanted);
    let project = wanted.project.project();
    match object {
        PlannedObject::Network { key: Some(key), name } => {
            let Some(network) = project.networks.get(key) else { return Ok(()) };
            if action == Action::Recreate {
                free_network(stack, name).await?;
            }
            networks::ensure_network(engine, stack.pool, wanted, key, network).await.map(drop)
        }
        PlannedObject::Volume { key, .. } => {
            let Some(volume) = project.volumes.get(key) else { return Ok(()) };
            networks::ensure_volume(engine, wanted, key, volume).await.map(drop)
        }
        _ => Ok(()),
    }
}

/// Removes a network that is to be replaced. What the plan knew to be on it has stopped.
async fn free_network(stack: &Stack<'_>, name: &str) -> Result<(), BackendError> {
    let engine = stack.engine;
    let observed = stack.observed().await?;
    for container in observed.containers.iter().filter(|container| container.networks.contains_key(name)) {
        engine.disconnect(name, &container.id).await.map_err(|error| error.into_backend("leaving a network"))?;
    }
    for network in observed.networks.iter().filter(|network| network.name == name) {
        let removed = networks::remove(engine, &network.id).await;
        if let Some(kept) = removed.map_err(|error| error.into_backend("removing a network"))? {
            return Err(BackendError::Refused { message: format!("network {name} cannot be replaced: {kept}") });
        }
    }
    Ok(())
}

/// How often the making of a container is begun anew: for a name that somebody holds, for a tag that was moved.
const ATTEMPTS: usize = 4;

/// Makes a container, and sets aside the one that it replaces.
pub(super) async fn make_container(stack: &Stack<'_>, slot: Slot<'_>) -> Result<Made, BackendError> {
    let doing = "making a container";
    let (engine, wanted) = (stack.engine, stack.wanted);
    let Some(service) = wanted.service(slot.service) else {
        return Err(BackendError::NoSuchService { service: slot.service.clone() });
    };
    let mut inherited = BTreeMap::new();
    if let Some(old) = stack.existing(slot).await? {
        let details = engine.inspect(&old.id).await.map_err(|error| error.into_backend(doing))?;
        inherited = anonymous::inherited_from(engine, &details).await.map_err(|error| error.into_backend(doing))?;
        if !old.is_aside() {
            renaming::rename(engine, &old.id, &old.aside_name(), renaming::Then::Started)
                .await
                .map_err(|error| error.into_backend(doing))?;
        }
    }
    let image = stack.images.get(slot.service);
    let image_id = image.map(|image| image.id.as_str()).unwrap_or_default();
    let instead = image.map(|image| image.instead.clone()).unwrap_or_default();
    let mut reference = image.map_or(service.image.as_str(), |image| image.image.as_str());
    let api = engine.api_version().await.map_err(|error| error.into_backend(doing))?;
    let first = stack.first_containers();
    let names = stack.names();
    let ports = stack.ports.of(slot);
    let allowance = Allowance::of(wanted, engine.ground());
    let known = Known { service: slot.service, number: slot.number, containers: &first, inherited: &inherited };
    let mut name = slot.name.clone();
    for attempt in 0..ATTEMPTS {
        let around = Surroundings {
            number: slot.number,
            container_name: name.as_str(),
            image: reference,
            image_id,
            instead: &instead,
            containers: &first,
            inherited: &inherited,
            names: &names,
            ports: &ports,
            api,
        };
        let request = convert::container(wanted, slot.service, service, &around)?;
        let creation = Creation {
            name: name.clone(),
            platform: service.platform.clone(),
            image_id: image_id.to_owned(),
            body: request.body,
            mac_address: request.mac_address,
        };
        let creation = allowance.container(creation, &known)?;
        let later: Vec<_> = request.connect_later;
        let made = match engine.create(creation.clone()).await {
            Ok(id) => id,
            Err(EngineError::Conflict(_)) if attempt + 1 < ATTEMPTS => match holder(engine, wanted, slot, &name).await?
            {
                Holder::MadeAlready(id) => id,
                Holder::LeftOver(id) => {
                    engine.remove_container(&id).await.map_err(|error| error.into_backend(doing))?;
                    continue;
                }
                Holder::AnotherTenant => {
                    name = suffixed(wanted, &name);
                    continue;
                }
                Holder::Gone => continue,
                Holder::Foreign => {
                    return Err(BackendError::NameTaken { kind: "container", name: name.as_str().to_owned() });
                }
            },
            Err(EngineError::Refused { status: 400, message })
                if message.contains("bind source path does not exist") =>
            {
                tracing::warn!(%message, "a bind source is missing");
                return Err(BackendError::Unsupported {
                    field: format!("services.{}.volumes", slot.service),
                    reason: "the path to bind does not exist on the host".to_owned(),
                });
            }
            Err(EngineError::Refused { status: 400, message }) => {
                tracing::warn!(%message, "the engine refused a container");
                return Err(BackendError::Unsupported {
                    field: format!("services.{}", slot.service),
                    reason: "the engine does not accept this combination of attributes".to_owned(),
                });
            }
            Err(EngineError::NotFound(_)) => {
                return Err(BackendError::ImageNotFound {
                    service: slot.service.clone(),
                    image: reference.to_owned(),
                    hint: " on this host any more",
                });
            }
            Err(error) => return Err(error.into_backend(doing)),
        };
        connect(engine, &allowance, &made, &later).await?;
        match as_sent(engine, &allowance, (&creation, &later), &known, &made).await? {
            Sent::Stands { is_checked } => return Ok(Made { id: made, is_checked }),
            // Somebody has moved the tag since the image was looked at. The id cannot be moved.
            Sent::OfAnotherImage => reference = image_id,
        }
    }
    Err(BackendError::Refused { message: format!("container {name} could not be made") })
}

/// The networks that a container joins after its creation, because the engine takes one only.
type Later = [(String, EndpointSettings)];

/// Connects a container to them; those that it is on already are no failure.
async fn connect(
    engine: &Engine,
    allowance: &Allowance<'_>,
    id: &ContainerId,
    later: &Later,
) -> Result<(), BackendError> {
    for (network, endpoint) in later {
        let connection = Connection { network: network.clone(), container: id.clone(), endpoint: endpoint.clone() };
        match engine.connect(allowance.connection(connection)?).await {
            // "endpoint with name … already exists in network …"
            Err(EngineError::Refused { status: 403, .. }) => {}
            other => other.map_err(|error| error.into_backend("making a container"))?,
        }
    }
    Ok(())
}

/// What has become of a request.
enum Sent {
    /// The container is what was asked for.
    Stands { is_checked: bool },
    /// The container was made of another image than the one that was looked at, and is gone again.
    OfAnotherImage,
}

/// Looks at a container that was made and not started, and removes it if it is not what was asked for.
async fn as_sent(
    engine: &Engine,
    allowance: &Allowance<'_>,
    (creation, later): (&Checked<Creation>, &Later),
    known: &Known<'_>,
    id: &ContainerId,
) -> Result<Sent, BackendError> {
    if !allowance.confines() {
        return Ok(Sent::Stands { is_checked: true });
    }
    let found = engine.inspect(id).await.map_err(|error| error.into_backend("looking at a container"))?;
    let Creation { image_id, body, .. } = creation.get();
    let moved = found.image.as_ref() != Some(image_id) && body.image.as_ref() != Some(image_id);
    let later: BTreeSet<String> = later.iter().map(|(network, _)| network.clone()).collect();
    let verdict = if moved {
        Ok(Sent::OfAnotherImage)
    } else {
        allowance
            .container_is_as_sent(creation, &later, known, &found)
            .map(|()| Sent::Stands { is_checked: has_healthcheck(&found) })
    };
    if moved || verdict.is_err() {
        let removed = anonymous::remove_with_container(engine, id).await;
        removed.map_err(|error| error.into_backend("removing a container"))?;
    }
    verdict
}

fn has_healthcheck(found: &ContainerInspectResponse) -> bool {
    let check = found.config.as_ref().and_then(|config| config.healthcheck.as_ref());
    let test = check.and_then(|check| check.test.as_deref()).and_then(<[_]>::first);
    test.is_some_and(|how| how != "NONE")
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
    slot: Slot<'_>,
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
    let same_place = found_labels.get(labels::SERVICE).is_some_and(|service| service == slot.service.as_str())
        && labels::generation(&found_labels) == wanted.generation;
    let spec = wanted.service(slot.service).map(|service| wanted.service_hash(service)).unwrap_or_default();
    match found.id.as_deref().and_then(|id| ContainerId::parse(id).ok()) {
        Some(id) if same_place => {
            let same = found_labels.get(labels::SPEC) == Some(&spec);
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

/// The plan of what is there for what is wanted.
pub(super) async fn plan(
    engine: &Engine,
    wanted: &Deployment,
    images: &ResolvedImages,
    run: &Run,
) -> Result<Plan, BackendError> {
    let observing = async {
        observe::tenant(engine, &wanted.tenant).await.map_err(|error| error.into_backend("listing the tenant"))
    };
    let ((), mut observed) = tokio::try_join!(networks::check_external(engine, wanted), observing)?;
    networks::check_kept(wanted, &observed)?;
    nesting::check(wanted, &observed)?;
    let surplus = adoption::surplus(&wanted.tenant, &mut observed);
    let known = converge::Observed {
        surplus: observed.known_containers(&surplus, wanted.generation),
        ..observed.known(wanted.generation)
    };
    let mut plan = converge::plan(wanted, images, run.only.as_ref(), &known)?;
    adoption::note(&mut plan.undo, wanted, &observed, &surplus);
    let api = engine.api_version().await.map_err(|error| error.into_backend("asking for its version"))?;
    plan.warnings.extend(gates::left_out(wanted, api));
    plan.warnings.extend(images.iter().flat_map(|(name, image)| image_config::warnings(name, &image.instead)));
    plan.standing = observed.standing();
    Ok(plan)
}
