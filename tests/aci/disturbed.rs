//! Faults on the way: each is waited out, and nothing is made twice or left behind.

use std::time::Duration;

use serde_json::json;

use super::arm_double::{ArmDouble, Fault, Form, Outcome, Rule, Work};
use super::support::eventually;
use super::{PATIENCE, Tenant, options};

const STACK: &str =
    "services: {web: {image: example/web, ports: ['80:80'], volumes: ['data:/data']}}\nvolumes: {data: {}}";
const CHANGED: &str = "services: {web: {image: example/web, environment: {A: b}, ports: ['80:80'], volumes: ['data:/data']}}\nvolumes: {data: {}}";

#[tokio::test]
async fn every_call_may_fail_once_in_every_way() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    for (number, fault) in [
        Fault::refused(500, "InternalServerError"),
        Fault::throttled(1),
        Fault::Html(502),
        Fault::Empty(503),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Truncated,
        Fault::ExpiredToken,
        Fault::refused(409, "ContainerGroupTransitioning"),
    ]
    .into_iter()
    .enumerate()
    {
        let tenant = Tenant::new(&agent, "fault");
        let disturb = |method: &str, path: &str| double.fault(Rule::new(method, path, fault.clone()));
        disturb("PUT", "*containerGroups*");
        disturb("GET", "*containerGroups/*");
        disturb("PUT", "*shares*");
        disturb("POST", "*listKeys*");
        tenant.provision(STACK, &json!({})).await.expect(201);
        disturb("PUT", "*containerGroups*");
        tenant.update(CHANGED).await.expect(200);
        disturb("POST", "*stop*");
        tenant.act("stop", "").await.expect(200);
        disturb("POST", "*start*");
        tenant.act("start", "").await.expect(200);
        tenant.becomes("running").await;
        disturb("DELETE", "*containerGroups*");
        disturb("DELETE", "*shares*");
        tenant.act("teardown", "?purge=true").await.expect(200);
        assert_eq!(double.calm(), 9, "round {number}: {fault:?} met each call that it was for");
        assert_eq!((double.groups().len(), double.shares().len()), (0, 0), "round {number}: {fault:?}");
    }
    double.assert_clean();
}

#[tokio::test]
async fn operations_are_followed_in_every_form() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    for form in [Form::AsyncOperation, Form::Location, Form::Both, Form::Neither] {
        for retry_after in [None, Some(1)] {
            double.set(|settings| (settings.form, settings.retry_after) = (form, retry_after));
            let tenant = Tenant::new(&agent, "form");
            tenant.provision(STACK, &json!({})).await.expect(201);
            tenant.becomes("running").await;
            tenant.act("stop", "").await.expect(200);
            tenant.act("start", "").await.expect(200);
            tenant.act("teardown", "?purge=true").await.expect(200);
            assert_eq!((double.groups().len(), double.shares().len()), (0, 0), "{form:?} {retry_after:?}");
        }
    }
    double.assert_clean();
}

#[tokio::test]
async fn an_operation_that_fails_says_why() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "fails");
    for outcome in [
        Outcome::Error { code: "SomethingBroke", message: "the cable was cut" },
        Outcome::Events { name: "Broken", message: "the cable was cut" },
        Outcome::Silent { name: "Broken", message: "the cable was cut" },
    ] {
        double.outcome(&tenant.group(), Work::Create, outcome);
        let told = tenant.provision(STACK, &json!({})).await.refused(502, "BACKEND_ERROR");
        assert!(told["error"].as_str().is_some_and(|text| text.contains("the cable was cut")), "{told}");
        assert_eq!((double.groups().len(), double.shares().len()), (0, 0));
    }
    double.assert_clean();
}

#[tokio::test]
async fn a_group_that_stays_on_its_way_is_made_anew() {
    let double = ArmDouble::start().await;
    let agent = options(&double).env("Q8_AGENT_OPERATION_TIMEOUT", "12s").start().await;
    let tenant = Tenant::new(&agent, "hangs");
    tenant.provision(STACK, &json!({})).await.expect(201);
    tenant.act("stop", "").await.expect(200);
    double.fault(Rule::new("POST", "*start", Fault::refused(409, "ContainerGroupTransitioning")).always());
    tenant.act("start", "").await.expect(200);
    tenant.becomes("running").await;
    assert_eq!(double.count("DELETE", "*containerGroups*"), 1);
    assert_eq!((double.groups().len(), double.shares().len()), (1, 1), "the share stays");
    double.assert_clean();
}

