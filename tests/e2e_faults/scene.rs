//! What the files here share: stacks to run, requests in the background, and pictures of disk and engine to compare.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};
use futures::StreamExt as _;
use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::agent::Agent;
use crate::support::engine::Engine;
use crate::support::eventually;
use crate::support::http::{self, Answer, Failure};
use crate::support::images::BUSYBOX;
pub(crate) use crate::support::traces::{Tree, tree};

pub(crate) const PROVISION: &str = "/v1/tenants/provision";
pub(crate) const UPDATE: &str = "/v1/tenants/update";

/// Longer than anything here takes, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Runs until it is stopped, which takes no time: as process 1 it would ignore SIGTERM.
pub(crate) const SLEEPS: &[&str] = &[r#"command: ["sleep", "infinity"]"#, "stop_signal: SIGKILL"];
/// Ignores SIGTERM, so that stopping it takes its whole grace period.
pub(crate) const STUBBORN: &[&str] = &[r#"command: ["sleep", "infinity"]"#, "stop_grace_period: 3s"];
/// A server of one page.
pub(crate) const SERVES: &[&str] = &[
    r#"command: ["sh", "-c", "mkdir -p /tmp/www; echo page >/tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"]"#,
    "stop_signal: SIGKILL",
];
/// Healthy soon.
pub(crate) const HEALTHY: &str = r#"healthcheck: {test: ["CMD", "true"], interval: 500ms, timeout: 5s, retries: 3}"#;
/// Its first check comes long after any deadline: whoever waits for its health waits.
pub(crate) const UNDECIDED: &str = r#"healthcheck: {test: ["CMD", "true"], interval: 1h, timeout: 5s, retries: 3}"#;

/// A Compose file. Services are their lines, on busybox unless they name an image; `rest` is what comes after them.
pub(crate) fn stack(services: &[(&str, &[&[&str]])], rest: &str) -> String {
    let mut text = String::from("services:\n");
    for (name, parts) in services {
        writeln!(text, "  {name}:").expect("a text takes text");
        let lines: Vec<&str> = parts.iter().copied().flatten().copied().collect();
        if !lines.iter().any(|line| line.starts_with("image:")) {
            writeln!(text, "    image: {BUSYBOX}").expect("a text takes text");
        }
        for line in lines {
            writeln!(text, "    {line}").expect("a text takes text");
        }
    }
    text + rest
}

/// The body of a provision. The tenant's id is made from its name.
pub(crate) fn request(name: &str, compose: &str) -> Value {
    json!({"id": id(name), "subdomain": name, "compose_content": compose})
}

/// The id of the tenant of a name.
pub(crate) fn id(name: &str) -> String {
    format!("id-{name}")
}

/// Sends a POST from a task of its own. Aborting the task hangs up.
pub(crate) fn begin(agent: &Agent<'_>, path: &str, body: &Value) -> JoinHandle<Result<Answer, Failure>> {
    begin_under(agent, path, body, None)
}

/// The same under an `Idempotency-Key`.
pub(crate) fn begin_under(
    agent: &Agent<'_>,
    path: &str,
    body: &Value,
    key: Option<&str>,
) -> JoinHandle<Result<Answer, Failure>> {
    let key = key.map(str::to_owned);
    let (address, token, path) = (agent.address(), format!("Bearer {}", agent.token()), path.to_owned());
    let body = if body.is_null() { String::new() } else { body.to_string() };
    tokio::spawn(async move {
        let mut headers = vec![("authorization", token.as_str()), ("content-type", "application/json")];
        headers.extend(key.as_deref().map(|key| ("idempotency-key", key)));
        http::complete(http::send(address, Method::POST, &path, &headers, body).await?).await
    })
}

/// Asks a process to end (SIGTERM) and does not wait for that.
pub(crate) fn terminate(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it can be signalled");
}

/// Waits until the tenant's running operation is at a step that contains this text.
pub(crate) async fn at_step(agent: &Agent<'_>, name: &str, step: &str) -> Value {
    eventually(&format!("an operation on {name} is at {step:?}"), LONG, async || {
        let list = agent.get("/v1/tenants").await.unless_away()?;
        let line = list["tenants"].as_array()?.iter().find(|line| line["subdomain"] == name)?.clone();
        let at = line["operation"]["step"].as_str()?.to_owned();
        at.contains(step).then(|| line["operation"].clone())
    })
    .await
}

/// The status of a tenant that is there.
pub(crate) async fn status(agent: &Agent<'_>, name: &str) -> Value {
    agent.get(&format!("/v1/tenants/status/{name}")).await.expect(200)
}

/// Waits until no operation runs on the tenant, none is to be finished or undone, and it is in this state.
pub(crate) async fn until_state(agent: &Agent<'_>, name: &str, state: &str) -> Value {
    let degraded = format!("tenant:{name}");
    eventually(&format!("{name} is {state}"), LONG, async || {
        let ready = agent.get("/ready").await.json();
        let answer = agent.get(&format!("/v1/tenants/status/{name}")).await;
        let status = (answer.status == 200).then(|| answer.json())?;
        let settled = status["operation"].is_null()
            && !ready["degraded"].as_array()?.iter().any(|word| *word == degraded.as_str());
        (settled && status["state"] == state).then_some(status)
    })
    .await
}

/// A container as status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) started_at: String,
    pub(crate) state: String,
}

/// The containers of a status by `{service}-{number}`.
pub(crate) fn containers(status: &Value) -> BTreeMap<String, Container> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let project = format!("{}-", text(&status["project"]));
    let services = status["services"].as_array().expect("a list of services");
    let all = services.iter().flat_map(|service| service["containers"].as_array().expect("a list of containers"));
    all.map(|container| {
        let name = text(&container["name"]);
        let key = name.strip_prefix(&project).unwrap_or(&name).to_owned();
        let (id, started_at) = (text(&container["id"]), text(&container["started_at"]));
        (key, Container { id, started_at, state: text(&container["state"]) })
    })
    .collect()
}

