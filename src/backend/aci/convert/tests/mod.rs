//! Deployments as groups, and the fields that cannot be.

mod changes;
mod corpus;
mod refused;

use std::collections::BTreeMap;

use serde_json::json;

use super::{Converted, Ground, convert};
use crate::backend::aci::models::{ContainerGroup, Secret};
use crate::backend::{BackendError, Deployment, sample};
use crate::config::AciRegistryIdentity;
use crate::domain::{FileContent, ProjectPath, RegistryAuth};
use crate::policy::Profile;

const GROUND: Ground<'_> =
    Ground { location: "eastus", storage_account: Some("stacme"), dns_label: None, credentials: &[], identities: &[] };

/// A deployment of this text with these files of the request, each with its content.
fn deployment(profile: Profile, text: &str, files: &[(&str, &str)]) -> Deployment {
    let names: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
    let contents = files.iter().map(|(path, text)| {
        let file = FileContent { bytes: text.as_bytes().to_vec(), mode: 0o644 };
        (ProjectPath::parse(path).unwrap(), file)
    });
    Deployment { files: contents.collect(), ..sample::deployment(profile, text, &names) }
}

fn converted(text: &str) -> Converted {
    convert(&deployment(Profile::Trusted, text, &[]), &GROUND).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn service(attributes: &str) -> String {
    format!("services: {{web: {{image: x, {attributes}}}}}")
}

/// The group as it is sent, and what is said about it.
fn shown(converted: &Converted) -> String {
    let group = serde_json::to_string_pretty(&converted.group).unwrap();
    let shares: Vec<String> =
        converted.shares.iter().map(|share| format!("share {} of {} GiB\n", share.name, share.quota_gib)).collect();
    let warnings: Vec<String> = converted.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    format!("group {}\n{}{}{group}\n", converted.name, shares.concat(), warnings.concat())
}

#[test]
fn a_stack_is_one_group() {
    let text = "
services:
  web:
    image: ghcr.io/acme/web:1
    entrypoint: [/entry]
    command: [serve, --all]
    restart: unless-stopped
    environment: {B: two, A: one, EMPTY: '', UNSET: }
    ports: ['8080', '2222:2222', '53:53/udp']
    user: '1000:1000'
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE]
    depends_on: {db: {condition: service_healthy}, migrate: {condition: service_completed_successfully}}
    configs: [{source: site, target: /etc/site/site.conf}, {source: token, target: /run/secrets/token}]
    tmpfs: [/cache]
    volumes: ['./conf:/conf:ro']
    deploy: {resources: {reservations: {cpus: '0.255', memory: 100m}, limits: {cpus: '1', memory: 1g}}}
  migrate:
    image: ghcr.io/acme/web:1
    entrypoint: [/migrate]
    depends_on: {prepare: {condition: service_completed_successfully}}
  prepare: {image: busybox, configs: [{source: token, target: /run/secrets/token}]}
  db_main:
    image: postgres:17
    restart: always
    configs: [{source: token, target: /run/secrets/token}]
    volumes: ['store:/var/lib/postgresql/data']
    healthcheck: {test: pg_isready, interval: 1500ms, timeout: 5s, retries: 4, start_period: 20s}
configs: {site: {content: 'listen 8080'}, token: {content: t0ken}}
volumes: {store: {labels: {q8.size: 20GiB}}}
"
    .replace("db: {condition", "db_main: {condition");
    let files = [("conf/a.conf", "a"), ("conf/b.conf", "b")];
    let wanted = deployment(Profile::Trusted, &text, &files);
    let credentials = [
        RegistryAuth { registry: "ghcr.io".into(), username: "u".into(), password: "p".to_owned().into() },
        RegistryAuth { registry: "docker.io".into(), username: "h".into(), password: "q".to_owned().into() },
        RegistryAuth { registry: "other.example".into(), username: "o".into(), password: "r".to_owned().into() },
    ];
    let converted = convert(&wanted, &Ground { credentials: &credentials, ..GROUND }).unwrap();
    insta::assert_snapshot!(shown(&converted));
    assert_eq!(converted.init.keys().map(ToString::to_string).collect::<Vec<_>>(), ["migrate", "prepare"]);
    assert_eq!(converted.containers["db_main"].strip_prefix("db-main-").unwrap().len(), 8);
    let share = &converted.shares[0];
    assert_eq!(share.metadata["q8_volume"], "store");
    assert_eq!(share.metadata["q8_name"], "q8-acme_store");
    assert_eq!(share.metadata["q8_id"], "1");
}

