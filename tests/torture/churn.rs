//! One operation a second for a long time (`Q8_TORTURE_MINUTES`, 20 in the whole form): memory, descriptors, threads, objects on
//! the engine and room on the disk stay what they were.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::auditor::{assert_orderly, variant};
use crate::scene::PROVISION;
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::unique;
use crate::whole;

/// What must not grow, by name.
type Sample = BTreeMap<&'static str, u64>;

/// Bytes on the disk and inodes below a directory.
fn disk(root: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = (0, 0);
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            // Records of operations pile up for a day, under a cap of their own.
            if entry.path() == root.join(".agent/operations") {
                continue;
            }
            sum = (sum.0 + meta.blocks() * 512, sum.1 + 1);
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    sum
}

fn status_line(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a line of that name");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Between two operations, with the same tenants up.
async fn sample(engine: &Engine, agent: &Agent<'_>) -> Sample {
    let docker = engine.docker();
    let pid = agent.pid();
    let list = bollard::query_parameters::ListContainersOptionsBuilder::new().all(true).build();
    let containers = docker.list_containers(Some(list)).await.expect("the engine lists containers").len();
    let networks = docker.list_networks(None::<bollard::query_parameters::ListNetworksOptions>).await;
    let volumes = docker.list_volumes(None::<bollard::query_parameters::ListVolumesOptions>).await;
    let images = docker.list_images(None::<bollard::query_parameters::ListImagesOptions>).await;
    let (bytes, inodes) = disk(&agent.root());
    // Those of calls that are just being made come and go: the least of several looks is what stays.
    let mut descriptors = u64::MAX;
    for _ in 0..20 {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the agent runs").count() as u64;
        descriptors = descriptors.min(open);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    BTreeMap::from([
        ("resident KiB", status_line(pid, "VmRSS")),
        ("threads", status_line(pid, "Threads")),
        ("descriptors", descriptors),
        ("containers", containers as u64),
        ("networks", networks.expect("the engine lists networks").len() as u64),
        ("volumes", volumes.expect("the engine lists volumes").volumes.unwrap_or_default().len() as u64),
        ("images", images.expect("the engine lists images").len() as u64),
        ("bytes on the disk", bytes),
        ("inodes", inodes),
    ])
}

/// How much more than at first is no growth: what a pool or an allocator keeps for the next time.
fn slack(what: &str, first: u64) -> u64 {
    match what {
        "resident KiB" => first / 4 + 4096,
        // The runtime's threads for disk calls come and go with the work.
        "threads" => 16,
        // Less than the operations of one round: one that each leaves open shows in the short form, too.
        "descriptors" => 5,
        // Numbers in a record become longer.
        "bytes on the disk" => 16 << 10,
        _ => 0,
    }
}

#[tokio::test]
async fn one_operation_a_second_for_a_long_time() {
    let minutes = std::env::var("Q8_TORTURE_MINUTES").map(|text| text.parse::<f64>().expect("minutes"));
    let minutes = minutes.unwrap_or(if whole() { 20.0 } else { 0.5 });
    let engine = Engine::own();
    engine.with_busybox().await;
    let agent = Options::docker(&engine).env("Q8_AGENT_LOG", "info").start().await;
    let (stays, goes) = (unique("stays"), unique("goes"));
    let path = |action: &str, name: &str, query: &str| format!("/v1/tenants/{action}/{name}{query}");
    // A round begins and ends with the same tenant at the same specification, and without the other.
    let round: [(String, Value); 10] = [
        (PROVISION.to_owned(), variant(&stays, 1)),
        (PROVISION.to_owned(), variant(&goes, 0)),
        (path("rollback", &stays, ""), Value::Null),
        (path("restart", &stays, "?service=web"), Value::Null),
        (PROVISION.to_owned(), variant(&goes, 3)),
        (path("stop", &stays, ""), Value::Null),
        (path("start", &stays, ""), Value::Null),
        (path("teardown", &goes, ""), Value::Null),
        (PROVISION.to_owned(), variant(&stays, 0)),
        (path("teardown", &goes, "?purge=true"), Value::Null),
    ];
    agent.post(PROVISION, &variant(&stays, 0)).await.expect(201);
    let (begun, mut operations, mut samples) = (Instant::now(), 0_u32, Vec::new());
    while samples.len() < 3 || begun.elapsed().as_secs_f64() < minutes * 60.0 {
        for (path, body) in &round {
            let due = begun + Duration::from_secs(1) * operations;
            tokio::time::sleep_until(due.into()).await;
            let answer = agent.post(path, body).await;
            assert!(answer.status.is_success(), "after {operations} operations: {path}: {}", answer.text());
            // What only looks is a part of the load as well.
            agent.get(&format!("/v1/tenants/status/{stays}")).await.expect(200);
            operations += 1;
        }
        samples.push(sample(&engine, &agent).await);
    }
    assert_orderly(&agent.root(), None, "at the end");
    // The first round fills what is filled once.
    let (first, last) = (&samples[1], samples.last().expect("several rounds"));
    eprintln!("{operations} operations in {:?}: {first:?} became {last:?}", begun.elapsed());
    for (what, before) in first {
        let after = last[what];
        assert!(after <= before + slack(what, *before), "{what} grew from {before} to {after}: {samples:#?}");
    }
}
