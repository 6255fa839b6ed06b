//! Single values: one attribute of one service, or one env file, against docker compose's answer.

use q8_agent::compose::{Project, Service, read_env};
use q8_agent::domain::{ProjectName, ServiceName};
use serde_json::{Value, json};

use super::{Case, read_json, read_text, view};

/// Loads a project whose service `a` has this attribute beside its image.
fn load(attribute: &str, value: &Value, variables: &Value) -> Result<Project, String> {
    load_at(&format!("services.a.{attribute}"), value, variables)
}

/// Loads a project with a value at a dotted path; what stands around it is made valid.
fn load_at(path: &str, value: &Value, variables: &Value) -> Result<Project, String> {
    let mut document = json!({ "services": { "a": { "image": "x" } }, "volumes": { "name": {}, "Name_1.x-y": {} } });
    let mut at = &mut document;
    for step in path.split('.') {
        at = match step.parse::<usize>() {
            Ok(_) if at.is_null() => {
                *at = json!([{}]);
                &mut at[0]
            }
            _ => &mut at[step],
        };
    }
    *at = value.clone();
    if path.starts_with("services.a.volumes.0.") {
        document["services"]["a"]["volumes"][0]["type"] = json!("volume");
        document["services"]["a"]["volumes"][0]["target"] = json!("/t");
    }
    // JSON is YAML: a string is quoted, a number is plain.
    let text = document.to_string();
    Case::new(&text).variables(variables).load().map(|loaded| loaded.project).map_err(|error| error.to_string())
}

fn service(project: &Project) -> &Service {
    &project.services[&ServiceName::parse("a").expect("a name")]
}

/// Runs the vectors of one file. `exceptions` are inputs that are answered otherwise on purpose: refused where docker
/// compose accepts (`None`) or accepted with another result; each was checked by hand to be the better answer.
fn run(
    file: &str,
    exceptions: &[(Value, Option<Value>)],
    check: impl Fn(&Value) -> (Value, Result<Value, String>, Option<Value>),
) {
    let mut failures = Vec::new();
    let mut used = 0;
    for vector in read_json(&format!("vectors/{file}")) {
        let (input, answer, expected) = check(&vector);
        let wanted = match exceptions.iter().find(|(exception, _)| *exception == input) {
            Some((_, wanted)) => {
                used += 1;
                wanted.clone()
            }
            None => expected,
        };
        match (answer, wanted) {
            (Ok(answer), Some(wanted)) if answer == wanted => {}
            (Err(_), None) => {}
            (answer, wanted) => failures.push(format!("{input}: {answer:?}, wanted {wanted:?}")),
        }
    }
    assert!(failures.is_empty(), "{file}:\n{}", failures.join("\n"));
    assert_eq!(used, exceptions.len(), "{file}: an exception has no vector");
}

/// The expected value of a vector; none when it is an error.
fn expected(vector: &Value) -> Option<Value> {
    vector.get("error").or_else(|| vector.get("error_contains")).is_none().then(|| vector["expected"].clone())
}

#[test]
fn interpolation() {
    run("interpolation.json", &[], |vector| {
        let answer = load("labels.t", &vector["template"], &vector["env"]);
        if let (Some(part), Err(error)) = (vector["error_contains"].as_str(), &answer) {
            // "invalid" is the reference's word for a malformed variable.
            assert!(part == "invalid" || error.contains(part), "{vector}: {error}");
        }
        let answer = answer.map(|project| json!(service(&project).labels["t"]));
        (vector["template"].clone(), answer, expected(vector))
    });
}

#[test]
fn variables_are_cast_to_the_type_of_their_field() {
    let exceptions = [
        // A negative number of replicas is refused, as newer versions do.
        (json!(["services.a.scale", { "N": "-1" }]), None),
        // As newer versions read it: -1 is a number first.
        (json!(["services.a.shm_size", { "M": "-1" }]), Some(json!("-1"))),
    ];
    run("interpolation_typecast.json", &exceptions, |vector| {
        let path = vector["path"].as_str().expect("a path");
        let answer = load_at(path, &vector["value"], &vector["env"]).map(|project| seen(service(&project), path));
        let refused = match &answer {
            // A port 0 and "no process limit" are printed as nothing there.
            Err(_) if path.ends_with("target") && vector["expected"].is_null() => None,
            _ => expected(vector),
        };
        (json!([path, vector["env"]]), answer, refused)
    });
}

