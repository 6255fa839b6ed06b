//! Up, stop, start, restart, remove.

use std::time::Duration;

use q8_agent::backend::{Backend, BackendError};
use q8_agent::domain::{DesiredState, Generation, Health, ObjectName};

use super::{HEALTHY, IMAGE, SLEEPS, Tenant, World, service, stack};

pub(crate) async fn one_service_comes_up(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "one");
    let plan = tenant.up(&stack(&[("web", &[SLEEPS])], "")).await.expect("it comes up");
    assert!(!plan.is_empty());
    tenant.assert_running(&["web-1"]).await;
    let web = &tenant.containers().await["web-1"];
    assert_eq!(web.status.name.as_str(), tenant.container_name("web"));
    assert_eq!(web.status.image, IMAGE);
    assert_eq!(web.status.health, Health::None);
    assert_eq!(web.tenant, tenant.owner.subdomain);
    assert!(web.status.started_at.is_some());
    tenant.assert_settled().await;
    tenant.purge().await;
}

/// A database that is healthy soon, a one-shot that waits for it (but in a group, where nothing runs before one-shots), a
/// service that waits for both.
fn three(world: &World) -> String {
    let after_db = if world.grouped { "restart: 'no'" } else { "depends_on: {db: {condition: service_healthy}}" };
    stack(
        &[
            (
                "web",
                &[
                    SLEEPS,
                    "depends_on: {db: {condition: service_healthy}, migrate: {condition: service_completed_successfully}}",
                ],
            ),
            ("migrate", &[r#"entrypoint: ["sh", "-c", "sleep 0.2; echo migrated"]"#, after_db]),
            ("db", &[SLEEPS, HEALTHY]),
        ],
        "",
    )
}

pub(crate) async fn services_wait_for_health_and_completion(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "three");
    tenant.up(&three(world)).await.expect("it comes up");
    let containers = tenant.containers().await;
    let started = |name: &str| containers[name].status.started_at.expect("it was started");
    let apart = |early: &str, late: &str| started(late).duration_since(started(early)).as_millis();
    assert!(apart("db-1", "migrate-1") >= 150, "migrate started before db was healthy");
    assert!(apart("migrate-1", "web-1") >= 150, "web started before migrate was done");
    assert_eq!(containers["db-1"].status.health, Health::Healthy);
    assert_eq!(
        (containers["migrate-1"].status.state.as_str(), containers["migrate-1"].status.exit_code),
        ("exited", Some(0))
    );
    assert_eq!(containers["web-1"].status.state, "running");
    tenant.purge().await;
}

pub(crate) async fn an_identical_plan_is_empty(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "same");
    tenant.up(&three(world)).await.expect("it comes up");
    tenant.assert_settled().await;
    let before = tenant.identities().await;
    let plan = tenant.up(&three(world)).await.expect("it stays up");
    assert!(plan.is_empty(), "{plan:#?}");
    assert_eq!(tenant.identities().await, before);
    tenant.purge().await;
}

pub(crate) async fn stop_keeps_what_start_brings_back(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "stop");
    let text = stack(
        &[
            ("web", &[SLEEPS, "restart: always", "depends_on: [db]"]),
            ("db", &[SLEEPS, HEALTHY, "restart: unless-stopped"]),
        ],
        "",
    );
    tenant.up(&text).await.expect("it comes up");
    let before = tenant.identities().await;
    backend.stop(tenant.deployed(), None, &Tenant::run()).await.expect("it stops");
    for (name, container) in tenant.containers().await {
        assert_eq!(container.status.state, "exited", "{name}");
        // Azure chooses the signal.
        assert!(world.grouped || container.status.exit_code == Some(137), "{name}: {:?}", container.status);
        assert!(container.endpoints.is_empty(), "{name}");
    }
    let plan = tenant.plan(tenant.deployed()).await;
    assert!(!plan.is_empty(), "a stopped tenant that is meant to run is drift");
    backend.start(tenant.deployed(), None, &Tenant::run()).await.expect("it starts");
    tenant.assert_running(&["db-1", "web-1"]).await;
    assert_eq!(tenant.containers().await["db-1"].status.health, Health::Healthy, "start waits as an apply does");
    for (name, (id, started_at)) in tenant.identities().await {
        assert_eq!(id, before[&name].0, "{name}");
        assert!(started_at > before[&name].1, "{name}");
    }
    tenant.assert_settled().await;
    tenant.purge().await;
}

