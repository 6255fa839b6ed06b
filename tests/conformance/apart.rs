//! The behaviours that a backend cannot have where all containers of a tenant are one group of Azure's, and what it does in
//! place of each. Nothing is left out without a word: what cannot be done is refused with its field, or the plan says so.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use q8_agent::backend::{Action, Backend, BackendError, LogCursor, LogEvent, LogLine, LogQuery, Sighting, Tail, Used};
use q8_agent::domain::{ErrorCode, ObjectName};

use super::{SLEEPS, Tenant, World, service, stack};

/// One row of the table.
pub(crate) struct Apart {
    /// The behaviour's name in the suite.
    pub(crate) behaviour: &'static str,
    /// Why a group cannot have it.
    pub(crate) because: &'static str,
    /// What holds in its place.
    instead: Instead,
}

enum Instead {
    /// A service with these attributes is refused at this field, and nothing is made.
    Refused { service: &'static [&'static str], field: &'static str },
    /// It comes up, and the plan warns of this field.
    Warned { service: &'static [&'static str], field: &'static str },
    /// An operation on one service alone is refused.
    WholeOnly,
    /// An update of one service alone is refused.
    UpdatedWholeOnly,
    /// Something else.
    Is(Check),
}

type Check = for<'a> fn(&'a dyn Backend, &'a World) -> BoxFuture<'a, ()>;

const fn refused(
    behaviour: &'static str,
    because: &'static str,
    service: &'static [&'static str],
    field: &'static str,
) -> Apart {
    Apart { behaviour, because, instead: Instead::Refused { service, field } }
}

const fn warned(behaviour: &'static str, because: &'static str, field: &'static str) -> Apart {
    let service = &[SLEEPS, "deploy: {update_config: {order: start-first}}", "networks: [default, back]", NEEDS];
    Apart { behaviour, because, instead: Instead::Warned { service, field } }
}

const fn is(behaviour: &'static str, because: &'static str, check: Check) -> Apart {
    Apart { behaviour, because, instead: Instead::Is(check) }
}

const NEEDS: &str = "depends_on: {other: {condition: service_started, restart: true}}";
const AS_A_WHOLE: &str = "a group changes as a whole";
const NO_HOOKS: &str = "nothing can be run in a container at its start or before its end";
const NO_NUMBERS: &str = "Azure's metrics have the numbers, the group has none";
const POST_START: &[&str] = &[SLEEPS, "post_start: [{command: ['true']}]"];
const PRE_STOP: &[&str] = &[SLEEPS, "pre_stop: [{command: ['true']}]"];
const UPDATE_CONFIG: &str = "services.web.deploy.update_config:";

