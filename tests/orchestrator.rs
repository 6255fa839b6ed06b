//! The orchestrator's promises on the in-memory backend: generations, identity, recovery, one mutation at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use q8_agent::backend::memory::{Fault, MemoryBackend};
use q8_agent::backend::{Backend, HostKey};
use q8_agent::config::Config;
use q8_agent::domain::{
    BackendName, DesiredState, ErrorCode, FileContent, Generation, OperationKind, OperationState, Placement,
    ProjectPath, ServiceName, Subdomain, TenantId, TenantState,
};
use q8_agent::orchestrator::{EngineState, Error, Orchestrator, ProvisionRequest, Provisioned, Reason, UpdateRequest};
use q8_agent::tenant_fs::TenantFs;

/// One host: a tenants root, a pretend engine that outlives the agent, and the agent on them.
struct Host {
    root: tempfile::TempDir,
    backend: Arc<MemoryBackend>,
    agent: Orchestrator,
}

impl Host {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let fs = TenantFs::open(root.path()).expect("the root is usable");
        Self::on(root, fs, settings).await
    }

    /// An agent on a root, with a new engine.
    async fn on(root: tempfile::TempDir, fs: TenantFs, settings: &[(&str, &str)]) -> Self {
        let backend = Arc::new(MemoryBackend::new(fs.agent_id().clone(), HostKey::new(fs.host_key())));
        let agent = Orchestrator::with_backend(&config(root.path(), settings), fs, backend.clone(), Arc::default());
        agent.take_stock().await.expect("it takes stock");
        Self { root, backend, agent }
    }

    /// Ends the agent and the engine. What of the agent still works on the disk is waited for.
    async fn end(self) -> (tempfile::TempDir, TenantFs) {
        let Self { root, backend, agent } = self;
        agent.shutdown(Duration::from_secs(5)).await;
        drop((agent, backend));
        let fs = until("the old agent lets go of the root", async || TenantFs::open(root.path()).ok()).await;
        (root, fs)
    }

    fn file(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.path().join("acme").join(path)).ok()
    }

    /// Every container: name, id, whether it runs.
    fn containers(&self) -> Vec<(String, String, bool)> {
        let mut all: Vec<_> = self
            .backend
            .engine()
            .containers()
            .into_iter()
            .map(|container| {
                let running = container.state == "running";
                (container.name.clone(), container.id.to_string(), running)
            })
            .collect();
        all.sort();
        all
    }

    /// Waits until nothing is degraded any more.
    async fn recovered(&self) {
        until("nothing is degraded", async || {
            let readiness = self.agent.readiness().await;
            (readiness.ready && readiness.degraded.is_empty()).then_some(())
        })
        .await;
    }
}

/// Repeats until there is a value; 30 seconds at most.
async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn config(root: &Path, settings: &[(&str, &str)]) -> Config {
    let own = [
        ("Q8_AGENT_ADMIN_TOKEN", "9f2c1d7e5b8a4c3f6e0d9b8a7c6f5e4d"),
        ("Q8_AGENT_BACKEND", "memory"),
        ("Q8_AGENT_BUSY_WAIT", "50ms"),
        ("Q8_AGENT_TENANTS_ROOT", root.to_str().expect("a plain path")),
    ];
    let all = own.iter().chain(settings).map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let unique: BTreeMap<OsString, OsString> = all.collect();
    Config::from_env(unique.into_iter()).expect("the settings are valid")
}

fn acme() -> Subdomain {
    Subdomain::parse("acme").expect("a subdomain")
}

/// A database, and a web service that waits for its health and mounts a file.
fn stack(version: u32) -> String {
    format!(
        "services:
  db:
    image: q8test/busybox:1
    command: [sleep, infinity]
    healthcheck: {{test: [CMD, 'true'], interval: 500ms}}
    volumes: ['store:/data']
  web:
    image: q8test/busybox:1
    command: [sleep, infinity]
    environment: {{VERSION: '{version}'}}
    volumes: ['./site:/site:ro']
    depends_on: {{db: {{condition: service_healthy}}}}
volumes: {{store: }}
"
    )
}

