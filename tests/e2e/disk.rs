//! The tenants root after each step of a tenant's life: exactly these files, with these modes and owners.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::json;

use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::eventually;
use crate::tenant::{PATIENCE, Tenant, UNDECIDED};

const STACK: &str = r#"
services:
  app:
    image: q8test/busybox:1
    stop_signal: SIGKILL
    user: "1000:65534"
    volumes: ["./site:/site:ro", "./data/app:/state"]
    configs: [{source: app, uid: "1000", mode: 0440}]
    secrets: [password]
    command: [sh, -c, "echo kept >/state/file; exec sleep 3600"]
configs: {app: {content: "level=${LEVEL}"}}
secrets: {password: {file: ./password.txt}}
"#;

/// Path below the root -> mode, owner and group; a directory ends with `/`. Hashes are written as `*`.
type Tree = BTreeMap<String, String>;

fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    collect(root, root, &mut found);
    found
}

fn collect(root: &Path, directory: &Path, found: &mut Tree) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let stat = std::fs::symlink_metadata(&path).expect("it is there");
        let relative = path.strip_prefix(root).expect("it is below the root");
        let mut name = relative.to_str().expect("names are text").to_owned();
        if directory.ends_with(".agent/mounts") {
            let (parent, file) = name.rsplit_once('/').expect("it is in a directory");
            assert!(file.len() == 32 && file.bytes().all(|c| c.is_ascii_hexdigit()), "{name}");
            // Two of them differ in owner and mode.
            name = format!("{parent}/* {:o}", stat.mode() & 0o7777);
        }
        assert!(stat.is_dir() || stat.is_file(), "{name} is neither a file nor a directory");
        let slash = if stat.is_dir() { "/" } else { "" };
        let facts = format!("{:o} {}:{}", stat.mode() & 0o7777, stat.uid(), stat.gid());
        assert_eq!(found.insert(format!("{name}{slash}"), facts), None, "{name} is there twice");
        if stat.is_dir() {
            collect(root, &path, found);
        }
    }
}

fn expected(entries: &[(&str, &str)]) -> Tree {
    let host = [
        (".agent/", "700 0:0"),
        (".agent/agent-id", "600 0:0"),
        (".agent/host-key", "600 0:0"),
        (".agent/late/", "700 0:0"),
        (".agent/lock", "600 0:0"),
        (".agent/operations/", "700 0:0"),
        (".agent/spares/", "700 0:0"),
        (".agent/staging/", "700 0:0"),
        (".agent/trash/", "700 0:0"),
        (".archive/", "700 0:0"),
    ];
    host.iter().chain(entries).map(|(path, facts)| ((*path).to_owned(), (*facts).to_owned())).collect()
}

/// What is there, but for the records of operations, one each, and the spare files.
fn standing(root: &Path) -> BTreeMap<String, String> {
    let mut found = tree(root);
    found.retain(|path, facts| {
        let is_one_of = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| !rest.is_empty());
        let is_one = is_one_of(".agent/operations/") || is_one_of(".agent/spares/");
        let closed = if path.ends_with('/') { "700 0:0" } else { "600 0:0" };
        assert!(!is_one || facts == closed, "{path}: {facts}");
        !is_one
    });
    found
}

