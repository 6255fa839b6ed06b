//! Logs over HTTP: quick, told apart, and in bounded memory whatever a container writes and however slowly a client reads.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::{Value, json};

use crate::scene::{LONG, PROVISION, UPDATE, exec, purge, request, stack};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::http::{self, Lines};
use crate::support::{eventually, unique};

const NDJSON: &[(&str, &str)] = &[("accept", "application/x-ndjson")];
/// Whatever is written here must not fill the disk of whoever runs the tests.
const LITTLE: &str = "logging: {driver: json-file, options: {max-size: 20m, max-file: '1'}}";
const MIB: u64 = 1 << 20;

/// A service that runs a shell command and then sleeps.
fn says(command: &str) -> String {
    format!("command: [\"sh\", \"-c\", {}]", json!(format!("{command}; exec sleep 3600")))
}

async fn up(agent: &Agent<'_>, services: &[(&str, &str)]) -> String {
    let name = unique("logs");
    let lines: Vec<[&str; 3]> = services.iter().map(|(_, line)| [*line, "stop_signal: SIGKILL", LITTLE]).collect();
    let parts: Vec<[&[&str]; 1]> = lines.iter().map(|lines| [&lines[..]]).collect();
    let all: Vec<(&str, &[&[&str]])> =
        services.iter().zip(&parts).map(|((service, _), parts)| (*service, &parts[..])).collect();
    agent.post(PROVISION, &request(&name, &stack(&all, ""))).await.expect(201);
    name
}

async fn id(agent: &Agent<'_>, name: &str, container: &str) -> String {
    crate::scene::containers(&crate::scene::status(agent, name).await)[container].id.clone()
}

/// Resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has it");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib * 1024
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs").count()
}