fn files(version: u32) -> BTreeMap<ProjectPath, FileContent> {
    let content = FileContent { bytes: format!("version {version}").into_bytes(), mode: 0o644 };
    BTreeMap::from([(ProjectPath::parse("site/index.html").expect("a path"), content)])
}

fn provision(version: u32) -> ProvisionRequest {
    ProvisionRequest {
        id: TenantId::parse("t-1").expect("an id"),
        subdomain: acme(),
        compose: stack(version),
        env: String::new(),
        files: files(version),
        profiles: BTreeSet::new(),
        placement: None,
        fallback: false,
        registry_auth: Vec::new(),
        limits: q8_agent::domain::Limits::default(),
        adopt: false,
        expect_plan: None,
    }
}

fn update(compose: Option<String>) -> UpdateRequest {
    UpdateRequest {
        subdomain: acme(),
        compose,
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

fn code(result: Result<Provisioned, Error>) -> ErrorCode {
    result.expect_err("it must be refused").code()
}

#[tokio::test]
async fn an_identical_provision_changes_nothing() {
    let host = Host::new().await;
    let first = host.agent.provision(provision(1)).await.expect("it comes up");
    assert!(first.changed && first.created);
    let before = host.containers();
    let again = host.agent.provision(provision(1)).await.expect("it is up");
    assert!(!again.changed && !again.created);
    assert_eq!((again.generation, host.containers()), (first.generation, before));
}

#[tokio::test]
async fn a_failed_update_leaves_the_generation_its_files_and_containers() {
    let host = Host::new().await;
    host.agent.provision(provision(1)).await.expect("it comes up");
    let before = host.containers();
    let broken = stack(2).replace("command: [sleep, infinity]\n    environment", "command: ['false']\n    environment");
    let request =
        UpdateRequest { files: files(2).into_iter().map(|(p, c)| (p, Some(c))).collect(), ..update(Some(broken)) };
    assert_eq!(code(host.agent.update(request).await), ErrorCode::ServiceExited);
    assert_eq!(host.containers(), before);
    assert_eq!(host.file("site/index.html").as_deref(), Some("version 1"));
    assert_eq!(host.file("compose.yaml"), Some(stack(1)));
    let status = host.agent.status(&acme()).await.expect("a status");
    assert_eq!((status.generation, status.state), (Generation(1), TenantState::Running));
    assert_eq!(status.last_error.expect("it is noted").code, ErrorCode::ServiceExited);
    let good = host.agent.update(update(Some(stack(3)))).await.expect("a good one follows");
    assert_eq!(good.generation, Generation(2));
    assert!(host.agent.status(&acme()).await.expect("a status").last_error.is_none());
}

/// Whatever step of the engine fails, and whether or not the work was done: one generation or the other, and a repeat
/// ends in the wanted one.
#[tokio::test]
async fn a_fault_at_any_step_of_an_update_leaves_one_generation() {
    for fault in [Fault::Create, Fault::Start, Fault::AnswerLost, Fault::ChangePanics] {
        for step in 0.. {
            let host = Host::new().await;
            host.agent.provision(provision(1)).await.expect("it comes up");
            let before = host.containers();
            host.backend.engine().fail_after(step, fault);
            let request = UpdateRequest {
                files: files(2).into_iter().map(|(p, c)| (p, Some(c))).collect(),
                ..update(Some(stack(2)))
            };
            let result = host.agent.update(request.clone()).await;
            host.recovered().await;
            let status = host.agent.status(&acme()).await.expect("a status");
            // What panics after its commit has done it all the same, and cannot say so.
            let unsaid = fault == Fault::ChangePanics && status.generation == Generation(2);
            let (generation, version) = if result.is_ok() || unsaid { (2, 2) } else { (1, 1) };
            assert_eq!(status.generation, Generation(generation), "{fault:?} at step {step}: {result:?}");
            assert_eq!(status.state, TenantState::Running, "{fault:?} at step {step}");
            assert_eq!(host.file("site/index.html"), Some(format!("version {version}")), "{fault:?} at step {step}");
            if version == 1 {
                assert_eq!(host.containers(), before, "{fault:?} at step {step}");
            }
            let unused = host.backend.engine().forget_faults();
            let repeated = host.agent.update(request).await.expect("a repeat converges");
            assert_eq!((repeated.generation, repeated.changed), (Generation(2), version == 1));
            assert_eq!(host.containers().len(), 2);
            if unused > 0 {
                assert!(step > 0, "{fault:?} never struck");
                break;
            }
        }
    }
}

/// A bug in what concerns one tenant ends one operation or one look; nobody has to restart the agent for it.
#[tokio::test]
async fn a_panic_ends_what_it_happens_in_and_nothing_else() {
    let host = Host::new().await;
    let engine = host.backend.engine();
    host.agent.provision(provision(1)).await.expect("it comes up");
    let before = host.containers();

    engine.fail_after(1, Fault::ChangePanics);
    // The first recovery, too.
    engine.fail_next(Fault::ChangePanics);
    assert_eq!(code(host.agent.update(update(Some(stack(2)))).await), ErrorCode::Internal);
    let ended = host.agent.operations(Some(&acme()), 10);
    assert_eq!((ended[0].operation.kind, ended[0].state), (OperationKind::Update, OperationState::Failed));
    host.recovered().await;
    assert_eq!((engine.forget_faults(), host.containers()), (0, before));

    // Neither do those that only look stay away.
    for _ in 0..2 {
        engine.fail_next(Fault::WatchPanics);
        until("it panics", async || (!engine.has_faults()).then_some(())).await;
    }
    let web = q8_agent::domain::ContainerId::parse(&host.containers()[1].1).expect("an id");
    engine.kill(&web);
    until("web's end is seen", async || {
        let status = host.agent.status(&acme()).await.ok()?;
        (status.state == TenantState::Degraded).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_failed_first_provision_leaves_nothing() {
    let host = Host::new().await;
    let broken = ProvisionRequest { compose: stack(1).replace("[CMD, 'true']", "[CMD, 'false']"), ..provision(1) };
    assert_eq!(code(host.agent.provision(broken).await), ErrorCode::ServiceUnhealthy);
    let engine = host.backend.engine();
    assert!(engine.containers().is_empty() && engine.networks().is_empty() && engine.volumes().is_empty());
    assert!(!host.root.path().join("acme").exists());
    assert!(matches!(host.agent.status(&acme()).await, Err(Error::NoSuchTenant(_))));
    host.agent.provision(provision(1)).await.expect("a good one follows");
}

#[tokio::test]
async fn a_rollback_brings_back_content_and_images() {
    let host = Host::new().await;
    host.agent.provision(provision(1)).await.expect("it comes up");
    let image = host.agent.images(&acme()).await.expect("images")[1].id.clone();
    host.backend.engine().move_tag("q8test/busybox:1");
    let newer = UpdateRequest { pull: true, ..update(Some(stack(2))) };
    host.agent.update(newer).await.expect("it is updated");
    assert_ne!(host.agent.images(&acme()).await.expect("images")[1].id, image);

    let wrong = host.agent.rollback(&acme(), Some(Generation(1))).await;
    assert_eq!(code(wrong), ErrorCode::GenerationMismatch);
    let back = host.agent.rollback(&acme(), Some(Generation(2))).await.expect("it goes back");
    assert_eq!((back.generation, back.status), (Generation(3), "rolled_back"));
    assert_eq!(host.file("compose.yaml"), Some(stack(1)));
    assert_eq!(host.agent.images(&acme()).await.expect("images")[1].id, image);
    assert_eq!(code(host.agent.rollback(&acme(), Some(Generation(2))).await), ErrorCode::GenerationMismatch);
}

#[tokio::test]
async fn a_freed_name_keeps_its_owner_until_it_is_purged() {
    let host = Host::new().await;
    host.agent.provision(provision(1)).await.expect("it comes up");
    let torn = host.agent.teardown(&acme(), false).await.expect("it goes");
    assert_eq!((torn.changed, torn.kept.volumes.len()), (true, 1));
    assert!(torn.kept.archive.is_some() && host.file("compose.yaml").is_none());
    assert!(!host.agent.teardown(&acme(), false).await.expect("it has gone").changed);
    assert_eq!(host.agent.status(&acme()).await.expect("it is remembered").state, TenantState::Kept);

    let other = || ProvisionRequest { id: TenantId::parse("t-2").expect("an id"), ..provision(1) };
    assert_eq!(code(host.agent.provision(other()).await), ErrorCode::IdMismatch);
    let back = host.agent.provision(provision(1)).await.expect("the same identity may return");
    assert_eq!((back.created, back.generation), (true, Generation(2)));
    assert_eq!(host.backend.engine().volumes(), ["q8-acme_store"]);

    host.agent.teardown(&acme(), true).await.expect("it goes");
    assert!(host.backend.engine().volumes().is_empty());
    assert!(!host.agent.teardown(&acme(), true).await.expect("it has gone").changed);
    host.agent.provision(other()).await.expect("the name is free");
}

#[tokio::test]
async fn a_second_operation_is_told_of_the_first() {
    let host = Host::new().await;
    let slow = ProvisionRequest { compose: stack(1).replace("interval: 500ms", "interval: 1s"), ..provision(1) };
    let first = tokio::spawn({
        let agent = host.agent.clone();
        async move { agent.provision(slow).await }
    });
    let running = until("the operation shows", async || host.agent.status(&acme()).await.ok()?.operation).await;
    match host.agent.stop(&acme(), None).await {
        Err(Error::Busy(Some(told))) => assert_eq!(told.id, running.id),
        other => panic!("expected TENANT_BUSY, got {other:?}"),
    }
    first.await.expect("no panic").expect("it comes up all the same");
}

#[tokio::test]
async fn an_abandoned_request_is_carried_out_once() {
    let host = Host::new().await;
    let waiting = tokio::spawn({
        let agent = host.agent.clone();
        async move { agent.provision(provision(1)).await }
    });
    until("it has begun", async || host.agent.status(&acme()).await.ok()).await;
    waiting.abort();
    let ended = async || host.agent.status(&acme()).await.ok().filter(|status| status.operation.is_none());
    let status = until("it has ended", ended).await;
    assert_eq!((status.state, status.generation), (TenantState::Running, Generation(1)));
    assert!(!host.agent.provision(provision(1)).await.expect("it is up").changed);
}

#[tokio::test]
async fn a_stopped_tenant_stays_stopped() {
    let host = Host::new().await;
    host.agent.provision(provision(1)).await.expect("it comes up");
    host.agent.stop(&acme(), None).await.expect("it stops");
    let updated = host.agent.update(update(Some(stack(2)))).await.expect("it is updated");
    assert_eq!(updated.generation, Generation(2));
    let status = host.agent.status(&acme()).await.expect("a status");
    assert_eq!((status.desired, status.state), (DesiredState::Stopped, TenantState::Stopped));
    assert!(host.containers().iter().all(|(_, _, running)| !running));
    assert!(!host.agent.provision(provision(2)).await.expect("nothing to do").services.is_empty());
    assert!(host.containers().iter().all(|(_, _, running)| !running));
    host.agent.start(&acme(), None).await.expect("it starts");
    assert_eq!(host.agent.status(&acme()).await.expect("a status").state, TenantState::Running);
}

#[tokio::test]
async fn what_a_backend_forgets_is_applied_again_at_start() {
    let host = Host::new().await;
    host.agent.provision(provision(1)).await.expect("it comes up");
    let (root, fs) = host.end().await;
    let host = Host::on(root, fs, &[]).await;
    let running = || host.containers().iter().filter(|(_, _, running)| *running).count();
    until("the tenant comes back", async || (running() == 2).then_some(())).await;
}

#[tokio::test]
async fn what_was_archived_too_long_ago_is_gone_after_a_start() {
    let host = Host::new().await;
    host.agent.provision(provision(1)).await.expect("it comes up");
    let torn_down = host.agent.teardown(&acme(), false).await.expect("it goes");
    let young = torn_down.kept.archive.expect("its files are archived");
    let (root, fs) = host.end().await;
    let archived = |hours: i64| {
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours);
        let name = format!("acme-{}", at.strftime("%Y%m%dT%H%M%SZ"));
        let place = root.path().join(".archive").join(&name);
        std::fs::create_dir(&place).expect("an archive");
        std::fs::write(place.join("compose.yaml"), stack(1)).expect("a file in it");
        (name, place)
    };
    let ((old, old_place), (younger, _)) = (archived(49), archived(47));
    let mut all = vec![old, younger.clone(), young.clone()];
    all.sort();
    let names = |fs: &TenantFs| -> Vec<String> {
        fs.archives_of(|_| true).expect("archives are listed").into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(&fs), all);
    let host = Host::on(root, fs, &[("Q8_AGENT_ARCHIVE_RETENTION", "48h")]).await;
    until("the old one is gone", async || (!old_place.exists()).then_some(())).await;
    // A sweep that goes on holds the root.
    let (_root, fs) = host.end().await;
    assert_eq!(names(&fs), [younger, young]);
}

#[tokio::test]
async fn an_engine_that_went_away_is_waited_for() {
    let host = Host::new().await;
    host.agent.provision(provision(1)).await.expect("it comes up");
    host.backend.engine().set_available(false);
    assert_eq!(code(host.agent.update(update(Some(stack(2)))).await), ErrorCode::BackendUnavailable);
    assert!(!host.agent.readiness().await.ready);
    host.backend.engine().set_available(true);
    host.recovered().await;
    let status = host.agent.status(&acme()).await.expect("a status");
    assert_eq!((status.state, status.generation), (TenantState::Running, Generation(1)));
    host.agent.update(update(Some(stack(2)))).await.expect("a repeat converges");
}

#[tokio::test]
async fn requests_that_cannot_be_are_refused_before_anything_happens() {
    let host = Host::with(&[("Q8_AGENT_MAX_TENANTS", "1")]).await;
    let place = |backend, region: Option<&str>| ProvisionRequest {
        placement: Some(Placement { backend, region: region.map(str::to_owned) }),
        ..provision(1)
    };
    assert_eq!(code(host.agent.provision(place(BackendName::Aci, None)).await), ErrorCode::BackendNotConfigured);
    assert_eq!(
        code(host.agent.provision(place(BackendName::Memory, Some("x"))).await),
        ErrorCode::UnsupportedOnBackend
    );
    let adopting = ProvisionRequest { adopt: true, ..provision(1) };
    assert_eq!(code(host.agent.provision(adopting).await), ErrorCode::UnsupportedOnBackend);
    let privileged = stack(1).replace("  web:\n", "  web:\n    privileged: true\n    pid: host\n");
    match host.agent.provision(ProvisionRequest { compose: privileged, ..provision(1) }).await {
        Err(Error::Policy(refusals)) => {
            let fields: Vec<_> =
                refusals.iter().map(|refused| (refused.refusal.field.as_str(), refused.line)).collect();
            assert!(fields.contains(&("services.web.privileged", Some(8))), "{fields:?}");
            assert!(fields.contains(&("services.web.pid", Some(9))), "{fields:?}");
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    let bad = ProvisionRequest { compose: String::from("services: ["), ..provision(1) };
    assert_eq!(code(host.agent.provision(bad).await), ErrorCode::ComposeInvalid);
    assert!(!host.root.path().join("acme").exists() && host.containers().is_empty());

    host.agent.provision(provision(1)).await.expect("there is room for one");
    let second = ProvisionRequest { subdomain: Subdomain::parse("other").expect("a subdomain"), ..provision(1) };
    assert_eq!(code(host.agent.provision(second).await), ErrorCode::HostFull);
    assert_eq!(code(host.agent.provision(place(BackendName::Aci, None)).await), ErrorCode::PlacementChange);
    let unknown = BTreeSet::from([q8_agent::domain::ServiceName::parse("nope").expect("a name")]);
    let update = UpdateRequest { services: unknown, ..update(None) };
    assert_eq!(code(host.agent.update(update).await), ErrorCode::NotFound);
}

#[tokio::test]
async fn the_backend_behind_is_named() {
    let host = Host::new().await;
    let info = host.agent.info().await;
    assert_eq!((info.backend, info.tenants, info.capabilities), (BackendName::Memory, 0, host.backend.capabilities()));
    assert!(info.host.is_some());
}

#[tokio::test]
async fn an_engine_that_is_away_is_a_reason_and_no_lie() {
    let host = Host::new().await;
    host.agent.provision(provision(1)).await.expect("it comes up");
    let up = host.agent.system_stats().await;
    assert_eq!((up.stats.engine.state, up.stats.tenants.running), (EngineState::Up, 1));
    host.backend.engine().set_available(false);
    let away = until("the engine is away", async || {
        let found = host.agent.system_stats().await;
        (found.stats.engine.state == EngineState::Away).then_some(found)
    })
    .await;
    assert!(!away.stats.schedulable && away.stats.reasons.contains(&Reason::EngineAway), "{:?}", away.stats.reasons);
    // What was learnt stays, with its age; what the host itself tells goes on.
    assert_eq!(away.stats.engine.version, up.stats.engine.version);
    assert!(away.stats.engine.age_ms.is_some() && away.stats.memory.used_bytes.is_some());
    assert_eq!(away.stats.tenants.running, 1);
    assert_eq!(
        host.agent.tenant_stats(&acme()).await.expect_err("nobody can tell").code(),
        ErrorCode::BackendUnavailable
    );
    let text = host.agent.metrics_text().await;
    assert!(text.contains("q8_agent_engine_up 0.0\n") && text.contains("q8_agent_tenants_max "), "{text}");
    host.backend.engine().set_available(true);
    until("the engine is back", async || {
        let found = host.agent.system_stats().await;
        (found.stats.engine.state == EngineState::Up && !found.stats.reasons.contains(&Reason::EngineAway))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_is_placed_on_an_agent_that_does_not_know_its_tenants_yet() {
    let root = tempfile::tempdir().expect("a directory");
    let fs = TenantFs::open(root.path()).expect("the root is usable");
    let backend = Arc::new(MemoryBackend::new(fs.agent_id().clone(), HostKey::new(fs.host_key())));
    let agent = Orchestrator::with_backend(&config(root.path(), &[]), fs, backend, Arc::default());
    assert!(agent.system_stats().await.stats.reasons.contains(&Reason::InventoryNotDone));
    agent.take_stock().await.expect("it takes stock");
    assert!(!agent.system_stats().await.stats.reasons.contains(&Reason::InventoryNotDone), "at once");
}

#[tokio::test]
async fn a_status_is_the_truth_or_says_that_there_is_none() {
    let host = Host::new().await;
    host.agent.provision(provision(1)).await.expect("it comes up");
    let text = async || host.agent.status_text(&acme(), false).await.expect("a status");
    let (first, again) = (text().await, text().await);
    assert_eq!(first.tag, again.tag, "nothing has changed");
    assert_eq!(host.agent.status_text(&acme(), true).await.expect("a fresh one").tag, first.tag);
    let read: serde_json::Value = serde_json::from_slice(&first.body).expect("JSON");
    assert_eq!((&read["state"], read["age_ms"].is_u64()), (&serde_json::json!("running"), true));

    // What happens by itself shows by itself.
    let web = host.containers()[1].1.clone();
    host.backend.engine().kill(&q8_agent::domain::ContainerId::parse(&web).expect("an id"));
    let status = async || Some(host.agent.status(&acme()).await.expect("a status"));
    let degraded =
        until("web has ended", async || status().await.filter(|status| status.state == TenantState::Degraded)).await;
    assert_eq!(degraded.reasons, ["service web: exited with code 137"]);
    assert_eq!(degraded.services[1].containers[0].last_exits.len(), 1);
    assert_ne!(text().await.tag, first.tag);
    let list: serde_json::Value = serde_json::from_slice(&host.agent.list().await.expect("a list").body).expect("JSON");
    assert_eq!((&list["tenants"][0]["state"], list["age_ms"].is_u64()), (&serde_json::json!("degraded"), true));

    host.backend.engine().set_available(false);
    let away = async || host.agent.status(&acme()).await.err().map(|error| error.code());
    assert_eq!(until("it is noticed", away).await, ErrorCode::BackendUnavailable);
    for error in [
        host.agent.list().await.err(),
        host.agent.status_text(&acme(), false).await.err(),
        host.agent.status_text(&acme(), true).await.err(),
    ] {
        assert_eq!(error.expect("nobody knows").code(), ErrorCode::BackendUnavailable);
    }
    assert!(matches!(
        host.agent.status(&Subdomain::parse("nobody").expect("a name")).await,
        Err(Error::NoSuchTenant(_))
    ));
    host.backend.engine().set_available(true);
    let back = host.agent.status(&acme()).await.expect("whoever asks first brings it back");
    assert_eq!((back.state, back.services), (degraded.state, degraded.services));
}

#[tokio::test]
async fn what_an_operation_did_is_seen_when_it_has_answered() {
    let host = Host::new().await;
    for round in 1..=5 {
        let made = host.agent.provision(provision(round)).await.expect("it comes up");
        let status = host.agent.status(&acme()).await.expect("a status");
        assert_eq!((status.generation, status.state), (made.generation, TenantState::Running));
        assert_eq!(status.services, made.services);
        assert!(status.operation.is_none());
        host.agent.stop(&acme(), None).await.expect("it stops");
        let status = host.agent.status(&acme()).await.expect("a status");
        assert_eq!((status.desired, status.state), (DesiredState::Stopped, TenantState::Stopped));
        assert!(status.services.iter().all(|service| service.containers[0].state == "exited"), "{status:?}");
        host.agent.start(&acme(), None).await.expect("it starts");
        assert_eq!(host.agent.status(&acme()).await.expect("a status").state, TenantState::Running);
        host.agent.teardown(&acme(), round % 2 == 0).await.expect("it goes");
        match host.agent.status(&acme()).await {
            Ok(status) => assert_eq!((status.state, status.services.len(), round % 2), (TenantState::Kept, 0, 1)),
            Err(error) => assert!(matches!(error, Error::NoSuchTenant(_)) && round % 2 == 0, "{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_service_says_what_it_waits_for() {
    let host = Host::new().await;
    let slow = ProvisionRequest { compose: stack(1).replace("interval: 500ms", "interval: 2s"), ..provision(1) };
    host.agent.provision(slow).await.expect("it comes up");
    host.agent.stop(&acme(), None).await.expect("it stops");
    let starting = tokio::spawn({
        let agent = host.agent.clone();
        async move { agent.start(&acme(), None).await }
    });
    let waits = until("web waits", async || {
        let status = host.agent.status(&acme()).await.ok()?;
        status.services.into_iter().find(|service| !service.waits_for.is_empty())
    })
    .await;
    assert_eq!((waits.name.as_str(), waits.waits_for[0].service.as_str()), ("web", "db"));
    assert_eq!(waits.reason.as_deref(), Some("waits for db (service_healthy)"));
    starting.await.expect("no panic").expect("it starts");
    let status = host.agent.status(&acme()).await.expect("a status");
    assert!(status.services.iter().all(|service| service.waits_for.is_empty() && service.reason.is_none()));
}

#[tokio::test]
async fn the_feed_tells_what_happened_to_whom() {
    use futures::StreamExt as _;
    let host = Host::new().await;
    let mut feed = Box::pin(host.agent.events(None, None));
    assert_eq!(feed.next().await.expect("an event").name, "resync");
    let mut until_ended = async || {
        let mut names = Vec::new();
        loop {
            let event = feed.next().await.expect("an event");
            if event.name == "operation_ended" {
                let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                return (names, format!("{} {}", data["kind"], data["code"]));
            }
            names.push(event.name);
        }
    };
    host.agent.provision(provision(1)).await.expect("it comes up");
    let (names, ended) = until_ended().await;
    assert_eq!(names.iter().filter(|name| **name == "tenant_created").count(), 1, "{names:?}");
    assert_eq!(names.last(), Some(&"tenant_state"), "{names:?}");
    assert_eq!(ended, "\"provision\" null");
    host.agent.provision(provision(1)).await.expect("it is as wanted");
    assert_eq!(until_ended().await, (Vec::new(), "\"provision\" null".to_owned()), "no state has come and gone");
    host.agent.update(update(Some("services: {}".to_owned()))).await.expect_err("it says nothing");
    let broken = stack(2).replace("command: [sleep, infinity]\n    environment", "command: ['false']\n    environment");
    host.agent.update(update(Some(broken))).await.expect_err("web fails");
    let (names, ended) = until_ended().await;
    assert_eq!(ended, "\"update\" \"SERVICE_EXITED\"", "the refused one before it was nothing");
    assert!(names.starts_with(&["tenant_state"]), "{names:?}");
    host.agent.teardown(&acme(), false).await.expect("it goes");
    assert!(until_ended().await.0.contains(&"tenant_kept"));
    host.agent.teardown(&acme(), true).await.expect("it goes");
    assert!(until_ended().await.0.contains(&"tenant_purged"));
    host.agent.teardown(&acme(), true).await.expect("it has gone");
    assert_eq!(until_ended().await.0, Vec::<&str>::new(), "nothing happened");
}

#[tokio::test]
async fn one_tenants_storm_is_its_own() {
    use futures::StreamExt as _;
    let host = Host::new().await;
    host.agent.provision(provision(1)).await.expect("it comes up");
    let before = host.agent.status_text(&acme(), false).await.expect("a status").tag;
    let mut feed = Box::pin(host.agent.events(None, None));
    feed.next().await.expect("a place in the feed");
    let storm = Subdomain::parse("storm").expect("a name");
    // One lives until the other is restarted.
    let text = "services:
  bad:
    image: q8test/busybox:1
    command: [sh, -c, 'while [ ! -e /data/end ]; do sleep 0.1; done; exit 3']
    restart: always
    volumes: ['store:/data']
  good:
    image: q8test/busybox:1
    command: [sleep, infinity]
    volumes: ['store:/data']
    pre_stop: [{command: [sh, -c, 'touch /data/end']}]
volumes: {store: }
";
    let request = ProvisionRequest {
        subdomain: storm.clone(),
        id: TenantId::parse("t-2").expect("an id"),
        compose: text.to_owned(),
        files: BTreeMap::new(),
        ..provision(1)
    };
    host.agent.provision(request).await.expect("it comes up");
    let good = ServiceName::parse("good").expect("a name");
    host.agent.restart(&storm, Some(good)).await.expect("it restarts");
    let looping = until("it is called a crash loop", async || {
        let status = host.agent.status(&storm).await.expect("a status");
        status.services[0].containers.first().is_some_and(|one| one.crash_loop).then_some(status)
    })
    .await;
    assert_eq!(looping.state, TenantState::Degraded);
    assert_eq!(looping.services[0].state, q8_agent::domain::ServiceState::Restarting);
    assert!(looping.services[0].containers[0].last_exits.iter().all(|exit| exit.code == 3));
    let event = loop {
        let event = feed.next().await.expect("an event");
        if event.name == "restart_loop" {
            break event;
        }
    };
    assert!(event.data.contains("\"code\":3"), "{}", event.data);
    assert_eq!(host.agent.status_text(&acme(), false).await.expect("a status").tag, before, "nothing happened to it");
}
