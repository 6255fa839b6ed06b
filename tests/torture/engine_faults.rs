//! Each call that changes something on the engine goes wrong in each way that it can: refused, lost before or after it was
//! done, cut short, slow, or never answered. The operation succeeds or says a word of the table, and afterwards, without a
//! restart, the tenant is what it was before or what it was to be, and repeating the request does it once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::actions::{Action, Bystander, Victim, send};
use crate::auditor::Found;
use crate::scene::{LONG, at_step};
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::fault_proxy::{Fault, FaultProxy, Rule};
use crate::support::http::Answer;
use crate::support::{eventually, unique};
use crate::whole;

const FAULTS: [Fault; 9] = [
    Fault::ResetAfter,
    Fault::Status(500),
    Fault::ResetBefore,
    Fault::Truncated,
    Fault::Status(409),
    Fault::Status(404),
    Fault::Slow,
    Fault::HangAfter,
    Fault::Hang,
];

/// What an operation may say when the engine does such things, with the status that goes with it.
const WORDS: &[(&str, u16)] = &[
    ("BACKEND_UNAVAILABLE", 503),
    ("BACKEND_ERROR", 502),
    ("DEADLINE_EXCEEDED", 504),
    // Somebody else may have the name: that is what 409 means, and the agent has looked.
    ("NAME_TAKEN", 409),
    // So an engine says that the image went between the look and the making.
    ("IMAGE_NOT_FOUND", 502),
    ("SERVICE_EXITED", 502),
    ("SERVICE_UNHEALTHY", 502),
];

/// Of those of one action's rules that make nobody wait for long some: each kind of fault in turn, where the action before has
/// left off, and of its calls another one each time.
fn some(mut rules: Vec<Rule>, most: usize, number: usize) -> Vec<Rule> {
    let mut chosen: Vec<Rule> = Vec::new();
    for fault in FAULTS.iter().filter(|fault| !waits(**fault)).cycle().skip(number * most).take(most * 2) {
        let such: Vec<usize> = (0..rules.len()).filter(|at| rules[*at].fault == *fault).collect();
        if chosen.len() < most && !such.is_empty() {
            chosen.push(rules.remove(such[chosen.len() * such.len() / most]));
        }
    }
    chosen
}

/// Whether it is over only when somebody has waited long enough.
fn waits(fault: Fault) -> bool {
    matches!(fault, Fault::Hang | Fault::HangAfter)
}

/// A success, or a failure that says a word of the table.
#[track_caller]
fn assert_worded(answer: &Answer, story: &str) {
    let is_told = |code: &str, status: u16| answer.json()["code"] == code && answer.status.as_u16() == status;
    let expected = answer.status.is_success() || WORDS.iter().any(|(code, status)| is_told(code, *status));
    assert!(expected, "{story}: {} {}", answer.status, answer.text());
}

/// How many agents share the faults of one story in the whole form. Most of the time is spent waiting for what is never
/// answered.
const LANES: usize = 4;

/// An agent, the proxy between it and the engine, and the tenants it has.
struct Lane {
    engine: &'static Engine,
    proxy: FaultProxy,
    agent: Agent<'static>,
    victim: Victim,
    bystander: Bystander,
}

/// What became of the faults that were tried.
#[derive(Default)]
struct Count {
    tried: u32,
    hit: u32,
}

impl Lane {
    async fn new(engine: &'static Engine, what: &str, prepare: &[Action]) -> Self {
        let proxy = FaultProxy::before(engine.socket());
        let options = Options::docker(engine).env("DOCKER_HOST", proxy.host());
        let agent = options.env("Q8_AGENT_OPERATION_TIMEOUT", "15s").env("Q8_AGENT_BUSY_WAIT", "10s").start().await;
        let victim = Victim::new(unique("victim"));
        let bystander = Bystander::new(engine, &agent, &victim).await;
        let mut lane = Self { engine, proxy, agent, victim, bystander };
        for action in prepare {
            lane.act(*action, what).await;
        }
        lane
    }

    async fn act(&mut self, action: Action, what: &str) {
        self.victim.act(Some(self.engine), &self.agent, action, what).await;
    }

    /// Does each action once without a fault. What can go wrong with it.
    async fn learn(&mut self, what: &str, cycle: &[Action]) -> Vec<Vec<Rule>> {
        let mut all = Vec::new();
        for action in cycle {
            self.proxy.heard();
            self.act(*action, what).await;
            let rules = rules(&self.proxy.heard());
            assert!(rules.len() >= FAULTS.len(), "{what}: {action:?} makes calls");
            all.push(rules);
        }
        all
    }