#[test]
fn an_identity_stands_in_where_there_are_no_credentials() {
    let wanted = deployment(
        Profile::Trusted,
        "services: {a: {image: shop.azurecr.io/a}, b: {image: shop.azurecr.io/b}, c: {image: ghcr.io/c}, d: {image: d}}",
        &[],
    );
    let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/pull";
    let known = |registry: &str| AciRegistryIdentity { registry: registry.to_owned(), identity: id.to_owned() };
    let identities = [known("shop.azurecr.io"), known("ghcr.io"), known("other.example")];
    let auth = RegistryAuth { registry: "ghcr.io".into(), username: "u".into(), password: "p".to_owned().into() };
    let with = convert(&wanted, &Ground { credentials: &[auth], identities: &identities, ..GROUND }).unwrap();
    let sent = serde_json::to_value(&with.group).unwrap();
    assert_eq!(
        sent["properties"]["imageRegistryCredentials"],
        json!([
            {"server": "ghcr.io", "username": "u", "password": "p"},
            {"server": "shop.azurecr.io", "identity": id},
        ])
    );
    assert_eq!(sent["identity"], json!({"type": "UserAssigned", "userAssignedIdentities": {id: {}}}));
    let without = convert(&wanted, &GROUND).unwrap();
    assert_eq!((&without.group.identity, &without.hash), (&None, &with.hash), "it is no change of the group");
}

#[test]
fn the_least_is_as_little_as_can_be() {
    insta::assert_snapshot!(shown(&converted("services: {web: {image: nginx, ports: ['80:80']}}")));
}

#[test]
fn what_a_policy_fills_in_is_no_obstacle() {
    let wanted = deployment(Profile::Baseline, "services: {web: {image: nginx, ports: ['80']}}", &[]);
    insta::assert_snapshot!(shown(&convert(&wanted, &GROUND).unwrap()));
}

#[test]
fn a_group_reads_as_it_is_written() {
    let text = "
services: {web: {image: x, ports: ['80:80'], volumes: ['a:/a'], environment: {A: b}}}
volumes: {a: {}}
";
    let group = converted(text).group;
    let text = serde_json::to_string(&group).unwrap();
    assert_eq!(serde_json::from_str::<ContainerGroup>(&text).unwrap(), group);
}

