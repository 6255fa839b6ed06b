//! Plans as people read them: what is there, what is wanted, and the tasks that follow.

use std::collections::BTreeMap;

use super::converge::{self, KnownContainer, KnownNetwork, KnownVolume, Observed, RunState};
use super::{Deployment, Plan, ResolvedImage, ResolvedImages, sample};
use crate::domain::{ContainerId, ContainerName, DesiredState, FileContent, ProjectPath};
use crate::policy::Profile;

fn deployment(text: &str) -> Deployment {
    sample::deployment(Profile::Trusted, text, &["conf/site"])
}

/// What the images of a deployment stand for.
fn images(wanted: &Deployment) -> ResolvedImages {
    let services = wanted.project.project().services.iter();
    let resolved = |image: String| ResolvedImage { id: format!("sha256:{image}"), digest: None, pulled: false, image };
    services.map(|(name, service)| (name.clone(), resolved(service.image.to_string()))).collect()
}

/// What an engine has once this has been applied.
fn applied(there: &Deployment) -> Observed {
    let project = there.project.project();
    let mut observed = Observed::default();
    for network in project.networks.values() {
        let name = network.name.to_string();
        observed.networks.push(KnownNetwork { id: format!("id of {name}"), spec: there.object_hash(network), name });
    }
    for volume in project.volumes.values() {
        observed.volumes.push(KnownVolume { name: volume.name.to_string(), spec: there.object_hash(volume) });
    }
    for (name, service) in &project.services {
        for number in 1..=service.replicas() {
            let container = format!("{}-{name}-{number}", project.name);
            let id = there.key.hash(&[container.as_bytes()]);
            observed.containers.push(KnownContainer {
                id: ContainerId::parse(&id).unwrap(),
                name: ContainerName::parse(&container).unwrap(),
                service: name.clone(),
                number,
                spec: there.service_hash(service),
                image: images(there)[name].id.clone(),
                state: RunState::Running,
                stopped: false,
                networks: service.networks.keys().map(|key| format!("id of {}", project.networks[key].name)).collect(),
            });
        }
    }
    observed
}

fn plan(wanted: &Deployment, observed: &Observed) -> Plan {
    let plan = converge::plan(wanted, &images(wanted), None, observed).unwrap();
    for (at, task) in plan.tasks.iter().enumerate() {
        assert!(task.after.iter().all(|after| after.task < at), "{plan}");
    }
    plan
}

/// The plan from one Compose text to another.
fn from_to(before: &str, after: &str) -> Plan {
    plan(&deployment(after), &applied(&deployment(before)))
}

const THREE: &str = "
services:
  web: {image: 'web:1', depends_on: {db: {condition: service_healthy}, init: {condition: service_completed_successfully}}}
  init: {image: 'init:1', depends_on: {db: {condition: service_healthy}}}
  db: {image: 'db:1', volumes: ['store:/data'], healthcheck: {test: 'true'}}
volumes: {store: {}}
";

#[test]
fn fresh() {
    insta::assert_snapshot!(plan(&deployment(THREE), &Observed::default()));
}

#[test]
fn nothing_to_do() {
    let plan = from_to(THREE, THREE);
    assert!(plan.is_empty());
    insta::assert_snapshot!(plan);
}

#[test]
fn an_image_changed() {
    let wanted = deployment(THREE);
    let mut observed = applied(&wanted);
    for container in &mut observed.containers {
        if container.service.as_str() == "db" {
            container.image = "sha256:what the tag stood for before".to_owned();
        }
    }
    insta::assert_snapshot!(plan(&wanted, &observed));
}

#[test]
fn a_bound_file_changed() {
    let text = "services: {web: {image: x, volumes: ['./conf:/conf:ro']}, other: {image: x}}";
    let with = |content: &str| {
        let path = ProjectPath::parse("conf/site").unwrap();
        let file = FileContent { bytes: content.as_bytes().to_vec(), mode: 0o644 };
        Deployment { files: BTreeMap::from([(path, file)]), ..deployment(text) }
    };
    insta::assert_snapshot!(plan(&with("new"), &applied(&with("old"))));
}

#[test]
fn a_config_changed() {
    let text = "{services: {web: {image: x, configs: [site]}}, configs: {site: {content: old}}}";
    insta::assert_snapshot!(from_to(text, &text.replace("old", "new")));
}

#[test]
fn a_network_changed() {
    let text = "
services: {web: {image: x, networks: [front, back]}, db: {image: x, networks: [back]}, alone: {image: x}}
networks: {front: {}, back: {}}
";
    insta::assert_snapshot!(from_to(text, &text.replace("back: {}", "back: {internal: true}")));
}

#[test]
fn more_and_fewer() {
    let text = |count: u32| format!("services: {{web: {{image: x, scale: {count}}}}}");
    insta::assert_snapshot!("more", from_to(&text(1), &text(3)));
    insta::assert_snapshot!("fewer", from_to(&text(3), &text(1)));
}

#[test]
fn a_service_is_gone() {
    let text = "
services: {web: {image: x}, old: {image: x, networks: [back]}}
networks: {back: {}}
";
    insta::assert_snapshot!(from_to(text, "services: {web: {image: x}, new: {image: x}}"));
}

