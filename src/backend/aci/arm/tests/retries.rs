//! What is tried again, and when.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::error::ArmError;
use super::super::transport::Broken;
use super::{GROUP, azure, breaks, refuses, says, within};

#[derive(Debug, Deserialize, PartialEq)]
struct Named {
    name: String,
}

fn named() -> super::Says {
    says(200, &json!({"name": "web", "unknown": [1, 2]}))
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_again() {
    type Trouble = fn() -> super::Says;
    let troubles: [Trouble; 12] = [
        || says(408, &Value::Null),
        || refuses(429, "TooManyRequests"),
        || refuses(500, "InternalServerError"),
        || says(502, &Value::Null).text("<html>bad gateway</html>"),
        || refuses(503, "ServiceUnavailable"),
        || says(504, &Value::Null),
        || refuses(409, "ContainerGroupTransitioning"),
        || refuses(409, "ShareBeingDeleted"),
        || refuses(409, "RegistryErrorResponse"),
        || breaks(Broken::Network("connection reset by peer".to_owned())),
        || says(200, &Value::Null).text(r#"{"name":"we"#),
        || says(200, &Value::Null).text("<html>log in here</html>"),
    ];
    for (number, trouble) in troubles.into_iter().enumerate() {
        let (arm, azure) = azure(move |_, count| if count < 2 { trouble() } else { named() });
        let found: Named = arm.get(GROUP, &[], within(600)).await.unwrap().unwrap();
        assert_eq!((found.name.as_str(), azure.count()), ("web", 3), "{number}");
        let ids: Vec<String> =
            azure.calls.lock().unwrap().iter().map(|call| call.header("x-ms-client-request-id").to_owned()).collect();
        assert!(ids[0] != ids[1] && ids[0].len() == 36, "{ids:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_answer_was_lost_is_sent_again() {
    let (arm, azure) = azure(|_, count| match count {
        0 => breaks(Broken::TimedOut),
        _ => says(200, &json!({"name": "web"})),
    });
    let accepted = arm.put::<_, Named>(GROUP, &json!({"location": "eastus"}), within(600)).await.unwrap();
    assert_eq!((accepted.status, accepted.existed, accepted.pending.is_none()), (200, true, true));
    let calls = azure.calls.lock().unwrap();
    assert_eq!(calls.len(), 2);
    for call in calls.iter() {
        assert_eq!((&call.method, call.body.as_str()), (&Method::PUT, r#"{"location":"eastus"}"#));
        assert_eq!(call.header("content-type"), "application/json");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_not() {
    for (status, code, reason) in [
        (400, "InvalidDnsNameLabel", "refused"),
        (400, "ContainerGroupQuotaReached", "quota_reached"),
        (403, "AuthorizationFailed", "forbidden"),
        (404, "ResourceGroupNotFound", "not_found"),
        (409, "ServiceUnavailable", "no_capacity"),
        (409, "InvalidResourceLocation", "conflict"),
        (409, "StorageAccountAlreadyTaken", "conflict"),
        (412, "PreconditionFailed", "refused"),
        (501, "NotImplemented", "refused"),
        (302, "Moved", "refused"),
    ] {
        let (arm, azure) = azure(move |_, _| refuses(status, code).with("location", "http://127.0.0.1:1/x"));
        let error = arm.put::<_, Named>(GROUP, &json!({}), within(600)).await.unwrap_err();
        assert_eq!((error.reason(), error.code(), azure.count()), (reason, code, 1));
        assert_eq!(error.to_string(), format!("{code}: about {code}"));
    }
    let (arm, azure) = azure(|_, _| says(200, &json!({"name": ["k3y"]})));
    let error = arm.get::<Named>(GROUP, &[], within(600)).await.unwrap_err();
    assert!(matches!(&error, ArmError::Unreadable { .. }) && !error.to_string().contains("k3y"), "{error}");
    assert_eq!(azure.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_a_lower_bound() {
    for (name, value, least) in [
        ("retry-after", "7", 7.0),
        ("retry-after-ms", "1500", 1.5),
        ("x-ms-retry-after-ms", "2500", 2.5),
        ("retry-after", "0", 0.0),
        ("retry-after", "Thu, 26 Nov 2026 12:00:09 GMT", 9.0),
    ] {
        let (arm, azure) = azure(move |_, count| match count {
            0 => refuses(429, "TooManyRequests").with(name, value).with("date", "Thu, 26 Nov 2026 12:00:00 GMT"),
            _ => named(),
        });
        arm.get::<Named>(GROUP, &[], within(600)).await.unwrap();
        let waited = azure.times()[1];
        // With no time named, it is anything up to the first ceiling.
        let most = if least > 0.0 { least * 1.1 + 0.1 } else { 0.501 };
        assert!((least..=most).contains(&waited), "{name}: {value}: {waited}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    let (arm, azure) = azure(|_, _| refuses(429, "TooManyRequests").with("retry-after", "100"));
    let begun = Instant::now();
    let error = arm.get::<Named>(GROUP, &[], within(99)).await.unwrap_err();
    assert_eq!((error.reason(), azure.count()), ("throttled", 1));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_given_up_and_a_busy_one_is_not() {
    let (arm, azure) = azure(|_, _| refuses(500, "InternalServerError"));
    let begun = Instant::now();
    let error = arm.get::<Named>(GROUP, &[], within(3600)).await.unwrap_err();
    assert_eq!(error.reason(), "unreachable");
    assert!(begun.elapsed() <= Duration::from_secs(120) && azure.count() > 5, "{:?}", azure.times());

    let busy = Instant::now();
    let (arm, _) = super::azure(|_, _| refuses(409, "ContainerGroupTransitioning"));
    let error = arm.post::<(), IgnoredAny>(&format!("{GROUP}/start"), None, within(900)).await.unwrap_err();
    assert_eq!(error.reason(), "transitioning");
    assert!(busy.elapsed() > Duration::from_secs(800) && busy.elapsed() < Duration::from_secs(900));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_nobody_beyond_the_deadline() {
    let (arm, azure) = azure(|_, _| named().late(Duration::from_secs(100_000)));
    let begun = Instant::now();
    let error = arm.get::<Named>(GROUP, &[], within(10)).await.unwrap_err();
    assert!(matches!(&error, ArmError::Deadline { .. }), "{error}");
    assert_eq!((begun.elapsed().as_secs(), azure.count()), (10, 1));
    // With more time, an attempt takes a minute and the next one comes.
    let error = arm.get::<Named>(GROUP, &[], within(90)).await.unwrap_err();
    assert!(matches!(&error, ArmError::Deadline { .. }), "{error}");
    assert_eq!((begun.elapsed().as_secs(), azure.count()), (100, 3));
}

#[tokio::test(start_paused = true)]
async fn absence_is_an_answer_and_a_missing_resource_group_an_error() {
    for code in ["ResourceNotFound", "ShareNotFound"] {
        let (arm, _) = azure(move |_, _| refuses(404, code));
        assert_eq!(arm.get::<Named>(GROUP, &[], within(60)).await.unwrap(), None);
        let gone = arm.delete(GROUP, within(60)).await.unwrap();
        assert_eq!((gone.status, gone.existed, gone.pending.is_none()), (404, false, true));
    }
    let says_nothing = || says(404, &Value::Null).text("<html>not found</html>");
    let named = || {
        let message = "Resource group 'rg-1' could not be found.";
        says(404, &json!({"error": {"code": "ResourceGroupNotFound", "message": message}}))
    };
    let (arm, _) = azure(move |_, _| named());
    let error = arm.get::<Named>(GROUP, &[], within(60)).await.unwrap_err();
    assert!(error.to_string().contains("'rg-1'"), "{error}");
    assert!(arm.delete(GROUP, within(60)).await.is_err());
    let (arm, _) = azure(move |_, _| says_nothing());
    assert!(arm.get::<Named>(GROUP, &[], within(60)).await.is_err());
    assert!(arm.delete(GROUP, within(60)).await.is_err());
    let (arm, _) = azure(|_, _| says(204, &Value::Null));
    assert!(!arm.delete(GROUP, within(60)).await.unwrap().existed);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_more_to_say_is_there_or_not() {
    const PLACE: &str = "/subscriptions/s/resourceGroups/rg-1";
    let (arm, azure) = azure(|_, count| match count {
        0 => says(503, &Value::Null),
        1 => says(204, &Value::Null),
        _ => says(404, &Value::Null),
    });
    arm.head(PLACE, within(60)).await.unwrap();
    assert!(matches!(arm.head(PLACE, within(60)).await, Err(ArmError::NotFound(_))));
    assert!(azure.calls.lock().unwrap().iter().all(|call| call.method == hyper::Method::HEAD));
}

#[tokio::test(start_paused = true)]
async fn lists_are_read_to_their_end() {
    let (arm, azure) = azure(|seen, _| match seen.url.query().unwrap_or_default() {
        "page=2" => says(200, &json!({"value": [{"name": "b"}], "nextLink": "/next?page=3"})),
        "page=3" => says(200, &json!({"value": [{"name": "c"}], "nextLink": null})),
        _ => says(200, &json!({"value": [{"name": "a"}], "nextLink": "http://127.0.0.1:1/next?page=2"})),
    });
    let all: Vec<Named> = arm.list("/subscriptions/s/resources", &[("$top", "1")], within(60)).await.unwrap();
    assert_eq!(all.iter().map(|one| one.name.as_str()).collect::<String>(), "abc");
    assert_eq!(azure.calls.lock().unwrap()[0].url.query(), Some("api-version=2021-04-01&$top=1"));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_not_whole_is_an_error() {
    for next in ["http://127.0.0.1:7/next", "https://evil.example/next", "http://127.0.0.1:1/same"] {
        let (arm, azure) = azure(move |_, _| says(200, &json!({"value": [{"name": "a"}], "nextLink": next})));
        let result = arm.list::<Named>("/subscriptions/s/resources", &[], within(60)).await;
        assert!(matches!(&result, Err(ArmError::Unreadable { .. })), "{next}");
        assert!(azure.calls.lock().unwrap().iter().all(|call| call.url.authority().unwrap() == "127.0.0.1:1"));
    }
    let (arm, _) = azure(|_, _| refuses(404, "ResourceGroupNotFound"));
    assert!(arm.list::<Named>("/subscriptions/s/resources", &[], within(60)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn posts_without_a_body_say_so() {
    let (arm, azure) = azure(|_, _| says(204, &Value::Null));
    let stopped = arm.post::<(), IgnoredAny>(&format!("{GROUP}/stop"), None, within(60)).await.unwrap();
    assert!(stopped.pending.is_none() && stopped.body.is_none());
    let calls = azure.calls.lock().unwrap();
    assert_eq!((calls[0].header("content-length"), calls[0].header("content-type")), ("0", "application/json"));
}
