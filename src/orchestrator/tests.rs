//! Tenants over the in-memory backend, where a request alone does not show what went wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::domain::{DesiredState, ErrorCode, OperationId, OperationKind, TenantId};
use crate::tenant_fs::Journal;

mod operations;
mod plans;

struct House {
    orchestrator: Orchestrator,
    root: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { orchestrator: Self::open(&root, "baseline").await, root }
    }

    fn config(path: &std::path::Path) -> Config {
        Self::config_under(path, "baseline")
    }

    fn config_under(path: &std::path::Path, policy: &str) -> Config {
        let variables = [
            ("Q8_AGENT_ADMIN_TOKEN", "0f8b1c7a9d2e4f60718293a4b5c6d7e8"),
            ("Q8_AGENT_BACKEND", "memory"),
            ("Q8_AGENT_TENANTS_ROOT", path.to_str().unwrap()),
            ("Q8_AGENT_POLICY", policy),
        ];
        Config::from_env(variables.into_iter().map(|(name, value)| (name.into(), value.into()))).unwrap()
    }

    async fn open(root: &tempfile::TempDir, policy: &str) -> Orchestrator {
        let config = Self::config_under(&root.path().join("tenants"), policy);
        // One that has just ended lets go of its root when its last task has heard of it.
        for _ in 0..500 {
            match Orchestrator::open(&config, std::sync::Arc::default()).await {
                Err(StartError::TenantsRoot(crate::tenant_fs::FsError::Locked)) => {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                opened => return opened.unwrap(),
            }
        }
        panic!("the tenants root stays locked");
    }

    /// The agent ends, and another one starts under this policy.
    async fn under(self, policy: &str) -> Self {
        let Self { orchestrator, root } = self;
        orchestrator.shutdown(std::time::Duration::from_secs(30)).await;
        drop(orchestrator);
        Self { orchestrator: Self::open(&root, policy).await, root }
    }

    async fn provision(&self, compose: &str) -> Provisioned {
        self.orchestrator.provision(provision(compose)).await.unwrap()
    }

    async fn update(&self, compose: &str) -> Provisioned {
        let request = UpdateRequest { compose: Some(compose.to_owned()), ..update() };
        self.orchestrator.update(request).await.unwrap()
    }

    /// The lines of the list.
    async fn lines(&self) -> Vec<serde_json::Value> {
        let list: serde_json::Value = serde_json::from_slice(&self.orchestrator.list().await.unwrap().body).unwrap();
        list["tenants"].as_array().unwrap().clone()
    }

    /// Reference and id of the image that runs.
    async fn image(&self) -> (String, String) {
        let images = self.orchestrator.images(&acme()).await.unwrap();
        (images[0].image.clone(), images[0].id.clone())
    }
}

fn provision(compose: &str) -> ProvisionRequest {
    ProvisionRequest {
        id: TenantId::parse("1").unwrap(),
        subdomain: acme(),
        compose: compose.to_owned(),
        env: String::new(),
        files: BTreeMap::new(),
        profiles: BTreeSet::new(),
        placement: None,
        fallback: false,
        registry_auth: Vec::new(),
        limits: crate::domain::Limits::default(),
        adopt: false,
        expect_plan: None,
    }
}

fn update() -> UpdateRequest {
    UpdateRequest {
        subdomain: acme(),
        compose: None,
        env: None,
        files: BTreeMap::new(),
        profiles: None,
        services: BTreeSet::new(),
        limits: None,
        pull: false,
        registry_auth: Vec::new(),
        expect_plan: None,
    }
}

fn acme() -> Subdomain {
    Subdomain::parse("acme").unwrap()
}

fn web(image: &str, command: u32) -> String {
    format!("services: {{web: {{image: '{image}', command: [sleep, '{command}']}}}}")
}

#[tokio::test]
async fn a_pin_does_not_outlive_its_reference() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    let first = house.image().await;
    house.update(&web("x:1", 2000)).await;
    house.orchestrator.rollback(&acme(), None).await.unwrap();
    house.update(&web("x:1", 3000)).await;
    assert_eq!(house.image().await.1, first.1, "the same reference stays what the rollback made it");
    house.update(&web("x:2", 3000)).await;
    let second = house.image().await;
    assert_eq!(second.0, "x:2");
    assert_ne!(second.1, first.1, "another reference is another image");
}

#[tokio::test]
async fn a_panic_about_one_tenant_hides_nobody() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    assert!(house.orchestrator.with(&acme(), |_| panic!("a test asked for this")));
    let before = house.lines().await;
    assert_eq!((before.len(), &before[0]["state"]), (1, &"running".into()));
    let status = house.orchestrator.status(&acme()).await.unwrap();
    assert_eq!(status.services.len(), 1, "it was looked at anew: {status:?}");
}

