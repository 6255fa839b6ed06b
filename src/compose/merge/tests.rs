//! The laws of merging, and what several files, `extends` and `include` make of a project.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::compose::tests::{MemoryFiles, load_files};
use crate::compose::{ComposeError, Location, print};

/// The printed project of these files: the first by itself, the others over it.
fn printed(files: &[&str]) -> Value {
    let loaded = load_files(files, &MemoryFiles::default()).unwrap_or_else(|error| panic!("{error}\n{files:?}"));
    print(&loaded.project)
}

/// What service `a` has at an attribute after `over` was merged over `base`, both attributes of it.
fn merged(base: &str, over: &str) -> Value {
    let file = |attributes: &str| format!("services: {{a: {{image: x, {attributes}}}, b: {{image: y}}}}\n{SECTIONS}");
    printed(&[&file(base), &file(over)])["services"]["a"].clone()
}

const SECTIONS: &str = "networks: {n: , m: }\nvolumes: {v: , w: }\nconfigs: {c: {content: x}, d: {content: y}}\n";

#[test]
fn each_attribute_is_merged_by_its_own_rule() {
    for (base, over, attribute, result) in [
        ("tty: true", "tty: false", "tty", Value::Null),
        ("user: u", "user: ", "user", json!("u")),
        ("command: [a, b]", "command: [c]", "command", json!(["c"])),
        ("command: a", "command: null", "command", Value::Null),
        ("entrypoint: [a]", "entrypoint: []", "entrypoint", json!([])),
        ("environment: {A: 1, B: 2}", "environment: [B=3, C]", "environment", json!({"A": "1", "B": "3", "C": null})),
        ("environment: [A=1, A=2]", "environment: {}", "environment", json!({"A": "2"})),
        ("labels: [a=1]", "labels: {a: 2, b: }", "labels", json!({"a": "2", "b": ""})),
        ("dns: 1.1.1.1", "dns: [2.2.2.2, 1.1.1.1]", "dns", json!(["1.1.1.1", "2.2.2.2"])),
        ("cap_add: [A, B]", "cap_add: [B, C]", "cap_add", json!(["A", "B", "C"])),
        ("networks: [n]", "networks: {m: {priority: 5}}", "networks", json!({"m": {"priority": 5}, "n": null})),
        ("networks: {n: {aliases: [p]}}", "networks: [n]", "networks", json!({"n": {"aliases": ["p"]}})),
        (
            "depends_on: [b]",
            "depends_on: {b: {condition: service_healthy}}",
            "depends_on",
            json!({"b": {"condition": "service_healthy", "required": true}}),
        ),
        (
            "extra_hosts: {h: 1.1.1.1}",
            "extra_hosts: ['h:2.2.2.2', 'h=1.1.1.1']",
            "extra_hosts",
            json!(["h=1.1.1.1", "h=2.2.2.2"]),
        ),
        (
            "healthcheck: {test: [CMD, a], interval: 5s}",
            "healthcheck: {test: b, retries: 3}",
            "healthcheck",
            json!({"test": ["CMD-SHELL", "b"], "interval": "5s", "retries": 3}),
        ),
        (
            "logging: {driver: json-file, options: {a: b}}",
            "logging: {options: {c: d}}",
            "logging",
            json!({"driver": "json-file", "options": {"a": "b", "c": "d"}}),
        ),
        (
            "logging: {driver: json-file, options: {a: b}}",
            "logging: {driver: local, options: {c: d}}",
            "logging",
            json!({"driver": "local", "options": {"c": "d"}}),
        ),
        (
            "ulimits: {nofile: 1, nproc: {soft: 1, hard: 2}}",
            "ulimits: {nproc: 5}",
            "ulimits",
            json!({"nofile": 1, "nproc": 5}),
        ),
        (
            "volumes: ['v:/t', /anon]",
            "volumes: ['w:/t:ro']",
            "volumes",
            json!([
                {"type": "volume", "source": "w", "target": "/t", "read_only": true, "volume": {}},
                {"type": "volume", "target": "/anon", "volume": {}},
            ]),
        ),
        ("configs: [c]", "configs: [{source: d, target: /c}]", "configs", json!([{"source": "d", "target": "/c"}])),
        (
            "build: ctx",
            "build: {target: t}",
            "build",
            json!({
                "context": "/opt/tenants/acme/ctx", "dockerfile": "Dockerfile", "target": "t",
            }),
        ),
        ("ports: ['80:80']", "ports: !reset []", "ports", Value::Null),
        ("environment: {A: 1, B: 2}", "environment: {A: !reset null}", "environment", json!({"B": "2"})),
        ("environment: {A: 1}", "environment: !override {B: 2}", "environment", json!({"B": "2"})),
        ("networks: {n: {aliases: [q]}}", "networks: !override [m]", "networks", json!({"m": null})),
    ] {
        assert_eq!(merged(base, over)[attribute], result, "{base} / {over}");
    }
}