/// The files of a tenant without the agent's own and without what its containers write.
pub(crate) fn project_files(agent: &Agent<'_>, name: &str) -> Tree {
    project_files_in(&agent.root(), name)
}

/// The same in a tenants root that the test has chosen.
pub(crate) fn project_files_in(root: &Path, name: &str) -> Tree {
    let own = |path: &String| [".agent", "data"].contains(&path.split('/').next().unwrap_or_default());
    let mut files = tree(&root.join(name));
    files.retain(|path, _| !own(path));
    files
}

/// Everything on the engine that carries a label, and how it is.
pub(crate) async fn objects(engine: &Engine, label: &str) -> BTreeMap<String, String> {
    let docker = engine.docker();
    let filters = std::collections::HashMap::from([("label", vec![label])]);
    let list = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let mut found = BTreeMap::new();
    for container in docker.list_containers(Some(list)).await.expect("the engine lists containers") {
        let id = container.id.expect("an id");
        let Ok(details) = docker.inspect_container(&id, None::<InspectContainerOptions>).await else { continue };
        let state = details.state.expect("a state");
        let how = format!("{} {id} {:?} since {:?}", details.name.expect("a name"), state.status, state.started_at);
        found.insert(format!("container {id}"), how);
    }
    let list = ListNetworksOptionsBuilder::new().filters(&filters).build();
    for network in docker.list_networks(Some(list)).await.expect("the engine lists networks") {
        found.insert(format!("network {}", network.name.expect("a name")), network.id.expect("an id"));
    }
    let list = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let volumes = docker.list_volumes(Some(list)).await.expect("the engine lists volumes");
    for volume in volumes.volumes.unwrap_or_default() {
        found.insert(format!("volume {}", volume.name), format!("{:?}", volume.created_at));
    }
    found
}

/// Compares two pictures and shows what differs, not all that there is.
#[track_caller]
pub(crate) fn assert_same<T: PartialEq + Debug>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>, what: &str) {
    let all: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed: Vec<_> = all.into_iter().filter(|key| before.get(*key) != after.get(*key)).collect();
    let shown: Vec<_> = changed.iter().map(|key| (key, before.get(*key), after.get(*key))).collect();
    assert!(shown.is_empty(), "{what}: changed (before, after): {shown:#?}");
}

/// Runs a command in a container; gives its output.
pub(crate) async fn exec(engine: &Engine, container: &str, command: &[&str]) -> String {
    let docker = engine.docker();
    let options = CreateExecOptions {
        cmd: Some(command.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::default()
    };
    let made = docker.create_exec(container, options).await.expect("a command can be run in a running container");
    let mut text = String::new();
    if let StartExecResults::Attached { mut output, .. } = docker.start_exec(&made.id, None).await.expect("it runs") {
        while let Some(Ok(piece)) = output.next().await {
            text.push_str(&piece.to_string());
        }
    }
    text
}

/// Fetches a page of one service from within another.
pub(crate) async fn reaches(engine: &Engine, from: &Container, service: &str) {
    let url = format!("http://{service}/index.html");
    eventually(&format!("{service} can be reached"), LONG, async || {
        let text = exec(engine, &from.id, &["/bin/wget", "-T", "5", "-q", "-O", "-", &url]).await;
        (text == "page\n").then_some(())
    })
    .await;
}

/// Tears a tenant down with all it has, and checks that nothing is left of anybody of this agent.
pub(crate) async fn purge(agent: &Agent<'_>, engine: &Engine, name: &str) {
    agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await.expect(200);
    assert_nothing_left(engine, &agent.label(), "nothing is left on the engine").await;
    assert!(!agent.root().join(name).exists(), "nothing is left on the disk");
}

/// Waits until nothing on the engine carries this label, except networks that it miscounts.
pub(crate) async fn assert_nothing_left(engine: &Engine, label: &str, story: &str) {
    let end = Instant::now() + LONG;
    let labelled = async || {
        let mut left = engine.labelled(label).await;
        left.retain(|name| !engine.is_miscounted(name));
        left
    };
    let mut left = labelled().await;
    while !left.is_empty() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
        left = labelled().await;
    }
    if !left.is_empty() {
        left = engine.left(label).await;
    }
    assert_eq!(left, Vec::<String>::new(), "{story}");
}
