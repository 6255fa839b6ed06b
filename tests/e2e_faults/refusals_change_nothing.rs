//! A refused request is told why and where, and has changed nothing: neither on the disk nor on the engine.

use std::collections::BTreeMap;

use hyper::Method;
use serde_json::{Value, json};

use crate::scene::{
    PROVISION, SLEEPS, Tree, UPDATE, assert_same, containers, objects, purge, request, stack, status, tree,
};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::traces::without_notes;
use crate::support::unique;

/// A request that must be refused.
struct Refusal {
    what: &'static str,
    /// Merged into a body that would be accepted.
    change: Value,
    status: u16,
    code: &'static str,
    field: Option<&'static str>,
    line: Option<u32>,
}

/// A stack whose service `web` has one line more, which is line 5.
fn with(line: &str) -> Value {
    json!({"compose_content": stack(&[("web", &[SLEEPS, &[line]])], "")})
}

fn compose(rest: &str) -> Value {
    json!({"compose_content": stack(&[("web", &[SLEEPS])], rest)})
}

fn refusals() -> Vec<Refusal> {
    let mut all = Vec::new();
    let mut refusal = |what, change, status, code, field: &'static str, line: u32| {
        let field = Some(field).filter(|field| !field.is_empty());
        all.push(Refusal { what, change, status, code, field, line: Some(line).filter(|line| *line > 0) });
    };
    refusal("an unknown field", json!({"compose_contents": ""}), 400, "INVALID_REQUEST", "compose_contents", 1);
    refusal("a field of the wrong kind", json!({"profiles": "all"}), 400, "INVALID_REQUEST", "profiles", 1);
    refusal("a bad subdomain", json!({"subdomain": "No_Name"}), 400, "INVALID_SUBDOMAIN", "subdomain", 1);
    for path in ["../x", "/etc/passwd", ".env", "compose.yaml", ".agent/record.json", "data/x", "a//b", "a/./b"] {
        let field = Box::leak(format!("files[\"{path}\"]").into_boxed_str());
        refusal("a bad file path", json!({"files": {path: "x"}}), 400, "INVALID_FILE_PATH", field, 1);
    }
    refusal("a file in the way", json!({"files": {"a": "", "a/b": ""}}), 400, "INVALID_FILE_PATH", "files[\"a/b\"]", 1);
    let broken = "services:\n  web:\n    image: [busybox\n";
    refusal("bad YAML", json!({"compose_content": broken}), 422, "COMPOSE_INVALID", "", 4);
    let twice = "services:\n  web:\n    image: a\n    image: b\n";
    refusal("a key that is there twice", json!({"compose_content": twice}), 422, "COMPOSE_INVALID", "", 4);
    refusal("no services", json!({"compose_content": "services: {}\n"}), 422, "COMPOSE_INVALID", "", 1);
    let invalid = |all: &mut Vec<Refusal>, what, line: &str, field| {
        let change = with(line);
        all.push(Refusal { what, change, status: 422, code: "COMPOSE_INVALID", field: Some(field), line: Some(6) });
    };
    invalid(&mut all, "an unknown attribute", "imagee: x", "services.web.imagee");
    invalid(&mut all, "a value of the wrong kind", "read_only: maybe", "services.web.read_only");
    invalid(&mut all, "an unset variable", "hostname: ${NOBODY:?is needed}", "services.web.hostname");
    invalid(&mut all, "an unknown dependency", "depends_on: [nobody]", "services.web.depends_on[0]");
    let denied = |all: &mut Vec<Refusal>, what, change, field, line| {
        all.push(Refusal { what, change, status: 422, code: "POLICY_DENIED", field: Some(field), line: Some(line) });
    };
    denied(&mut all, "privileged", with("privileged: true"), "services.web.privileged", 6);
    denied(&mut all, "build", with("build: ."), "services.web.build", 6);
    denied(&mut all, "a device", with("devices: [/dev/kmsg]"), "services.web.devices[0]", 6);
    denied(&mut all, "a capability", with("cap_add: [SYS_ADMIN]"), "services.web.cap_add[0]", 6);
    denied(&mut all, "the host's network", with("network_mode: host"), "services.web.network_mode", 6);
    denied(&mut all, "the host's processes", with("pid: host"), "services.web.pid", 6);
    denied(&mut all, "a port of the host's own", with("ports: ['80:80']"), "services.web.ports[0]", 6);
    let local = json!({"compose_content": stack(&[("web", &[&["image: localhost:5000/x"]])], "")});
    all.push(Refusal {
        what: "a registry on the host",
        change: local,
        status: 422,
        code: "POLICY_DENIED",
        field: Some("services.web.image"),
        line: Some(3),
    });
    for bind in [
        "/:/host",
        "/etc:/host:ro",
        "/var/run/docker.sock:/var/run/docker.sock",
        "./.agent:/agent:ro",
        "./.agent/record.json:/record:ro",
        "../.agent/host-key:/key:ro",
        "../other/data:/other",
        "./.env:/env:ro",
    ] {
        denied(&mut all, "a bind", with(&format!("volumes: ['{bind}']")), "services.web.volumes[0]", 6);
    }
    denied(
        &mut all,
        "an external network",
        compose("networks: {default: {external: true, name: bridge}}\n"),
        "networks.default.external",
        6,
    );
    let volume = |definition: &str| {
        let text = stack(&[("web", &[SLEEPS, &["volumes: ['v:/v']"]])], &format!("volumes: {{v: {definition}}}\n"));
        json!({ "compose_content": text })
    };
    denied(&mut all, "an external volume", volume("{external: true}"), "volumes.v.external", 7);
    denied(&mut all, "a foreign volume", volume("{name: theirs}"), "volumes.v.name", 7);
    let options = "{driver_opts: {type: none, o: bind, device: /}}";
    denied(&mut all, "a volume that is a bind", volume(options), "volumes.v.driver_opts", 7);
    let image = Some("services.web.image");
    let missing = |what, lines: &[&str], code| {
        let change = json!({"compose_content": stack(&[("web", &[lines])], "")});
        Refusal { what, change, status: 502, code, field: image, line: None }
    };
    all.push(missing("a missing image", &["image: q8test/none:1", "pull_policy: never"], "IMAGE_NOT_FOUND"));
    all.push(missing("a dead registry", &["image: 127.0.0.1:1/none:1"], "REGISTRY_UNAVAILABLE"));
    all
}

