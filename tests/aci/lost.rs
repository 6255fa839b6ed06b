//! The records are lost, or the disk with them: what is in Azure is found again.

use serde_json::{Value, json};

use super::arm_double::ArmDouble;
use super::support::agent::Agent;
use super::support::eventually;
use super::{PATIENCE, Tenant, options};

const STACK: &str =
    "services: {web: {image: example/chatty, ports: ['80:80'], volumes: ['data:/data']}}\nvolumes: {data: {}}";

/// Ends the agent, takes a tenant's directory from it, and starts it again.
async fn lose(agent: &mut Agent<'static>, tenant: &str) {
    agent.kill();
    std::fs::remove_dir_all(agent.root().join(tenant)).expect("the tenant's directory is there");
    agent.start_again().await;
}

async fn line_of(agent: &Agent<'static>, tenant: &str) -> Option<Value> {
    let list = agent.get("/v1/tenants").await.expect(200);
    list["tenants"].as_array().expect("a list").iter().find(|line| line["subdomain"] == tenant).cloned()
}

#[tokio::test]
async fn a_tenant_without_a_record_is_found_by_its_tags() {
    let double = ArmDouble::start().await;
    let mut agent = options(&double).start().await;
    let name = super::unique("lost");
    let west = json!({"placement": {"backend": "aci", "region": "westeurope"}});
    Tenant { agent: &agent, name: name.clone() }.provision(STACK, &west).await.expect(201);
    lose(&mut agent, &name).await;

    let line = eventually("it is in the list", PATIENCE, async || line_of(&agent, &name).await).await;
    assert_eq!(
        (&line["state"], &line["region"], &line["backend"]),
        (&json!("degraded"), &json!("westeurope"), &json!("aci"))
    );
    let tenant = Tenant { agent: &agent, name: name.clone() };
    let status = tenant.status().await;
    assert_eq!((&status["state"], &status["id"]), (&json!("degraded"), &json!(format!("id-{name}"))), "{status}");
    assert!(status["reasons"][0].as_str().is_some_and(|reason| reason.contains("record")), "{status}");
    assert_eq!(status["services"][0]["state"], "running", "{status}");
    assert!(tenant.logs("").await.contains("it is up"));
    let images = agent.get(&format!("/v1/tenants/images/{name}")).await.expect(200);
    assert!(images.to_string().contains("example/chatty"), "{images}");
    // What nobody knows the specification of cannot be started.
    tenant.act("start", "").await.refused(404, "NOT_FOUND");
    tenant.update(STACK).await.refused(404, "NOT_FOUND");

    // It is taken up where it is, and nothing is made a second time.
    let elsewhere = json!({"placement": {"backend": "aci", "region": "eastus"}});
    tenant.provision(STACK, &elsewhere).await.refused(409, "PLACEMENT_CHANGE");
    let made = tenant.provision(STACK, &json!({})).await.expect(201);
    assert_eq!(made["region"], "westeurope", "{made}");
    assert_eq!(tenant.becomes("running").await["region"], "westeurope");
    assert_eq!((double.groups().len(), double.shares().len()), (1, 1));

    // Lost once more, and taken down.
    drop(tenant);
    lose(&mut agent, &name).await;
    let tenant = Tenant { agent: &agent, name: name.clone() };
    let gone = tenant.act("teardown", "?purge=true").await.expect(200);
    assert_eq!(gone["changed"], true, "{gone}");
    assert_eq!((double.groups().len(), double.shares().len()), (0, 0));
    agent.get(&format!("/v1/tenants/status/{name}?fresh=1")).await.refused(404, "NOT_FOUND");
    eventually("it is out of the list", PATIENCE, async || line_of(&agent, &name).await.is_none().then_some(())).await;
    assert_eq!(tenant.act("teardown", "").await.expect(200)["changed"], false);
    double.assert_clean();
}

#[tokio::test]
async fn a_tenant_of_an_agent_whose_disk_is_lost_is_taken_over_on_request() {
    let double = ArmDouble::start().await;
    let before = options(&double).start().await;
    let tenant = Tenant::new(&before, "moved");
    tenant.provision(STACK, &json!({})).await.expect(201);
    let name = tenant.name.clone();
    drop(before);

    let agent = options(&double).start().await;
    let tenant = Tenant { agent: &agent, name };
    tenant.provision(STACK, &json!({})).await.refused(409, "NAME_TAKEN");
    let stranger = json!({"id": "somebody-else", "adopt": true});
    tenant.provision(STACK, &stranger).await.refused(409, "NAME_TAKEN");
    let taken = tenant.provision(STACK, &json!({"adopt": true})).await.expect(201);
    assert!(taken["warnings"].to_string().contains("taken over"), "{taken}");
    tenant.becomes("running").await;
    assert_eq!((double.groups().len(), double.shares().len()), (1, 1), "with the same share");
    let sent = double.sent("rg-east", &tenant.group()).expect("it is there");
    assert_eq!(sent["tags"]["q8-agent-id"], agent.identity());
    tenant.act("teardown", "?purge=true").await.expect(200);
    assert_eq!((double.groups().len(), double.shares().len()), (0, 0));
    double.assert_clean();
}