async fn lines(agent: &Agent<'_>, name: &str, query: &str) -> Vec<String> {
    let answer = agent.get(&format!("/v1/tenants/logs/{name}?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().lines().map(String::from).collect()
}

#[tokio::test]
async fn a_line_is_there_within_a_second() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let name = up(&agent, &[("web", &says("echo ready")), ("db", &says("true"))]).await;
    let web = id(&agent, &name, "web-1").await;
    let mut text = agent.stream(&format!("/v1/tenants/logs/{name}?follow=true"), &[]).await;
    assert_eq!(text.next(LONG).await.as_deref(), Some("web-1 | ready"));
    let mut ndjson = agent.stream(&format!("/v1/tenants/logs/{name}?follow=true&tail=1&service=web"), NDJSON).await;
    // From then on it is certain that nothing is written before it reads.
    assert!(ndjson.next(LONG).await.is_some_and(|line| line.contains("ready")));
    // The best of five: the promise is about the agent, not about what else this machine does.
    let mut best = (LONG, LONG);
    for number in 0..5 {
        // The engine copies what process 1 writes.
        exec(engine, &web, &["sh", "-c", &format!("echo line {number} >/proc/1/fd/1")]).await;
        let written = Instant::now();
        assert_eq!(text.next(LONG).await, Some(format!("web-1 | line {number}")));
        let first = written.elapsed();
        let line: Value = serde_json::from_str(&ndjson.next(LONG).await.expect("a line")).expect("JSON");
        assert_eq!((&line["line"], &line["service"]), (&json!(format!("line {number}")), &json!("web")), "{line}");
        best = (best.0.min(first), best.1.min(written.elapsed()));
    }
    assert!(best.0 < Duration::from_secs(1) && best.1 < Duration::from_secs(1), "{best:?}");
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn services_streams_and_times_are_told_apart() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let name = up(
        &agent,
        &[
            ("web", &says("echo w1; sleep 1; echo w2 >&2; sleep 1; echo w3")),
            ("db", &says("sleep 0.5; echo d1 >&2; sleep 1; echo d2")),
        ],
    )
    .await;
    eventually("everything is written", LONG, async || (lines(&agent, &name, "").await.len() == 5).then_some(())).await;
    assert_eq!(lines(&agent, &name, "service=db").await, ["db-1 | d1", "db-1 | d2"]);
    assert_eq!(lines(&agent, &name, "service=web&tail=1").await, ["web-1 | w3"]);
    assert_eq!(lines(&agent, &name, "tail=0").await, Vec::<String>::new());
    let mut both = lines(&agent, &name, "tail=all&service=web&service=db").await;
    both.sort();
    assert_eq!(both, ["db-1 | d1", "db-1 | d2", "web-1 | w1", "web-1 | w2", "web-1 | w3"]);

    let answer = agent.request(Method::GET, &format!("/v1/tenants/logs/{name}"), NDJSON, "").await;
    let all: Vec<Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    let mut told: Vec<String> =
        all.iter().map(|line| format!("{} {} {}", line["service"], line["stream"], line["line"])).collect();
    told.sort();
    assert_eq!(
        told,
        [
            r#""db" "stderr" "d1""#,
            r#""db" "stdout" "d2""#,
            r#""web" "stderr" "w2""#,
            r#""web" "stdout" "w1""#,
            r#""web" "stdout" "w3""#
        ]
    );
    let times: Vec<&str> = all.iter().filter_map(|line| line["time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    // From the third of the five on, and up to it.
    let (at, third) = (times[2], all[2]["line"].as_str().expect("a text"));
    let since = lines(&agent, &name, &format!("since={at}")).await;
    assert_eq!(since.len(), 3, "since {at}: {since:?}");
    assert!(since[0].ends_with(third), "{since:?}");
    let until = lines(&agent, &name, &format!("until={at}")).await;
    assert!((2..=3).contains(&until.len()), "until {at}: {until:?}");
    assert!(until[0].ends_with("w1") && !until.iter().any(|line| line.ends_with("w3")), "{until:?}");
    assert_eq!(lines(&agent, &name, "since=1h").await.len(), 5);
    let stamped = lines(&agent, &name, "timestamps=true&service=web&tail=1").await;
    // The last one of all, or the one before: nothing says which service started first.
    let last = all.iter().find(|line| line["line"] == "w3").expect("it was told");
    assert_eq!(stamped, [format!("{} web-1 | w3", last["time"].as_str().expect("a time"))], "{times:?}");
    agent.get(&format!("/v1/tenants/logs/{name}?service=nobody")).await.refused(404, "NOT_FOUND");
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_costs_nothing() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    // About 50000 lines a second.
    let talks = "while true; do seq 1000000 1005000; sleep 0.1; done";
    let name = up(&agent, &[("loud", &says(talks)), ("quiet", &says("echo here"))]).await;
    let query = format!("/v1/tenants/logs/{name}?follow=true&tail=all");
    let authorization = format!("Bearer {}", agent.token());
    let headers = [("authorization", authorization.as_str())];
    // Two that never read, of which one is of a single service, and one that reads.
    let stalled = http::send(agent.address(), Method::GET, &query, &headers, "").await.expect("an answer");
    let single = format!("{query}&service=loud");
    let stalled_too = http::send(agent.address(), Method::GET, &single, &headers, "").await.expect("an answer");
    let mut reader = agent.stream(&query, &[]).await;
    let base = resident(agent.pid());
    let (begun, mut most, mut read, mut waits) = (Instant::now(), 0, 0_u64, Vec::new());
    let mut asked = Instant::now();
    // Long enough to fill whatever is kept for those who do not read, and however slow the machine is.
    while begun.elapsed() < Duration::from_secs(10) || read < 20_000 {
        for _ in 0..500 {
            reader.next(LONG).await.expect("it goes on");
            read += 1;
        }
        if asked.elapsed() > Duration::from_millis(500) {
            most = most.max(resident(agent.pid()));
            let before = Instant::now();
            agent.get("/live").await.expect(200);
            agent.get(&format!("/v1/tenants/status/{name}")).await.expect(200);
            waits.push(before.elapsed());
            asked = Instant::now();
        }
    }
    assert!(most < base + 64 * MIB, "from {} to {} MiB", base / MIB, most / MIB);
    // Most of the time; a busy machine may halt once.
    waits.sort();
    assert!(waits[waits.len() / 2] < Duration::from_secs(2), "status took {waits:?}");
    drop((stalled, stalled_too, reader));
    purge(&agent, engine, &name).await;
}

/// The lines of an NDJSON stream.
fn ndjson(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

/// Everything after a cursor.
async fn after(agent: &Agent<'_>, name: &str, cursor: &Value) -> Vec<Value> {
    let cursor = cursor.as_str().expect("every line has a cursor");
    let path = format!("/v1/tenants/logs/{name}?cursor={cursor}");
    let answer = agent.request(Method::GET, &path, NDJSON, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    ndjson(&answer.text())
}

#[tokio::test]
async fn a_stalled_reader_is_dropped_and_goes_on_later() {
    // More than what sockets keep for a reader that takes nothing.
    const LINES: usize = 25_000;
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let name = unique("stalled");
    let large = "logging: {driver: json-file, options: {max-size: 100m, max-file: '1'}}";
    let says = says(&format!(r#"awk 'BEGIN {{ for (n = 1; n <= {LINES}; n++) printf "%1200d\n", n }}'"#));
    let compose = stack(&[("loud", &[&[&says, "stop_signal: SIGKILL", large]])], "");
    agent.post(PROVISION, &request(&name, &compose)).await.expect(201);
    let last = format!("loud-1 | {LINES:1200}");
    eventually("everything is written", LONG, async || {
        (lines(&agent, &name, "tail=1").await == [last.as_str()]).then_some(())
    })
    .await;
    let authorization = format!("Bearer {}", agent.token());
    let headers = [("authorization", authorization.as_str()), NDJSON[0]];
    let query = format!("/v1/tenants/logs/{name}?tail=all");
    let stalled = http::send(agent.address(), Method::GET, &query, &headers, "").await.expect("an answer");
    let said = "a log reader that took nothing was dropped";
    eventually("it is dropped", LONG, async || agent.log().contains(said).then_some(())).await;
    assert_eq!(lines(&agent, &name, "tail=1").await, [last.as_str()], "others are served");

    let told = ndjson(&http::complete(stalled).await.expect("the stream has an end").text());
    let (error, told) = told.split_last().expect("there is something");
    assert_eq!((&error["code"], &error["retryable"]), (&json!("DEADLINE_EXCEEDED"), &json!(true)), "{error}");
    assert!(error["request_id"].is_string() && error["error"].is_string(), "{error}");
    let rest = after(&agent, &name, &told.last().expect("a line")["cursor"]).await;
    assert_eq!(told.len() + rest.len(), LINES);
    for (at, line) in told.iter().chain(&rest).enumerate() {
        assert_eq!(line["line"], json!(format!("{:1200}", at + 1)));
    }
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn a_cursor_outlives_the_agent_and_tells_of_containers_that_do_not() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).start().await;
    let name = up(&agent, &[("web", &says("echo 1")), ("db", &says("echo here"))]).await;
    let web = id(&agent, &name, "web-1").await;
    let write = async |number: usize| {
        exec(engine, &web, &["sh", "-c", &format!("echo {number} >/proc/1/fd/1")]).await;
    };
    let mut stream = agent.stream(&format!("/v1/tenants/logs/{name}?follow=true"), NDJSON).await;
    let (mut told, mut cursor) = (Vec::new(), Value::Null);
    let mut note = |line: &Value| {
        assert!(line["gap"].is_null(), "{line}");
        cursor = line["cursor"].clone();
        if line["service"] == "web" {
            told.push(line["line"].as_str().expect("a text").to_owned());
        }
    };
    for number in 2..=5 {
        write(number).await;
    }
    // The four, the first, and that of the other service.
    for _ in 0..6 {
        note(&serde_json::from_str(&stream.next(LONG).await.expect("a line")).expect("JSON"));
    }
    agent.kill();
    drop(stream);
    for number in 6..=8 {
        write(number).await;
    }
    agent.start_again().await;
    let path = format!("/v1/tenants/logs/{name}?follow=true&cursor={}", cursor.as_str().expect("a cursor"));
    let mut stream = agent.stream(&path, NDJSON).await;
    for number in 9..=10 {
        write(number).await;
    }
    let mut note = |line: &Value| {
        assert!(line["gap"].is_null(), "{line}");
        cursor = line["cursor"].clone();
        told.push(line["line"].as_str().expect("a text").to_owned());
    };
    for _ in 6..=10 {
        note(&serde_json::from_str(&stream.next(LONG).await.expect("a line")).expect("JSON"));
    }
    assert_eq!(told, (1..=10).map(|number| number.to_string()).collect::<Vec<_>>());
    drop(stream);

    // A new container, while nobody reads.
    let fresh = says("echo new");
    let lines: &[&[&str]] = &[&[&fresh, "stop_signal: SIGKILL", LITTLE]];
    let kept = says("echo here");
    let same: &[&[&str]] = &[&[&kept, "stop_signal: SIGKILL", LITTLE]];
    let compose = stack(&[("web", lines), ("db", same)], "");
    let body = json!({"subdomain": name, "pull": false, "compose_content": compose});
    agent.post(UPDATE, &body).await.expect(200);
    eventually("it has written", LONG, async || {
        let found = after(&agent, &name, &cursor).await;
        (found.last()?["line"] == "new").then_some(found)
    })
    .await;
    let found = after(&agent, &name, &cursor).await;
    assert_eq!(found.len(), 2, "{found:?}");
    let gap = &found[0]["gap"];
    let said = (&gap["service"], &gap["number"], &gap["reason"], &gap["to"]);
    assert_eq!(said, (&json!("web"), &json!(1), &json!("removed"), &Value::Null), "{gap}");
    assert!(gap["from"].is_string() && found[0]["cursor"].is_string(), "{}", found[0]);
    assert_eq!(after(&agent, &name, &found[1]["cursor"]).await, Vec::<Value>::new());
    let text = lines_after(&agent, &name, &cursor).await;
    assert!(text[0].starts_with("gap: lines of web-1 after ") && text[1] == "web-1 | new", "{text:?}");
    agent.get(&format!("/v1/tenants/logs/{name}?cursor=AAAA")).await.refused(400, "INVALID_REQUEST");
    purge(&agent, engine, &name).await;
}

async fn lines_after(agent: &Agent<'_>, name: &str, cursor: &Value) -> Vec<String> {
    lines(agent, name, &format!("cursor={}", cursor.as_str().expect("a cursor"))).await
}

#[tokio::test]
async fn a_rotated_log_has_a_gap() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let name = unique("rotated");
    let small = "logging: {driver: json-file, options: {max-size: 64k, max-file: '2'}}";
    let talks = says("echo first; while [ ! -e /tmp/go ]; do sleep 0.1; done; seq 1 9000; echo last");
    let quiet = says("echo quiet");
    let (talks, quiet): ([&str; 3], [&str; 3]) =
        ([&talks, "stop_signal: SIGKILL", small], [&quiet, "stop_signal: SIGKILL", small]);
    let compose = stack(&[("web", &[&talks]), ("quiet", &[&quiet])], "");
    agent.post(PROVISION, &request(&name, &compose)).await.expect(201);
    eventually("both have written", LONG, async || (lines(&agent, &name, "").await.len() == 2).then_some(())).await;
    let answer = agent.request(Method::GET, &format!("/v1/tenants/logs/{name}"), NDJSON, "").await;
    let before = ndjson(&answer.text());
    let cursor = &before[1]["cursor"];
    assert_eq!(after(&agent, &name, cursor).await, Vec::<Value>::new(), "nothing is missing yet");
    exec(engine, &id(&agent, &name, "web-1").await, &["touch", "/tmp/go"]).await;
    eventually("it has written on", LONG, async || {
        (lines(&agent, &name, "service=web&tail=1").await == ["web-1 | last"]).then_some(())
    })
    .await;
    let found = after(&agent, &name, cursor).await;
    let gaps: Vec<&Value> = found.iter().filter(|line| !line["gap"].is_null()).collect();
    assert_eq!(gaps.len(), 1, "the quiet one has none: {gaps:?}");
    let first = before.iter().find(|line| line["service"] == "web").expect("it was told");
    let gap = &gaps[0]["gap"];
    assert_eq!((&gap["service"], &gap["reason"], &gap["from"]), (&json!("web"), &json!("rotated"), &first["time"]));
    assert_eq!(found[0]["gap"], *gap, "the gap comes first");
    assert_eq!(found[1]["time"], gap["to"]);
    assert_eq!(found.last().expect("a line")["line"], "last");
    // From any later line on nothing is missing.
    let rest = after(&agent, &name, &found[found.len() / 2]["cursor"]).await;
    assert_eq!(rest[..], found[found.len() / 2 + 1..]);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn a_terminal_without_line_ends_comes_in_pieces() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    // Not before it is followed, and then 30 MB without a newline.
    let waits = "while [ ! -e /tmp/go ]; do sleep 0.1; done; head -c 30000000 /dev/zero | tr '\\0' x; echo; echo done";
    let name = unique("tty");
    let large = "logging: {driver: json-file, options: {max-size: 100m, max-file: '1'}}";
    let compose = stack(&[("term", &[&[&says(waits), "stop_signal: SIGKILL", large, "tty: true"]])], "");
    agent.post(PROVISION, &request(&name, &compose)).await.expect(201);
    let authorization = format!("Bearer {}", agent.token());
    let headers = [("authorization", authorization.as_str())];
    let query = format!("/v1/tenants/logs/{name}?follow=true&tail=all");
    let mut response = http::send(agent.address(), Method::GET, &query, &headers, "").await.expect("an answer");
    exec(engine, &id(&agent, &name, "term-1").await, &["touch", "/tmp/go"]).await;
    let base = resident(agent.pid());
    let (mut count, mut pieces, mut most, mut end) = (0, 0, 0, Vec::new());
    while !end.ends_with(b"done\n") {
        let frame = tokio::time::timeout(LONG, response.frame()).await.expect("it goes on");
        let bytes = frame.expect("it goes on").expect("the connection holds").into_data().unwrap_or_default();
        count += String::from_utf8_lossy(&bytes).matches('x').count();
        pieces += 1;
        end.extend_from_slice(&bytes);
        end.drain(..end.len().saturating_sub(100));
        most = most.max(resident(agent.pid()));
    }
    assert_eq!(count, 30_000_000);
    assert!(pieces > 30, "{pieces} pieces");
    assert!(most < base + 64 * MIB, "from {} to {} MiB", base / MIB, most / MIB);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn a_terminal_that_ended_without_a_newline_is_told_once() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let name = unique("tty");
    let says = says("echo one; printf foo");
    let lines: [&str; 4] = [&says, "stop_signal: SIGKILL", LITTLE, "tty: true"];
    agent.post(PROVISION, &request(&name, &stack(&[("term", &[&lines])], ""))).await.expect(201);
    let follow = format!("/v1/tenants/logs/{name}?follow=true&tail=all");
    let mut following = agent.stream(&follow, NDJSON).await;
    let mut told = Vec::new();
    for run in 0..3 {
        if run > 0 {
            agent.post(&format!("/v1/tenants/restart/{name}"), &Value::Null).await.expect(200);
        }
        // The engine logs what has no newline when the program has ended.
        for _ in 0..if run > 0 { 2 } else { 1 } {
            let line = following.next(LONG).await.expect("it goes on");
            told.push(serde_json::from_str::<Value>(&line).expect("JSON"));
        }
    }
    let texts: Vec<&Value> = told.iter().map(|line| &line["line"]).collect();
    assert_eq!(texts, ["one", "foo", "one", "foo", "one"], "no gap, nothing twice, nothing run together");
    let rest = after(&agent, &name, &told[1]["cursor"]).await;
    assert_eq!(rest[..], told[2..]);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn a_service_that_keeps_no_log_does_not_hide_the_others() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).env("Q8_AGENT_POLICY", "trusted").start().await;
    let name = unique("none");
    let (quiet, web) = (says("echo unheard"), says("echo heard"));
    let quiet: [&str; 3] = [&quiet, "stop_signal: SIGKILL", "logging: {driver: none}"];
    let web: [&str; 3] = [&web, "stop_signal: SIGKILL", LITTLE];
    let compose = stack(&[("quiet", &[&quiet]), ("web", &[&web])], "");
    agent.post(PROVISION, &request(&name, &compose)).await.expect(201);
    let mut following = agent.stream(&format!("/v1/tenants/logs/{name}?follow=true"), &[]).await;
    assert_eq!(following.next(LONG).await.as_deref(), Some("web-1 | heard"));
    assert_eq!(lines(&agent, &name, "").await, ["web-1 | heard"]);
    assert_eq!(lines(&agent, &name, "service=quiet").await, Vec::<String>::new());
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn following_ends_with_the_tenant() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let name = up(&agent, &[("web", &says("echo hello")), ("db", &says("true"))]).await;
    let mut streams: Vec<Lines> = Vec::new();
    for query in ["follow=true", "follow=true&service=web"] {
        let mut stream = agent.stream(&format!("/v1/tenants/logs/{name}?{query}"), &[]).await;
        assert_eq!(stream.next(LONG).await.as_deref(), Some("web-1 | hello"));
        streams.push(stream);
    }
    agent.post(&format!("/v1/tenants/teardown/{name}"), &Value::Null).await.expect(200);
    for mut stream in streams {
        assert_eq!(stream.next(LONG).await, None);
    }
    agent.get(&format!("/v1/tenants/logs/{name}")).await.refused(404, "NOT_FOUND");
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn followers_that_leave_leave_nothing_open() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let name = up(&agent, &[("web", &says("echo hello")), ("db", &says("echo hi"))]).await;
    // Whatever is kept open between requests is open now.
    lines(&agent, &name, "").await;
    let base = open_files(agent.pid());
    let mut followers = Vec::new();
    for _ in 0..20 {
        let mut stream = agent.stream(&format!("/v1/tenants/logs/{name}?follow=true"), &[]).await;
        stream.next(LONG).await.expect("a line");
        followers.push(stream);
    }
    let open = open_files(agent.pid());
    assert!(open >= base + 55, "each has a client and two containers: {base}, then {open}");
    drop(followers);
    eventually("their connections are closed", LONG, async || (open_files(agent.pid()) <= base + 5).then_some(()))
        .await;
    // And the engine is not followed on anybody's behalf after an update either.
    let mut stream = agent.stream(&format!("/v1/tenants/logs/{name}?follow=true"), &[]).await;
    stream.next(LONG).await.expect("a line");
    agent.post(UPDATE, &json!({"subdomain": name, "pull": false})).await.expect(200);
    drop(stream);
    eventually("its connections are closed", LONG, async || (open_files(agent.pid()) <= base + 5).then_some(())).await;
    purge(&agent, engine, &name).await;
}
