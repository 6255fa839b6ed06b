//! An independent look at tenants after whatever has happened to them: each is all of one generation, on the disk and on the
//! engine, and nothing is left of what was under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bollard::query_parameters::ListContainersOptionsBuilder;
use serde_json::{Value, json};

use crate::scene::{
    HEALTHY, LONG, PROVISION, SERVES, SLEEPS, STUBBORN, assert_same, containers, project_files, request, stack, tree,
};
use crate::support::agent::Agent;
use crate::support::engine::Engine;
use crate::support::eventually;

/// The labels of every container of an agent, running or not, with their names.
pub(crate) async fn labels(
    engine: &Engine,
    agent: &Agent<'_>,
) -> Vec<(String, std::collections::HashMap<String, String>)> {
    let label = agent.label();
    let filters = std::collections::HashMap::from([("label", vec![label.as_str()])]);
    let list = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let list = engine.docker().list_containers(Some(list)).await.expect("the engine lists containers");
    let name = |names: Option<Vec<String>>| names.unwrap_or_default().join(" ");
    list.into_iter().map(|found| (name(found.names), found.labels.unwrap_or_default())).collect()
}

/// The same of one tenant.
async fn labels_of(
    engine: &Engine,
    agent: &Agent<'_>,
    tenant: &str,
) -> Vec<(String, std::collections::HashMap<String, String>)> {
    let mut all = labels(engine, agent).await;
    all.retain(|(_, labels)| labels["dev.q8.tenant"] == tenant);
    all
}

