//! Whatever runs and whatever is wanted: carrying the plan out gives exactly what is wanted, and then there is nothing
//! more to do. Shown on the pretend engine for random pairs of small projects.

#[allow(dead_code, unused_imports, unused_macros, reason = "only the world and the tenant are used here")]
mod conformance;

use std::collections::{BTreeMap, BTreeSet};

use conformance::{IMAGE, Tenant, World};
use proptest::prelude::*;
use proptest::sample::subsequence;
use q8_agent::backend::memory::{MemoryBackend, MemoryEngine};
use q8_agent::backend::{Action, Deployment};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const NETWORKS: [&str; 3] = ["front", "back", "side"];
const VOLUMES: [&str; 2] = ["store", "cache"];

/// One service, as far as a plan can tell two apart.
#[derive(Debug, Clone)]
struct Sketch {
    image: u8,
    value: u8,
    networks: Vec<&'static str>,
    volumes: Vec<&'static str>,
    scale: u8,
    /// Which of the services before it in the alphabet it depends on, and whether it restarts with them.
    needs: Vec<(usize, bool)>,
    update: Option<(bool, u8)>,
    checked: bool,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    (
        (0..2u8, 0..3u8),
        subsequence(&NETWORKS[..], 0..=NETWORKS.len()),
        subsequence(&VOLUMES[..], 0..=VOLUMES.len()),
        1..4u8,
        proptest::collection::btree_map(0..3usize, any::<bool>(), 0..3),
        proptest::option::of((any::<bool>(), 0..3u8)),
        any::<bool>(),
    )
        .prop_map(|((image, value), networks, volumes, scale, needs, update, checked)| Sketch {
            image,
            value,
            networks,
            volumes,
            scale,
            needs: needs.into_iter().collect(),
            update,
            checked,
        })
}

/// One to four services, and for each network and volume whether its definition is the other one.
type Drawn = (BTreeMap<usize, Sketch>, BTreeSet<&'static str>);

fn project() -> impl Strategy<Value = Drawn> {
    let changed: Vec<&'static str> = NETWORKS.iter().chain(&VOLUMES).copied().collect();
    let all = changed.len();
    let changed = subsequence(changed, 0..=all).prop_map(|names| names.into_iter().collect());
    (proptest::collection::btree_map(0..NAMES.len(), sketch(), 1..=NAMES.len()), changed)
}

fn text((services, changed): &Drawn) -> String {
    let mut text = String::from("services:\n");
    for (at, service) in services {
        let mut lines = vec![
            format!("image: {}", if service.image == 0 { IMAGE } else { "q8test/busybox:2" }),
            format!("environment: {{VALUE: '{}'}}", service.value),
            format!("networks: [{}]", service.networks.join(", ")),
            format!("scale: {}", service.scale),
            String::from("stop_signal: SIGKILL"),
            String::from("command: [sleep, '3600']"),
        ];
        let volumes: Vec<String> = service.volumes.iter().map(|name| format!("'{name}:/{name}'")).collect();
        lines.push(format!("volumes: [{}]", volumes.join(", ")));
        if service.checked {
            lines.push(String::from("healthcheck: {test: [CMD, 'true'], interval: 1ms}"));
        }
        let needs = service.needs.iter().filter(|(other, _)| other < at && services.contains_key(other));
        let needs: Vec<String> = needs
            .map(|(other, restart)| {
                let condition = if services[other].checked { "service_healthy" } else { "service_started" };
                format!("{}: {{condition: {condition}, restart: {restart}}}", NAMES[*other])
            })
            .collect();
        lines.push(format!("depends_on: {{{}}}", needs.join(", ")));
        if let Some((start_first, parallelism)) = service.update {
            let order = if start_first { "start-first" } else { "stop-first" };
            lines.push(format!("deploy: {{update_config: {{order: {order}, parallelism: {parallelism}}}}}"));
        }
        text.push_str(&format!("  {}:\n    {}\n", NAMES[*at], lines.join("\n    ")));
    }
    let define = |names: &[&str]| {
        let defined = |name: &&str| if changed.contains(name) { "{labels: {other: 'yes'}}" } else { "{}" };
        names.iter().map(|name| format!("{name}: {}", defined(name))).collect::<Vec<String>>().join(", ")
    };
    text + &format!("networks: {{{}}}\nvolumes: {{{}}}\n", define(&NETWORKS), define(&VOLUMES))
}

/// Names, definitions and states of all containers; names of all networks.
fn there(engine: &MemoryEngine) -> (Vec<(String, String, String)>, Vec<String>) {
    let containers = engine.containers().into_iter();
    let containers =
        containers.map(|container| (container.name, container.labels["dev.q8.spec"].clone(), container.state));
    (containers.collect(), engine.networks())
}

fn expected(wanted: &Deployment) -> (Vec<(String, String, String)>, Vec<String>) {
    let project = wanted.project.project();
    let mut containers = Vec::new();
    for (name, service) in &project.services {
        for number in 1..=service.replicas() {
            let container = format!("{}-{name}-{number}", project.name);
            containers.push((container, wanted.service_hash(service), String::from("running")));
        }
    }
    containers.sort();
    let mut networks: Vec<String> = project.networks.values().map(|network| network.name.to_string()).collect();
    networks.sort();
    (containers, networks)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_leads_to_what_is_wanted(before in project(), after in project()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let world = World::new("/opt/tenants");
            let backend = MemoryBackend::new(world.agent.clone(), world.key.clone());
            let mut tenant = Tenant::new(&backend, &world, "any");
            let mut volumes = BTreeSet::new();
            for text in [text(&before), text(&after)] {
                let first = tenant.identities().await;
                let plan = tenant.up(&text).await.unwrap_or_else(|error| panic!("{error:?}\n{text}"));
                let wanted = tenant.deployed();
                assert_eq!(there(backend.engine()), expected(wanted), "{plan}\n{text}");
                volumes.extend(wanted.project.project().volumes.values().map(|volume| volume.name.to_string()));
                assert_eq!(backend.engine().volumes(), volumes.iter().cloned().collect::<Vec<_>>(), "none has gone");
                let last = tenant.identities().await;
                for slot in plan.steps.iter().filter(|step| step.action == Action::Keep) {
                    let name = slot.object.to_string();
                    let name = name.strip_prefix("container ").unwrap_or_default();
                    assert_eq!(first.get(name), last.get(name), "{name} is kept\n{plan}\n{text}");
                }
                let again = tenant.plan(wanted).await;
                assert!(again.is_empty(), "{again}\n{text}");
            }
        });
    }
}
