//! Groups as Azure describes them, and what is made of them.

use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T01:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn group(mut properties: Value) -> ContainerGroup {
    properties["osType"] = json!("Linux");
    serde_json::from_value(json!({
        "id": "/subscriptions/S/resourceGroups/r/providers/Microsoft.ContainerInstance/containerGroups/q8-acme",
        "name": "q8-acme",
        "location": "eastus",
        "tags": {"q8-tenant": "acme", "q8-id": "1", "q8-service-my-db-00000000": "my_db"},
        "properties": properties
    }))
    .unwrap()
}

/// The one container of a group in this state.
fn one(group_state: &str, view: &Value) -> ObservedContainer {
    let group = group(json!({
        "provisioningState": "Succeeded",
        "instanceView": {"state": group_state, "events": []},
        "containers": [{"name": "web", "properties": {
            "image": "x:1",
            "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 10, "failureThreshold": 3},
            "instanceView": view
        }}]
    }));
    containers(&group, now()).remove(0)
}

#[test]
fn states_of_a_container() {
    let ran =
        json!({"state": "Terminated", "exitCode": 3, "detailStatus": "Error", "startTime": "2026-01-01T00:00:00Z"});
    for (group_state, view, state, exit_code) in [
        (
            "Running",
            json!({"currentState": {"state": "Running", "startTime": "2026-01-01T00:30:00Z"}}),
            "running",
            None,
        ),
        ("Pending", json!({"currentState": {"state": "Waiting"}}), "created", None),
        (
            "Running",
            json!({"currentState": {"state": "Waiting"}, "restartCount": 1, "previousState": ran}),
            "restarting",
            Some(3),
        ),
        ("Running", json!({"currentState": ran}), "exited", Some(3)),
        ("Succeeded", json!({"currentState": {"state": "Terminated", "exitCode": 0}}), "exited", Some(0)),
        ("Stopped", json!({"currentState": {"state": "Running"}}), "exited", None),
        ("Stopped", json!({"currentState": {"state": "Waiting"}, "previousState": ran}), "exited", Some(3)),
        ("Stopped", Value::Null, "exited", None),
        ("Pending", Value::Null, "created", None),
        ("Running", json!({"currentState": {"state": "Dozing"}}), "created", None),
    ] {
        let status = one(group_state, &view).status;
        assert_eq!((status.state.as_str(), status.exit_code), (state, exit_code), "{group_state} {view}");
    }
}

#[test]
fn what_else_is_known_of_a_container() {
    let view = json!({
        "restartCount": 2,
        "currentState": {"state": "Terminated", "exitCode": 137, "detailStatus": "OOMKilled",
                         "startTime": "2026-01-01T00:30:00Z", "finishTime": "2026-01-01T00:31:00Z"}
    });
    let seen = one("Running", &view);
    assert_eq!(
        (seen.tenant.as_str(), seen.owner.as_str(), seen.service.as_str(), seen.number),
        ("acme", "1", "web", 1)
    );
    let status = seen.status;
    assert_eq!((status.name.as_str(), status.image.as_str(), status.restart_count), ("web", "x:1", 2));
    assert_eq!(status.started_at, Some("2026-01-01T00:30:00Z".parse().unwrap()));
    assert!(status.oom_killed);
}

#[test]
fn health_follows_failures_of_the_probe() {
    let view = |events: Value| json!({"currentState": {"state": "Running", "startTime": "2026-01-01T00:30:00Z"}, "events": events});
    let failed = |at: &str, count: i64| json!([{"name": "Unhealthy", "message": "Liveness probe failed: no", "count": count, "lastTimestamp": at}]);
    for (events, health) in [
        (json!([]), Health::Healthy),
        (failed("2026-01-01T00:59:50Z", 1), Health::Starting),
        (failed("2026-01-01T00:59:50Z", 3), Health::Unhealthy),
        // Long ago, and of an earlier run.
        (failed("2026-01-01T00:40:00Z", 3), Health::Healthy),
        (failed("2026-01-01T00:29:59Z", 3), Health::Healthy),
    ] {
        let status = one("Running", &view(events.clone())).status;
        assert_eq!(status.health, health, "{events}");
        assert_eq!(status.health_output.is_some(), health != Health::Healthy);
    }
    assert_eq!(one("Stopped", &view(json!([]))).status.health, Health::None);
}

