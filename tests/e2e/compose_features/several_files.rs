//! A stack made of several files of the request: `include`, `extends`, `label_file`; and refusals that name the file.

use serde_json::json;

use super::{agent, inspected, nothing_is_left, report, reports};
use crate::tenant::Tenant;

#[tokio::test]
async fn a_stack_of_several_files_runs_and_follows_its_files() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "several");
    let compose = "
include: [parts/compose.yaml]
services:
  app:
    extends: {file: common/base.yaml, service: base}
    environment: {OWN: mine}
    depends_on: [part]
";
    let says = |script: &str| reports(script);
    let base = format!(
        "services:\n  base:\n    image: q8test/busybox:1\n    stop_signal: SIGKILL\n    environment: {{FROM: base}}\n    \
         env_file: base.env\n    label_file: labels\n    command: {}\n",
        says("echo $$FROM $$FILE $$OWN")
    );
    let part = format!(
        "services:\n  part:\n    image: q8test/busybox:1\n    stop_signal: SIGKILL\n    volumes: ['./html:/html:ro']\n    \
         command: {}\n",
        says("cat /html/index.html; echo ${WORD:-no word}")
    );
    let files = |word: &str| {
        json!({
            "common/base.yaml": base, "common/base.env": "FILE=env\n", "common/labels": "org.example.team=red\n",
            "parts/compose.yaml": part, "parts/.env": format!("WORD={word}\n"), "parts/html/index.html": "hello",
        })
    };
    let made = tenant.provision(compose, json!({ "files": files("first") })).await;
    assert_eq!(made["warnings"], json!([]), "{made}");
    assert_eq!(report(&tenant, "app").await, ["base env mine"]);
    assert_eq!(report(&tenant, "part").await, ["hellofirst"]);
    assert_eq!(inspected(&tenant).await["app-1"]["Config"]["Labels"]["org.example.team"], "red");

    // An included file's own variables changed: the service that sees them is made anew, the other one is not.
    let before = inspected(&tenant).await;
    tenant.update(json!({ "files": { "parts/.env": "WORD=second\n" } })).await.expect(200);
    let after = inspected(&tenant).await;
    assert_eq!(before["app-1"]["Id"], after["app-1"]["Id"]);
    assert_ne!(before["part-1"]["Id"], after["part-1"]["Id"]);
    assert_eq!(report(&tenant, "part").await, ["hellosecond"]);

    // What is wrong with a file is said of that file.
    let broken = json!({ "files": { "parts/compose.yaml": "services:\n  part:\n    imag: x\n" } });
    let refused = tenant.update(broken).await.refused(422, "COMPOSE_INVALID");
    assert!(refused["error"].as_str().is_some_and(|text| text.starts_with("parts/compose.yaml:3:5: ")), "{refused}");
    let privileged = part.replace("stop_signal", "privileged: true\n    stop_signal");
    let denied = tenant.update(json!({ "files": { "parts/compose.yaml": privileged } })).await;
    let denied = denied.refused(422, "POLICY_DENIED");
    assert_eq!(denied["details"]["refusals"][0]["file"], "parts/compose.yaml", "{denied}");
    nothing_is_left(&agent, &[&tenant]).await;
}

#[tokio::test]
async fn files_outside_the_request_cannot_be_included() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "outside");
    for (compose, field) in [
        ("include: [/etc/passwd]\nservices: {a: {image: x}}", "include[0]"),
        ("include: [../other/compose.yaml]\nservices: {a: {image: x}}", "include[0]"),
        ("include: ['oci://example.com/stack']\nservices: {a: {image: x}}", "include[0]"),
        ("include: [data/compose.yaml]\nservices: {a: {image: x}}", "include[0]"),
        ("services: {a: {extends: {file: /etc/passwd, service: a}}}", "services.a.extends.file"),
        ("services: {a: {image: x, env_file: /proc/self/environ}}", "services.a.env_file"),
        ("include: [{path: .env}]\nservices: {a: {image: x}}", "include[0]"),
    ] {
        let refused = agent.post("/v1/tenants/provision", &tenant.body(compose, &json!({}))).await;
        let refused = refused.refused(422, "COMPOSE_INVALID");
        let about = refused["field"].as_str().unwrap_or_default();
        assert!(about.is_empty() || about == field, "{compose}: {refused}");
    }
    nothing_is_left(&agent, &[]).await;
}
