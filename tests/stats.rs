//! The agent's numbers over HTTP on the in-memory backend: the host, a tenant, and the text for Prometheus, with the names
//! that dashboards, alerts and documentation use.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use hyper::Method;
use q8_agent::domain::{ErrorCode, TenantState};
use q8_agent::telemetry::{FamilyKind, Metrics};
use serde_json::{Value, json};
use support::agent::{Agent, Options};
use support::eventually;

const COMPOSE: &str =
    "services: {web: {image: 'q8test/busybox:1', command: [sleep, infinity], mem_limit: 64m, cpus: 0.5,
  volumes: ['store:/data'], scale: 2}, db: {image: 'q8test/busybox:1', command: [sleep, infinity]}}
volumes: {store: {}}
";

async fn provision(agent: &Agent<'_>, subdomain: &str) {
    let body = json!({ "id": format!("id-{subdomain}"), "subdomain": subdomain, "compose_content": COMPOSE });
    agent.post("/v1/tenants/provision", &body).await.expect(201);
}

async fn stats(agent: &Agent<'_>) -> Value {
    agent.get("/v1/system/stats").await.expect(200)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

#[tokio::test]
async fn the_host_tells_what_is_used_and_what_is_promised() {
    let agent = Options::memory().env("Q8_AGENT_MAX_TENANTS", "2").start().await;
    let before = stats(&agent).await;
    assert_eq!(
        before["tenants"],
        json!({ "running": 0, "stopped": 0, "kept": 0, "unreadable": 0, "max": 2, "free": 2 })
    );
    assert_eq!((&before["cpu"]["total_cores"], &before["memory"]["total_bytes"]), (&json!(4), &json!(8_u64 << 30)));
    assert!(number(&before["cpu"]["used_cores"]) >= 0.0 && number(&before["memory"]["used_bytes"]) > 0.0, "{before}");
    assert!(number(&before["disks"]["tenants_root"]["total_bytes"]) > 0.0, "{before}");
    assert_eq!(before["disks"]["engine_root"], Value::Null, "the pretend engine has no disk");
    assert_eq!((&before["engine"]["state"], &before["engine"]["kind"]), (&json!("up"), &json!("memory")));
    assert_eq!((&before["ports"]["total"], &before["ports"]["free"]), (&json!(10_000), &Value::Null));
    assert!(before["age_ms"].is_u64() && before["load"]["avg1"].is_number(), "{before}");
    assert_eq!(before["memory"]["committed_bytes"], 0);

    // An operation is shown by the very next answer, however young the one before is.
    provision(&agent, "one").await;
    let one = stats(&agent).await;
    assert_eq!(one["tenants"]["running"], 1);
    assert_eq!(one["memory"]["committed_bytes"], json!(2 * (64 << 20) + (32 << 20)));
    assert!((number(&one["cpu"]["committed_cores"]) - 1.02).abs() < 1e-6, "{one}");
    assert!(number(&one["memory"]["committable_bytes"]) > number(&one["memory"]["committed_bytes"]), "{one}");
    provision(&agent, "two").await;
    let full = stats(&agent).await;
    assert_eq!(full["schedulable"], false);
    assert!(full["reasons"].as_array().is_some_and(|reasons| reasons.contains(&json!("slots"))), "{full}");
    agent.post("/v1/tenants/stop/two", &Value::Null).await.expect(200);
    assert_eq!(stats(&agent).await["tenants"]["stopped"], 1);
    agent.post("/v1/tenants/teardown/two", &Value::Null).await.expect(200);
    let freed = stats(&agent).await;
    assert_eq!((&freed["tenants"]["kept"], &freed["tenants"]["free"]), (&json!(1), &json!(1)));
    assert!(freed["reasons"].as_array().is_some_and(|reasons| !reasons.contains(&json!("slots"))), "{freed}");
    agent.post("/v1/system/cordon", &json!({ "reason": "disks are exchanged" })).await.expect(200);
    let closed = stats(&agent).await;
    assert!(closed["reasons"].as_array().is_some_and(|reasons| reasons.contains(&json!("cordoned"))), "{closed}");
    agent.post("/v1/system/uncordon", &Value::Null).await.expect(200);
    let open = stats(&agent).await;
    assert!(open["reasons"].as_array().is_some_and(|reasons| !reasons.contains(&json!("cordoned"))), "{open}");
    agent.get("/v1/system/stats?fresh=1").await.refused(400, "INVALID_REQUEST");
}

#[tokio::test]
async fn a_tenant_tells_what_each_container_uses_and_all_together() {
    let agent = Options::memory().start().await;
    provision(&agent, "acme").await;
    let found = agent.get("/v1/tenants/stats/acme").await.expect(200);
    assert_eq!(
        (&found["subdomain"], &found["id"], &found["generation"]),
        (&json!("acme"), &json!("id-acme"), &json!(1))
    );
    let containers = found["containers"].as_array().expect("containers");
    let names: Vec<&str> = containers.iter().filter_map(|container| container["name"].as_str()).collect();
    assert_eq!(names, ["q8-acme-db-1", "q8-acme-web-1", "q8-acme-web-2"]);
    for part in ["cpu_used_cores", "cpu_seconds", "memory_bytes", "pids", "network_received_bytes", "block_read_bytes"]
    {
        let sum: f64 = containers.iter().map(|container| number(&container[part])).sum();
        assert!((sum - number(&found["total"][part])).abs() < 1e-9, "{part}: {found}");
    }
    assert!(
        number(&found["total"]["memory_bytes"]) > 0.0 && number(&found["total"]["cpu_used_cores"]) > 0.0,
        "{found}"
    );
    // Sizes are measured behind the first answer.
    let sized = eventually("sizes have been measured", Duration::from_secs(20), async || {
        let found = agent.get("/v1/tenants/stats/acme").await.expect(200);
        let disk = &found["disk"];
        (!disk["directory"].is_null() && !disk["volumes"].is_null()).then(|| disk.clone())
    });
    let disk = sized.await;
    assert!(number(&disk["directory"]["total_bytes"]) > 0.0 && disk["directory"]["complete"] == true, "{disk}");
    assert_eq!(disk["volumes"]["each"], json!([{ "name": "q8-acme_store", "bytes": 0 }]), "{disk}");

    agent.post("/v1/tenants/stop/acme", &Value::Null).await.expect(200);
    let stopped = agent.get("/v1/tenants/stats/acme").await.expect(200);
    assert_eq!((&stopped["total"]["memory_bytes"], &stopped["total"]["cpu_used_cores"]), (&json!(0), &json!(0.0)));
    assert_eq!((&stopped["containers"][0]["running"], &stopped["total"]["pids"]), (&json!(false), &json!(0)));
    agent.post("/v1/tenants/teardown/acme", &Value::Null).await.expect(200);
    let kept = agent.get("/v1/tenants/stats/acme").await.expect(200);
    assert_eq!(kept["containers"], json!([]));
    agent.get("/v1/tenants/stats/nobody").await.refused(404, "NOT_FOUND");
}

#[tokio::test]
async fn prometheus_reads_what_has_happened() {
    let read_token = "5b1e9d7c3a2f4e6d8c0b9a7f6e5d4c3b";
    let agent = Options::memory().env("Q8_AGENT_READ_TOKEN", read_token).start().await;
    provision(&agent, "acme").await;
    agent.get("/v1/tenants/status/nobody").await.refused(404, "NOT_FOUND");
    let wrong = agent.request(Method::GET, "/metrics", &[("authorization", "Bearer wrong")], "").await;
    wrong.refused(401, "UNAUTHORIZED");
    let scrape = async || {
        let authorization = format!("Bearer {read_token}");
        let answer = agent.request(Method::GET, "/metrics", &[("authorization", &authorization)], "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        answer.text()
    };
    let text = scrape().await;
    for line in [
        "q8_agent_operations_total{kind=\"provision\",outcome=\"ok\"} 1",
        "q8_agent_http_requests_total{route=\"/v1/tenants/provision\",method=\"POST\",status=\"2xx\"} 1",
        "q8_agent_http_requests_total{route=\"/v1/tenants/status/{subdomain}\",method=\"GET\",status=\"4xx\"} 1",
        "q8_agent_http_failed_logins_total 1",
        "q8_agent_operation_step_duration_seconds_count{kind=\"provision\",step=\"apply\"} 1",
        "q8_agent_operations_running 0",
        "q8_agent_journals_open 0.0",
        "q8_agent_journal_oldest_seconds 0.0",
        "q8_agent_tenants{state=\"running\"} 1.0",
        "q8_agent_containers{state=\"running\"} 3.0",
        "q8_agent_engine_up 1.0",
        "q8_agent_tenants_max 200.0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(
        text.contains(&format!(
            "q8_agent_build_info{{version=\"{}\",backend=\"memory\"}} 1",
            env!("CARGO_PKG_VERSION")
        ))
    );
    for name in ["process_resident_memory_bytes ", "process_open_fds ", "process_cpu_seconds_total "] {
        assert!(text.contains(name), "{name}\n{text}");
    }
    assert!(!text.contains(agent.token()) && !text.contains(read_token));
    // What tenants use is measured behind a scrape.
    eventually("the tenant's usage is told", Duration::from_secs(20), async || {
        scrape().await.contains("q8_agent_tenant_memory_bytes{subdomain=\"acme\"}").then_some(())
    })
    .await;
}

#[tokio::test]
async fn prometheus_reads_what_is_being_done() {
    let agent = Options::memory().start().await;
    let undecided = "services: {web: {image: 'q8test/busybox:1', command: [sleep, infinity],
  healthcheck: {test: [CMD, 'true'], interval: 1h}}}\n";
    let body = json!({ "id": "id-acme", "subdomain": "acme", "compose_content": undecided }).to_string();
    let headers = [("content-type", "application/json"), ("prefer", "respond-async")];
    let begun = agent.request(Method::POST, "/v1/tenants/provision", &headers, body).await.expect(202);
    let counted = async |name: &str| -> f64 {
        let text = agent.get("/metrics").await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name}\n{text}"))
    };
    let one = async |name: &str| ((counted(name).await - 1.0).abs() < f64::EPSILON).then_some(());
    let none = async |name: &str| (counted(name).await < f64::EPSILON).then_some(());
    let limit = Duration::from_secs(60);
    eventually("its journal is open", limit, async || one("q8_agent_journals_open").await).await;
    eventually("it runs", limit, async || one("q8_agent_operations_running").await).await;
    eventually("it becomes older", limit, async || {
        (counted("q8_agent_journal_oldest_seconds").await > 0.0).then_some(())
    })
    .await;
    let id = begun["id"].as_str().expect("an id");
    agent.post(&format!("/v1/operations/{id}/cancel"), &Value::Null).await.expect(202);
    for name in ["q8_agent_journals_open", "q8_agent_journal_oldest_seconds", "q8_agent_operations_running"] {
        eventually("it has ended", limit, async || none(name).await).await;
    }
}

