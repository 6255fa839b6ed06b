//! What an agent with 200 tenants costs while nothing happens, and how fast it is there: its resident memory, its share of a
//! core over a minute, and the time from its start to its first 200 from `/ready`, on a real engine. And how large it is.
//!
//! Budgets: 10 MB resident, 0.5 % of a core, 1 s, a binary of 8 MB. `Q8_BENCH_TENANTS` sets another number of tenants.
#![allow(clippy::print_stdout, reason = "a table on standard output is what a benchmark is for")]

mod common;

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use rustix::param::clock_ticks_per_second;
use serde_json::json;

use common::support::agent::{Agent, Options, binary};
use common::support::engine::Engine;
use common::support::images::BUSYBOX;

/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// How many tenants are brought up at a time.
const AT_ONCE: usize = 4;
/// How often the agent is started anew.
const STARTS: usize = 7;
/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    common::run(measure());
}

async fn measure() {
    let tenants: usize = std::env::var("Q8_BENCH_TENANTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine)
        .env("Q8_AGENT_LOG", "info")
        // As the unit and the image set it.
        .env("MALLOC_ARENA_MAX", "2")
        .env("Q8_AGENT_MAX_TENANTS", "1000")
        .env("Q8_AGENT_SUBNET_POOL", "10.213.0.0/16")
        .start()
        .await;
    let size = std::fs::metadata(binary()).expect("it has just been started").len();
    println!("{:>44} {size:>8} B   budget 8000000", "the binary");
    println!("{tenants} tenants of one service on a real engine");
    let before = resident(&agent);
    stream::iter(0..tenants).for_each_concurrent(AT_ONCE, |number| bring_up(&agent, number)).await;
    println!("{:>44} {:>8.1} MB", "resident with no tenant", before);
    println!("{:>44} {:>8.1} MB", "resident after they were brought up", resident(&agent));

    let starts = start_repeatedly(&mut agent).await;
    println!("{:>44} {:>8.1} ms  budget 1000", "start to ready, median", common::median(starts));
    // The whole picture of the engine is taken soon after the start.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (spent, begun) = (cpu_seconds(&agent), Instant::now());
    tokio::time::sleep(IDLE).await;
    let share = (cpu_seconds(&agent) - spent) / begun.elapsed().as_secs_f64() * 100.0;
    println!("{:>44} {share:>8.2} %   budget 0.5", "of a core while nothing happens");
    println!("{:>44} {:>8.1} MB  budget 10", "resident while nothing happens", resident(&agent));

    // One after the other: the engine is the slow one here.
    stream::iter(0..tenants)
        .for_each_concurrent(AT_ONCE, |number| {
            let path = format!("/v1/tenants/teardown/t{number}?purge=true");
            let agent = &agent;
            async move { drop(agent.post(&path, &json!({})).await.expect(200)) }
        })
        .await;
}

async fn bring_up(agent: &Agent<'_>, number: usize) {
    let service = format!("{{image: '{BUSYBOX}', command: [sleep, infinity], stop_signal: SIGKILL, mem_limit: 16m}}");
    let body = json!({
        "id": format!("id-{number}"), "subdomain": format!("t{number}"),
        "compose_content": format!("services:\n  web: {service}\n"),
    });
    agent.post("/v1/tenants/provision", &body).await.expect(201);
}

async fn start_repeatedly(agent: &mut Agent<'_>) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        agent.terminate(PATIENCE).await;
        let begun = Instant::now();
        agent.start_again_without_waiting();
        agent.wait_ready(PATIENCE).await;
        times.push(begun.elapsed());
    }
    times
}

/// Megabytes of the agent's memory that are in RAM.
fn resident(agent: &Agent<'_>) -> f64 {
    let status = of_process(agent, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has it");
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes * 1024.0 / 1e6
}

/// What the agent has used of the CPUs so far (`proc_pid_stat(5)`: `utime` and `stime`).
fn cpu_seconds(agent: &Agent<'_>) -> f64 {
    let stat = of_process(agent, "stat");
    let (_, rest) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).map(|number| number.parse::<f64>().expect("ticks")).sum();
    #[allow(clippy::cast_precision_loss, reason = "it is 100")]
    let second = clock_ticks_per_second() as f64;
    ticks / second
}

fn of_process(agent: &Agent<'_>, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{file}", agent.pid())).expect("the agent runs")
}
