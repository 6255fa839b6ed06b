//! The engine is killed, frozen or not there yet: the agent says so, answers in time, and goes on by itself when it is back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bollard::query_parameters::RemoveContainerOptionsBuilder;
use hyper::Method;
use serde_json::{Value, json};

use crate::scene::{
    HEALTHY, LONG, PROVISION, SERVES, SLEEPS, UNDECIDED, UPDATE, assert_same, at_step, begin, containers,
    project_files, purge, reaches, request, stack, status, until_state,
};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::fault_proxy::FaultProxy;
use crate::support::http::Answer;
use crate::support::{eventually, sse, unique};

/// "Within 5 seconds", and something for a busy machine.
const SOON: Duration = Duration::from_secs(9);

async fn timed(agent: &Agent<'_>, method: Method, path: &str, body: &Value) -> (Answer, Duration) {
    let begun = Instant::now();
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let answer = agent.request(method, path, &[("content-type", "application/json")], text).await;
    (answer, begun.elapsed())
}

/// The agent lives and knows that it cannot work.
async fn assert_says_so(agent: &Agent<'_>) {
    let (live, took) = timed(agent, Method::GET, "/live", &Value::Null).await;
    live.expect(200);
    assert!(took < Duration::from_secs(2), "/live took {took:?}");
    for path in ["/ready", "/health"] {
        let (answer, took) = timed(agent, Method::GET, path, &Value::Null).await;
        let told = answer.expect(503);
        assert!(took < SOON, "{path} took {took:?}");
        assert!(told["degraded"].as_array().is_some_and(|all| all.contains(&json!("backend"))), "{told}");
        assert!(answer.headers.contains_key("retry-after"));
    }
}

/// Everything that needs the engine is refused in time, and may be tried again.
async fn assert_refuses(agent: &Agent<'_>, name: &str, body: &Value, within: Duration) {
    let new = request(&unique("new"), body["compose_content"].as_str().expect("a text"));
    let update = json!({"subdomain": name, "env_content": "A=b\n"});
    for (method, path, body) in [
        (Method::GET, format!("/v1/tenants/status/{name}"), Value::Null),
        (Method::GET, "/v1/tenants".to_owned(), Value::Null),
        (Method::GET, format!("/v1/tenants/images/{name}"), Value::Null),
        (Method::GET, format!("/v1/tenants/logs/{name}"), Value::Null),
        (Method::POST, PROVISION.to_owned(), new),
        (Method::POST, PROVISION.to_owned(), body.clone()),
        (Method::POST, UPDATE.to_owned(), update),
    ] {
        let (answer, took) = timed(agent, method, &path, &body).await;
        let told = answer.refused(503, "BACKEND_UNAVAILABLE");
        assert_eq!(told["retryable"], true, "{path}: {told}");
        assert!(answer.headers.contains_key("retry-after"), "{path}");
        assert!(took < within, "{path} took {took:?}");
    }
}

