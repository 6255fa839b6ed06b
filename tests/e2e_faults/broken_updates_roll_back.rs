//! An update that fails, however it does, ends with the generation before it: the same files, the same containers, those
//! that were never touched with the same start time, and services that reach each other. A good update works afterwards.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};

use crate::scene::{
    Container, HEALTHY, PROVISION, SERVES, SLEEPS, STUBBORN, Tree, UNDECIDED, UPDATE, assert_same, containers,
    project_files, purge, reaches, request, stack, status, until_state,
};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::{eventually, unique};

const PAGE: &str = "volumes: ['./page:/page:ro', 'store:/store']";
const REST: &str = "networks: {default: {}, back: {}}\nvolumes: {store: {}}\n";
const BACK: &str = "networks: [default, back]";
/// Says something on both streams and ends, on a busy machine too before it could count as started.
const FAILS: &[&str] = &[r#"command: ["sh", "-c", "echo cannot start; echo because of this >&2; exit 7"]"#, UNDECIDED];

/// A tenant of three services: `web` reads a file and has a volume, `db` is healthy, `idle` does nothing.
struct Site<'e> {
    engine: &'e Engine,
    agent: Agent<'e>,
    name: String,
    containers: BTreeMap<String, Container>,
    files: Tree,
    generation: Value,
    objects: Vec<String>,
}

fn good() -> String {
    stack(&[("web", &[SERVES, &[PAGE, BACK]]), ("db", &[SERVES, &[HEALTHY, BACK]]), ("idle", &[SLEEPS])], REST)
}

/// The same with other services instead of `web`.
fn with_web(web: &[&[&str]], rest: &str) -> String {
    stack(&[("web", web), ("db", &[SERVES, &[HEALTHY, BACK]]), ("idle", &[SLEEPS])], rest)
}

impl<'e> Site<'e> {
    async fn up(engine: &'e Engine) -> Self {
        engine.with_busybox().await;
        let agent = Options::docker(engine).start().await;
        let name = unique("site");
        let mut body = request(&name, &good());
        body["files"] = json!({"page": "one\n", "old/file": {"text": "old\n", "mode": "0640"}});
        body["env_content"] = json!("VALUE=1\n");
        agent.post(PROVISION, &body).await.expect(201);
        let mut site = Self {
            engine,
            agent,
            name,
            containers: BTreeMap::new(),
            files: Tree::new(),
            generation: Value::Null,
            objects: Vec::new(),
        };
        site.look().await;
        site
    }

    /// Takes what is there now as what has to stay.
    async fn look(&mut self) {
        let status = until_state(&self.agent, &self.name, "running").await;
        self.containers = containers(&status);
        self.generation = status["generation"].clone();
        self.files = project_files(&self.agent, &self.name);
        self.objects = self.objects_now().await;
    }

    async fn objects_now(&self) -> Vec<String> {
        let mut names = self.engine.labelled(&self.agent.label()).await;
        names.sort();
        names
    }

    /// Sends an update that also changes files and variables; gives the refusal.
    async fn update_fails(&self, compose: &str, code: u16, word: &str) -> Value {
        let body = json!({
            "subdomain": self.name,
            "compose_content": compose,
            "env_content": "VALUE=2\n",
            "files": {"page": "two\n", "old/file": null, "new/file": "new\n"},
        });
        self.agent.post(UPDATE, &body).await.refused(code, word)
    }

    /// All is as it was before the update: the containers named have not even been restarted.
    async fn assert_put_back(&self, untouched: &[&str]) {
        let status = until_state(&self.agent, &self.name, "running").await;
        assert!(status["last_error"]["code"].is_string(), "status tells of the failure: {status}");
        self.assert_as_before(&status, untouched).await;
    }

    async fn assert_as_before(&self, status: &Value, untouched: &[&str]) {
        assert_eq!(status["generation"], self.generation, "{status}");
        let now = containers(status);
        for (name, before) in &self.containers {
            let after = now.get(name).unwrap_or_else(|| panic!("{name} is not there: {status}"));
            assert_eq!(after.id, before.id, "{name} is the same container");
            assert_eq!(after.state, "running", "{name} runs");
            if untouched.contains(&name.as_str()) {
                assert_eq!(after.started_at, before.started_at, "{name} was not touched");
            }
        }
        assert_eq!(now.len(), self.containers.len(), "{status}");
        assert_same(&self.files, &project_files(&self.agent, &self.name), "the project files");
        assert_eq!(self.objects_now().await, self.objects, "nothing came and nothing went");
        reaches(self.engine, &now["idle-1"], "web").await;
        reaches(self.engine, &now["web-1"], "db").await;
        reaches(self.engine, &now["db-1"], "web").await;
    }

