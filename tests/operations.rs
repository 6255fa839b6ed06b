//! Operations over HTTP: accepted and followed, cancelled, repeated with their key, and across the death of the agent.

mod support;

use std::time::Duration;

use hyper::Method;
use q8_agent::api::Limits;
use serde_json::{Value, json};

use support::agent::{Agent, Options};
use support::eventually;
use support::http::{self, Answer, Lines};
use support::sse::{self, Event};

const LIMIT: Duration = Duration::from_secs(30);

fn body(compose: &str) -> Value {
    json!({ "id": "t-1", "subdomain": "acme", "compose_content": compose })
}

fn web(version: u32) -> String {
    format!("services: {{web: {{image: 'x:1', command: [sleep, infinity], environment: {{V: '{version}'}}}}}}")
}

/// It waits for a health that never comes.
fn waits() -> String {
    let check = "{test: [CMD, 'false'], interval: 1s, retries: 1000}";
    format!("services: {{web: {{image: 'x:1', command: [sleep, infinity], healthcheck: {check}}}}}")
}

async fn post(agent: &Agent<'_>, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    agent.request(Method::POST, path, headers, text).await
}

async fn accept(agent: &Agent<'_>, path: &str, body: &Value) -> String {
    let answer = post(agent, path, &[("prefer", "respond-async")], body).await;
    let operation = answer.expect(202);
    let id = operation["id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.headers["location"], format!("/v1/operations/{id}"));
    assert_eq!(answer.headers["preference-applied"], "respond-async");
    assert_eq!(operation["state"], "running", "{operation}");
    id
}

async fn ended(agent: &Agent<'_>, id: &str) -> Value {
    eventually("the operation ends", LIMIT, async || {
        let operation = agent.get(&format!("/v1/operations/{id}")).await.expect(200);
        (operation["state"] != "running").then_some(operation)
    })
    .await
}

/// One event: its number, name and data.
async fn event(lines: &mut Lines) -> Option<(Option<u64>, String, Value)> {
    let Event { id, name, data } = sse::next(lines, LIMIT).await?;
    Some((id.map(|id| id.parse().expect("a number")), name, data))
}

async fn events(agent: &Agent<'_>, id: &str, headers: &[(&str, &str)]) -> Vec<(Option<u64>, String, Value)> {
    let mut lines = agent.stream(&format!("/v1/operations/{id}/events"), headers).await;
    let mut all = Vec::new();
    while let Some(event) = event(&mut lines).await {
        all.push(event);
    }
    all
}

#[tokio::test]
async fn an_accepted_operation_is_followed_to_its_end() {
    let agent = Options::memory().start().await;
    let id = accept(&agent, "/v1/tenants/provision", &body(&web(1))).await;
    let all = events(&agent, &id, &[]).await;
    let (last, before) = all.split_last().expect("there are events");
    assert_eq!(last.1, "end");
    assert_eq!((&last.2["state"], &last.2["result"]["status"]), (&json!("succeeded"), &json!(201)), "{}", last.2);
    assert_eq!(last.2["result"]["body"]["generation"], 1);
    let numbers: Vec<u64> = all.iter().filter_map(|(id, ..)| *id).collect();
    assert!(numbers.len() == all.len() && numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let told = |action: &str, state: &str| {
        before.iter().any(|(_, name, data)| name == "step" && data["action"] == action && data["state"] == state)
    };
    assert!(told("make", "begun") && told("make", "done") && told("start", "done") && told("await", "done"), "{all:?}");
    assert!(before.iter().any(|(_, name, data)| name == "container" && data["state"] == "ready"), "{all:?}");

    // Resumed where it was left, and not at all after the end.
    let middle = numbers[numbers.len() / 2];
    let rest = events(&agent, &id, &[("last-event-id", &middle.to_string())]).await;
    assert_eq!(rest, all[numbers.len() / 2 + 1..]);
    let path = format!("/v1/operations/{id}/events");
    let end = numbers.last().expect("the end has one").to_string();
    let over = agent.request(Method::GET, &path, &[("last-event-id", &end)], "").await;
    assert_eq!((over.status.as_u16(), over.bytes.len()), (204, 0));
    agent.request(Method::GET, &path, &[("last-event-id", "x")], "").await.refused(400, "INVALID_REQUEST");

    let operation = agent.get(&format!("/v1/operations/{id}")).await.expect(200);
    assert_eq!(operation, last.2);
    let told = agent.get("/v1/operations?subdomain=acme").await.expect(200);
    assert_eq!((&told["operations"][0]["id"], &told["operations"][0]["result"]), (&json!(id), &Value::Null));
    let unknown = "/v1/operations/0190a1b2-0000-7000-8000-000000000000";
    agent.get(unknown).await.refused(404, "NOT_FOUND");
}

#[tokio::test]
async fn what_can_be_said_at_once_is_said_before_anything_is_promised() {
    let agent = Options::memory().env("Q8_AGENT_BUSY_WAIT", "50ms").start().await;
    let asked = [("prefer", "respond-async")];
    let refuse = async |compose: &str| post(&agent, "/v1/tenants/provision", &asked, &body(compose)).await;
    refuse("services: [").await.refused(422, "COMPOSE_INVALID");
    refuse("services: {web: {image: 'x:1', privileged: true}}").await.refused(422, "POLICY_DENIED");
    post(&agent, "/v1/tenants/stop/acme", &asked, &Value::Null).await.refused(404, "NOT_FOUND");
    assert_eq!(agent.get("/v1/operations").await.expect(200), json!({ "operations": [] }));
    let id = accept(&agent, "/v1/tenants/provision", &body(&waits())).await;
    let busy = refuse(&web(1)).await.refused(409, "TENANT_BUSY");
    assert_eq!(busy["details"]["operation"]["id"], id);
    post(&agent, &format!("/v1/operations/{id}/cancel"), &[], &Value::Null).await.expect(202);
    ended(&agent, &id).await;
}

/// Images are looked for, which may take long, before anything is done: whoever has seen the operation finds what became of it.
#[tokio::test]
async fn an_operation_that_comes_to_nothing_is_known_and_its_key_is_free() {
    let agent = Options::memory().start().await;
    let missing = body("services: {web: {image: 'missing:1'}}");
    let key = [("idempotency-key", "k")];
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = post(&agent, "/v1/tenants/provision", &key, &missing).await;
        answer.refused(502, "IMAGE_NOT_FOUND");
        assert!(!answer.headers.contains_key("idempotency-replayed"));
        let id = answer.headers["x-operation-id"].to_str().expect("an id").to_owned();
        let told = agent.get(&format!("/v1/operations/{id}")).await.expect(200);
        assert_eq!((&told["state"], &told["outcome"]), (&json!("failed"), &json!("undone")), "{told}");
        assert_eq!(events(&agent, &id, &[]).await.last().expect("an end").1, "end");
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1], "it was tried again");
}

