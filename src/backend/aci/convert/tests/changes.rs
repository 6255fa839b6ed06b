//! From one group to the next.

use super::{GROUND, convert, converted, deployment, service};
use crate::backend::aci::convert::{Change, Ground, change};
use crate::domain::{Generation, RegistryAuth};
use crate::policy::Profile;

fn between(before: &str, after: &str) -> Change {
    change(&converted(before), &converted(after))
}

fn replaced(before: &str, after: &str) -> String {
    match between(before, after) {
        Change::Replace { because } => because,
        other => panic!("{other:?}: {before} to {after}"),
    }
}

#[test]
fn in_place() {
    let before = service("ports: ['80:80'], environment: {A: a}, volumes: [/t]");
    for after in [
        service("ports: ['80:80', '81:81'], environment: {A: a}, volumes: [/t]"),
        service("ports: ['80:80'], environment: {A: b}, volumes: [/t]"),
        service("ports: ['80:80'], environment: {A: a}, volumes: [/t, /u]"),
        service("ports: ['80:80'], environment: {A: a}, volumes: [/t], entrypoint: [x]"),
        before.replace("image: x", "image: y"),
    ] {
        assert_eq!(between(&before, &after), Change::InPlace, "{after}");
    }
    let one_shot =
        "services: {web: {image: x, depends_on: {j: {condition: service_completed_successfully}}}, j: {image: x}}";
    assert_eq!(between(&service("init: false"), one_shot), Change::InPlace);
}

#[test]
fn by_a_new_group() {
    for (before, after, because) in [
        ("cpus: 1", "cpus: 2", "the resources of container web change"),
        ("mem_limit: 1g", "mem_limit: 2g", "the resources of container web change"),
        ("restart: always", "restart: 'no'", "the restart policy changes"),
        ("init: false", "ports: ['80']", "the group gets an address"),
        ("ports: ['80']", "init: false", "the group has no address any more"),
        ("ports: ['80'], domainname: aaaaa", "ports: ['80'], domainname: bbbbb", "the DNS label changes"),
    ] {
        assert_eq!(replaced(&service(before), &service(after)), because, "{before} to {after}");
    }
    let two = "services: {web: {image: x}, db: {image: x}}";
    assert_eq!(replaced(&service("init: false"), two), "container db is added");
    // All of the group's CPUs, so that nothing else changes.
    assert_eq!(replaced(two, &service("init: false")), "container db is removed");
    let wanted = deployment(Profile::Trusted, two, &[]);
    let elsewhere = convert(&wanted, &Ground { location: "westus", ..GROUND }).unwrap();
    assert_eq!(change(&converted(two), &elsewhere), Change::Replace { because: "the location changes".to_owned() });
}

#[test]
fn tags_alone() {
    let mut wanted = deployment(Profile::Trusted, &service("environment: {A: a}"), &[]);
    let before = convert(&wanted, &GROUND).unwrap();
    assert_eq!(change(&before, &before), Change::None);
    wanted.generation = Generation(3);
    assert_eq!(change(&before, &convert(&wanted, &GROUND).unwrap()), Change::TagsOnly);
}

#[test]
fn credentials_come_and_go_without_a_change() {
    let wanted = deployment(Profile::Trusted, &service("init: false"), &[]);
    let auth = RegistryAuth { registry: "docker.io".into(), username: "u".into(), password: "p".to_owned().into() };
    let with = convert(&wanted, &Ground { credentials: &[auth], ..GROUND }).unwrap();
    assert_eq!(with.group.properties.image_registry_credentials[0].server, "index.docker.io");
    assert_eq!(change(&with, &convert(&wanted, &GROUND).unwrap()), Change::None);
}