#[tokio::test]
async fn what_is_in_doubt_is_looked_at_although_nobody_asks() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    let is_doubted = || house.orchestrator.inner.mirror.tenants.get(&acme()).unwrap().doubted;
    assert!(!is_doubted());
    assert!(house.orchestrator.with(&acme(), |_| panic!("a test asked for this")));
    for _ in 0..1000 {
        if !is_doubted() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it stays in doubt");
}

#[tokio::test]
async fn a_clock_that_is_set_back_hides_nothing() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    let record = house.orchestrator.record(&acme()).await.unwrap().unwrap();
    let earlier = record.updated_at.checked_sub(jiff::SignedDuration::from_hours(1)).unwrap();
    let stopped = Record { desired: DesiredState::Stopped, updated_at: earlier, ..record.clone() };
    house.orchestrator.commit(&stopped, OperationKind::Stop).await.unwrap();
    assert_eq!(house.orchestrator.status(&acme()).await.unwrap().desired, DesiredState::Stopped);
    // What somebody else has read meanwhile is not newer than what whoever works on the tenant has written.
    house.orchestrator.found_on_record(&record);
    assert_eq!(house.orchestrator.status(&acme()).await.unwrap().desired, DesiredState::Stopped);
}

#[tokio::test]
async fn a_restarted_tenant_is_meant_to_run() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    house.orchestrator.stop(&acme(), None).await.unwrap();
    assert_eq!(house.orchestrator.status(&acme()).await.unwrap().desired, DesiredState::Stopped);
    house.orchestrator.restart(&acme(), None).await.unwrap();
    let status = house.orchestrator.status(&acme()).await.unwrap();
    assert_eq!(status.desired, DesiredState::Running);
    assert_eq!(status.services[0].containers[0].state, "running");
}

#[tokio::test]
async fn an_identical_provision_tells_the_services_even_when_nothing_is_remembered() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    house.orchestrator.inner.loaded.clear();
    let again = house.provision(&web("x:1", 1000)).await;
    assert!(!again.changed);
    assert_eq!(again.services.len(), 1);
}

#[tokio::test]
async fn a_repeat_stores_a_damaged_specification_again_and_changes_nothing_else() {
    let house = House::new().await;
    let first = house.provision(&web("x:1", 1000)).await;
    let stored = house.root.path().join("tenants/acme/.agent/generations/1.json");
    let good = std::fs::read(&stored).unwrap();
    for damage in [Some("damaged"), None] {
        match damage {
            Some(text) => std::fs::write(&stored, text).unwrap(),
            None => std::fs::remove_file(&stored).unwrap(),
        }
        // As an agent finds it that has just started.
        let record = house.orchestrator.live_record(&acme()).await.unwrap();
        house.orchestrator.in_stock(&record);
        house.orchestrator.inner.loaded.clear();
        let line = &house.lines().await[0];
        assert_eq!(line["state"], "failed", "{line}");
        assert_eq!(line["reasons"][0], "its specification cannot be read");
        assert_eq!(house.orchestrator.readiness().await.degraded, ["tenant:acme"]);
        assert!(house.orchestrator.restart(&acme(), None).await.is_err());

        let again = house.provision(&web("x:1", 1000)).await;
        assert_eq!((again.changed, again.generation), (false, Generation(1)));
        assert!(again.warnings.iter().any(|warning| warning.contains("written anew")), "{again:?}");
        assert_eq!(again.services[0].containers[0].id, first.services[0].containers[0].id);
        assert_eq!(std::fs::read(&stored).unwrap(), good);
        assert_eq!(house.lines().await[0]["state"], "running");
        assert!(house.orchestrator.readiness().await.degraded.is_empty());
        assert_eq!(house.provision(&web("x:1", 1000)).await.warnings, first.warnings);
    }
    house.orchestrator.restart(&acme(), None).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_finished_can_be_torn_down() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    let journal = Journal {
        operation: OperationId::new(),
        kind: OperationKind::Update,
        target: Some(Generation(2)),
        service: None,
        undo: serde_json::Value::Null,
        purge: false,
        started_at: jiff::Timestamp::now(),
    };
    house.orchestrator.disk(move |fs| fs.begin(&acme(), &journal)).await.unwrap();
    let stored = house.root.path().join("tenants/acme/.agent/generations/1.json");
    std::fs::write(&stored, "damaged").unwrap();
    house.orchestrator.inner.loaded.clear();
    assert!(house.orchestrator.stop(&acme(), None).await.is_err(), "it cannot be finished");
    assert!(house.orchestrator.teardown(&acme(), true).await.unwrap().changed);
    assert!(matches!(house.orchestrator.status(&acme()).await, Err(Error::NoSuchTenant(_))));
    assert!(!house.root.path().join("tenants/acme").exists());
}

