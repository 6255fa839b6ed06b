//! What the Main Server knows without asking the engine, and how it hears of changes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::eventually;
use crate::support::http::{Answer, Lines};
use crate::support::sse::{self, Event};
use crate::tenant::{PATIENCE, Tenant, service};

const STACK: &str = r#"
services:
  web:
    image: "q8test/busybox:1"
    stop_signal: SIGKILL
    ports: ["80"]
    command: [sh, -c, "exec httpd -f -p 80"]
    volumes: ["./data:/data", "store:/store"]
volumes: {store: {}}
"#;

/// How old a status becomes where nothing is slow.
const YOUNG: Duration = Duration::from_millis(2500);

const GOOD: &str = "good: {image: 'q8test/busybox:1', stop_signal: SIGKILL, command: [sleep, infinity]}";

async fn agent() -> Agent<'static> {
    Options::docker(Engine::shared().with_busybox().await).start().await
}

/// What a service does that lives until [`end`] and ends so from then on: nothing else decides when, so that it is up when
/// whoever started it looks.
fn ends_when_told(how: &str) -> String {
    format!("volumes: ['./data:/d'], command: [sh, -c, 'while [ ! -e /d/end ]; do sleep 0.1; done; {how}']")
}

fn end(agent: &Agent<'_>, tenant: &Tenant<'_>) -> std::path::PathBuf {
    let file = agent.root().join(&tenant.name).join("data/end");
    std::fs::write(&file, "").expect("the directory is bound");
    file
}

async fn status_if_new(agent: &Agent<'_>, path: &str, tag: &str) -> Answer {
    agent.request(Method::GET, path, &[("if-none-match", tag)], "").await
}

fn tag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().expect("text").to_owned()
}

/// The next event of a feed: its id, type and data.
async fn next_event(feed: &mut Lines) -> (String, String, Value) {
    let Event { id, name, data } = sse::next(feed, PATIENCE).await.expect("the feed goes on");
    (id.unwrap_or_default(), name, data)
}

/// Reads until an event of this type comes; gives it with what came before.
async fn until_event(feed: &mut Lines, wanted: &str) -> (Vec<String>, (String, Value)) {
    let mut before = Vec::new();
    loop {
        let (id, name, data) = next_event(feed).await;
        if name == wanted {
            return (before, (id, data));
        }
        before.push(name);
    }
}

#[tokio::test]
async fn a_status_is_sent_once_and_says_how_old_it_is() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "tagged");
    tenant.provision(STACK, json!({})).await;
    let path = format!("/v1/tenants/status/{}", tenant.name);
    let first = agent.get(&path).await;
    // It is known anew all the time, although nothing happens and nobody asks the engine.
    let asked = Instant::now();
    first.expect(200)["age_ms"].as_u64().expect("a number");
    eventually("it is known anew", PATIENCE, async || {
        let age = agent.get(&path).await.unless_away()?["age_ms"].as_u64().expect("a number");
        (asked.elapsed() > YOUNG && Duration::from_millis(age) < YOUNG).then_some(())
    })
    .await;
    let same = status_if_new(&agent, &path, &tag(&first)).await;
    assert_eq!((same.status.as_u16(), same.bytes.len()), (304, 0));
    assert_eq!(tag(&same), tag(&first));
    let fresh = agent.get(&format!("{path}?fresh=1")).await;
    assert_eq!(tag(&fresh), tag(&first), "asking the engine makes no other status");
    let list = agent.get("/v1/tenants").await;
    assert_eq!(status_if_new(&agent, "/v1/tenants", &tag(&list)).await.status.as_u16(), 304);

    // Somebody else stops it.
    let id = tenant.container("web-1").await;
    Engine::shared().docker().stop_container(&id, None).await.expect("it stops");
    let told = agent.get(&format!("{path}?fresh=true")).await.expect(200);
    assert_eq!((&told["state"], &told["services"][0]["state"]), (&json!("failed"), &json!("exited")), "{told}");
    assert_eq!(told["reasons"], json!(["service web: exited with code 137"]));
    assert_eq!(status_if_new(&agent, &path, &tag(&first)).await.expect(200)["state"], "failed");
    assert_eq!(status_if_new(&agent, "/v1/tenants", &tag(&list)).await.expect(200)["tenants"][0]["state"], "failed");
    // What an operation does is there when its answer is.
    for _ in 0..5 {
        tenant.act("start", "").await.expect(200);
        assert_eq!(tenant.status().await["state"], "running");
        tenant.act("stop", "").await.expect(200);
        assert_eq!(tenant.status().await["state"], "stopped");
    }
    tenant.purge().await;
    agent.get(&path).await.refused(404, "NOT_FOUND");
    assert_eq!(agent.get("/v1/tenants").await.expect(200)["tenants"], json!([]));
}

