//! Long-running operations in every form, and every way in which they end.

use super::arm_double::{Fault, Form, Outcome, Rule, Work};
use super::*;

#[tokio::test]
async fn the_status_address_tells_every_state() {
    let scene = Scene::new().await;
    let answer = scene.put(&group("a"), &one("nginx:1")).await;
    let link = header(&answer, "azure-asyncoperation");
    assert!(!answer.headers.contains_key("location") && !answer.headers.contains_key("retry-after"));
    let mut seen = Vec::new();
    for _ in 0..4 {
        let body = scene.follow(&link).await.expect(200);
        assert!(body["id"].as_str().is_some_and(|id| id.ends_with("/containerGroups/a")), "{body}");
        seen.push(body["status"].clone());
        scene.double.advance(STEP);
    }
    assert_eq!(seen, ["Pending", "Creating", "Creating", "Succeeded"]);
    let deleted = scene.call("DELETE", &group("a"), None).await;
    let link = header(&deleted, "azure-asyncoperation");
    assert_eq!(scene.follow(&link).await.expect(200)["status"], "Deleting");
    scene.double.advance(STEP);
    assert_eq!(scene.follow(&link).await.expect(200)["status"], "Succeeded");
    scene.double.assert_clean();
}

#[tokio::test]
async fn the_result_address_gives_the_resource_at_the_end() {
    let scene = Scene::new().await;
    scene.double.set(|settings| settings.form = Form::Location);
    let answer = scene.put(&group("a"), &one("nginx:1")).await;
    assert!(!answer.headers.contains_key("azure-asyncoperation"));
    let link = header(&answer, "location");
    let running = scene.follow(&link).await;
    running.expect(202);
    assert_eq!(header(&running, "location"), link);
    scene.double.advance(LONG);
    assert_eq!(scene.follow(&link).await.expect(200)["name"], "a");
    let link = header(&scene.call("DELETE", &group("a"), None).await, "location");
    scene.double.advance(LONG);
    scene.follow(&link).await.expect(204);
    scene.double.set(|settings| settings.form = Form::Both);
    let answer = scene.put(&group("b"), &one("nginx:1")).await;
    assert_ne!(header(&answer, "location"), header(&answer, "azure-asyncoperation"));
    scene.double.set(|settings| settings.form = Form::Neither);
    let answer = scene.put(&group("c"), &one("nginx:1")).await;
    answer.expect(201);
    assert!(!answer.headers.contains_key("location") && !answer.headers.contains_key("azure-asyncoperation"));
    scene.double.assert_clean();
}

#[tokio::test]
async fn a_poll_before_its_time_is_a_violation() {
    let scene = Scene::new().await;
    scene.double.set(|settings| settings.retry_after = Some(5));
    let answer = scene.put(&group("a"), &one("nginx:1")).await;
    assert_eq!(header(&answer, "retry-after"), "5");
    let link = header(&answer, "azure-asyncoperation");
    scene.double.advance(Duration::from_secs(5));
    header(&scene.follow(&link).await, "retry-after");
    scene.double.assert_clean();
    scene.follow(&link).await.expect(200);
    assert_eq!(scene.double.take_violations().len(), 1);
    scene.double.advance(LONG);
    assert!(!scene.follow(&link).await.headers.contains_key("retry-after"));
    // A refusal with Retry-After asks for the same patience.
    scene.double.fault(Rule::new("GET", "*/containerGroups/a", Fault::throttled(9)));
    refused(&scene.get(&group("a")).await, 429, "SubscriptionRequestsThrottled");
    scene.get(&group("a")).await.expect(200);
    assert_eq!(scene.double.take_violations().len(), 1);
}

#[tokio::test]
async fn operations_fail_with_an_error_or_with_events_or_never_end() {
    let scene = Scene::new().await;
    scene.double.outcome("a", Work::Create, Outcome::Error { code: "SomeCode", message: "some words" });
    scene.double.outcome("b", Work::Create, Outcome::no_capacity());
    scene.double.outcome("c", Work::Create, Outcome::Stuck);
    let mut links = Vec::new();
    for name in ["a", "b", "c"] {
        links.push(header(&scene.put(&group(name), &one("nginx:1")).await, "azure-asyncoperation"));
    }
    scene.double.advance(LONG);
    let error = scene.follow(&links[0]).await.expect(200);
    assert_eq!((&error["status"], &error["error"]["code"]), (&json!("Failed"), &json!("SomeCode")));
    let events = scene.follow(&links[1]).await.expect(200);
    assert_eq!((&events["status"], &events["error"]), (&json!("Failed"), &Value::Null));
    assert_eq!(events["properties"]["events"][0]["name"], "InsufficientCapacity.");
    let seen = scene.get(&group("b")).await.expect(200);
    assert_eq!(seen["properties"]["provisioningState"], "Failed");
    assert_eq!(seen["properties"]["instanceView"]["events"][0]["name"], "InsufficientCapacity.");
    scene.double.advance(LONG * 100);
    assert_eq!(scene.follow(&links[2]).await.expect(200)["status"], "Creating");
    scene.double.set(|settings| settings.form = Form::Location);
    scene.double.outcome("d", Work::Create, Outcome::Error { code: "SomeCode", message: "some words" });
    let link = header(&scene.put(&group("d"), &one("nginx:1")).await, "location");
    scene.double.advance(LONG);
    refused(&scene.follow(&link).await, 409, "SomeCode");
    scene.double.assert_clean();
}

#[tokio::test]
async fn deletions_and_starts_fail_too() {
    let scene = Scene::new().await;
    scene.up("a", &one("nginx:1")).await;
    scene.double.outcome("a", Work::Delete, Outcome::Error { code: "SomeCode", message: "some words" });
    let link = header(&scene.call("DELETE", &group("a"), None).await, "azure-asyncoperation");
    scene.double.advance(STEP);
    assert_eq!(scene.follow(&link).await.expect(200)["status"], "Failed");
    assert_eq!(scene.get(&group("a")).await.expect(200)["properties"]["provisioningState"], "Succeeded");
    scene.post(&format!("{}/stop", group("a"))).await.expect(204);
    scene.double.advance(STEP);
    scene.double.outcome("a", Work::Start, Outcome::no_capacity());
    let link = header(&scene.post(&format!("{}/start", group("a"))).await, "azure-asyncoperation");
    scene.double.advance(LONG);
    assert_eq!(scene.follow(&link).await.expect(200)["status"], "Failed");
    scene.double.outcome("a", Work::Delete, Outcome::Stuck);
    scene.call("DELETE", &group("a"), None).await.expect(202);
    scene.double.advance(LONG * 100);
    assert_eq!(scene.get(&group("a")).await.expect(200)["properties"]["provisioningState"], "Deleting");
    scene.double.assert_clean();
}
