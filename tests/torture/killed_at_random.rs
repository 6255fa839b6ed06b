//! The agent is killed at any moment of mixed operations on several tenants: 300 times in the whole form. Every second time
//! the requests are repeated under their `Idempotency-Key` afterwards.

use std::time::Duration;

use serde_json::{Value, json};

use crate::auditor::{Dice, assert_no_litter, assert_orderly, audit, update_to, variant};
use crate::marks::Marks;
use crate::scene::{PROVISION, UPDATE, begin_under};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::unique;
use crate::whole;

const TENANTS: usize = 3;

/// Why an operation is refused for what its tenant is: it is not there, it has nothing to go back to, or it is stopped.
const REFUSALS: &[(u16, &str)] = &[(404, "NOT_FOUND"), (409, "GENERATION_MISMATCH"), (422, "UNSUPPORTED_ON_BACKEND")];

/// One operation, some of which are refused because the tenant is not there or has nothing to go back to.
fn operation(dice: &mut Dice, name: &str) -> (String, Value) {
    let path = |action: &str, query: &str| format!("/v1/tenants/{action}/{name}{query}");
    match dice.roll(16) {
        0..6 => (PROVISION.to_owned(), variant(name, dice.roll(4))),
        6..9 => (UPDATE.to_owned(), update_to(name, dice.roll(4))),
        9 => (path("rollback", ""), Value::Null),
        10 => (path("restart", ""), Value::Null),
        11 => (path("stop", ""), Value::Null),
        12 => (path("start", ""), Value::Null),
        13 => (path("teardown", ""), Value::Null),
        14 => (path("teardown", "?purge=true"), Value::Null),
        _ => (path("restart", "?service=web"), Value::Null),
    }
}

/// Where the tenant stands; null when it is not there.
async fn generation(agent: &Agent<'_>, name: &str) -> Value {
    agent.get(&format!("/v1/tenants/status/{name}")).await.json()["generation"].clone()
}

#[tokio::test]
async fn again_and_again() {
    let engine = Engine::shared().with_busybox().await;
    let mut agent = Options::docker(engine).env("Q8_AGENT_LOG", "info").start().await;
    // Another seed is another story; a story that failed names its own.
    let seed = std::env::var("Q8_TEST_SEED").map_or(0x5eed_0300, |text| text.parse().expect("a number"));
    let mut dice = Dice(seed);
    let names: Vec<String> = (0..TENANTS).map(|_| unique("chaos")).collect();
    let mut marks: Vec<Marks> = names.iter().map(|name| Marks::of(name)).collect();
    let (kills, mut cut_off) = (if whole() { 300 } else { 5 }, 0);
    for round in 0..kills {
        let operations: Vec<(String, Value)> = names.iter().map(|name| operation(&mut dice, name)).collect();
        let pause = Duration::from_millis(dice.roll(2500));
        let keys: Vec<String> = names.iter().map(|_| unique("key")).collect();
        let begin = |agent: &Agent<'_>, number: usize| {
            let (path, body): &(String, Value) = &operations[number];
            begin_under(agent, path, body, Some(&keys[number]))
        };
        let running: Vec<_> = (0..names.len()).map(|number| begin(&agent, number)).collect();
        tokio::time::sleep(pause).await;
        agent.kill();
        let mut answers = Vec::new();
        for answer in running {
            answers.push(answer.await.expect("no panic").map(|answer| answer.status.as_u16()).ok());
        }
        cut_off += answers.iter().filter(|answer| answer.is_none()).count();
        // Every fourth time the recovery is killed as well.
        if round % 4 == 3 {
            agent.start_again_without_waiting();
            tokio::time::sleep(Duration::from_millis(dice.roll(600))).await;
            agent.kill();
        }
        agent.start_again().await;
        let paths: Vec<&String> = operations.iter().map(|(path, _)| path).collect();
        for (number, name) in names.iter().enumerate() {
            let story =
                format!("seed {seed}, round {round}: {paths:?} killed after {pause:?}, answered {answers:?}: {name}");
            let found = audit(engine, &agent, name, &story).await;
            marks[number].check(Some(engine), &agent, found, &story).await;
            if round % 2 == 0 {
                continue;
            }
            // What was told is told again and not done again; what was not, is done now or refused.
            let before = generation(&agent, name).await;
            let again = begin(&agent, number).await.expect("no panic").expect("an answer");
            let story = format!("{story}, repeated");
            let found = audit(engine, &agent, name, &story).await;
            marks[number].check(Some(engine), &agent, found, &story).await;
            if let Some(told @ 200..300) = answers[number] {
                assert_eq!(again.status.as_u16(), told, "{story}: {}", again.text());
                assert_eq!(generation(&agent, name).await, before, "{story}: it was done twice");
            } else if !again.status.is_success() {
                let word = (again.status.as_u16(), again.json()["code"].clone());
                assert!(REFUSALS.iter().any(|(status, code)| word == (*status, json!(code))), "{story}: {word:?}");
            }
        }
        if round % 25 == 24 {
            eprintln!("{} of {kills} kills", round + 1);
        }
    }
    eprintln!("{cut_off} operations were cut off by {kills} kills");
    assert!(!whole() || cut_off * 10 >= kills, "seed {seed}: {cut_off} operations were cut off by {kills} kills");
    for name in &names {
        agent.post(&format!("/v1/tenants/teardown/{name}?purge=true"), &Value::Null).await.expect(200);
    }
    assert_eq!(engine.left(&agent.label()).await, Vec::<String>::new(), "seed {seed}");
    assert_no_litter(engine, &agent, "at the end").await;
    assert_orderly(&agent.root(), None, "at the end");
}