#[tokio::test]
async fn changes_are_told_in_order_and_from_where_one_was() {
    let agent = agent().await;
    let mut feed = agent.stream("/v1/events", &[]).await;
    let (begin, name, _) = next_event(&mut feed).await;
    assert_eq!(name, "resync", "who has no cursor begins with a look at the list");
    let tenant = Tenant::new(&agent, "told");
    tenant.provision(STACK, json!({})).await;
    let (before, (made, ended)) = until_event(&mut feed, "operation_ended").await;
    assert!(before.contains(&"tenant_created".to_owned()), "{before:?}");
    assert!(before.contains(&"tenant_state".to_owned()), "{before:?}");
    assert_eq!((&ended["kind"], &ended["outcome"]), (&json!("provision"), &json!("succeeded")), "{ended}");
    assert_eq!(ended["subdomain"], tenant.name.as_str());

    let id = tenant.container("web-1").await;
    Engine::shared().docker().stop_container(&id, None).await.expect("it stops");
    let (_, (_, state)) = until_event(&mut feed, "tenant_state").await;
    assert_eq!((&state["from"], &state["to"]), (&json!("running"), &json!("failed")), "{state}");
    drop(feed);
    tenant.act("teardown", "").await.expect(200);
    tenant.purge().await;

    // The same again, by another way to say where one was.
    let mut again = agent.stream(&format!("/v1/events?cursor={begin}"), &[("last-event-id", &made)]).await;
    let (first, _) = until_event(&mut again, "tenant_kept").await;
    assert!(first.contains(&"service_state".to_owned()), "{first:?}");
    assert!(!first.contains(&"tenant_created".to_owned()), "{first:?}");
    until_event(&mut again, "tenant_purged").await;
    // Of all this nothing is told to who asks for another one: the first is what happens to that one.
    let other = Tenant::new(&agent, "other");
    let path = format!("/v1/events?cursor={begin}&subdomain={}", other.name);
    let mut feed = agent.stream(&path, &[]).await;
    other.provision(STACK, json!({})).await;
    let (_, name, data) = next_event(&mut feed).await;
    assert_eq!(data["subdomain"], other.name.as_str(), "{name}: {data}");
    other.purge().await;
    let mut strange = agent.stream("/v1/events?cursor=nowhere-1", &[]).await;
    assert_eq!(next_event(&mut strange).await.1, "resync");
    agent.get("/v1/events?since=1").await.refused(400, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_crash_loop_is_called_one() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "loops");
    let mut feed = agent.stream(&format!("/v1/events?subdomain={}", tenant.name), &[]).await;
    next_event(&mut feed).await;
    let bad = ends_when_told("exit 7");
    let stack = format!(
        "services:\n  bad: {{image: 'q8test/busybox:1', restart: always, {bad}, depends_on: [good]}}\n  {GOOD}\n"
    );
    tenant.provision(&stack, json!({})).await;
    end(&agent, &tenant);
    let (_, (_, event)) = until_event(&mut feed, "restart_loop").await;
    assert_eq!(event["service"], "bad", "{event}");
    let codes = event["last_exits"].as_array().expect("a list");
    assert!(codes.len() >= 5 && codes.iter().all(|exit| exit["code"] == 7), "{event}");
    let path = format!("/v1/tenants/status/{}", tenant.name);
    let told = eventually("the status says so", PATIENCE, async || {
        let told = agent.get(&path).await.unless_away()?;
        (told["services"][0]["containers"][0]["crash_loop"] == true).then_some(told)
    })
    .await;
    assert_eq!((&told["state"], &told["services"][0]["state"]), (&json!("degraded"), &json!("restarting")), "{told}");
    assert!(told["services"][0]["reason"].as_str().is_some_and(|why| why.contains("7, 7, 7")), "{told}");
    assert_eq!(told["services"][1]["state"], "running", "{told}");
    tenant.act("stop", "").await.expect(200);
    let told = tenant.status().await;
    assert_eq!(told["state"], "stopped", "{told}");
    assert!(told["services"][0]["containers"][0].get("crash_loop").is_none(), "it has ended: {told}");
    tenant.purge().await;
}

/// The engine can neither rename a container that waits to be started again, nor always take its restart policy away.
#[tokio::test]
async fn what_ends_again_and_again_can_be_mended_and_stopped_while_it_waits() {
    mended_and_stopped("sleep 1; ").await;
}

