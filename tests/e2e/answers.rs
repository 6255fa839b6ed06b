//! The shape of every route's answer, and of every kind of refusal.

use hyper::Method;
use serde_json::{Value, json};

use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::http;
use crate::support::images::BUSYBOX;
use crate::tenant::{PATIENCE, Tenant, fields};

const STACK: &str = r#"
services:
  web:
    image: "q8test/busybox:1"
    stop_signal: SIGKILL
    ports: ["80"]
    command: [sh, -c, "echo to out; echo to err >&2; exec httpd -f -p 80"]
"#;

const READ_TOKEN: &str = "f9e8d7c6b5a4039281706f5e4d3c2b1a";

async fn agent() -> Agent<'static> {
    let options = Options::docker(Engine::shared().with_busybox().await);
    options.env("Q8_AGENT_READ_TOKEN", READ_TOKEN).env("Q8_AGENT_MAX_BODY", "64KiB").start().await
}

#[tokio::test]
async fn every_route_answers_in_its_shape() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "shapes");
    let made = tenant.provision(STACK, json!({})).await;
    let provisioned =
        ["status", "id", "subdomain", "project", "backend", "generation", "changed", "warnings", "services"];
    assert_eq!(fields(&made), provisioned.into(), "{made}");
    assert_eq!((&made["id"], &made["subdomain"]), (&json!(tenant.id), &json!(tenant.name)));
    assert_eq!(made["project"], format!("q8-{}", tenant.name));
    a_service(&made["services"][0]);

    let status = tenant.status().await;
    let shape = [
        "subdomain",
        "id",
        "project",
        "backend",
        "desired",
        "state",
        "generation",
        "age_ms",
        "warnings",
        "endpoints",
        "services",
    ];
    assert_eq!(fields(&status), shape.into(), "{status}");
    assert_eq!(
        (&status["backend"], &status["state"], &status["generation"]),
        (&json!("docker"), &json!("running"), &json!(1))
    );
    assert!(status["age_ms"].is_u64(), "{status}");
    a_service(&status["services"][0]);
    let endpoint = &status["endpoints"][0];
    assert_eq!(fields(endpoint), ["service", "port", "protocol", "host", "host_port"].into(), "{endpoint}");
    assert_eq!((&endpoint["port"], &endpoint["host"]), (&json!(80), &json!("127.0.0.1")), "{endpoint}");

    let list = agent.get("/v1/tenants").await.expect(200);
    assert_eq!(fields(&list), ["age_ms", "tenants"].into(), "{list}");
    let line = &list["tenants"][0];
    let shape =
        ["subdomain", "id", "project", "backend", "desired", "state", "generation", "services_ready", "services"];
    assert_eq!(fields(line), shape.into(), "{line}");
    assert_eq!((&line["state"], &line["services_ready"], &line["services"]), (&json!("running"), &json!(1), &json!(1)));
    assert_eq!(list["tenants"].as_array().map(Vec::len), Some(1));

    let info = agent.get("/v1/system/info").await.expect(200);
    let shape = [
        "version",
        "agent",
        "backend",
        "backends",
        "policy",
        "capabilities",
        "host",
        "verified",
        "tenants",
        "max_tenants",
        "uptime_s",
    ];
    assert_eq!(fields(&info), shape.into(), "{info}");
    let verified = &info["verified"];
    let shape =
        ["api_on_loopback", "ports_on_loopback", "subnet_pool_is_free", "engine", "metadata_closed", "host_closed"];
    assert_eq!(fields(verified), shape.into(), "{verified}");
    assert_eq!(
        (&verified["api_on_loopback"], &verified["ports_on_loopback"], &verified["metadata_closed"]),
        (&json!(true), &json!(true), &Value::Null)
    );
    // A tenant's bridge is there, so these are the host's routes.
    assert_eq!(verified["subnet_pool_is_free"], json!(true), "{verified}");
    for guard in ["seccomp", "mandatory_access_control", "user_namespaces", "rootless", "live_restore"] {
        assert!(verified["engine"][guard].is_boolean(), "{guard}: {verified}");
    }
    assert_eq!(
        (&info["backend"], &info["policy"], &info["tenants"]),
        (&json!("docker"), &json!("baseline"), &json!(1))
    );
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    let host = &info["host"];
    assert_eq!(fields(host), ["engine", "version", "api_version", "os", "arch", "cpus", "memory"].into(), "{host}");
    assert!(host["cpus"].as_u64().is_some_and(|cpus| cpus > 0) && host["os"] == "linux", "{host}");

    for (path, word) in [("/health", "healthy"), ("/live", "alive"), ("/ready", "ready")] {
        let answer = http::send(agent.address(), Method::GET, path, &[], "").await.expect("probes need no token");
        assert_eq!(http::complete(answer).await.expect("a body").expect(200), json!({"status": word, "degraded": []}));
    }
    for (verb, word) in [("restart", "restarted"), ("stop", "stopped"), ("start", "started")] {
        let done = tenant.act(verb, "").await.expect(200);
        assert_eq!(done, json!({"status": word, "subdomain": tenant.name}));
    }
    let updated = tenant.update(json!({"env_content": "A=1\n"})).await.expect(200);
    assert_eq!((fields(&updated), &updated["status"]), (provisioned.into(), &json!("updated")), "{updated}");
    let back = tenant.act("rollback", "").await.expect(200);
    assert_eq!((fields(&back), &back["status"]), (provisioned.into(), &json!("rolled_back")), "{back}");
    let gone = tenant.act("teardown", "").await.expect(200);
    assert_eq!(fields(&gone), ["status", "subdomain", "changed", "kept"].into(), "{gone}");
    assert_eq!(fields(&gone["kept"]), ["volumes", "data", "archive"].into(), "{gone}");
    let kept = tenant.status().await;
    assert_eq!((&kept["state"], &kept["services"]), (&json!("kept"), &json!([])), "{kept}");
    let line = agent.get("/v1/tenants").await.expect(200)["tenants"][0].clone();
    assert_eq!((&line["state"], &line["services"]), (&json!("kept"), &json!(0)), "{line}");
    tenant.purge().await;
    assert_eq!(agent.get("/v1/tenants").await.expect(200)["tenants"], json!([]));
}

