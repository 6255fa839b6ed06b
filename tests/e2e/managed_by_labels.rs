//! Names and labels: what lets `docker compose -p q8-x ps|logs|exec|stop|start|down` manage a tenant's objects, and what
//! tells the agent whose they are. `tests/compose_cli.rs` has the real one do it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use bollard::query_parameters::{InspectNetworkOptions, ListContainersOptionsBuilder};
use serde_json::{Value, json};

use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::images::BUSYBOX;
use crate::tenant::{Tenant, inspect};

const STACK: &str = r#"
x-common: &common {image: "q8test/busybox:1", command: [sleep, "3600"], stop_signal: SIGKILL}
services:
  db:
    <<: *common
    volumes: ["kept:/data"]
    labels: {org.example.own: "yes"}
  web:
    <<: *common
    scale: 2
    networks: [default, back]
    depends_on:
      db: {condition: service_started}
      other: {condition: service_started, restart: true}
  other: {<<: *common}
networks:
  back: {labels: {org.example.own: "yes"}}
volumes:
  kept: {labels: {org.example.own: "yes"}}
"#;

const OWNERSHIP: [&str; 5] = ["dev.q8.agent", "dev.q8.generation", "dev.q8.id", "dev.q8.spec", "dev.q8.tenant"];
const COMPOSE: [&str; 10] = [
    "com.docker.compose.config-hash",
    "com.docker.compose.container-number",
    "com.docker.compose.depends_on",
    "com.docker.compose.image",
    "com.docker.compose.oneoff",
    "com.docker.compose.project",
    "com.docker.compose.project.config_files",
    "com.docker.compose.project.working_dir",
    "com.docker.compose.service",
    "com.docker.compose.version",
];

type Labels = BTreeMap<String, String>;

#[tokio::test]
async fn every_object_says_whose_it_is_and_docker_compose_can_manage_it() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let tenant = Tenant::new(&agent, "labels");
    tenant.provision(STACK, json!({})).await;
    let project = format!("q8-{}", tenant.name);
    let directory = agent.root().join(&tenant.name);
    let image = engine.docker().inspect_image(BUSYBOX).await.expect("the image").id.expect("its id");

    let mut containers = BTreeMap::new();
    for (name, container) in tenant.containers().await {
        let found = inspect(engine, &container.id).await;
        assert_eq!(found["Name"], format!("/{project}-{name}"));
        containers.insert(name, labels_of(&found["Config"]["Labels"]));
    }
    assert_eq!(containers.keys().collect::<Vec<_>>(), ["db-1", "other-1", "web-1", "web-2"]);
    for (name, labels) in &containers {
        let own: &[&str] = if name == "db-1" { &["org.example.own"] } else { &[] };
        exactly(labels, &[&COMPOSE, &OWNERSHIP, &["dev.q8.ports"], own], name);
        owned(labels, &agent, &tenant, "1");
        let (service, number) = name.split_once('-').expect("a number");
        for (label, value) in [
            ("service", service),
            ("container-number", number),
            ("oneoff", "False"),
            ("image", image.as_str()),
            ("project.working_dir", directory.to_str().expect("text")),
            ("config-hash", &labels["dev.q8.spec"]),
        ] {
            assert_eq!(labels[&format!("com.docker.compose.{label}")], value, "{name}");
        }
    }
    let depends_on = |name: &str| containers[name]["com.docker.compose.depends_on"].as_str();
    assert_eq!(depends_on("web-1"), "db:service_started:false,other:service_started:true");
    assert_eq!(depends_on("db-1"), "");
    assert_eq!(containers["web-1"]["dev.q8.spec"], containers["web-2"]["dev.q8.spec"], "one service, one definition");
    assert_ne!(containers["web-1"]["dev.q8.spec"], containers["db-1"]["dev.q8.spec"]);
    // The paths are real, so that an operator finds the tenant by its containers.
    let file = &containers["web-1"]["com.docker.compose.project.config_files"];
    assert_eq!(std::fs::read_to_string(file).expect("the label leads to a file"), STACK);
    assert_eq!(Path::new(file).parent(), Some(directory.as_path()));

    for (key, own) in [("default", &[][..]), ("back", &["org.example.own"])] {
        let found = engine.docker().inspect_network(&format!("{project}_{key}"), None::<InspectNetworkOptions>).await;
        let labels = found.expect("the network").labels.unwrap_or_default().into_iter().collect();
        object(&labels, "network", key, own, &agent, &tenant);
    }
    let volume = engine.docker().inspect_volume(&format!("{project}_kept")).await.expect("the volume");
    object(&volume.labels.into_iter().collect(), "volume", "kept", &["org.example.own"], &agent, &tenant);

    assert_eq!(found_by_docker_compose(engine, &project).await, ["db-1", "other-1", "web-1", "web-2"]);

    // What is made anew bears the generation that made it; what stays keeps its own.
    let changed = STACK.replacen("{org.example.own: \"yes\"}", "{org.example.own: \"no\"}", 1);
    tenant.update(json!({"compose_content": changed})).await.expect(200);
    for (name, container) in tenant.containers().await {
        let labels = labels_of(&inspect(engine, &container.id).await["Config"]["Labels"]);
        owned(&labels, &agent, &tenant, if name == "db-1" { "2" } else { "1" });
    }
    tenant.purge().await;
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}