/// Not even for a moment is it there to be renamed.
#[tokio::test]
async fn what_ends_at_once_can_be_mended_and_stopped_while_it_waits() {
    mended_and_stopped("").await;
}

async fn mended_and_stopped(first: &str) {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "mends");
    let stack = |what: &str| {
        format!("services:\n  bad: {{image: 'q8test/busybox:1', restart: always, stop_signal: SIGKILL, {what}}}\n")
    };
    let path = format!("/v1/tenants/status/{}?fresh=1", tenant.name);
    let waits = async || {
        eventually("it waits for its next start", Duration::from_secs(60), async || {
            let told = agent.get(&path).await.unless_away()?;
            let container = &told["services"][0]["containers"][0];
            let late = container["restart_count"].as_u64().is_some_and(|count| count >= 5);
            (late && container["state"] == "restarting").then_some(())
        })
        .await;
    };
    tenant.provision(&stack(&ends_when_told(&format!("{first}exit 7"))), json!({})).await;
    let ended = end(&agent, &tenant);
    waits().await;
    let body = json!({"subdomain": tenant.name, "compose_content": stack("command: [sleep, infinity]")});
    let updated = agent.post("/v1/tenants/update", &body).await.expect(200);
    assert_eq!((&updated["generation"], &updated["services"][0]["state"]), (&json!(2), &json!("running")), "{updated}");
    std::fs::remove_file(ended).expect("it was made");
    let body = json!({"subdomain": tenant.name, "compose_content": stack(&ends_when_told(&format!("{first}exit 8")))});
    agent.post("/v1/tenants/update", &body).await.expect(200);
    end(&agent, &tenant);
    waits().await;
    tenant.act("stop", "").await.expect(200);
    assert_eq!(tenant.status().await["state"], "stopped");
    tenant.purge().await;
}

#[tokio::test]
async fn a_crash_loop_that_lasts_too_long_is_broken() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).env("Q8_AGENT_CRASH_LOOP_LIMIT", "1s").start().await;
    let tenant = Tenant::new(&agent, "breaks");
    let mut feed = agent.stream(&format!("/v1/events?subdomain={}", tenant.name), &[]).await;
    next_event(&mut feed).await;
    let bad = ends_when_told("exit 7");
    let stack = format!("services:\n  bad: {{image: 'q8test/busybox:1', restart: always, {bad}}}\n  {GOOD}\n");
    tenant.provision(&stack, json!({})).await;
    let ended = end(&agent, &tenant);
    until_event(&mut feed, "restart_loop").await;
    let exited = loop {
        let (_, (_, event)) = until_event(&mut feed, "service_state").await;
        if event["to"] == "exited" {
            break event;
        }
    };
    assert!(exited["reason"].as_str().is_some_and(|why| why.contains("until the agent stopped it")), "{exited}");
    let (_, (_, stopped)) = until_event(&mut feed, "operation_ended").await;
    assert_eq!((&stopped["kind"], &stopped["outcome"]), (&json!("stop"), &json!("succeeded")), "{stopped}");
    let path = format!("/v1/tenants/status/{}", tenant.name);
    let told = eventually("the status says so", PATIENCE, async || {
        let told = agent.get(&path).await.unless_away()?;
        (told["services"][0]["containers"][0]["crash_loop"] == true).then_some(told)
    })
    .await;
    assert_eq!((&told["state"], &told["services"][0]["state"]), (&json!("degraded"), &json!("exited")), "{told}");
    let reason = told["services"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("7, 7") && reason.contains("until the agent stopped it"), "{reason}");
    assert!(!reason.contains("137"), "its end by the agent is none of its exits: {reason}");
    assert_eq!(told["services"][1]["state"], "running", "{told}");
    // It is given another life by whoever asks for it.
    std::fs::remove_file(ended).expect("it was made");
    tenant.act("start", "?service=bad").await.expect(200);
    let told = tenant.status().await;
    assert!(told["services"][0]["containers"][0].get("crash_loop").is_none(), "{told}");
    tenant.purge().await;
}

