//! What the engine holds, and what is left of ports and subnets for tenants.

use std::collections::HashMap;

use super::engine::{Engine, EngineError};
use super::leases::Leases;
use super::networks::SubnetPool;
use crate::backend::Holdings;

/// Three calls to the engine.
pub(super) async fn look(engine: &Engine, leases: &Leases, subnets: &SubnetPool) -> Result<Holdings, EngineError> {
    let everything = HashMap::new();
    let (images, containers, networks) =
        tokio::try_join!(engine.images(), engine.containers(&everything), engine.networks(None))?;
    let sizes = images.iter().filter_map(|image| u64::try_from(image.size).ok());
    let publish = engine.ground().publish.map(|(_, ports)| ports);
    Ok(Holdings {
        images: Some(images.len() as u64),
        image_bytes: Some(sizes.fold(0, u64::saturating_add)),
        free_ports: publish.map(|range| leases.free(containers, range)),
        free_subnets: Some(subnets.free(&networks)),
    })
}