async fn until_ready(agent: &Agent<'_>) {
    eventually("the agent is ready and nothing is degraded", LONG, async || {
        let answer = agent.get("/ready").await;
        (answer.status == 200 && answer.json()["degraded"] == json!([])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn and_comes_back_while_nothing_is_done() {
    let engine = Engine::own();
    engine.with_busybox().await;
    let agent = Options::docker(&engine).start().await;
    let name = unique("away");
    let always = "restart: always";
    let body = request(&name, &stack(&[("web", &[SERVES, &[always]]), ("idle", &[SLEEPS, &[always]])], ""));
    agent.post(PROVISION, &body).await.expect(201);
    let before = containers(&status(&agent, &name).await);
    let files = project_files(&agent, &name);
    let mut logs = agent.stream(&format!("/v1/tenants/logs/{name}?follow=true"), &[]).await;

    engine.kill();
    assert_says_so(&agent).await;
    assert_refuses(&agent, &name, &body, SOON).await;
    // The log stream ends with the engine.
    while logs.next(LONG).await.is_some() {}
    // This one is open from now on, and is finished when the engine is back.
    agent.post(&format!("/v1/tenants/restart/{name}"), &Value::Null).await.refused(503, "BACKEND_UNAVAILABLE");

    engine.start();
    until_ready(&agent).await;
    let now = until_state(&agent, &name, "running").await;
    for (service, container) in containers(&now) {
        assert_eq!(container.id, before[&service].id, "{service} is the same container");
    }
    assert_same(&files, &project_files(&agent, &name), "the files");
    assert_eq!(agent.post(PROVISION, &body).await.expect(200)["changed"], false);
    let update = json!({"subdomain": name, "compose_content": stack(&[("web", &[SERVES, &[HEALTHY]]), ("idle", &[SLEEPS])], "")});
    agent.post(UPDATE, &update).await.expect(200);
    reaches(&engine, &containers(&status(&agent, &name).await)["idle-1"], "web").await;
    purge(&agent, &engine, &name).await;
}

#[tokio::test]
async fn in_the_middle_of_an_update() {
    let engine = Engine::own();
    engine.with_busybox().await;
    let agent = Options::docker(&engine).start().await;
    let name = unique("away");
    let page = "volumes: ['./page:/page:ro']";
    let text = |web: &str| stack(&[("web", &[SERVES, &[page, web]]), ("db", &[SERVES]), ("idle", &[SLEEPS])], "");
    let mut body = request(&name, &text(""));
    body["files"] = json!({"page": "one\n"});
    agent.post(PROVISION, &body).await.expect(201);
    let (before, files) = (containers(&status(&agent, &name).await), project_files(&agent, &name));
    let update = json!({"subdomain": name, "compose_content": text(UNDECIDED), "files": {"page": "two\n"}});
    let waiting = begin(&agent, UPDATE, &update);
    at_step(&agent, &name, "waiting for web").await;
    eventually("the new web runs", LONG, async || {
        let status = status(&agent, &name).await;
        containers(&status).get("web-1").filter(|web| web.id != before["web-1"].id && web.state == "running").cloned()
    })
    .await;

    // Away for longer than the agent waits for it in the middle of an operation.
    engine.kill();
    let answer = waiting.await.expect("no panic").expect("an answer");
    answer.refused(503, "BACKEND_UNAVAILABLE");
    let degraded = agent.get("/ready").await.expect(503)["degraded"].clone();
    assert!(degraded.as_array().is_some_and(|all| all.contains(&json!(format!("tenant:{name}")))), "{degraded}");

    engine.start();
    until_ready(&agent).await;
    let now = until_state(&agent, &name, "running").await;
    assert_eq!(now["generation"], 1, "{now}");
    let after = containers(&now);
    for (service, container) in &before {
        assert_eq!(after[service].id, container.id, "{service} is the same container");
    }
    assert_eq!(after.len(), before.len());
    assert_same(&files, &project_files(&agent, &name), "the files");
    reaches(&engine, &after["idle-1"], "web").await;
    reaches(&engine, &after["web-1"], "db").await;
    let retry = json!({"subdomain": name, "compose_content": text(HEALTHY), "files": {"page": "two\n"}});
    assert_eq!(agent.post(UPDATE, &retry).await.expect(200)["generation"], 2);
    purge(&agent, &engine, &name).await;
}

#[tokio::test]
async fn for_a_moment_in_the_middle_of_an_update() {
    let engine = Engine::own();
    engine.with_busybox().await;
    let agent = Options::docker(&engine).start().await;
    let name = unique("away");
    let text = |web: &str| stack(&[("web", &[SERVES, &[web]]), ("idle", &[SLEEPS])], "");
    agent.post(PROVISION, &request(&name, &text(""))).await.expect(201);
    let before = containers(&status(&agent, &name).await);
    let update = json!({"subdomain": name, "compose_content": text(UNDECIDED)});
    let waiting = begin(&agent, UPDATE, &update);
    at_step(&agent, &name, "waiting for web").await;
    engine.kill();
    engine.start();
    // Without a restart policy the new web ended with the engine, so the update has failed; the old one is to run again.
    let answer = waiting.await.expect("no panic").expect("an answer");
    assert!([502, 503].contains(&answer.status.as_u16()), "{}", answer.text());
    until_ready(&agent).await;
    let after = containers(&until_state(&agent, &name, "running").await);
    for (service, container) in &before {
        assert_eq!(after[service].id, container.id, "{service} is the same container");
    }
    reaches(&engine, &after["idle-1"], "web").await;
    purge(&agent, &engine, &name).await;
}

#[tokio::test]
async fn before_the_agent_starts() {
    let engine = Engine::shared().with_busybox().await;
    let place = tempfile::tempdir().expect("a temporary directory");
    let socket = place.path().join("late.sock");
    let mut agent = Options::docker(engine).env("DOCKER_HOST", format!("unix://{}", socket.display())).spawn();
    eventually("the agent listens", LONG, async || {
        let answer = agent.try_request(Method::GET, "/live", &[], "").await;
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;
    assert_says_so(&agent).await;
    let name = unique("early");
    let body = request(&name, &stack(&[("web", &[SLEEPS])], ""));
    agent.post(PROVISION, &body).await.refused(503, "BACKEND_UNAVAILABLE");
    std::os::unix::fs::symlink(engine.socket(), &socket).expect("a link");
    agent.wait_ready(LONG).await;
    agent.post(PROVISION, &body).await.expect(201);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn and_takes_calls_without_answering_them() {
    let engine = Engine::own();
    engine.with_busybox().await;
    let agent = Options::docker(&engine).env("Q8_AGENT_OPERATION_TIMEOUT", "20s").start().await;
    let name = unique("frozen");
    let body = request(&name, &stack(&[("web", &[SLEEPS])], ""));
    agent.post(PROVISION, &body).await.expect(201);
    let before = containers(&status(&agent, &name).await);

    engine.freeze();
    // Nobody hangs for ever, and those who hang are in nobody's way.
    let update = json!({"subdomain": name, "env_content": "A=b\n"});
    let begun = Instant::now();
    let hanging = [
        begin(&agent, UPDATE, &update),
        begin(&agent, PROVISION, &request(&unique("new"), body["compose_content"].as_str().expect("a text"))),
    ]
    .map(|running| tokio::spawn(async move { (running.await, begun.elapsed()) }));
    assert_says_so(&agent).await;
    agent.get("/v1/tenants/status/nobody").await.refused(404, "NOT_FOUND");
    let of_tenant = ["status/{}", "status/{}?format=compose", "images/{}", "stats/{}", "logs/{}?tail=1"];
    let reads = of_tenant.map(|path| (Method::GET, format!("/v1/tenants/{}", path.replace("{}", &name))));
    let others = [(Method::GET, "/v1/tenants".to_owned()), (Method::POST, "/v1/system/prune".to_owned())];
    let asked = reads.into_iter().chain(others).map(async |(method, path)| {
        let body = if method == Method::POST { json!({}) } else { Value::Null };
        let (answer, took) = timed(&agent, method, &path, &body).await;
        answer.refused(503, "BACKEND_UNAVAILABLE");
        assert!(took < SOON, "{path} took {took:?}");
    });
    futures::future::join_all(asked).await;
    for waiting in hanging {
        let (answer, took) = waiting.await.expect("no panic");
        answer.expect("no panic").expect("an answer").refused(503, "BACKEND_UNAVAILABLE");
        assert!(took < SOON, "{took:?}");
    }

    engine.thaw();
    until_ready(&agent).await;
    assert_eq!(containers(&until_state(&agent, &name, "running").await), before);
    agent.post(UPDATE, &update).await.expect(200);
    purge(&agent, &engine, &name).await;
}

/// Only the way to it is broken: what happens there meanwhile is seen by a look at everything afterwards.
#[tokio::test]
async fn and_changes_while_nobody_sees_it() {
    let engine = Engine::shared().with_busybox().await;
    let mut proxy = FaultProxy::before(engine.socket());
    let agent = Options::docker(engine).env("DOCKER_HOST", proxy.host()).start().await;
    let name = unique("unseen");
    let mut feed = agent.stream(&format!("/v1/events?subdomain={name}"), &[]).await;
    let services: [(&str, &[&[&str]]); 3] = [("ends", &[SLEEPS]), ("goes", &[SLEEPS]), ("stays", &[SLEEPS])];
    let body = request(&name, &stack(&services, ""));
    agent.post(PROVISION, &body).await.expect(201);
    let before = containers(&status(&agent, &name).await);
    while sse::next(&mut feed, LONG).await.expect("the feed goes on").name != "operation_ended" {}

    proxy.cut_off().await;
    assert_says_so(&agent).await;
    agent.get(&format!("/v1/tenants/status/{name}")).await.refused(503, "BACKEND_UNAVAILABLE");
    let docker = engine.docker();
    docker.stop_container(&before["ends-1"].id, None).await.expect("it stops");
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    docker.remove_container(&before["goes-1"].id, Some(force)).await.expect("it goes");
    proxy.put_back();

    until_ready(&agent).await;
    let told = until_state(&agent, &name, "degraded").await;
    let services = told["services"].as_array().expect("a list");
    let found: Vec<_> =
        services.iter().map(|service| (&service["name"], &service["state"], &service["reason"])).collect();
    let none = Value::Null;
    assert_eq!(
        found,
        [
            (&json!("ends"), &json!("exited"), &json!("exited with code 137")),
            (&json!("goes"), &json!("pending"), &json!("has 0 of 1 containers")),
            (&json!("stays"), &json!("running"), &none),
        ],
        "{told}"
    );
    assert_eq!(containers(&told)["stays-1"], before["stays-1"]);
    // The feed goes on where it was: the agent has told of all changes itself.
    let (mut changed, mut state) = (BTreeMap::new(), json!("running"));
    while changed.len() < 2 || state != "degraded" {
        let event = sse::next(&mut feed, LONG).await.expect("the feed goes on");
        match event.name.as_str() {
            "service_state" => {
                let service = event.data["service"].as_str().expect("a name").to_owned();
                assert_eq!(event.data["from"], "running", "{}", event.data);
                assert!(changed.insert(service, event.data["to"].clone()).is_none(), "told twice: {}", event.data);
            }
            "tenant_state" => {
                assert_eq!(event.data["from"], state, "{}", event.data);
                state = event.data["to"].clone();
            }
            other => panic!("{other}: {}", event.data),
        }
    }
    assert_eq!(
        changed,
        [("ends", "exited"), ("goes", "pending")].map(|(name, to)| (name.to_owned(), json!(to))).into()
    );
    assert_eq!(agent.post(PROVISION, &body).await.expect(200)["changed"], true);
    assert_eq!(status(&agent, &name).await["state"], "running");
    purge(&agent, engine, &name).await;
}
