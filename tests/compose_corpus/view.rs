//! A loaded project in the words of `docker compose config --format json`, as far as the model has them.

use q8_agent::compose::{
    Condition, FileSource, MountSource, NetworkMode, PortMapping, Project, RestartPolicy, Service,
};
use serde_json::{Map, Value, json};

/// The attributes that are compared. Both sides are cut down to these.
const COMPARED: &[&str] = &[
    "image",
    "command",
    "entrypoint",
    "environment",
    "labels",
    "depends_on",
    "ports",
    "networks",
    "network_mode",
    "volumes",
    "restart",
    "hostname",
    "domainname",
    "working_dir",
    "user",
    "init",
    "tty",
    "stdin_open",
    "read_only",
    "stop_signal",
    "container_name",
    "platform",
    "cap_add",
    "cap_drop",
    "security_opt",
    "group_add",
    "dns",
    "dns_search",
    "dns_opt",
    "healthcheck_test",
    "replicas",
    "mem_limit",
    "mem_reservation",
    "memswap_limit",
    "shm_size",
    "pids_limit",
    "cpus",
    "cpu_shares",
    "cpuset",
    "oom_score_adj",
    "runtime",
    "mac_address",
    "logging",
];

/// The project as the loader made it.
pub(crate) fn ours(project: &Project) -> Value {
    let services: Map<String, Value> =
        project.services.iter().map(|(name, service)| (name.to_string(), cut(service_view(service)))).collect();
    json!({
        "services": services,
        "networks": names(project.networks.iter().map(|(key, network)| (key.to_string(), network.name.to_string()))),
        "volumes": names(project.volumes.iter().map(|(key, volume)| (key.to_string(), volume.name.to_string()))),
        "configs": names(project.configs.iter().map(|(key, config)| (key.to_string(), config.name.clone()))),
        "secrets": names(
            project
                .secrets
                .iter()
                .filter(|(_, secret)| !matches!(secret.source, FileSource::External))
                .map(|(key, secret)| (key.to_string(), secret.name.clone())),
        ),
    })
}

fn names(objects: impl Iterator<Item = (String, String)>) -> Value {
    objects.map(|(key, name)| (key, Value::String(name))).collect::<Map<_, _>>().into()
}

/// The project as docker compose printed it.
pub(crate) fn theirs(printed: &Value) -> Value {
    let mut services = Map::new();
    for (name, service) in printed["services"].as_object().into_iter().flatten() {
        let mut service = service.as_object().expect("a service is an object").clone();
        let deploy = service.get("deploy").cloned().unwrap_or_default();
        let limits = &deploy["resources"]["limits"];
        for (ours, theirs) in [("cpus", "cpus"), ("mem_limit", "memory"), ("pids_limit", "pids")] {
            if !limits[theirs].is_null() {
                service.insert(ours.to_owned(), limits[theirs].clone());
            }
        }
        if !deploy["resources"]["reservations"]["memory"].is_null() {
            service.insert("mem_reservation".to_owned(), deploy["resources"]["reservations"]["memory"].clone());
        }
        let replicas = service.get("scale").or_else(|| deploy.get("replicas")).cloned().unwrap_or(json!(1));
        service.insert("replicas".to_owned(), replicas);
        if let Some(check) = service.get("healthcheck") {
            let test = if check["disable"] == json!(true) { json!(["NONE"]) } else { check["test"].clone() };
            service.insert("healthcheck_test".to_owned(), test);
        }
        if let Some(networks) = service.get("networks").and_then(Value::as_object) {
            service.insert("networks".to_owned(), networks.keys().cloned().collect::<Vec<_>>().into());
        }
        for port in service.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            *port = port_cut(port);
        }
        for volume in service.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
            *volume = volume_cut(volume);
        }
        services.insert(name.clone(), cut(Value::Object(service)));
    }
    let section = |key: &str| {
        names(
            printed[key]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, object)| (key.clone(), object["name"].as_str().unwrap_or_default().to_owned())),
        )
    };
    let printed = json!({
        "services": services,
        "networks": section("networks"),
        "volumes": section("volumes"),
        "configs": section("configs"),
        "secrets": section("secrets"),
    });
    let text = printed.to_string().replace("$$", "$").replace("${PROJECT_DIR}", super::DIRECTORY);
    serde_json::from_str(&text).expect("still JSON")
}

/// Only what is compared, and nothing that is absent or a default.
fn cut(service: Value) -> Value {
    let Value::Object(service) = service else { return service };
    let kept = service.into_iter().filter(|(key, value)| {
        let empty = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty() && key != "command" && key != "entrypoint",
            Value::Object(members) => members.is_empty(),
            _ => false,
        };
        COMPARED.contains(&key.as_str()) && !empty
    });
    Value::Object(kept.collect())
}

fn port_cut(port: &Value) -> Value {
    let published = port["published"].as_str().filter(|published| *published != "0").map(str::to_owned);
    json!({ "target": port["target"], "protocol": port["protocol"], "host_ip": port["host_ip"], "published": published })
}

/// One port in their words.
pub(crate) fn port(port: &PortMapping) -> Value {
    let published =
        port.published.map(|(low, high)| if low == high { low.to_string() } else { format!("{low}-{high}") });
    json!({
        "target": port.target,
        "protocol": port.protocol.as_str(),
        "host_ip": port.host_ip.map(|address| address.to_string()),
        "published": published,
    })
}

fn volume_cut(volume: &Value) -> Value {
    json!({
        "type": volume["type"],
        "source": volume["source"],
        "target": volume["target"],
        "read_only": volume["read_only"] == json!(true),
        "nocopy": volume["volume"]["nocopy"] == json!(true),
        "subpath": volume["volume"]["subpath"],
        "create_host_path": volume["bind"]["create_host_path"] == json!(true),
        "propagation": volume["bind"]["propagation"],
        "size": volume["tmpfs"]["size"],
        "mode": volume["tmpfs"]["mode"],
    })
}