/// Every name of one of our metrics in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_name(c));
    let ours = words.filter(|word| word.starts_with("q8_agent_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every query of the dashboard and of the alerts.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&file("deploy/grafana-dashboard.json")).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() > 10);
    let mut queries: Vec<String> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default())
        .filter_map(|target| target["expr"].as_str().map(str::to_owned))
        .collect();
    queries.extend(rules().iter().map(|rule| rule["expr"].as_str().expect("an expression").to_owned()));
    queries
}

fn rules() -> Vec<Value> {
    let alerts: Value = serde_yaml::from_str(&file("deploy/alerts.yaml")).expect("the alerts are YAML");
    let groups = alerts["groups"].as_array().expect("groups").iter();
    groups.filter_map(|group| group["rules"].as_array().cloned()).flatten().collect()
}

/// The selectors of a query: the metric, the label, and each value that the label is compared with.
fn selected(query: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut parts = query.split('{');
    let mut before = parts.next().unwrap_or_default();
    for part in parts {
        let name = before.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default();
        let (selectors, after) = part.split_once('}').unwrap_or_else(|| panic!("a brace is open: {query}"));
        for selector in selectors.split(',') {
            let (label, compared) = selector.split_once(['=', '!']).unwrap_or_else(|| panic!("{selector}: {query}"));
            let values = compared.trim_start_matches(['=', '~']).trim_matches('"');
            found.extend(values.split('|').map(|value| (name.to_owned(), label.to_owned(), value.to_owned())));
        }
        before = after;
    }
    found
}

