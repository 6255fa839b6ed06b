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
    let mut ndjson = agent.stream(&format!("/v1/tenants/logs/{name}?follow=true&tail=0"), NDJSON).await;
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
    assert_eq!(stamped, [format!("{} web-1 | w3", times[4])].map(|line| line), "{times:?}");
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
    let (begun, mut most, mut read, mut slowest) = (Instant::now(), 0, 0_u64, Duration::ZERO);
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
            slowest = slowest.max(before.elapsed());
            asked = Instant::now();
        }
    }
    assert!(most < base + 64 * MIB, "from {} to {} MiB", base / MIB, most / MIB);
    assert!(slowest < Duration::from_secs(2), "status took {slowest:?}");
    drop((stalled, stalled_too, reader));
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
