//! What convergence costs: an apply with nothing to do beside the calls that it needs, the way from an engine's health event
//! to the start of what waits for it, and the same project with the real docker compose, if it can be had. Interleaved in one
//! run; prints medians beside their budgets.
//!
//! `make bench`, or `cargo bench --bench converge`. `Q8_BENCH_ROUNDS` sets the number of rounds (7 unless told).
//! `Q8_DOCKER_COMPOSE` names a docker compose; without it, the one that `scripts/newer-engine.sh` has fetched is used.
#![allow(clippy::print_stdout, reason = "a table on standard output is what a benchmark is for")]

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, EventMessage, HealthConfig, HostConfig, Ipam, IpamConfig, NetworkCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use q8_agent::domain::Subdomain;
use q8_agent::orchestrator::{Orchestrator, ProvisionRequest};

use common::median;
use common::support::engine::Engine;
use common::support::images::BUSYBOX;

const SERVICES: usize = 20;
const CHAIN: usize = 5;

fn main() {
    common::run(run());
}

async fn run() {
    let rounds = common::rounds();
    let engine = Engine::shared().with_busybox().await;
    let home = tempfile::tempdir().expect("a directory");
    let agent = common::agent(engine, &home.path().join("tenants")).await;
    println!("medians of {rounds} interleaved rounds, milliseconds");
    stacks(engine, &agent, home.path(), rounds).await;
    edges(&engine.docker(), &agent, rounds).await;
}

/// Times of one way to keep a stack.
#[derive(Default)]
struct Times {
    up: Vec<Duration>,
    nothing: Vec<Duration>,
    down: Vec<Duration>,
}

/// Times of the calls behind an apply with nothing to do.
#[derive(Default)]
struct Calls {
    /// Containers, networks and volumes.
    lists: Vec<Duration>,
    /// The same, then a look at each container.
    looks: Vec<Duration>,
    /// The image, the lists and the looks, then containers and looks once more: the plan, and the status for the answer.
    all: Vec<Duration>,
}

/// Cold up, nothing to do and down of one stack, by the agent and by docker compose, and the calls behind the second.
async fn stacks(engine: &Engine, agent: &Orchestrator, home: &Path, rounds: usize) {
    let compose = Compose::find(engine, home);
    let (mut calls, mut ours, mut theirs) = (Calls::default(), Times::default(), Times::default());
    for round in 0..rounds {
        // The first of a pair finds a colder machine: take turns.
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                agent_round(engine, agent, &mut ours, &mut calls).await;
            } else if let Some(compose) = &compose {
                compose.round(&mut theirs);
            }
        }
    }
    let (lists, looks, all) = (median(calls.lists), median(calls.looks), median(calls.all));
    let (up, nothing, down) = (median(ours.up), median(ours.nothing), median(ours.down));
    println!("\n{SERVICES} services, nothing to do");
    println!("{:>34} {:>9} {:>14}  budget", "", "", "q8-agent / it");
    println!("{:>34} {lists:>9.1} {:>14.2}", "the engine's three lists", nothing / lists);
    println!("{:>34} {looks:>9.1} {:>14.2}", "the lists, then each container", nothing / looks);
    println!("{:>34} {all:>9.1} {:>14.2}", "all that q8-agent asks, made raw", nothing / all);
    println!("{:>34} {nothing:>9.1} {:>14}  10 ms", "q8-agent", "");
    if compose.is_none() {
        println!("no docker compose: Q8_DOCKER_COMPOSE names none, and scripts/newer-engine.sh has fetched none");
        return;
    }
    let (their_up, their_nothing, their_down) = (median(theirs.up), median(theirs.nothing), median(theirs.down));
    println!("{:>34} {their_nothing:>9.1} {:>14.2}  0.20", "docker compose up -d", nothing / their_nothing);
    println!("\n{SERVICES} services, cold");
    println!("{:>34} {:>9} {:>14} {:>6}", "", "q8-agent", "docker compose", "ratio");
    println!("{:>34} {up:>9.1} {their_up:>14.1} {:>6.2}", "up", up / their_up);
    println!("{:>34} {down:>9.1} {their_down:>14.1} {:>6.2}", "down, with volumes", down / their_down);
}

async fn agent_round(engine: &Engine, agent: &Orchestrator, times: &mut Times, calls: &mut Calls) {
    let (docker, tenant) = (engine.docker(), common::tenant());
    let request = || common::request(&tenant, &common::idle_services(SERVICES));
    let start = Instant::now();
    agent.provision(request()).await.expect("it comes up");
    times.up.push(start.elapsed());
    // Once before it counts: connections are made, and the engine settles.
    nothing_to_do(agent, request()).await;
    lists(&docker, &tenant).await;
    times.nothing.push(nothing_to_do(agent, request()).await);
    let start = Instant::now();
    lists(&docker, &tenant).await;
    calls.lists.push(start.elapsed());
    let start = Instant::now();
    let ids = lists(&docker, &tenant).await;
    looks(&docker, &ids).await;
    calls.looks.push(start.elapsed());
    let start = Instant::now();
    docker.inspect_image(BUSYBOX).await.expect("the image is there");
    let ids = lists(&docker, &tenant).await;
    looks(&docker, &ids).await;
    let ids = containers(&docker, &tenant).await.expect("the engine lists");
    looks(&docker, &ids).await;
    calls.all.push(start.elapsed());
    let start = Instant::now();
    agent.teardown(&tenant, true).await.expect("it goes");
    times.down.push(start.elapsed());
}

