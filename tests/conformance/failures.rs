//! What goes wrong, how it is told, and what is there afterwards.

use std::time::{Duration, Instant};

use q8_agent::backend::{Action, Backend, BackendError, ProgressEvent, Run};
use q8_agent::domain::{ErrorCode, Generation, Health};

use super::{HEALTHY, SLEEPS, Tenant, UNDECIDED, World, eventually, stack};

/// Never healthy, and says why.
const SICK: &str =
    r#"healthcheck: {test: ["CMD-SHELL", "echo no pulse; exit 1"], interval: 200ms, timeout: 5s, retries: 2}"#;

pub(crate) async fn a_failed_update_brings_the_same_containers_back(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "broken");
    tenant
        .up(&stack(&[("a", &[SLEEPS]), ("b", &[SLEEPS, HEALTHY]), ("gone", &[SLEEPS])], ""))
        .await
        .expect("it comes up");
    let before = tenant.identities().await;
    let broken =
        stack(&[("a", &[SLEEPS, SICK]), ("b", &[SLEEPS, HEALTHY]), ("new", &[SLEEPS])], "volumes: {late: {}}\n");
    let error = tenant.up(&broken).await.expect_err("a is never healthy");
    assert_eq!(error.code(), ErrorCode::ServiceUnhealthy, "{error:?}");
    tenant.assert_running(&["a-1", "b-1", "gone-1"]).await;
    let after = tenant.identities().await;
    if backend.capabilities().partial_update {
        assert_eq!(after["b-1"], before["b-1"], "b was never touched");
    }
    assert_eq!(after["a-1"].0, before["a-1"].0);
    assert_eq!(after["gone-1"].0, before["gone-1"].0);
    tenant.assert_settled().await;
    let kept = backend.remove(&tenant.owner, tenant.current.as_ref(), false, &Tenant::run()).await.expect("it goes");
    assert!(kept.volumes_kept.is_empty(), "the failed update's volume went with it");
    assert_eq!(kept.objects, world.objects(3, 1));
}

pub(crate) async fn a_failed_first_provision_leaves_nothing(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "first");
    let text = stack(&[("a", &[SLEEPS, SICK, "volumes: ['store:/data']"]), ("b", &[SLEEPS])], "volumes: {store: {}}\n");
    tenant.up(&text).await.expect_err("a is never healthy");
    assert_eq!(tenant.generation, Generation::NONE);
    assert!(tenant.containers().await.is_empty());
    let left = backend.remove(&tenant.owner, None, false, &Tenant::run()).await.expect("nothing is left");
    assert_eq!((left.objects, left.volumes_kept.len()), (0, 0));
}

pub(crate) async fn a_missing_image_touches_nothing(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "noimage");
    tenant.up(&stack(&[("web", &[SLEEPS])], "")).await.expect("it comes up");
    let before = tenant.identities().await;
    let policy = if world.grouped { "pull_policy: missing" } else { "pull_policy: never" };
    let text = stack(&[("web", &["image: missing/missing:1", policy])], "");
    let error = tenant.up(&text).await.expect_err("there is no such image");
    assert_eq!(error.code(), ErrorCode::ImageNotFound, "{error:?}");
    assert_eq!(error.field().as_deref(), Some("services.web.image"));
    assert!(error.to_string().contains("missing/missing:1"), "{error}");
    assert_eq!(tenant.identities().await, before);
    tenant.purge().await;
}

/// What was told of waiting for containers: the last of each.
fn waits(run: &Run) -> Vec<(String, String, Health)> {
    let news = run.progress.after(0, usize::MAX);
    let waits = news.events.into_iter().filter_map(|told| match told.event {
        ProgressEvent::Waiting { service, state, health, .. } => Some((service, state, health)),
        _ => None,
    });
    waits.collect()
}

pub(crate) async fn an_unhealthy_service_fails_with_its_last_output(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "sick");
    let talks = r#"entrypoint: ["sh", "-c", "echo hello; sleep 3600"]"#;
    let (run, wanted) = (Tenant::run(), tenant.next(&stack(&[("web", &[talks, SICK])], "")));
    let error = tenant.up_as(wanted, &run).await.expect_err("it is never healthy");
    let BackendError::ServiceUnhealthy { service, details } = &error else { panic!("{error:?}") };
    assert_eq!(service.as_str(), "web");
    assert!(details.health_output.as_deref().is_some_and(|output| output.contains("no pulse")), "{details:?}");
    assert_eq!(details.logs, ["hello"]);
    assert_eq!(details.exit_code, None);
    let waits = waits(&run);
    let [(service, state, health)] = &waits[..] else { panic!("{waits:?}") };
    assert!(service == "web" && matches!(&**state, "running" | "exited") && *health != Health::Healthy, "{waits:?}");
}