    /// And it goes on from there.
    async fn assert_good_update_works(mut self) {
        self.look().await;
        let compose = with_web(&[SERVES, &[PAGE, BACK, "environment: {NEW: '1'}"]], REST);
        let body = json!({"subdomain": self.name, "compose_content": compose, "files": {"page": "three\n"}});
        let done = self.agent.post(UPDATE, &body).await.expect(200);
        assert_eq!(done["changed"], true, "{done}");
        let before = self.containers.clone();
        self.look().await;
        assert_ne!(self.containers["web-1"].id, before["web-1"].id);
        assert_eq!(self.containers["db-1"], before["db-1"]);
        assert_eq!(self.files["page"].1, "three\n");
        reaches(self.engine, &self.containers["idle-1"], "web").await;
        let status = status(&self.agent, &self.name).await;
        assert!(status["last_error"].is_null(), "the failure is history: {status}");
        purge(&self.agent, self.engine, &self.name).await;
    }
}

#[tokio::test]
async fn when_a_service_exits() {
    let site = Site::up(Engine::shared()).await;
    let told = site.update_fails(&with_web(&[FAILS, &[PAGE, BACK]], REST), 502, "SERVICE_EXITED").await;
    assert_eq!(told["field"], "services.web", "{told}");
    assert_eq!(told["details"]["exit_code"], 7, "{told}");
    let mut lines: Vec<&str> =
        told["details"]["logs"].as_array().expect("lines").iter().filter_map(Value::as_str).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["because of this", "cannot start"]);
    site.assert_put_back(&["db-1", "idle-1"]).await;
    site.assert_good_update_works().await;
}

#[tokio::test]
async fn when_a_service_never_becomes_healthy() {
    let site = Site::up(Engine::shared()).await;
    let sick =
        r#"healthcheck: {test: ["CMD-SHELL", "echo no pulse; exit 1"], interval: 500ms, timeout: 5s, retries: 2}"#;
    let told = site.update_fails(&with_web(&[SERVES, &[PAGE, BACK, sick]], REST), 502, "SERVICE_UNHEALTHY").await;
    assert_eq!(told["field"], "services.web", "{told}");
    assert_eq!(told["details"]["health_output"], "no pulse", "{told}");
    site.assert_put_back(&["db-1", "idle-1"]).await;
    site.assert_good_update_works().await;
}

#[tokio::test]
async fn when_a_command_does_not_exist() {
    let site = Site::up(Engine::shared()).await;
    let told =
        site.update_fails(&with_web(&[&["command: [no-such-tool]", PAGE, BACK]], REST), 502, "SERVICE_EXITED").await;
    assert_eq!(told["field"], "services.web", "{told}");
    assert!(told["error"].as_str().is_some_and(|text| text.contains("not found in the image")), "{told}");
    site.assert_put_back(&["db-1", "idle-1"]).await;
    site.assert_good_update_works().await;
}

#[tokio::test]
async fn when_a_port_is_in_use() {
    let site = Site::up(Engine::shared()).await;
    // Others may hold ports of the range too.
    let listener = (20_000..30_000).rev().find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    let listener = listener.expect("a free port in the range of published ports");
    let port = listener.local_addr().expect("it is bound").port();
    let ports = format!("ports: ['127.0.0.1:{port}:80']");
    let told = site.update_fails(&with_web(&[SERVES, &[PAGE, BACK, &ports]], REST), 409, "PORT_TAKEN").await;
    assert_eq!(told["field"], "services.web.ports[0]", "{told}");
    assert!(told["error"].as_str().is_some_and(|text| text.contains(&port.to_string())), "{told}");
    // It is found out before anything is touched.
    site.assert_as_before(&until_state(&site.agent, &site.name, "running").await, &["db-1", "idle-1", "web-1"]).await;
    drop(listener);
    site.assert_good_update_works().await;
}

#[tokio::test]
async fn when_a_network_was_replaced_already() {
    let site = Site::up(Engine::shared()).await;
    let other = "networks: {default: {}, back: {internal: true}}\nvolumes: {store: {}}\n";
    site.update_fails(&with_web(&[FAILS, &[PAGE, BACK]], other), 502, "SERVICE_EXITED").await;
    // web and db had to leave the network so that it could be replaced; idle is on another one.
    site.assert_put_back(&["idle-1"]).await;
    site.assert_good_update_works().await;
}

#[tokio::test]
async fn when_the_default_network_was_replaced_already() {
    let site = Site::up(Engine::shared()).await;
    let other = "networks: {default: {labels: {a: b}}, back: {}}\nvolumes: {store: {}}\n";
    site.update_fails(&with_web(&[FAILS, &[PAGE, BACK]], other), 502, "SERVICE_EXITED").await;
    site.assert_put_back(&[]).await;
    site.assert_good_update_works().await;
}

