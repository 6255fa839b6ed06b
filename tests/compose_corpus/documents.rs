//! Whole documents: what docker compose accepts loads and means the same, what it refuses is refused.

use std::collections::BTreeMap;

use q8_agent::compose::read_env;
use serde_json::Value;

use super::{Case, DIRECTORY, corpus, printed, read_json, read_text, single, strings};

/// Documents that mean something else here on purpose.
const DIFFERENT: &[&str] = &[
    // docker compose takes a volume of one letter for a Windows drive.
    "013-external-name.yaml",
];

pub(super) fn case<'a>(text: &'a str, entry: &Value) -> Case<'a> {
    let mut case = Case::new(text);
    if let Some(env) = entry["files"][".env"].as_str() {
        case.variables.extend(read_env(".env", env).expect("a valid env file"));
    }
    case.files =
        strings(&entry["files"]).map(|(path, text)| (format!("{DIRECTORY}/{path}"), text)).collect::<BTreeMap<_, _>>();
    let arguments: Vec<&str> = entry["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    case.profiles = arguments.windows(2).filter(|pair| pair[0] == "--profile").map(|pair| pair[1].to_owned()).collect();
    case.over = arguments.windows(2).filter(|pair| pair[0] == "-f").map(|pair| over(entry, pair[1])).collect();
    case.variables(&entry["env"])
}

/// A file of the entry that is merged over the document.
fn over(entry: &Value, name: &str) -> (String, String) {
    (name.to_owned(), entry["files"][name].as_str().expect("a file of the entry").to_owned())
}

#[test]
fn valid_documents_load_and_mean_what_docker_compose_says() {
    let mut compared = 0;
    for entry in read_json("valid/index.json") {
        let file = entry["file"].as_str().expect("a file name");
        let text = read_text(&format!("valid/{file}"));
        let mut case = case(&text, &entry);
        if file == "003-name-toplevel.yaml" {
            assert_eq!(case.load().expect_err("not our project").field, "name");
            case.project = "shop";
        }
        let loaded = case.load().unwrap_or_else(|error| panic!("{file}: {error}"));
        let expected = format!("valid/{}.expected.json", file.trim_end_matches(".yaml"));
        if DIFFERENT.contains(&file) || !corpus(&expected).exists() {
            continue;
        }
        compare(file, &loaded.project, &read_text(&expected));
        compared += 1;
    }
    assert!(compared >= 27, "only {compared} documents were compared");
}

fn compare(file: &str, project: &q8_agent::compose::Project, expected: &str) {
    let theirs = single(&serde_json::from_str(expected).expect("JSON"));
    assert_eq!(printed(project), theirs, "{file}");
}

#[test]
fn tenant_stacks_load_and_mean_what_docker_compose_says() {
    let variables: Value = serde_json::from_str(&read_text("stacks/env.json")).expect("JSON");
    let mut count = 0;
    for entry in std::fs::read_dir(corpus("stacks")).expect("the stacks") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        let Some(stem) = name.strip_suffix(".yaml") else { continue };
        let text = read_text(&format!("stacks/{name}"));
        let mut case = Case::new(&text).variables(&variables);
        let files = [
            ("db.env", "MYSQL_DATABASE=nc\nMYSQL_USER=nc\nMYSQL_PASSWORD=ncpw\nREDIS_HOST_PASSWORD=r\n"),
            ("secrets/db_password.txt", "p"),
        ];
        case.files = files.map(|(path, text)| (format!("{DIRECTORY}/{path}"), text.to_owned())).into();
        let project = case.load().unwrap_or_else(|error| panic!("{name}: {error}")).project;
        let expected = read_text(&format!("stacks/{stem}.expected.json"));
        compare(&name, &project, &expected);
        count += 1;
    }
    assert_eq!(count, 5);
}

#[test]
fn invalid_documents_are_refused_with_a_place() {
    for entry in read_json("invalid/index.json") {
        let file = entry["file"].as_str().expect("a file name");
        let text = read_text(&format!("invalid/{file}"));
        let error = case(&text, &entry).load().map(|_| ()).expect_err(file);
        assert!(error.location.is_some(), "{file}: {error}");
        assert!(!error.reason.is_empty(), "{file}");
    }
}

/// The reasons that matter to their authors, one per kind of mistake.
#[test]
fn invalid_documents_are_refused_for_the_right_reason() {
    for (file, text) in [
        ("001-not-yaml", "compose.yaml:2:1: this is not YAML"),
        ("003-top-not-mapping", "compose.yaml:1:1: a Compose file is a mapping"),
        (
            "007-unknown-service-key",
            "services.a.imagee: is not an attribute of the Compose Specification here; did you mean `image`?",
        ),
        ("008-no-image", "services.a: has neither `image` nor `build`"),
        ("009-image-type", "services.a.image: must be a string, but it is a list"),
        ("016-undefined-config", "services.a.configs[0]: is not under the top-level `configs`"),
        ("020-self-depends", "services.a.depends_on.a: services wait for each other: a -> a"),
        ("021-network-mode-and-networks", "services.a.network_mode: cannot be used together with `networks`"),
        ("025-bad-interpolation2", "services.a.image: this `$` begins no valid variable"),
        ("026-cast-failure", "services.a.ports[0].target: must be a whole number"),
        ("029-bytes-bad", "services.a.mem_limit: must be a number of bytes"),
        ("033-extends-missing-service", "services.a.extends: names a service that does not exist there"),
        ("034-extends-missing-file", "services.a.extends.file: there is no such file"),
        ("035-extends-cycle", "services.a.extends: services extend each other: a -> b -> a"),
        ("036-include-missing", "include[0]: there is no such file"),
        ("037-include-conflict", "include[0]: `services.a` is in this file too"),
        ("053-include-cycle", "i.yaml:1:11: include[0]: files include each other"),
        ("038-scale-vs-replicas", "services.a.scale: says something else than `deploy.replicas`"),
        ("045-duplicate-key", "compose.yaml:3:3: `a`: the key is already there at line 2"),
        ("046-unknown-alias", "compose.yaml:1:15: this alias names an anchor"),
        ("050-network-mode-service-missing", "services.a.network_mode: names a service that does not exist"),
        ("052-depends-disabled-profile", "services.a.depends_on[0]: service `b` is disabled"),
        ("058-host-ip-long-bad", "services.a.ports[0].host_ip: the host address must be an IP address"),
        ("060-negative-scale", "services.a.scale: must be a whole number from 0"),
    ] {
        let index = read_json("invalid/index.json");
        let entry = index.iter().find(|entry| entry["file"] == format!("{file}.yaml")).expect(file);
        let document = read_text(&format!("invalid/{file}.yaml"));
        let error = case(&document, entry).load().map(|_| ()).expect_err(file).to_string();
        assert!(error.contains(text), "{file}: {error}");
    }
}

/// They load, so that the policy gets to refuse them with its own reason.
#[test]
fn documents_for_the_policy_load() {
    for entry in read_json("policy/index.json") {
        let file = entry["file"].as_str().expect("a file name");
        let text = read_text(&format!("policy/{file}"));
        case(&text, &entry).load().unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}
