//! An engine that cannot tell about one container, because it has it locked or errs: that is its tenant's trouble alone.

use std::time::Duration;

use serde_json::json;

use crate::scene::{LONG, PROVISION, SLEEPS, containers, purge, request, stack, status};
use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::{eventually, unique};

#[tokio::test]
async fn and_the_others_are_seen() {
    let engine = Engine::shared().with_busybox().await;
    let proxy = FaultProxy::before(engine.socket());
    let mut agent = Options::docker(engine).env("DOCKER_HOST", proxy.host()).start().await;
    let (stuck, other) = (unique("stuck"), unique("other"));
    for name in [&stuck, &other] {
        agent.post(PROVISION, &request(name, &stack(&[("web", &[SLEEPS])], ""))).await.expect(201);
    }
    let container = containers(&status(&agent, &stuck).await)["web-1"].id.clone();
    for fault in [Fault::Status(500), Fault::Hang] {
        proxy.wedge(&container, fault);
        agent.terminate(LONG).await;
        agent.start_again().await;
        let told = eventually(&format!("{fault:?}: the other one is seen"), LONG, async || {
            let answer = agent.get(&format!("/v1/tenants/status/{other}")).await;
            (answer.status == 200).then(|| answer.json())
        })
        .await;
        assert_eq!(told["state"], "running", "{fault:?}: {told}");
        let list = agent.get("/v1/tenants").await.expect(200);
        assert_eq!(list["tenants"].as_array().map(Vec::len), Some(2), "{fault:?}: {list}");
        // Of this one nothing is told for long that is not known: at first there is what the list had of it.
        eventually(&format!("{fault:?}: it is known that nothing is known"), LONG, async || {
            let began = std::time::Instant::now();
            let answer = agent.get(&format!("/v1/tenants/status/{stuck}")).await;
            assert!(began.elapsed() < Duration::from_secs(9), "{fault:?}: after {:?}", began.elapsed());
            assert!(matches!(answer.status.as_u16(), 200 | 502 | 503), "{fault:?}: {}", answer.text());
            (answer.status != 200).then_some(())
        })
        .await;
        let stats = agent.get("/v1/system/stats").await.expect(200);
        let reasons = stats["reasons"].as_array().expect("a list");
        for word in ["engine_away", "inventory_not_done"] {
            assert!(!reasons.contains(&json!(word)), "{fault:?}: {stats}");
        }
        agent.post(&format!("/v1/tenants/restart/{other}"), &json!(null)).await.expect(200);
        // It can be told about again.
        proxy.wedge("none", fault);
        eventually(&format!("{fault:?}: it is seen again"), LONG, async || {
            let answer = agent.get(&format!("/v1/tenants/status/{stuck}")).await;
            (answer.status == 200 && answer.json()["state"] == "running").then_some(())
        })
        .await;
    }
    agent.post(&format!("/v1/tenants/teardown/{other}?purge=true"), &json!(null)).await.expect(200);
    purge(&agent, engine, &stuck).await;
}
