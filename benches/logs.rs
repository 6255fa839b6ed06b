//! What the agent adds to reading a log: a log of 100 MB read from the engine's socket directly, and through the agent over
//! HTTP, interleaved in one run. The agent is a process of its own, so that its CPU time can be read. Prints medians, their
//! ratios and CPU seconds for 200 MB; the budgets are 0.75 of the engine's rate and 6 s.
//!
//! `make bench`, or `cargo bench --bench logs`. `Q8_BENCH_ROUNDS` sets the number of rounds (7 unless told).
#![allow(clippy::print_stdout, reason = "a table on standard output is what a benchmark is for")]

mod common;

use std::time::{Duration, Instant};

use bollard::query_parameters::ListContainersOptionsBuilder;
use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use common::median;
use common::support::agent::{Agent, Options};
use common::support::engine::Engine;
use common::support::images::BUSYBOX;
use common::support::{eventually, http, unique};

/// Bytes of text in a line, its end included.
const LINE: usize = 93;
const LINES: usize = 1_075_000;
#[allow(clippy::cast_precision_loss, reason = "it is about 1e8")]
const PAYLOAD: f64 = (LINE * LINES) as f64;
/// Longer than any of it takes.
const LONG: Duration = Duration::from_secs(300);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let rounds = common::rounds();
        let engine = Engine::shared().with_busybox().await;
        let agent = Options::docker(engine).env("Q8_AGENT_LOG", "info").start().await;
        let name = unique("bench");
        let text = "x".repeat(LINE - 1);
        let compose = format!(
            "services:\n  web:\n    image: {BUSYBOX}\n    stop_signal: SIGKILL\n    logging: {{driver: json-file, options: \
             {{max-size: 250m, max-file: '1'}}}}\n    command: [sh, -c, 'yes {text} | head -n {LINES}; echo end; exec \
             sleep 3600']\n"
        );
        let body = json!({"id": name, "subdomain": name, "compose_content": compose});
        agent.post("/v1/tenants/provision", &body).await.expect(201);
        let tail = format!("/v1/tenants/logs/{name}?tail=1");
        eventually("the log is written", LONG, async || {
            agent.get(&tail).await.text().ends_with("| end\n").then_some(())
        })
        .await;
        let id = container(engine, &agent).await;
        let query = format!("/v1/tenants/logs/{name}?tail=all");

        let [mut raw, mut stamped, mut as_text, mut as_json] = [const { Vec::new() }; 4];
        let (mut text_cpu, mut json_cpu) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            // On a task: what is polled on the main thread is woken more slowly.
            for (timestamps, times) in [(false, &mut raw), (true, &mut stamped)] {
                let read = tokio::spawn(directly(engine, id.clone(), timestamps));
                times.push(read.await.expect("it reads to the end"));
            }
            for (accept, times, cpus) in
                [("text/plain", &mut as_text, &mut text_cpu), ("application/x-ndjson", &mut as_json, &mut json_cpu)]
            {
                let before = cpu(agent.pid());
                times.push(through(&agent, &query, accept).await);
                cpus.push(cpu(agent.pid()).saturating_sub(before));
            }
        }
        let floor = median(raw.clone());
        println!("a log of {LINES} lines, {:.0} MB; medians of {rounds} interleaved rounds", PAYLOAD / 1e6);
        println!("{:>24} {:>8} {:>8} {:>16}", "", "MB/s", "ratio", "CPU s of 200 MB");
        for (what, times, cpus) in [
            ("the engine", raw, None),
            ("the engine, with times", stamped, None),
            ("q8-agent, text", as_text, Some(text_cpu)),
            ("q8-agent, NDJSON", as_json, Some(json_cpu)),
        ] {
            let ms = median(times);
            let cpu = cpus.map_or_else(String::new, |cpus| format!("{:.1}", median(cpus) / 1e3 * 200e6 / PAYLOAD));
            println!("{what:>24} {:>8.1} {:>8.2} {cpu:>16}", PAYLOAD / 1e3 / ms, floor / ms);
        }
        agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await.expect(200);
    });
}

async fn container(engine: &Engine, agent: &Agent<'_>) -> String {
    let filters = std::collections::HashMap::from([("label", vec![agent.label()])]);
    let list = ListContainersOptionsBuilder::new().filters(&filters).build();
    let found = engine.docker().list_containers(Some(list)).await.expect("the engine lists containers");
    found.into_iter().find_map(|container| container.id).expect("the one that was made")
}

/// Reads the whole log from the engine's socket and does nothing with it.
async fn directly(engine: &Engine, id: String, timestamps: bool) -> Duration {
    let begun = Instant::now();
    let mut socket = UnixStream::connect(engine.socket()).await.expect("the engine listens");
    let request =
        format!("GET /containers/{id}/logs?stdout=1&stderr=1&timestamps={timestamps} HTTP/1.0\r\nHost: docker\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("it reads");
    let (mut buffer, mut total) = (vec![0; 64 << 10], 0);
    loop {
        match socket.read(&mut buffer).await.expect("it answers") {
            0 => break,
            count => total += count,
        }
    }
    assert!(total > LINE * LINES, "{total} bytes are not all");
    begun.elapsed()
}

/// Reads it through the agent.
async fn through(agent: &Agent<'_>, path: &str, accept: &str) -> Duration {
    let begun = Instant::now();
    let authorization = format!("Bearer {}", agent.token());
    let headers = [("authorization", authorization.as_str()), ("accept", accept)];
    let mut answer = http::send(agent.address(), Method::GET, path, &headers, "").await.expect("an answer");
    let mut total = 0;
    while let Some(frame) = answer.frame().await {
        total += frame.expect("it goes on").into_data().map_or(0, |data| data.len());
    }
    assert!(total > LINE * LINES, "{total} bytes are not all");
    begun.elapsed()
}

/// CPU time of a process; the kernel counts it in hundredths of a second.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}
