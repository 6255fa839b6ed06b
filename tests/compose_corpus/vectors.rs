//! Single values: one attribute of one service, or one env file, against docker compose's answer.

use q8_agent::compose::{Project, read_env};
use q8_agent::domain::ProjectName;
use serde_json::{Value, json};

use super::{Case, printed, read_json, read_text, single};

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

/// What is printed at a path of service `a`.
fn seen(project: &Project, path: &str) -> Value {
    let service = printed(project)["services"]["a"].clone();
    let steps = path.split('.').map(|step| step.parse::<usize>().map_or_else(|_| json!(step), |at| json!(at)));
    steps.fold(service, |value, step| match step.as_u64() {
        Some(at) => value[usize::try_from(at).expect("a small index")].clone(),
        None => value[step.as_str().expect("a name")].clone(),
    })
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
    vector.get("error").or_else(|| vector.get("error_contains")).is_none().then(|| single(&vector["expected"]))
}

#[test]
fn interpolation() {
    run("interpolation.json", &[], |vector| {
        let answer = load("labels.t", &vector["template"], &vector["env"]);
        if let (Some(part), Err(error)) = (vector["error_contains"].as_str(), &answer) {
            // "invalid" is the reference's word for a malformed variable.
            assert!(part == "invalid" || error.contains(part), "{vector}: {error}");
        }
        let answer = answer.map(|project| seen(&project, "labels.t"));
        // Given as the value that it is, not as it is printed.
        (vector["template"].clone(), answer, expected(vector).map(|_| vector["expected"].clone()))
    });
}

#[test]
fn variables_are_cast_to_the_type_of_their_field() {
    let exceptions = [
        // A negative number of replicas is refused, as newer versions do.
        (json!(["services.a.scale", { "N": "-1" }]), None),
        // As newer versions read it: -1 is a number first.
        (json!(["services.a.shm_size", { "M": "-1" }]), Some(json!("-1"))),
        // A container has no port 0.
        (json!(["services.a.ports.0.target", { "P": "0" }]), None),
    ];
    run("interpolation_typecast.json", &exceptions, |vector| {
        let path = vector["path"].as_str().expect("a path");
        let inner = path.strip_prefix("services.a.").expect("a service's path");
        let answer = load_at(path, &vector["value"], &vector["env"]).map(|project| seen(&project, inner));
        (json!([path, vector["env"]]), answer, expected(vector))
    });
}

#[test]
fn durations() {
    // divergences.json: d and w are read, as newer versions do.
    let exceptions = [(json!("1d"), Some(json!("24h0m0s"))), (json!("1d12h"), Some(json!("36h0m0s")))];
    run("durations.json", &exceptions, |vector| {
        let answer = load("stop_grace_period", &vector["input"], &Value::Null);
        let answer = answer.map(|project| seen(&project, "stop_grace_period"));
        (vector["input"].clone(), answer, expected(vector))
    });
}

#[test]
fn sizes() {
    // divergences.json: a fraction of a byte is refused instead of being dropped in silence.
    run("bytes.json", &[(json!(1.5), None)], |vector| {
        let answer = load("mem_limit", &vector["input"], &Value::Null);
        let answer = answer.map(|project| seen(&project, "mem_limit"));
        (vector["input"].clone(), answer, expected(vector))
    });
}

#[test]
fn cpus() {
    for attribute in ["cpus", "deploy.resources.limits.cpus"] {
        run("cpus.json", &[], |vector| {
            let answer = load(attribute, &vector["input"], &Value::Null);
            let answer = answer.map(|project| seen(&project, attribute));
            let expected = &vector[attribute];
            (vector["input"].clone(), answer, expected.get("error").is_none().then(|| expected.clone()))
        });
    }
}

#[test]
fn commands() {
    run("command_split.json", &[], |vector| {
        let answer = load("command", &vector["input"], &Value::Null);
        (vector["input"].clone(), answer.map(|project| seen(&project, "command")), expected(vector))
    });
}

#[test]
fn exposed_ports() {
    // Whatever is written loads; the policy refuses what is no port.
    run("expose.json", &[], |vector| {
        let answer = load("expose", &json!([vector["input"]]), &Value::Null);
        let answer = answer.map(|project| seen(&project, "expose"));
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
        let answer = answer.map(|project| seen(&project, "ports"));
        (vector.get("input").cloned().unwrap_or(list), answer, expected(vector))
    });
}

#[test]
fn mounts() {
    // divergences.json: a target that is not absolute is refused; so are types that no Linux container has.
    let exceptions = [
        (json!("ab"), None),
        (json!({ "type": "npipe", "source": r"\\.\pipe\x", "target": r"\\.\pipe\x" }), None),
        (json!({ "type": "bogus", "source": "x", "target": "/t" }), None),
        // Newer than the version that gave the answers.
        (
            json!({ "type": "cluster", "source": "name", "target": "/t" }),
            Some(json!([{ "type": "cluster", "source": "name", "target": "/t" }])),
        ),
        (
            json!({ "type": "image", "source": "alpine", "target": "/t" }),
            Some(json!([{ "type": "image", "source": "alpine", "target": "/t" }])),
        ),
        // `~` stays as written: there is no home directory here, and the policy refuses it.
        (
            json!("~:/h"),
            Some(json!([{ "type": "bind", "source": "~", "target": "/h", "bind": { "create_host_path": true } }])),
        ),
    ];
    run("volumes.json", &exceptions, |vector| {
        let list = vector.get("input_list").cloned().unwrap_or_else(|| json!([vector["input"]]));
        let answer = load("volumes", &list, &Value::Null).map(|project| seen(&project, "volumes"));
        (vector.get("input").cloned().unwrap_or(list), answer, expected(vector))
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
        let answer = read_env(".env", vector["content"].as_str().expect("text"));
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
