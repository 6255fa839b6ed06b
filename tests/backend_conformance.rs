//! One suite of behaviours that every backend has to show. A behaviour is written once, against `&dyn Backend`; here
//! it is made a test of its own for each backend.

#[cfg(feature = "aci")]
mod arm_double;
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

/// An empty Azure per test, which refuses and notes whatever its contract does not allow.
#[cfg(feature = "aci")]
async fn aci() -> (Box<dyn Backend>, World) {
    use arm_double::{ArmDouble, CLIENT, SECRET, SUBSCRIPTION, TENANT};
    use q8_agent::backend::aci::AciBackend;
    use q8_agent::config::{AciCredentials, AciRegion, AciSettings};

    let double = ArmDouble::start().await;
    let settings = AciSettings {
        subscription: SUBSCRIPTION.to_owned(),
        regions: vec![AciRegion {
            location: "eastus".to_owned(),
            resource_group: "rg-east".to_owned(),
            storage_account: Some("steast".to_owned()),
        }],
        api_version: "2025-09-01".to_owned(),
        arm_endpoint: double.endpoint().to_owned(),
        credentials: AciCredentials::ClientSecret {
            authority: double.authority().to_owned(),
            tenant: TENANT.to_owned(),
            client: CLIENT.to_owned(),
            secret: SECRET.into(),
        },
        prices: None,
        registry_identities: Vec::new(),
    };
    let mut world = World::new("/opt/tenants");
    let backend = AciBackend::new(world.agent.clone(), &settings, std::sync::Arc::default());
    world.grouped = true;
    world.judge = Some(Box::new(move || double.assert_clean()));
    (Box::new(backend), world)
}

conformance::conformance!(on_memory, super::memory);
conformance::conformance!(on_docker, super::docker);
#[cfg(feature = "aci")]
conformance::conformance!(on_aci, super::aci);