fn a_service(service: &Value) {
    assert_eq!(fields(service), ["name", "state", "health", "replicas", "containers"].into(), "{service}");
    let container = &service["containers"][0];
    let shape = ["name", "id", "state", "health", "exit_code", "started_at", "restart_count", "image"];
    assert_eq!(fields(container), shape.into(), "{container}");
    assert_eq!((&container["state"], &container["health"]), (&json!("running"), &json!("none")), "{container}");
    assert_eq!((&container["exit_code"], &container["restart_count"]), (&Value::Null, &json!(0)), "{container}");
    assert_eq!(container["image"], BUSYBOX);
    let time = container["started_at"].as_str().unwrap_or_default();
    assert!(time.parse::<jiff::Timestamp>().is_ok(), "{container}");
}

#[tokio::test]
async fn logs_come_as_text_and_as_ndjson() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "logs");
    tenant.provision(STACK, json!({})).await;
    tenant.says("web", "to out").await;
    tenant.says("web", "to err").await;
    let path = format!("/v1/tenants/logs/{}", tenant.name);
    let text = agent.get(&path).await;
    assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
    let mut lines: Vec<String> = text.text().lines().map(String::from).collect();
    lines.sort();
    assert_eq!(lines, ["web-1 | to err", "web-1 | to out"]);
    let stamped = agent.get(&format!("{path}?timestamps=true&tail=1")).await.text();
    let (time, rest) = stamped.split_once(' ').expect("a time first");
    assert!(time.parse::<jiff::Timestamp>().is_ok() && rest.starts_with("web-1 | to "), "{stamped}");

    let mut ndjson = agent.stream(&format!("{path}?follow=true"), &[("accept", "application/x-ndjson")]).await;
    let mut found = Vec::new();
    for _ in 0..2 {
        let line = ndjson.next(PATIENCE).await.expect("a line");
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(fields(&line), ["time", "service", "container", "stream", "line", "cursor"].into(), "{line}");
        assert_eq!(
            (&line["service"], &line["container"]),
            (&json!("web"), &json!(format!("q8-{}-web-1", tenant.name)))
        );
        found.push((line["stream"].as_str().unwrap_or_default().to_owned(), line["line"].to_string()));
    }
    found.sort();
    let pair = |stream: &str, line: &str| (stream.to_owned(), line.to_owned());
    assert_eq!(found, [pair("stderr", "\"to err\""), pair("stdout", "\"to out\"")]);
    tenant.purge().await;
    assert_eq!(ndjson.next(PATIENCE).await, None, "a follower's stream ends with the tenant");
    agent.get(&path).await.refused(404, "NOT_FOUND");
}