#[tokio::test]
async fn a_status_has_the_form_of_docker_compose() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "lines");
    tenant.provision(STACK, json!({})).await;
    let path = format!("/v1/tenants/status/{}?format=compose", tenant.name);
    let answer = agent.get(&path).await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let line = answer.expect(200);
    let fields = "Command CreatedAt ExitCode Health ID Image Labels LocalVolumes Mounts Name Names Networks Ports Project \
                  Publishers RunningFor Service Size State Status";
    let found: Vec<&String> = line.as_object().expect("an object").keys().collect();
    assert_eq!(found, fields.split_whitespace().collect::<Vec<_>>());
    let project = format!("q8-{}", tenant.name);
    assert_eq!((&line["Name"], &line["Project"]), (&json!(format!("{project}-web-1")), &json!(project)));
    assert_eq!((&line["State"], &line["Health"], &line["ExitCode"]), (&json!("running"), &json!(""), &json!(0)));
    assert_eq!(line["Command"], json!(r#""sh -c 'exec httpd -…""#));
    assert_eq!((&line["LocalVolumes"], &line["Size"]), (&json!("1"), &json!("0B")));
    assert!(line["Mounts"].as_str().is_some_and(|mounts| mounts.contains("./data")), "{line}");
    assert_eq!(line["Networks"], json!(format!("{project}_default")));
    assert_eq!(
        (&line["Publishers"][0]["URL"], &line["Publishers"][0]["TargetPort"]),
        (&json!("127.0.0.1"), &json!(80))
    );
    let port = &line["Publishers"][0]["PublishedPort"];
    assert_eq!(line["Ports"], json!(format!("127.0.0.1:{port}->80/tcp")));
    assert!(line["Status"].as_str().is_some_and(|status| status.starts_with("Up ")), "{line}");
    let root = agent.root().to_string_lossy().into_owned();
    assert!(!answer.text().contains(&root), "no path of the host: {line}");
    tenant.act("stop", "").await.expect(200);
    assert_eq!(agent.get(&path).await.text(), "", "only what runs, as the tool does");
    assert_eq!(agent.get(&format!("{path}&all=true")).await.expect(200)["State"], "exited");
    tenant.purge().await;
    agent.get(&path).await.refused(404, "NOT_FOUND");
}

/// A file that a tenant's containers see at `/d`.
fn in_data(agent: &Agent<'_>, tenant: &Tenant<'_>, name: &str) -> PathBuf {
    agent.root().join(&tenant.name).join("data").join(name)
}

#[tokio::test]
async fn a_lack_of_memory_is_told_when_it_happens_and_as_the_reason_of_the_end() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "eats");
    let mut feed = agent.stream(&format!("/v1/events?subdomain={}", tenant.name), &[]).await;
    next_event(&mut feed).await;
    // It is a child that is killed; its parent goes on until it is told to end with the child's code.
    let stack = r#"
services:
  eats:
    image: "q8test/busybox:1"
    mem_limit: 16m
    stop_signal: SIGKILL
    volumes: ["./data:/d"]
    command:
      - sh
      - -c
      - until [ -e /d/go ]; do sleep 0.1; done; tail /dev/zero; code=$$?; until [ -e /d/end ]; do sleep 0.1; done; exit $$code
"#;
    tenant.provision(stack, json!({})).await;
    std::fs::write(in_data(&agent, &tenant, "go"), "").expect("a file");
    let (before, (_, event)) = until_event(&mut feed, "out_of_memory").await;
    assert!(before.contains(&"operation_ended".to_owned()), "not before it was told to: {before:?}");
    assert_eq!(event["service"], "eats", "{event}");
    assert_eq!(event["container"], format!("q8-{}-eats-1", tenant.name), "{event}");
    let told = tenant.status().await;
    assert_eq!(service(&told, "eats")["state"], "running", "{told}");
    assert!(service(&told, "eats")["containers"][0].get("oom_killed").is_none(), "it has not ended: {told}");

    std::fs::write(in_data(&agent, &tenant, "end"), "").expect("a file");
    let why = "was killed for lack of memory (exit code 137)";
    let (_, (_, event)) = until_event(&mut feed, "service_state").await;
    assert_eq!((&event["from"], &event["to"]), (&json!("running"), &json!("exited")), "{event}");
    assert_eq!(event["reason"], why, "{event}");
    let told = tenant.becomes("failed").await;
    let eats = service(&told, "eats");
    assert_eq!((&eats["state"], &eats["reason"]), (&json!("exited"), &json!(why)), "{told}");
    assert_eq!(eats["containers"][0]["oom_killed"], true, "{told}");
    assert_eq!(told["reasons"], json!([format!("service eats: {why}")]), "{told}");
    // A new run has a new end.
    for name in ["go", "end"] {
        std::fs::remove_file(in_data(&agent, &tenant, name)).expect("it is there");
    }
    tenant.act("start", "").await.expect(200);
    let told = tenant.status().await;
    assert_eq!(told["state"], "running", "{told}");
    assert!(service(&told, "eats")["containers"][0].get("oom_killed").is_none(), "{told}");
    tenant.purge().await;
}

