//! Tenants do not meet.

use q8_agent::backend::{Backend, LogEvent, LogQuery, Tail, TenantRef};
use q8_agent::domain::{ErrorCode, Generation, TenantId};

use futures::StreamExt as _;

use super::{SLEEPS, Tenant, World, stack};

pub(crate) async fn tenants_with_similar_names_do_not_mix(backend: &dyn Backend, world: &World) {
    // `a` with service `b-c` and `a-b` with service `c` arrive at one container name.
    let mut short = Tenant::new(backend, world, "a");
    let mut long = Tenant::new(backend, world, "a-b");
    let talks = r#"entrypoint: ["sh", "-c", "echo from short; sleep 3600"]"#;
    short.up(&stack(&[("b-c", &[talks])], "")).await.expect("it comes up");
    long.up(&stack(&[("c", &[SLEEPS])], "")).await.expect("it comes up beside it");
    short.assert_running(&["b-c-1"]).await;
    long.assert_running(&["c-1"]).await;
    let (first, second) = (short.containers().await["b-c-1"].clone(), long.containers().await["c-1"].clone());
    assert_ne!(first.status.name, second.status.name);
    // In a group of its own it needs none.
    let suffixed = second.status.name.as_str().starts_with(first.status.name.as_str());
    assert!(world.grouped || suffixed, "the second gets a suffix");
    long.assert_settled().await;
    assert_eq!(backend.images(&long.owner).await.expect("images").len(), 1);
    let query =
        LogQuery { services: Vec::new(), tail: Tail::All, follow: false, since: None, until: None, cursor: None };
    let told = backend.logs(&long.owner, &query).await.expect("logs").collect::<Vec<_>>().await;
    let told: Vec<LogEvent> = told.into_iter().flat_map(|events| events.expect("no failure")).collect();
    assert!(!told.iter().any(|event| matches!(event, LogEvent::Line(_))), "{told:?}");

    backend.stop(long.deployed(), None, &Tenant::run()).await.expect("it stops");
    short.assert_running(&["b-c-1"]).await;
    let before = short.identities().await;
    long.purge().await;
    assert_eq!(short.identities().await, before);
    short.assert_settled().await;
    short.purge().await;
}

pub(crate) async fn another_identity_touches_nothing(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "mine");
    let text = stack(&[("web", &[SLEEPS, "volumes: ['store:/data']"])], "volumes: {store: {}}\n");
    tenant.up(&text).await.expect("it comes up");
    let before = tenant.identities().await;
    let run = Tenant::run();
    let stranger = TenantRef { id: TenantId::parse("id-stranger").expect("an id"), ..tenant.owner.clone() };
    let removed = backend.remove(&stranger, None, true, &run).await.expect("there is nothing of the stranger's");
    assert_eq!((removed.objects, removed.volumes_kept.len()), (0, 0));
    backend.settle(&stranger, Generation::NONE, None, None).await.expect("there is nothing of the stranger's");
    assert!(backend.status(&stranger).await.expect("a status").is_empty());
    assert!(backend.images(&stranger).await.expect("images").is_empty());

    // What the stranger would make has names that are taken.
    let wanted = world.deployment(&stranger, Generation(1), &text);
    let images = tenant.images_of(&wanted).await;
    let refused = match backend.plan(&wanted, &images, &run).await {
        Err(refused) => refused,
        Ok(plan) => backend.apply(&wanted, &images, &plan, &run).await.expect_err("the names are taken"),
    };
    assert_eq!(refused.code(), ErrorCode::NameTaken, "{refused:?}");
    backend.settle(&stranger, Generation::NONE, None, None).await.expect("it settles");
    assert_eq!(tenant.identities().await, before);
    tenant.assert_settled().await;
    tenant.purge().await;
}

pub(crate) async fn tenants_lists_them_all(backend: &dyn Backend, world: &World) {
    let mut first = Tenant::new(backend, world, "list-1");
    let mut second = Tenant::new(backend, world, "list-2");
    first.up(&stack(&[("a", &[SLEEPS]), ("b", &[SLEEPS])], "")).await.expect("it comes up");
    second.up(&stack(&[("a", &[SLEEPS])], "")).await.expect("it comes up");
    backend.stop(second.deployed(), None, &Tenant::run()).await.expect("it stops");
    let all = backend.tenants().await.expect("all tenants");
    for (tenant, wanted) in [(&first, &[("a", "running"), ("b", "running")][..]), (&second, &[("a", "exited")])] {
        let mut seen: Vec<(&str, &str)> = all
            .iter()
            .filter(|container| container.tenant == tenant.owner.subdomain)
            .map(|container| (container.service.as_str(), container.status.state.as_str()))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, wanted);
    }
    first.purge().await;
    second.purge().await;
}
