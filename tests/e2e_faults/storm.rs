//! A storm of mixed operations on several tenants at once leaves what the invariants ask.

use futures::stream::{self, StreamExt as _};
use serde_json::Value;

use crate::auditor::{Dice, assert_no_litter, audit, update_to, variant};
use crate::scene::{PROVISION, UPDATE, assert_nothing_left};
use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::unique;

const OPERATIONS: usize = 100;
const TENANTS: u64 = 6;
const AT_ONCE: usize = 8;

/// What may be answered besides success: another operation runs, the tenant is not there, is stopped, or has nothing to go back to.
const EXPECTED: &[&str] = &["TENANT_BUSY", "NOT_FOUND", "GENERATION_MISMATCH", "UNSUPPORTED_ON_BACKEND"];

/// One operation: what it is called, its path and its body.
fn operation(dice: &mut Dice, names: &[String]) -> (String, Value) {
    let name = &names[usize::try_from(dice.roll(TENANTS)).expect("small")];
    let path = |action: &str, query: &str| format!("/v1/tenants/{action}/{name}{query}");
    match dice.roll(20) {
        0..8 => (PROVISION.to_owned(), variant(name, dice.roll(4))),
        8..11 => (UPDATE.to_owned(), update_to(name, dice.roll(4))),
        11..13 => (path("restart", ""), Value::Null),
        13 => (path("restart", "?service=web"), Value::Null),
        14 => (path("stop", ""), Value::Null),
        15 => (path("start", ""), Value::Null),
        16 => (path("rollback", ""), Value::Null),
        17..19 => (path("teardown", ""), Value::Null),
        _ => (path("teardown", "?purge=true"), Value::Null),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_mixed_operations_leave_whole_generations() {
    let seed = std::env::var("Q8_STORM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_126);
    let engine = Engine::shared().with_busybox().await;
    let agent = Options::docker(engine).env("Q8_AGENT_BUSY_WAIT", "1s").env("Q8_AGENT_LOG", "info").start().await;
    let names: Vec<String> = (0..TENANTS).map(|_| unique("storm")).collect();
    let mut dice = Dice(seed);
    let operations: Vec<(String, Value)> = (0..OPERATIONS).map(|_| operation(&mut dice, &names)).collect();
    let answers: Vec<(String, u16, Value)> = stream::iter(operations)
        .map(async |(path, body)| {
            let answer = agent.post(&path, &body).await;
            (path, answer.status.as_u16(), answer.json())
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut succeeded = 0;
    let mut blamed_on_engine = Vec::new();
    for (path, status, told) in &answers {
        let good = *status < 300;
        succeeded += usize::from(good);
        let expected = told["code"].as_str().is_some_and(|code| EXPECTED.contains(&code));
        let blames_engine = told["error"].as_str().is_some_and(|error| error.contains("only its restart corrects"));
        if blames_engine {
            blamed_on_engine.push(format!("{path}: {told}"));
        }
        assert!(good || expected || blames_engine, "seed {seed}: {path}: {status} {told}");
    }
    assert!(succeeded >= OPERATIONS / 3, "seed {seed}: only {succeeded} succeeded");
    for name in &names {
        audit(engine, &agent, name, &format!("seed {seed}, {name}")).await;
    }
    for name in &names {
        agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await.expect(200);
    }
    assert_nothing_left(engine, &agent.label(), &format!("seed {seed}")).await;
    assert_no_litter(engine, &agent, "at the end").await;
    // The count does not go down by itself: what was blamed on it is there still.
    let miscounted = engine.miscounted(&engine.labelled(&agent.label()).await).await;
    for blame in blamed_on_engine {
        assert!(miscounted.iter().any(|network| blame.contains(network)), "seed {seed}: {blame}; {miscounted:?}");
    }
}