#[tokio::test]
async fn new_keys_of_the_account_are_asked_for() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "keys");
    let nothing = json!({});
    // They are made after the agent has asked for them, and before Azure mounts.
    double.fault(Rule::new("PUT", "*containerGroups*", Fault::Slow(Duration::from_millis(500))));
    let (made, ()) = tokio::join!(tenant.provision(STACK, &nothing), async {
        eventually("the keys are asked for", PATIENCE, async || (double.count("POST", "*listKeys") > 0).then_some(()))
            .await;
        double.rotate_keys("steast");
    });
    made.expect(201);
    tenant.becomes("running").await;
    assert_eq!(double.count("POST", "*listKeys"), 2, "once more");

    // And while it is stopped: Azure starts it with the old one.
    tenant.act("stop", "").await.expect(200);
    double.rotate_keys("steast");
    tenant.act("start", "").await.expect(200);
    tenant.becomes("running").await;
    double.rotate_keys("steast");
    tenant.act("restart", "").await.expect(200);
    tenant.becomes("running").await;
    assert_eq!(double.shares().len(), 1, "it is the same share");

    // What no key helps against is said.
    let share = double.shares()[0]["name"].as_str().expect("a name").to_owned();
    tenant.act("stop", "").await.expect(200);
    double.lose_share("steast", &share);
    double.fault(Rule::new("PUT", "*shares*", Fault::refused(403, "AuthorizationFailed")).always());
    tenant.act("start", "").await.refused(502, "BACKEND_ERROR");
    double.calm();
    tenant.act("start", "").await.expect(200);
    tenant.becomes("running").await;
    double.assert_clean();
}

#[tokio::test]
async fn a_name_that_is_still_being_deleted_is_waited_for() {
    let double = ArmDouble::start().await;
    double.set(|settings| settings.delays.share = 2000);
    let agent = options(&double).start().await;
    let tenant = Tenant::new(&agent, "again");
    for _ in 0..2 {
        tenant.provision(STACK, &json!({})).await.expect(201);
        tenant.act("teardown", "?purge=true").await.expect(200);
        assert_eq!((double.groups().len(), double.shares().len()), (0, 0));
    }
    // The name was there again too early the second time.
    let refused = double.requests().into_iter().filter(|heard| heard.method == "PUT" && heard.status == 409).count();
    assert!(refused > 0, "it was never refused");
    double.assert_clean();
}

#[tokio::test]
async fn what_cannot_be_listed_is_not_taken_away() {
    let double = ArmDouble::start().await;
    let agent = options(&double).start().await;
    let own = json!({"managed-by": "q8-agent", "q8-agent-id": agent.identity(), "q8-tenant": "lost", "q8-id": "1"});
    double.plant("rg-east", "q8-lost", "eastus", &own);
    double.fault(Rule::new("GET", "*rg-west*containerGroups", Fault::refused(403, "AuthorizationFailed")).always());
    let told = agent.post("/v1/system/prune", &json!({"dry_run": false})).await.expect(200);
    assert!(told["unseen"].to_string().contains("aci"), "{told}");
    assert!(double.group("rg-east", "q8-lost").is_some(), "{told}");
    double.calm();
    let told = agent.post("/v1/system/prune", &json!({"dry_run": false})).await.expect(200);
    assert!(told.get("unseen").is_none() && told.to_string().contains("q8-lost"), "{told}");
    double.assert_clean();
}

#[tokio::test]
async fn fifty_tenants_keep_within_the_limit_of_writes() {
    let double = ArmDouble::start().await;
    double.set(|settings| settings.writes = vec![(10, 1000)]);
    let agent = options(&double).start().await;
    let tenants: Vec<Tenant<'_>> = (0..50).map(|_| Tenant::new(&agent, "many")).collect();
    let stack = "services: {web: {image: example/web}}";
    let nothing = json!({});
    let made = futures::future::join_all(tenants.iter().map(|tenant| tenant.provision(stack, &nothing))).await;
    for answer in made {
        answer.expect(201);
    }
    assert_eq!(double.groups().len(), 50);
    let gone = futures::future::join_all(tenants.iter().map(|tenant| tenant.act("teardown", "?purge=true"))).await;
    for answer in gone {
        answer.expect(200);
    }
    assert_eq!(double.groups().len(), 0);
    double.assert_clean();
}

#[tokio::test]
async fn one_that_never_ends_is_given_up_at_the_deadline() {
    let double = ArmDouble::start().await;
    let agent = options(&double).env("Q8_AGENT_OPERATION_TIMEOUT", "5s").start().await;
    let tenant = Tenant::new(&agent, "stuck");
    double.outcome(&tenant.group(), Work::Create, Outcome::Stuck);
    let begun = std::time::Instant::now();
    tenant.provision(STACK, &json!({})).await.refused(504, "DEADLINE_EXCEEDED");
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(double.groups().len(), 0);
}