    /// Does the actions in turn, over and over, until each has met all of its faults.
    async fn meet(&mut self, what: &str, cycle: &[Action], mut left: Vec<Vec<Rule>>) -> Count {
        let mut count = Count::default();
        while left.iter().any(|rules| !rules.is_empty()) {
            for (number, action) in cycle.iter().enumerate() {
                let Some(rule) = left[number].pop() else {
                    self.act(*action, what).await;
                    continue;
                };
                let story = format!("{what}: {action:?} with {:?} of {} {:?}", rule.fault, rule.call, rule.number);
                count.tried += 1;
                count.hit += self.meet_one(*action, rule, count.tried.is_multiple_of(2), &story).await;
            }
        }
        count
    }

    /// How many calls the fault has met.
    async fn meet_one(&mut self, action: Action, rule: Rule, has_key: bool, story: &str) -> u32 {
        let Self { engine, proxy, agent, victim, bystander } = self;
        let begun = Instant::now();
        let (was, request) = (victim.at, victim.request(action, has_key));
        proxy.disturb(rule);
        let answer = send(agent, &request).await.expect("no panic").expect("an answer");
        let hit = proxy.calm();
        eprintln!("{story}: {} after {:?}", answer.status, begun.elapsed());
        assert_worded(&answer, story);
        until_mended(agent, story).await;
        audit_after(engine, agent, victim, action, answer.status.is_success(), story).await;
        victim.repeat(Some(engine), agent, action, &request, was, story).await;
        bystander.assert_untouched(engine, story).await;
        hit
    }

    async fn end(mut self, what: &str) {
        self.act(Action::Purge, what).await;
        self.bystander.end(self.engine, &self.agent).await;
    }
}

/// In the short form with at `most` so many faults for each action. Every second request is under an `Idempotency-Key`.
async fn torture(what: &str, prepare: &[Action], cycle: &[Action], most: usize) {
    let engine = Engine::shared().with_busybox().await;
    let mut lane = Lane::new(engine, what, prepare).await;
    let learnt = lane.learn(what, cycle).await.into_iter().enumerate();
    // Waiting for what never answers is for those who have the time.
    let rules: Vec<Vec<Rule>> =
        learnt.map(|(number, rules)| if whole() { rules } else { some(rules, most, number) }).collect();
    // Not found is what few calls can be told.
    let kinds: Vec<Fault> = rules.iter().flatten().map(|rule| rule.fault).collect();
    let missed = FAULTS.iter().find(|fault| !waits(**fault) && **fault != Fault::Status(404) && !kinds.contains(fault));
    assert!(missed.is_none() && kinds.len() >= most * cycle.len(), "{what}: {missed:?} is not tried: {kinds:?}");
    let mut lanes = vec![lane];
    while whole() && lanes.len() < LANES {
        let mut lane = Lane::new(engine, what, prepare).await;
        lane.learn(what, cycle).await;
        lanes.push(lane);
    }
    let among = lanes.len();
    let share = |number: usize| -> Vec<Vec<Rule>> {
        rules.iter().map(|rules| rules.iter().skip(number).step_by(among).cloned().collect()).collect()
    };
    let meetings = lanes.iter_mut().enumerate().map(|(number, lane)| lane.meet(what, cycle, share(number)));
    let counts = join_all(meetings).await;
    let (tried, hit) = counts.iter().fold((0, 0), |(tried, hit), count| (tried + count.tried, hit + count.hit));
    eprintln!("{what}: {hit} of {tried} faults met a call");
    // How often a call is made is chance now and then.
    assert!(hit + (tried / 5).max(1) >= tried, "{what}: only {hit} of {tried} faults met a call");
    for lane in lanes {
        lane.end(what).await;
    }
}

/// An action that has failed for good need not leave what was before: a teardown goes on, and a stop or a restart that was
/// refused half-way is repeated by whoever asked for it.
async fn audit_after(
    engine: &Engine,
    agent: &Agent<'_>,
    victim: &mut Victim,
    action: Action,
    acknowledged: bool,
    story: &str,
) {
    let leaves_it_half_done = matches!(action, Action::Restart | Action::Stop | Action::Start);
    if acknowledged || !leaves_it_half_done {
        victim.audit(Some(engine), agent, action, acknowledged, story).await;
    } else if let Found::At { candidate, generation, .. } = victim.at {
        // The record of a stop says so whatever became of the containers.
        let status = crate::scene::status(agent, &victim.name).await;
        assert_eq!(status["generation"], generation, "{story}: of variant {candidate}: {status}");
        crate::auditor::assert_no_litter(engine, agent, story).await;
        crate::auditor::assert_orderly(&agent.root(), Some(&victim.name), story);
    }
}