#[tokio::test]
async fn a_stopped_tenant_is_started_as_a_whole() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    house.orchestrator.stop(&acme(), None).await.unwrap();
    let web = crate::domain::ServiceName::parse("web").unwrap();
    let absent = crate::domain::ServiceName::parse("absent").unwrap();
    let before = house.orchestrator.status(&acme()).await.unwrap();
    for refused in [
        house.orchestrator.start(&acme(), Some(web.clone())).await,
        house.orchestrator.restart(&acme(), Some(web.clone())).await,
    ] {
        let error = refused.unwrap_err();
        assert_eq!((error.code(), error.field().as_deref()), (ErrorCode::UnsupportedOnBackend, Some("service")));
    }
    assert!(matches!(house.orchestrator.start(&acme(), Some(absent)).await, Err(Error::NoSuchService { .. })));
    house.orchestrator.stop(&acme(), Some(web.clone())).await.unwrap();
    let after = house.orchestrator.status(&acme()).await.unwrap();
    // An exit's own event may come later than the state it has led to.
    let services = |status: TenantStatus| {
        let mut services = status.services;
        for container in services.iter_mut().flat_map(|service| &mut service.containers) {
            container.last_exits.clear();
        }
        services
    };
    assert_eq!(services(after), services(before), "nothing of it runs");
    house.orchestrator.start(&acme(), None).await.unwrap();
    house.orchestrator.restart(&acme(), Some(web)).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_failed_is_undone_only_if_the_record_does_not_say_otherwise() {
    let house = House::new().await;
    house.provision(&web("x:1", 1000)).await;
    let record = house.orchestrator.record(&acme()).await.unwrap().unwrap();
    let next = Record { generation: record.generation.next(), ..record.clone() };
    let last = Record { generation: next.generation.next(), ..record };
    house.orchestrator.commit_generation(&next).await.unwrap();
    // From here on nothing can be written.
    std::fs::remove_dir_all(house.root.path().join("tenants/.agent/staging")).unwrap();
    let in_place = house.orchestrator.commit_generation(&next).await.unwrap_err();
    assert!(in_place.may_stand, "{:?}", in_place.error);
    let not_in_place = house.orchestrator.commit_generation(&last).await.unwrap_err();
    assert!(!not_in_place.may_stand, "{:?}", not_in_place.error);
}

#[tokio::test]
async fn what_todays_policy_refuses_is_not_started_again() {
    let privileged = "services: {web: {image: x, privileged: true}}";
    let house = House::new().await.under("trusted").await;
    house.provision(privileged).await;
    house.orchestrator.stop(&acme(), None).await.unwrap();
    let house = house.under("baseline").await;
    let refusals = [
        house.orchestrator.start(&acme(), None).await.unwrap_err(),
        house.orchestrator.restart(&acme(), None).await.unwrap_err(),
    ];
    for refused in refusals {
        assert_eq!(
            (refused.code(), refused.field().as_deref()),
            (ErrorCode::PolicyDenied, Some("services.web.privileged"))
        );
        assert!(refused.location().is_some(), "it says where");
    }
    // It can be stopped, and started once it is what the policy accepts; or by a policy that accepts it.
    house.orchestrator.stop(&acme(), None).await.unwrap();
    house.update("services: {web: {image: x}}").await;
    house.orchestrator.start(&acme(), None).await.unwrap();
}

/// The host's own registry credentials serve the tenants that the policy lends them to, and nobody's instead of their own.
#[tokio::test]
async fn the_policy_says_who_pulls_with_the_hosts_credentials() {
    let root = tempfile::tempdir().unwrap();
    let policy = root.path().join("policy.toml");
    std::fs::write(&policy, "host_credentials = false\n[tenants.acme]\nhost_credentials = true\n").unwrap();
    let mut config = House::config_under(&root.path().join("tenants"), policy.to_str().unwrap());
    let auth = |user: &str, registry: &str| RegistryAuth {
        registry: registry.to_owned(),
        username: user.to_owned(),
        password: String::from("canary").into(),
    };
    config.registry = Some(auth("host", "registry.example"));
    let orchestrator = Orchestrator::open(&config, std::sync::Arc::default()).await.unwrap();
    let users = |tenant: &str, asked: Vec<RegistryAuth>| {
        let tenant = Subdomain::parse(tenant).unwrap();
        orchestrator.credentials(&tenant, asked).into_iter().map(|auth| auth.username).collect::<Vec<_>>()
    };
    assert_eq!(users("acme", Vec::new()), ["host"]);
    assert_eq!(users("acme", vec![auth("own", "registry.example")]), ["own"]);
    assert_eq!(users("other", Vec::new()), [""; 0]);
    assert_eq!(users("other", vec![auth("own", "registry.example")]), ["own"]);
}
