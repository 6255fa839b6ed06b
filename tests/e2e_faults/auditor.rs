//! An independent look at tenants after whatever has happened to them: each is all of one generation, on the disk and on the
//! engine, and nothing is left of what was under way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder};
use serde_json::{Value, json};

use crate::scene::{
    HEALTHY, LONG, PROVISION, SERVES, SLEEPS, STUBBORN, assert_nothing_left, assert_same, containers, project_files,
    request, stack, tree,
};
use crate::support::agent::Agent;
use crate::support::engine::Engine;
use crate::support::eventually;

/// The labels of every container of an agent, running or not, with their names.
pub(crate) async fn labels(engine: &Engine, agent: &Agent<'_>) -> Vec<(String, HashMap<String, String>)> {
    let label = agent.label();
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let list = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let list = engine.docker().list_containers(Some(list)).await.expect("the engine lists containers");
    let name = |names: Option<Vec<String>>| names.unwrap_or_default().join(" ");
    list.into_iter().map(|found| (name(found.names), found.labels.unwrap_or_default())).collect()
}

/// The same of one tenant.
async fn labels_of(engine: &Engine, agent: &Agent<'_>, tenant: &str) -> Vec<(String, HashMap<String, String>)> {
    let mut all = labels(engine, agent).await;
    all.retain(|(_, labels)| labels["dev.q8.tenant"] == tenant);
    all
}

/// The labels of everything of an agent: containers, networks and volumes, with their names.
pub(crate) async fn labels_of_all(engine: &Engine, agent: &Agent<'_>) -> Vec<(String, HashMap<String, String>)> {
    let (docker, label) = (engine.docker(), agent.label());
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let mut all = labels(engine, agent).await;
    let list = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let networks = docker.list_networks(Some(list)).await.expect("the engine lists networks");
    all.extend(
        networks
            .into_iter()
            .map(|found| (format!("network {}", found.name.unwrap_or_default()), found.labels.unwrap_or_default())),
    );
    let list = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let volumes = docker.list_volumes(Some(list)).await.expect("the engine lists volumes");
    let volumes = volumes.volumes.unwrap_or_default();
    all.extend(volumes.into_iter().map(|found| (format!("volume {}", found.name), found.labels)));
    all
}

/// Whether an object's generation is later than the one that its tenant's record names.
fn later(labels: &HashMap<String, String>, root: &Path) -> bool {
    let record = std::fs::read_to_string(root.join(&labels["dev.q8.tenant"]).join(".agent/record.json"));
    let record = record.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let at = record.and_then(|record| record["content"]["generation"].as_u64());
    let made = labels["dev.q8.generation"].parse::<u64>().expect("a generation");
    at.is_some_and(|at| made > at)
}

/// What the agent itself keeps on the disk: a record in each tenant's directory, no open operation, no generation that the
/// record does not name, and nothing that another user of the host could read.
///
/// `only` one tenant is looked at when others may still be under way.
pub(crate) fn assert_orderly(root: &Path, only: Option<&str>, story: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| {
        let meta = path.symlink_metadata().unwrap_or_else(|error| panic!("{story}: {}: {error}", path.display()));
        meta.permissions().mode() & 0o7777
    };
    assert_eq!(mode(root), 0o700, "{story}: the root");
    for entry in std::fs::read_dir(root).expect("the root can be listed").map(|entry| entry.expect("an entry")) {
        let (home, name) = (entry.path(), entry.file_name().into_string().expect("a plain name"));
        assert_eq!(mode(&home), 0o700, "{story}: {name}");
        if name.starts_with('.') || only.is_some_and(|only| only != name) {
            continue;
        }
        assert_eq!(mode(&home.join(".agent")), 0o700, "{story}: the agent's own directory of {name}");
        assert!(home.join(".agent/record.json").is_file(), "{story}: {name} has no record");
        assert!(!home.join(".agent/operation.json").exists(), "{story}: an operation of {name} is still open");
        let kept = std::fs::read_dir(home.join(".agent/generations")).expect("it is there").count();
        assert!(kept <= 2, "{story}: {kept} generations of {name} are kept");
        for (path, (mode, _)) in tree(&home.join(".agent")) {
            // What is mounted has the mode that the container wants; the directories above it are the agent's alone.
            assert!(
                path.starts_with("mounts/") || mode.trailing_zeros() >= 6,
                "{story}: {name}: others can read {path}"
            );
        }
        if home.join(".env").exists() {
            assert_eq!(mode(&home.join(".env")), 0o600, "{story}: the variables of {name}");
        }
    }
}