/// The dead registry is on the host's own address.
const REGISTRIES: &str = "registries = ['docker.io', '127.0.0.1:1']";

/// Disk and engine as they are.
async fn picture(engine: &Engine, agent: &Agent<'_>) -> (Tree, BTreeMap<String, String>) {
    (tree(&agent.root()), objects(engine, &agent.label()).await)
}

async fn assert_as_before(engine: &Engine, agent: &Agent<'_>, before: &(Tree, BTreeMap<String, String>), what: &str) {
    let after = picture(engine, agent).await;
    assert_same(&before.0, &after.0, &format!("{what}: the disk"));
    assert_same(&before.1, &after.1, &format!("{what}: the engine"));
}

/// The same of what took its time before it was refused, which is on record. Gives how it is now.
async fn assert_as_before_but_for_the_record(
    engine: &Engine,
    agent: &Agent<'_>,
    (disk, objects): (Tree, BTreeMap<String, String>),
    what: &str,
) -> (Tree, BTreeMap<String, String>) {
    let after = picture(engine, agent).await;
    assert_eq!(after.0.len(), disk.len() + 1, "{what}: one record");
    assert_same(&without_notes(disk), &without_notes(after.0.clone()), &format!("{what}: the disk"));
    assert_same(&objects, &after.1, &format!("{what}: the engine"));
    after
}

/// Sends every refusal on top of `good`, which itself would be accepted.
async fn all_are_refused(engine: &Engine, agent: &Agent<'_>, path: &str, good: &Value) {
    let mut before = picture(engine, agent).await;
    let mut wrong = Vec::new();
    for refusal in refusals() {
        let mut body = good.clone();
        for (key, value) in refusal.change.as_object().expect("changes are objects") {
            body[key] = value.clone();
        }
        let what = format!("{} ({})", refusal.what, refusal.change);
        let answer = agent.post(path, &body).await;
        let told = answer.json();
        let said = (answer.status.as_u16(), told["code"].as_str(), told["field"].as_str(), told["line"].as_u64());
        let wanted = (refusal.status, Some(refusal.code), refusal.field, refusal.line.map(u64::from));
        if said != wanted {
            // All of them at once: one at a time would take a run each.
            wrong.push(format!("{what}: wanted {wanted:?}, got {told}"));
        }
        if refusal.status == 502 {
            before = assert_as_before_but_for_the_record(engine, agent, before, &what).await;
        } else {
            assert_as_before(engine, agent, &before, &what).await;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let good = good.to_string();
    for (what, headers, body, status, code) in [
        ("no token", &[("authorization", "")][..], good.clone(), 401, "UNAUTHORIZED"),
        (
            "a bad token",
            &[("authorization", "Bearer 0123456789abcdef0123456789abcdef")],
            good.clone(),
            401,
            "UNAUTHORIZED",
        ),
        ("half a body", &[], good[..good.len() / 2].to_owned(), 400, "INVALID_REQUEST"),
        ("no body", &[], String::new(), 400, "INVALID_REQUEST"),
        ("not text", &[], String::from("\u{0}"), 400, "INVALID_REQUEST"),
        ("a body that is too large", &[], good.clone() + &" ".repeat(9 << 20), 413, "PAYLOAD_TOO_LARGE"),
    ] {
        let mut headers = headers.to_vec();
        headers.push(("content-type", "application/json"));
        let answer = agent.request(Method::POST, path, &headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text());
        answer.refused(status, code);
        assert_as_before(engine, agent, &before, what).await;
    }
}

#[tokio::test]
async fn of_a_tenant_that_is_not_there() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).policy(REGISTRIES).start().await;
    let name = unique("refused");
    let good = request(&name, &stack(&[("web", &[SLEEPS])], ""));
    all_are_refused(engine, &agent, PROVISION, &good).await;
    for path in ["restart", "stop", "start", "rollback"] {
        agent.post(&format!("/v1/tenants/{path}/{name}"), &Value::Null).await.refused(404, "NOT_FOUND");
    }
    agent.post(UPDATE, &json!({"subdomain": name})).await.refused(404, "NOT_FOUND");
    assert!(!agent.root().join(&name).exists());
    agent.post(PROVISION, &good).await.expect(201);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn of_a_tenant_that_runs() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).policy(REGISTRIES).start().await;
    let name = unique("runs");
    let compose =
        stack(&[("web", &[SLEEPS, &["volumes: ['store:/store', './page:/page:ro']"]])], "volumes: {store: {}}\n");
    let mut first = request(&name, &compose);
    first["files"] = json!({"page": "one\n"});
    agent.post(PROVISION, &first).await.expect(201);
    let before = containers(&status(&agent, &name).await);
    // Each would be another generation if it were accepted.
    let good = json!({"subdomain": name, "env_content": "A=2\n", "files": {"page": "two\n"}});
    all_are_refused(engine, &agent, UPDATE, &good).await;
    let mut again = first.clone();
    again["files"] = json!({"page": "two\n"});
    all_are_refused(engine, &agent, PROVISION, &again).await;

    let picture = picture(engine, &agent).await;
    let mut other = first.clone();
    other["id"] = json!("somebody-else");
    agent.post(PROVISION, &other).await.refused(409, "ID_MISMATCH");
    agent.post(UPDATE, &json!({"subdomain": name, "services": ["nobody"]})).await.refused(404, "NOT_FOUND");
    agent.post(&format!("/v1/tenants/rollback/{name}?from=7"), &Value::Null).await.refused(409, "GENERATION_MISMATCH");
    for path in ["restart", "stop", "start"] {
        let path = format!("/v1/tenants/{path}/{name}?service=nobody");
        agent.post(&path, &Value::Null).await.refused(404, "NOT_FOUND");
    }
    assert_as_before(engine, &agent, &picture, "refusals by the state of the tenant").await;
    assert_eq!(containers(&status(&agent, &name).await), before);
    assert_eq!(agent.post(PROVISION, &first).await.expect(200)["changed"], false);
    purge(&agent, engine, &name).await;
}