#[test]
fn what_cannot_be_merged_is_refused_where_it_stands() {
    let base = "services: {a: {image: x, ports: ['80:80'], deploy: {replicas: 1}}}\n";
    for (over, field, line, column) in [
        ("services:\n  a:\n    ports: x\n", "services.a.ports", 3, 12),
        ("services:\n  a:\n    deploy: [x]\n", "services.a.deploy", 3, 13),
        ("services: []\n", "services", 1, 11),
    ] {
        let error = load_files(&[base, over], &MemoryFiles::default()).expect_err(over);
        assert_eq!((error.file.as_str(), error.field.as_str()), ("1.yaml", field), "{error}");
        assert_eq!(error.location, Some(Location { line, column }), "{error}");
    }
}

#[test]
fn top_level_sections_are_merged_too() {
    let base = "x-a: {b: 1}\nservices: {a: {image: x, networks: [n], volumes: ['v:/v']}}\nvolumes: {v: {driver: local}}\n\
                networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.0.0.1}]}, labels: [a=b]}}\n";
    let over = "x-a: {c: 2}\nvolumes: {v: {driver_opts: {a: b}}}\n\
                networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.0.0.2}, {subnet: 10.1.0.0/24}]}, \
                labels: {a: c}}}\n";
    let project = printed(&[base, over]);
    assert_eq!(project["x-a"], json!({"c": 2}));
    assert_eq!(project["volumes"]["v"], json!({"name": "q8-acme_v", "driver": "local", "driver_opts": {"a": "b"}}));
    assert_eq!(project["networks"]["n"]["labels"], json!({"a": "c"}));
    assert_eq!(
        project["networks"]["n"]["ipam"]["config"],
        json!([{"subnet": "10.0.0.0/24", "gateway": "10.0.0.2"}, {"subnet": "10.1.0.0/24"}])
    );
}

/// With files by path below the project directory.
fn with_files(text: &str, files: &[(&str, &str)]) -> Result<Value, ComposeError> {
    load_files(&[text], &MemoryFiles::of(files)).map(|loaded| print(&loaded.project))
}

#[test]
fn a_service_extends_others_near_and_far() {
    let text = "
services:
  base: {image: x, environment: {A: 1}, command: [a], networks: [n]}
  near: {extends: base, environment: {B: 2}, command: null}
  far:
    extends: {file: lib/common.yaml, service: app}
    volumes: [./own:/own]
    ports: !reset []
networks: {n: }
";
    let common = "
services:
  app: {extends: deeper, volumes: ['./rel:/rel'], env_file: app.env, ports: ['80:80']}
  deeper: {image: '${IMAGE:-deep}', build: ./ctx, cap_add: [K]}
";
    let project = with_files(text, &[("lib/common.yaml", common), ("lib/app.env", "K=v\n")]).expect("valid");
    let near = &project["services"]["near"];
    assert_eq!((&near["image"], &near["command"]), (&json!("x"), &Value::Null));
    assert_eq!(near["environment"], json!({"A": "1", "B": "2"}));
    let far = &project["services"]["far"];
    assert_eq!((&far["image"], &far["environment"], &far["ports"]), (&json!("deep"), &json!({"K": "v"}), &Value::Null));
    assert_eq!(far["build"]["context"], "/opt/tenants/acme/lib/ctx");
    let sources: Vec<&Value> = far["volumes"].as_array().expect("two").iter().map(|volume| &volume["source"]).collect();
    assert_eq!(sources, ["/opt/tenants/acme/lib/rel", "/opt/tenants/acme/own"]);
}