#[test]
fn what_its_probe_has_ended_is_known() {
    let ended = |code: i64, detail: &str, failed: &str| {
        let group = group(json!({"containers": [{"name": "web", "properties": {
            "livenessProbe": {"exec": {"command": ["true"]}},
            "instanceView": {
                "currentState": {"state": "Terminated", "exitCode": code, "startTime": "2026-01-01T00:30:00Z", "detailStatus": detail},
                "events": [{"name": "Unhealthy", "message": "Liveness probe failed: no", "count": 1, "lastTimestamp": failed}],
            },
        }}]}));
        ended_by_probe(&group, "web")
    };
    let later = "2026-01-01T00:31:00Z";
    assert_eq!(ended(137, "Error", later).as_deref(), Some("Liveness probe failed: no"));
    assert_eq!(ended(3, "Error", later), None, "it ended by itself");
    assert_eq!(ended(137, "OOMKilled", later), None);
    assert_eq!(ended(137, "Error", "2026-01-01T00:29:00Z"), None, "that was an earlier run");
}

#[test]
fn the_name_is_handed_out_as_it_is_read() {
    let with = |address: Value| {
        let group = group(json!({
            "ipAddress": address,
            "containers": [{"name": "web", "properties": {
                "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 9, "protocol": "TCP"}],
                "instanceView": {"currentState": {"state": "Running"}}
            }}]
        }));
        let endpoints = containers(&group, now()).remove(0).endpoints;
        endpoints.iter().map(|e| format!("{}:{}/{}", e.host, e.host_port, e.protocol)).collect::<Vec<_>>()
    };
    let ports = json!([{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]);
    let name =
        json!({"type": "Public", "ports": ports, "ip": "20.0.0.1", "fqdn": "acme.h4sh.eastus.azurecontainer.io"});
    assert_eq!(with(name), ["acme.h4sh.eastus.azurecontainer.io:80/tcp", "acme.h4sh.eastus.azurecontainer.io:53/udp"]);
    assert_eq!(with(json!({"ports": ports, "ip": "20.0.0.1"})), ["20.0.0.1:80/tcp", "20.0.0.1:53/udp"]);
    assert!(with(json!({"ports": ports, "ip": null})).is_empty());
    assert!(with(Value::Null).is_empty());
}

#[test]
fn services_have_their_real_names() {
    let group = group(json!({
        "initContainers": [{"name": "prepare", "properties": {
            "instanceView": {"currentState": {"state": "Terminated", "exitCode": 0}}
        }}],
        "containers": [{"name": "web", "properties": {}}, {"name": "my-db-00000000", "properties": {}}]
    }));
    let seen = containers(&group, now());
    let names: Vec<&str> = seen.iter().map(|container| container.service.as_str()).collect();
    assert_eq!(names, ["my_db", "prepare", "web"]);
    assert_eq!((seen[1].status.state.as_str(), seen[1].status.exit_code), ("exited", Some(0)));
    let ids: std::collections::BTreeSet<&str> = seen.iter().map(|container| container.status.id.as_str()).collect();
    assert_eq!(ids.len(), 3);
    let mut capitals = group.clone();
    capitals.id = capitals.id.map(|id| id.to_ascii_uppercase());
    assert_eq!(container_id(&group, "web"), container_id(&capitals, "web"));
    let mut nobodys = group;
    nobodys.tags.remove("q8-id");
    assert!(containers(&nobodys, now()).is_empty());
}

#[test]
fn events_in_order_and_the_fatal_one() {
    let group = group(json!({
        "instanceView": {"events": [{"name": "FailedMount", "message": "Output: mount error(2)", "lastTimestamp": "2026-01-01T00:10:00Z"}]},
        "containers": [{"name": "web", "properties": {"instanceView": {"events": [
            {"name": "Started", "lastTimestamp": "2026-01-01T00:20:00Z"},
            {"name": "Pulling", "lastTimestamp": "2026-01-01T00:05:00Z"}
        ]}}}]
    }));
    let told: Vec<(Option<&str>, &str)> =
        events(&group).into_iter().map(|told| (told.container, told.event.name.as_str())).collect();
    assert_eq!(told, [(Some("web"), "Pulling"), (None, "FailedMount"), (Some("web"), "Started")]);
    assert_eq!(fatal(&group, None).unwrap().event.message, "Output: mount error(2)");
    assert_eq!(fatal(&group, Some(now())), None);
}

#[test]
fn only_two_words_are_final() {
    for (word, provisioned_as) in [
        ("Pending", Provisioned::Not),
        ("Creating", Provisioned::Not),
        ("Repairing", Provisioned::Not),
        ("Unhealthy", Provisioned::Not),
        ("Hibernating", Provisioned::Not),
        ("Succeeded", Provisioned::Done),
        ("succeeded", Provisioned::Done),
        ("Failed", Provisioned::Failed),
    ] {
        assert_eq!(provisioned(&group(json!({"provisioningState": word}))), provisioned_as, "{word}");
    }
}
