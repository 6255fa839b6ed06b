//! The agent is killed at each crash point of each operation (`src/crash.rs`), and at some points of the recovery that
//! follows: afterwards the tenant is what it was before or what it was to be, and repeating the request, which every second
//! time has an `Idempotency-Key`, does it once.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::actions::{Action, Bystander, Request, Victim, send};
use crate::scene::LONG;
use crate::support::agent::{Agent, Options};
use crate::support::engine::Engine;
use crate::support::{eventually, unique};
use crate::whole;

/// Where the agent is told at which point to die, and says which ones it passes.
struct Points(tempfile::TempDir);

impl Points {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn arm(&self, point: &str) {
        // At once: half a name would be another point.
        std::fs::write(self.path("at.new"), point).expect("a file");
        std::fs::rename(self.path("at.new"), self.path("at")).expect("a file");
    }

    fn disarm(&self) {
        std::fs::remove_file(self.path("at")).expect("it was armed");
    }

    fn listen(&self) {
        std::fs::write(self.path("trace"), "").expect("a file");
    }

    /// The points that were passed since [`Self::listen`], as `name#1`, `name#2`…
    fn heard(&self) -> Vec<String> {
        let trace = std::fs::read_to_string(self.path("trace")).expect("a trace");
        std::fs::remove_file(self.path("trace")).expect("a trace");
        let mut counts = BTreeMap::new();
        let numbered = trace.lines().map(|name| {
            let count = counts.entry(name).or_insert(0);
            *count += 1;
            format!("{name}#{count}")
        });
        numbered.collect()
    }
}

/// The ends of the disk's steps and all of the engine's calls. What is within a step is for the memory backend, where
/// each costs a fraction of a second.
fn matters_here(point: &str, engine: bool) -> bool {
    let step = point.split('#').next().unwrap_or_default();
    !engine || step.starts_with("engine.") || step.ends_with("/begin") || step.ends_with("/end")
}

/// Some of the points, spread over the whole; another run of the same checkout takes the same ones.
fn some(points: Vec<String>, most: usize, skip: usize) -> Vec<String> {
    if whole() || points.len() <= most {
        return points;
    }
    let count = points.len();
    let chosen: Vec<usize> = (0..most).map(|number| (number * count / most + skip) % count).collect();
    points.into_iter().enumerate().filter(|(at, _)| chosen.contains(at)).map(|(_, point)| point).collect()
}

/// Does the actions in turn, over and over, until each has been killed at each of its points.
async fn torture(engine: Option<&Engine>, what: &str, prepare: &[Action], cycle: &[Action], most: usize) {
    if let Some(engine) = engine {
        engine.with_busybox().await;
    }
    let points = Points::new();
    let options = engine.map_or_else(Options::memory, Options::docker);
    let mut agent = options.env("Q8_CRASH_DIR", points.0.path()).start().await;
    let mut victim = Victim::new(unique("victim"));
    let bystander = match engine {
        Some(engine) => Some(Bystander::new(engine, &agent, &victim).await),
        None => None,
    };
    for action in prepare {
        victim.act(engine, &agent, *action, what).await;
    }
    let mut left: Vec<Vec<String>> = Vec::new();
    for (number, action) in cycle.iter().enumerate() {
        points.listen();
        victim.act(engine, &agent, *action, what).await;
        let mut heard = points.heard();
        heard.retain(|point| matters_here(point, engine.is_some()));
        assert!(heard.len() > 4, "{what}: {action:?} has points: {heard:?}");
        let mut chosen = some(heard, most, number);
        chosen.reverse();
        left.push(chosen);
    }
    let all: usize = left.iter().map(Vec::len).sum();
    let (mut killed, mut killed_twice, mut round) = (0, 0, 0);
    while left.iter().any(|points| !points.is_empty()) {
        for (number, action) in cycle.iter().enumerate() {
            let Some(point) = left[number].pop() else {
                victim.act(engine, &agent, *action, what).await;
                continue;
            };
            round += 1;
            let story = format!("{what}: {action:?} killed at {point}");
            // Every third recovery dies as well, each time somewhat later.
            let again = (round % 3 == 0).then(|| 1 + (round / 3 * 5) % 31);
            let begun = Instant::now();
            let request = victim.request(*action, left[number].len().is_multiple_of(2));
            let kill = (*action, &request, point.as_str(), again);
            let (died, twice) = once(engine, &points, &mut agent, &mut victim, kill, &story).await;
            eprintln!("{story}: {:?}", begun.elapsed());
            killed += usize::from(died);
            killed_twice += usize::from(twice);
            if let (Some(bystander), Some(engine)) = (&bystander, engine) {
                bystander.assert_untouched(engine, &story).await;
            }
        }
    }
    eprintln!("{what}: killed {killed} times at {all} points, and {killed_twice} times more in the recovery");
    // Which of two services comes first is chance, so now and then a point is not passed.
    assert!(killed + (all / 5).max(1) >= all, "{what}: only {killed} of {all} points were reached");
    if let (Some(bystander), Some(engine)) = (bystander, engine) {
        victim.act(Some(engine), &agent, Action::Purge, what).await;
        bystander.end(engine, &agent).await;
    }
}