/// What the model holds at a path, as docker compose prints it.
fn seen(service: &Service, path: &str) -> Value {
    let check = service.healthcheck.as_ref();
    let bytes = |value: Option<i64>| json!(value.map(|value| value.to_string()));
    match path.strip_prefix("services.a.").expect("a service's path") {
        "ports.0.target" => json!(service.ports[0].target),
        "healthcheck.retries" => json!(check.and_then(|check| check.retries)),
        "privileged" => json!(service.privileged),
        "read_only" => json!(service.read_only),
        "init" => json!(service.init),
        "tty" => json!(service.tty),
        "scale" | "deploy.replicas" => json!(service.replicas),
        "mem_limit" | "deploy.resources.limits.memory" => bytes(service.resources.memory),
        "shm_size" => bytes(service.resources.shm_size),
        "mem_swappiness" => bytes(service.resources.memory_swappiness),
        "cpus" | "deploy.resources.limits.cpus" => json!(service.resources.nano_cpus.map(view::cpus)),
        "pids_limit" => json!(service.resources.pids),
        "oom_score_adj" => json!(service.oom_score_adj),
        "stop_grace_period" => json!(service.stop_grace_period.map(go_duration)),
        "ulimits.nofile" => match service.ulimits["nofile"].soft {
            0 => json!({}),
            limit => json!(limit),
        },
        "volumes.0.read_only" => json!(service.mounts[0].read_only),
        other => panic!("no view of {other}"),
    }
}

