//! What only the in-memory backend can show: an engine that is disturbed at every step.

#[allow(dead_code, unused_imports, unused_macros, reason = "only the world and the tenant are used here")]
mod conformance;

use std::collections::BTreeMap;
use std::time::Duration;

use conformance::{HEALTHY, IMAGE, SLEEPS, Tenant, World, eventually, stack};
use q8_agent::backend::memory::{Fault, MemoryBackend, MemoryEngine};
use q8_agent::backend::{Backend, BackendError, LogQuery, Tail};
use q8_agent::domain::{ContainerId, ErrorCode, Generation};

fn empty() -> (MemoryBackend, World) {
    let world = World::new("/opt/tenants");
    (MemoryBackend::new(world.agent.clone(), world.key.clone()), world)
}

const VOLUME: &str = "volumes: {store: {}}\n";

/// Two services, a volume; the environment of the first tells the versions apart.
fn version(value: u32) -> String {
    let environment = format!("environment: {{VERSION: '{value}'}}");
    stack(
        &[
            ("web", &[SLEEPS, &environment, "depends_on: [db]"]),
            ("db", &[SLEEPS, HEALTHY, "volumes: ['store:/data']", "restart: always"]),
        ],
        VOLUME,
    )
}

/// Which images and definitions the engine holds, by container name.
fn made(engine: &MemoryEngine) -> BTreeMap<String, (String, bool)> {
    let all = engine.containers().into_iter();
    all.map(|c| (c.name, (c.labels["dev.q8.spec"].clone(), c.set_aside))).collect()
}

/// Repeats a call until the engine has no more faults for it.
macro_rules! until_done {
    ($call:expr) => {{
        let mut result = $call.await;
        for _ in 0..50 {
            if result.is_ok() {
                break;
            }
            result = $call.await;
        }
        result.expect("it converges")
    }};
}

/// After any disturbance of an update the tenant is at N or N+1, and repeating converges.
#[tokio::test]
async fn a_fault_at_any_step_leaves_one_version() {
    for fault in [Fault::AnswerLost, Fault::Create, Fault::Start] {
        let mut undone = 0;
        for step in 0.. {
            let (backend, world) = empty();
            let mut tenant = Tenant::new(&backend, &world, "fault");
            tenant.up(&version(1)).await.expect("it comes up");
            let (engine, run) = (backend.engine(), Tenant::run());
            let (before, ids) = (made(engine), tenant.identities().await);
            let wanted = tenant.next(&version(2));
            let images = tenant.images_of(&wanted).await;
            let plan = backend.plan(&wanted, &images, &run).await.expect("a plan");
            engine.fail_after(step, fault);
            let applied = backend.apply(&wanted, &images, &plan, &run).await;
            if applied.is_ok() {
                until_done!(backend.settle(&tenant.owner, Generation(2), Some(&wanted), None));
                assert_ne!(made(engine), before);
                tenant.generation = Generation(2);
                tenant.current = Some(wanted);
            } else {
                undone += 1;
                until_done!(backend.settle(&tenant.owner, Generation(1), tenant.current.as_ref(), Some(&plan.undo)));
                assert_eq!(made(engine), before, "{fault:?} at step {step}");
                let now = tenant.identities().await;
                assert_eq!(now["web-1"].0, ids["web-1"].0, "{fault:?} at step {step}");
                assert_eq!(now["db-1"], ids["db-1"], "{fault:?} at step {step}");
            }
            tenant.assert_running(&["db-1", "web-1"]).await;
            tenant.assert_settled().await;
            assert!(engine.containers().iter().all(|container| !container.set_aside));
            let unused = engine.forget_faults();
            tenant.purge().await;
            assert!(engine.containers().is_empty() && engine.networks().is_empty() && engine.volumes().is_empty());
            if unused > 0 {
                break;
            }
        }
        assert!(undone > 0, "{fault:?} never struck");
    }
}

/// The same for a first provision, where nothing may be left.
#[tokio::test]
async fn a_fault_at_any_step_of_a_first_provision_leaves_nothing() {
    for step in 0.. {
        let (backend, world) = empty();
        let tenant = Tenant::new(&backend, &world, "fault");
        let (engine, run) = (backend.engine(), Tenant::run());
        let wanted = tenant.next(&version(1));
        let images = tenant.images_of(&wanted).await;
        let plan = backend.plan(&wanted, &images, &run).await.expect("a plan");
        engine.fail_after(step, Fault::AnswerLost);
        if backend.apply(&wanted, &images, &plan, &run).await.is_ok() {
            assert!(step > 3, "an apply has more steps than {step}");
            break;
        }
        until_done!(backend.settle(&tenant.owner, Generation::NONE, None, Some(&plan.undo)));
        assert!(engine.containers().is_empty() && engine.networks().is_empty() && engine.volumes().is_empty());
    }
}