#[test]
fn no_secret_is_shown() {
    let text = "
services: {web: {image: x, environment: {KEY: s3cret}, configs: [{source: s, target: /run/secrets/s}]}}
configs: {s: {content: s3cret}}
";
    let credentials =
        [RegistryAuth { registry: "docker.io".into(), username: "u".into(), password: "s3cret".to_owned().into() }];
    let ground = Ground { credentials: &credentials, ..GROUND };
    let converted = convert(&deployment(Profile::Trusted, text, &[]), &ground).unwrap();
    let sent = serde_json::to_string(&converted.with_storage_key(&Secret::from("s3cret"))).unwrap();
    assert_eq!(sent.matches("s3cret").count(), 2, "the variable and the password");
    let shown = format!("{converted:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("czNjcmV0"), "{shown}");
}

#[test]
fn the_key_of_the_account_is_put_in_last() {
    let converted = converted("services: {web: {image: x, volumes: ['a:/a', 'b:/b']}}\nvolumes: {a: {}, b: {}}");
    let keys = |group: &ContainerGroup| -> Vec<String> {
        let shares = group.properties.volumes.iter().filter_map(|volume| volume.azure_file.as_ref());
        shares.filter_map(|share| Some(share.storage_account_key.as_ref()?.expose().to_owned())).collect()
    };
    assert!(keys(&converted.group).is_empty());
    assert_eq!(keys(&converted.with_storage_key(&Secret::from("k"))), ["k", "k"]);
}

#[test]
fn names_and_order_do_not_depend_on_chance() {
    let text = "services: {b: {image: x, environment: {Z: '1', A: '2'}}, a: {image: x, tmpfs: [/t]}}";
    assert_eq!(converted(text), converted(text));
}

#[test]
fn labels() {
    let label = |subdomain_or_name: &str, text: &str| {
        let address = converted(text).group.properties.ip_address.unwrap();
        assert!(address.dns_name_label.as_deref().unwrap().starts_with(subdomain_or_name), "{address:?}");
    };
    // `acme` has one letter too few.
    label("acme-", &service("ports: ['80:80']"));
    label("shop-1", &service("ports: ['80:80'], domainname: shop-1"));
    let wanted = deployment(Profile::Trusted, &service("ports: ['80:80'], domainname: shop-1"), &[]);
    let other = convert(&wanted, &Ground { dns_label: Some("other"), ..GROUND }).unwrap();
    assert_eq!(other.group.properties.ip_address.unwrap().dns_name_label.as_deref(), Some("other"));
    assert_eq!(converted(&service("domainname: shop-1")).group.properties.ip_address, None);
}

#[test]
fn restart_policies() {
    for (said, word) in [
        ("restart: always", "Always"),
        ("restart: unless-stopped", "Always"),
        ("restart: on-failure:3", "OnFailure"),
        ("restart: 'no'", "Never"),
        ("init: false", "Never"),
        ("deploy: {restart_policy: {condition: any}}", "Always"),
    ] {
        let policy = converted(&service(said)).group.properties.restart_policy.unwrap();
        assert_eq!(policy.as_str(), word, "{said}");
    }
}

#[test]
fn commands() {
    for (said, command) in [
        ("init: false", &[][..]),
        ("entrypoint: [/a, b]", &["/a", "b"]),
        ("entrypoint: [/a], command: [b, c]", &["/a", "b", "c"]),
        ("entrypoint: [], command: [b]", &["b"]),
        ("entrypoint: /a b, command: c", &["/a", "b", "c"]),
    ] {
        assert_eq!(converted(&service(said)).group.properties.containers[0].properties.command, command, "{said}");
    }
}

#[test]
fn probes() {
    for (said, command) in [
        ("test: [CMD, a, b]", &["a", "b"][..]),
        ("test: [CMD-SHELL, 'a | b']", &["/bin/sh", "-c", "a | b"]),
        ("test: a | b", &["/bin/sh", "-c", "a | b"]),
    ] {
        let group = converted(&service(&format!("healthcheck: {{{said}, interval: 1ms}}"))).group;
        let properties = &group.properties.containers[0].properties;
        let probe = properties.liveness_probe.clone().unwrap();
        assert_eq!(probe.exec.as_ref().unwrap().command, command, "{said}");
        assert_eq!(
            (probe.period_seconds, probe.timeout_seconds, probe.failure_threshold),
            (Some(1), Some(30), Some(3))
        );
        assert_eq!(properties.readiness_probe, Some(probe));
    }
    for said in ["test: [NONE]", "disable: true", "interval: 5s"] {
        let group = converted(&service(&format!("healthcheck: {{{said}}}"))).group;
        assert_eq!(group.properties.containers[0].properties.liveness_probe, None, "{said}");
    }
}

#[test]
fn files_of_one_directory_are_one_volume() {
    let text = "
services:
  a:
    image: x
    configs: [{source: one, target: /c/one}, {source: two, target: /c/two}, {source: one, target: /d/1}, {source: two, target: /d/2}]
  b: {image: x, configs: [{source: one, target: /e/1}, {source: two, target: /e/2}]}
configs: {one: {content: '1'}, two: {content: '2'}}
";
    let group = converted(text).group.properties;
    assert_eq!(group.volumes.len(), 2, "both containers have the same files");
    let files: BTreeMap<&str, usize> =
        group.volumes.iter().map(|v| (v.name.as_str(), v.secret.as_ref().unwrap().len())).collect();
    assert!(files.values().all(|&count| count == 2), "{files:?}");
    let (a, b) = (&group.containers[0].properties.volume_mounts[1], &group.containers[1].properties.volume_mounts[0]);
    assert_eq!((a.name.as_str(), a.mount_path.as_str()), (b.name.as_str(), "/d"));
    assert_eq!(b.mount_path, "/e");
}

#[test]
fn a_rollback_runs_the_images_of_then() {
    let mut wanted = deployment(Profile::Trusted, "services: {web: {image: x}}", &[]);
    let pinned = format!("x@sha256:{}", "a".repeat(64));
    let name = crate::domain::ServiceName::parse("web").unwrap();
    wanted.pinned_images.insert(name.clone(), pinned.clone());
    let image = |wanted: &Deployment| {
        convert(wanted, &GROUND).unwrap().group.properties.containers[0].properties.image.clone().unwrap()
    };
    assert_eq!(image(&wanted), pinned);
    wanted.pinned_images.insert(name, format!("sha256:{}", "a".repeat(64)));
    assert_eq!(image(&wanted), "x");
}

#[test]
fn a_warning_names_its_field() {
    for (attributes, field) in [
        ("labels: {a: b}", "services.web.labels"),
        ("container_name: c", "services.web.container_name"),
        ("init: true", "services.web.init"),
        ("tty: true", "services.web.tty"),
        ("stop_signal: SIGINT", "services.web.stop_signal"),
        ("stop_grace_period: 1m", "services.web.stop_grace_period"),
        ("logging: {driver: json-file}", "services.web.logging"),
        ("environment: [A]", "services.web.environment.A"),
        ("restart: 'on-failure:2'", "services.web.restart"),
        ("cpu_shares: 5", "services.web.cpu_shares"),
        ("pids_limit: 5", "services.web.pids_limit"),
        ("volumes: [/anonymous]", "services.web.volumes[0]"),
        ("volumes: ['/etc/localtime:/etc/localtime:ro']", "services.web.volumes[0]"),
        ("tmpfs: ['/t:size=1m']", "services.web.tmpfs[0]"),
        ("healthcheck: {test: x}", "services.web.healthcheck"),
        ("healthcheck: {interval: 5s}", "services.web.healthcheck"),
        ("deploy: {update_config: {order: start-first}}", "services.web.deploy.update_config"),
        ("networks: {default: {aliases: [a]}}", "services.web.networks.default.aliases"),
        ("cpus: 2, deploy: {resources: {reservations: {cpus: '1'}}}", "services.web.cpus"),
        ("domainname: shop-1", "services.web.domainname"),
    ] {
        let warnings = converted(&service(attributes)).warnings;
        assert!(
            warnings.iter().any(|warning| warning.starts_with(&format!("{field}: "))),
            "{attributes}: {warnings:?}"
        );
    }
    assert!(converted(&service("init: false")).warnings.is_empty());
}

/// The field and the reason of what is refused.
fn refusal(error: &BackendError) -> (&str, &str) {
    match error {
        BackendError::Unsupported { field, reason } => (field, reason),
        other => panic!("{other}"),
    }
}
