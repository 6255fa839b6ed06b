//! Updates: what is made anew and what is left alone.

use std::collections::BTreeSet;

use q8_agent::backend::{Action, Backend, PlannedObject};

use super::{HEALTHY, SLEEPS, Tenant, World, service, stack};

pub(crate) async fn a_change_recreates_its_service_only(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "change");
    let text = |value: &str| {
        let environment = format!("environment: {{VALUE: '{value}'}}");
        stack(&[("a", &[SLEEPS, &environment]), ("b", &[SLEEPS, "depends_on: [a]"])], "")
    };
    tenant.up(&text("1")).await.expect("it comes up");
    let before = tenant.identities().await;
    let plan = tenant.up(&text("2")).await.expect("it is updated");
    let changed: Vec<(&str, Action)> = plan
        .steps
        .iter()
        .filter(|step| step.action != Action::Keep)
        .map(|step| match &step.object {
            PlannedObject::Container { service, .. } => (service.as_str(), step.action),
            other => panic!("{other:?} is to stay"),
        })
        .collect();
    assert_eq!(changed, [("a", Action::Recreate)]);
    let after = tenant.identities().await;
    assert_eq!(after["b-1"], before["b-1"]);
    assert_ne!(after["a-1"].0, before["a-1"].0);
    tenant.assert_running(&["a-1", "b-1"]).await;
    let name = format!("{}-a-1", tenant.owner.project());
    assert_eq!(tenant.containers().await["a-1"].status.name.as_str(), name, "the new container has the old one's name");
    tenant.assert_settled().await;
    tenant.purge().await;
}

pub(crate) async fn replicas_come_and_go(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "scale");
    let text = |count: u32| stack(&[("web", &[SLEEPS, &format!("deploy: {{replicas: {count}}}")])], "");
    tenant.up(&text(1)).await.expect("it comes up");
    let one = tenant.identities().await;
    tenant.up(&text(3)).await.expect("it grows");
    tenant.assert_running(&["web-1", "web-2", "web-3"]).await;
    let three = tenant.identities().await;
    assert_eq!(three["web-1"], one["web-1"]);
    let plan = tenant.up(&text(1)).await.expect("it shrinks");
    let goes = plan.steps.iter().filter(|step| step.action == Action::Remove);
    assert_eq!(goes.map(|step| step.reason.as_str()).collect::<Vec<_>>(), ["more than 1 replicas"; 2]);
    tenant.assert_running(&["web-1"]).await;
    assert_eq!(tenant.identities().await["web-1"], three["web-1"]);
    tenant.assert_settled().await;
    tenant.purge().await;
}

pub(crate) async fn a_removed_service_goes(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "less");
    tenant.up(&stack(&[("a", &[SLEEPS]), ("b", &[SLEEPS])], "")).await.expect("it comes up");
    let before = tenant.identities().await;
    let plan = tenant.up(&stack(&[("a", &[SLEEPS])], "")).await.expect("it is updated");
    let goes = plan.steps.iter().find(|step| step.action == Action::Remove).expect("b goes");
    assert_eq!(
        (goes.object.to_string().as_str(), &*goes.reason),
        ("container b-1", "its service is no longer in the file")
    );
    tenant.assert_running(&["a-1"]).await;
    if backend.capabilities().partial_update {
        assert_eq!(tenant.identities().await["a-1"], before["a-1"]);
    }
    tenant.assert_settled().await;
    assert_eq!(tenant.purge().await.objects, world.objects(1, 1));
}

pub(crate) async fn a_removed_network_goes(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "nets");
    let two = stack(
        &[("a", &[SLEEPS, "networks: [front, back]"]), ("b", &[SLEEPS, "networks: [front]"])],
        "networks: {front: {}, back: {}}\n",
    );
    tenant.up(&two).await.expect("it comes up");
    let before = tenant.identities().await;
    let one = stack(
        &[("a", &[SLEEPS, "networks: [front]"]), ("b", &[SLEEPS, "networks: [front]"])],
        "networks: {front: {}}\n",
    );
    let plan = tenant.up(&one).await.expect("it is updated");
    let back = format!("{}_back", tenant.owner.project());
    assert!(
        plan.steps.iter().any(|step| {
            step.action == Action::Remove
                && matches!(&step.object, PlannedObject::Network { name, .. } if *name == back)
        }),
        "{plan:#?}"
    );
    let after = tenant.identities().await;
    assert_eq!(after["b-1"], before["b-1"]);
    assert_ne!(after["a-1"].0, before["a-1"].0);
    tenant.assert_settled().await;
    assert_eq!(tenant.purge().await.objects, 3, "two containers and a network");
}

pub(crate) async fn a_volume_survives_a_recreate(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "volume");
    let text = |command: &str| {
        let command = format!(r#"entrypoint: ["sh", "-c", "{command}; sleep 3600"]"#);
        // The second service keeps the apply waiting long enough to see the first one fail.
        stack(
            &[("db", &[&command, "volumes: ['store:/data']"]), ("ok", &[SLEEPS, HEALTHY, "depends_on: [db]"])],
            "volumes: {store: {}}\n",
        )
    };
    tenant.up(&text("touch /data/mark")).await.expect("it comes up");
    tenant.up(&text("test -f /data/mark || exit 9")).await.expect("the mark is still there");
    let error = tenant.up(&text("test -f /data/other || exit 9")).await.expect_err("such a mark was never made");
    assert_eq!(error.details().and_then(|details| details.exit_code), Some(9));
    tenant.assert_running(&["db-1", "ok-1"]).await;
    tenant.purge().await;
    tenant.up(&text("test -f /data/mark || exit 9")).await.expect_err("the purge took the mark");
    tenant.purge().await;
}