/// The printed ports and volumes of a vector, cut to what the model has.
pub(crate) fn cut_ports(printed: &Value) -> Value {
    printed.as_array().into_iter().flatten().map(port_cut).collect()
}

pub(crate) fn cut_volumes(printed: &Value) -> Value {
    let text = printed.to_string().replace("${PROJECT_DIR}", super::DIRECTORY);
    let printed: Value = serde_json::from_str(&text).expect("still JSON");
    printed.as_array().into_iter().flatten().map(volume_cut).collect()
}

/// The mounts of a service in their words.
pub(crate) fn volumes(service: &Service) -> Value {
    service
        .mounts
        .iter()
        .map(|mount| {
            let mut view = json!({ "target": mount.target, "read_only": mount.read_only == Some(true) });
            match &mount.source {
                MountSource::Volume { key, nocopy, subpath } => {
                    view["type"] = json!("volume");
                    view["source"] = json!(key.as_str());
                    view["volume"] = json!({ "nocopy": nocopy, "subpath": subpath });
                }
                MountSource::Anonymous { nocopy } => {
                    view["type"] = json!("volume");
                    view["volume"] = json!({ "nocopy": nocopy });
                }
                MountSource::Bind { source, create_host_path, propagation, .. } => {
                    view["type"] = json!("bind");
                    view["source"] = json!(source);
                    view["bind"] = json!({ "create_host_path": create_host_path, "propagation": propagation });
                }
                MountSource::Tmpfs { size, mode } => {
                    view["type"] = json!("tmpfs");
                    view["tmpfs"] = json!({ "size": size.map(|size| size.to_string()), "mode": mode });
                }
            }
            volume_cut(&view)
        })
        .collect()
}

fn service_view(service: &Service) -> Value {
    let bytes = |value: Option<i64>| value.map(|value| value.to_string());
    let depends_on: Map<String, Value> = service
        .depends_on
        .iter()
        .map(|(name, dependency)| {
            let condition = match dependency.condition {
                Condition::ServiceStarted => "service_started",
                Condition::ServiceHealthy => "service_healthy",
                Condition::ServiceCompletedSuccessfully => "service_completed_successfully",
            };
            let mut view = json!({ "condition": condition, "required": dependency.required });
            if dependency.restart {
                view["restart"] = json!(true);
            }
            (name.to_string(), view)
        })
        .collect();
    let logging = service.logging.as_ref().map(|logging| {
        let mut view = json!({ "driver": logging.driver });
        if !logging.options.is_empty() {
            view["options"] = json!(logging.options);
        }
        view
    });
    json!({
        "image": service.image,
        "command": service.command,
        "entrypoint": service.entrypoint,
        "environment": service.environment,
        "labels": service.labels,
        "depends_on": depends_on,
        "ports": service.ports.iter().map(port).collect::<Vec<_>>(),
        "networks": service.networks.keys().collect::<Vec<_>>(),
        "network_mode": service.network_mode.as_ref().map(network_mode),
        "volumes": volumes(service),
        "restart": restart(service.restart),
        "hostname": service.hostname,
        "domainname": service.domainname,
        "working_dir": service.working_dir,
        "user": service.user,
        "init": service.init,
        "tty": service.tty,
        "stdin_open": service.stdin_open,
        "read_only": service.read_only,
        "stop_signal": service.stop_signal,
        "container_name": service.container_name,
        "platform": service.platform,
        "cap_add": service.cap_add,
        "cap_drop": service.cap_drop,
        "security_opt": service.security_opt,
        "group_add": service.group_add,
        "dns": service.dns,
        "dns_search": service.dns_search,
        "dns_opt": service.dns_opt,
        "healthcheck_test": service.healthcheck.as_ref().and_then(|check| check.test.clone()),
        "replicas": service.replicas,
        "mem_limit": bytes(service.resources.memory),
        "mem_reservation": bytes(service.resources.memory_reservation),
        "memswap_limit": bytes(service.resources.memory_swap),
        "shm_size": bytes(service.resources.shm_size),
        "pids_limit": service.resources.pids,
        "cpus": service.resources.nano_cpus.map(cpus),
        "cpu_shares": service.resources.cpu_shares,
        "cpuset": service.resources.cpuset,
        "oom_score_adj": service.oom_score_adj,
        "runtime": service.runtime,
        "mac_address": service.mac_address,
        "logging": logging,
    })
}

/// As JSON prints a number of CPUs: `1`, `0.5`.
pub(crate) fn cpus(nanos: i64) -> Value {
    if nanos % 1_000_000_000 == 0 {
        json!(nanos / 1_000_000_000)
    } else {
        let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
        serde_json::from_str(text.trim_end_matches('0')).expect("a number")
    }
}

fn network_mode(mode: &NetworkMode) -> String {
    match mode {
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Bridge => "bridge".to_owned(),
        NetworkMode::Service(name) => format!("service:{name}"),
        NetworkMode::Container(name) => format!("container:{name}"),
        NetworkMode::Named(name) => name.clone(),
    }
}

fn restart(policy: RestartPolicy) -> Option<String> {
    match policy {
        RestartPolicy::No => None,
        RestartPolicy::Always => Some("always".to_owned()),
        RestartPolicy::UnlessStopped => Some("unless-stopped".to_owned()),
        RestartPolicy::OnFailure(None) => Some("on-failure".to_owned()),
        RestartPolicy::OnFailure(Some(attempts)) => Some(format!("on-failure:{attempts}")),
    }
}