#[test]
fn a_dependent_restarts() {
    let text = "services: {web: {image: x, depends_on: {db: {condition: service_started, restart: true}}}, \
                stays: {image: x, depends_on: [db]}, db: {image: 'db:1'}}";
    insta::assert_snapshot!(from_to(text, &text.replace("db:1", "db:2")));
}

#[test]
fn all_services_changed() {
    let text = "services: {web: {image: x, depends_on: {db: {condition: service_healthy, restart: true}, cache: \
                {condition: service_started}}}, cache: {image: x, depends_on: [db]}, \
                db: {image: x, healthcheck: {test: 'true'}}}";
    insta::assert_snapshot!(from_to(text, &text.replace("image: x", "image: y")));
}

#[test]
fn a_namespace_is_shared() {
    let text = "services: {app: {image: x, network_mode: 'service:proxy'}, proxy: {image: 'proxy:1'}}";
    insta::assert_snapshot!(from_to(text, &text.replace("proxy:1", "proxy:2")));
}

#[test]
fn a_volume_changed() {
    insta::assert_snapshot!(from_to(THREE, &THREE.replace("store: {}", "store: {labels: {a: b}}")));
}

/// An apply ended after it had made one new container and before it started it; another one it had not even made.
#[test]
fn a_half_done_recreate() {
    let wanted = deployment(THREE);
    let mut observed = applied(&wanted);
    observed.containers.retain(|container| container.service.as_str() != "init");
    for container in &mut observed.containers {
        if container.service.as_str() == "web" {
            container.state = RunState::Created;
        }
    }
    insta::assert_snapshot!(plan(&wanted, &observed));
}

#[test]
fn start_first() {
    let text = "services: {web: {image: 'web:1', healthcheck: {test: 'true'}, \
                deploy: {update_config: {order: start-first, monitor: 5s}}}, \
                late: {image: x, depends_on: {web: {condition: service_healthy, restart: true}}}}";
    insta::assert_snapshot!(from_to(text, &text.replace("web:1", "web:2")));
}

#[test]
fn groups() {
    let text = "services: {web: {image: 'web:1', ports: [80], deploy: {replicas: 5, \
                update_config: {parallelism: 2, delay: 10s, order: stop-first}}}}";
    insta::assert_snapshot!("groups_stop_first", from_to(text, &text.replace("web:1", "web:2")));
    let text = text.replace("stop-first", "start-first");
    insta::assert_snapshot!("groups_start_first", from_to(&text, &text.replace("web:1", "web:2")));
}

#[test]
fn groups_leave_a_network_that_is_made_anew() {
    let deploy = "deploy: {replicas: 2, update_config: {order: start-first}}";
    let text = |network: &str, back: &str| {
        format!(
            "{{services: {{web: {{image: x, networks: [{network}], {deploy}}}, db: {{image: x, networks: [back]}}}}, \
             networks: {{front: {{}}, back: {back}}}}}"
        )
    };
    insta::assert_snapshot!(from_to(&text("back", "{}"), &text("front", "{internal: true}")));
}

#[test]
fn more_than_one_in_a_place() {
    let wanted = deployment("services: {web: {image: x}}");
    let mut observed = applied(&wanted);
    observed.surplus = applied(&wanted).containers;
    observed.surplus[0].id = ContainerId::parse(&"b".repeat(64)).unwrap();
    insta::assert_snapshot!(plan(&wanted, &observed));
}

#[test]
fn a_stopped_tenant_stays_stopped() {
    let wanted = Deployment { desired: DesiredState::Stopped, ..deployment(&THREE.replace("db:1", "db:2")) };
    let mut observed = applied(&deployment(THREE));
    for container in &mut observed.containers {
        container.state = RunState::Exited(0);
    }
    insta::assert_snapshot!(plan(&wanted, &observed));
}

#[test]
fn why_start_first_cannot_be() {
    let deploy = "deploy: {update_config: {order: start-first}}";
    for (attributes, rest, named) in [
        ("ports: ['80:80']", "", "ports[0]: two"),
        ("ports: ['8000-8001:80']", "", ""),
        ("ports: ['127.0.0.1::80']", "", ""),
        ("container_name: x", "", "container_name: two"),
        ("mac_address: '02:42:ac:11:00:02'", "", "mac_address: two"),
        ("networks: {a: {ipv4_address: 10.0.0.9}}", "", "networks.a.ipv4_address: two"),
        ("network_mode: host", "", "network_mode: two"),
        ("network_mode: none", "", ""),
        ("network_mode: 'service:b'", "", "network_mode: two"),
        ("pid: 'service:b'", "", "depends_on: it shares a namespace or volumes with b"),
        ("command: x", ", c: {image: x, network_mode: 'service:web'}", "depends_on: c shares"),
    ] {
        let text = format!(
            "{{services: {{web: {{image: x, {attributes}, {deploy}}}, b: {{image: x}}{rest}}}, \
             networks: {{a: {{ipam: {{config: [{{subnet: 10.0.0.0/24}}]}}}}}}}}"
        );
        let warnings = plan(&deployment(&text), &Observed::default()).warnings;
        match warnings.as_slice() {
            [] => assert_eq!(named, "", "{attributes}"),
            [warning] => {
                assert!(!named.is_empty() && warning.contains(&format!("services.web.{named}")), "{warning}");
            }
            more => panic!("{attributes}: {more:?}"),
        }
    }
}