#[tokio::test]
async fn a_refused_create_comes_before_the_first_stop() {
    let (backend, world) = empty();
    let mut tenant = Tenant::new(&backend, &world, "create");
    tenant.up(&version(1)).await.expect("it comes up");
    let before = tenant.identities().await;
    backend.engine().fail_next(Fault::Create);
    let error = tenant.up(&version(2)).await.expect_err("the engine refuses");
    assert_eq!(error.code(), ErrorCode::BackendError);
    assert_eq!(tenant.identities().await, before, "nothing was stopped");
}

#[tokio::test]
async fn prepare_tells_what_is_wrong_with_an_image() {
    let (backend, world) = empty();
    let tenant = Tenant::new(&backend, &world, "prepare");
    let wanted = tenant.next(&version(1));
    for (fault, code) in [
        (Fault::ImageNotFound, ErrorCode::ImageNotFound),
        (Fault::RegistryDenied, ErrorCode::RegistryDenied),
        (Fault::RegistryUnavailable, ErrorCode::RegistryUnavailable),
    ] {
        backend.engine().fail_next(fault);
        let error = backend.prepare(&wanted, &Tenant::run()).await.expect_err("it goes wrong");
        assert_eq!(error.code(), code);
        backend.prepare(&wanted, &Tenant::run()).await.expect("once only");
    }
    backend.engine().remove_image(IMAGE);
    let error = backend.prepare(&wanted, &Tenant::run()).await.expect_err("it is gone");
    assert_eq!(error.code(), ErrorCode::ImageNotFound);
    backend.engine().add_image(IMAGE);
    backend.prepare(&wanted, &Tenant::run()).await.expect("it is back");
}

#[tokio::test]
async fn a_moved_tag_counts_from_the_next_pull_on() {
    let (backend, world) = empty();
    let mut tenant = Tenant::new(&backend, &world, "tag");
    tenant.up(&version(1)).await.expect("it comes up");
    let before = tenant.identities().await;
    backend.engine().move_tag(IMAGE);
    tenant.assert_settled().await;
    let mut run = Tenant::run();
    run.pull = true;
    tenant.up_as(tenant.next(&version(1)), &run).await.expect("it is updated");
    assert_ne!(tenant.identities().await["db-1"].0, before["db-1"].0);
    tenant.assert_settled().await;
}

#[tokio::test]
async fn an_engine_that_is_away_answers_nothing_and_harms_nothing() {
    let (backend, world) = empty();
    let mut tenant = Tenant::new(&backend, &world, "away");
    tenant.up(&version(1)).await.expect("it comes up");
    let before = tenant.identities().await;
    let run = Tenant::run();
    let query =
        LogQuery { services: Vec::new(), tail: Tail::All, follow: false, since: None, until: None, cursor: None };
    backend.engine().set_available(false);
    let deployed = tenant.deployed();
    let answers: Vec<Result<(), BackendError>> = vec![
        backend.health().await,
        backend.host().await.map(drop),
        backend.status(&tenant.owner).await.map(drop),
        backend.tenants().await.map(drop),
        backend.watch().await.map(drop),
        backend.listed(&tenant.owner).await.map(drop),
        backend.images(&tenant.owner).await.map(drop),
        backend.logs(&tenant.owner, &query).await.map(drop),
        backend.prepare(deployed, &run).await.map(drop),
        backend.start(deployed, None, &run).await,
        backend.stop(deployed, None, &run).await,
        backend.restart(deployed, None, &run).await,
        backend.settle(&tenant.owner, Generation(1), Some(deployed), None).await,
        backend.remove(&tenant.owner, Some(deployed), true, &run).await.map(drop),
    ];
    for answer in answers {
        assert!(matches!(answer, Err(BackendError::Unavailable)), "{answer:?}");
    }
    backend.engine().set_available(true);
    assert_eq!(tenant.identities().await, before);
}

#[tokio::test]
async fn an_engine_restart_brings_back_what_nobody_stopped() {
    let (backend, world) = empty();
    let text = stack(
        &[
            ("always", &[SLEEPS, "restart: always"]),
            ("unless", &[SLEEPS, "restart: unless-stopped"]),
            ("never", &[SLEEPS, "restart: 'no'"]),
        ],
        "",
    );
    let mut runs = Tenant::new(&backend, &world, "runs");
    let mut rests = Tenant::new(&backend, &world, "rests");
    runs.up(&text).await.expect("it comes up");
    rests.up(&text).await.expect("it comes up");
    backend.stop(rests.deployed(), None, &Tenant::run()).await.expect("it stops");
    backend.engine().restart_engine();
    let states = runs.states().await;
    assert_eq!([&states["always-1"], &states["unless-1"], &states["never-1"]], ["running", "running", "exited"]);
    assert!(rests.states().await.values().all(|state| state == "exited"));
    backend.start(rests.deployed(), None, &Tenant::run()).await.expect("it starts");
    assert!(rests.states().await.values().all(|state| state == "running"));
}

