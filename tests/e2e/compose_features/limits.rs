//! Limits: the two spellings mean the same, and the engine has them.

use serde_json::{Value, json};

use super::{agent, inspected, nothing_is_left, report, reports};
use crate::tenant::Tenant;

#[tokio::test]
async fn both_spellings_limit_the_same() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "limits");
    let script = reports("ulimit -n; ulimit -Hn; ulimit -u");
    let compose = format!(
        r#"
x-common: &common {{image: "q8test/busybox:1", stop_signal: SIGKILL, command: {script}}}
services:
  short:
    <<: *common
    mem_limit: 64m
    mem_reservation: 32mb
    memswap_limit: 96m
    cpus: 0.5
    cpu_shares: 512
    pids_limit: 50
    shm_size: 8mb
    oom_score_adj: 500
    ulimits: {{nofile: {{soft: 256, hard: 512}}, nproc: 1000}}
  deploy:
    <<: *common
    deploy: {{resources: {{limits: {{memory: 64M, cpus: "0.5", pids: 50}}, reservations: {{memory: 32M}}}}}}
"#
    );
    tenant.provision(&compose, json!({})).await;
    let all = inspected(&tenant).await;
    for name in ["short-1", "deploy-1"] {
        let host = &all[name]["HostConfig"];
        let limits = ["Memory", "MemoryReservation", "NanoCpus", "PidsLimit"].map(|field| host[field].as_i64());
        assert_eq!(limits, [Some(64 << 20), Some(32 << 20), Some(500_000_000), Some(50)], "{name}: {host}");
    }
    let short = &all["short-1"]["HostConfig"];
    let more = ["MemorySwap", "CpuShares", "ShmSize", "OomScoreAdj"].map(|field| short[field].as_i64());
    assert_eq!(more, [Some(96 << 20), Some(512), Some(8 << 20), Some(500)], "{short}");
    let mut ulimits: Vec<Value> = short["Ulimits"].as_array().expect("limits").clone();
    ulimits.sort_by_key(|limit| limit["Name"].to_string());
    assert_eq!(
        ulimits,
        [json!({"Name": "nofile", "Soft": 256, "Hard": 512}), json!({"Name": "nproc", "Soft": 1000, "Hard": 1000})]
    );
    assert_eq!(report(&tenant, "short").await[..2], ["256", "512"], "what the process itself sees");

    let twice = compose.replace("mem_limit: 64m", "mem_limit: 64m\n    deploy: {resources: {limits: {memory: 65M}}}");
    let refused = tenant.update(json!({"compose_content": twice})).await.refused(422, "COMPOSE_INVALID");
    assert_eq!(refused["field"], "services.short.mem_limit", "{refused}");
    nothing_is_left(&agent, &[&tenant]).await;
}

/// A limit is not only written down: the kernel enforces it.
#[tokio::test]
async fn too_many_processes_are_too_many() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "pids");
    let script = "n=0; while [ $$n -lt 40 ]; do sleep 60 & n=$$((n + 1)); done 2>/tmp/said; echo started";
    let compose = format!(
        r#"
services:
  greedy: {{image: "q8test/busybox:1", stop_signal: SIGKILL, pids_limit: 20, restart: "no", command: [sh, -c, {}]}}
  modest:
    image: "q8test/busybox:1"
    stop_signal: SIGKILL
    pids_limit: 60
    command: {}
    depends_on: {{greedy: {{condition: service_completed_successfully}}}}
"#,
        json!("n=0; while [ $$n -lt 40 ]; do sleep 60 & n=$$((n + 1)); done; echo started"),
        reports(script),
    );
    // The shell of the greedy one cannot fork, and ends with that.
    let failed = agent.post("/v1/tenants/provision", &tenant.body(&compose, &json!({}))).await;
    let failed = failed.refused(502, "SERVICE_EXITED");
    assert_eq!(failed["field"], "services.greedy", "{failed}");
    assert!(failed["details"]["logs"].to_string().contains("fork"), "{failed}");

    tenant.provision(&compose.replace("pids_limit: 20", "pids_limit: 60"), json!({})).await;
    assert_eq!(report(&tenant, "modest").await, ["started"]);
    nothing_is_left(&agent, &[&tenant]).await;
}