/// No container is set aside, and everything that is labelled belongs to a tenant that has a directory.
///
/// Not at once: what the engine was making when the agent was killed may appear after the recovery, which looks again
/// for that reason; and a tenant is gone before the last of its files is.
pub(crate) async fn assert_no_litter(engine: &Engine, agent: &Agent<'_>, story: &str) {
    let litter = async || {
        let mut found = Vec::new();
        for (name, _) in labels(engine, agent).await {
            let (id, _) = name.trim_start_matches('/').split_once('_').unwrap_or_default();
            if id.len() == 12 && id.bytes().all(|c| c.is_ascii_hexdigit()) {
                found.push((name, "is still set aside".to_owned()));
            }
        }
        for (name, labels) in labels_of_all(engine, agent).await {
            let tenant = &labels["dev.q8.tenant"];
            if !agent.root().join(tenant).is_dir() {
                let what = format!("belongs to {tenant}, which has no directory");
                found.push((name, what));
            } else if later(&labels, &agent.root()) {
                let what = format!("is of a generation that {tenant} has not reached");
                found.push((name, what));
            }
        }
        for place in ["staging", "trash"] {
            let files = tree(&agent.root().join(".agent").join(place)).into_keys();
            found.extend(files.map(|path| (format!("{place}/{path}"), "is left".to_owned())));
        }
        found.retain(|(name, _)| !engine.is_miscounted(name.trim_start_matches("network ")));
        found
    };
    // The last look comes 72 seconds after a recovery.
    let end = Instant::now() + LONG * 2;
    loop {
        let mut found = litter().await;
        if found.is_empty() {
            return;
        }
        if Instant::now() > end {
            let networks: Vec<String> =
                found.iter().filter_map(|(name, _)| name.strip_prefix("network ").map(str::to_owned)).collect();
            engine.miscounted(&networks).await;
            found.retain(|(name, _)| !engine.is_miscounted(name.trim_start_matches("network ")));
            assert!(found.is_empty(), "{story}: {found:#?}");
            return;
        }
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

/// An update from any variant to this one.
pub(crate) fn update_to(name: &str, number: u64) -> Value {
    let mut body = variant(name, number);
    body.as_object_mut().expect("an object").remove("id");
    // What the variant before had, and this one has not, has to go.
    let files = body["files"].as_object_mut().expect("files");
    for other in (0..4).map(|number| format!("file-{number}")) {
        files.entry(other).or_insert(Value::Null);
    }
    body["pull"] = json!(false);
    body
}

/// Specifications that differ in services, networks, volumes, files and variables.
pub(crate) fn variant(name: &str, number: u64) -> Value {
    let value = format!("environment: {{VARIANT: '{number}', FROM_ENV: \"${{VALUE}}\"}}");
    let page = "volumes: ['./page:/page:ro', './data/x:/x', 'store:/store']";
    let store = "volumes: {store: {}}\n";
    let compose = match number {
        0 => stack(&[("web", &[SERVES, &[&value, page]]), ("db", &[SLEEPS, &[HEALTHY]])], store),
        1 => stack(
            &[
                ("web", &[SERVES, &[&value, page, "depends_on: [db]"]]),
                ("db", &[SLEEPS, &[HEALTHY]]),
                ("more", &[SLEEPS]),
            ],
            store,
        ),
        2 => stack(
            &[
                ("web", &[SERVES, &[&value, page, "networks: [front]"]]),
                ("db", &[STUBBORN, &["volumes: ['more:/more']"]]),
            ],
            "networks: {front: {}, default: {}}\nvolumes: {store: {}, more: {}}\n",
        ),
        _ => stack(
            &[("web", &[SERVES, &[&value, page, "deploy: {replicas: 2}"]]), ("db", &[SLEEPS, &[HEALTHY]])],
            "networks: {default: {labels: {variant: '3'}}}\nvolumes: {store: {}}\n",
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
    let parents = files.keys().flat_map(|path| path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
    for directory in parents.collect::<BTreeSet<String>>() {
        files.insert(directory, String::from("(a directory)"));
    }
    files.insert(String::from("compose.yaml"), text(&body["compose_content"]));
    files.insert(String::from(".env"), text(&body["env_content"]));
    files
}

/// The networks of a tenant that its specification does not ask for.
async fn unwanted_networks(engine: &Engine, agent: &Agent<'_>, tenant: &str, body: &Value) -> Vec<String> {
    let compose = body["compose_content"].as_str().expect("a text");
    let compose: Value = serde_yaml::from_str(compose).expect("a Compose file");
    let wanted = |network: &str| network == "default" || !compose["networks"][network].is_null();
    let of_tenant = format!("q8-{tenant}_");
    let all = labels_of_all(engine, agent).await;
    let mut networks: Vec<String> =
        all.iter().filter_map(|(name, _)| name.strip_prefix("network ").map(str::to_owned)).collect();
    networks.retain(|name| name.strip_prefix(&of_tenant).is_some_and(|network| !wanted(network)));
    networks
}

/// What a tenant may be: a request's body, and the containers that it means.
pub(crate) struct Candidate {
    pub(crate) body: Value,
    pub(crate) containers: &'static [&'static str],
}

/// What a tenant was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is nothing of it.
    Absent,
    /// Torn down; its data is kept.
    Kept,
    /// All of one candidate.
    At { candidate: usize, generation: u64, stopped: bool },
}

/// Looks at a tenant after a recovery: whatever generation it is at, it is all of that one.
pub(crate) async fn audit(engine: &Engine, agent: &Agent<'_>, name: &str, story: &str) -> Found {
    let candidates: Vec<Candidate> = (0..4)
        .map(|number| Candidate {
            body: variant(name, number),
            containers: match number {
                0 | 2 => &["web-1", "db-1"],
                1 => &["web-1", "db-1", "more-1"],
                _ => &["web-1", "web-2", "db-1"],
            },
        })
        .collect();
    audit_among(Some(engine), agent, name, story, &candidates).await
}

/// The same for a tenant that may be one of these. Without an engine, which is the case on the memory backend, only the disk
/// and the agent's own words can be looked at.
pub(crate) async fn audit_among(
    engine: Option<&Engine>,
    agent: &Agent<'_>,
    name: &str,
    story: &str,
    candidates: &[Candidate],
) -> Found {
    let degraded = format!("tenant:{name}");
    // An engine's call that never ends is given up after two minutes.
    let status = eventually(&format!("{story}: recovered"), Duration::from_secs(180), async || {
        let ready = agent.get("/ready").await.json();
        let answer = agent.get(&format!("/v1/tenants/status/{name}")).await;
        let free = answer.json()["operation"].is_null()
            && !ready["degraded"].as_array()?.iter().any(|word| *word == degraded.as_str());
        free.then_some(answer)
    })
    .await;
    if let Some(engine) = engine {
        assert_no_litter(engine, agent, story).await;
    }
    assert_orderly(&agent.root(), Some(name), story);
    if status.status == 404 {
        if let Some(engine) = engine {
            assert_nothing_left(engine, &format!("dev.q8.tenant={name}"), story).await;
        }
        assert!(!agent.root().join(name).exists(), "{story}: an absent tenant has no directory");
        return Found::Absent;
    }
    let status = status.expect(200);
    let files: BTreeMap<String, String> =
        project_files(agent, name).into_iter().map(|(path, (_, content))| (path, content)).collect();
    if status["state"] == "kept" {
        if let Some(engine) = engine {
            assert!(labels_of(engine, agent, name).await.is_empty(), "{story}: a kept tenant has no container");
        }
        assert!(files.is_empty(), "{story}: {files:?}");
        return Found::Kept;
    }
    let (at, Candidate { body, containers: wanted }) = candidates
        .iter()
        .enumerate()
        .find(|(_, candidate)| files.get("compose.yaml") == files_of(&candidate.body).get("compose.yaml"))
        .unwrap_or_else(|| panic!("{story}: compose.yaml is nobody's: {files:#?}"));
    assert_same(&files_of(body), &files, &format!("{story}: the files of variant {at}"));
    let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
    let generation = status["generation"].as_u64().expect("a generation");
    // What was being made when the agent was killed may have appeared after the recovery.
    eventually(&format!("{story}: the containers of variant {at}"), LONG, async || {
        let there = containers(&agent.get(&format!("/v1/tenants/status/{name}")).await.expect(200));
        (there.keys().map(String::as_str).collect::<BTreeSet<_>>() == wanted).then_some(())
    })
    .await;
    let stopped = status["desired"] == "stopped";
    let state = if stopped { "exited" } else { "running" };
    let now = crate::scene::status(agent, name).await;
    for (key, container) in &containers(&now) {
        // A container that has been made and never been started is `created`.
        let fits = container.state == state || (stopped && container.state == "created");
        assert!(fits, "{story}: {key} is {} in a tenant that is {}: {now}", container.state, now["desired"]);
    }
    // The strictest judge of "all of one generation" is the agent's own plan.
    let again = agent.post(PROVISION, body).await.expect(200);
    // What the engine would not let go is tried again, which is a change and makes a generation.
    let tried_again = match engine {
        Some(engine) if again["changed"] == true => {
            !engine.miscounted(&unwanted_networks(engine, agent, name, body).await).await.is_empty()
        }
        _ => false,
    };
    let generation = generation + u64::from(tried_again);
    assert_eq!(
        (&again["changed"], &again["generation"]),
        (&json!(tried_again), &json!(generation)),
        "{story}: {again}"
    );
    Found::At { candidate: at, generation, stopped }
}