pub(crate) async fn a_changed_volume_keeps_its_data(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "volumedef");
    let text = |command: &str, rest: &str| {
        let command = format!(r#"entrypoint: ["sh", "-c", "{command}; sleep 3600"]"#);
        stack(&[("db", &[&command, "volumes: ['store:/data']"]), ("ok", &[SLEEPS, HEALTHY, "depends_on: [db]"])], rest)
    };
    tenant.up(&text("touch /data/mark", "volumes: {store: {}}\n")).await.expect("it comes up");
    let changed = text("test -f /data/mark || exit 9", "volumes: {store: {labels: {other: 'yes'}}}\n");
    let plan = tenant.up(&changed).await.expect("the mark is still there");
    assert!(plan.warnings.iter().any(|warning| warning.starts_with("volumes.store:")), "{plan}");
    tenant.assert_settled().await;
    tenant.purge().await;
}

pub(crate) async fn only_named_services_are_touched(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "only");
    let text = |value: &str| {
        let environment = format!("environment: {{VALUE: '{value}'}}");
        stack(&[("a", &[SLEEPS, &environment]), ("b", &[SLEEPS, &environment])], "")
    };
    tenant.up(&text("1")).await.expect("it comes up");
    let before = tenant.identities().await;
    let mut run = Tenant::run();
    run.only = Some(BTreeSet::from([service("a")]));
    tenant.up_as(tenant.next(&text("2")), &run).await.expect("it is updated");
    let after = tenant.identities().await;
    assert_ne!(after["a-1"].0, before["a-1"].0);
    assert_eq!(after["b-1"], before["b-1"]);
    tenant.up(&text("2")).await.expect("the rest follows");
    let last = tenant.identities().await;
    assert_eq!(last["a-1"], after["a-1"]);
    assert_ne!(last["b-1"].0, after["b-1"].0);
    tenant.purge().await;
}

pub(crate) async fn dependents_that_ask_for_it_are_restarted(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "follow");
    let text = |value: &str| {
        let environment = format!("environment: {{VALUE: '{value}'}}");
        stack(
            &[
                ("db", &[SLEEPS, &environment]),
                ("follows", &[SLEEPS, "depends_on: {db: {condition: service_started, restart: true}}"]),
                ("stays", &[SLEEPS, "depends_on: [db]"]),
            ],
            "",
        )
    };
    tenant.up(&text("1")).await.expect("it comes up");
    let before = tenant.identities().await;
    tenant.up(&text("2")).await.expect("it is updated");
    let after = tenant.identities().await;
    assert_eq!(after["stays-1"], before["stays-1"]);
    assert_eq!(after["follows-1"].0, before["follows-1"].0, "it is the same container");
    assert!(after["follows-1"].1 > after["db-1"].1, "it started after the new db");
    tenant.assert_settled().await;
    tenant.purge().await;
}

pub(crate) async fn steering_attributes_recreate_nothing(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "steer");
    tenant.up(&stack(&[("a", &[SLEEPS]), ("b", &[SLEEPS])], "")).await.expect("it comes up");
    let before = tenant.identities().await;
    let policy = if world.grouped { "pull_policy: missing" } else { "pull_policy: never" };
    let steered = stack(&[("a", &[SLEEPS, policy]), ("b", &[SLEEPS, "depends_on: [a]"])], "");
    let plan = tenant.up(&steered).await.expect("it stays up");
    assert!(plan.is_empty(), "{plan:#?}");
    assert_eq!(tenant.identities().await, before);
    tenant.purge().await;
}

pub(crate) async fn networks_of_other_services_are_left_alone(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "nets");
    let mut only_a = Tenant::run();
    only_a.only = Some(BTreeSet::from([service("a")]));
    let text = |networks: &str, value: &str, rest: &str| {
        let environment = format!("environment: {{VALUE: '{value}'}}");
        stack(&[("a", &[SLEEPS, &environment, networks]), ("b", &[SLEEPS, networks])], rest)
    };
    let both = "networks: [default, back]";
    tenant.up(&text(both, "1", "networks: {back: {}}\n")).await.expect("it comes up");
    let before = tenant.identities().await;

    let changed = text(both, "2", "networks: {back: {}, default: {internal: true}}\n");
    tenant.up_as(tenant.next(&changed), &only_a).await.expect("a is updated");
    assert_eq!(tenant.identities().await["b-1"], before["b-1"], "a network that b is on has changed");
    let gone = text("networks: [default]", "3", "networks: {default: {internal: true}}\n");
    tenant.up_as(tenant.next(&gone), &only_a).await.expect("a is updated");
    tenant.assert_running(&["a-1", "b-1"]).await;
    assert_eq!(tenant.identities().await["b-1"], before["b-1"], "a network that b is on has gone");

    tenant.up(&gone).await.expect("b follows");
    tenant.assert_running(&["a-1", "b-1"]).await;
    assert_ne!(tenant.identities().await["b-1"].0, before["b-1"].0);
    tenant.assert_settled().await;
    tenant.purge().await;
}