/// Engine 26.1 still lists a container as running for a moment after it has answered that it is stopped.
pub(crate) async fn a_stop_is_seen_at_once(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "at-once");
    tenant.up(&stack(&[("a", &[SLEEPS])], "")).await.expect("it comes up");
    let images = tenant.images_of(tenant.deployed()).await;
    for _ in 0..5 {
        backend.stop(tenant.deployed(), None, &Tenant::run()).await.expect("it stops");
        let all = backend.tenants().await.expect("all tenants");
        let own = all.iter().find(|container| container.tenant == tenant.owner.subdomain).expect("it is listed");
        assert_eq!(own.status.state, "exited");
        let plan = backend.plan(tenant.deployed(), &images, &Tenant::run()).await.expect("it can be planned");
        assert!(!plan.is_empty(), "a stopped tenant that is meant to run is drift");
        backend.start(tenant.deployed(), None, &Tenant::run()).await.expect("it starts");
    }
    tenant.purge().await;
}

pub(crate) async fn one_service_restarts_alone(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "restart");
    tenant.up(&stack(&[("a", &[SLEEPS]), ("b", &[SLEEPS])], "")).await.expect("it comes up");
    let before = tenant.identities().await;
    backend.restart(tenant.deployed(), Some(&service("a")), &Tenant::run()).await.expect("it restarts");
    let after = tenant.identities().await;
    assert_eq!(after["b-1"], before["b-1"]);
    assert_eq!(after["a-1"].0, before["a-1"].0);
    assert!(after["a-1"].1 > before["a-1"].1);
    backend.restart(tenant.deployed(), None, &Tenant::run()).await.expect("it restarts");
    let last = tenant.identities().await;
    assert!(last["a-1"].1 > after["a-1"].1 && last["b-1"].1 > after["b-1"].1);
    tenant.assert_running(&["a-1", "b-1"]).await;
    tenant.purge().await;
}

pub(crate) async fn a_named_service_stops_and_starts_alone(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "single");
    tenant.up(&stack(&[("a", &[SLEEPS]), ("b", &[SLEEPS, "depends_on: [a]"])], "")).await.expect("it comes up");
    let before = tenant.identities().await;
    backend.stop(tenant.deployed(), Some(&service("a")), &Tenant::run()).await.expect("it stops");
    let states = tenant.states().await;
    assert_eq!((states["a-1"].as_str(), states["b-1"].as_str()), ("exited", "running"));
    backend.start(tenant.deployed(), Some(&service("a")), &Tenant::run()).await.expect("it starts");
    tenant.assert_running(&["a-1", "b-1"]).await;
    assert_eq!(tenant.identities().await["b-1"], before["b-1"]);
    tenant.purge().await;
}

pub(crate) async fn a_completed_service_is_not_run_again(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "oneshot");
    let text = stack(
        &[
            ("web", &[SLEEPS, "depends_on: {migrate: {condition: service_completed_successfully}}"]),
            ("migrate", &[r#"entrypoint: ["true"]"#]),
        ],
        "",
    );
    tenant.up(&text).await.expect("it comes up");
    let before = tenant.identities().await;
    tenant.assert_settled().await;
    let run = Tenant::run();
    backend.restart(tenant.deployed(), None, &run).await.expect("it restarts");
    assert_eq!(tenant.identities().await["migrate-1"], before["migrate-1"], "after restart");
    backend.stop(tenant.deployed(), None, &run).await.expect("it stops");
    backend.start(tenant.deployed(), None, &run).await.expect("it starts");
    let after = tenant.identities().await;
    assert_eq!(after["migrate-1"], before["migrate-1"], "after stop and start");
    assert!(after["web-1"].1 > before["web-1"].1);
    tenant.assert_settled().await;
    tenant.purge().await;
}

pub(crate) async fn an_update_of_a_stopped_tenant_leaves_it_stopped(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "asleep");
    tenant.up(&stack(&[("a", &[SLEEPS]), ("b", &[SLEEPS])], "")).await.expect("it comes up");
    let before = tenant.identities().await;
    backend.stop(tenant.deployed(), None, &Tenant::run()).await.expect("it stops");
    let mut wanted = tenant.next(&stack(&[("a", &[SLEEPS, "environment: {X: '1'}"]), ("b", &[SLEEPS])], ""));
    wanted.desired = DesiredState::Stopped;
    tenant.up_as(wanted, &Tenant::run()).await.expect("it is updated");
    let after = tenant.containers().await;
    if world.grouped {
        assert_eq!(after["a-1"].status.state, "exited");
    } else {
        assert_ne!(after["a-1"].status.id, before["a-1"].0);
        assert_eq!(after["a-1"].status.state, "created");
    }
    assert_eq!(after["b-1"].status.id, before["b-1"].0);
    assert_eq!(after["b-1"].status.state, "exited");
    tenant.assert_settled().await;
    backend.start(tenant.deployed(), None, &Tenant::run()).await.expect("it starts");
    tenant.assert_running(&["a-1", "b-1"]).await;
    tenant.purge().await;
}

