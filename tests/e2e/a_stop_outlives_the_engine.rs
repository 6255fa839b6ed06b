//! A stop holds until a start, whatever the engine or the agent goes through; and so does a start until a stop.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::eventually;
use crate::tenant::{PATIENCE, Tenant, inspect, service};

/// Ends at SIGTERM, because an engine that stops waits for its containers.
const STACK: &str = r#"
x-common: &common {image: "q8test/busybox:1", command: [sleep, "3600"], init: true}
services:
  always: {<<: *common, restart: always}
  unless: {<<: *common, restart: unless-stopped}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_engine_changes_no_decision() {
    let engine = Engine::own();
    engine.with_busybox().await;
    let agent = Options::docker(&engine).start().await;
    let (stopped, running, half) =
        (Tenant::new(&agent, "stopped"), Tenant::new(&agent, "running"), Tenant::new(&agent, "half"));
    for tenant in [&stopped, &running, &half] {
        tenant.provision(STACK, json!({})).await;
    }
    stopped.act("stop", "").await.expect(200);
    half.act("stop", "?service=always").await.expect(200);
    let before = stopped.containers().await;
    let names: Vec<String> = running.containers().await.into_keys().collect();
    assert_eq!(names, ["always-1", "unless-1"]);

    engine.restart();
    // By the time that one tenant's containers are back, the engine would have brought back the others' as well.
    running.becomes("running").await;
    all_run(&running.status().await);
    let status = eventually("a service that nobody stopped is back", PATIENCE, async || {
        Some(half.status().await).filter(|status| service(status, "unless")["state"] == "running")
    })
    .await;
    assert_eq!(service(&status, "always")["containers"][0]["state"], "exited", "{status}");
    none_runs(&stopped.status().await);
    for one in stopped.containers().await.values() {
        assert_eq!(inspect(&engine, &one.id).await["HostConfig"]["RestartPolicy"]["Name"], "no");
    }
    assert_eq!(stopped.containers().await, before, "the same containers, not started since");

    stopped.act("start", "").await.expect(200);
    all_run(&stopped.status().await);
    half.act("start", "").await.expect(200);
    all_run(&half.status().await);
    // A start gives the restart policies back: the next restart of the engine brings all of them back.
    engine.restart();
    for tenant in [&stopped, &running, &half] {
        all_run(&tenant.becomes("running").await);
        tenant.purge().await;
    }
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_tenant_stays_stopped_through_an_update() {
    let engine = Engine::own();
    engine.with_busybox().await;
    let agent = Options::docker(&engine).start().await;
    let (tenant, witness) = (Tenant::new(&agent, "asleep"), Tenant::new(&agent, "witness"));
    tenant.provision(STACK, json!({})).await;
    witness.provision(STACK, json!({})).await;
    tenant.act("stop", "").await.expect(200);
    let old = tenant.containers().await;
    let compose = STACK.replace("unless: {<<: *common,", "unless: {<<: *common, environment: {NEW: \"1\"},");
    let updated = tenant.update(json!({"compose_content": compose})).await.expect(200);
    assert_eq!((&updated["changed"], &updated["generation"]), (&json!(true), &json!(2)), "{updated}");
    none_runs(&tenant.status().await);
    assert_ne!(tenant.container("unless-1").await, old["unless-1"].id);

    engine.restart();
    witness.becomes("running").await;
    none_runs(&tenant.status().await);
    tenant.act("start", "").await.expect(200);
    all_run(&tenant.status().await);
    engine.restart();
    all_run(&tenant.becomes("running").await);
    tenant.purge().await;
    witness.purge().await;
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_comes_and_goes_and_no_container_notices() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let (up, down) = (Tenant::new(&agent, "up"), Tenant::new(&agent, "down"));
    up.provision(STACK, json!({})).await;
    down.provision(STACK, json!({})).await;
    down.act("stop", "").await.expect(200);
    let before = (up.status().await, down.status().await);
    let list = agent.get("/v1/tenants").await.expect(200);
    let names = [(up.name, up.id), (down.name, down.id)];

    let ended = agent.terminate(Duration::from_secs(30)).await;
    assert!(ended.success(), "{ended}");
    agent.start_again().await;
    same_as(&agent, &names, &before, &list).await;
    agent.kill();
    agent.start_again().await;
    same_as(&agent, &names, &before, &list).await;

    for (name, id) in &names {
        Tenant::again(&agent, name, id).purge().await;
    }
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}

/// Ids and start times of all containers are part of a status.
async fn same_as(agent: &Agent<'_>, names: &[(String, String); 2], before: &(Value, Value), list: &Value) {
    let [up, down] = names.each_ref().map(|(name, id)| Tenant::again(agent, name, id));
    let now = (lasting(&up.status().await), lasting(&down.status().await));
    assert_eq!(now, (lasting(&before.0), lasting(&before.1)));
    assert_eq!(agent.get("/v1/tenants").await.expect(200)["tenants"], list["tenants"]);
}

/// A status without its age, and without what an agent has seen since its own start.
fn lasting(status: &Value) -> Value {
    let mut status = status.clone();
    status["age_ms"] = Value::Null;
    for service in status["services"].as_array_mut().expect("a list of services") {
        for container in service["containers"].as_array_mut().expect("a list of containers") {
            container.as_object_mut().expect("an object").remove("last_exits");
        }
    }
    status
}

fn all_run(status: &Value) {
    assert_eq!((&status["state"], &status["desired"]), (&json!("running"), &json!("running")), "{status}");
    for name in ["always", "unless"] {
        assert_eq!(service(status, name)["containers"][0]["state"], "running", "{status}");
    }
}

fn none_runs(status: &Value) {
    assert_eq!((&status["state"], &status["desired"]), (&json!("stopped"), &json!("stopped")), "{status}");
    for name in ["always", "unless"] {
        let found = service(status, name);
        assert_eq!(found["state"], "stopped", "{status}");
        assert_ne!(found["containers"][0]["state"], "running", "{status}");
    }
}