/// See the module.
pub(crate) const TABLE: &[Apart] = &[
    refused(
        "services_wait_for_health_and_completion",
        "one-shots run before everything else, so none can wait for a service that stays",
        &[r#"entrypoint: ["true"]"#, "depends_on: {other: {condition: service_healthy}}"],
        "services.web.depends_on.other",
    ),
    Apart { behaviour: "one_service_restarts_alone", because: AS_A_WHOLE, instead: Instead::WholeOnly },
    Apart { behaviour: "a_named_service_stops_and_starts_alone", because: AS_A_WHOLE, instead: Instead::WholeOnly },
    is("a_completed_service_is_not_run_again", "one-shots run at each start of the group", |backend, world| {
        one_shots_run_at_each_start(backend, world).boxed()
    }),
    is("a_change_recreates_its_service_only", AS_A_WHOLE, |backend, world| {
        a_change_restarts_all_where_they_are(backend, world).boxed()
    }),
    refused(
        "replicas_come_and_go",
        "a group has one container for each service",
        &[SLEEPS, "deploy: {replicas: 2}"],
        "services.web.deploy.replicas",
    ),
    warned("a_removed_network_goes", "all containers of a group are on its one network", "networks:"),
    is("a_volume_survives_a_recreate", "what is in a share is seen by no double", |backend, world| {
        a_share_outlives_updates_and_removals(backend, world).boxed()
    }),
    is("a_changed_volume_keeps_its_data", "a share has none of the file's labels", |backend, world| {
        labels_of_a_volume_change_nothing(backend, world).boxed()
    }),
    Apart { behaviour: "only_named_services_are_touched", because: AS_A_WHOLE, instead: Instead::UpdatedWholeOnly },
    Apart {
        behaviour: "networks_of_other_services_are_left_alone",
        because: AS_A_WHOLE,
        instead: Instead::UpdatedWholeOnly,
    },
    warned("dependents_that_ask_for_it_are_restarted", AS_A_WHOLE, "services.web.depends_on.other:"),
    is("the_deadline_is_kept", "of probes failures alone are told, so no health is undecided", |backend, world| {
        a_deadline_that_is_too_early_is_kept(backend, world).boxed()
    }),
    refused(
        "a_taken_port_is_refused",
        "every group has an address of its own, and publishes on nothing else",
        &[SLEEPS, "ports: ['127.0.0.1:80:80']"],
        "services.web.ports[0]",
    ),
    refused("post_start_comes_before_dependents", NO_HOOKS, POST_START, "services.web.post_start"),
    refused("a_failed_post_start_fails_the_apply", NO_HOOKS, POST_START, "services.web.post_start"),
    refused("a_post_start_ends_by_the_deadline", NO_HOOKS, POST_START, "services.web.post_start"),
    refused("pre_stop_comes_before_every_stop", NO_HOOKS, PRE_STOP, "services.web.pre_stop"),
    refused("no_pre_stop_keeps_a_container_alive", NO_HOOKS, PRE_STOP, "services.web.pre_stop"),
    warned("start_first_waits_for_health", AS_A_WHOLE, UPDATE_CONFIG),
    warned("a_failed_start_first_disturbs_nothing", AS_A_WHOLE, UPDATE_CONFIG),
    warned("what_was_replaced_start_first_comes_back", AS_A_WHOLE, UPDATE_CONFIG),
    refused(
        "groups_are_replaced_one_after_another",
        "a group has one container for each service",
        &[SLEEPS, "deploy: {replicas: 3, update_config: {parallelism: 1}}"],
        "services.web.deploy.replicas",
    ),
    warned("monitored_containers_must_stay_well", AS_A_WHOLE, UPDATE_CONFIG),
    warned("start_first_is_not_for_all", AS_A_WHOLE, UPDATE_CONFIG),
    warned("dependents_stop_before_what_they_depend_on", AS_A_WHOLE, "services.web.depends_on.other:"),
    refused(
        "followers_see_what_joins",
        "a group has one container for each service",
        &[SLEEPS, "scale: 2"],
        "services.web.scale",
    ),
    is(
        "what_went_with_its_container_is_a_gap",
        "a container is the same one after an update; its log is not",
        |backend, world| a_log_that_began_anew_is_a_gap(backend, world).boxed(),
    ),
    is("usage_is_told", NO_NUMBERS, |backend, world| containers_are_told_without_numbers(backend, world).boxed()),
    is("what_works_uses_cpu", NO_NUMBERS, |backend, world| containers_are_told_without_numbers(backend, world).boxed()),
    is("what_is_held_is_told", "images are Azure's; a share's size costs a call", |backend, world| {
        shares_are_held_and_no_images(backend, world).boxed()
    }),
    is("a_watch_tells_every_end", "of the ends between two looks only the last can be seen", |backend, world| {
        a_watch_tells_the_last_end(backend, world).boxed()
    }),
    is("what_is_set_aside_is_not_told", "nothing is set aside: a group is changed where it is", |backend, world| {
        a_change_restarts_all_where_they_are(backend, world).boxed()
    }),
];

/// The row of a behaviour.
pub(crate) fn of(behaviour: &str) -> Option<&'static Apart> {
    TABLE.iter().find(|apart| apart.behaviour == behaviour)
}

impl Apart {
    /// Asserts what holds in place of the behaviour.
    pub(crate) async fn hold(&self, backend: &dyn Backend, world: &World) {
        let (mut tenant, because) = (Tenant::new(backend, world, "apart"), self.because);
        let with = |attributes: &[&str], rest: &str| {
            let awaits = "depends_on: {web: {condition: service_completed_successfully}}";
            // The one that waits is awaited.
            let last: &[&str] = if attributes.contains(&SLEEPS) { &[SLEEPS] } else { &[SLEEPS, awaits] };
            stack(&[("web", attributes), ("other", &[SLEEPS]), ("last", last)], rest)
        };
        match &self.instead {
            Instead::Refused { service, field } => {
                let error = tenant.up(&with(service, "")).await.expect_err(because);
                assert_eq!(error.code(), ErrorCode::UnsupportedOnBackend, "{because}: {error:?}");
                assert_eq!(error.field().as_deref(), Some(*field), "{because}: {error}");
                assert!(tenant.containers().await.is_empty());
                let left = backend.remove(&tenant.owner, None, false, &Tenant::run()).await.expect("there is nothing");
                assert_eq!((left.objects, left.volumes_kept.len()), (0, 0));
            }
            Instead::Warned { service, field } => {
                let plan = tenant.up(&with(service, "networks: {back: {}}\n")).await.expect("it comes up");
                assert!(plan.warnings.iter().any(|warning| warning.starts_with(field)), "{because}: {plan}");
                tenant.assert_running(&["last-1", "other-1", "web-1"]).await;
                tenant.purge().await;
            }
            Instead::WholeOnly => {
                tenant.up(&with(&[SLEEPS], "")).await.expect("it comes up");
                let (before, run, web) = (tenant.identities().await, Tenant::run(), service("web"));
                for answer in [
                    backend.restart(tenant.deployed(), Some(&web), &run).await,
                    backend.stop(tenant.deployed(), Some(&web), &run).await,
                    backend.start(tenant.deployed(), Some(&web), &run).await,
                ] {
                    let error = answer.expect_err(because);
                    assert!(
                        matches!(&error, BackendError::Unsupported { field, .. } if field == "service"),
                        "{error:?}"
                    );
                }
                assert_eq!(tenant.identities().await, before);
                tenant.purge().await;
            }
            Instead::UpdatedWholeOnly => {
                tenant.up(&with(&[SLEEPS], "")).await.expect("it comes up");
                let before = tenant.identities().await;
                let mut run = Tenant::run();
                run.only = Some(BTreeSet::from([service("web")]));
                let wanted = tenant.next(&with(&[SLEEPS, "environment: {X: '1'}"], ""));
                let error = tenant.up_as(wanted, &run).await.expect_err(because);
                assert!(matches!(&error, BackendError::Unsupported { field, .. } if field == "services"), "{error:?}");
                assert_eq!(tenant.identities().await, before);
                tenant.purge().await;
            }
            Instead::Is(check) => check(backend, world).await,
        }
    }
}

