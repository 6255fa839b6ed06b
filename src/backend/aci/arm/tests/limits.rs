//! Write limits and the number of calls at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::transport::Broken;
use super::{GROUP, azure, refuses, says, within};

fn group(number: usize) -> String {
    format!("{GROUP}-{number}")
}

#[tokio::test(start_paused = true)]
async fn creates_and_deletes_keep_to_the_limits() {
    let (arm, azure) = azure(|_, _| says(200, &json!({})));
    let deadline = within(7200);
    let names: Vec<String> = (0..350).map(group).collect();
    let body = json!({});
    let creates = join_all(names.iter().map(|name| arm.put::<_, Value>(name, &body, deadline)));
    let deletes = join_all(names[..10].iter().map(|name| arm.delete(name, deadline)));
    let (creates, deletes) = tokio::join!(creates, deletes);
    assert!(creates.iter().all(Result::is_ok) && deletes.iter().all(Result::is_ok));
    let calls = azure.calls.lock().unwrap();
    let creates: Vec<Instant> = calls.iter().filter(|call| call.method == "PUT").map(|call| call.at).collect();
    for (most, time) in [(100, 300), (300, 3600)] {
        for window in creates.windows(most + 1) {
            assert!(window[most] - window[0] > Duration::from_secs(time), "{most} in {time} s");
        }
    }
    assert!(creates[349] - creates[0] < Duration::from_secs(3700), "no slower than they must be");
    let deletes = calls.iter().filter(|call| call.method == "DELETE");
    assert!(
        deletes.map(|call| call.at - creates[0]).max().unwrap() < Duration::from_secs(1),
        "they have a limit of their own"
    );
}

#[tokio::test(start_paused = true)]
async fn each_region_has_its_own_and_reading_has_none() {
    let (arm, azure) = azure(|_, _| says(200, &json!({})));
    let (body, deadline, begun) = (json!({}), within(10), Instant::now());
    let names: Vec<String> = (0..100).map(group).collect();
    assert!(
        join_all(names.iter().map(|name| arm.put::<_, Value>(name, &body, deadline))).await.iter().all(Result::is_ok)
    );
    // There is no room before the deadline, and that is said at once.
    let error = arm.put::<_, Value>(GROUP, &body, deadline).await.unwrap_err();
    assert_eq!(error.reason(), "throttled");
    assert!(error.to_string().contains("write limit"), "{error}");
    arm.put::<_, Value>(&GROUP.replace("Rg-1", "rg-2"), &body, deadline).await.unwrap();
    join_all((0..300).map(|_| arm.get::<Value>(GROUP, &[], deadline))).await;
    assert_eq!(azure.count(), 401);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_not_used_is_given_back() {
    let (arm, azure) = azure(|_, _| says(200, &json!({})).late(Duration::from_secs(1)));
    let body = json!({});
    let names: Vec<String> = (0..101).map(group).collect();
    join_all(names[..100].iter().map(|name| arm.put::<_, Value>(name, &body, within(600)))).await;
    for _ in 0..500 {
        let waiting = arm.put::<_, Value>(&names[100], &body, within(3600));
        assert!(tokio::time::timeout(Duration::from_millis(1), waiting).await.is_err());
    }
    let begun = Instant::now();
    arm.put::<_, Value>(&names[100], &body, within(600)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(310));
    assert_eq!(azure.count(), 101);
}

#[tokio::test(start_paused = true)]
async fn what_the_service_never_counted_is_given_back() {
    type Trouble = fn() -> super::Says;
    let troubles: [Trouble; 2] =
        [|| super::breaks(Broken::Unconnected("refused".to_owned())), || refuses(429, "TooManyRequests")];
    for trouble in troubles {
        let (arm, azure) = azure(move |_, count| if count < 150 { trouble() } else { says(200, &json!({})) });
        let (body, begun) = (json!({}), Instant::now());
        let names: Vec<String> = (0..100).map(group).collect();
        let all = join_all(names.iter().map(|name| arm.put::<_, Value>(name, &body, within(120)))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(azure.count(), 250);
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}

#[tokio::test(start_paused = true)]
async fn with_nothing_left_it_goes_slowly() {
    let (arm, azure) =
        azure(|_, _| says(200, &json!({})).with("x-ms-ratelimit-remaining-subscription-resource-requests-pt5m", "0"));
    for number in 0..4 {
        arm.put::<_, Value>(&group(number), &json!({}), within(60)).await.unwrap();
    }
    let times = azure.times();
    assert!(times.windows(2).all(|two| two[1] - two[0] >= 3.0), "{times:?}");
    let (arm, azure) = super::azure(|_, _| {
        says(200, &json!({}))
            .with("x-ms-ratelimit-remaining-subscription-resource-requests-pt5m", "99")
            .with("x-ms-ratelimit-remaining-subscription-writes", "1199")
    });
    for number in 0..4 {
        arm.put::<_, Value>(&group(number), &json!({}), within(60)).await.unwrap();
    }
    assert!(azure.times()[3] < 0.1);
}

#[tokio::test(start_paused = true)]
async fn what_one_is_told_holds_for_all() {
    let (arm, azure) = azure(|_, count| match count {
        0 => refuses(429, "TooManyRequests").with("retry-after", "20"),
        _ => says(200, &json!({})),
    });
    let (body, deadline) = (json!({}), within(600));
    let first = arm.put::<_, Value>(GROUP, &body, deadline);
    let second = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        arm.put::<_, Value>(&group(2), &body, deadline).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() && second.is_ok());
    assert!(azure.times()[1..].iter().all(|&time| time >= 20.0), "{:?}", azure.times());
}

#[tokio::test(start_paused = true)]
async fn only_so_many_at_once_and_reading_goes_on() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (under_way, highest) = (Arc::clone(&now), Arc::clone(&most));
    let (arm, azure) = azure(move |_, _| {
        let now = Arc::clone(&under_way);
        highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(999)).await;
            now.fetch_sub(1, Ordering::SeqCst);
        });
        says(200, &json!({})).late(Duration::from_secs(1))
    });
    let (body, deadline, begun) = (json!({}), within(600), Instant::now());
    let names: Vec<String> = (0..60).map(group).collect();
    let writes = join_all(names.iter().map(|name| arm.put::<_, Value>(name, &body, deadline)));
    let read = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        arm.get::<Value>(GROUP, &[], deadline).await.unwrap();
        begun.elapsed()
    };
    let (_, read) = tokio::join!(writes, read);
    assert!(read < Duration::from_millis(1100), "{read:?}");
    assert_eq!((most.load(Ordering::SeqCst), azure.count()), (13, 61));
    let reads = join_all((0..60).map(|_| arm.get::<Value>(GROUP, &[], deadline))).await;
    assert!(reads.iter().all(Result::is_ok));
    assert_eq!(most.load(Ordering::SeqCst), 16);
}
