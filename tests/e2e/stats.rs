//! What the agent says that a tenant uses is what the engine says, and the host's numbers are the engine's and the kernel's.

use std::time::Instant;

use bollard::query_parameters::StatsOptionsBuilder;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::eventually;
use crate::tenant::{PATIENCE, Tenant, containers_in};

/// One works as hard as it may, one holds memory and a file and has asked the third something, which has nothing to do else.
const COMPOSE: &str = r#"
services:
  busy:
    image: q8test/busybox:1
    command: ["dd", "if=/dev/zero", "of=/dev/null"]
    cpus: 0.3
    stop_signal: SIGKILL
  holder:
    image: q8test/busybox:1
    command:
      - sh
      - -c
      - |
        dd if=/dev/zero of=/dev/shm/held bs=1M count=24 2>/dev/null
        dd if=/dev/zero of=/data/file bs=1M count=3 2>/dev/null
        until /bin/wget -qO /tmp/page http://idle/; do sleep 0.1; done
        echo ready
        exec sleep 3600
    mem_limit: 96m
    stop_signal: SIGKILL
    volumes: ["store:/data", "./data/own:/own"]
  idle:
    image: q8test/busybox:1
    command: ["sh", "-c", "mkdir /tmp/www; echo page >/tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"]
    stop_signal: SIGKILL
volumes: {store: {}}
"#;

const MIB: f64 = 1_048_576.0;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

fn of<'v>(stats: &'v Value, service: &str) -> &'v Value {
    let all = stats["containers"].as_array().expect("containers");
    all.iter().find(|container| container["service"] == service).unwrap_or_else(|| panic!("no {service}: {stats}"))
}

/// What `docker stats` would show of a container's memory, and the CPU time that it has used, in seconds.
async fn engines_view(engine: &Engine, container: &str) -> (f64, f64) {
    let options = StatsOptionsBuilder::new().stream(false).build();
    let docker = engine.docker();
    let stats = docker.stats(container, Some(options)).next().await.expect("an answer").expect("stats");
    let memory = stats.memory_stats.expect("memory");
    let parts = memory.stats.unwrap_or_default();
    let cache = parts.get("total_inactive_file").or_else(|| parts.get("inactive_file")).copied().unwrap_or(0);
    let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage).and_then(|usage| usage.total_usage).expect("CPU time");
    #[allow(clippy::cast_precision_loss, reason = "compared roughly")]
    let seen = ((memory.usage.expect("usage") - cache) as f64, cpu as f64 / 1e9);
    seen
}

#[tokio::test]
async fn a_tenant_uses_what_the_engine_says() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let tenant = Tenant::new(&agent, "use");
    tenant.provision(COMPOSE, json!({})).await;
    // The first question has the sizes measured, and they are not measured again for long.
    tenant.says("holder", "ready").await;
    let path = format!("/v1/tenants/stats/{}", tenant.name);
    let ids = containers_in(&tenant.status().await, &tenant.name);
    let id = |service: &str| {
        let found = ids.iter().find(|(name, _)| name.contains(service));
        found.unwrap_or_else(|| panic!("no {service}: {ids:?}")).1.id.clone()
    };

    let stats = agent.get(&path).await.expect(200);
    let (memory, _) = engines_view(engine, &id("holder")).await;
    let held = number(&of(&stats, "holder")["memory_bytes"]);
    assert!(held > 24.0 * MIB, "{stats}");
    assert!((held - memory).abs() < 8.0 * MIB, "the agent says {held}, the engine {memory}");
    assert_eq!(of(&stats, "holder")["memory_limit_bytes"], json!(96_u64 << 20));

    // The engine is asked before and after: the agent's count lies between.
    let (_, before) = engines_view(engine, &id("busy")).await;
    let stats = agent.get(&path).await.expect(200);
    let (_, after) = engines_view(engine, &id("busy")).await;
    let busy = of(&stats, "busy");
    let counted = number(&busy["cpu_seconds"]);
    assert!(before <= counted && counted <= after, "{before} {counted} {after}");
    // It gets a third of a CPU at most, whatever else this machine does, and sleeps for nothing but that.
    let cores = number(&busy["cpu_used_cores"]);
    assert!(cores > 0.0 && cores < 0.6, "{busy}");
    assert!(cores > number(&of(&stats, "idle")["cpu_used_cores"]), "{stats}");
    assert_eq!(stats["total"]["pids"], json!(3), "{stats}");
    assert!(number(&of(&stats, "holder")["network_received_bytes"]) > 0.0, "{stats}");
    eventually("it has been throttled", PATIENCE, async || {
        let stats = agent.get(&path).await.expect(200);
        (number(&of(&stats, "busy")["cpu_throttled_seconds"]) > 0.0).then_some(())
    })
    .await;

    let disk = eventually("sizes have been measured", PATIENCE, async || {
        let disk = agent.get(&path).await.expect(200)["disk"].clone();
        (!disk["directory"].is_null() && !disk["volumes"].is_null()).then_some(disk)
    })
    .await;
    let store = &disk["volumes"]["each"][0];
    assert_eq!(store["name"], format!("q8-{}_store", tenant.name));
    assert!((3.0 * MIB..4.0 * MIB).contains(&number(&store["bytes"])), "{disk}");
    assert!(number(&disk["directory"]["total_bytes"]) > 0.0, "{disk}");

    tenant.act("stop", "").await.expect(200);
    let stopped = agent.get(&path).await.expect(200);
    assert_eq!((&stopped["total"]["memory_bytes"], &stopped["total"]["pids"]), (&json!(0), &json!(0)), "{stopped}");
    tenant.purge().await;
}