/// Each call with each fault: of several calls of one name the first and the last.
fn rules(heard: &[String]) -> Vec<Rule> {
    let mut counts: BTreeMap<&String, u32> = BTreeMap::new();
    for call in heard {
        *counts.entry(call).or_default() += 1;
    }
    let mut rules = Vec::new();
    for (call, count) in counts {
        // "Not found" is how an engine says that there is nothing left to do here. None lies about that.
        let is_done_when_gone = call.starts_with("DELETE") || call.ends_with("/stop") || call.ends_with("/disconnect");
        for fault in FAULTS.into_iter().filter(|fault| *fault != Fault::Status(404) || !is_done_when_gone) {
            rules.push(Rule { call: call.clone(), number: Some(1), fault });
            if count > 1 {
                rules.push(Rule { call: call.clone(), number: Some(count), fault });
            }
        }
    }
    rules
}

async fn until_mended(agent: &Agent<'_>, story: &str) {
    eventually(&format!("{story}: mended without a restart"), LONG * 3, async || {
        // One that its client was told is overdue may still be waiting for the engine.
        let operations = agent.get("/v1/operations").await.expect(200);
        let ended =
            operations["operations"].as_array().is_some_and(|all| all.iter().all(|one| one["state"] != "running"));
        let answer = agent.get("/ready").await;
        (ended && answer.status == 200 && answer.json()["degraded"] == json!([])).then_some(())
    })
    .await;
}

use Action::{Provision, Purge, Restart, Rollback, Start, Stop, Teardown, Update};

#[tokio::test]
async fn of_updates() {
    torture("updates", &[Provision(0)], &[Update(1), Update(0)], 4).await;
}

#[tokio::test]
async fn of_first_provisions_and_purges() {
    torture("first provisions and purges", &[], &[Provision(0), Purge], 4).await;
}

#[tokio::test]
async fn of_teardowns() {
    torture("teardowns", &[Provision(0)], &[Teardown, Provision(1)], 4).await;
}

#[tokio::test]
async fn of_start_first_updates_and_rollbacks() {
    torture("start-first updates and rollbacks", &[Provision(2)], &[Update(3), Rollback], 4).await;
}

#[tokio::test]
async fn of_stops_starts_and_restarts() {
    torture("stops, starts and restarts", &[Provision(2)], &[Stop, Start, Restart], 3).await;
}

/// A stream of the engine that breaks in the middle is begun again; what it was about has not been missed.
#[tokio::test]
async fn of_waiting_for_health_with_a_daemon_that_dies() {
    let engine = Engine::own();
    engine.with_busybox().await;
    let options = Options::docker(&engine).env("Q8_AGENT_OPERATION_TIMEOUT", "20s");
    let agent = options.env("Q8_AGENT_BUSY_WAIT", "60s").start().await;
    let mut victim = Victim::that_is_checked(unique("victim"));
    victim.act(Some(&engine), &agent, Provision(0), "a dying daemon").await;
    // When its health is waited for, and in the whole form at other moments of the operation, too. Frozen ones answer nothing,
    // killed ones take their calls with them.
    let mut moments = vec![None, None];
    if whole() {
        moments.extend([50, 150, 300, 500, 800, 1200, 1700, 2500].map(Some));
    }
    for (round, moment) in moments.iter().enumerate() {
        let kill = round % 2 == 0;
        let action = if matches!(victim.at, Found::At { candidate: 0, .. }) { Update(1) } else { Update(0) };
        let when = moment.map_or_else(|| "while health is waited for".to_owned(), |pause| format!("after {pause} ms"));
        let story = format!("{action:?}, the daemon {} {when}", if kill { "killed" } else { "frozen" });
        let (was, request) = (victim.at, victim.request(action, false));
        let running = send(&agent, &request);
        match moment {
            None => drop(at_step(&agent, &victim.name, "waiting for web").await),
            Some(pause) => tokio::time::sleep(Duration::from_millis(*pause)).await,
        }
        if kill {
            engine.kill();
            tokio::time::sleep(Duration::from_secs(round as u64 % 3)).await;
            engine.start();
        } else {
            engine.freeze();
            tokio::time::sleep(Duration::from_secs(2)).await;
            engine.thaw();
        }
        let answer = running.await.expect("no panic").expect("an answer");
        assert_worded(&answer, &story);
        until_mended(&agent, &story).await;
        if kill {
            // Containers without a restart policy end with the engine; whoever runs them starts them again.
            agent.post(&format!("/v1/tenants/start/{}", victim.name), &Value::Null).await.expect(200);
        }
        victim.audit(Some(&engine), &agent, action, answer.status.is_success(), &story).await;
        victim.repeat(Some(&engine), &agent, action, &request, was, &story).await;
    }
    victim.act(Some(&engine), &agent, Purge, "a dying daemon").await;
}
