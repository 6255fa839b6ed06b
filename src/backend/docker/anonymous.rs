//! Anonymous volumes: they belong to a container and to what replaces it, and go with the last of them.

use std::collections::BTreeMap;

use bollard::models::ContainerInspectResponse;

use super::engine::{Engine, EngineError};
use crate::domain::{ContainerId, ObjectName};

/// The anonymous volumes of a container: name -> path.
pub(super) fn volumes_of(container: &ContainerInspectResponse) -> BTreeMap<String, String> {
    let mounts = container.mounts.as_deref().unwrap_or_default();
    mounts
        .iter()
        .filter(|mount| mount.typ.as_deref() == Some("volume"))
        .filter_map(|mount| Some((mount.name.clone()?, mount.destination.clone()?)))
        .filter(|(name, _)| is_anonymous(name))
        .collect()
}

/// The engine names them with 64 hexadecimal digits.
pub(super) fn is_anonymous(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|c| c.is_ascii_hexdigit())
}

/// The anonymous volumes that go over to the container that replaces this one: its own, and not those that it takes from
/// another container, which the replacement takes from that one's replacement, read-only or not as it says.
pub(super) async fn inherited_from(
    engine: &Engine,
    container: &ContainerInspectResponse,
) -> Result<BTreeMap<String, String>, EngineError> {
    let mut own = volumes_of(container);
    let sources = container.host_config.as_ref().and_then(|config| config.volumes_from.as_deref());
    for source in sources.unwrap_or_default() {
        let id = source.split(':').next().unwrap_or_default();
        // docker compose writes ids; a name in their place is no container of this tenant.
        let Ok(id) = ContainerId::parse(id) else { continue };
        match engine.inspect(&id).await {
            Ok(details) => {
                let theirs = volumes_of(&details);
                own.retain(|name, _| !theirs.contains_key(name));
            }
            Err(EngineError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(own)
}

/// Removes a container and those of its anonymous volumes that no other container uses. Named volumes stay.
pub(super) async fn remove_with_container(engine: &Engine, id: &ContainerId) -> Result<(), EngineError> {
    let volumes = match engine.inspect(id).await {
        Ok(details) => volumes_of(&details),
        Err(EngineError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let removed = engine.remove_container(id).await;
    if matches!(removed, Err(EngineError::Timeout)) {
        return removed;
    }
    // Even if it is not known to be gone: once it is, nothing tells of these any more. What is in use stays.
    for name in volumes.keys() {
        let Ok(name) = ObjectName::parse(name) else { continue };
        match engine.remove_volume(&name).await {
            // In use by the container that inherited it.
            Ok(()) | Err(EngineError::Conflict(_)) => {}
            Err(error) => return removed.and(Err(error)),
        }
    }
    removed
}
