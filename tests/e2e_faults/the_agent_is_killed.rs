//! kill -9 of the agent at any moment: at its next start every tenant is brought to what its record says, and nothing
//! half done is left.

use std::time::Duration;

use bollard::query_parameters::ListContainersOptionsBuilder;
use serde_json::{Value, json};

use crate::auditor::assert_no_litter;
use crate::scene::{
    HEALTHY, LONG, PROVISION, SERVES, SLEEPS, STUBBORN, UNDECIDED, UPDATE, assert_same, at_step, begin, containers,
    objects, project_files, purge, reaches, request, stack, status, tree, until_state,
};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::traces::without_notes;
use crate::support::{eventually, unique};

/// Waits until a container of this service and generation runs.
async fn runs(engine: &Engine, agent: &Agent<'_>, service: &str, generation: &str) {
    let label = agent.label();
    let wanted =
        vec![label, format!("com.docker.compose.service={service}"), format!("dev.q8.generation={generation}")];
    eventually(&format!("{service} of generation {generation} runs"), Duration::from_secs(60), async || {
        let filters = std::collections::HashMap::from([("label", wanted.clone())]);
        let list = ListContainersOptionsBuilder::new().filters(&filters).build();
        let found = engine.docker().list_containers(Some(list)).await.expect("the engine lists containers");
        (!found.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_an_update_waits_for_health() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let name = unique("killed");
    let text = |web: &[&str], rest: &str| {
        let services: &[(&str, &[&[&str]])] =
            &[("web", &[SERVES, &["volumes: ['./page:/page:ro']"], web]), ("db", &[SERVES]), ("old", &[SLEEPS])];
        stack(services, rest)
    };
    let mut body = request(&name, &text(&[], ""));
    body["files"] = json!({"page": "one\n", "gone": "gone\n"});
    agent.post(PROVISION, &body).await.expect(201);
    let (before, files) = (containers(&status(&agent, &name).await), project_files(&agent, &name));
    let things = objects(engine, &agent.label()).await;

    // Everything is applied (the new web runs, old is stopped, files, network and volume are new), only the commit is not.
    let next = stack(
        &[
            (
                "web",
                &[SERVES, &["volumes: ['./page:/page:ro', 'late:/late']", UNDECIDED, "networks: [default, third]"]],
            ),
            ("db", &[SERVES]),
        ],
        "volumes: {late: {}}\nnetworks: {default: {}, third: {}}\n",
    );
    let update =
        json!({"subdomain": name, "compose_content": next, "files": {"page": "two\n", "gone": null, "new": "new\n"}});
    let waiting = begin(&agent, UPDATE, &update);
    runs(engine, &agent, "web", "2").await;
    at_step(&agent, &name, "waiting for web").await;
    assert_eq!(project_files(&agent, &name)["page"].1, "two\n");
    agent.kill();
    assert!(waiting.await.expect("no panic").is_err(), "a killed agent answers nothing");

    agent.start_again().await;
    let status = until_state(&agent, &name, "running").await;
    assert_eq!(status["generation"], 1, "{status}");
    let after = containers(&status);
    for (service, container) in &before {
        assert_eq!(after[service].id, container.id, "{service} is the same container");
    }
    assert_eq!(after["db-1"], before["db-1"], "db was never touched");
    assert_same(&files, &project_files(&agent, &name), "the project files");
    let now = objects(engine, &agent.label()).await;
    assert_eq!(things.keys().collect::<Vec<_>>(), now.keys().collect::<Vec<_>>(), "nothing came and nothing went");
    assert_no_litter(engine, &agent, "at the end").await;
    reaches(engine, &after["old-1"], "web").await;
    assert_eq!(agent.get("/ready").await.expect(200)["degraded"], json!([]));
    assert_eq!(agent.post(PROVISION, &body).await.expect(200)["changed"], false);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn while_a_first_provision_waits_for_health() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let name = unique("killed");
    // That it was recovered is remembered for a while.
    let disk = |agent: &Agent<'_>| without_notes(tree(&agent.root()));
    let empty = disk(&agent);
    let text = |health: &str| {
        let volumes = "volumes: ['store:/store', './data/x:/x', './page:/page:ro']";
        stack(&[("web", &[SERVES, &[health, volumes]])], "volumes: {store: {}}\n")
    };
    let mut body = request(&name, &text(UNDECIDED));
    body["files"] = json!({"page": "page\n"});
    let waiting = begin(&agent, PROVISION, &body);
    runs(engine, &agent, "web", "1").await;
    agent.kill();
    assert!(waiting.await.expect("no panic").is_err(), "a killed agent answers nothing");
    assert!(!engine.labelled(&agent.label()).await.is_empty());

    agent.start_again().await;
    eventually("the tenant has never been there", Duration::from_secs(60), async || {
        let gone = agent.get(&format!("/v1/tenants/status/{name}")).await.status == 404;
        (gone && agent.get("/ready").await.json()["degraded"] == json!([])).then_some(())
    })
    .await;
    // A tenant is gone before the last of its files, and before what the engine was still making.
    eventually("nothing of it is left", LONG, async || {
        let engine_is_empty = engine.labelled(&agent.label()).await.is_empty();
        (engine_is_empty && disk(&agent) == empty).then_some(())
    })
    .await;
    body["compose_content"] = json!(text(HEALTHY));
    assert_eq!(agent.post(PROVISION, &body).await.expect(201)["generation"], 1);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn in_the_middle_of_a_stop() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let name = unique("killed");
    let always = "restart: always";
    let compose = stack(&[("web", &[SLEEPS, &[always, "depends_on: [db]"]]), ("db", &[STUBBORN, &[always]])], "");
    agent.post(PROVISION, &request(&name, &compose)).await.expect(201);
    let before = containers(&status(&agent, &name).await);
    let stopping = begin(&agent, &format!("/v1/tenants/stop/{name}"), &Value::Null);
    at_step(&agent, &name, "stopping containers").await;
    agent.kill();
    drop(stopping.await);
    agent.start_again().await;
    let stopped = until_state(&agent, &name, "stopped").await;
    assert_eq!(stopped["desired"], "stopped");
    let after = containers(&stopped);
    for (service, container) in &before {
        assert_eq!((&after[service].id, after[service].state.as_str()), (&container.id, "exited"), "{service}");
    }

    let starting = begin(&agent, &format!("/v1/tenants/start/{name}"), &Value::Null);
    drop(starting.await);
    let started = until_state(&agent, &name, "running").await;
    assert_eq!(containers(&started).len(), 2);

    let restarting = begin(&agent, &format!("/v1/tenants/restart/{name}"), &Value::Null);
    at_step(&agent, &name, "stopping containers").await;
    agent.kill();
    drop(restarting.await);
    agent.start_again().await;
    let after = containers(&until_state(&agent, &name, "running").await);
    for (service, container) in &before {
        assert_eq!((&after[service].id, after[service].state.as_str()), (&container.id, "running"), "{service}");
    }
    assert_no_litter(engine, &agent, "at the end").await;
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn in_the_middle_of_a_teardown() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let name = unique("killed");
    let compose = stack(
        &[
            ("web", &[SLEEPS, &["depends_on: [db]"]]),
            ("db", &[STUBBORN, &["volumes: ['store:/store', './data/x:/x']"]]),
        ],
        "volumes: {store: {}}\n",
    );
    let body = request(&name, &compose);
    agent.post(PROVISION, &body).await.expect(201);
    let tearing = begin(&agent, &format!("/v1/tenants/teardown/{name}"), &Value::Null);
    at_step(&agent, &name, "stopping and removing containers").await;
    agent.kill();
    drop(tearing.await);
    agent.start_again().await;
    until_state(&agent, &name, "kept").await;
    let volume = format!("q8-{name}_store");
    assert_eq!(engine.left(&agent.label()).await, [volume], "of the tenant its volume is left");
    assert!(agent.root().join(&name).join("data/x").is_dir(), "and its data");
    assert!(project_files(&agent, &name).is_empty(), "the files are archived");

    agent.post(PROVISION, &body).await.expect(201);
    let purging = begin(&agent, &format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null);
    at_step(&agent, &name, "stopping and removing containers").await;
    agent.kill();
    drop(purging.await);
    agent.start_again().await;
    eventually("the tenant is gone", Duration::from_secs(60), async || {
        let gone = agent.get(&format!("/v1/tenants/status/{name}")).await.status == 404;
        (gone && agent.get("/ready").await.json()["degraded"] == json!([])).then_some(())
    })
    .await;
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
    assert!(!agent.root().join(&name).exists());
    assert_no_litter(engine, &agent, "at the end").await;
}

#[tokio::test]
async fn while_it_still_runs_a_second_one_refuses_to_start() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let mut second = Options::docker(engine).env("Q8_AGENT_TENANTS_ROOT", agent.root()).spawn();
    let exit = second.wait_exit(Duration::from_secs(30)).await;
    assert_eq!(exit.code(), Some(1));
    assert!(second.log().contains("another agent runs on this tenants root"), "{}", second.log());
    assert!(second.log().contains("Q8_AGENT_TENANTS_ROOT"), "{}", second.log());
    agent.get("/ready").await.expect(200);
}