pub(crate) async fn an_exited_service_fails_with_its_last_words(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "exits");
    // Long enough to be taken for one that stays; another service is waited for much longer.
    let dies = format!(r#"entrypoint: ["sh", "-c", "echo one; echo two >&2; sleep {}; exit 3"]"#, world.short_life());
    let error = tenant
        .up(&stack(&[("bad", &[&dies]), ("slow", &[SLEEPS, UNDECIDED, "depends_on: [bad]"])], ""))
        .await
        .expect_err("it exits");
    let BackendError::ServiceExited { service, details, .. } = &error else { panic!("{error:?}") };
    assert_eq!(service.as_str(), "bad");
    assert_eq!(details.exit_code, Some(3));
    let mut logs = details.logs.clone();
    logs.sort();
    assert_eq!(logs, ["one", "two"]);
    assert_eq!(error.field().as_deref(), Some("services.bad"));
}

pub(crate) async fn an_exit_before_health_is_an_exit(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "early");
    let dies = format!(r#"entrypoint: ["sh", "-c", "sleep {}; exit 3"]"#, world.short_life());
    let error = tenant.up(&stack(&[("web", &[&dies, UNDECIDED])], "")).await.expect_err("it exits");
    assert_eq!(error.code(), ErrorCode::ServiceExited, "{error:?}");
    assert_eq!(error.details().and_then(|details| details.exit_code), Some(3));
}

pub(crate) async fn a_failed_one_shot_fails(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "migrate");
    let text = stack(
        &[
            ("web", &[SLEEPS, "depends_on: {migrate: {condition: service_completed_successfully}}"]),
            ("migrate", &[r#"entrypoint: ["sh", "-c", "echo no table; exit 4"]"#]),
        ],
        "",
    );
    let error = tenant.up(&text).await.expect_err("migrate fails");
    assert_eq!(error.code(), ErrorCode::ServiceExited, "{error:?}");
    let details = error.details().expect("details");
    assert_eq!((details.exit_code, details.logs.as_slice()), (Some(4), &[String::from("no table")][..]));
}

pub(crate) async fn the_deadline_is_kept(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "late");
    tenant.up(&stack(&[("web", &[SLEEPS])], "")).await.expect("it comes up");
    let before = tenant.identities().await;
    // Its first check comes long after the deadline.
    let never = r#"healthcheck: {test: ["CMD", "true"], interval: 1h, timeout: 5s, retries: 3}"#;
    let mut run = Tenant::run();
    run.deadline = tokio::time::Instant::now() + Duration::from_secs(4);
    let began = Instant::now();
    let error = tenant.up_as(tenant.next(&stack(&[("web", &[SLEEPS, never])], "")), &run).await.expect_err("too late");
    assert!(matches!(&error, BackendError::DeadlineExceeded { step, .. } if step.contains("web")), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    tenant.assert_running(&["web-1"]).await;
    assert_eq!(tenant.identities().await["web-1"].0, before["web-1"].0);
    tenant.purge().await;
}

pub(crate) async fn a_taken_port_is_refused(backend: &dyn Backend, world: &World) {
    let mut holder = Tenant::new(backend, world, "holder");
    holder.up(&stack(&[("web", &[SLEEPS, "ports: ['127.0.0.1::80']"])], "")).await.expect("it comes up");
    let port = holder.containers().await["web-1"].endpoints[0].host_port;
    let before = holder.identities().await;
    let mut second = Tenant::new(backend, world, "second");
    let text = stack(&[("web", &[SLEEPS, &format!("ports: ['127.0.0.1:{port}:80']")])], "");
    let error = second.up(&text).await.expect_err("the port is taken");
    assert!(matches!(&error, BackendError::PortTaken { port: taken, .. } if *taken == port), "{error:?}");
    assert!(second.containers().await.is_empty());
    assert_eq!(holder.identities().await, before);
    holder.purge().await;
    second.up(&text).await.expect("the port is free now");
    second.purge().await;
}

pub(crate) async fn a_crash_is_drift(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "crash");
    let dies = r#"entrypoint: ["sh", "-c", "sleep 3; exit 5"]"#;
    tenant.up(&stack(&[("a", &[dies]), ("b", &[SLEEPS])], "")).await.expect("it comes up");
    eventually("a has exited", async || tenant.states().await["a-1"] == "exited").await;
    let plan = tenant.plan(tenant.deployed()).await;
    let drift: Vec<Action> =
        plan.steps.iter().map(|step| step.action).filter(|action| *action != Action::Keep).collect();
    // A group starts again as a whole.
    let wanted = if world.grouped { &[Action::Restart; 2][..] } else { &[Action::Start] };
    assert_eq!(drift, wanted, "{plan:#?}");
    assert_eq!(tenant.containers().await["a-1"].status.exit_code, Some(5));
    tenant.purge().await;
}

