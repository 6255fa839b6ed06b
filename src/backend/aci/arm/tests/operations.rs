//! Long-running operations in each form, and how often they are looked at.

use std::time::Duration;

use futures::future::join_all;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::error::ArmError;
use super::super::{Arm, Pending};
use super::{GROUP, Says, Seen, azure, refuses, says, within};

const STATUS: &str = "/subscriptions/s/providers/Microsoft.ContainerInstance/locations/eastus/operations/1";

fn status(word: &str) -> Says {
    says(200, &json!({"id": GROUP, "status": word, "startTime": "2026-11-26T12:00:00Z"}))
}

fn group(state: &str) -> Value {
    json!({"name": "web", "properties": {"provisioningState": state}})
}

fn here(path: &str) -> String {
    format!("http://127.0.0.1:1{path}?api-version=2025-09-01")
}

/// Begins with a `PUT` and follows it, seeing what it tells.
async fn follow(arm: &Arm, seconds: u64) -> Result<Vec<Value>, ArmError> {
    let deadline = within(seconds);
    let accepted = arm.put::<_, Value>(GROUP, &json!({}), deadline).await?;
    let pending: Pending = accepted.pending.expect("something goes on");
    let mut told = Vec::new();
    arm.wait(&pending, deadline, &mut |document| {
        told.push(document.clone());
        Ok(())
    })
    .await?;
    Ok(told)
}

fn is_put(seen: &Seen) -> bool {
    seen.method == hyper::Method::PUT
}

#[tokio::test(start_paused = true)]
async fn by_a_status_document() {
    let (arm, azure) = azure(|seen, count| match count {
        0 => says(201, &group("Pending")).with("azure-asyncoperation", &here(STATUS)).with("location", &here("/x")),
        1 => status("Pending"),
        2 => status("Creating"),
        _ if seen.url.path() == STATUS => status("SUCCEEDED"),
        _ => refuses(400, "Odd"),
    });
    let told = follow(&arm, 60).await.unwrap();
    assert_eq!(
        told.iter().map(|told| told["status"].as_str().unwrap()).collect::<Vec<_>>(),
        ["Pending", "Creating", "SUCCEEDED"]
    );
    let times = azure.times();
    assert!(times[1] < 0.001, "the first look comes at once: {times:?}");
    let calls = azure.calls.lock().unwrap();
    assert!(is_put(&calls[0]) && calls[1].header("authorization").starts_with("Bearer "));
    assert_eq!(calls[1].url.query(), Some("api-version=2025-09-01"));
}

#[tokio::test(start_paused = true)]
async fn by_a_location() {
    let (arm, azure) = azure(|_, count| match count {
        0 => says(202, &Value::Null).with("location", &here("/operations/1")).with("retry-after", "3"),
        1 => says(202, &Value::Null).with("retry-after", "5").with("location", &here("/operations/2")),
        2 => says(202, &Value::Null),
        3 => says(200, &group("Creating")),
        _ => says(200, &group("Succeeded")),
    });
    follow(&arm, 60).await.unwrap();
    let times = azure.times();
    assert!(times[1] >= 3.0 && times[1] < 3.01 && times[2] >= times[1] + 5.0 && times[2] < 8.02, "{times:?}");
    assert_eq!(times.len(), 5);
    let calls = azure.calls.lock().unwrap();
    let asked: Vec<&str> = calls[1..].iter().map(|call| call.url.path()).collect();
    assert_eq!(asked, ["/operations/1", "/operations/2", "/operations/2", "/operations/2"], "it has moved");
}