/// As Go prints a duration.
fn go_duration(duration: std::time::Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |value: u128, scale: u128, unit: &str| {
        let text = format!("{}.{:0width$}", value / scale, value % scale, width = scale.ilog10() as usize);
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanos, 1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[test]
fn durations() {
    // divergences.json: d and w are read, as newer versions do.
    let exceptions = [(json!("1d"), Some(json!("24h0m0s"))), (json!("1d12h"), Some(json!("36h0m0s")))];
    run("durations.json", &exceptions, |vector| {
        let answer = load("stop_grace_period", &vector["input"], &Value::Null);
        let answer = answer.map(|project| json!(service(&project).stop_grace_period.map(go_duration)));
        (vector["input"].clone(), answer, expected(vector))
    });
}

#[test]
fn sizes() {
    // divergences.json: a fraction of a byte is refused instead of being dropped in silence.
    run("bytes.json", &[(json!(1.5), None)], |vector| {
        let answer = load("mem_limit", &vector["input"], &Value::Null);
        let answer = answer.map(|project| json!(service(&project).resources.memory.map(|bytes| bytes.to_string())));
        (vector["input"].clone(), answer, expected(vector))
    });
}

#[test]
fn cpus() {
    for attribute in ["cpus", "deploy.resources.limits.cpus"] {
        run("cpus.json", &[], |vector| {
            let answer = load(attribute, &vector["input"], &Value::Null);
            let answer = answer.map(|project| json!(service(&project).resources.nano_cpus.map(view::cpus)));
            let expected = &vector[attribute];
            (vector["input"].clone(), answer, expected.get("error").is_none().then(|| expected.clone()))
        });
    }
}

#[test]
fn commands() {
    run("command_split.json", &[], |vector| {
        let answer = load("command", &vector["input"], &Value::Null);
        (vector["input"].clone(), answer.map(|project| json!(service(&project).command)), expected(vector))
    });
}

#[test]
fn exposed_ports() {
    // docker compose keeps whatever is written and lets the engine refuse it.
    let exceptions = ["x", "80:80", "", "0", "70000", "9000-8000"].map(|input| (json!(input), None));
    run("expose.json", &exceptions, |vector| {
        let answer = load("expose", &json!([vector["input"]]), &Value::Null);
        let answer = answer.map(|project| {
            let ports = &service(&project).expose;
            let (first, last) = (ports[0], ports[ports.len() - 1]);
            let range = if first == last { first.port.to_string() } else { format!("{}-{}", first.port, last.port) };
            let protocol = if first.protocol.as_str() == "tcp" { "" } else { "/udp" };
            json!([format!("{range}{protocol}")])
        });
        (vector["input"].clone(), answer, expected(vector))
    });
}

#[test]
fn published_ports() {
    // divergences.json: refused here, where docker compose leaves it to the engine.
    let exceptions = [
        (json!({ "target": 80, "host_ip": "nope", "published": "8080" }), None),
        (json!({ "target": 80, "protocol": "icmp" }), None),
        (json!({ "target": 80, "mode": "bogus" }), None),
    ];
    run("ports.json", &exceptions, |vector| {
        let list = vector.get("input_list").cloned().unwrap_or_else(|| json!([vector["input"]]));
        let answer = load("ports", &list, &Value::Null);
        let answer = answer.map(|project| service(&project).ports.iter().map(view::port).collect::<Value>());
        let expected = expected(vector).map(|expected| view::cut_ports(&expected));
        (vector.get("input").cloned().unwrap_or(list), answer, expected)
    });
}

#[test]
fn mounts() {
    // divergences.json: a target that is not absolute is refused; so are types that no Linux container has.
    let exceptions = [
        (json!("ab"), None),
        (json!({ "type": "npipe", "source": r"\\.\pipe\x", "target": r"\\.\pipe\x" }), None),
        (json!({ "type": "bogus", "source": "x", "target": "/t" }), None),
        (json!({ "type": "cluster", "source": "name", "target": "/t" }), None),
        (json!({ "type": "image", "source": "alpine", "target": "/t" }), None),
        // `~` stays as written: there is no home directory here, and the policy refuses it.
        (
            json!("~:/h"),
            Some(view::cut_volumes(&json!([
                { "type": "bind", "source": "~", "target": "/h", "bind": { "create_host_path": true } }
            ]))),
        ),
    ];
    run("volumes.json", &exceptions, |vector| {
        let list = vector.get("input_list").cloned().unwrap_or_else(|| json!([vector["input"]]));
        let answer = load("volumes", &list, &Value::Null).map(|project| view::volumes(service(&project)));
        let expected = expected(vector).map(|expected| view::cut_volumes(&expected));
        (vector.get("input").cloned().unwrap_or(list), answer, expected)
    });
}

#[test]
fn env_files() {
    let bare: Value = json!({});
    let exceptions = [
        // docker compose makes a variable without a name of these; a bare name takes its value from outside instead.
        (json!("A"), Some(bare)),
        (json!("A = \"x\" y"), None),
        (json!("=1"), None),
    ];
    run("dotenv.json", &exceptions, |vector| {
        let answer = read_env(vector["content"].as_str().expect("text"));
        (
            vector["content"].clone(),
            answer.map(|variables| json!(variables)).map_err(|error| error.to_string()),
            expected(vector),
        )
    });
}

#[test]
fn project_names() {
    for vector in read_json("vectors/project_name.json") {
        let input = vector["input"].as_str().expect("text");
        assert_eq!(ProjectName::parse(input).is_ok(), vector["p_flag"].is_string(), "{input}");
        // `name:` never renames a project here: it is its name, or an error.
        let text = json!({ "name": input, "services": { "a": { "image": "x" } } }).to_string();
        assert_eq!(Case::new(&text).load().expect_err(input).field, "name");
    }
}

/// The vectors that divergences.json names are answered as it wants.
#[test]
fn divergences() {
    let named = read_text("divergences.json");
    for (attribute, value, accepted) in [
        ("stop_grace_period", json!("1w"), true),
        ("mem_limit", json!("-1"), true),
        ("mem_limit", json!("9223372036854775807"), true),
        ("volumes", json!([r"C:\x:/t"]), false),
        ("volumes", json!(["name:target"]), false),
        ("volumes", json!(["."]), false),
        ("volumes", json!(["a"]), false),
        ("volumes", json!(["/tmp:/tmp/${TIME:-12:30:45}/path"]), false),
        ("command", json!("echo a && b"), false),
        ("init", json!("${B}"), false),
    ] {
        let known = value.as_str().or_else(|| value[0].as_str()).expect("text");
        let quoted = json!(known).to_string();
        assert!(known == "${B}" || named.contains(&quoted), "{quoted} is not in divergences.json");
        let answer = load(attribute, &value, &json!({ "B": "1" }));
        assert_eq!(answer.is_ok(), accepted, "{value}: {answer:?}");
    }
}
