//! Many requests at once: different tenants do not disturb each other, and one tenant gets one stack.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bollard::query_parameters::InspectNetworkOptions;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::scene::{
    HEALTHY, LONG, PROVISION, SLEEPS, UNDECIDED, UPDATE, at_step, begin, containers, purge, request, stack, status,
    until_state,
};
use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::{eventually, unique};

/// A service that is healthy once it is two seconds old.
const SLOW: &[&str] = &[
    r#"command: ["sh", "-c", "sleep 2; touch /tmp/up; sleep 3600"]"#,
    "stop_signal: SIGKILL",
    r#"healthcheck: {test: ["CMD", "test", "-e", "/tmp/up"], interval: 500ms, timeout: 5s, retries: 600}"#,
];

#[tokio::test]
async fn twenty_tenants_come_up() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let names: Vec<String> = (0..20).map(|_| unique("many")).collect();
    let compose = stack(&[("web", &[SLEEPS, &["depends_on: [db]"]]), ("db", &[SLEEPS, &[HEALTHY]])], "");
    let all = join_all(names.iter().map(async |name| {
        let answer = agent.post(PROVISION, &request(name, &compose)).await;
        (name, answer)
    }));
    for (name, answer) in all.await {
        let done = answer.expect(201);
        assert_eq!((&done["generation"], &done["changed"]), (&json!(1), &json!(true)), "{name}: {done}");
    }
    let list = agent.get("/v1/tenants").await.expect(200);
    let lines = list["tenants"].as_array().expect("a list");
    assert_eq!(lines.len(), 20);
    assert!(lines.iter().all(|line| line["state"] == "running" && line["services_ready"] == 2), "{list}");
    let docker = engine.docker();
    let mut subnets = BTreeSet::new();
    for name in &names {
        let network = docker.inspect_network(&format!("q8-{name}_default"), None::<InspectNetworkOptions>).await;
        let network = network.expect("its network");
        let config = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        subnets.insert(config[0].subnet.clone().expect("a subnet"));
    }
    assert_eq!(subnets.len(), 20, "{subnets:?}");
    let gone = join_all(
        names
            .iter()
            .map(async |name| agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await),
    );
    for answer in gone.await {
        answer.expect(200);
    }
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}