#[tokio::test(start_paused = true)]
async fn by_the_resource_itself() {
    let (arm, azure) = azure(|seen, count| match count {
        0 => says(201, &group("Creating")),
        1..4 => says(200, &group("Repairing")),
        _ if seen.url.path() == GROUP => says(200, &group("Succeeded")),
        _ => refuses(400, "Odd"),
    });
    follow(&arm, 60).await.unwrap();
    assert_eq!(azure.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_not_followed() {
    for answer in [|| says(200, &group("Succeeded")), || says(200, &json!({"name": "x"})), || says(201, &Value::Null)] {
        let (arm, _) = azure(move |_, _| answer());
        assert!(arm.put::<_, Value>(GROUP, &json!({}), within(60)).await.unwrap().pending.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_leads_elsewhere_is_not_there() {
    for header in ["azure-asyncoperation", "location"] {
        let (arm, azure) = azure(move |_, count| match count {
            0 => says(201, &group("Creating")).with(header, "https://evil.example/operations/1"),
            _ => says(200, &group("Succeeded")),
        });
        follow(&arm, 60).await.unwrap();
        let calls = azure.calls.lock().unwrap();
        assert!(calls.iter().all(|call| call.url.authority().unwrap() == "127.0.0.1:1"));
        assert_eq!(calls[1].url.path(), GROUP);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_of_each_kind() {
    let events =
        json!({"status": "Failed", "properties": {"events": [{"name": "InsufficientCapacity.", "message": "none"}]}});
    let quota = json!({"status": "Failed", "error": {"code": "ContainerGroupQuotaReached", "message": "full"}});
    let image = json!({"status": "failed", "error": {"code": "Odd", "message": "odd"}});
    let resource = json!({"properties": {"provisioningState": "Failed", "instanceView": {"events": [
        {"name": "FailedMount", "message": "share not found"}]}}});
    for (document, reason, message) in [
        (events, "no_capacity", "none"),
        (quota, "quota_reached", "full"),
        (image, "operation_failed", "odd"),
        (json!({"status": "Canceled"}), "operation_failed", "the operation ended as Canceled"),
        (resource, "operation_failed", "share not found"),
    ] {
        let (arm, azure) = azure(move |_, count| match count {
            0 => says(201, &group("Pending")).with("azure-asyncoperation", &here(STATUS)),
            _ => says(200, &document),
        });
        let error = follow(&arm, 60).await.unwrap_err();
        assert_eq!((error.reason(), error.refusal().unwrap().message.as_str()), (reason, message));
        assert_eq!(azure.count(), 2);
    }
    let (arm, _) = azure(|_, count| match count {
        0 => says(202, &Value::Null).with("location", &here("/operations/1")),
        _ => refuses(409, "ServiceUnavailable"),
    });
    assert_eq!(follow(&arm, 60).await.unwrap_err().reason(), "no_capacity");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_stuck_ends_with_the_deadline() {
    let (arm, azure) = azure(|_, count| match count {
        0 => says(201, &group("Pending")).with("azure-asyncoperation", &here(STATUS)),
        _ => status("Creating"),
    });
    let begun = Instant::now();
    let error = follow(&arm, 1800).await.unwrap_err();
    assert!(error.to_string().contains("was Creating"), "{error}");
    assert!(begun.elapsed() > Duration::from_secs(1785) && begun.elapsed() <= Duration::from_secs(1800));
    let times = azure.times();
    assert!(times.windows(2).all(|two| two[1] - two[0] <= 10.001), "{times:?}");
    assert!(times.len() < 350, "{}", times.len());
}

#[tokio::test(start_paused = true)]
async fn the_end_is_noticed_soon() {
    for seconds in [1.0, 5.0, 30.0, 90.0] {
        let begun = Instant::now();
        let (arm, azure) = azure(move |_, count| match count {
            0 => says(201, &group("Pending")).with("azure-asyncoperation", &here(STATUS)),
            _ if begun.elapsed().as_secs_f64() >= seconds => status("Succeeded"),
            _ => status("Creating"),
        });
        follow(&arm, 600).await.unwrap();
        let late = begun.elapsed().as_secs_f64() - seconds;
        assert!(late <= f64::max(0.16, seconds * 0.041), "{seconds}: {late}");
        assert!(azure.count() < 120, "{seconds}: {}", azure.count());
    }
}

#[tokio::test(start_paused = true)]
async fn many_share_the_looks() {
    let begun = Instant::now();
    let (arm, azure) = azure(move |seen, _| match seen.method {
        hyper::Method::PUT => says(201, &group("Pending")).with("azure-asyncoperation", &here(STATUS)),
        _ if begun.elapsed() >= Duration::from_secs(20) => status("Succeeded"),
        _ => status("Creating"),
    });
    let all = join_all((0..50).map(|_| follow(&arm, 600))).await;
    assert!(all.iter().all(Result::is_ok));
    assert!(azure.count() < 50 * 12, "{}", azure.count());
}

#[tokio::test(start_paused = true)]
async fn trouble_on_the_way_is_passed_over() {
    let (arm, _) = azure(|_, count| match count {
        0 => says(201, &group("Pending")).with("azure-asyncoperation", &here(STATUS)),
        1 => refuses(503, "ServiceUnavailable"),
        2 => says(200, &Value::Null).text("{\"status\":\"Suc"),
        3 => status("Creating"),
        // It is forgotten, and the group itself is asked.
        4 => refuses(404, "OperationNotFound"),
        5 => says(200, &group("Creating")),
        _ => says(200, &group("Succeeded")),
    });
    assert_eq!(follow(&arm, 600).await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_resource_may_not_be_seen_at_first() {
    let (arm, _) = azure(|_, count| match count {
        0 => says(201, &group("Creating")),
        1..4 => refuses(404, "ResourceNotFound"),
        _ => says(200, &group("Succeeded")),
    });
    follow(&arm, 600).await.unwrap();
    let (arm, _) = super::azure(|_, count| match count {
        0 => says(201, &group("Creating")),
        _ => refuses(404, "ResourceNotFound"),
    });
    let begun = Instant::now();
    assert_eq!(follow(&arm, 600).await.unwrap_err().reason(), "not_found");
    assert!(begun.elapsed() < Duration::from_secs(40));
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_may_end_the_waiting() {
    let (arm, azure) = azure(|_, count| match count {
        0 => says(201, &group("Pending")).with("azure-asyncoperation", &here(STATUS)),
        _ => status("Creating"),
    });
    let accepted = arm.put::<_, Value>(GROUP, &json!({}), within(600)).await.unwrap();
    let mut looks = 0;
    let mut watch = |_: &Value| {
        looks += 1;
        if looks == 3 { Err(ArmError::Unavailable { message: "the mount failed".to_owned() }) } else { Ok(()) }
    };
    let pending = accepted.pending.unwrap();
    let ended = arm.wait(&pending, within(600), &mut watch);
    assert!(ended.await.unwrap_err().to_string().contains("the mount failed"));
    assert_eq!(azure.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn removals() {
    type Answers = fn(&Seen, usize) -> Says;
    let forms: [Answers; 4] = [
        |_, count| match count {
            0 => says(202, &Value::Null).with("azure-asyncoperation", &here(STATUS)),
            1 => status("Deleting"),
            _ => status("Succeeded"),
        },
        |_, count| match count {
            0 => says(202, &Value::Null).with("location", &here("/operations/1")),
            1 => says(202, &Value::Null),
            _ => says(204, &Value::Null),
        },
        |_, count| match count {
            0 => says(202, &Value::Null).with("location", &here("/operations/1")),
            1 => says(202, &Value::Null),
            _ => refuses(404, "ResourceNotFound"),
        },
        // It is seen as it was until it is gone.
        |_, count| match count {
            0 => says(202, &Value::Null),
            1 => says(200, &group("Succeeded")),
            _ => refuses(404, "ResourceNotFound"),
        },
    ];
    for (number, form) in forms.into_iter().enumerate() {
        let (arm, azure) = azure(form);
        let accepted = arm.delete(GROUP, within(60)).await.unwrap();
        assert!(accepted.existed);
        arm.wait(&accepted.pending.unwrap(), within(60), &mut |_| Ok(())).await.unwrap();
        assert_eq!(azure.count(), 3, "{number}");
    }
    let (arm, _) = azure(|_, _| says(200, &group("Succeeded")));
    assert!(arm.delete(GROUP, within(60)).await.unwrap().pending.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_start_is_followed_at_its_group() {
    let (arm, azure) = azure(|_, count| match count {
        0 => says(202, &Value::Null),
        _ => says(200, &group("Succeeded")),
    });
    let accepted = arm.post::<(), IgnoredAny>(&format!("{GROUP}/start"), None, within(60)).await.unwrap();
    arm.wait(&accepted.pending.unwrap(), within(60), &mut |_| Ok(())).await.unwrap();
    assert_eq!(azure.calls.lock().unwrap()[1].url.path(), GROUP);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_followed_on_any_thread() {
    let (arm, _) = azure(|_, count| match count {
        0 => says(201, &group("Pending")).with("azure-asyncoperation", &here(STATUS)),
        _ => status("Succeeded"),
    });
    tokio::spawn(async move { follow(&arm, 60).await.unwrap() }).await.unwrap();
}