#[tokio::test]
async fn a_cancelled_operation_is_undone() {
    let agent = Options::memory().start().await;
    agent.post("/v1/tenants/provision", &body(&web(1))).await.expect(201);
    let before = agent.get("/v1/tenants/status/acme").await.expect(200);
    let id = accept(&agent, "/v1/tenants/provision", &body(&waits())).await;
    let mut lines = agent.stream(&format!("/v1/operations/{id}/events"), &[]).await;
    while event(&mut lines).await.expect("it goes on").1 != "step" {}
    let cancel = format!("/v1/operations/{id}/cancel");
    assert_eq!(post(&agent, &cancel, &[], &Value::Null).await.expect(202)["id"], id);
    let end = loop {
        let (_, name, data) = event(&mut lines).await.expect("it goes on");
        if name == "end" {
            break data;
        }
    };
    assert_eq!(
        (&end["state"], &end["outcome"], &end["error"]["code"]),
        (&json!("cancelled"), &json!("undone"), &json!("CANCELLED")),
        "{end}"
    );
    let after = agent.get("/v1/tenants/status/acme").await.expect(200);
    assert_eq!((&after["generation"], &after["state"]), (&before["generation"], &json!("running")), "{after}");
    assert_eq!(after["services"][0]["containers"][0]["id"], before["services"][0]["containers"][0]["id"]);
    assert!(after.get("last_error").is_none(), "{after}");
    // Asked again it is still cancelled; what has ended otherwise cannot be.
    post(&agent, &cancel, &[], &Value::Null).await.expect(202);
    let stopped = agent.post("/v1/tenants/stop/acme", &Value::Null).await;
    let stop = stopped.headers["x-operation-id"].to_str().expect("a UUID");
    let late = post(&agent, &format!("/v1/operations/{stop}/cancel"), &[], &Value::Null).await;
    late.refused(409, "NOT_CANCELLABLE");
}

