//! The real `docker compose` works with what the agent has made: it is given the project's name and nothing else, no
//! Compose file. What it changes is then the agent's truth too, and the next provision repairs it.
//!
//! `make interop` fetches it and names it in `Q8_DOCKER_COMPOSE`; it is in no run that does not.

mod support;
#[path = "e2e/tenant.rs"]
#[allow(dead_code, reason = "the other end-to-end tests use more of it")]
mod tenant;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::agent::{Agent, Options};
use support::engine::Engine;
use tenant::{Tenant, page, service};

const STACK: &str = r#"
x-common: &common {image: "q8test/busybox:1", stop_signal: SIGKILL, restart: unless-stopped}
services:
  db:
    <<: *common
    command: [sh, -c, "echo start >>/data/starts; cat /data/starts; exec sleep 3600"]
    volumes: ["kept:/data"]
    healthcheck: {test: [CMD, test, -e, /data/starts], interval: 500ms, retries: 50}
  web:
    <<: *common
    scale: 2
    command: [sh, -c, "echo web is there; exec httpd -f -p 80 -h /bin"]
    ports: ["80"]
    depends_on: {db: {condition: service_healthy}}
    networks: [default, back]
networks: {back: {}}
volumes: {kept: {}}
"#;
const CONTAINERS: [&str; 3] = ["db-1", "web-1", "web-2"];

/// `docker compose` for one tenant.
struct Compose {
    project: String,
    home: tempfile::TempDir,
}

impl Compose {
    fn of(tenant: &Tenant<'_>) -> Self {
        Self { project: format!("q8-{}", tenant.name), home: tempfile::tempdir().expect("a temporary directory") }
    }

    #[allow(clippy::disallowed_methods, reason = "it is tests that start processes")]
    fn output(&self, arguments: &[&str]) -> Output {
        let binary = std::env::var_os("Q8_DOCKER_COMPOSE");
        let binary =
            binary.expect("Q8_DOCKER_COMPOSE names the docker compose to test with; `make interop` fetches one");
        Command::new(&binary)
            .args(["--ansi", "never", "-p", &self.project])
            .args(arguments)
            // No Compose file, no settings of whoever runs the test.
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path())
            .env("DOCKER_HOST", Engine::shared().host())
            .output()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display()))
    }

    /// Runs it; gives what it prints. It must succeed.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker compose {arguments:?}: {}: {error}", output.status);
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// What `ps --format json` says, by the container's name without the project.
    fn ps(&self, more: &[&str]) -> BTreeMap<String, Value> {
        let text = self.run(&[&["ps", "--format", "json"], more].concat());
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("a JSON object on each line"));
        let named = lines.map(|line: Value| {
            let name = line["Name"].as_str().expect("a name").to_owned();
            (name.strip_prefix(&format!("{}-", self.project)).expect("it is the project's").to_owned(), line)
        });
        named.collect()
    }
}

async fn agent() -> Agent<'static> {
    Options::docker(Engine::shared().with_busybox().await).start().await
}

/// The state of each service in the agent's eyes.
fn states(status: &Value) -> BTreeMap<&str, &str> {
    let services = status["services"].as_array().expect("a list of services");
    services.iter().map(|one| (one["name"].as_str().expect("text"), one["state"].as_str().expect("text"))).collect()
}

fn ids(containers: &BTreeMap<String, tenant::Identity>) -> Vec<&str> {
    containers.values().map(|container| container.id.as_str()).collect()
}

/// The same provision again brings everything back.
async fn repaired(agent: &Agent<'_>, tenant: &Tenant<'_>) {
    let answer = agent.post("/v1/tenants/provision", &tenant.body(STACK, &json!({}))).await.expect(200);
    assert_eq!(answer["changed"], true, "{answer}");
    let status = tenant.status().await;
    assert_eq!(status["state"], "running", "{status}");
    assert_eq!(states(&status), BTreeMap::from([("db", "healthy"), ("web", "running")]));
    assert!(tenant.containers().await.keys().eq(CONTAINERS), "{status}");
    page(tenant.endpoint("web").await, "/busybox").await;
}

