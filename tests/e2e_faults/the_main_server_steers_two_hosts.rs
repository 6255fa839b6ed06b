//! A Main Server's day with two hosts: it places tenants by what the hosts say of themselves, follows its operations, tails
//! logs, loses a host and gets it back, and has a tenant anew on the other host meanwhile.

use hyper::Method;
use serde_json::{Value, json};

use crate::scene::{HEALTHY, LONG, PROVISION, UPDATE, containers, id, stack, status, until_state};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::http::Lines;
use crate::support::sse;
use crate::support::{eventually, unique};

/// Says a line, and then one more each time it is started.
const SPEAKS: &str = r#"command: ["sh", "-c", "echo begins $$VALUE; exec sleep 3600"]"#;

fn body(name: &str, value: &str) -> Value {
    let environment = format!("environment: {{VALUE: '{value}'}}");
    let compose = stack(&[("web", &[&[SPEAKS, "stop_signal: SIGKILL", HEALTHY, &environment]])], "");
    json!({"id": id(name), "subdomain": name, "compose_content": compose})
}

/// What the Main Server goes by: the host that takes tenants and has promised the least memory. Both are on the machine of
/// this test, and whether that one is short of something is not the question.
async fn place(hosts: &[&Agent<'_>]) -> usize {
    let mut best = None;
    for (at, host) in hosts.iter().enumerate() {
        let stats = host.get("/v1/system/stats").await.expect(200);
        let reasons = stats["reasons"].as_array().expect("a list");
        assert_eq!(stats["schedulable"], reasons.is_empty(), "{stats}");
        if reasons.iter().any(|reason| *reason != "disk" && *reason != "memory") {
            continue;
        }
        let promised = stats["memory"]["committed_bytes"].as_u64().expect("a number");
        if best.is_none_or(|(least, _)| promised < least) {
            best = Some((promised, at));
        }
    }
    best.expect("one of the hosts takes tenants").1
}

/// Sends a mutation, as one whose answer may be lost: twice, under one key. Follows it to its end and gives its result.
async fn carry_out(host: &Agent<'_>, path: &str, body: &Value) -> Value {
    let key = unique("key");
    let headers = [("content-type", "application/json"), ("prefer", "respond-async"), ("idempotency-key", &key)];
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let first = host.request(Method::POST, path, &headers, text.clone()).await.expect(202);
    let again = host.request(Method::POST, path, &headers, text).await.expect(202);
    assert_eq!(first["id"], again["id"], "one operation, however often it is asked for");
    let operation = first["id"].as_str().expect("an id").to_owned();
    let mut events = host.stream(&format!("/v1/operations/{operation}/events"), &[]).await;
    let end = last_event(&mut events).await;
    assert_eq!(end["state"], "succeeded", "{end}");
    end["result"]["body"].clone()
}

/// The data of the event `end`.
async fn last_event(events: &mut Lines) -> Value {
    while let Some(event) = sse::next(events, LONG).await {
        if event.name == "end" {
            return event.data;
        }
    }
    panic!("the operation's events end without its end");
}

/// The lines of a tenant's log after a cursor, and the last one's cursor.
async fn read_on(host: &Agent<'_>, name: &str, cursor: Option<&str>) -> (Vec<String>, Option<String>) {
    let from = cursor.map_or_else(|| "tail=all".to_owned(), |cursor| format!("cursor={cursor}"));
    let path = format!("/v1/tenants/logs/{name}?{from}");
    let answer = host.request(Method::GET, &path, &[("accept", "application/x-ndjson")], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let (mut lines, mut last) = (Vec::new(), cursor.map(str::to_owned));
    for record in records {
        if let Some(cursor) = record["cursor"].as_str() {
            last = Some(cursor.to_owned());
        }
        lines.extend(record["line"].as_str().map(str::to_owned));
    }
    (lines, last)
}

#[tokio::test]
async fn from_the_first_tenant_to_the_last() {
    let (one, other) = (Engine::own(), Engine::own());
    one.with_busybox().await;
    other.with_busybox().await;
    let mut first = Options::docker(&one).start().await;
    let second = Options::docker(&other).start().await;

    // Three tenants spread over the hosts: each goes where the least is promised.
    let names = [unique("main"), unique("main"), unique("main")];
    let mut placed = Vec::new();
    for name in &names {
        let at = place(&[&first, &second]).await;
        let done = carry_out([&first, &second][at], PROVISION, &body(name, "1")).await;
        assert_eq!((&done["status"], &done["generation"]), (&json!("provisioned"), &json!(1)), "{done}");
        placed.push(at);
    }
    assert!(placed.contains(&0) && placed.contains(&1), "{placed:?}");
    // A host that is to be emptied gets none.
    first.post("/v1/system/cordon", &Value::Null).await.expect(200);
    assert_eq!(place(&[&first, &second]).await, 1);
    first.post("/v1/system/uncordon", &Value::Null).await.expect(200);

    // One on the first host: its log from the first line on, its update, and its log from where it was left.
    let lost = names[placed.iter().position(|at| *at == 0).expect("one is there")].clone();
    let stays = names[placed.iter().position(|at| *at == 1).expect("one is there")].clone();
    let (lines, cursor) = read_on(&first, &lost, None).await;
    assert_eq!(lines, ["begins 1"]);
    let update = json!({"subdomain": lost, "compose_content": body(&lost, "2")["compose_content"], "pull": false});
    assert_eq!(carry_out(&first, UPDATE, &update).await["generation"], 2);
    let (lines, cursor) = read_on(&first, &lost, cursor.as_deref()).await;
    assert_eq!(lines, ["begins 2"]);

    // The agent dies and comes back: nothing of the tenant has changed, and the log goes on where it was left.
    let before = containers(&status(&first, &lost).await);
    first.kill();
    first.start_again().await;
    assert_eq!(containers(&until_state(&first, &lost, "running").await), before);
    assert_eq!(read_on(&first, &lost, cursor.as_deref()).await.0, Vec::<String>::new());

    // The host is lost. The other one says nothing of that, and gets the tenant.
    let undisturbed = containers(&status(&second, &stays).await);
    first.kill();
    one.kill();
    let done = carry_out(&second, PROVISION, &body(&lost, "2")).await;
    assert_eq!(done["generation"], 1, "{done}");
    assert_eq!(containers(&status(&second, &stays).await), undisturbed);

    // The host comes back with what it had. The tenant lives elsewhere by now.
    one.start();
    first.start_again().await;
    eventually("the first host takes tenants again", LONG, async || {
        let told = first.get("/v1/system/stats").await.expect(200);
        (told["schedulable"] == true).then_some(())
    })
    .await;
    assert_eq!(first.get(&format!("/v1/tenants/status/{lost}?fresh=1")).await.expect(200)["generation"], 2);
    let hosts = [(&first, &one), (&second, &other)];
    for (at, name) in placed.into_iter().zip(&names).chain([(1, &lost)]) {
        let path = format!("/v1/tenants/teardown/{name}?purge=true");
        assert_eq!(carry_out(hosts[at].0, &path, &Value::Null).await["status"], "torn_down");
    }
    for (host, engine) in hosts {
        assert_eq!(host.get("/v1/tenants").await.expect(200)["tenants"], json!([]));
        assert_eq!(engine.left(&host.label()).await, Vec::<String>::new());
    }
}
