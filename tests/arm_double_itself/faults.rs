//! Calls that go wrong.

use super::arm_double::{Fault, Rule};
use super::*;

async fn disturbed(fault: Fault) -> (Scene, Result<Answer, Failure>) {
    let scene = Scene::new().await;
    scene.double.fault(Rule::new("PUT", "*/containerGroups/*", fault));
    let answer = scene.try_call("PUT", &group("a"), Some(&one("nginx:1"))).await;
    (scene, answer)
}

#[tokio::test]
async fn refusals_are_as_they_were_made_up_and_once() {
    let (scene, answer) = disturbed(Fault::throttled(1)).await;
    let answer = answer.expect("an answer");
    refused(&answer, 429, "SubscriptionRequestsThrottled");
    assert_eq!(header(&answer, "retry-after"), "1");
    scene.double.advance(Duration::from_secs(1));
    scene.put(&group("a"), &one("nginx:1")).await.expect(201);
    assert_eq!(scene.double.calm(), 1);
    let (_, answer) = disturbed(Fault::refused(500, "InternalServerError")).await;
    refused(&answer.expect("an answer"), 500, "InternalServerError");
    let (_, answer) = disturbed(Fault::Html(503)).await;
    assert!(answer.expect("an answer").text().starts_with("<!DOCTYPE html>"));
    let (_, answer) = disturbed(Fault::Empty(502)).await;
    assert_eq!(answer.expect("an answer").text(), "");
    let (_, answer) = disturbed(Fault::ExpiredToken).await;
    refused(&answer.expect("an answer"), 401, "ExpiredAuthenticationToken");
}

#[tokio::test]
async fn connections_break_before_or_after_the_deed() {
    let (scene, answer) = disturbed(Fault::ResetBefore).await;
    answer.expect_err("no answer");
    scene.get(&group("a")).await.expect(404);
    for fault in [Fault::ResetAfter, Fault::Truncated] {
        let (scene, answer) = disturbed(fault).await;
        answer.expect_err("no whole answer");
        scene.get(&group("a")).await.expect(200);
        scene.double.assert_clean();
    }
    let (scene, answer) = disturbed(Fault::Garbage).await;
    serde_json::from_slice::<Value>(&answer.expect("an answer").bytes).expect_err("no JSON");
    scene.get(&group("a")).await.expect(200);
}

#[tokio::test]
async fn nothing_is_said_at_all() {
    for (fault, there) in [(Fault::Hang, 404), (Fault::HangAfter, 200)] {
        let scene = Scene::new().await;
        scene.double.fault(Rule::new("PUT", "*", fault).always());
        let wanted = one("nginx:1");
        let at = group("a");
        let call = scene.try_call("PUT", &at, Some(&wanted));
        let seen = async {
            while scene.double.count("PUT", "*") == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = call => panic!("it answers: {answer:?}"),
            () = seen => {}
        }
        scene.get(&group("a")).await.expect(there);
    }
    let scene = Scene::new().await;
    scene.double.fault(Rule::new("PUT", "*", Fault::Slow(Duration::from_millis(1))).after(1).times(2));
    for name in ["a", "b", "c", "d"] {
        scene.put(&group(name), &one("nginx:1")).await.expect(201);
    }
    assert_eq!(scene.double.calm(), 2);
}
