//! One suite of behaviours that every backend has to show. A behaviour is written once, against `&dyn Backend`; here
//! it is made a test of its own for each backend.

mod conformance;
mod support;

use q8_agent::backend::{Backend, docker::DockerBackend, docker::Subnet, memory::MemoryBackend};

use conformance::World;
use support::engine::Engine;

/// An empty pretend engine per test.
#[allow(clippy::unused_async, reason = "the other set-up has to wait")]
async fn memory() -> (Box<dyn Backend>, World) {
    let world = World::new("/opt/tenants");
    (Box::new(MemoryBackend::new(world.agent.clone(), world.key.clone())), world)
}

/// One real engine for all tests; each is an agent of its own on it.
async fn docker() -> (Box<dyn Backend>, World) {
    let engine = Engine::shared().with_busybox().await;
    let world = World::new("/opt/tenants");
    let pool = Subnet::new([10, 213, 0, 0].into(), 16);
    (Box::new(DockerBackend::new(world.agent.clone(), engine.socket().to_owned(), pool)), world)
}

conformance::conformance!(on_memory, super::memory);
conformance::conformance!(on_docker, super::docker);