#[tokio::test]
async fn what_a_healthcheck_finds_is_told_with_as_much_as_one_wants_to_read() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "pulse");
    let mut feed = agent.stream(&format!("/v1/events?subdomain={}", tenant.name), &[]).await;
    next_event(&mut feed).await;
    let stack = r#"
services:
  web:
    image: "q8test/busybox:1"
    stop_signal: SIGKILL
    volumes: ["./data:/d"]
    command: [sh, -c, "echo no pulse >/d/says; touch /d/well; exec sleep infinity"]
    healthcheck: {test: "test -e /d/well || { cat /d/says; exit 1; }", interval: 1s, timeout: 30s, retries: 1}
"#;
    tenant.provision(stack, json!({})).await;
    let told = tenant.status().await;
    let web = service(&told, "web");
    assert_eq!((&web["state"], &web["health"]), (&json!("healthy"), &json!("healthy")), "{told}");
    assert!(web["containers"][0].get("health_output").is_none(), "{told}");
    until_event(&mut feed, "operation_ended").await;

    std::fs::remove_file(in_data(&agent, &tenant, "well")).expect("it is there");
    let (_, (_, event)) = until_event(&mut feed, "service_health").await;
    assert_eq!((&event["service"], &event["from"]), (&json!("web"), &json!("healthy")), "{event}");
    assert_eq!(event["to"], "unhealthy", "{event}");
    let told = tenant.status().await;
    let web = service(&told, "web");
    assert_eq!((&web["state"], &web["health"]), (&json!("unhealthy"), &json!("unhealthy")), "{told}");
    assert_eq!(web["reason"], "its healthcheck fails", "{told}");
    let container = &web["containers"][0];
    assert_eq!((&container["health"], &container["health_output"]), (&json!("unhealthy"), &json!("no pulse")));

    // The engine has no event for another text of the same health.
    let long = in_data(&agent, &tenant, "long");
    std::fs::write(&long, "x".repeat(10_000)).expect("a file");
    std::fs::rename(long, in_data(&agent, &tenant, "says")).expect("it takes the other one's place");
    let output = eventually("the longer text is told", PATIENCE, async || {
        let told = tenant.status().await;
        let output = service(&told, "web")["containers"][0]["health_output"].as_str().expect("a text").to_owned();
        (output != "no pulse").then_some(output)
    })
    .await;
    assert_eq!(output, "x".repeat(4096));

    std::fs::write(in_data(&agent, &tenant, "well"), "").expect("a file");
    let (_, (_, event)) = until_event(&mut feed, "service_health").await;
    assert_eq!((&event["from"], &event["to"]), (&json!("unhealthy"), &json!("healthy")), "{event}");
    let told = tenant.status().await;
    assert_eq!(told["state"], "running", "{told}");
    assert!(service(&told, "web")["containers"][0].get("health_output").is_none(), "{told}");
    tenant.purge().await;
}

/// How often each call of the engine was made, as the metrics have it; pings left out, which come all the time.
async fn calls(agent: &Agent<'_>) -> BTreeMap<String, u64> {
    let text = agent.get("/metrics").await.text();
    let counted = text.lines().filter_map(|line| {
        let (call, count) =
            line.strip_prefix("q8_agent_engine_call_duration_seconds_count{call=\"")?.split_once("\"} ")?;
        Some((call.to_owned(), count.parse().expect("a number")))
    });
    counted.filter(|(call, _)| call != "ping").collect()
}

#[tokio::test]
async fn a_status_costs_the_engine_nothing() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "known");
    tenant.provision(STACK, json!({})).await;
    let path = format!("/v1/tenants/status/{}", tenant.name);
    // Now and then the watch compares its list, and the scrapes themselves have the engine asked: most of the time nobody does.
    let quiet = eventually("fifty statuses without a call of the engine", PATIENCE, async || {
        let before = calls(&agent).await;
        for _ in 0..50 {
            assert_eq!(agent.get(&path).await.expect(200)["state"], "running");
            assert_eq!(agent.get("/v1/tenants").await.expect(200)["tenants"][0]["state"], "running");
        }
        (calls(&agent).await == before).then_some(before)
    })
    .await;
    for call in ["containers", "inspect"] {
        assert!(quiet.get(call).is_some_and(|count| *count > 0), "{call} is counted under another name: {quiet:?}");
    }
    // Who asks for it has the engine asked.
    for _ in 0..3 {
        agent.get(&format!("{path}?fresh=1")).await.expect(200);
    }
    let asked = calls(&agent).await;
    let more = |call: &str| asked[call] - quiet[call];
    assert!(more("containers") >= 3 && more("inspect") >= 3, "{quiet:?} {asked:?}");
    tenant.purge().await;
}
