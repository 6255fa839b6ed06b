//! SIGTERM: no new connection, log streams end, what runs is finished or recovered at the next start; within 30 seconds
//! and with exit code 0.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::scene::{
    LONG, PROVISION, SLEEPS, UNDECIDED, at_step, begin, containers, purge, request, stack, status, terminate,
    until_state,
};
use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::{eventually, unique};

/// A service that is healthy once it is four seconds old.
const SLOW: &[&str] = &[
    r#"command: ["sh", "-c", "echo hello; sleep 4; touch /tmp/up; sleep 3600"]"#,
    "stop_signal: SIGKILL",
    r#"healthcheck: {test: ["CMD", "test", "-e", "/tmp/up"], interval: 500ms, timeout: 5s, retries: 600}"#,
];

#[tokio::test]
async fn and_finishes_what_it_has_begun() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let (quiet, name) = (unique("quiet"), unique("slow"));
    let says = &[r#"command: ["sh", "-c", "echo hello; sleep 3600"]"#, "stop_signal: SIGKILL"];
    agent.post(PROVISION, &request(&quiet, &stack(&[("web", &[says])], ""))).await.expect(201);
    let before = containers(&status(&agent, &quiet).await);
    let mut logs = agent.stream(&format!("/v1/tenants/logs/{quiet}?follow=true"), &[]).await;
    assert_eq!(logs.next(LONG).await.as_deref(), Some("web-1 | hello"));
    let mut idle = TcpStream::connect(agent.address()).await.expect("it listens");
    let body = request(&name, &stack(&[("web", &[SLOW])], ""));
    let provision = begin(&agent, PROVISION, &body);
    at_step(&agent, &name, "waiting for web").await;

    let begun = Instant::now();
    terminate(agent.pid());
    eventually("new connections are refused", LONG, async || TcpStream::connect(agent.address()).await.err()).await;
    // The stream says why it ends, and does.
    let last = logs.next(LONG).await;
    assert!(last.as_deref().is_some_and(|line| line.contains("stopping")), "{last:?}");
    assert_eq!(logs.next(LONG).await, None);
    let answer = provision.await.expect("no panic").expect("the answer of what was running comes all the same");
    assert_eq!(answer.expect(201)["generation"], 1);
    {
        use tokio::io::AsyncReadExt as _;
        let mut byte = [0];
        let closed = tokio::time::timeout(LONG, idle.read(&mut byte)).await.expect("an idle connection is closed");
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
    let exit = agent.wait_exit(Duration::from_secs(30)).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(exit.code(), Some(0));

    agent.start_again().await;
    assert_eq!(agent.post(PROVISION, &body).await.expect(200)["changed"], false);
    assert_eq!(containers(&status(&agent, &quiet).await), before, "tenants do not notice");
    agent.post(&format!("/v1/tenants/teardown/{quiet}?purge=true"), &Value::Null).await.expect(200);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn and_leaves_what_takes_too_long_to_the_next_start() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let name = unique("long");
    let body = request(&name, &stack(&[("web", &[SLEEPS, &[UNDECIDED]])], "volumes: {store: {}}\n"));
    let provision = begin(&agent, PROVISION, &body);
    at_step(&agent, &name, "waiting for web").await;
    let begun = Instant::now();
    let exit = agent.terminate(Duration::from_secs(40)).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(exit.code(), Some(0));
    let answer = provision.await.expect("no panic");
    assert!(
        answer.as_ref().map_or(true, |answer| answer.status == 503),
        "nobody was told that it succeeded: {answer:?}"
    );

    agent.start_again().await;
    eventually("the provision was undone", LONG, async || {
        let gone = agent.get(&format!("/v1/tenants/status/{name}")).await.status == 404;
        (gone && agent.get("/ready").await.json()["degraded"] == json!([])).then_some(())
    })
    .await;
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
    assert!(!agent.root().join(&name).exists());
}

#[tokio::test]
async fn and_a_second_signal_ends_it_at_once() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let name = unique("twice");
    let body = request(&name, &stack(&[("web", &[SLEEPS, &[UNDECIDED]])], ""));
    let provision = begin(&agent, PROVISION, &body);
    at_step(&agent, &name, "waiting for web").await;
    terminate(agent.pid());
    eventually("new connections are refused", LONG, async || TcpStream::connect(agent.address()).await.err()).await;
    let begun = Instant::now();
    let exit = agent.terminate(Duration::from_secs(20)).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(exit.code(), Some(1), "the operator asked for an end, not for a graceful one");
    drop(provision.await);
    agent.start_again().await;
    eventually("the provision was undone", LONG, async || {
        (agent.get(&format!("/v1/tenants/status/{name}")).await.status == 404).then_some(())
    })
    .await;
    // The same name is free, for anybody.
    let mut other = request(&name, &stack(&[("web", &[SLEEPS])], ""));
    other["id"] = json!("somebody-else");
    agent.post(PROVISION, &other).await.expect(201);
    until_state(&agent, &name, "running").await;
    purge(&agent, engine, &name).await;
}