/// One kill, its recovery, and the repeat; whether the agent died, and whether it died again in the recovery.
async fn once(
    engine: Option<&Engine>,
    points: &Points,
    agent: &mut Agent<'_>,
    victim: &mut Victim,
    (action, request, point, again): (Action, &Request, &str, Option<u32>),
    story: &str,
) -> (bool, bool) {
    let was = victim.at;
    points.arm(point);
    let answer = send(agent, request).await.expect("no panic");
    let died = if let Ok(answer) = &answer {
        assert!(answer.status.is_success(), "{story}: {}", answer.text());
        // After the answer there may still be something to do, and to die of.
        let end = Instant::now() + Duration::from_secs(3);
        loop {
            let ended = agent.has_ended();
            if ended.is_some() || Instant::now() > end {
                break ended;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    } else {
        let status = agent.wait_exit(LONG).await;
        assert_eq!(status.signal(), Some(9), "{story}: {status}");
        Some(status)
    };
    let mut twice = false;
    if died.is_some() {
        match again {
            None => points.disarm(),
            Some(number) => {
                points.arm(&format!("*#{number}"));
                agent.start_again_without_waiting();
                twice = eventually(&format!("{story}: recovered or dead again"), LONG, async || {
                    if agent.has_ended().is_some() {
                        return Some(true);
                    }
                    let answer = agent.try_request(hyper::Method::GET, "/v1/tenants", &[], "").await.ok()?;
                    let list = (answer.status == 200).then(|| answer.json())?;
                    let busy = list["tenants"].as_array()?.iter().any(|line| !line["operation"].is_null());
                    (!busy).then_some(false)
                })
                .await;
                points.disarm();
                if !twice {
                    agent.kill();
                }
            }
        }
        agent.start_again().await;
    } else {
        points.disarm();
    }
    let acknowledged = answer.is_ok();
    victim.audit(engine, agent, action, acknowledged, story).await;
    victim.repeat(engine, agent, action, request, was, story).await;
    (died.is_some(), twice)
}

use Action::{Provision, Purge, Restart, Rollback, Start, Stop, Teardown, Update};

#[tokio::test]
async fn of_updates() {
    let engine = Some(Engine::shared());
    torture(engine, "updates", &[Provision(0)], &[Update(1), Update(0)], 3).await;
}

#[tokio::test]
async fn of_start_first_updates() {
    let engine = Some(Engine::shared());
    torture(engine, "start-first updates", &[Provision(2)], &[Update(3), Update(2)], 2).await;
}

#[tokio::test]
async fn of_rollbacks_and_restarts() {
    let engine = Some(Engine::shared());
    torture(engine, "rollbacks and restarts", &[Provision(0), Update(1)], &[Rollback, Restart], 3).await;
}

#[tokio::test]
async fn of_stops_and_starts() {
    let engine = Some(Engine::shared());
    torture(engine, "stops and starts", &[Provision(0)], &[Stop, Start], 2).await;
}

#[tokio::test]
async fn of_teardowns() {
    let engine = Some(Engine::shared());
    torture(engine, "teardowns", &[Provision(0)], &[Teardown, Provision(1)], 2).await;
}

#[tokio::test]
async fn of_first_provisions_and_purges() {
    let engine = Some(Engine::shared());
    torture(engine, "first provisions and purges", &[], &[Provision(0), Purge], 3).await;
}

/// Within every step of the disk: each file made, written, synced, moved and removed.
#[tokio::test]
async fn of_all_that_is_done_on_the_disk() {
    let updates = [Update(1), Rollback, Restart, Stop, Start];
    torture(None, "the disk, a tenant that stays", &[Provision(0)], &updates, 6).await;
    let comes_and_goes = [Provision(0), Teardown, Provision(1), Purge];
    torture(None, "the disk, a tenant that comes and goes", &[], &comes_and_goes, 6).await;
}