#[tokio::test]
async fn a_key_makes_a_repeat_harmless_across_kills() {
    let mut agent = Options::memory().start().await;
    agent.post("/v1/tenants/provision", &body(&web(1))).await.expect(201);
    agent.post("/v1/tenants/provision", &body(&web(2))).await.expect(200);
    let key = [("idempotency-key", "rollback-7")];
    let first = post(&agent, "/v1/tenants/rollback/acme", &key, &Value::Null).await;
    assert_eq!(first.expect(200)["generation"], 3);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    agent.kill();
    agent.start_again().await;
    let again = post(&agent, "/v1/tenants/rollback/acme", &key, &Value::Null).await;
    assert_eq!(again.expect(200), first.json());
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers["x-operation-id"], first.headers["x-operation-id"]);
    post(&agent, "/v1/tenants/rollback/acme?from=3", &key, &Value::Null).await.refused(422, "IDEMPOTENCY_MISMATCH");
    post(&agent, "/v1/tenants/stop/acme", &key, &Value::Null).await.refused(422, "IDEMPOTENCY_MISMATCH");
    let bad = [("idempotency-key", "a b")];
    post(&agent, "/v1/tenants/stop/acme", &bad, &Value::Null).await.refused(400, "INVALID_REQUEST");

    // A failure that would come again is told again; nothing is tried a second time.
    let key = [("idempotency-key", "update-8")];
    let exits =
        json!({ "subdomain": "acme", "compose_content": "services: {web: {image: 'x:1', command: ['false']}}" });
    let failed = post(&agent, "/v1/tenants/update", &key, &exits).await;
    let told = failed.refused(502, "SERVICE_EXITED");
    let again = post(&agent, "/v1/tenants/update", &key, &exits).await.refused(502, "SERVICE_EXITED");
    assert_eq!((&again["error"], &again["details"]), (&told["error"], &told["details"]));
    let operations = agent.get("/v1/operations?subdomain=acme").await.expect(200);
    let updates = operations["operations"].as_array().expect("a list");
    assert_eq!(updates.iter().filter(|operation| operation["kind"] == "update").count(), 1, "{operations}");
}

#[tokio::test]
async fn an_accepted_operation_survives_the_death_of_the_agent() {
    let mut agent = Options::memory().start().await;
    agent.post("/v1/tenants/provision", &body(&web(1))).await.expect(201);
    let id = accept(&agent, "/v1/tenants/provision", &body(&waits())).await;
    let mut lines = agent.stream(&format!("/v1/operations/{id}/events"), &[]).await;
    let seen = loop {
        let (number, name, _) = event(&mut lines).await.expect("it goes on");
        if name == "step" {
            break number.expect("a number").to_string();
        }
    };
    agent.kill();
    agent.start_again().await;
    let operation = ended(&agent, &id).await;
    assert_eq!((&operation["state"], &operation["outcome"]), (&json!("interrupted"), &json!("undone")), "{operation}");
    // What the first run told is gone, and said to be; the numbers of the second are greater.
    for headers in [&[][..], &[("last-event-id", &*seen)]] {
        let told = events(&agent, &id, headers).await;
        assert_eq!((&*told[0].1, &told[0].2), ("gap", &json!({ "missed": null })), "{told:?}");
        assert!(told[1..].iter().all(|(number, ..)| number.is_some_and(|number| number > 1 << 40)), "{told:?}");
        assert_eq!(told.last().expect("an end").2, operation);
    }
    // And the feed, read from this run's beginning, tells of its end.
    let mut feed = agent.stream("/v1/events", &[]).await;
    let begin = sse::next(&mut feed, LIMIT).await.and_then(|event| event.id).expect("resync has a cursor");
    let (run, _) = begin.split_once('-').expect("a run and a number");
    let mut feed = agent.stream(&format!("/v1/events?cursor={run}-0"), &[]).await;
    loop {
        let Event { name, data, .. } = sse::next(&mut feed, LIMIT).await.expect("it goes on");
        if name == "operation_ended" {
            assert_eq!((&data["operation"], &data["outcome"]), (&json!(id), &json!("undone")), "{data}");
            break;
        }
    }
    assert_eq!(agent.get("/v1/tenants/status/acme").await.expect(200)["generation"], 1);
    // Of one that ended in an earlier run there is its end only, and the number of what is not kept any more.
    let id = accept(&agent, "/v1/tenants/provision", &body(&web(2))).await;
    let all = events(&agent, &id, &[]).await;
    agent.kill();
    agent.start_again().await;
    let told = events(&agent, &id, &[("last-event-id", "1")]).await;
    let end = all.last().expect("an end").clone();
    let missed = end.0.expect("a number") - 2;
    assert_eq!(told, [(None, "gap".to_owned(), json!({ "missed": missed })), end]);
}