/// Whether the agent gives a label this value. Those that no type of the library has are looked for where they are given.
fn is_given(metric: &str, label: &str, value: &str) -> bool {
    let says = |path: &str, before: &str| {
        let source: String = file(path).split_whitespace().collect();
        source.contains(&format!("{before}\"{value}\""))
    };
    let word = json!(value);
    match (metric, label) {
        ("q8_agent_operations_total", "outcome") => {
            ["ok", "interrupted"].contains(&value) || serde_json::from_value::<ErrorCode>(word).is_ok()
        }
        ("q8_agent_image_pulls_total", "outcome") => value == "ok" || says("src/backend/docker/pulls.rs", "=>"),
        ("q8_agent_engine_call_duration_seconds_bucket" | "q8_agent_engine_call_errors_total", "call") => {
            ["within(", "changing(", "count("].iter().any(|call| says("src/backend/docker/engine.rs", call))
        }
        ("q8_agent_engine_call_errors_total", "reason") => says("src/backend/docker/engine.rs", "Some("),
        ("q8_agent_http_requests_total", "status") => says("src/telemetry/metrics/mod.rs", "=>"),
        ("q8_agent_tenants", "state") => serde_json::from_value::<TenantState>(word).is_ok(),
        ("q8_agent_containers", "state") => {
            ["created", "running", "paused", "restarting", "exited", "dead"].contains(&value)
        }
        ("q8_agent_host_pressure_ratio", "resource" | "share") => says("src/orchestrator/stats/scrape.rs", "("),
        // Whoever scrapes gives these.
        (_, "instance" | "job") => true,
        _ => panic!("what {label} of {metric} can be is not known here"),
    }
}