#[tokio::test]
async fn nor_does_a_plan_or_a_request_that_expects_another_one() {
    const PLAN: &str = "/v1/tenants/plan";
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let name = unique("planned");
    let volume = ("volumes: ['store:/store', './page:/page:ro']", "volumes: {store: {}, more: {}}\n");
    let body = |version: &str| {
        let variable = format!("environment: {{VERSION: '{version}'}}");
        let services: [(&str, &[&[&str]]); 2] = [("web", &[SLEEPS, &[volume.0, &variable]]), ("idle", &[SLEEPS])];
        let mut body = request(&name, &stack(&services, volume.1));
        body["files"] = json!({"page": format!("{version}\n")});
        body
    };
    let expecting = |version: &str, plan: &Value| {
        let mut body = body(version);
        body["expect_plan"] = plan["plan_hash"].clone();
        body
    };
    agent.post(PROVISION, &body("one")).await.expect(201);
    let (first, mut before) = (containers(&status(&agent, &name).await), picture(engine, &agent).await);

    let same = agent.post(PLAN, &body("one")).await.expect(200);
    assert_eq!((&same["changed"], &same["generation"]), (&json!(false), &json!(1)), "{same}");
    let two = agent.post(PLAN, &body("two")).await.expect(200);
    assert_eq!((&two["changed"], &two["generation"]), (&json!(true), &json!(2)), "{two}");
    let action = |object: &str| {
        let steps = two["steps"].as_array().expect("a list of steps");
        steps.iter().find(|step| step["object"] == object).map(|step| step["action"].clone())
    };
    assert_eq!(action("container web-1"), Some(json!("recreate")), "{two}");
    assert_eq!(action("container idle-1"), Some(json!("keep")), "{two}");
    let three = agent.post(PLAN, &body("three")).await.expect(200);
    agent.post(PLAN, &request(&name, "services: [")).await.refused(422, "COMPOSE_INVALID");
    assert_as_before(engine, &agent, &before, "plans").await;

    for other in [&three, &same] {
        let refused = agent.post(PROVISION, &expecting("two", other)).await.refused(409, "PLAN_CHANGED");
        assert_eq!(refused["field"], "expect_plan", "{refused}");
        assert_eq!(refused["details"]["plan_hash"], two["plan_hash"], "{refused}");
        before = assert_as_before_but_for_the_record(engine, &agent, before, "another plan").await;
    }
    assert_eq!(containers(&status(&agent, &name).await), first);

    let done = agent.post(PROVISION, &expecting("two", &two)).await.expect(200);
    assert_eq!((&done["changed"], &done["generation"]), (&json!(true), &json!(2)), "{done}");
    let second = containers(&status(&agent, &name).await);
    assert_ne!(second["web-1"].id, first["web-1"].id);
    assert_eq!(second["idle-1"], first["idle-1"]);
    purge(&agent, engine, &name).await;
}