#[tokio::test]
async fn ten_provisions_of_one_tenant_make_one_stack() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let name = unique("same");
    let compose = stack(
        &[("web", &[SLEEPS, &["volumes: ['v:/v']"]]), ("slow", &[SLOW]), ("db", &[SLEEPS, &[HEALTHY]])],
        "volumes: {v: {}}\n",
    );
    let body = request(&name, &compose);
    let answers = join_all((0..10).map(|_| agent.post(PROVISION, &body))).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 1, "one of them made it: {answers:?}");
    for answer in &answers {
        match answer.status.as_u16() {
            201 => assert_eq!(answer.json()["changed"], true),
            200 => assert_eq!(answer.json()["changed"], false),
            _ => drop(answer.refused(409, "TENANT_BUSY")),
        }
    }
    let status = until_state(&agent, &name, "running").await;
    assert_eq!(status["generation"], 1);
    let there = containers(&status);
    assert_eq!(there.keys().collect::<Vec<_>>(), ["db-1", "slow-1", "web-1"]);
    assert_eq!(engine.labelled(&agent.label()).await.len(), 5, "three containers, a network, a volume");
    let again = agent.post(PROVISION, &body).await.expect(200);
    assert_eq!(again["changed"], false);
    assert_eq!(containers(&crate::scene::status(&agent, &name).await), there);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn ten_different_updates_of_one_tenant_follow_each_other() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).env("Q8_AGENT_BUSY_WAIT", "60s").start().await;
    let name = unique("queue");
    let text = |value: usize| {
        let environment = format!("environment: {{VALUE: '{value}'}}");
        stack(&[("web", &[SLEEPS, &[&environment]]), ("db", &[SLEEPS])], "")
    };
    agent.post(PROVISION, &request(&name, &text(0))).await.expect(201);
    let db = containers(&status(&agent, &name).await)["db-1"].clone();
    let answers = join_all((1..=10).map(async |value| {
        let update = json!({"subdomain": name, "compose_content": text(value), "files": {"value": value.to_string()}});
        (value, agent.post(UPDATE, &update).await.expect(200))
    }))
    .await;
    let generations: BTreeSet<u64> = answers.iter().filter_map(|(_, done)| done["generation"].as_u64()).collect();
    assert_eq!(generations, (2..=11).collect(), "each made a generation of its own");
    let (last, _) = answers.iter().find(|(_, done)| done["generation"] == 11).expect("somebody was last");
    let status = until_state(&agent, &name, "running").await;
    assert_eq!(status["generation"], 11);
    assert_eq!(containers(&status)["db-1"], db, "db was in nobody's way");
    let file = std::fs::read_to_string(agent.root().join(&name).join("value")).expect("the file");
    assert_eq!(file, last.to_string(), "files and containers are of one generation");
    let compose = std::fs::read_to_string(agent.root().join(&name).join("compose.yaml")).expect("the file");
    assert_eq!(compose, text(*last));
    let again = agent.post(UPDATE, &json!({"subdomain": name, "compose_content": compose})).await.expect(200);
    assert_eq!(again["changed"], false);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn a_busy_tenant_says_with_what() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine)
        .env("Q8_AGENT_BUSY_WAIT", "500ms")
        .env("Q8_AGENT_OPERATION_TIMEOUT", "20s")
        .start()
        .await;
    let name = unique("busy");
    let body = request(&name, &stack(&[("web", &[SLEEPS, &[UNDECIDED]])], ""));
    let waiting = begin(&agent, PROVISION, &body);
    let operation = at_step(&agent, &name, "waiting for web").await;
    assert_eq!(operation["kind"], "provision");
    for path in [PROVISION.to_owned(), format!("/v1/tenants/teardown/{name}"), format!("/v1/tenants/stop/{name}")] {
        let begun = Instant::now();
        let answer = agent.post(&path, if path == PROVISION { &body } else { &Value::Null }).await;
        let told = answer.refused(409, "TENANT_BUSY");
        assert!(begun.elapsed() >= Duration::from_millis(450), "{path} waited {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(5), "{path} waited {:?}", begun.elapsed());
        assert_eq!(told["details"]["operation"]["id"], operation["id"], "{path}: {told}");
        assert_eq!(told["retryable"], true);
        assert!(answer.headers.contains_key("retry-after"));
    }
    // Nobody else is kept waiting.
    let other = unique("free");
    agent.post(PROVISION, &request(&other, &stack(&[("web", &[SLEEPS])], ""))).await.expect(201);
    agent.post(&format!("/v1/tenants/teardown/{other}?purge=true"), &Value::Null).await.expect(200);
    waiting.await.expect("no panic").expect("an answer").refused(504, "DEADLINE_EXCEEDED");
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_client_that_hangs_up_neither_cancels_nor_doubles() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).env("Q8_AGENT_BUSY_WAIT", "60s").start().await;
    let name = unique("gone");
    let body = request(&name, &stack(&[("web", &[SLOW]), ("db", &[SLEEPS])], ""));
    let client = begin(&agent, PROVISION, &body);
    let first = at_step(&agent, &name, "waiting for web").await;
    client.abort();
    assert!(client.await.is_err(), "it has hung up");
    // A repeat waits for the first one, then there is nothing to do.
    let repeat = begin(&agent, PROVISION, &body);
    let status = until_state(&agent, &name, "running").await;
    assert_eq!(status["generation"], 1);
    let done = repeat.await.expect("no panic").expect("an answer").expect(200);
    assert_eq!((&done["changed"], &done["generation"]), (&json!(false), &json!(1)), "{done}");
    assert_eq!(containers(&status).len(), 2);
    assert_eq!(engine.labelled(&agent.label()).await.len(), 3, "two containers and a network");
    let log = agent.log();
    let id = first["id"].as_str().expect("an id");
    assert!(log.lines().any(|line| line.contains(id) && line.contains("operation succeeded")), "{log}");

    // The same for a request whose body never comes: nothing begins.
    let other = unique("half");
    let body = request(&other, &stack(&[("web", &[SLEEPS])], ""));
    let text = body.to_string();
    {
        use tokio::io::AsyncWriteExt as _;
        let mut connection = tokio::net::TcpStream::connect(agent.address()).await.expect("it listens");
        let head = format!(
            "POST {PROVISION} HTTP/1.1\r\nhost: agent\r\nauthorization: Bearer {}\r\nx-request-id: {other}\r\n\
             content-length: {}\r\n\r\n",
            agent.token(),
            text.len()
        );
        connection.write_all(head.as_bytes()).await.expect("it reads");
        connection.write_all(&text.as_bytes()[..text.len() / 2]).await.expect("it reads");
    }
    let (access, request_id) = (r#""target":"q8_agent::access""#, format!(r#""request_id":"{other}""#));
    eventually("the half request is over", LONG, async || {
        let log = agent.log();
        log.lines().any(|line| line.contains(access) && line.contains(&request_id)).then_some(())
    })
    .await;
    // The whole one makes it, and is the first that was begun.
    let made = agent.post(PROVISION, &body).await;
    made.expect(201);
    let operations = agent.get(&format!("/v1/operations?subdomain={other}")).await.expect(200);
    let ids: Vec<&Value> = operations["operations"].as_array().expect("a list").iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, [made.headers["x-operation-id"].to_str().expect("text")], "{operations}");
    agent.post(&format!("/v1/tenants/teardown/{other}?purge=true"), &Value::Null).await.expect(200);
    purge(&agent, engine, &name).await;
}