#[tokio::test]
async fn a_first_provision_tells_what_it_waits_for() {
    let agent = Options::memory().start().await;
    let two = waits()
        .replace("services: {", "services: {late: {image: 'x:1', depends_on: {web: {condition: service_healthy}}}, ");
    let id = accept(&agent, "/v1/tenants/provision", &body(&two)).await;
    let mut lines = agent.stream(&format!("/v1/operations/{id}/events"), &[]).await;
    while event(&mut lines).await.expect("it goes on").1 != "waiting" {}
    let operation = agent.get(&format!("/v1/operations/{id}")).await.expect(200);
    assert_eq!(operation["step"], "waiting for web to become healthy");
    let status = agent.get("/v1/tenants/status/acme").await.expect(200);
    let service = |name: &str| {
        let services = status["services"].as_array().expect("a list");
        services.iter().find(|service| service["name"] == name).unwrap_or_else(|| panic!("{status}"))
    };
    assert_eq!((&status["state"], &status["generation"]), (&json!("provisioning"), &json!(0)), "{status}");
    assert_eq!((&service("web")["state"], &service("web")["health"]), (&json!("starting"), &json!("starting")));
    assert_eq!(service("late")["waits_for"], json!([{ "service": "web", "condition": "service_healthy" }]));
    for path in ["/v1/tenants/logs/acme?tail=1", "/v1/tenants/images/acme"] {
        assert_eq!(agent.request(Method::GET, path, &[], "").await.status, 200, "{path}");
    }
    post(&agent, &format!("/v1/operations/{id}/cancel"), &[], &Value::Null).await.expect(202);
    ended(&agent, &id).await;
    agent.get("/v1/tenants/status/acme").await.refused(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_plan_is_expected_or_refused() {
    let agent = Options::memory().start().await;
    let plan = agent.post("/v1/tenants/plan", &body(&web(1))).await.expect(200);
    assert_eq!((&plan["changed"], &plan["generation"]), (&json!(true), &json!(1)), "{plan}");
    assert_eq!(
        plan["steps"][0],
        json!({ "object": "container web-1", "action": "create", "reason": plan["steps"][0]["reason"] })
    );
    let with = |compose: String, hash: &Value| {
        let mut body = body(&compose);
        body["expect_plan"] = hash.clone();
        body
    };
    let refused = agent.post("/v1/tenants/provision", &with(web(2), &plan["plan_hash"])).await;
    let refused = refused.refused(409, "PLAN_CHANGED");
    assert!(refused["details"]["plan_hash"].is_string(), "{refused}");
    agent.post("/v1/tenants/provision", &with(web(1), &json!("x"))).await.refused(400, "INVALID_REQUEST");
    agent.post("/v1/tenants/provision", &with(web(1), &plan["plan_hash"])).await.expect(201);
    // Repeated by a client that has not heard the answer.
    let again = agent.post("/v1/tenants/provision", &with(web(1), &plan["plan_hash"])).await.expect(200);
    assert_eq!(again["changed"], false);
}

#[tokio::test]
async fn one_reader_of_the_feed_too_many_is_told_to_come_later() {
    let agent = Options::memory().start().await;
    let mut readers = Vec::new();
    for _ in 0..Limits::default().feed_readers {
        readers.push(agent.stream("/v1/events", &[]).await);
    }
    let full = agent.get("/v1/events").await;
    assert_eq!(full.refused(429, "RATE_LIMITED")["retryable"], true);
    assert!(full.headers.contains_key("retry-after"), "{:?}", full.headers);
    // That is for the feed only, and those who have a place read on.
    let id = accept(&agent, "/v1/tenants/provision", &body(&web(1))).await;
    assert_eq!(events(&agent, &id, &[]).await.last().expect("an end").1, "end");
    for reader in &mut readers {
        while sse::next(reader, LIMIT).await.expect("the feed goes on").name != "operation_ended" {}
    }
    // Whoever leaves makes room.
    readers.pop();
    let authorization = format!("Bearer {}", agent.token());
    eventually("there is a place again", LIMIT, async || {
        let headers = [("authorization", authorization.as_str())];
        let answer = http::send(agent.address(), Method::GET, "/v1/events", &headers, "").await.expect("an answer");
        (answer.status() == 200).then_some(())
    })
    .await;
}