#[tokio::test]
async fn refusals_have_their_status_their_code_and_their_place() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "refused");
    tenant.provision(STACK, json!({})).await;
    let name = tenant.name.as_str();
    let on = |verb: &str| format!("/v1/tenants/{verb}/{name}");

    // 400, 404, 405 by path, query and method.
    for (method, path, status, code, field) in [
        (Method::GET, "/v1/nothing".to_owned(), 404, "NOT_FOUND", None),
        (Method::GET, "/v1/tenants/status/absent".to_owned(), 404, "NOT_FOUND", None),
        (Method::POST, "/v1/tenants/restart/absent".to_owned(), 404, "NOT_FOUND", None),
        (Method::POST, "/v1/tenants/rollback/absent".to_owned(), 404, "NOT_FOUND", None),
        (Method::POST, format!("{}?service=absent", on("stop")), 404, "NOT_FOUND", Some("service")),
        (Method::GET, format!("{}?service=absent", on("logs")), 404, "NOT_FOUND", Some("service")),
        (Method::GET, "/v1/tenants/status/Upper".to_owned(), 400, "INVALID_SUBDOMAIN", None),
        (Method::GET, "/v1/tenants/status/..".to_owned(), 400, "INVALID_SUBDOMAIN", None),
        (Method::GET, format!("{}?verbose=1", on("status")), 400, "INVALID_REQUEST", Some("verbose")),
        (Method::GET, "/v1/tenants?page=2".to_owned(), 400, "INVALID_REQUEST", Some("page")),
        (Method::GET, "/health?deep=1".to_owned(), 400, "INVALID_REQUEST", Some("deep")),
        (Method::GET, format!("{}?tail=many", on("logs")), 400, "INVALID_REQUEST", Some("tail")),
        (Method::GET, format!("{}?since=yesterday", on("logs")), 400, "INVALID_REQUEST", Some("since")),
        (Method::POST, format!("{}?purge=yes", on("teardown")), 400, "INVALID_REQUEST", Some("purge")),
        (Method::POST, format!("{}?from=first", on("rollback")), 400, "INVALID_REQUEST", Some("from")),
        (Method::GET, on("teardown"), 405, "METHOD_NOT_ALLOWED", None),
        (Method::DELETE, "/v1/tenants".to_owned(), 405, "METHOD_NOT_ALLOWED", None),
        (Method::POST, "/health".to_owned(), 405, "METHOD_NOT_ALLOWED", None),
        (Method::POST, format!("{}?from=7", on("rollback")), 409, "GENERATION_MISMATCH", None),
        (Method::POST, on("rollback"), 409, "GENERATION_MISMATCH", None),
    ] {
        let answer = agent.request(method.clone(), &path, &[], "").await;
        let body = answer.refused(status, code);
        assert_eq!(body["field"].as_str(), field, "{method} {path}: {body}");
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{method} {path}");
    }

    // 400 by body.
    let provision = "/v1/tenants/provision";
    for (body, code, field, line, column) in [
        ("", "INVALID_REQUEST", None, None, None),
        ("{\"id\": 1", "INVALID_REQUEST", None, Some(1), Some(8)),
        ("[]", "INVALID_REQUEST", None, Some(1), Some(1)),
        ("{\n  \"id\": 5\n}", "INVALID_REQUEST", Some("id"), Some(2), Some(9)),
        ("{\"id\": \"x\"}", "INVALID_REQUEST", Some("subdomain"), Some(1), Some(1)),
        ("{\"id\": \"x\", \"subdomain\": \"no_good\"}", "INVALID_SUBDOMAIN", Some("subdomain"), Some(1), Some(26)),
        ("{\"id\": \"x\", \"id\": \"y\"}", "INVALID_REQUEST", Some("id"), Some(1), Some(19)),
        (
            "{\"id\":\"x\",\"subdomain\":\"a\",\"compose_content\":\"\",\"more\":1}",
            "INVALID_REQUEST",
            Some("more"),
            Some(1),
            Some(55),
        ),
        (
            "{\"id\":\"x\",\"subdomain\":\"a\",\"compose_content\":\"\",\"files\":{\"../x\":\"\"}}",
            "INVALID_FILE_PATH",
            Some("files[\"../x\"]"),
            Some(1),
            Some(64),
        ),
        (
            "{\"id\":\"x\",\"subdomain\":\"a\",\"compose_content\":\"\",\"files\":{\"x\":{\"text\":\"\",\"mode\":420}}}",
            "INVALID_REQUEST",
            Some("files[\"x\"].mode"),
            Some(1),
            Some(79),
        ),
    ] {
        let answer = agent.request(Method::POST, provision, &[("content-type", "application/json")], body).await;
        let refused = answer.refused(400, code);
        assert_eq!(refused["field"].as_str(), field, "{body}: {refused}");
        let place = (refused["line"].as_u64(), refused["column"].as_u64());
        assert_eq!(place, (line, column), "{body}: {refused}");
    }
    agent
        .request(Method::POST, provision, &[("content-type", "text/plain")], "{}")
        .await
        .refused(400, "INVALID_REQUEST");

    // 409, 413, 422 with the place in the Compose file.
    let heir = Tenant::again(&agent, name, "somebody-else");
    agent.post(provision, &heir.body(STACK, &json!({}))).await.refused(409, "ID_MISMATCH");
    agent.post(provision, &tenant.body(&"#".repeat(70_000), &json!({}))).await.refused(413, "PAYLOAD_TOO_LARGE");
    for (compose, code, field, line, column) in [
        ("services:\n  web: [", "COMPOSE_INVALID", None, Some(2), Some(9)),
        ("services: {}\n", "COMPOSE_INVALID", None, Some(1), Some(1)),
        (
            "services:\n  web:\n    image: x\n    imagee: y\n",
            "COMPOSE_INVALID",
            Some("services.web.imagee"),
            Some(4),
            Some(5),
        ),
        (
            "services:\n  web:\n    image: \"${NOT_SET:?is needed}\"\n",
            "COMPOSE_INVALID",
            Some("services.web.image"),
            Some(3),
            Some(12),
        ),
        (
            "services:\n  web:\n    image: x\n    depends_on: [other]\n",
            "COMPOSE_INVALID",
            Some("services.web.depends_on[0]"),
            Some(4),
            Some(18),
        ),
        (
            "services:\n  web:\n    image: x\n    privileged: true\n",
            "POLICY_DENIED",
            Some("services.web.privileged"),
            Some(4),
            Some(17),
        ),
        (
            "services:\n  web:\n    image: x\n    volumes:\n      - /:/host\n",
            "POLICY_DENIED",
            Some("services.web.volumes[0]"),
            Some(5),
            Some(9),
        ),
    ] {
        let body = agent.post(provision, &tenant.body(compose, &json!({}))).await.refused(422, code);
        assert_eq!(body["field"].as_str(), field, "{compose}: {body}");
        assert_eq!(body["line"].as_u64(), line, "{compose}: {body}");
        if column.is_some() {
            assert_eq!(body["column"].as_u64(), column, "{compose}: {body}");
        }
        assert_eq!(body["retryable"], false);
    }
    let many = "services:\n  a: {image: x, privileged: true, pid: host}\n  b: {image: x, devices: [/dev/sda]}\n";
    let body = agent.post(provision, &tenant.body(many, &json!({}))).await.refused(422, "POLICY_DENIED");
    let refusals = body["details"]["refusals"].as_array().expect("every refusal at once");
    let told: Vec<&str> = refusals.iter().filter_map(|refusal| refusal["field"].as_str()).collect();
    assert_eq!(told, ["services.a.privileged", "services.a.pid", "services.b.devices[0]"], "{body}");
    for refusal in refusals {
        assert_eq!(fields(refusal), ["field", "rule", "allowed", "line", "column"].into(), "{refusal}");
    }
    let elsewhere = json!({"placement": {"backend": "aci", "region": "westeurope"}});
    let body = agent.post(provision, &tenant.body(STACK, &elsewhere)).await;
    body.refused(409, "PLACEMENT_CHANGE");

    // None of it has changed anything.
    let status = tenant.status().await;
    assert_eq!((&status["state"], &status["generation"]), (&json!("running"), &json!(1)), "{status}");
    tenant.purge().await;
}

