//! What a container takes from another one or from the host's kernel: links, volumes, namespaces, groups, profiles.

use std::path::Path;

use serde_json::json;

use super::{agent, inspected, nothing_is_left, report, reports};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::unique;
use crate::tenant::{Tenant, inspect};

/// An agent whose stacks are the operator's own.
async fn trusting() -> Agent<'static> {
    Options::docker(Engine::shared().with_busybox().await).env("Q8_AGENT_POLICY", "trusted").start().await
}

#[tokio::test]
async fn a_link_is_a_name_for_its_own_service_only() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "links");
    let resolves =
        reports("for name in db back; do nslookup $$name 127.0.0.11 >/dev/null 2>&1 && echo $$name; done; true");
    let compose = format!(
        r#"
x-common: &common {{image: "q8test/busybox:1", stop_signal: SIGKILL}}
services:
  back: {{<<: *common, command: [sleep, "3600"]}}
  linked: {{<<: *common, links: ["back:db"], command: {resolves}}}
  other: {{<<: *common, depends_on: [back], command: {resolves}}}
"#
    );
    tenant.provision(&compose, json!({})).await;
    assert_eq!(report(&tenant, "linked").await, ["db", "back"]);
    assert_eq!(report(&tenant, "other").await, ["back"]);

    // The link is to a name: who replaces the container has it, and the one that links stays.
    let before = tenant.containers().await;
    let changed = compose.replace("[sleep, \"3600\"]", "[sleep, \"3601\"]");
    tenant.update(json!({"compose_content": changed})).await.expect(200);
    let after = tenant.containers().await;
    assert_eq!(after["linked-1"].id, before["linked-1"].id, "it is started again, but not made anew");
    assert_ne!(after["back-1"].id, before["back-1"].id);
    tenant.act("restart", "?service=linked").await.expect(200);
    assert_eq!(report(&tenant, "linked").await, ["db", "back"]);
    nothing_is_left(&agent, &[&tenant]).await;
}

#[tokio::test]
async fn volumes_from_follows_the_one_who_has_them() {
    let agent = agent().await;
    let tenant = Tenant::new(&agent, "vfrom");
    let compose = format!(
        r#"
x-common: &common {{image: "q8test/busybox:1", stop_signal: SIGKILL}}
services:
  owner: {{<<: *common, volumes: [/shared, "kept:/kept"], command: {owner}}}
  reader: {{<<: *common, volumes: [/own], volumes_from: ["owner:ro"], command: {reader}}}
  writer: {{<<: *common, volumes_from: [owner], command: {writer}}}
  alone: {{<<: *common, command: [sleep, "3600"]}}
volumes: {{kept: {{}}}}
"#,
        owner = reports("echo one >>/shared/f; echo two >>/kept/f"),
        reader = reports(
            "echo o >>/own/f; grep -c . /own/f; cat /shared/f /kept/f; touch /shared/g 2>/dev/null || echo read-only",
        ),
        writer = reports("touch /shared/g && cat /shared/f"),
    );
    tenant.provision(&compose, json!({})).await;
    assert_eq!(report(&tenant, "reader").await, ["1", "one", "two", "read-only"]);
    assert_eq!(report(&tenant, "writer").await, ["one"]);
    let (before, seen) = (tenant.containers().await, inspected(&tenant).await);
    let takes = format!("{}:ro", before["owner-1"].id);
    assert_eq!(seen["reader-1"]["HostConfig"]["VolumesFrom"], json!([takes]));

    // The owner is made anew: so are those that take from it, nothing is lost, and `ro` still means it.
    let changed = compose.replace("echo two", "echo three");
    tenant.update(json!({"compose_content": changed})).await.expect(200);
    let after = tenant.containers().await;
    for (name, old) in &before {
        assert_eq!(after[name] == *old, name == "alone-1", "{name}");
    }
    assert_eq!(report(&tenant, "reader").await, ["2", "one", "one", "two", "three", "read-only"]);
    assert_eq!(report(&tenant, "writer").await, ["one", "one"]);

    // An update that fails brings all of them back.
    let fails = changed.replace("sleep\", \"3600", "false").replace("[sleep, \"3600\"]", "[\"false\"]");
    let fails = fails.replace("echo three", "echo four");
    assert_ne!(tenant.update(json!({"compose_content": fails})).await.status, 200);
    let back = tenant.containers().await;
    for (name, container) in &after {
        assert_eq!(back[name].id, container.id, "{name}");
    }
    nothing_is_left(&agent, &[&tenant]).await;
}