async fn nothing_to_do(agent: &Orchestrator, request: ProvisionRequest) -> Duration {
    let start = Instant::now();
    let again = agent.provision(request).await.expect("it is there");
    let nothing = start.elapsed();
    assert!(!again.changed, "there is nothing to do");
    nothing
}

fn labelled(tenant: &Subdomain) -> HashMap<&'static str, Vec<String>> {
    HashMap::from([("label", vec![format!("dev.q8.tenant={tenant}")])])
}

async fn containers(docker: &Docker, tenant: &Subdomain) -> Result<Vec<String>, bollard::errors::Error> {
    let options = ListContainersOptionsBuilder::new().all(true).filters(&labelled(tenant)).build();
    let listed = docker.list_containers(Some(options)).await?;
    Ok(listed.into_iter().filter_map(|container| container.id).collect())
}

/// The calls without which nobody can know that there is nothing to do; gives the containers.
async fn lists(docker: &Docker, tenant: &Subdomain) -> Vec<String> {
    let filters = labelled(tenant);
    let (containers, _, _) = tokio::try_join!(
        containers(docker, tenant),
        docker.list_networks(Some(ListNetworksOptionsBuilder::new().filters(&filters).build())),
        docker.list_volumes(Some(ListVolumesOptionsBuilder::new().filters(&filters).build())),
    )
    .expect("the engine lists");
    assert_eq!(containers.len(), SERVICES);
    containers
}

async fn looks(docker: &Docker, ids: &[String]) {
    let looks = ids.iter().map(|id| docker.inspect_container(id, None::<InspectContainerOptions>));
    try_join_all(looks).await.expect("each is there");
}

/// The real docker compose on the same engine, with the same project.
struct Compose {
    binary: PathBuf,
    host: String,
    home: PathBuf,
}

impl Compose {
    fn find(engine: &Engine, home: &Path) -> Option<Self> {
        let named = std::env::var_os("Q8_DOCKER_COMPOSE").filter(|name| !name.is_empty()).map(PathBuf::from);
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
        let fetched = target.join("trixie/root/usr/libexec/docker/cli-plugins/docker-compose");
        let binary = named.or_else(|| fetched.exists().then_some(fetched))?;
        let home = home.join("compose");
        std::fs::create_dir(&home).expect("a directory");
        std::fs::write(home.join("compose.yaml"), common::idle_services(SERVICES)).expect("a file");
        Some(Self { binary, host: engine.host(), home })
    }

    fn round(&self, times: &mut Times) {
        let project = common::support::unique("compose");
        times.up.push(self.run(&project, &["up", "--detach"]));
        self.run(&project, &["up", "--detach"]);
        times.nothing.push(self.run(&project, &["up", "--detach"]));
        times.down.push(self.run(&project, &["down", "--volumes"]));
    }

    /// The time of one command, its process included: that is how it is used.
    #[allow(clippy::disallowed_methods, reason = "it is benchmarks that start processes")]
    fn run(&self, project: &str, arguments: &[&str]) -> Duration {
        let start = Instant::now();
        let output = std::process::Command::new(&self.binary)
            .args(["--ansi", "never", "--progress", "quiet", "-p", project])
            .args(arguments)
            .current_dir(&self.home)
            .env_clear()
            .env("HOME", &self.home)
            .env("DOCKER_HOST", &self.host)
            .output()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.binary.display()));
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        start.elapsed()
    }
}

/// A chain in which each service waits for the health of the one before, by the agent and by a client that has all containers
/// made and does nothing but start the next one at the event. Both times have the engine's own start in them; what is
/// between them is the agent's.
async fn edges(docker: &Docker, agent: &Orchestrator, rounds: usize) {
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                raw.extend(raw_chain(docker).await);
            } else {
                ours.extend(agent_chain(docker, agent).await);
            }
        }
    }
    let worst = |times: &[Duration]| times.iter().max().map_or(0.0, Duration::as_secs_f64) * 1000.0;
    let (raw_worst, our_worst) = (worst(&raw), worst(&ours));
    let (raw, ours) = (median(raw), median(ours));
    println!("\nhealth event to start event, a chain of {CHAIN} services");
    println!("{:>34} {:>9} {:>14}  budget", "", "median", "worst");
    println!("{:>34} {raw:>9.1} {raw_worst:>14.1}", "the engine, started at the event");
    println!("{:>34} {ours:>9.1} {our_worst:>14.1}", "q8-agent");
    println!("{:>34} {:>9.1} {:>14.1}  50 ms", "the difference", ours - raw, our_worst - raw_worst);
}