/// A line without what differs on purpose (paths of the host in labels) and what time changes.
fn comparable(line: &Value) -> Value {
    let mut line = line.clone();
    let labels = line["Labels"].as_str().expect("text");
    let mut labels: Vec<&str> = labels.split(',').filter(|label| !label.contains(".project.")).collect();
    // A list in a label's value has commas too; what counts is that nothing is missing.
    labels.sort_unstable();
    line["Labels"] = json!(labels);
    for field in ["RunningFor", "Status"] {
        assert!(line[field].is_string(), "{line}");
        line[field] = Value::Null;
    }
    line
}

#[tokio::test]
async fn it_shows_what_there_is() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "shown");
    tenant.provision(STACK, json!({})).await;
    let compose = Compose::of(&tenant);
    let containers = tenant.containers().await;

    let projects: Value = serde_json::from_str(&compose.run(&["ls", "--format", "json"])).expect("JSON");
    let projects = projects.as_array().expect("a list of projects");
    let found = projects.iter().find(|project| project["Name"] == compose.project.as_str()).expect("it lists ours");
    assert_eq!(found["Status"], "running(3)");
    let file = agent.root().join(&tenant.name).join("compose.yaml");
    assert_eq!(found["ConfigFiles"], file.to_str().expect("text"), "the operator is led to the file");

    let table = compose.run(&["ps"]);
    for name in CONTAINERS {
        let row = table.lines().find(|line| line.starts_with(&format!("{}-{name} ", compose.project)));
        assert!(row.is_some_and(|row| row.contains(" Up ")), "{name} is not in\n{table}");
    }
    let listed = compose.ps(&[]);
    assert!(listed.keys().eq(CONTAINERS), "{listed:?}");
    for (name, line) in &listed {
        assert!(containers[name].id.starts_with(line["ID"].as_str().expect("an id")), "{line}");
        assert_eq!(line["Service"], name.split('-').next().expect("a service"), "{line}");
        assert_eq!((&line["Project"], &line["State"]), (&json!(compose.project), &json!("running")), "{line}");
        assert_eq!(line["Health"], if name == "db-1" { "healthy" } else { "" }, "{line}");
    }
    let told = agent.get(&format!("/v1/tenants/status/{}?format=compose", tenant.name)).await;
    let told: Vec<Value> = told.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let theirs: Vec<Value> = listed.values().map(comparable).collect();
    let ours: Vec<Value> = told.iter().map(comparable).collect();
    assert_eq!(ours, theirs, "the agent prints the same lines");
    let status = tenant.status().await;
    let endpoints = status["endpoints"].as_array().expect("a list of endpoints").iter();
    let told: BTreeSet<String> = endpoints.map(|one| format!("{} -> {}", one["host_port"], one["port"])).collect();
    let seen = ["web-1", "web-2"].map(|name| &listed[name]["Publishers"][0]);
    let seen = seen.map(|one| format!("{} -> {}", one["PublishedPort"], one["TargetPort"]));
    assert_eq!(told, BTreeSet::from(seen), "both say where it is published");
    let narrowed = compose.ps(&["db"]);
    assert!(narrowed.keys().eq(["db-1"]), "{narrowed:?}");

    for (name, line) in [("db", "start"), ("web", "web is there")] {
        tenant.says(name, line).await;
    }
    // It clears the line before each, colours or not.
    let logs = compose.run(&["logs"]).replace("\u{1b}[2K", "");
    let mut lines: Vec<_> = logs.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["db-1 | start", "web-1 | web is there", "web-2 | web is there"]);

    assert_eq!(compose.run(&["exec", "-T", "db", "cat", "/data/starts"]), "start\n");
    let id = compose.run(&["exec", "-T", "--index", "2", "web", "cat", "/etc/hostname"]);
    assert!(containers["web-2"].id.starts_with(id.trim()), "{id}");
    assert_eq!(compose.output(&["exec", "-T", "db", "sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(tenant.containers().await, containers, "looking changes nothing");
    tenant.purge().await;
}

#[tokio::test]
async fn it_stops_starts_and_restarts() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "moved");
    tenant.provision(STACK, json!({})).await;
    let compose = Compose::of(&tenant);
    let first = tenant.containers().await;

    // One service: the agent tells the truth about it and about the other one.
    compose.run(&["stop", "web"]);
    let status = agent.get(&format!("/v1/tenants/status/{}?fresh=1", tenant.name)).await.expect(200);
    assert_eq!((&status["state"], &status["desired"]), (&json!("degraded"), &json!("running")), "{status}");
    assert_eq!(states(&status), BTreeMap::from([("db", "healthy"), ("web", "exited")]));
    let listed = compose.ps(&["--all"]);
    let exited = |name: &str| listed[name]["State"] == "exited";
    assert_eq!((exited("db-1"), exited("web-1"), exited("web-2")), (false, true, true));
    repaired(&agent, &tenant).await;
    let repaired_one = tenant.containers().await;
    assert_eq!(ids(&repaired_one), ids(&first), "they are started, not made anew");
    assert_eq!(repaired_one["db-1"], first["db-1"], "who was not stopped is not restarted");

    // All, and back by its own means.
    compose.run(&["stop"]);
    let status = agent.get(&format!("/v1/tenants/status/{}?fresh=1", tenant.name)).await.expect(200);
    assert_eq!(status["state"], "failed", "{status}");
    assert_eq!(states(&status), BTreeMap::from([("db", "exited"), ("web", "exited")]));
    compose.run(&["start"]);
    tenant.becomes("running").await;
    let nothing = agent.post("/v1/tenants/provision", &tenant.body(STACK, &json!({}))).await.expect(200);
    assert_eq!(nothing["changed"], false, "{nothing}");

    // All, and back by the agent's.
    compose.run(&["stop"]);
    repaired(&agent, &tenant).await;
    assert_eq!(ids(&tenant.containers().await), ids(&first));

    let before = tenant.containers().await;
    compose.run(&["restart", "db"]);
    tenant.becomes("running").await;
    let after = tenant.containers().await;
    assert_eq!(ids(&after), ids(&before));
    assert_ne!(after["db-1"].started_at, before["db-1"].started_at);
    assert_eq!(after["web-1"], before["web-1"]);

    // What the agent has stopped is not running for docker compose either, and its volumes are known.
    tenant.act("stop", "").await.expect(200);
    assert_eq!(compose.ps(&[]), BTreeMap::new());
    assert!(compose.ps(&["--all"]).keys().eq(CONTAINERS));
    tenant.purge().await;
}

