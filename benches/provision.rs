//! What the agent adds to the Docker Engine: cold provision and teardown of stacks of 1, 5 and 20 services, beside the same
//! calls made raw and in parallel, interleaved in one run. Prints medians and their ratio; the budget is a ratio of 1.05.
//!
//! `make bench`, or `cargo bench --bench provision`. `Q8_BENCH_ROUNDS` sets the number of rounds (7 unless told).
#![allow(clippy::print_stdout, reason = "a table on standard output is what a benchmark is for")]

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, Ipam, IpamConfig, Mount, MountType, NetworkCreateRequest,
    NetworkingConfig, RestartPolicy, RestartPolicyNameEnum, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions,
};
use futures::future::{try_join, try_join_all};
use q8_agent::orchestrator::Orchestrator;

use common::median;
use common::support::engine::Engine;
use common::support::images::BUSYBOX;

const SIZES: [usize; 3] = [1, 5, 20];

/// The time to bring a stack up, and to take it down again with all its data.
#[derive(Default)]
struct Times {
    up: Vec<Duration>,
    down: Vec<Duration>,
}

fn main() {
    common::run(run());
}

async fn run() {
    let rounds = common::rounds();
    let engine = Engine::shared().with_busybox().await;
    let root = tempfile::tempdir().expect("a directory");
    let agent = common::agent(engine, &root.path().join("tenants")).await;
    let docker = engine.docker();
    println!("cold provision and teardown, medians of {rounds} interleaved rounds, milliseconds");
    println!("{:>8} {:>5} {:>9} {:>9} {:>6}", "services", "", "engine", "q8-agent", "ratio");
    for size in SIZES {
        let (mut raw, mut ours) = (Times::default(), Times::default());
        for round in 0..rounds {
            // The first of a pair finds a colder machine: take turns.
            for turn in 0..2 {
                if (round + turn) % 2 == 0 {
                    raw_round(&docker, size, &mut raw).await;
                } else {
                    agent_round(&agent, size, &mut ours).await;
                }
            }
        }
        for (what, raw, ours) in [("up", raw.up, ours.up), ("down", raw.down, ours.down)] {
            let (raw, ours) = (median(raw), median(ours));
            println!("{size:>8} {what:>5} {raw:>9.1} {ours:>9.1} {:>6.2}", ours / raw);
        }
    }
}

async fn agent_round(agent: &Orchestrator, size: usize, times: &mut Times) {
    let tenant = common::tenant();
    let request = common::request(&tenant, &common::idle_services(size));
    let start = Instant::now();
    agent.provision(request).await.expect("it comes up");
    times.up.push(start.elapsed());
    let start = Instant::now();
    agent.teardown(&tenant, true).await.expect("it goes");
    times.down.push(start.elapsed());
}

/// The same objects by the engine's calls alone, each kind in parallel.
async fn raw_round(docker: &Docker, size: usize, times: &mut Times) {
    let name = common::support::unique("raw");
    let start = Instant::now();
    let network = NetworkCreateRequest {
        name: name.clone(),
        driver: Some(String::from("bridge")),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig { subnet: Some(String::from("10.215.0.0/26")), ..Default::default() }]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let volumes = (0..size).map(|n| {
        let body = VolumeCreateRequest { name: Some(format!("{name}-v{n}")), ..Default::default() };
        docker.create_volume(body)
    });
    try_join(docker.create_network(network), try_join_all(volumes)).await.expect("network and volumes");
    let creates = (0..size).map(|n| {
        let options = CreateContainerOptionsBuilder::new().name(&format!("{name}-s{n}")).build();
        docker.create_container(Some(options), raw_container(&name, n))
    });
    let containers = try_join_all(creates).await.expect("containers");
    let starts =
        containers.iter().map(|container| docker.start_container(&container.id, None::<StartContainerOptions>));
    try_join_all(starts).await.expect("they start");
    times.up.push(start.elapsed());

    let start = Instant::now();
    let removals = containers.iter().map(|container| {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        docker.remove_container(&container.id, Some(options))
    });
    try_join_all(removals).await.expect("they go");
    let volumes: Vec<String> = (0..size).map(|n| format!("{name}-v{n}")).collect();
    let volumes = volumes.iter().map(|volume| docker.remove_volume(volume, None::<RemoveVolumeOptions>));
    try_join(docker.remove_network(&name), try_join_all(volumes)).await.expect("network and volumes go");
    times.down.push(start.elapsed());
}

fn raw_container(name: &str, n: usize) -> ContainerCreateBody {
    let endpoint = EndpointSettings { aliases: Some(vec![format!("s{n}")]), ..Default::default() };
    ContainerCreateBody {
        image: Some(String::from(BUSYBOX)),
        cmd: Some(vec![String::from("sleep"), String::from("infinity")]),
        stop_signal: Some(String::from("SIGKILL")),
        host_config: Some(HostConfig {
            network_mode: Some(name.to_owned()),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: None,
            }),
            mounts: Some(vec![Mount {
                typ: Some(MountType::VOLUME),
                source: Some(format!("{name}-v{n}")),
                target: Some(String::from("/data")),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(name.to_owned(), endpoint)])),
        }),
        ..Default::default()
    }
}