#[test]
fn includes_bring_their_directory_and_their_variables() {
    let text = "include:\n  - inc/compose.yaml\n  - {path: [two.yaml, over.yaml], project_directory: pd, env_file: two.env}\n\
                services: {a: {image: x, depends_on: [i]}}\n";
    let files = [
        ("inc/compose.yaml", "services: {i: {image: '${IMG}', volumes: ['./d:/d', 'iv:/v']}}\nvolumes: {iv: }\n"),
        ("inc/.env", "IMG=from-inc\n"),
        ("two.yaml", "services: {j: {image: '${IMG}', volumes: ['./d:/d']}}\n"),
        ("over.yaml", "services: {j: {environment: [IMG]}}\n"),
        ("two.env", "IMG=from-two\n"),
    ];
    let project = with_files(text, &files).expect("valid");
    let (i, j) = (&project["services"]["i"], &project["services"]["j"]);
    assert_eq!((&i["image"], &j["image"]), (&json!("from-inc"), &json!("from-two")));
    assert_eq!(j["environment"], json!({"IMG": "from-two"}));
    assert_eq!(i["volumes"][0]["source"], "/opt/tenants/acme/inc/d");
    assert_eq!(j["volumes"][0]["source"], "/opt/tenants/acme/pd/d");
    assert_eq!(project["volumes"]["iv"]["name"], "q8-acme_iv");
}

#[test]
fn extends_and_include_say_what_is_wrong_and_in_which_file() {
    let main = "services:\n  a: {extends: {file: l.yaml, service: b}}\n";
    let include = "include: [l.yaml]\nservices: {a: {image: x}}\n";
    for (text, file, message) in [
        (
            main,
            "services: {c: {image: x}}",
            "compose.yaml:2:7: services.a.extends: names a service that does not exist there",
        ),
        (main, "volumes: {}", "compose.yaml:2:23: services.a.extends.file: the file has no services"),
        (main, "services: {b: {imag: x}}", "l.yaml:1:16: services.a.imag: is not an attribute"),
        (main, "services: {b: {image: '${X!}'}}", "l.yaml:1:23: services.b.image: this `$` begins no valid"),
        (include, "services: {a: {image: y}}", "compose.yaml:1:11: include[0]: `services.a` is in this file too"),
        (include, "servces: {}", "l.yaml:1:1: servces: is not an attribute"),
        (include, "services: {b: {image: [x]}}", "l.yaml:1:16: services.b.image: must be a string"),
        (
            include,
            "include: [compose.yaml]",
            "l.yaml:1:11: include[0]: files include each other: l.yaml -> compose.yaml",
        ),
        (include, "include: [l.yaml]", "files include each other: l.yaml -> l.yaml"),
        (
            "include: ['https://example.com/x.yaml']\nservices: {a: {image: x}}",
            "",
            "compose.yaml:1:11: include[0]: must be a file of the project",
        ),
        ("include: {a: b}\nservices: {a: {image: x}}", "", "include: must be a list of files"),
        ("include: [{pth: b}]\nservices: {a: {image: x}}", "", "include[0].pth: is not an attribute"),
        ("services: {a: {extends: {service: b, fil: c}}, b: {image: x}}", "", "did you mean `file`?"),
        ("services: {a: {extends: a}}", "", "services extend each other: a -> a"),
    ] {
        let error = with_files(text, &[("l.yaml", file)]).expect_err(text).to_string();
        assert!(error.contains(message), "{error}\n{message}");
    }
}

