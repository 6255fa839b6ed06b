//! Hooks: commands right after a start and right before a stop.

use std::time::{Duration, Instant};

use q8_agent::backend::{Backend, BackendError};
use q8_agent::domain::ErrorCode;

use super::{HEALTHY, SLEEPS, Tenant, World, stack};

const STORE: &str = "volumes: {store: {}}\n";
const MOUNT: &str = "volumes: ['store:/data']";

/// A hook with a shell script.
fn hook(attribute: &str, script: &str, rest: &str) -> String {
    format!(r#"{attribute}: [{{command: ["sh", "-c", "{script}"]{rest}}}]"#)
}

pub(crate) async fn post_start_comes_before_dependents(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "hook");
    let begins =
        hook("post_start", "sleep 0.5; test $$WHO = me && touch ready", ", working_dir: /data, environment: {WHO: me}");
    let needs = r#"entrypoint: ["sh", "-c", "test -f /data/ready || exit 9; sleep 3600"]"#;
    let text = |value: &str| {
        let label = format!("labels: {{value: '{value}'}}");
        stack(
            &[
                ("db", &[SLEEPS, MOUNT, &begins, &label]),
                ("web", &[needs, MOUNT, "depends_on: [db]"]),
                ("ok", &[SLEEPS, HEALTHY, "depends_on: [web]"]),
            ],
            STORE,
        )
    };
    tenant.up(&text("1")).await.expect("the file was there when web started");
    tenant.assert_settled().await;
    tenant.up(&text("2")).await.expect("it runs after an update too");
    tenant.assert_running(&["db-1", "ok-1", "web-1"]).await;
    tenant.purge().await;
}

pub(crate) async fn a_failed_post_start_fails_the_apply(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "badhook");
    tenant.up(&stack(&[("web", &[SLEEPS])], "")).await.expect("it comes up");
    let before = tenant.identities().await;
    let fails = hook("post_start", "echo no luck; exit 7", "");
    let error = tenant.up(&stack(&[("web", &[SLEEPS, &fails])], "")).await.expect_err("the hook fails");
    let BackendError::ServiceExited { service, what, details } = &error else { panic!("{error:?}") };
    assert_eq!(service.as_str(), "web");
    assert!(what.contains("post_start[0]"), "{what}");
    assert_eq!((details.exit_code, details.logs.as_slice()), (Some(7), &[String::from("no luck")][..]));
    tenant.assert_running(&["web-1"]).await;
    assert_eq!(tenant.identities().await["web-1"].0, before["web-1"].0);
    tenant.assert_settled().await;
    tenant.purge().await;
}

pub(crate) async fn a_post_start_ends_by_the_deadline(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "longhook");
    // The deadline is to come within the hook, however long this machine takes until then.
    let begun = Instant::now();
    tenant.up(&stack(&[("web", &[SLEEPS])], "")).await.expect("it comes up");
    let usual = begun.elapsed();
    tenant.purge().await;
    let hangs = hook("post_start", "echo begun; sleep 3600", "");
    let mut run = Tenant::run();
    run.deadline = tokio::time::Instant::now() + Duration::from_secs(3) + usual * 3;
    let wanted = tenant.next(&stack(&[("web", &[SLEEPS, &hangs])], ""));
    let error = tenant.up_as(wanted, &run).await.expect_err("it never ends");
    assert_eq!(error.code(), ErrorCode::DeadlineExceeded, "{error:?}");
    assert!(error.to_string().contains("post_start[0] of service web"), "{error}");
    assert_eq!(error.details().map(|details| details.logs.clone()), Some(vec![String::from("begun")]));
    assert!(tenant.containers().await.is_empty());
}

pub(crate) async fn pre_stop_comes_before_every_stop(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "bye");
    let text = |value: &str, mark: &str| {
        let says = hook("pre_stop", "touch /data/$$MARK", &format!(", environment: {{MARK: {mark}}}"));
        let label = format!("labels: {{value: '{value}'}}");
        stack(&[("web", &[SLEEPS, MOUNT, &label, &says])], STORE)
    };
    tenant.up(&text("1", "update")).await.expect("it comes up");
    tenant.up(&text("2", "stop")).await.expect("it is replaced");
    let id = tenant.identities().await["web-1"].0.clone();
    let run = Tenant::run();
    backend.stop(tenant.deployed(), None, &run).await.expect("it stops");
    backend.start(tenant.deployed(), None, &run).await.expect("it starts");
    tenant.up(&text("2", "restart")).await.expect("only its hook changes");
    backend.restart(tenant.deployed(), None, &run).await.expect("it restarts");
    tenant.up(&text("2", "removal")).await.expect("only its hook changes");
    assert_eq!(tenant.identities().await["web-1"].0, id, "a changed hook is no reason to make a container anew");
    tenant.up(&stack(&[("other", &[SLEEPS, MOUNT])], STORE)).await.expect("the service goes");
    tenant.up(&text("3", "teardown")).await.expect("it comes back");
    backend.remove(&tenant.owner, tenant.current.as_ref(), false, &run).await.expect("it goes");
    tenant.current = None;
    let looks = r#"entrypoint: ["sh", "-c", "for m in update stop restart removal teardown; do test -f /data/$$m || exit 9; done; sleep 3600"]"#;
    let look = stack(&[("look", &[looks, MOUNT]), ("ok", &[SLEEPS, HEALTHY, "depends_on: [look]"])], STORE);
    tenant.up(&look).await.expect("every stop left its mark");
    tenant.purge().await;
}

pub(crate) async fn no_pre_stop_keeps_a_container_alive(backend: &dyn Backend, world: &World) {
    for (script, shortest, longest) in [("exit 1", 0, 8), ("sleep 3600", 2, 15)] {
        let mut tenant = Tenant::new(backend, world, "nobye");
        let clings = hook("pre_stop", script, "");
        let text = stack(&[("web", &[SLEEPS, "stop_grace_period: 1s", &clings])], "");
        tenant.up(&text).await.expect("it comes up");
        let began = Instant::now();
        backend.stop(tenant.deployed(), None, &Tenant::run()).await.expect("it stops");
        let took = began.elapsed();
        assert!((shortest..longest).contains(&took.as_secs()), "{script}: {took:?}");
        assert_eq!(tenant.states().await["web-1"], "exited");
        tenant.purge().await;
    }
}
