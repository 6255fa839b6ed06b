//! Logs that are followed, changes that nobody has asked for, and what is left over.

use serde_json::json;

use super::arm_double::ArmDouble;
use super::support::eventually;
use super::{PATIENCE, Tenant, options};

const STACK: &str = "services: {web: {image: example/chatty, restart: always, ports: ['80:80']}}";

#[tokio::test]
async fn followed_lines_come_once_and_go_on_at_a_cursor() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "lines");
    tenant.provision(STACK, &json!({})).await.expect(201);
    let path = format!("/v1/tenants/logs/{}?follow=true", tenant.name);
    let mut lines = agent.stream(&path, &[("accept", "application/x-ndjson")]).await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    for number in 0..5 {
        double.write_log("rg-east", &tenant.group(), "web", &format!("line {number}"));
        let wanted = format!("line {number}");
        loop {
            let line = lines.next(PATIENCE).await.expect("the stream goes on");
            let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            if let Some(text) = line["line"].as_str() {
                seen.push(text.to_owned());
                cursor = line["cursor"].as_str().unwrap_or_default().to_owned();
                if text == wanted {
                    break;
                }
            }
        }
    }
    assert_eq!(seen, ["it is up", "line 0", "line 1", "line 2", "line 3", "line 4"]);
    drop(lines);
    double.write_log("rg-east", &tenant.group(), "web", "line 5");
    let rest = tenant.logs(&format!("?cursor={cursor}")).await;
    assert!(rest.contains("line 5") && !rest.contains("line 4"), "{rest}");
    double.assert_clean();
}

#[tokio::test]
async fn a_container_that_dies_and_a_new_address_are_seen() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "dies");
    tenant.provision(STACK, &json!({})).await.expect(201);
    let before = tenant.becomes("running").await;
    double.kill("rg-east", &tenant.group(), "web", 9);
    eventually("the restart is counted", PATIENCE, async || {
        let status = tenant.status().await;
        (status["services"][0]["containers"][0]["restart_count"].as_u64() >= Some(1)).then_some(())
    })
    .await;
    let mut events = agent.stream("/v1/events", &[]).await;
    double.change_ip("rg-east", &tenant.group());
    let after = tenant.becomes("running").await;
    let (old, new) = (&before["endpoints"][0], &after["endpoints"][0]);
    assert_eq!(new["host"], old["host"], "the name stays");
    assert_ne!(new["address"], old["address"]);
    let mut is_it = false;
    let told = loop {
        let line = events.next(PATIENCE).await.expect("the feed goes on");
        if let (true, Some(data)) = (is_it, line.strip_prefix("data:")) {
            break serde_json::from_str::<serde_json::Value>(data).expect("JSON");
        }
        is_it |= line.starts_with("event:") && line.ends_with("address_changed");
    };
    assert_eq!((&told["subdomain"], &told["port"]), (&json!(tenant.name), &json!(80)), "{told}");
    let (from, to) = (told["from"].to_string(), told["to"].to_string());
    assert!(from.contains(&old["address"].to_string()) && to.contains(&new["address"].to_string()), "{told}");
    double.assert_clean();
}

#[tokio::test]
async fn what_nobody_knows_is_listed_and_strangers_are_not() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let own = json!({"managed-by": "q8-agent", "q8-agent-id": agent.identity(), "q8-tenant": "lost", "q8-id": "1"});
    double.plant("rg-east", "q8-lost", "eastus", &own);
    let strange = json!({"managed-by": "q8-agent", "q8-agent-id": "another", "q8-tenant": "theirs", "q8-id": "1"});
    double.plant("rg-east", "q8-theirs", "eastus", &strange);
    let told = agent.post("/v1/system/prune", &json!({"dry_run": true})).await.expect(200).to_string();
    assert!(told.contains("q8-lost") && !told.contains("q8-theirs"), "{told}");
    // Somebody else's group is never taken.
    let theirs = json!({
        "id": "2", "subdomain": "theirs", "compose_content": STACK, "placement": {"backend": "aci"},
    });
    agent.post("/v1/tenants/provision", &theirs).await.refused(409, "NAME_TAKEN");
    assert!(double.group("rg-east", "q8-theirs").is_some());
    // The agent's own is found again, with nothing on the disk that tells of it.
    let lost = json!({"id": "1", "subdomain": "lost", "compose_content": STACK, "placement": {"backend": "aci"}});
    agent.post("/v1/tenants/provision", &lost).await.expect(201);
    assert_eq!(double.groups().len(), 2);
}