/// A hash on a label must not let its readers guess what was hashed: the same stack has other hashes elsewhere.
#[tokio::test]
async fn hashes_are_each_hosts_own() {
    let engine = Engine::shared().with_busybox().await;
    let mut hashes = BTreeSet::new();
    for _ in 0..2 {
        let agent = Options::docker(engine).start().await;
        let tenant = Tenant::new(&agent, "hashes");
        tenant.provision("services: {a: {image: \"q8test/busybox:1\", command: [\"true\"]}}", json!({})).await;
        let container = inspect(engine, &tenant.container("a-1").await).await;
        hashes.insert(container["Config"]["Labels"]["dev.q8.spec"].to_string());
        tenant.purge().await;
    }
    assert_eq!(hashes.len(), 2, "{hashes:?}");
}

fn labels_of(value: &Value) -> Labels {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

fn exactly(labels: &Labels, wanted: &[&[&str]], what: &str) {
    let wanted: BTreeSet<&str> = wanted.iter().flat_map(|part| part.iter().copied()).collect();
    assert_eq!(labels.keys().map(String::as_str).collect::<BTreeSet<_>>(), wanted, "{what}");
}

fn owned(labels: &Labels, agent: &Agent<'_>, tenant: &Tenant<'_>, generation: &str) {
    for (label, value) in [
        ("dev.q8.agent", agent.identity()),
        ("dev.q8.tenant", &tenant.name),
        ("dev.q8.id", &tenant.id),
        ("dev.q8.generation", generation),
        ("com.docker.compose.project", &format!("q8-{}", tenant.name)),
        ("com.docker.compose.version", env!("CARGO_PKG_VERSION")),
    ] {
        assert_eq!(labels[label], value, "{label}");
    }
    let hash = &labels["dev.q8.spec"];
    assert!(hash.len() == 64 && hash.bytes().all(|c| c.is_ascii_hexdigit()), "{hash}");
}

/// The labels of a network or volume.
fn object(labels: &Labels, kind: &str, key: &str, own: &[&str], agent: &Agent<'_>, tenant: &Tenant<'_>) {
    let kind = format!("com.docker.compose.{kind}");
    let compose = ["com.docker.compose.config-hash", "com.docker.compose.project", "com.docker.compose.version", &kind];
    exactly(labels, &[&compose, &OWNERSHIP, own], key);
    owned(labels, agent, tenant, "1");
    assert_eq!(labels[&kind], key);
    assert_eq!(labels["com.docker.compose.config-hash"], labels["dev.q8.spec"]);
}

/// The containers that docker compose's own filter finds: it ignores what has no project, no config hash or is a one-off.
async fn found_by_docker_compose(engine: &Engine, project: &str) -> Vec<String> {
    let filters = HashMap::from([(
        "label",
        vec![
            format!("com.docker.compose.project={project}"),
            "com.docker.compose.oneoff=False".to_owned(),
            "com.docker.compose.config-hash".to_owned(),
        ],
    )]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let listed = engine.docker().list_containers(Some(options)).await.expect("the engine lists containers");
    let mut names: Vec<String> = listed
        .into_iter()
        .filter_map(|found| Some(found.names?.first()?.strip_prefix(&format!("/{project}-"))?.to_owned()))
        .collect();
    names.sort();
    names
}