pub(crate) async fn what_was_being_stopped_runs_again(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "halfway");
    let grace = Duration::from_secs(6);
    let text = |value: &str, rest: &str| {
        let label = format!("labels: {{value: '{value}'}}");
        stack(&[("a", &[SLEEPS, &label]), ("b", &[SLEEPS, &label])], rest)
            .replace("stop_signal: SIGKILL", "stop_signal: SIGCONT\n    stop_grace_period: 6s")
    };
    tenant.up(&text("1", "")).await.expect("it comes up");
    let before = tenant.identities().await;
    for rest in ["", "networks: {default: {internal: true}}\n"] {
        let (wanted, run) = (tenant.next(&text("2", rest)), Tenant::run());
        let images = tenant.images_of(&wanted).await;
        let plan = backend.plan(&wanted, &images, &run).await.expect("a plan");
        // Dropped while the old containers have been told to stop, as when the agent dies.
        let applying = tokio::time::timeout(Duration::from_secs(2), backend.apply(&wanted, &images, &plan, &run)).await;
        if let Ok(applied) = applying {
            // A pretend process ends at any signal.
            applied.expect("nothing is wrong with it");
        }
        let told = Instant::now();
        let settled = backend.settle(&tenant.owner, tenant.generation, tenant.current.as_ref(), Some(&plan.undo));
        settled.await.expect("it settles back");
        // By then every stop that anybody asked for is over.
        tokio::time::sleep((grace + Duration::from_secs(1)).saturating_sub(told.elapsed())).await;
        tenant.assert_running(&["a-1", "b-1"]).await;
        let after = tenant.identities().await;
        assert_eq!((&after["a-1"].0, &after["b-1"].0), (&before["a-1"].0, &before["b-1"].0));
        tenant.assert_settled().await;
    }
    tenant.purge().await;
}

pub(crate) async fn a_lost_record_costs_no_data(backend: &dyn Backend, world: &World) {
    let text = |command: &str| {
        let command = format!(r#"entrypoint: ["sh", "-c", "{command}; sleep 3600"]"#);
        // The second service keeps the apply waiting long enough to see the first one fail.
        stack(
            &[("db", &[&command, "volumes: ['store:/data']"]), ("ok", &[SLEEPS, HEALTHY, "depends_on: [db]"])],
            "volumes: {store: {}}\n",
        )
    };
    let mut known = Tenant::new(backend, world, "lost");
    known.up(&stack(&[("db", &[SLEEPS])], "")).await.expect("it comes up");
    known.up(&text("touch /data/mark")).await.expect("it gets its volume in its second generation");

    let mut tenant = Tenant::new(backend, world, "lost");
    tenant.up(&text("exit 9")).await.expect_err("the first attempt after the loss fails");
    assert!(tenant.containers().await.is_empty());
    tenant.up(&text("test -f /data/mark || exit 9")).await.expect("the mark is still there");
    tenant.assert_running(&["db-1", "ok-1"]).await;

    let mut again = Tenant::new(backend, world, "lost");
    tenant.up(&text("test -f /data/mark || exit 8")).await.expect("a second generation");
    again.up(&text("test -f /data/mark || exit 8")).await.expect("lost again, and wanted as it is");
    again.assert_running(&["db-1", "ok-1"]).await;
    again.assert_settled().await;
    again.purge().await;
}
