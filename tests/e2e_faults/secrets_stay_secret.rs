//! Tokens, variables, secret files and registry passwords are in no answer, no log line and no label, not even at level
//! trace and when things fail.

use base64::Engine as _;
use hyper::Method;
use serde_json::{Value, json};

use crate::scene::{PROVISION, SLEEPS, UPDATE, request, stack};
use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::http::Answer;
use crate::support::registry::refusing;
use crate::support::traces::{forms, tree};
use crate::support::unique;

const ENV: &str = "canary-of-the-env-file-7301";
const SECRET: &str = "canary-of-the-secret-file-7302";
const PASSWORD: &str = "canary-of-the-registry-password-7303";
const HOST_PASSWORD: &str = "canary-of-the-host-password-7304";
const READ_TOKEN: &str = "canary-of-the-read-token-7305-aaaaaaaaaa";
const CONFIG: &str = "canary-of-a-config-file-7306";
const WRONG_TOKEN: &str = "canary-of-a-wrong-token-7307-aaaaaaaaaa";

#[tokio::test]
async fn whatever_happens() {
    let engine = Engine::shared().with_busybox().await;
    let (registry, asked) = refusing().await;
    let agent = Options::docker(engine)
        .env("Q8_AGENT_LOG", "trace")
        .env("Q8_AGENT_READ_TOKEN", READ_TOKEN)
        .env("DOCKER_REGISTRY", "registry.example")
        .env("DOCKER_REGISTRY_USERNAME", "host")
        .env("DOCKER_REGISTRY_PASSWORD", HOST_PASSWORD)
        .start()
        .await;
    let name = unique("secret");
    let mut answers: Vec<(String, Answer)> = Vec::new();
    let mut post = async |what: &str, path: &str, body: &Value, status: u16| {
        let answer = agent.post(path, body).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text());
        answers.push((what.to_owned(), answer));
    };

    let uses = &["environment: {KEY: \"${KEY}\"}", "secrets: [key]", "configs: [conf]", "env_file: [.env, more.env]"];
    let rest = "secrets: {key: {file: ./key}}\nconfigs: {conf: {content: \"${KEY}\"}}\n";
    let body = |web: &[&[&str]]| {
        let mut body = request(&name, &stack(&[("web", web), ("db", &[SLEEPS])], rest));
        body["env_content"] = json!(format!("KEY={ENV}\n"));
        body["files"] = json!({"key": SECRET, "more.env": format!("MORE={CONFIG}\n")});
        body
    };
    let good = body(&[SLEEPS, uses]);
    let bad = |line: &str| body(&[SLEEPS, uses, &[line]]);
    post("provision", PROVISION, &good, 201).await;
    post("again", PROVISION, &good, 200).await;
    let fails = &[r#"command: ["sh", "-c", "echo failed; exit 3"]"#];
    let mut update = body(&[fails, uses]);
    update.as_object_mut().expect("an object").remove("id");
    post("failing update", UPDATE, &update, 502).await;
    post("missing command", PROVISION, &body(&[&["command: [none]"], uses]), 502).await;

    // The engine repeats a command that it cannot find.
    post("a value as command", PROVISION, &body(&[&["command: [\"${KEY}\"]"]]), 502).await;
    // Values where other values belong: the refusal must not repeat them.
    let mut accepted = Vec::new();
    for line in [
        "ports: [\"${KEY}\"]",
        "mem_limit: ${KEY}",
        "restart: ${KEY}",
        "read_only: ${KEY}",
        "stop_grace_period: ${KEY}",
        "depends_on: [\"${KEY}\"]",
        "networks: [\"${KEY}\"]",
        "volumes: [\"/${KEY}:/x\"]",
        "container_name: ${KEY}",
        "user: ${MISSING:?${KEY}}",
        "cap_add: [\"${KEY}\"]",
        "network_mode: ${KEY}",
        "pid: ${KEY}",
        "healthcheck: {test: [\"${KEY}\", x]}",
        "healthcheck: {test: x, interval: \"${KEY}\"}",
        "deploy: {replicas: \"${KEY}\"}",
        "extra_hosts: [\"${KEY}\"]",
        "ulimits: {nofile: \"${KEY}\"}",
        "sysctls: {\"a\": \"${KEY}\"}",
        "labels: {com.docker.compose.project: \"${KEY}\"}",
    ] {
        let answer = agent.post(PROVISION, &bad(line)).await;
        if answer.status != 422 {
            accepted.push(line);
        }
        answers.push((line.to_owned(), answer));
    }
    assert!(accepted.is_empty(), "these were to be refused: {accepted:?}");
    let mut broken = good.clone();
    broken["env_content"] = json!(format!("KEY={ENV}\nthis is no {SECRET} line '\n\"{CONFIG}"));
    answers.push(("a broken env file".to_owned(), agent.post(PROVISION, &broken).await));
    let text = good.to_string();
    for (what, text) in [
        ("half a body", text[..text.len() - 3].to_owned()),
        ("a string where an object belongs", format!("{{\"id\":\"{ENV}\",\"files\":\"{SECRET}\"}}")),
        ("a bad id", format!("{{\"id\":\"{ENV} {SECRET}\"}}")),
        ("an unknown value", text.replacen('{', &format!("{{\"extra\":\"{SECRET}\","), 1)),
    ] {
        let headers = [("content-type", "application/json")];
        let answer = agent.request(Method::POST, PROVISION, &headers, text).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        answers.push((what.to_owned(), answer));
    }

    let mut pulls = body(&[&[&format!("image: {registry}/private/image:1")]]);
    pulls["registry_auth"] = json!([{"registry": registry, "username": "user", "password": PASSWORD}]);
    let answer = agent.post(PROVISION, &pulls).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    answers.push(("a registry that refuses".to_owned(), answer));
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("user:{PASSWORD}"));
    assert!(asked.lock().expect("no panic").contains(&basic), "the registry was given the password");

    let wrong = format!("Bearer {WRONG_TOKEN}");
    for (what, headers) in [
        ("a wrong token", [("authorization", wrong.as_str())]),
        ("a token in the wrong place", [("x-token", READ_TOKEN)]),
        ("no such scheme", [("authorization", WRONG_TOKEN)]),
    ] {
        let answer = agent.request(Method::GET, "/v1/tenants", &headers, "").await;
        answers.push((what.to_owned(), answer));
    }
    let path = format!("/v1/tenants?token={WRONG_TOKEN}");
    answers.push(("a token in the query".to_owned(), agent.get(&path).await));
    let reads = format!("Bearer {READ_TOKEN}");
    let reads = [("authorization", reads.as_str())];
    answers.push(("forbidden".to_owned(), agent.request(Method::POST, PROVISION, &reads, good.to_string()).await));
    for path in ["/v1/tenants".to_owned(), "/v1/system/info".to_owned(), "/ready".to_owned()]
        .into_iter()
        .chain(["status", "images", "logs"].map(|what| format!("/v1/tenants/{what}/{name}")))
    {
        let answer = agent.request(Method::GET, &path, &reads, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answers.push((path, answer));
    }
    for path in ["restart", "stop", "start", "teardown"] {
        let path = format!("/v1/tenants/{path}/{name}");
        let answer = agent.post(&path, &Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answers.push((path, answer));
    }
    answers
        .push(("purge".to_owned(), agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await));

    let (log, token) = (agent.log(), agent.token().to_owned());
    assert!(log.contains("\"TRACE\"") || log.contains("\"DEBUG\""), "the log is talkative: {log}");
    let root = agent.root().display().to_string();
    for canary in [ENV, SECRET, PASSWORD, HOST_PASSWORD, READ_TOKEN, CONFIG, WRONG_TOKEN, &token] {
        for form in forms(canary) {
            let found = log.lines().find(|line| line.contains(&form));
            assert!(found.is_none(), "{canary} is in the log: {found:?}");
            for (what, answer) in &answers {
                let headers = format!("{:?}", answer.headers);
                assert!(!answer.text().contains(&form), "{what}: {canary} is in the answer: {}", answer.text());
                assert!(!headers.contains(&form), "{what}: {canary} is in the headers: {headers}");
            }
        }
    }
    for (what, answer) in &answers {
        assert!(!answer.text().contains(&root), "{what}: a host path is in the answer: {}", answer.text());
    }
    // Credentials are never written down.
    for (path, (_, content)) in tree(&agent.root()) {
        for canary in [PASSWORD, HOST_PASSWORD, READ_TOKEN, &token] {
            assert!(!forms(canary).iter().any(|form| content.contains(form)), "{canary} is in {path}");
        }
    }
}