#[tokio::test]
async fn when_a_service_was_removed_already() {
    let site = Site::up(Engine::shared()).await;
    let fewer = stack(&[("web", &[FAILS, &[PAGE, BACK]]), ("db", &[SERVES, &[HEALTHY, BACK]])], REST);
    site.update_fails(&fewer, 502, "SERVICE_EXITED").await;
    site.assert_put_back(&["db-1"]).await;
    site.assert_good_update_works().await;
}

#[tokio::test]
async fn when_volumes_and_networks_were_added_already() {
    let site = Site::up(Engine::shared()).await;
    let more = "networks: {default: {}, back: {}, third: {}}\nvolumes: {store: {}, late: {}}\n";
    let late = &["volumes: ['late:/late']", "networks: [default, back, third]"];
    // `more` is up with a volume and networks of its own before web fails.
    let compose = stack(
        &[
            ("web", &[FAILS, late, &["depends_on: [more]"]]),
            ("db", &[SERVES, &[HEALTHY, BACK]]),
            ("idle", &[SLEEPS]),
            ("more", &[SLEEPS, late]),
        ],
        more,
    );
    site.update_fails(&compose, 502, "SERVICE_EXITED").await;
    site.assert_put_back(&["db-1", "idle-1"]).await;
    site.assert_good_update_works().await;
}

#[tokio::test]
async fn when_several_replicas_were_replaced_already() {
    let site = Site::up(Engine::shared()).await;
    let scaled = stack(
        &[
            ("web", &[SERVES, &[PAGE, BACK, "environment: {A: b}", "deploy: {replicas: 3}"]]),
            ("db", &[FAILS, &[BACK, "depends_on: {web: {condition: service_started}}"]]),
            ("idle", &[SLEEPS]),
        ],
        REST,
    );
    site.update_fails(&scaled, 502, "SERVICE_EXITED").await;
    site.assert_put_back(&["idle-1"]).await;
    site.assert_good_update_works().await;
}

#[tokio::test]
async fn when_the_deadline_passes() {
    let mut site = Site::up(Engine::shared()).await;
    site.agent.terminate(Duration::from_secs(30)).await;
    site.agent.set_env("Q8_AGENT_OPERATION_TIMEOUT", "8s");
    site.agent.start_again().await;
    let begun = std::time::Instant::now();
    let told = site.update_fails(&with_web(&[SERVES, &[PAGE, BACK, UNDECIDED]], REST), 504, "DEADLINE_EXCEEDED").await;
    assert!(begun.elapsed() >= Duration::from_secs(7), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    assert!(told["error"].as_str().is_some_and(|text| text.contains("web to become healthy")), "{told}");
    site.assert_put_back(&["db-1", "idle-1"]).await;
    // The rest of the test must not depend on how busy the machine is.
    site.agent.terminate(Duration::from_secs(30)).await;
    site.agent.set_env("Q8_AGENT_OPERATION_TIMEOUT", "10m");
    site.agent.start_again().await;
    site.assert_good_update_works().await;
}

#[tokio::test]
async fn when_nothing_was_stopped_yet() {
    let site = Site::up(Engine::shared()).await;
    // web waits for a service that fails: nobody has been replaced by then, nobody may have been stopped.
    let compose = stack(
        &[
            ("web", &[SERVES, &[PAGE, BACK, "depends_on: {check: {condition: service_completed_successfully}}"]]),
            ("db", &[SERVES, &[HEALTHY, BACK]]),
            ("idle", &[SLEEPS]),
            ("check", &[FAILS]),
        ],
        REST,
    );
    site.update_fails(&compose, 502, "SERVICE_EXITED").await;
    site.assert_put_back(&["web-1", "db-1", "idle-1"]).await;
    site.assert_good_update_works().await;
}

#[tokio::test]
async fn when_another_service_is_still_being_stopped() {
    let mut site = Site::up(Engine::shared()).await;
    let with_idle = |web: &[&[&str]], idle: &[&[&str]]| {
        stack(&[("web", web), ("db", &[SERVES, &[HEALTHY, BACK]]), ("idle", idle)], REST)
    };
    let stubborn = with_idle(&[SERVES, &[PAGE, BACK]], &[STUBBORN]);
    site.agent.post(UPDATE, &json!({"subdomain": site.name, "compose_content": stubborn})).await.expect(200);
    site.look().await;
    // web fails at once; the old idle takes its grace period, and the engine goes on stopping it whoever asked.
    let broken = with_idle(&[&["command: [no-such-tool]", PAGE, BACK]], &[STUBBORN, &["environment: {A: b}"]]);
    site.update_fails(&broken, 502, "SERVICE_EXITED").await;
    // Longer than the grace period: what was on its way to its end has ended by now.
    let after = std::time::Instant::now() + Duration::from_secs(5);
    eventually("the grace period is over", Duration::from_secs(30), async || {
        (std::time::Instant::now() >= after).then_some(())
    })
    .await;
    site.assert_put_back(&["db-1"]).await;
    site.assert_good_update_works().await;
}