#[tokio::test]
async fn the_tenants_root_holds_what_it_should_and_nothing_else() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let (tenant, root) = (Tenant::new(&agent, "disk"), agent.root());
    let name = &tenant.name;
    let at = |path: &str| format!("{name}/{path}");
    // The engine and the test see the same root, and no one else sees into it.
    assert_eq!(std::fs::metadata(&root).expect("the root").mode() & 0o7777, 0o700);
    assert_eq!(standing(&root), expected(&[]));

    let files = json!({
        "site/index.html": "page\n", "site/cgi/run.sh": {"text": "#!/bin/sh\n", "mode": "0755"},
        "password.txt": {"text": "hunter2", "mode": "0600"}, "notes": {"base64": "AAEC", "mode": "0640"},
    });
    let env = "LEVEL=1\n";
    tenant.provision(STACK, json!({"files": files, "env_content": env})).await;
    tenant.becomes("running").await;
    let always: Vec<(String, &str)> = [
        ("", "700 0:0"),
        (".agent/", "700 0:0"),
        (".agent/generations/", "700 0:0"),
        (".agent/mounts/", "700 0:0"),
        (".agent/record.json", "600 0:0"),
        ("data/", "755 1000:65534"),
        ("data/app/", "755 1000:65534"),
        ("data/app/file", "644 1000:65534"),
    ]
    .map(|(path, facts)| (at(path), facts))
    .into();
    let up: Vec<(String, &str)> = [
        (".agent/mounts/* 440", "440 1000:0"),
        (".agent/mounts/* 444", "444 0:0"),
        (".env", "600 0:0"),
        ("compose.yaml", "644 0:0"),
        ("password.txt", "600 0:0"),
        ("site/", "755 0:0"),
        ("site/index.html", "644 0:0"),
    ]
    .map(|(path, facts)| (at(path), facts))
    .into();
    let with = |more: &[(&str, &str)], parts: &[&[(String, &str)]]| {
        let mut all = expected(&[]);
        all.extend(more.iter().map(|(path, facts)| (at(path), (*facts).to_owned())));
        all.extend(parts.iter().flat_map(|part| part.iter()).map(|(path, facts)| (path.clone(), (*facts).to_owned())));
        all
    };
    // Written by the container a moment after it was started.
    let written = root.join(at("data/app/file"));
    eventually("the container's file", PATIENCE, async || written.exists().then_some(())).await;
    let first = [
        (".agent/generations/1.json", "600 0:0"),
        ("notes", "640 0:0"),
        ("site/cgi/", "755 0:0"),
        ("site/cgi/run.sh", "755 0:0"),
    ];
    assert_eq!(standing(&root), with(&first, &[&always, &up]));
    assert_eq!(std::fs::read(root.join(at("notes"))).expect("the file"), [0, 1, 2]);
    assert_eq!(std::fs::read_to_string(root.join(at(".env"))).expect("the file"), env);

    // An update: deleted files go, with the directories that this leaves empty; the generation before it is kept.
    let changed = json!({"notes": null, "site/cgi/run.sh": null, "extra.conf": "x"});
    tenant.update(json!({"files": changed, "env_content": "LEVEL=2\n"})).await.expect(200);
    let second =
        [(".agent/generations/1.json", "600 0:0"), (".agent/generations/2.json", "600 0:0"), ("extra.conf", "644 0:0")];
    assert_eq!(standing(&root), with(&second, &[&always, &up]));

    // One that is refused or fails leaves no trace, not even in the files.
    tenant
        .update(json!({"compose_content": "services: {a: {image: x, privileged: true}}"}))
        .await
        .refused(422, "POLICY_DENIED");
    let fails = STACK.replace("exec sleep 3600\"]", &format!("exit 1\"]\n    {UNDECIDED}"));
    tenant.update(json!({"compose_content": fails, "files": {"more": "x"}})).await.refused(502, "SERVICE_EXITED");
    assert_eq!(standing(&root), with(&second, &[&always, &up]));
    assert_eq!(std::fs::read_to_string(root.join(at("compose.yaml"))).expect("the file"), STACK);

    // Of all generations the last two stay.
    tenant.update(json!({"files": {"extra.conf": {"text": "y", "mode": "0600"}}})).await.expect(200);
    let third =
        [(".agent/generations/2.json", "600 0:0"), (".agent/generations/3.json", "600 0:0"), ("extra.conf", "600 0:0")];
    assert_eq!(standing(&root), with(&third, &[&always, &up]));

    // Teardown: the config files are in the archive, as they were; data and record stay.
    let gone = tenant.act("teardown", "").await.expect(200);
    let archive = gone["kept"]["archive"].as_str().expect("the archive's name");
    assert!(archive.starts_with(&format!("{name}-")), "{archive}");
    let mut kept = with(&[(".agent/generations/3.json", "600 0:0")], &[&always]);
    kept.insert(format!(".archive/{archive}/"), "700 0:0".to_owned());
    for (path, facts) in [
        (".env", "600 0:0"),
        ("compose.yaml", "644 0:0"),
        ("extra.conf", "600 0:0"),
        ("password.txt", "600 0:0"),
        ("site/", "755 0:0"),
        ("site/index.html", "644 0:0"),
    ] {
        kept.insert(format!(".archive/{archive}/{path}"), facts.to_owned());
    }
    assert_eq!(standing(&root), kept);

    tenant.purge().await;
    assert_eq!(standing(&root), expected(&[]));
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new());
}
