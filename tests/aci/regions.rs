//! Where a tenant is placed, and what happens when there is no room.

use serde_json::json;

use super::arm_double::{ArmDouble, Fault, Outcome, Rule, Work};
use super::support::agent::Options;
use super::support::eventually;
use super::{PATIENCE, Tenant, options};

const STACK: &str = "services: {web: {image: example/web}}";

#[tokio::test]
async fn the_region_is_the_one_that_was_asked_for() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "west");
    let told = tenant.provision(STACK, &json!({"placement": {"backend": "aci", "region": "moon"}})).await;
    assert_eq!(told.refused(422, "UNSUPPORTED_ON_BACKEND")["field"], "placement.region");
    tenant.provision(STACK, &json!({"placement": {"backend": "aci", "region": "westeurope"}})).await.expect(201);
    assert_eq!(tenant.becomes("running").await["region"], "westeurope");
    assert!(double.group("rg-west", &tenant.group()).is_some());
    let moved = tenant.provision(STACK, &json!({"placement": {"backend": "aci", "region": "eastus"}})).await;
    moved.refused(409, "PLACEMENT_CHANGE");
    double.assert_clean();
}

#[tokio::test]
async fn a_full_region_is_named_and_the_next_one_is_taken_if_the_request_allows() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "full");
    double.region("eastus", |region| region.cores = 0.0);
    let told = tenant.provision(STACK, &json!({})).await;
    assert!(told.status.as_u16() >= 400, "{}", told.text());
    assert!(told.text().contains("eastus"));
    assert_eq!(double.groups().len(), 0);
    tenant.provision(STACK, &json!({"placement": {"backend": "aci", "fallback": true}})).await.expect(201);
    assert_eq!(tenant.becomes("running").await["region"], "westeurope");

    // And when it shows only in the middle of the creation.
    double.region("eastus", |region| region.cores = 100.0);
    let other = Tenant::new(&agent, "late");
    double.outcome(&other.group(), Work::Create, Outcome::no_capacity());
    other.provision(STACK, &json!({"placement": {"backend": "aci", "fallback": true}})).await.expect(201);
    assert_eq!(other.becomes("running").await["region"], "westeurope");
    assert!(double.group("rg-east", &other.group()).is_none(), "what was begun is gone");
    double.assert_clean();
}

#[tokio::test]
async fn an_update_that_needs_more_than_there_is_touches_nothing() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "grows");
    let sized = |cpus: &str| {
        STACK.replace(
            "image: example/web",
            &format!("image: example/web, deploy: {{resources: {{reservations: {{cpus: '{cpus}'}}}}}}"),
        )
    };
    tenant.provision(&sized("1"), &json!({})).await.expect(201);
    double.region("eastus", |region| region.cores = 2.0);
    double.take_requests();
    let told = tenant.update(&sized("3")).await.refused(409, "HOST_FULL");
    assert_eq!(told["field"], "placement.region", "{told}");
    assert!(double.take_requests().iter().all(|heard| heard.method == "GET"), "nothing is written");
    assert_eq!(tenant.becomes("running").await["generation"], 1);
    tenant.update(&sized("2")).await.expect(200);
    tenant.update(&sized("1")).await.expect(200);
    double.assert_clean();
}

#[tokio::test]
async fn two_regions_may_share_a_resource_group() {
    let double = ArmDouble::start().await;
    let agent = options(&double).env("Q8_AGENT_ACI_REGIONS", "eastus:rg-east:steast,westeurope:rg-east").start().await;
    let tenant = Tenant::new(&agent, "shared");
    tenant.provision(STACK, &json!({"placement": {"backend": "aci", "region": "westeurope"}})).await.expect(201);
    let status = tenant.becomes("running").await;
    assert_eq!((&status["region"], double.groups().len()), (&json!("westeurope"), 1));
    let own = json!({"managed-by": "q8-agent", "q8-agent-id": agent.identity(), "q8-tenant": "left", "q8-id": "1"});
    double.plant("rg-east", "q8-left", "westeurope", &own);
    let told = agent.post("/v1/system/prune", &json!({"dry_run": true})).await.expect(200);
    let objects = told["objects"].as_array().expect("a list");
    assert_eq!((objects.len(), &objects[0]["region"]), (1, &json!("westeurope")), "once, where it is: {told}");
    tenant.act("teardown", "?purge=true").await.expect(200);
    double.assert_clean();
}

#[tokio::test]
async fn a_taken_dns_label_becomes_another_one_and_stays_it() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "label");
    let stack = "services: {web: {image: example/web, ports: ['80:80']}}";
    double.fault(Rule::new("PUT", "*containerGroups*", Fault::refused(400, "DnsNameLabelAlreadyTaken")));
    tenant.provision(stack, &json!({})).await.expect(201);
    assert_eq!(double.calm(), 1);
    let sent = double.sent("rg-east", &tenant.group()).expect("it is there");
    assert_ne!(sent["properties"]["ipAddress"]["dnsNameLabel"], json!(tenant.name));
    assert_eq!(tenant.provision(stack, &json!({})).await.expect(200)["changed"], false);
    double.assert_clean();
}

#[tokio::test]
async fn an_agent_without_azure_says_so() {
    let agent = Options::memory().start().await;
    let tenant = Tenant::new(&agent, "none");
    let told = tenant.provision(STACK, &json!({})).await.refused(422, "BACKEND_NOT_CONFIGURED");
    assert_eq!(told["field"], "placement.backend");
}

#[tokio::test]
async fn wrong_credentials_show_and_touch_nobody_else() {
    let double = ArmDouble::start().await;
    let agent = options(&double).env("AZURE_CLIENT_SECRET", "wrong").start().await;
    eventually("it shows", PATIENCE, async || {
        let ready = agent.get("/ready").await.expect(200);
        (ready["degraded"] == json!(["backend:aci"])).then_some(())
    })
    .await;
    let here = json!({"id": "here", "subdomain": "here", "compose_content": "services: {a: {image: x}}"});
    agent.post("/v1/tenants/provision", &here).await.expect(201);
    let tenant = Tenant::new(&agent, "wrong");
    tenant.provision(STACK, &json!({})).await.refused(503, "BACKEND_UNAVAILABLE");
}