pub(crate) async fn removal_keeps_volumes_until_purged(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "remove");
    let first = r#"entrypoint: ["sh", "-c", "touch /data/mark; sleep 3600"]"#;
    tenant
        .up(&stack(&[("db", &[first, "volumes: ['store:/data']"])], "volumes: {store: {}}\n"))
        .await
        .expect("it comes up");
    let run = Tenant::run();
    let removed = backend.remove(&tenant.owner, tenant.current.as_ref(), false, &run).await.expect("it goes");
    assert_eq!(removed.objects, world.objects(1, 1));
    let volume = format!("{}_store", tenant.owner.project());
    assert_eq!(removed.volumes_kept.iter().map(ObjectName::as_str).collect::<Vec<_>>(), [&volume]);
    assert!(tenant.containers().await.is_empty());

    // A later provision finds the old data, and its failure does not cost them.
    tenant.current = None;
    let broken = stack(
        &[
            ("db", &[r#"entrypoint: ["false"]"#, "volumes: ['store:/data']"]),
            ("ok", &[SLEEPS, HEALTHY, "depends_on: [db]"]),
        ],
        "volumes: {store: {}}\n",
    );
    tenant.up(&broken).await.expect_err("db exits");
    let second = r#"entrypoint: ["sh", "-c", "test -f /data/mark && sleep 3600"]"#;
    tenant
        .up(&stack(
            &[("db", &[second, "volumes: ['store:/data']"]), ("ok", &[SLEEPS, HEALTHY, "depends_on: [db]"])],
            "volumes: {store: {}}\n",
        ))
        .await
        .expect("it comes up");
    tenant.assert_running(&["db-1", "ok-1"]).await;

    assert!(tenant.purge().await.volumes_kept.is_empty());
    let again = backend.remove(&tenant.owner, None, false, &run).await.expect("nothing is left to remove");
    assert_eq!((again.objects, again.volumes_kept.len()), (0, 0));
}

pub(crate) async fn repeats_are_harmless(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "again");
    let text = stack(&[("web", &[SLEEPS, "volumes: ['store:/data']"])], "volumes: {store: {}}\n");
    let (wanted, run) = (tenant.next(&text), Tenant::run());
    let images = tenant.images_of(&wanted).await;
    let plan = backend.plan(&wanted, &images, &run).await.expect("a plan");
    backend.apply(&wanted, &images, &plan, &run).await.expect("it comes up");
    let once = tenant.identities().await;
    // The same plan once more: as after an answer that was lost.
    backend.apply(&wanted, &images, &plan, &run).await.expect("it is up");
    assert_eq!(tenant.identities().await, once);
    for _ in 0..2 {
        backend.settle(&tenant.owner, wanted.generation, Some(&wanted), None).await.expect("it settles");
        assert_eq!(tenant.identities().await, once);
    }
    (tenant.generation, tenant.current) = (wanted.generation, Some(wanted));
    backend.start(tenant.deployed(), None, &run).await.expect("it runs already");
    assert_eq!(tenant.identities().await, once);
    for _ in 0..2 {
        backend.stop(tenant.deployed(), None, &run).await.expect("it stops");
    }
    for _ in 0..2 {
        backend.start(tenant.deployed(), None, &run).await.expect("it starts");
    }
    tenant.assert_running(&["web-1"]).await;
    for objects in [world.objects(1, 1), 0] {
        let removed = backend.remove(&tenant.owner, tenant.current.as_ref(), true, &run).await.expect("it goes");
        assert_eq!((removed.objects, removed.volumes_kept.len()), (objects, 0));
    }
    for _ in 0..2 {
        backend.settle(&tenant.owner, Generation::NONE, None, None).await.expect("nothing is left to settle");
    }
}

pub(crate) async fn published_ports_are_endpoints(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "ports");
    let port = if world.grouped { "ports: ['8080']" } else { "ports: ['127.0.0.1::8080']" };
    tenant.up(&stack(&[("web", &[SLEEPS, port])], "")).await.expect("it comes up");
    let web = &tenant.containers().await["web-1"];
    let [endpoint] = web.endpoints.as_slice() else { panic!("{:?}", web.endpoints) };
    assert_eq!((endpoint.service.as_str(), endpoint.port, endpoint.protocol.as_str()), ("web", 8080, "tcp"));
    if world.grouped {
        assert!(endpoint.host.ends_with(".azurecontainer.io"), "{}", endpoint.host);
        assert_eq!(endpoint.host_port, 8080);
    } else {
        assert_eq!(endpoint.host, "127.0.0.1");
        assert!(endpoint.host_port > 1024);
    }
    tenant.purge().await;
}

