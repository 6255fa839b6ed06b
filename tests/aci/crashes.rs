//! The agent is killed in the middle: whatever Azure has done meanwhile is found by its tags and finished or undone.

use std::time::Duration;

use serde_json::json;

use super::arm_double::ArmDouble;
use super::support::eventually;
use super::{PATIENCE, Tenant, options};

const ONE: &str = "services: {web: {image: example/web, volumes: ['data:/data']}}\nvolumes: {data: {}}";
const TWO: &str = "services: {web: {image: example/chatty, volumes: ['data:/data']}}\nvolumes: {data: {}}";

/// Kills after each number of milliseconds from the first call of an operation on.
const MOMENTS: [u64; 8] = [0, 20, 60, 120, 250, 400, 700, 1200];

#[tokio::test]
async fn a_first_provision_leaves_nothing() {
    let double = ArmDouble::start().await;
    double.set(|settings| (settings.delays.pull, settings.delays.start) = (300, 300));
    let mut agent = options(&double).start().await;
    for moment in MOMENTS {
        let name = super::unique("first");
        let body = Tenant { agent: &agent, name: name.clone() }.body(ONE, &json!({}));
        super::begin(&agent, "/v1/tenants/provision", &body).await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        agent.kill();
        agent.start_again().await;
        eventually(&format!("{moment} ms: it is gone, or it is there"), PATIENCE, async || {
            let status = agent.get(&format!("/v1/tenants/status/{name}?fresh=1")).await;
            match status.status.as_u16() {
                404 => double.group("rg-east", &format!("q8-{name}")).is_none().then_some(()),
                200 => (status.json()["state"] == "running").then_some(()),
                _ => None,
            }
        })
        .await;
        let tenant = Tenant { agent: &agent, name };
        tenant.provision(ONE, &json!({})).await;
        tenant.becomes("running").await;
        tenant.act("teardown", "?purge=true").await.expect(200);
        assert_eq!((double.groups().len(), double.shares().len()), (0, 0), "{moment} ms");
    }
    double.assert_clean();
}

#[tokio::test]
async fn an_update_and_a_teardown_are_finished_or_undone() {
    let double = ArmDouble::start().await;
    double.set(|settings| (settings.delays.pull, settings.delays.start) = (200, 200));
    let mut agent = options(&double).start().await;
    for moment in MOMENTS {
        let name = super::unique("update");
        Tenant { agent: &agent, name: name.clone() }.provision(ONE, &json!({})).await.expect(201);
        let body = json!({"subdomain": name, "compose_content": TWO});
        super::begin(&agent, "/v1/tenants/update", &body).await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        agent.kill();
        agent.start_again().await;
        let tenant = Tenant { agent: &agent, name: name.clone() };
        let status = tenant.becomes("running").await;
        let generation = status["generation"].as_u64().expect("a number");
        let image = if generation == 1 { "example/web" } else { "example/chatty" };
        eventually(&format!("{moment} ms: generation {generation} is what runs"), PATIENCE, async || {
            let sent = double.sent("rg-east", &tenant.group())?.to_string();
            sent.contains(image).then_some(())
        })
        .await;
        super::begin(&agent, &format!("/v1/tenants/teardown/{name}?purge=true"), &json!({})).await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        agent.kill();
        agent.start_again().await;
        let tenant = Tenant { agent: &agent, name: name.clone() };
        eventually(&format!("{moment} ms: it goes"), PATIENCE, async || {
            let answer = tenant.act("teardown", "?purge=true").await;
            matches!(answer.status.as_u16(), 200 | 404).then_some(())
        })
        .await;
        assert_eq!((double.groups().len(), double.shares().len()), (0, 0), "{moment} ms");
    }
    double.assert_clean();
}