#[tokio::test]
async fn restart_policies() {
    let (backend, world) = empty();
    let crashes = r#"command: ["sh", "-c", "sleep 0.05; echo again; exit 1"]"#;
    let text = stack(
        &[
            ("limited", &[crashes, "restart: on-failure:2"]),
            ("always", &[crashes, "restart: always"]),
            ("done", &[r#"command: ["sh", "-c", "sleep 0.05"]"#, "restart: on-failure"]),
        ],
        "",
    );
    let mut tenant = Tenant::new(&backend, &world, "policies");
    tenant.up(&text).await.expect("all of them start");
    eventually("the limit is reached", async || tenant.states().await["limited-1"] == "exited").await;
    let containers = tenant.containers().await;
    assert_eq!((containers["limited-1"].status.restart_count, containers["limited-1"].status.exit_code), (2, Some(1)));
    assert_eq!((containers["done-1"].status.restart_count, containers["done-1"].status.exit_code), (0, Some(0)));
    eventually("always goes on", async || tenant.containers().await["always-1"].status.restart_count >= 3).await;
    backend.stop(tenant.deployed(), None, &Tenant::run()).await.expect("it stops");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(tenant.states().await.values().all(|state| state == "exited"));
}

#[tokio::test]
async fn what_keeps_restarting_fails_the_apply() {
    let (backend, world) = empty();
    let mut tenant = Tenant::new(&backend, &world, "loop");
    let text = stack(&[("bad", &[r#"command: ["sh", "-c", "echo oh; exit 6"]"#, "restart: always"])], "");
    let error = tenant.up(&text).await.expect_err("it never stays up");
    assert_eq!(error.code(), ErrorCode::ServiceExited, "{error:?}");
    assert_eq!(error.details().and_then(|details| details.exit_code), Some(6));
}

#[tokio::test]
async fn nothing_starts_after_a_failed_dependency() {
    let (backend, world) = empty();
    let tenant = Tenant::new(&backend, &world, "order");
    let fails = r#"command: ["sh", "-c", "sleep 0.05; exit 1"]"#;
    let needs = "depends_on: {migrate: {condition: service_completed_successfully}}";
    let wanted = tenant.next(&stack(&[("app", &[SLEEPS, needs]), ("migrate", &[fails])], ""));
    let (images, run) = (tenant.images_of(&wanted).await, Tenant::run());
    let plan = backend.plan(&wanted, &images, &run).await.expect("a plan");
    backend.apply(&wanted, &images, &plan, &run).await.expect_err("migrate fails");
    let states = tenant.states().await;
    assert_eq!((states["app-1"].as_str(), states["migrate-1"].as_str()), ("created", "exited"));
}

#[tokio::test]
async fn drift_is_found_and_repaired() {
    let (backend, world) = empty();
    let mut tenant = Tenant::new(&backend, &world, "drift");
    tenant.up(&version(1)).await.expect("it comes up");
    let engine = backend.engine();
    let id = |containers: &BTreeMap<String, conformance::Identity>, name: &str| -> ContainerId {
        containers[name].0.clone()
    };
    let before = tenant.identities().await;
    engine.remove_container(&id(&before, "web-1"));
    assert!(!tenant.plan(tenant.deployed()).await.is_empty());
    tenant.up(&version(1)).await.expect("it is repaired");
    tenant.assert_running(&["db-1", "web-1"]).await;
    let after = tenant.identities().await;
    assert_eq!(after["db-1"], before["db-1"]);

    engine.kill(&id(&after, "web-1"));
    eventually("web has crashed", async || tenant.states().await["web-1"] == "exited").await;
    assert_eq!(tenant.containers().await["web-1"].status.exit_code, Some(137));
    tenant.up(&version(1)).await.expect("it is repaired");
    assert_eq!(tenant.identities().await["web-1"].0, after["web-1"].0, "it was only started");

    engine.kill(&id(&after, "db-1"));
    eventually("db is restarted", async || tenant.containers().await["db-1"].status.restart_count == 1).await;
}

#[tokio::test]
async fn stopping_follows_the_script() {
    let (backend, world) = empty();
    let command =
        |script: &str| format!(r#"{{command: ["sh", "-c", "{script}"], image: "{IMAGE}", stop_grace_period: 200ms}}"#);
    let text = format!(
        "services:\n  plain: {}\n  polite: {}\n  deaf: {}\n",
        command("sleep 3600"),
        command("trap 'echo bye; exit 0' TERM; sleep 3600"),
        command("trap '' TERM; sleep 3600"),
    );
    let mut tenant = Tenant::new(&backend, &world, "signals");
    tenant.up(&text).await.expect("it comes up");
    backend.stop(tenant.deployed(), None, &Tenant::run()).await.expect("it stops");
    let codes: Vec<Option<i64>> = tenant.containers().await.values().map(|c| c.status.exit_code).collect();
    assert_eq!(codes, [Some(137), Some(143), Some(0)], "deaf, plain, polite");
    // An exit with code 0 on request is no completion.
    backend.start(tenant.deployed(), None, &Tenant::run()).await.expect("it starts");
    tenant.assert_running(&["deaf-1", "plain-1", "polite-1"]).await;
}

#[tokio::test]
async fn names_of_strangers_are_respected() {
    let (backend, world) = empty();
    let tenant = Tenant::new(&backend, &world, "names");
    let (engine, project) = (backend.engine(), tenant.owner.project());
    let wanted = tenant.next(&version(1));
    let images = tenant.images_of(&wanted).await;
    engine.add_foreign_volume(&format!("{project}_store"));
    let error = backend.plan(&wanted, &images, &Tenant::run()).await.expect_err("the volume is a stranger's");
    assert!(matches!(&error, BackendError::NameTaken { kind: "volume", .. }), "{error:?}");

    let (backend, world) = empty();
    let mut tenant = Tenant::new(&backend, &world, "names");
    let name = format!("{}-web-1", tenant.owner.project());
    backend.engine().add_foreign_container(&name);
    tenant.up(&version(1)).await.expect("its container gets another name");
    let web = tenant.containers().await["web-1"].status.name.to_string();
    assert!(web.starts_with(&name) && web.len() == name.len() + 9, "{web}");
    tenant.assert_settled().await;
    let removed = tenant.purge().await;
    assert_eq!(removed.objects, 3);
}

#[tokio::test]
async fn objects_say_whose_they_are() {
    let (backend, world) = empty();
    let mut tenant = Tenant::new(&backend, &world, "labels");
    tenant.up(&version(1)).await.expect("it comes up");
    let all = backend.engine().containers();
    let project = tenant.owner.project();
    let names: Vec<&str> = all.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, [format!("{project}-db-1"), format!("{project}-web-1")]);
    assert_eq!(backend.engine().networks(), [format!("{project}_default")]);
    assert_eq!(backend.engine().volumes(), [format!("{project}_store")]);
    for (label, value) in [
        ("com.docker.compose.project", project.as_str()),
        ("com.docker.compose.service", "db"),
        ("com.docker.compose.container-number", "1"),
        ("com.docker.compose.oneoff", "False"),
        ("dev.q8.agent", world.agent.as_str()),
        ("dev.q8.tenant", tenant.owner.subdomain.as_str()),
        ("dev.q8.id", tenant.owner.id.as_str()),
        ("dev.q8.generation", "1"),
    ] {
        assert_eq!(all[0].labels[label], value, "{label}");
    }
    assert_eq!(all[0].labels["com.docker.compose.config-hash"], all[0].labels["dev.q8.spec"]);
}

#[tokio::test]
async fn health_follows_what_the_script_does() {
    let (backend, world) = empty();
    let check = r#"healthcheck: {test: ["CMD-SHELL", "test -f /ready"], interval: 50ms, timeout: 1s, retries: 20}"#;
    let ready = r#"command: ["sh", "-c", "sleep 0.2; touch /ready; sleep 0.3; rm /ready; sleep 3600"]"#;
    let mut tenant = Tenant::new(&backend, &world, "ready");
    let began = std::time::Instant::now();
    tenant.up(&stack(&[("web", &[ready, check])], "")).await.expect("it becomes ready");
    assert!(began.elapsed() >= Duration::from_millis(200));
    eventually("it is unhealthy", async || {
        tenant.containers().await["web-1"].status.health == q8_agent::domain::Health::Unhealthy
    })
    .await;
}

#[tokio::test]
async fn an_engine_that_is_dropped_takes_its_programs_with_it() {
    let (backend, world) = empty();
    let mut tenant = Tenant::new(&backend, &world, "dropped");
    tenant.up(&version(1)).await.expect("it comes up");
    drop(tenant);
    drop(backend);
    let metrics = tokio::runtime::Handle::current().metrics();
    eventually("no task is left", async || metrics.num_alive_tasks() == 0).await;
}