async fn one_shots_run_at_each_start(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "oneshot");
    let waits = "depends_on: {migrate: {condition: service_completed_successfully}}";
    let text = stack(&[("web", &[SLEEPS, waits]), ("migrate", &[r#"entrypoint: ["true"]"#])], "");
    tenant.up(&text).await.expect("it comes up");
    tenant.assert_settled().await;
    let before = tenant.identities().await;
    backend.restart(tenant.deployed(), None, &Tenant::run()).await.expect("it restarts");
    let after = tenant.identities().await;
    assert!(after["migrate-1"].1 > before["migrate-1"].1 && after["web-1"].1 > after["migrate-1"].1, "{after:?}");
    tenant.assert_settled().await;
    tenant.purge().await;
}

async fn a_change_restarts_all_where_they_are(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "change");
    let text = |value: &str| {
        let environment = format!("environment: {{VALUE: '{value}'}}");
        stack(&[("a", &[SLEEPS, &environment]), ("b", &[SLEEPS])], "")
    };
    tenant.up(&text("1")).await.expect("it comes up");
    let before = tenant.identities().await;
    let plan = tenant.up(&text("2")).await.expect("it is updated");
    assert!(plan.steps.iter().all(|step| step.action == Action::Recreate), "{plan}");
    assert!(plan.warnings.iter().any(|warning| warning.starts_with("every container of the group restarts")), "{plan}");
    let after = tenant.identities().await;
    for name in ["a-1", "b-1"] {
        assert_eq!(after[name].0, before[name].0);
        assert!(after[name].1 > before[name].1, "{name}");
    }
    tenant.assert_running(&["a-1", "b-1"]).await;
    tenant.assert_settled().await;
    tenant.purge().await;
}

const STORE: [&str; 2] = [SLEEPS, "volumes: ['store:/data']"];

async fn a_share_outlives_updates_and_removals(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "share");
    let store = "volumes: {store: {}}\n";
    tenant.up(&stack(&[("db", &STORE)], store)).await.expect("it comes up");
    // With more memory the group is made anew.
    for more in ["environment: {X: '1'}", "mem_limit: 2g"] {
        tenant.up(&stack(&[("db", &[STORE[0], STORE[1], more])], store)).await.expect("it is updated");
    }
    tenant.up(&stack(&[("db", &[SLEEPS])], "")).await.expect("it is used no more");
    let (current, run) = (tenant.current.take(), Tenant::run());
    let removed = backend.remove(&tenant.owner, current.as_ref(), false, &run).await.expect("it goes");
    let volume = format!("{}_store", tenant.owner.project());
    assert_eq!(removed.volumes_kept.iter().map(ObjectName::as_str).collect::<Vec<_>>(), [&volume]);
    let purged = tenant.purge().await;
    assert_eq!((purged.objects, purged.volumes_kept.len()), (0, 0));
}

async fn labels_of_a_volume_change_nothing(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "labels");
    tenant.up(&stack(&[("db", &STORE)], "volumes: {store: {}}\n")).await.expect("it comes up");
    let before = tenant.identities().await;
    let labelled = stack(&[("db", &STORE)], "volumes: {store: {labels: {other: 'yes'}}}\n");
    let plan = tenant.up(&labelled).await.expect("it stays up");
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(tenant.identities().await, before);
    tenant.purge().await;
}

