//! `deploy.update_config` and `depends_on.restart`: the order in which a service is replaced.

use std::time::{Duration, Instant};

use q8_agent::backend::{Action, Backend};
use q8_agent::domain::ErrorCode;

use super::{HEALTHY, SLEEPS, Tenant, World, stack};

const STORE: &str = "volumes: {store: {}}\n";
const MOUNT: &str = "volumes: ['store:/data']";
const START_FIRST: &str = "deploy: {update_config: {order: start-first}}";
/// Never healthy.
const SICK: &str = r#"healthcheck: {test: ["CMD", "false"], interval: 200ms, timeout: 5s, retries: 3}"#;

fn label(value: &str) -> String {
    format!("labels: {{value: '{value}'}}")
}

pub(crate) async fn start_first_waits_for_health(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "first");
    // The first run finds nothing, the second one must not find that the old container was told to stop.
    let command = r#"entrypoint: ["sh", "-c", "sleep 0.5; test -f /data/stopped && exit 9; touch /ready; sleep 3600"]"#;
    let check = r#"healthcheck: {test: ["CMD-SHELL", "test -f /ready"], interval: 100ms, timeout: 5s, retries: 100}"#;
    let leaves = r#"pre_stop: [{command: ["touch", "/data/stopped"]}]"#;
    let text = |value: &str| stack(&[("web", &[command, check, leaves, MOUNT, START_FIRST, &label(value)])], STORE);
    tenant.up(&text("1")).await.expect("it comes up");
    let before = tenant.identities().await;
    let plan = tenant.up(&text("2")).await.expect("the old one runs until the new one is healthy");
    assert!(plan.warnings.is_empty(), "{plan}");
    assert_ne!(tenant.identities().await["web-1"].0, before["web-1"].0);
    tenant.assert_running(&["web-1"]).await;
    tenant.assert_settled().await;
    // The same without it: the old one stops first, and the new one sees it.
    let text = text("3").replace(START_FIRST, "deploy: {update_config: {order: stop-first}}");
    let error = tenant.up(&text).await.expect_err("it was told to stop");
    assert_eq!(error.details().and_then(|details| details.exit_code), Some(9));
    tenant.purge().await;
}

pub(crate) async fn a_failed_start_first_disturbs_nothing(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "firstbad");
    let text = |check: &str, value: &str| stack(&[("web", &[SLEEPS, check, START_FIRST, &label(value)])], "");
    tenant.up(&text(HEALTHY, "1")).await.expect("it comes up");
    let before = tenant.identities().await;
    let error = tenant.up(&text(SICK, "2")).await.expect_err("the new one is never healthy");
    assert_eq!(error.code(), ErrorCode::ServiceUnhealthy, "{error:?}");
    assert_eq!(tenant.identities().await, before, "the old one ran all the time");
    tenant.assert_settled().await;
    // As when the agent dies while both run.
    let (wanted, run) = (tenant.next(&text(SICK, "3").replace("200ms", "1h")), Tenant::run());
    let images = tenant.images_of(&wanted).await;
    let plan = backend.plan(&wanted, &images, &run).await.expect("a plan");
    let applying = backend.apply(&wanted, &images, &plan, &run);
    tokio::time::timeout(Duration::from_secs(2), applying).await.expect_err("it waits for the new one");
    let settled = backend.settle(&tenant.owner, tenant.generation, tenant.current.as_ref(), Some(&plan.undo));
    settled.await.expect("it settles back");
    assert_eq!(tenant.identities().await, before);
    tenant.assert_settled().await;
    tenant.purge().await;
}

pub(crate) async fn what_was_replaced_start_first_comes_back(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "firstback");
    let text = |value: &str, check: &str| {
        stack(
            &[
                ("web", &[SLEEPS, HEALTHY, START_FIRST, &label(value)]),
                ("late", &[SLEEPS, check, "depends_on: {web: {condition: service_healthy}}", &label(value)]),
            ],
            "",
        )
    };
    tenant.up(&text("1", HEALTHY)).await.expect("it comes up");
    let before = tenant.identities().await;
    tenant.up(&text("2", &SICK.replace("200ms", "1s"))).await.expect_err("late is never healthy");
    tenant.assert_running(&["late-1", "web-1"]).await;
    let after = tenant.identities().await;
    assert_eq!((&after["web-1"].0, &after["late-1"].0), (&before["web-1"].0, &before["late-1"].0));
    assert!(after["web-1"].1 > before["web-1"].1, "it had been stopped, since its replacement was healthy");
    tenant.assert_settled().await;
    tenant.purge().await;
}