#[tokio::test]
async fn tokens_open_what_they_are_for() {
    let agent = agent().await;
    let bare = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        let answer = http::send(agent.address(), method, path, headers, "").await.expect("an answer");
        http::complete(answer).await.expect("a body")
    };
    // Without a good token nothing is told, not even which paths there are.
    for path in ["/v1/tenants", "/v1/nothing", "/metrics", "/v1/tenants/status/Upper"] {
        for headers in [&[][..], &[("authorization", "Bearer nonsense")], &[("authorization", "Basic abc")]] {
            let answer = bare(Method::GET, path, headers).await;
            answer.refused(401, "UNAUTHORIZED");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    let read = format!("Bearer {READ_TOKEN}");
    let read = [("authorization", read.as_str())];
    for path in ["/v1/tenants", "/v1/system/info"] {
        assert_eq!(bare(Method::GET, path, &read).await.status, 200, "{path}");
    }
    for path in ["/v1/tenants/provision", "/v1/tenants/stop/absent", "/v1/tenants/teardown/absent?purge=true"] {
        bare(Method::POST, path, &read).await.refused(403, "FORBIDDEN");
    }
    assert!(!agent.log().contains(READ_TOKEN) && !agent.log().contains(agent.token()), "a token is in the log");
}

#[tokio::test]
async fn a_request_is_found_under_its_id() {
    let agent = agent().await;
    for path in ["/health", "/v1/tenants", "/v1/nothing"] {
        let given = agent.request(Method::GET, path, &[("x-request-id", "main-42.a_b")], "").await;
        assert_eq!(given.headers["x-request-id"], "main-42.a_b", "{path}");
        if given.status != 200 {
            assert_eq!(given.json()["request_id"], "main-42.a_b");
        }
        // One that could be an injection is replaced.
        let replaced = agent.request(Method::GET, path, &[("x-request-id", "a b\"c")], "").await;
        let id = replaced.headers["x-request-id"].to_str().expect("text").to_owned();
        assert!(uuid::Uuid::parse_str(&id).is_ok(), "{id}");
        let own = agent.request(Method::GET, path, &[], "").await.headers["x-request-id"].clone();
        assert_ne!(own.to_str().expect("text"), id);
    }
    assert!(agent.log().contains("\"request_id\":\"main-42.a_b\""), "the log has it");
}

#[tokio::test]
async fn the_description_is_served_as_it_was_made() {
    let agent = agent().await;
    let path = "/openapi.json";
    let told = agent.get(path).await;
    assert_eq!(told.status, 200);
    assert!(told.text() == include_str!("../../src/api/openapi/openapi.json"), "it is another one");
    assert_eq!(told.headers["content-type"], "application/json");
    let head = agent.request(Method::HEAD, path, &[], "").await;
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));
    for name in ["content-type", "content-length"] {
        assert_eq!(head.headers[name], told.headers[name], "{name}");
    }
    // Whoever may read may read it, and nobody else.
    let reader = format!("Bearer {READ_TOKEN}");
    let read = agent.request(Method::GET, path, &[("authorization", &reader)], "").await;
    assert_eq!((read.status.as_u16(), read.bytes == told.bytes), (200, true));
    agent.request(Method::GET, path, &[("authorization", "")], "").await.refused(401, "UNAUTHORIZED");
    agent.get("/openapi.json?pretty=1").await.refused(400, "INVALID_REQUEST");
}