async fn agent_chain(docker: &Docker, agent: &Orchestrator) -> Vec<Duration> {
    let services: String = (0..CHAIN)
        .map(|n| {
            let before = n.checked_sub(1).map(|n| format!(", depends_on: {{s{n}: {{condition: service_healthy}}}}"));
            format!(
                "  s{n}: {{image: {BUSYBOX}, command: [sleep, infinity], stop_signal: SIGKILL, \
                 healthcheck: {{test: [CMD, 'true'], interval: 500ms}}{}}}\n",
                before.unwrap_or_default()
            )
        })
        .collect();
    let (tenant, since) = (common::tenant(), jiff::Timestamp::now().as_second());
    agent.provision(common::request(&tenant, &format!("services:\n{services}"))).await.expect("it comes up");
    let events =
        events(docker, &format!("dev.q8.tenant={tenant}"), since, Some(jiff::Timestamp::now().as_second() + 1));
    let events: Vec<EventMessage> = events.try_collect().await.expect("the engine remembers");
    agent.teardown(&tenant, true).await.expect("it goes");
    between(&events, "com.docker.compose.service")
}

async fn raw_chain(docker: &Docker) -> Vec<Duration> {
    let (name, since) = (common::support::unique("raw"), jiff::Timestamp::now().as_second());
    let subnet = IpamConfig { subnet: Some("10.215.0.0/26".to_owned()), ..Default::default() };
    let ipam = Some(Ipam { config: Some(vec![subnet]), ..Default::default() });
    let network = NetworkCreateRequest { name: name.clone(), ipam, ..Default::default() };
    docker.create_network(network).await.expect("a network");
    let mut ids = Vec::new();
    for n in 0..CHAIN {
        let options = CreateContainerOptionsBuilder::new().name(&format!("{name}-s{n}")).build();
        let body = ContainerCreateBody {
            image: Some(BUSYBOX.to_owned()),
            cmd: Some(vec!["sleep".to_owned(), "infinity".to_owned()]),
            labels: Some(HashMap::from([("raw".to_owned(), name.clone()), ("at".to_owned(), format!("s{n}"))])),
            healthcheck: Some(HealthConfig {
                test: Some(vec!["CMD".to_owned(), "true".to_owned()]),
                interval: Some(200_000_000),
                ..Default::default()
            }),
            host_config: Some(HostConfig { network_mode: Some(name.clone()), ..Default::default() }),
            ..Default::default()
        };
        ids.push(docker.create_container(Some(options), body).await.expect("a container").id);
    }
    let mut seen = Vec::new();
    let mut stream = std::pin::pin!(events(docker, &format!("raw={name}"), since, None));
    let mut left = ids.iter();
    let mut next = left.next();
    while let Some(id) = next {
        docker.start_container(id, None::<StartContainerOptions>).await.expect("it starts");
        loop {
            let event = stream.next().await.expect("more events").expect("the engine's events");
            let healthy = event.action.as_deref() == Some("health_status: healthy");
            let this = event.actor.as_ref().and_then(|actor| actor.id.as_deref()) == Some(id);
            seen.push(event);
            if healthy && this {
                break;
            }
        }
        next = left.next();
    }
    for id in &ids {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        docker.remove_container(id, Some(options)).await.expect("it goes");
    }
    docker.remove_network(&name).await.expect("it goes");
    between(&seen, "at")
}

fn events(
    docker: &Docker,
    label: &str,
    since: i64,
    until: Option<i64>,
) -> impl futures::Stream<Item = Result<EventMessage, bollard::errors::Error>> + use<> {
    let filters = HashMap::from([("type", vec!["container"]), ("label", vec![label])]);
    let mut options = EventsOptionsBuilder::new().since(&since.to_string()).filters(&filters);
    if let Some(until) = until {
        options = options.until(&until.to_string());
    }
    docker.events(Some(options.build()))
}

/// The time from the health event of each service to the start event of the next one.
fn between(events: &[EventMessage], label: &str) -> Vec<Duration> {
    let time = |action: &str, n: usize| {
        let found = events.iter().find(|event| {
            let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
            let service = attributes.and_then(|attributes| attributes.get(label));
            event.action.as_deref() == Some(action) && service.is_some_and(|service| *service == format!("s{n}"))
        });
        let nanoseconds = found.and_then(|event| event.time_nano).unwrap_or_else(|| panic!("no {action} of s{n}"));
        Duration::from_nanos(u64::try_from(nanoseconds).expect("a time after 1970"))
    };
    (1..CHAIN).map(|n| time("start", n).saturating_sub(time("health_status: healthy", n - 1))).collect()
}