async fn a_deadline_that_is_too_early_is_kept(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "late");
    tenant.up(&stack(&[("web", &[SLEEPS])], "")).await.expect("it comes up");
    let before = tenant.identities().await;
    // Between two looks at a group lies more than this.
    let mut run = Tenant::run();
    run.deadline = tokio::time::Instant::now() + Duration::from_millis(200);
    let wanted = tenant.next(&stack(&[("web", &[SLEEPS, "environment: {X: '1'}"])], ""));
    let error = tenant.up_as(wanted, &run).await.expect_err("too late");
    assert_eq!(error.code(), ErrorCode::DeadlineExceeded, "{error:?}");
    tenant.assert_running(&["web-1"]).await;
    assert_eq!(tenant.identities().await["web-1"].0, before["web-1"].0);
    tenant.assert_settled().await;
    tenant.purge().await;
}

async fn a_log_that_began_anew_is_a_gap(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "gap");
    let says = |word: &str| {
        let entrypoint = format!(r#"entrypoint: ["sh", "-c", "echo {word}; sleep 3600"]"#);
        stack(&[("web", &[&entrypoint])], "")
    };
    let owner = tenant.owner.clone();
    let read = async |cursor: Option<LogCursor>| {
        let query = LogQuery { services: vec![], tail: Tail::All, follow: false, since: None, until: None, cursor };
        let events: Vec<_> = backend.logs(&owner, &query).await.expect("logs").collect().await;
        let (mut cursor, mut gaps) = (query.cursor.unwrap_or_default(), 0);
        let (mut lines, mut text) = (Vec::<LogLine>::new(), Vec::new());
        for event in events.into_iter().flat_map(|events| events.expect("no failure")) {
            match event {
                LogEvent::Joined(mark) => cursor.join(mark),
                LogEvent::Left(source) => cursor.leave(source),
                LogEvent::Gap(_) => gaps += 1,
                LogEvent::Line(line) => {
                    cursor.told(&line);
                    text.push(String::from_utf8_lossy(&line.line).into_owned());
                    lines.push(line);
                }
            }
        }
        (cursor, gaps, text)
    };
    tenant.up(&says("one")).await.expect("it comes up");
    let (cursor, gaps, text) = read(None).await;
    assert_eq!((gaps, text), (0, vec![String::from("one")]));
    tenant.up(&says("two")).await.expect("it is updated");
    let (cursor, gaps, text) = read(Some(cursor)).await;
    assert_eq!((gaps, text), (1, vec![String::from("two")]));
    let (_, gaps, text) = read(Some(cursor)).await;
    assert_eq!((gaps, text.len()), (0, 0), "it is told once");
    tenant.purge().await;
}

async fn containers_are_told_without_numbers(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "use");
    tenant.up(&stack(&[("idle", &[SLEEPS]), ("web", &[SLEEPS])], "")).await.expect("it comes up");
    let containers = tenant.containers().await;
    for told in [backend.usage(Some(&tenant.owner)).await, backend.usage(None).await] {
        let told = told.expect("usage");
        assert_eq!(told.iter().map(|usage| usage.service.as_str()).collect::<Vec<_>>(), ["idle", "web"]);
        for usage in &told {
            let status = &containers[&format!("{}-1", usage.service)].status;
            assert_eq!((&usage.id, &usage.name, usage.running), (&status.id, &status.name, true));
            assert_eq!(usage.used, Used::default());
        }
    }
    tenant.purge().await;
    assert!(backend.usage(None).await.expect("usage").is_empty());
}

async fn shares_are_held_and_no_images(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "holds");
    tenant.up(&stack(&[("db", &STORE)], "volumes: {store: {}}\n")).await.expect("it comes up");
    let held = backend.holdings().await.expect("what it holds");
    assert_eq!(held.images, None, "{held:?}");
    let sizes = backend.volume_sizes().await.expect("sizes").unwrap_or_default();
    let told: Vec<_> = sizes.iter().map(|size| (size.owner.as_ref(), size.name.as_str().ends_with("_store"))).collect();
    assert_eq!(told, [(Some(&tenant.owner.subdomain), true)], "{sizes:?}");
    tenant.purge().await;
}

async fn a_watch_tells_the_last_end(backend: &dyn Backend, world: &World) {
    let mut tenant = Tenant::new(backend, world, "dies");
    let mut sightings = backend.watch().await.expect("it can be watched");
    let dies = r#"entrypoint: ["sh", "-c", "sleep 1; exit 3"]"#;
    tenant.up(&stack(&[("bad", &[dies, "restart: always"])], "")).await.expect("it comes up");
    let ended = loop {
        let next = tokio::time::timeout(Duration::from_secs(100), sightings.next()).await;
        if let Sighting::Ended(ended) = next.expect("something is told in time").expect("the watch goes on") {
            break ended;
        }
    };
    assert_eq!((ended.code, ended.requested, ended.service.as_str()), (3, false, "bad"));
    tenant.purge().await;
}
