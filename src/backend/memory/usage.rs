//! What pretend containers use: numbers that follow from the pretend engine's state, so that a Main Server sees them move.

use std::collections::BTreeSet;
use std::time::Duration;

use super::container::{Container, Files};
use super::engine::State;
use crate::backend::{ContainerUsage, Holdings, Used, VolumeSize};
use crate::domain::ObjectName;

/// CPUs of the pretend machine.
pub(super) const CPUS: u64 = 4;
/// Bytes of its memory.
pub(super) const MEMORY: u64 = 8 << 30;

/// A running program keeps a CPU busy for one part in so many of its time.
const CPU_SHARE: u32 = 100;
/// Bytes of memory of a running program, files that it has written to its own root left out.
const PROGRAM: u64 = 4 << 20;

/// One container, as it is at this time.
pub(super) fn of(container: &Container, now: jiff::Timestamp) -> ContainerUsage {
    let running = container.state.is_active();
    let up = container.started_at.and_then(|start| Duration::try_from(now.duration_since(start)).ok());
    let used = if running {
        let on_network = (!container.networks.is_empty()).then_some(0);
        Used {
            at: Some(now),
            cpu: up.unwrap_or_default() / CPU_SHARE,
            throttled: Some(Duration::ZERO),
            memory: PROGRAM + bytes(&container.files),
            memory_limit: Some(MEMORY),
            pids: Some(1),
            received: on_network,
            sent: on_network,
            read: Some(0),
            written: Some(0),
        }
    } else {
        Used::default()
    };
    ContainerUsage {
        tenant: container.owner.subdomain.clone(),
        service: container.service.clone(),
        number: container.number,
        name: container.final_name.clone(),
        id: container.id.clone(),
        running,
        used,
    }
}

/// What is left is not limited here.
pub(super) fn holdings(state: &State) -> Holdings {
    let images: BTreeSet<&str> = state.containers.values().map(|container| container.image_id.as_str()).collect();
    Holdings { images: Some(images.len() as u64), image_bytes: Some(0), free_ports: None, free_subnets: None }
}

pub(super) fn volumes(state: &State) -> Vec<VolumeSize> {
    let sized = state.volumes.iter().filter_map(|(name, volume)| {
        Some(VolumeSize {
            owner: volume.owner.as_ref().map(|owner| owner.subdomain.clone()),
            name: ObjectName::parse(name).ok()?,
            bytes: bytes(&volume.files),
        })
    });
    sized.collect()
}

fn bytes(files: &Files) -> u64 {
    files.values().map(|content| content.len() as u64).sum()
}