pub(crate) async fn images_are_told(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "images");
    let text = stack(&[("a", &[SLEEPS]), ("b", &[SLEEPS])], "");
    let resolved = tenant.images_of(&tenant.next(&text)).await;
    tenant.up(&text).await.expect("it comes up");
    let images = backend.images(&tenant.owner).await.expect("images");
    let mut services: Vec<&str> = images.iter().map(|image| image.service.as_str()).collect();
    services.sort_unstable();
    assert_eq!(services, ["a", "b"]);
    for image in &images {
        assert_eq!((image.image.as_str(), image.tag.as_deref()), (IMAGE, Some("1")));
        // Azure pulls, and does not say what.
        if !world.grouped {
            assert_eq!(image.id, resolved[&image.service].id);
            assert!(image.id.starts_with("sha256:"), "{}", image.id);
        }
    }
    tenant.purge().await;
}

pub(crate) async fn an_unknown_service_is_refused(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "unknown");
    tenant.up(&stack(&[("web", &[SLEEPS])], "")).await.expect("it comes up");
    let (nobody, run) = (service("nobody"), Tenant::run());
    let answers = [
        backend.start(tenant.deployed(), Some(&nobody), &run).await,
        backend.stop(tenant.deployed(), Some(&nobody), &run).await,
        backend.restart(tenant.deployed(), Some(&nobody), &run).await,
    ];
    for answer in answers {
        let refused = answer.expect_err("there is no such service");
        if backend.capabilities().single_service {
            assert!(matches!(&refused, BackendError::NoSuchService { service } if service == &nobody), "{refused:?}");
        }
    }
    tenant.purge().await;
}

pub(crate) async fn capabilities_are_honoured(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "able");
    tenant.up(&stack(&[("a", &[SLEEPS]), ("b", &[SLEEPS])], "")).await.expect("it comes up");
    let before = tenant.identities().await;
    let restarted = backend.restart(tenant.deployed(), Some(&service("a")), &Tenant::run()).await;
    if backend.capabilities().single_service {
        restarted.expect("one service can be restarted");
        assert_eq!(tenant.identities().await["b-1"], before["b-1"]);
    } else {
        let refused = restarted.expect_err("one service cannot be restarted");
        assert!(matches!(&refused, BackendError::Unsupported { field, .. } if field == "service"), "{refused:?}");
        assert_eq!(tenant.identities().await, before);
    }
    if backend.capabilities().partial_update {
        let now = tenant.identities().await;
        tenant.up(&stack(&[("a", &[SLEEPS, "environment: {X: '1'}"]), ("b", &[SLEEPS])], "")).await.expect("an update");
        assert_eq!(tenant.identities().await["b-1"], now["b-1"]);
    }
    tenant.purge().await;
}

pub(crate) async fn the_host_is_described(backend: &dyn Backend, _: &World) {
    backend.health().await.expect("it can be used");
    let host = backend.host().await.expect("a host");
    assert_eq!(host.engine, backend.name().as_str());
    assert!(!host.version.is_empty() && !host.api_version.is_empty() && !host.os.is_empty() && !host.arch.is_empty());
}

pub(crate) async fn no_grace_period_outlasts_the_operation(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "stubborn");
    // A signal that ends nothing, and three days to think about it.
    let text = stack(&[("a", &[SLEEPS]), ("b", &[SLEEPS])], "")
        .replace("stop_signal: SIGKILL", "stop_signal: SIGCONT\n    stop_grace_period: 72h");
    tenant.up(&text).await.expect("it comes up");
    let brief = || {
        let mut run = Tenant::run();
        run.deadline = tokio::time::Instant::now() + Duration::from_secs(8);
        run
    };
    backend.stop(tenant.deployed(), None, &brief()).await.expect("it stops");
    assert!(tenant.states().await.values().all(|state| state == "exited"), "{:?}", tenant.states().await);
    backend.start(tenant.deployed(), None, &Tenant::run()).await.expect("it starts");
    let removed = backend.remove(&tenant.owner, tenant.current.as_ref(), true, &brief()).await.expect("it goes");
    assert_eq!(removed.objects, world.objects(2, 1));
    assert!(tenant.containers().await.is_empty());
}