#[tokio::test]
async fn what_it_takes_down_comes_back_with_the_next_provision() {
    let engine = Engine::shared();
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "down");
    tenant.provision(STACK, json!({})).await;
    let compose = Compose::of(&tenant);
    let first = tenant.containers().await;

    // Without -v the data stays.
    compose.run(&["down"]);
    assert_eq!(engine.labelled(&agent.label()).await, [format!("{}_kept", compose.project)]);
    let status = tenant.status().await;
    assert_eq!((&status["state"], &status["desired"]), (&json!("failed"), &json!("running")), "{status}");
    for name in ["db", "web"] {
        assert_eq!(service(&status, name)["containers"], json!([]), "{status}");
        assert_eq!(service(&status, name)["state"], "pending", "{status}");
    }
    assert_eq!(status["endpoints"], json!([]), "{status}");
    repaired(&agent, &tenant).await;
    assert_eq!(tenant.says("db", "start").await, ["start", "start"], "the volume was kept");
    let second = tenant.containers().await;
    assert!(ids(&second).iter().all(|id| !ids(&first).contains(id)));

    compose.run(&["down", "-v"]);
    assert_eq!(engine.labelled(&agent.label()).await, Vec::<String>::new(), "nothing is left out by docker compose");
    assert_eq!(tenant.status().await["state"], "failed");
    repaired(&agent, &tenant).await;
    assert_eq!(tenant.says("db", "start").await, ["start"], "the volume is new");
    assert!(compose.ps(&[]).keys().eq(CONTAINERS));

    // And the other way round: after a purge it finds nothing.
    compose.run(&["down", "-v"]);
    tenant.purge().await;
    assert_eq!(compose.ps(&["--all"]), BTreeMap::new());
    assert_eq!(engine.labelled(&agent.label()).await, Vec::<String>::new());
}