/// No container is set aside, and everything that is labelled belongs to a tenant that has a directory.
///
/// Not at once: what the engine was making when the agent was killed may appear after the recovery, which looks again
/// for that reason; and a tenant is gone before the last of its files is.
pub(crate) async fn assert_no_litter(engine: &Engine, agent: &Agent<'_>) {
    let litter = async || {
        let mut found = Vec::new();
        for (name, labels) in labels(engine, agent).await {
            let (id, _) = name.trim_start_matches('/').split_once('_').unwrap_or_default();
            if id.len() == 12 && id.bytes().all(|c| c.is_ascii_hexdigit()) {
                found.push(format!("{name} is still set aside"));
            }
            let tenant = &labels["dev.q8.tenant"];
            if !agent.root().join(tenant).is_dir() {
                found.push(format!("{name} belongs to {tenant}, which has no directory"));
            }
        }
        for place in ["staging", "trash"] {
            found.extend(
                tree(&agent.root().join(".agent").join(place)).into_keys().map(|path| format!("{place}/{path}")),
            );
        }
        found
    };
    let end = Instant::now() + LONG;
    loop {
        let found = litter().await;
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{found:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Numbers that differ from run to run only if the seed does.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        // Knuth's MMIX generator; its high bits are good enough to pick a moment.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Specifications that differ in services, networks, volumes, files and variables.
pub(crate) fn variant(name: &str, number: u64) -> Value {
    let value = format!("environment: {{VARIANT: '{number}', FROM_ENV: \"${{VALUE}}\"}}");
    let page = "volumes: ['./page:/page:ro']";
    let compose = match number {
        0 => stack(&[("web", &[SERVES, &[&value, page]]), ("db", &[SLEEPS, &[HEALTHY]])], ""),
        1 => stack(
            &[
                ("web", &[SERVES, &[&value, page, "depends_on: [db]"]]),
                ("db", &[SLEEPS, &[HEALTHY]]),
                ("more", &[SLEEPS]),
            ],
            "",
        ),
        2 => stack(
            &[
                ("web", &[SERVES, &[&value, page, "networks: [front]"]]),
                ("db", &[STUBBORN, &["volumes: ['store:/store']"]]),
            ],
            "networks: {front: {}, default: {}}\nvolumes: {store: {}}\n",
        ),
        _ => stack(
            &[("web", &[SERVES, &[&value, page, "deploy: {replicas: 2}"]]), ("db", &[SLEEPS, &[HEALTHY]])],
            "networks: {default: {labels: {variant: '3'}}}\n",
        ),
    };
    let mut body = request(name, &compose);
    body["env_content"] = json!(format!("VALUE={number}\n"));
    let own = format!("file-{number}");
    body["files"] = json!({"page": format!("page {number}\n"), own: "only here\n"});
    body
}

/// The project directory as a variant wants it.
fn files_of(body: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut files: BTreeMap<String, String> =
        body["files"].as_object().expect("files").iter().map(|(path, content)| (path.clone(), text(content))).collect();
    files.insert(String::from("compose.yaml"), text(&body["compose_content"]));
    files.insert(String::from(".env"), text(&body["env_content"]));
    files
}

/// Looks at a tenant after a recovery: whatever generation it is at, it is all of that one.
pub(crate) async fn audit(engine: &Engine, agent: &Agent<'_>, name: &str, story: &str) {
    let degraded = format!("tenant:{name}");
    let status = eventually(&format!("{story}: recovered"), Duration::from_secs(90), async || {
        let ready = agent.get("/ready").await.json();
        let answer = agent.get(&format!("/v1/tenants/status/{name}")).await;
        let free = answer.json()["operation"].is_null()
            && !ready["degraded"].as_array()?.iter().any(|word| *word == degraded.as_str());
        free.then_some(answer)
    })
    .await;
    assert_no_litter(engine, agent).await;
    if status.status == 404 {
        eventually(&format!("{story}: an absent tenant has nothing"), LONG, async || {
            engine.labelled(&format!("dev.q8.tenant={name}")).await.is_empty().then_some(())
        })
        .await;
        assert!(!agent.root().join(name).exists(), "{story}: an absent tenant has no directory");
        return;
    }
    let status = status.expect(200);
    let files: BTreeMap<String, String> =
        project_files(agent, name).into_iter().map(|(path, (_, content))| (path, content)).collect();
    if status["state"] == "kept" {
        assert!(labels_of(engine, agent, name).await.is_empty(), "{story}: a kept tenant has no container");
        assert!(files.is_empty(), "{story}: {files:?}");
        return;
    }
    let (at, body) = (0..4)
        .map(|number| (number, variant(name, number)))
        .find(|(_, body)| files.get("compose.yaml") == files_of(body).get("compose.yaml"))
        .unwrap_or_else(|| panic!("{story}: compose.yaml is nobody's: {files:#?}"));
    assert_same(&files_of(&body), &files, &format!("{story}: the files of variant {at}"));
    let wanted: BTreeSet<&str> = match at {
        0 | 2 => BTreeSet::from(["web-1", "db-1"]),
        1 => BTreeSet::from(["web-1", "db-1", "more-1"]),
        _ => BTreeSet::from(["web-1", "web-2", "db-1"]),
    };
    let generation = status["generation"].as_u64().expect("a generation");
    // What was being made when the agent was killed may have appeared after the recovery.
    eventually(&format!("{story}: the containers of variant {at}"), LONG, async || {
        let there = containers(&agent.get(&format!("/v1/tenants/status/{name}")).await.expect(200));
        let later = labels_of(engine, agent, name)
            .await
            .into_iter()
            .any(|(_, labels)| labels["dev.q8.generation"].parse::<u64>().expect("a generation") > generation);
        (!later && there.keys().map(String::as_str).collect::<BTreeSet<_>>() == wanted).then_some(())
    })
    .await;
    let state = if status["desired"] == "stopped" { "exited" } else { "running" };
    let now = crate::scene::status(agent, name).await;
    for (key, container) in &containers(&now) {
        // A container that has been made and never been started is `created`.
        let fits = container.state == state || (state == "exited" && container.state == "created");
        assert!(fits, "{story}: {key} is {} in a tenant that is {}: {now}", container.state, now["desired"]);
    }
    // The strictest judge of "all of one generation" is the agent's own plan.
    let again = agent.post(PROVISION, &body).await.expect(200);
    assert_eq!((&again["changed"], &again["generation"]), (&json!(false), &json!(generation)), "{story}: {again}");
}