#[test]
fn dashboards_and_alerts_select_values_that_there_are() {
    let of = |query| selected(query).into_iter().map(|(name, label, value)| format!("{name} {label} {value}"));
    let query = "sum by (le) (rate(a_b{call=~\"x|y\",z!=\"1\"}[5m])) / c{s!~\"2\"}";
    assert_eq!(of(query).collect::<Vec<_>>(), ["a_b call x", "a_b call y", "a_b z 1", "c s 2"]);
    let all: BTreeSet<_> = queries().iter().flat_map(|query| selected(query)).collect();
    for label in ["call", "outcome", "reason", "status", "state"] {
        assert!(all.iter().any(|(_, given, _)| given == label), "nothing is selected by {label}");
    }
    let unknown: Vec<_> = all.iter().filter(|(metric, label, value)| !is_given(metric, label, value)).collect();
    assert!(unknown.is_empty(), "no such values: {unknown:?}");
    for (metric, label) in [
        ("q8_agent_operations_total", "outcome"),
        ("q8_agent_image_pulls_total", "outcome"),
        ("q8_agent_engine_call_errors_total", "call"),
        ("q8_agent_engine_call_errors_total", "reason"),
        ("q8_agent_http_requests_total", "status"),
        ("q8_agent_tenants", "state"),
        ("q8_agent_host_pressure_ratio", "share"),
    ] {
        assert!(!is_given(metric, label, "none_such"), "{metric} {label}");
    }
}

#[test]
fn dashboards_and_alerts_use_names_that_there_are() {
    let metrics = Metrics::default();
    let mut series = BTreeSet::new();
    for family in metrics.families() {
        match family.kind {
            FamilyKind::Histogram => {
                series.extend(["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", family.name)));
            }
            _ => {
                series.insert(family.name.clone());
            }
        }
    }
    for rule in rules() {
        for part in ["alert", "for"] {
            assert!(rule[part].is_string(), "{rule}");
        }
        assert!(rule["labels"]["severity"].is_string() && rule["annotations"]["summary"].is_string(), "{rule}");
    }
    let used: BTreeSet<String> = queries().iter().flat_map(|query| names_in(query)).collect();
    assert!(used.len() > 20, "{used:?}");
    let unknown: Vec<&String> = used.difference(&series).collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
}

#[test]
fn every_metric_is_documented() {
    let metrics = Metrics::default();
    let known: BTreeSet<String> = metrics.families().iter().map(|family| family.name.clone()).collect();
    let text = file("docs/metrics.md");
    // The first column of its tables.
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<String> = rows.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(documented, known);
    for family in metrics.families() {
        assert!(text.contains(family.help), "{} says something else than its help: {}", family.name, family.help);
    }
}
