//! An engine that goes on counting endpoints on a network that nothing is on, and therefore removes it never
//! (moby/moby#42119): what has to be replaced cannot be and says why, and what is only left keeps nobody from going on.

use serde_json::{Value, json};

use crate::auditor::{Candidate, Found, audit_among, update_to, variant};
use crate::scene::{PROVISION, UPDATE};
use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::fault_proxy::{Fault, FaultProxy, Rule};
use crate::support::unique;

fn networks_stay() -> Rule {
    Rule { call: "DELETE /networks/*".to_owned(), number: None, fault: Fault::Status(403) }
}

#[tokio::test]
async fn a_network_that_is_to_be_replaced() {
    let engine = Engine::shared().with_busybox().await;
    let proxy = FaultProxy::before(engine.socket());
    let agent = Options::docker(engine).env("DOCKER_HOST", proxy.host()).start().await;
    let name = unique("count");
    agent.post(PROVISION, &variant(&name, 0)).await.expect(201);
    proxy.disturb(networks_stay());
    let told = agent.post(UPDATE, &update_to(&name, 3)).await.refused(502, "BACKEND_ERROR");
    let words = told["error"].as_str().expect("a text");
    let wanted = format!("network q8-{name}_default cannot be replaced: nothing is on it");
    assert!(words.contains(&wanted) && words.contains("restart"), "{words}");
    assert!(proxy.calm() > 1, "the removal was tried again");
    let candidates = [Candidate { body: variant(&name, 0), containers: &["web-1", "db-1"] }];
    let found = audit_among(Some(engine), &agent, &name, "after the refusal", &candidates).await;
    assert_eq!(found, Found::At { candidate: 0, generation: 1, stopped: false });
    // Restarting the engine has corrected its count.
    agent.post(UPDATE, &update_to(&name, 3)).await.expect(200);
    crate::scene::purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn a_network_that_is_to_go() {
    let engine = Engine::shared().with_busybox().await;
    let proxy = FaultProxy::before(engine.socket());
    let agent = Options::docker(engine).env("DOCKER_HOST", proxy.host()).start().await;
    let name = unique("count");
    agent.post(PROVISION, &variant(&name, 2)).await.expect(201);
    let front = format!("q8-{name}_front");
    let label = format!("dev.q8.tenant={name}");

    proxy.disturb(networks_stay());
    agent.post(UPDATE, &update_to(&name, 0)).await.expect(200);
    assert!(engine.labelled(&label).await.contains(&front));
    proxy.calm();
    // The next time it goes, which is a change.
    let again = agent.post(PROVISION, &variant(&name, 0)).await.expect(200);
    assert_eq!((&again["changed"], &again["generation"]), (&json!(true), &json!(3)));
    assert!(!engine.labelled(&label).await.contains(&front));

    proxy.disturb(networks_stay());
    agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await.expect(200);
    assert_eq!(engine.labelled(&label).await, [format!("q8-{name}_default")]);
    proxy.calm();
    let pruned = agent.post("/v1/system/prune", &json!({"dry_run": false})).await.expect(200);
    assert_eq!(engine.labelled(&label).await, Vec::<String>::new(), "{pruned}");
}
