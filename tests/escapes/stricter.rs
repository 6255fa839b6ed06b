//! A policy that has become stricter between two starts of the agent: what it refuses runs on and is not started again; what
//! it accepts is made anew, and confined, before it is started again.

use serde_json::{Value, json};

use crate::scene::{PROVISION, SLEEPS, containers, purge, request, stack, status};
use crate::support::agent::Agent;
use crate::support::engine::Engine;
use crate::support::unique;
use crate::{LONG_STOP, inspect, trusting};

async fn under(agent: &mut Agent<'_>, policy: &str) {
    agent.terminate(LONG_STOP).await;
    agent.set_env("Q8_AGENT_POLICY", policy);
    agent.start_again().await;
}

async fn act(agent: &Agent<'_>, verb: &str, name: &str) -> crate::support::http::Answer {
    agent.post(&format!("/v1/tenants/{verb}/{name}"), &Value::Null).await
}

/// What the engine says about a container's confinement.
async fn host_config(engine: &Engine, agent: &Agent<'_>, name: &str, container: &str) -> Value {
    json!(inspect(engine, agent, name, container).await.host_config)
}

fn is_confined(host: &Value) -> bool {
    host["SecurityOpt"] == json!(["no-new-privileges:true"])
        && host["CapDrop"].to_string().contains("NET_RAW")
        && host["CgroupnsMode"] == "private"
        && ["Memory", "NanoCpus", "PidsLimit"].iter().all(|limit| host[limit].as_i64().is_some_and(|limit| limit > 0))
        && host["LogConfig"]["Config"]["max-size"].is_string()
}

#[tokio::test]
async fn what_was_made_under_laxer_rules_is_confined_before_it_starts_again() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = trusting(engine).await;
    let (runs, halted, wide) = (unique("runs"), unique("halted"), unique("wide"));
    let plain = stack(&[("a", &[SLEEPS, &["volumes: ['data:/data']", "user: '1000:1000'"]])], "volumes: {data: {}}\n");
    for (name, text) in
        [(&runs, plain.clone()), (&halted, plain), (&wide, stack(&[("a", &[SLEEPS, &["pid: host"]])], ""))]
    {
        agent.post(PROVISION, &request(name, &text)).await.expect(201);
        assert!(!is_confined(&host_config(engine, &agent, name, "a-1").await), "as its author wrote it");
    }
    act(&agent, "stop", &halted).await.expect(200);
    let mut before = Vec::new();
    for name in [&runs, &halted, &wide] {
        before.push(containers(&status(&agent, name).await));
    }

    // The start of the agent touches nobody.
    under(&mut agent, "baseline").await;
    for (name, before) in [&runs, &halted, &wide].into_iter().zip(&before) {
        assert_eq!(&containers(&status(&agent, name).await), before, "{name}");
    }

    // What is refused now is told, runs on, and is not started again.
    assert!(status(&agent, &wide).await["warnings"].to_string().contains("would refuse"), "its status says so");
    for verb in ["start", "restart"] {
        let refused = act(&agent, verb, &wide).await.refused(422, "POLICY_DENIED");
        assert_eq!(refused["field"], "services.a.pid", "{refused}");
    }
    assert_eq!(containers(&status(&agent, &wide).await), before[2]);
    act(&agent, "stop", &wide).await.expect(200);
    act(&agent, "start", &wide).await.refused(422, "POLICY_DENIED");
    assert_eq!(status(&agent, &wide).await["state"], "stopped");

    // What is accepted is made anew, of the same volume, whether it ran or not.
    for (name, verb, before) in [(&runs, "restart", &before[0]), (&halted, "start", &before[1])] {
        act(&agent, verb, name).await.expect(200);
        let told = status(&agent, name).await;
        let now = containers(&told);
        assert_ne!(now["a-1"].id, before["a-1"].id, "{name}: the laxer container is gone");
        assert_eq!((&told["state"], &told["generation"]), (&json!("running"), &json!(2)), "{name}: {told}");
        let found = inspect(engine, &agent, name, "a-1").await;
        let host = json!(found.host_config);
        assert!(is_confined(&host), "{name}: {host}");
        let mounts = json!(found.mounts);
        assert_eq!(mounts[0]["Name"], format!("q8-{name}_data"), "{name}: {mounts}");
        // Once is enough.
        act(&agent, verb, name).await.expect(200);
        assert_eq!(containers(&status(&agent, name).await)["a-1"].id, now["a-1"].id, "{name}");
    }

    // One step further, the same.
    under(&mut agent, "restricted").await;
    assert_ne!(host_config(engine, &agent, &runs, "a-1").await["ReadonlyRootfs"], true, "it runs on as it was made");
    act(&agent, "restart", &runs).await.expect(200);
    let host = host_config(engine, &agent, &runs, "a-1").await;
    assert_eq!((&host["ReadonlyRootfs"], &host["CapDrop"]), (&json!(true), &json!(["ALL"])), "{host}");

    for name in [&runs, &halted] {
        act(&agent, "teardown", &format!("{name}?purge=true")).await.expect(200);
    }
    purge(&agent, engine, &wide).await;
}
