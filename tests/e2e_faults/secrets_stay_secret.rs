//! Tokens, variables, secret files and registry passwords are in no answer, no log line and no label, not even at level
//! trace and when things fail.

use base64::Engine as _;
use bollard::query_parameters::ListContainersOptionsBuilder;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::scene::{PROVISION, SLEEPS, UNDECIDED, UPDATE, request, stack};
use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::http::Answer;
use crate::support::registry::refusing;
use crate::support::traces::{canaries_in, forms, is_canary, tree};
use crate::support::{eventually, unique};

const ENV: &str = "canary-of-the-env-file-7301";
const SECRET: &str = "canary-of-the-secret-file-7302";
const PASSWORD: &str = "canary-of-the-registry-password-7303";
const HOST_PASSWORD: &str = "canary-of-the-host-password-7304";
const READ_TOKEN: &str = "canary-of-the-read-token-7305-aaaaaaaaaa";
const CONFIG: &str = "canary-of-a-config-file-7306";
const WRONG_TOKEN: &str = "canary-of-a-wrong-token-7307-aaaaaaaaaa";
const OLD_TOKEN: &str = "canary-of-the-old-token-7308-bcdefghijk";
const NEW_TOKEN: &str = "canary-of-the-new-token-7309-bcdefghijk";

/// Requests that hyper never sees as they are, with secrets where secrets do and do not belong.
const MALFORMED: &[&str] = &[
    "GET /v1/tenants HTTP/1.1\r\nauthorization: Bearer {}\r\n\r\n",
    "GET /v1/tenants HTTP/1.1\r\nhost: a\r\nauthorization:\r\n Bearer {}\r\n\r\n",
    "GET /v1/tenants HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\0\r\n\r\n",
    "GET /v1/tenants HTTP/1.1\nhost: a\nauthorization: Bearer {}\n\n",
    "GET /v1/tenants?token={} HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /{}#{} HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET http://{}@a/v1/tenants HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /v1/tenants HTTP/1.1\r\nhost: {}@a\r\n\r\n",
    "{} / HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET /v1/tenants HTTP/{}\r\nhost: a\r\n\r\n",
    "GET /v1/tenants HTTP/1.1\r\nhost: a\r\n{}\r\n\r\n",
    "GET /v1/tenants HTTP/1.1\r\nhost: a\r\n{}: {}\r\ncookie: {}\r\nx-request-id: {} {}\r\n\r\n",
    "GET /v1/tenants HTTP/1.1\r\nhost: a\r\nexpect: {}\r\n\r\n",
    "POST /v1/tenants/provision HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
    "POST /v1/tenants/provision HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ntransfer-encoding: {}\r\n\r\n",
    "POST /v1/tenants/provision HTTP/1.1\r\nhost: a\r\nauthorization: Basic {}\r\ntransfer-encoding: chunked\r\n\r\n{}",
    "{}\r\n\r\n",
    "{}",
];

/// Sends bytes as they are, and reads until the end.
async fn raw(address: std::net::SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the agent listens");
    // It may have refused the beginning already.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn whatever_happens() {
    for canary in [ENV, SECRET, PASSWORD, HOST_PASSWORD, READ_TOKEN, CONFIG, WRONG_TOKEN] {
        is_canary(canary);
    }
    let engine = Engine::shared().with_busybox().await;
    let (registry, asked) = refusing().await;
    let agent = Options::docker(engine)
        .env("Q8_AGENT_LOG", "trace")
        .policy(&format!("registries = ['docker.io', '{registry}']"))
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
    // Nothing that holds a secret can be read by others on the host: the file is closed, or a directory above it. Inside
    // the containers their users read files of mode 0444, so it is the directories that count for those.
    let disk = tree(&agent.root());
    let open = |path: &str, bit: u32| disk.get(path).is_some_and(|(mode, _)| mode & bit != 0);
    for (path, (_, content)) in &disk {
        let above = path.match_indices('/').all(|(at, _)| open(&path[..at], 0o001));
        let found = canaries_in(content, &[agent.token()]);
        assert!(found.is_empty() || !above || !open(path, 0o004), "{path}: {found:?}");
    }
    assert!(disk.values().any(|(_, content)| !canaries_in(content, &[]).is_empty()), "the secrets are there");
    let all = ListContainersOptionsBuilder::new().all(true).build();
    let containers = engine.docker().list_containers(Some(all)).await.expect("the engine lists");
    let labels: Vec<_> = containers.into_iter().filter_map(|container| container.labels).collect();
    let labels = serde_json::to_string(&labels).expect("labels are text");
    assert!(labels.contains(&name) && canaries_in(&labels, &[agent.token()]).is_empty(), "{labels}");
    let fails = &[r#"command: ["sh", "-c", "echo failed; exit 3"]"#, UNDECIDED];
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
        "hostname: \"${KEY} x\"",
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
    for text in MALFORMED {
        for secret in [agent.token(), READ_TOKEN, WRONG_TOKEN, ENV] {
            let answer = raw(agent.address(), &text.replace("{}", secret)).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{text}: {answer}");
            assert!(canaries_in(&answer, &[agent.token()]).is_empty(), "{text}: {answer}");
        }
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

/// Several admin tokens at once, exchanged while the agent runs; a mistake in the file changes nothing.
#[tokio::test]
async fn a_rotation() {
    is_canary(OLD_TOKEN);
    is_canary(NEW_TOKEN);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("tokens");
    std::fs::write(&file, format!("{OLD_TOKEN}\n")).expect("the file is written");
    let agent = Options::memory().env("Q8_AGENT_ADMIN_TOKEN", "").env("Q8_AGENT_ADMIN_TOKEN_FILE", &file).spawn();
    let with = async |token: &str| {
        let header = format!("Bearer {token}");
        let answer = agent.try_request(Method::GET, "/v1/tenants", &[("authorization", &header)], "").await;
        answer.map_or(0, |answer| {
            assert!(canaries_in(&answer.text(), &[]).is_empty(), "{}", answer.text());
            answer.status.as_u16()
        })
    };
    let limit = std::time::Duration::from_secs(20);
    eventually("the agent takes its token", limit, async || (with(OLD_TOKEN).await == 200).then_some(())).await;
    assert_eq!(with(NEW_TOKEN).await, 401);
    for (text, old, new) in [
        (format!("{OLD_TOKEN}\n{NEW_TOKEN}\n"), 200, 200),
        (format!("{NEW_TOKEN}\n"), 401, 200),
        (format!("{OLD_TOKEN}\nshort\n"), 401, 200),
        (String::new(), 401, 200),
    ] {
        let reads = agent.log().matches("q8_agent").count();
        std::fs::write(&file, &text).expect("the file is written");
        let pid = rustix::process::Pid::from_raw(agent.pid().try_into().expect("a process id")).expect("not zero");
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("the agent can be signalled");
        eventually("the signal is noticed", limit, async || {
            (agent.log().matches("q8_agent").count() > reads).then_some(())
        })
        .await;
        eventually("the tokens are exchanged", limit, async || {
            (with(OLD_TOKEN).await == old && with(NEW_TOKEN).await == new).then_some(())
        })
        .await;
    }
}