#[tokio::test]
async fn the_process_sees_its_surroundings() {
    let agent = trusting().await;
    let tenant = Tenant::new(&agent, "around");
    let compose = format!(
        r#"
x-common: &common {{image: "q8test/busybox:1", stop_signal: SIGKILL}}
services:
  shares: {{<<: *common, ipc: shareable, shm_size: 8m, command: {shares}}}
  joins: {{<<: *common, ipc: "service:shares", command: {joins}}}
  seen:
    <<: *common
    user: "1000:1000"
    group_add: ["4242", "4243"]
    ulimits: {{nofile: {{soft: 128, hard: 256}}, core: 0}}
    shm_size: 16m
    sysctls: {{net.ipv4.ip_unprivileged_port_start: 81}}
    dns_search: [inside.example]
    dns_opt: ["timeout:7"]
    tmpfs: ["/scratch:size=4m,mode=1770,uid=1000"]
    command: {seen}
"#,
        shares = reports("echo hello >/dev/shm/note"),
        joins = reports("cat /dev/shm/note; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"),
        seen = reports(
            "id -G; ulimit -n; ulimit -Hn; ulimit -c; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; \
             cat /proc/sys/net/ipv4/ip_unprivileged_port_start; grep -o inside.example /etc/resolv.conf; \
             grep -o timeout:7 /etc/resolv.conf; stat -c '%a %u' /scratch; \
             df -k /scratch | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2",
        ),
    );
    tenant.provision(&compose, json!({})).await;
    assert_eq!(report(&tenant, "joins").await, ["hello", "8192"]);
    assert_eq!(
        report(&tenant, "seen").await,
        ["1000 4242 4243", "128", "256", "0", "16384", "81", "inside.example", "timeout:7", "1770 1000", "4096",]
    );
    nothing_is_left(&agent, &[&tenant]).await;
}

/// What an operator's own stacks may ask for besides.
#[tokio::test]
async fn trusted_stacks_reach_further() {
    let (engine, agent) = (Engine::shared(), trusting().await);
    let tenant = Tenant::new(&agent, "trusted");
    let named = unique("named");
    let compose = format!(
        r#"
x-common: &common {{image: "q8test/busybox:1", stop_signal: SIGKILL}}
services:
  old: {{<<: *common, network_mode: bridge, command: [sleep, "3600"]}}
  linked: {{<<: *common, network_mode: bridge, links: ["old:aged"], command: [sleep, "3600"]}}
  confined: {{<<: *common, security_opt: ["seccomp:./no-mkdir.json", "systempaths=unconfined"], command: {confined}}}
  addressed: {{<<: *common, mac_address: "02:42:0a:0b:0c:0d", command: {addressed}}}
  limited: {{<<: *common, blkio_config: {{weight: 300}}, device_cgroup_rules: ["c 1:3 r"], command: [sleep, "3600"]}}
  free: {{<<: *common, container_name: {named}, command: [sleep, "3600"]}}
"#,
        confined = reports("mkdir /tmp/x 2>/dev/null || echo no mkdir; grep -c ' /proc/sys ' /proc/mounts"),
        addressed = reports("cat /sys/class/net/eth0/address"),
    );
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    });
    let provision = tenant.body(&compose, &json!({"files": {"no-mkdir.json": profile.to_string()}}));
    agent.post("/v1/tenants/provision", &provision).await.expect(201);
    // The test engine may have no default bridge on which to look for the name.
    let linked = format!("q8-{}-linked-1", tenant.name);
    let links = inspect(engine, &linked).await["HostConfig"]["Links"].clone();
    let wanted = format!("/q8-{}-old-1:/{linked}/aged", tenant.name);
    assert!(links.as_array().is_some_and(|links| links.iter().any(|link| *link == wanted)), "{links}");
    assert_eq!(report(&tenant, "confined").await, ["no mkdir", "0"]);
    assert_eq!(report(&tenant, "addressed").await, ["02:42:0a:0b:0c:0d"]);
    assert_eq!(inspect(engine, &named).await["Config"]["Labels"]["com.docker.compose.service"], "free");

    // A link on the bridge is to the container, so it is made again when that is.
    let before = inspect(engine, &linked).await["Id"].clone();
    let changed = compose.replace("network_mode: bridge, command", "network_mode: bridge, labels: {a: b}, command");
    tenant.update(json!({"compose_content": changed})).await.expect(200);
    assert_ne!(inspect(engine, &linked).await["Id"], before);

    // Another profile is another container; the profile is a file of the request and no other.
    let open = json!({"defaultAction": "SCMP_ACT_ALLOW"}).to_string();
    tenant.update(json!({"files": {"no-mkdir.json": open}})).await.expect(200);
    assert_eq!(report(&tenant, "confined").await, ["0"]);
    assert!(Path::new("/etc/hostname").exists());
    let outside = compose.replace("./no-mkdir.json", "/etc/hostname");
    let refused = tenant.update(json!({"compose_content": outside})).await.refused(422, "UNSUPPORTED_ON_BACKEND");
    assert_eq!(refused["field"], "services.confined.security_opt[0]", "{refused}");
    nothing_is_left(&agent, &[&tenant]).await;
}
