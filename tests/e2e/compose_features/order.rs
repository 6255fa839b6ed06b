//! Order: the three conditions of `depends_on`, on the way up and on the way down, and health.

use serde_json::{Value, json};

use super::{agent, inspected, nothing_is_left, report, reports};
use crate::support::engine::Engine;
use crate::tenant::{Tenant, service};

#[tokio::test]
async fn the_three_conditions_hold() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "order");
    // Each writes down when it has got where the next one is waiting for it to be.
    let compose = format!(
        r#"
x-common: &common {{image: "q8test/busybox:1", stop_signal: SIGKILL, volumes: ["log:/log"]}}
services:
  after-all:
    <<: *common
    depends_on:
      healthy: {{condition: service_healthy}}
      done: {{condition: service_completed_successfully}}
      begun: {{condition: service_started}}
    command: {after}
  healthy:
    <<: *common
    healthcheck: {{test: [CMD, test, -e, /tmp/well], interval: 500ms, timeout: 10s, retries: 300}}
    command: [sh, -c, "sleep 1; echo healthy >>/log/order; touch /tmp/well; exec sleep 3600"]
  done:
    <<: *common
    depends_on: [begun]
    command: [sh, -c, "sleep 1; echo done >>/log/order"]
  begun:
    <<: *common
    command: [sh, -c, "echo begun >>/log/order; exec sleep 3600"]
volumes: {{log: {{}}}}
"#,
        after = reports("cat /log/order"),
    );
    tenant.provision(&compose, json!({})).await;
    let mut said = report(&tenant, "after-all").await;
    said.sort();
    assert_eq!(said, ["begun", "done", "healthy"], "all of it came before the last one started");
    let status = tenant.status().await;
    assert_eq!(status["state"], "running", "{status}");
    for (name, state, health) in [
        ("after-all", "running", "none"),
        ("healthy", "healthy", "healthy"),
        ("done", "exited", "none"),
        ("begun", "running", "none"),
    ] {
        let found = service(&status, name);
        assert_eq!((&found["state"], &found["health"]), (&json!(state), &json!(health)), "{found}");
    }
    let started =
        |name: &str| service(&status, name)["containers"][0]["started_at"].as_str().unwrap_or_default().to_owned();
    assert!(started("begun") < started("done") && started("done") < started("after-all"), "{status}");

    // On the way down the other way round.
    tenant.act("stop", "").await.expect(200);
    let all = inspected(&tenant).await;
    let finished = |name: &str| all[name]["State"]["FinishedAt"].as_str().unwrap_or_default().to_owned();
    assert!(
        finished("after-all-1") < finished("healthy-1") && finished("after-all-1") < finished("begun-1"),
        "{all:?}"
    );

    // What has completed stays so.
    tenant.act("start", "").await.expect(200);
    let status = tenant.status().await;
    assert_eq!(
        (&status["state"], &service(&status, "done")["state"]),
        (&json!("running"), &json!("exited")),
        "{status}"
    );
    assert_eq!(service(&status, "done")["containers"][0]["started_at"], started_at(&all["done-1"]), "{status}");
    nothing_is_left(&agent, &[&tenant]).await;
}

#[tokio::test]
async fn a_needed_dependency_must_succeed_and_an_optional_one_need_not_be_there() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "needed");
    let compose = format!(
        r#"
x-common: &common {{image: "q8test/busybox:1", stop_signal: SIGKILL}}
services:
  check: {{<<: *common, profiles: [checked], restart: on-failure:1, command: [sh, -c, "echo checks; exit 4"]}}
  app:
    <<: *common
    depends_on: {{check: {{condition: service_completed_successfully, required: false}}}}
    command: {}
"#,
        reports("echo runs"),
    );
    let needed = compose.replace("required: false", "required: true");
    let refused = agent.post("/v1/tenants/provision", &tenant.body(&needed, &json!({}))).await;
    refused.refused(422, "COMPOSE_INVALID");
    let body = tenant.body(&needed, &json!({"profiles": ["checked"]}));
    let failed = agent.post("/v1/tenants/provision", &body).await.refused(502, "SERVICE_EXITED");
    assert_eq!((&failed["field"], &failed["details"]["exit_code"]), (&json!("services.check"), &json!(4)), "{failed}");
    agent.get(&format!("/v1/tenants/status/{}", tenant.name)).await.refused(404, "NOT_FOUND");
    assert_eq!(Engine::shared().left(&agent.label()).await, Vec::<String>::new());

    tenant.provision(&compose, json!({})).await;
    assert_eq!(report(&tenant, "app").await, ["runs"]);
    assert_eq!(tenant.containers().await.len(), 1);
    nothing_is_left(&agent, &[&tenant]).await;
}

#[tokio::test]
async fn healthchecks_reach_the_engine_in_every_form() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "health");
    let compose = r#"
x-common: &common {image: "q8test/busybox:1", stop_signal: SIGKILL, command: [sleep, "3600"]}
services:
  list: {<<: *common, healthcheck: {test: [CMD, "true"], interval: 1m30s, timeout: 10s, retries: 3, start_period: 1h}}
  shell: {<<: *common, healthcheck: {test: [CMD-SHELL, "true && true"], interval: 500ms, timeout: 10s}}
  text: {<<: *common, healthcheck: {test: "true | true", interval: 500ms, timeout: 10s}}
  none: {<<: *common, healthcheck: {test: [NONE]}}
  disabled: {<<: *common, healthcheck: {disable: true}}
"#;
    // The engine's first check comes after one interval.
    let compose = compose.replace("1m30s", "1500ms");
    tenant.provision(&compose, json!({})).await;
    let status = tenant.status().await;
    for (name, state) in
        [("list", "healthy"), ("shell", "healthy"), ("text", "healthy"), ("none", "running"), ("disabled", "running")]
    {
        assert_eq!(service(&status, name)["state"], state, "{status}");
    }
    let all = inspected(&tenant).await;
    let check = |name: &str| all[name]["Config"]["Healthcheck"].clone();
    let list = check("list-1");
    assert_eq!(list["Test"], json!(["CMD", "true"]));
    let times = ["Interval", "Timeout", "StartPeriod", "Retries"].map(|field| list[field].as_i64());
    assert_eq!(times, [Some(1_500_000_000), Some(10_000_000_000), Some(3_600_000_000_000), Some(3)], "{list}");
    assert_eq!(check("shell-1")["Test"], json!(["CMD-SHELL", "true && true"]));
    assert_eq!(check("text-1")["Test"], json!(["CMD-SHELL", "true | true"]));
    for name in ["none-1", "disabled-1"] {
        assert_eq!(check(name)["Test"], json!(["NONE"]), "{name}");
    }
    nothing_is_left(&agent, &[&tenant]).await;
}

fn started_at(container: &Value) -> Value {
    container["State"]["StartedAt"].clone()
}
