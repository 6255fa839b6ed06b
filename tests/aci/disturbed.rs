//! Faults on the way: each is waited out, and nothing is made twice or left behind.

use std::time::Duration;

use serde_json::json;

use super::arm_double::{ArmDouble, Fault, Form, Outcome, Rule, Work};
use super::{Tenant, options};

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
        double.calm();
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
    ] {
        double.outcome(&tenant.group(), Work::Create, outcome);
        let told = tenant.provision(STACK, &json!({})).await.refused(502, "BACKEND_ERROR");
        assert!(told["error"].as_str().is_some_and(|text| text.contains("the cable was cut")), "{told}");
        assert_eq!((double.groups().len(), double.shares().len()), (0, 0));
    }
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