pub(crate) async fn groups_are_replaced_one_after_another(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "groups");
    let text = |check: &str, value: &str, more: &str| {
        let deploy = format!("deploy: {{replicas: 3, update_config: {{parallelism: 1{more}}}}}");
        stack(&[("web", &[SLEEPS, check, &deploy, &label(value)])], "")
    };
    tenant.up(&text(HEALTHY, "1", "")).await.expect("it comes up");
    for order in ["", ", order: start-first"] {
        let before = tenant.identities().await;
        tenant.up(&text(SICK, "2", order)).await.expect_err("the first new one is never healthy");
        let after = tenant.identities().await;
        assert_eq!((&after["web-2"], &after["web-3"]), (&before["web-2"], &before["web-3"]), "'{order}'");
        assert_eq!(after["web-1"].0, before["web-1"].0);
        tenant.assert_settled().await;
        let began = Instant::now();
        let more = format!("{order}, delay: 1s");
        tenant.up(&text(HEALTHY, &format!("3 {}", order.len()), &more)).await.expect("it is updated");
        assert!(began.elapsed() >= Duration::from_secs(2), "three groups have two delays between them");
        let started = tenant.identities().await;
        assert!(started["web-1"].1 < started["web-2"].1 && started["web-2"].1 < started["web-3"].1);
        tenant.assert_running(&["web-1", "web-2", "web-3"]).await;
        tenant.assert_settled().await;
    }
    tenant.purge().await;
}

pub(crate) async fn monitored_containers_must_stay_well(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "monitor");
    let deploy = "deploy: {update_config: {order: start-first, monitor: 4s}}";
    tenant.up(&stack(&[("web", &[SLEEPS, deploy])], "")).await.expect("it comes up");
    let before = tenant.identities().await;
    let dies = r#"entrypoint: ["sh", "-c", "sleep 1; exit 3"]"#;
    let error = tenant.up(&stack(&[("web", &[dies, deploy])], "")).await.expect_err("it dies while it is watched");
    assert_eq!(error.code(), ErrorCode::ServiceExited, "{error:?}");
    assert_eq!(tenant.identities().await, before);
    let began = Instant::now();
    tenant.up(&stack(&[("web", &[SLEEPS, deploy, &label("2")])], "")).await.expect("it stays well");
    assert!(began.elapsed() >= Duration::from_secs(4));
    tenant.purge().await;
}

pub(crate) async fn start_first_is_not_for_all(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "notfirst");
    let deploy = "deploy: {update_config: {order: start-first, failure_action: pause}}";
    let text = |value: &str| stack(&[("web", &[SLEEPS, deploy, "ports: ['127.0.0.1:29817:80']", &label(value)])], "");
    tenant.up(&text("1")).await.expect("it comes up");
    let plan = tenant.up(&text("2")).await.expect("it is updated");
    for named in ["services.web.ports[0]", "services.web.deploy.update_config.failure_action"] {
        assert!(plan.warnings.iter().any(|warning| warning.contains(named)), "{named}: {plan}");
    }
    tenant.assert_running(&["web-1"]).await;
    tenant.purge().await;
}

pub(crate) async fn dependents_stop_before_what_they_depend_on(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "stopfirst");
    let db = r#"entrypoint: ["sh", "-c", "test -f /data/first || test -f /data/left || exit 9; rm /data/first; sleep 3600"]"#;
    let leaves = r#"pre_stop: [{command: ["touch", "/data/left"]}]"#;
    let text = |value: &str| {
        stack(
            &[
                ("seed", &[r#"entrypoint: ["touch", "/data/first"]"#, MOUNT]),
                ("db", &[db, MOUNT, &label(value), "depends_on: {seed: {condition: service_completed_successfully}}"]),
                ("web", &[SLEEPS, MOUNT, leaves, "depends_on: {db: {condition: service_started, restart: true}}"]),
                ("ok", &[SLEEPS, HEALTHY, "depends_on: [db]"]),
            ],
            STORE,
        )
    };
    tenant.up(&text("1")).await.expect("it comes up");
    let before = tenant.identities().await;
    let plan = tenant.up(&text("2")).await.expect("web had left when the new db started");
    assert!(plan.steps.iter().any(|step| step.action == Action::Restart), "{plan}");
    let after = tenant.identities().await;
    assert_eq!(after["web-1"].0, before["web-1"].0);
    assert!(after["web-1"].1 > after["db-1"].1, "{plan}");
    tenant.purge().await;
}