/// The value of a series in the text for Prometheus.
fn counted(metrics: &str, series: &str) -> f64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
    value.unwrap_or_else(|| panic!("no {series}\n{metrics}"))
}

/// How often the engine has been called so.
fn calls(metrics: &str, call: &str) -> f64 {
    counted(metrics, &format!("q8_agent_engine_call_duration_seconds_count{{call=\"{call}\"}}"))
}

#[tokio::test]
async fn the_host_is_what_the_engine_says_it_is() {
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).start().await;
    let before = agent.get("/v1/system/stats").await.expect(200);
    let info = engine.docker().info().await.expect("the engine tells about itself");
    assert_eq!(before["cpu"]["total_cores"], json!(info.ncpu));
    assert_eq!(before["memory"]["total_bytes"], json!(info.mem_total));
    assert_eq!(before["engine"]["version"], json!(info.server_version));
    assert_eq!(before["engine"]["state"], "up");
    assert!(number(&before["images"]["count"]) >= 1.0 && number(&before["images"]["bytes"]) > 0.0, "{before}");
    assert!(before["disks"]["engine_root"].is_object(), "of the first answer, too: {before}");
    let free = |stats: &Value| (number(&stats["ports"]["free"]), number(&stats["subnets"]["free"]));
    let (ports, subnets) = free(&before);
    assert!(ports > 0.0 && ports <= 10_000.0 && subnets > 0.0 && subnets <= 1024.0, "{before}");

    let tenant = Tenant::new(&agent, "room");
    let text =
        "services: {web: {image: 'q8test/busybox:1', command: [sleep, '3600'], stop_signal: SIGKILL, ports: ['80']}}\n";
    tenant.provision(text, json!({})).await;
    let after = agent.get("/v1/system/stats").await.expect(200);
    assert_eq!(after["tenants"]["running"], 1);
    assert!(number(&after["memory"]["committed_bytes"]) > 0.0, "{after}");
    let metrics = agent.get("/metrics").await.text();
    let calls = |call: &str| calls(&metrics, call);
    assert!((calls("create") - 1.0).abs() < f64::EPSILON, "{metrics}");
    // Once more for each subnet that an agent of another test has taken at the same moment.
    assert!(calls("create_network") >= 1.0, "{metrics}");
    assert!((counted(&metrics, "q8_agent_engine_up") - 1.0).abs() < f64::EPSILON, "{metrics}");
    tenant.purge().await;
}

#[tokio::test]
async fn many_who_ask_at_once_are_answered_from_one_look() {
    let agent = Options::docker(Engine::shared()).start().await;
    let looks = async || calls(&agent.get("/metrics").await.text(), "ping");
    let (before, begun) = (looks().await, Instant::now());
    // Nobody can be answered from what the question for the metrics has left behind.
    agent.post("/v1/system/cordon", &Value::Null).await.expect(200);
    let asking = (0..100).map(|_| agent.get("/v1/system/stats"));
    for answer in futures::future::join_all(asking).await {
        assert_eq!(answer.expect(200)["schedulable"], false);
    }
    // One for those who come first, one for each second that a slow machine needs, and the agent's own.
    let (looked, most) = (looks().await - before, 5.0 + 3.0 * begun.elapsed().as_secs_f64());
    assert!(looked >= 1.0 && looked < most, "{looked} looks for 100 answers in {:?}", begun.elapsed());
}