/// One attribute of a service, as it may stand in a file.
fn attribute() -> impl Strategy<Value = String> {
    let word = "[a-c]";
    let words = || proptest::collection::vec(word, 0..4).prop_map(|words| words.join(", "));
    let pairs = || {
        proptest::collection::btree_map(word, "[0-9]", 0..4).prop_map(|map| {
            map.into_iter().map(|(key, value)| format!("{key}: '{value}'")).collect::<Vec<_>>().join(", ")
        })
    };
    prop_oneof![
        word.prop_map(|word| format!("hostname: {word}")),
        words().prop_map(|words| format!("command: [{words}]")),
        words().prop_map(|words| format!("cap_add: [{words}]")),
        words().prop_map(|words| format!("dns_search: [{words}]")),
        pairs().prop_map(|pairs| format!("environment: {{{pairs}}}")),
        pairs().prop_map(|pairs| format!("labels: {{{pairs}}}")),
        words().prop_map(|words| format!("environment: [{words}]")),
        proptest::collection::vec(1_u16..4, 0..3)
            .prop_map(|ports| format!("ports: {:?}", ports.iter().map(|p| format!("80{p}:{p}")).collect::<Vec<_>>())),
        proptest::collection::vec("[a-c]", 0..3)
            .prop_map(|names| format!("tmpfs: {:?}", names.iter().map(|name| format!("/{name}")).collect::<Vec<_>>())),
        ("[nm]", word).prop_map(|(network, alias)| format!("networks: {{{network}: {{aliases: [{alias}]}}}}")),
        "[nm]".prop_map(|network| format!("networks: [{network}]")),
        (1_u8..9).prop_map(|seconds| format!("healthcheck: {{interval: {seconds}s}}")),
        word.prop_map(|word| format!("healthcheck: {{test: [CMD, {word}]}}")),
        word.prop_map(|word| format!("extra_hosts: ['{word}:1.1.1.1']")),
    ]
}

/// Attributes of a service, each once.
fn attributes() -> impl Strategy<Value = String> {
    proptest::collection::vec(attribute(), 0..5).prop_map(|attributes| {
        let mut seen = std::collections::BTreeSet::new();
        let key = |text: &String| text.split(':').next().unwrap_or_default().to_owned();
        let attributes = attributes.into_iter().filter(|text| seen.insert(key(text)));
        attributes.map(|text| format!("    {text}\n")).collect()
    })
}

/// A file with the service `a` and maybe `b`.
fn file() -> impl Strategy<Value = String> {
    (attributes(), proptest::option::of(attributes())).prop_map(|(a, b)| {
        let b = b.map(|b| format!("  b:\n    image: y\n{b}")).unwrap_or_default();
        format!("services:\n  a:\n    image: x\n{a}{b}networks: {{n: , m: }}\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A file over itself, or under one that says nothing, means what it means alone.
    #[test]
    fn nothing_new_changes_nothing(file in file()) {
        let alone = printed(&[&file]);
        prop_assert_eq!(&printed(&[&file, &file]), &alone);
        prop_assert_eq!(&printed(&[&file, "services: {}\n"]), &alone);
        prop_assert_eq!(&printed(&["services: {}\n", &file]), &alone);
    }

    /// Three files in a row are the third over the first two, wherever the pair was put together: in two steps, or
    /// as documents of one file.
    #[test]
    fn merging_is_associative(a in file(), b in file(), c in file()) {
        let flat = printed(&[&a, &b, &c]);
        prop_assert_eq!(&printed(&[&format!("{a}---\n{b}"), &c]), &flat);
        prop_assert_eq!(&printed(&[&a, &format!("{b}---\n{c}")]), &flat);
    }

    /// What a file overrides, it says alone; what it resets is gone.
    #[test]
    fn override_and_reset_are_final(base in file(), word in "[a-z]{1,4}") {
        let over = format!("services: {{a: {{labels: !override {{only: '{word}'}}, environment: !reset null}}}}\n");
        let project = printed(&[&base, &over]);
        prop_assert_eq!(&project["services"]["a"]["labels"], &json!({ "only": word }));
        prop_assert_eq!(&project["services"]["a"]["environment"], &Value::Null);
    }

    /// A service that adds nothing to the one it extends means the same.
    #[test]
    fn extending_without_a_word_is_the_same_again(base in file()) {
        let project = printed(&[&format!("{base}---\nservices: {{z: {{extends: q}}, q: {{extends: r}}, r: {{image: x}}}}\n")]);
        prop_assert_eq!(&project["services"]["z"], &project["services"]["r"]);
        let text = base.replace("services:\n", "services:\n  e: {extends: a}\n");
        let project = printed(&[&text]);
        prop_assert_eq!(&project["services"]["e"], &project["services"]["a"]);
    }
}
