//! Carries out the tasks of a plan, each as soon as what it comes after is done. What the tasks mean on an engine is the
//! engine's [`Hands`].
//!
//! Tasks that make something are all waited for, also when one of them has failed: an engine finishes what it has begun
//! even when its caller hangs up, and an undo that looks before that is there would leave it behind. Everything that
//! disturbs what runs comes after all making, and is given up at the first failure: also at that of a container which was
//! ready and fails while others are waited for.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::plan::{After, Slot, Until, Work};
use super::{Action, BackendError, Plan, PlannedObject, Run, Step, StepState};

/// How many calls that make or start something an engine gets at once.
const PARALLEL: usize = 16;
/// How often a container that has to stay well is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What a container is waited for to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// It has been started.
    Started,
    /// It is healthy.
    Healthy,
    /// It has exited with code 0.
    Completed,
    /// What makes its service's part of an apply a success (design: "Success of an apply").
    Ready,
}

/// What tasks do on an engine. Every one may be repeated.
#[async_trait]
pub(super) trait Hands: Sync {
    /// Makes a network or volume.
    async fn make_object(&self, object: &PlannedObject, action: Action) -> Result<(), BackendError>;
    /// Makes the container of a slot, and sets aside the one that it replaces.
    async fn make_container(&self, slot: Slot<'_>) -> Result<(), BackendError>;
    /// Runs the `pre_stop` hooks of the slot's existing container and stops it.
    async fn stop(&self, slot: Slot<'_>) -> Result<(), BackendError>;
    /// Starts the slot's container.
    async fn start(&self, slot: Slot<'_>) -> Result<(), BackendError>;
    /// Runs the `post_start` hooks of the slot's container.
    async fn post_start(&self, slot: Slot<'_>) -> Result<(), BackendError>;
    /// Waits, until the deadline at most, for the slot's container to reach the goal; says why it cannot.
    async fn reach(&self, slot: Slot<'_>, goal: Goal) -> Result<(), BackendError>;
    /// Waits for the slot's container, which was ready, to fail after all; ends with why, and never if it does not.
    async fn fall(&self, slot: Slot<'_>) -> BackendError;
    /// Everything is up: whatever of these has ended since it was started counts as failed.
    async fn last_look(&self, started: &[Slot<'_>]) -> Result<(), BackendError>;
}

/// Carries out a plan.
pub(super) async fn execute(plan: &Plan, hands: &impl Hands, run: &Run) -> Result<(), BackendError> {
    let is_idle = |work: Work| matches!(work, Work::Keep(_) | Work::AllMade | Work::AllCleared);
    if plan.tasks.iter().all(|task| is_idle(task.work)) {
        return Ok(());
    }
    let mut waits: Vec<usize> = plan.tasks.iter().map(|task| task.after.len()).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); plan.tasks.len()];
    for (at, task) in plan.tasks.iter().enumerate() {
        for after in &task.after {
            dependents[after.task].push(at);
        }
    }
    run.progress.planned(plan.tasks.iter().filter(|task| !is_idle(task.work)).count());
    let doer = Doer { plan, hands, run, slots: Semaphore::new(PARALLEL), given_up: CancellationToken::new() };
    let mut under_way: FuturesUnordered<_> =
        (0..plan.tasks.len()).filter(|&at| waits[at] == 0).map(|at| doer.perform(at)).collect();
    let mut ready = FuturesUnordered::new();
    loop {
        let next = tokio::select! {
            biased;
            next = under_way.next() => next,
            Some(error) = ready.next() => Some((0, Err(error))),
            () = run.cancel.cancelled() => Some((0, Err(BackendError::Cancelled))),
        };
        let Some((at, result)) = next else { break };
        if let Err(error) = result {
            doer.given_up.cancel();
            under_way.map(drop).collect::<()>().await;
            return Err(error);
        }
        if let Work::Await(step) = plan.tasks[at].work {
            ready.extend(plan.steps[step].slot().map(|slot| hands.fall(slot)));
        }
        for &dependent in &dependents[at] {
            waits[dependent] -= 1;
            if waits[dependent] == 0 {
                under_way.push(doer.perform(dependent));
            }
        }
    }
    let started = plan.tasks.iter().filter_map(|task| match task.work {
        Work::Start(step) => plan.steps[step].slot(),
        _ => None,
    });
    let started: Vec<Slot<'_>> = started.collect();
    if started.is_empty() {
        return Ok(());
    }
    tokio::select! {
        biased;
        Some(error) = ready.next() => Err(error),
        looked = hands.last_look(&started) => looked,
        () = run.cancel.cancelled() => Err(BackendError::Cancelled),
    }
}

/// What a task is called in the progress; none when it does nothing.
fn action(work: Work) -> Option<&'static str> {
    match work {
        Work::Keep(_) | Work::AllMade | Work::AllCleared => None,
        Work::Make(_) => Some("make"),
        Work::Stop(_) => Some("stop"),
        Work::Start(_) => Some("start"),
        Work::Await(_) | Work::Monitor(..) => Some("await"),
    }
}

struct Doer<'a, H> {
    plan: &'a Plan,
    hands: &'a H,
    run: &'a Run,
    slots: Semaphore,
    /// Only what is being made goes on.
    given_up: CancellationToken,
}

impl<H: Hands> Doer<'_, H> {
    async fn perform(&self, at: usize) -> (usize, Result<(), BackendError>) {
        (at, self.carry_out(at).await)
    }

    async fn carry_out(&self, at: usize) -> Result<(), BackendError> {
        let task = &self.plan.tasks[at];
        let conditions = async {
            try_join_all(task.after.iter().map(|after| self.condition(after))).await?;
            if !task.pause.is_zero() {
                self.rest(task.pause, "waiting between two groups of containers").await?;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            reached = conditions => reached?,
            () = self.given_up.cancelled() => return Err(BackendError::Cancelled),
        }
        let Some(step) = task.work.step().map(|step| &self.plan.steps[step]) else { return Ok(()) };
        let Some(action) = action(task.work) else { return Ok(()) };
        let (progress, object) = (&self.run.progress, step.object.to_string());
        progress.step(object.clone(), action, StepState::Begun);
        let making = matches!(task.work, Work::Make(_));
        let done = tokio::select! {
            biased;
            done = self.work(task.work, step) => done,
            () = self.given_up.cancelled(), if !making => return Err(BackendError::Cancelled),
        };
        let state = if done.is_ok() { StepState::Done } else { StepState::Failed };
        progress.step(object, action, state);
        if let Some(slot) = step.slot() {
            let reached = match task.work {
                _ if done.is_err() => Some("failed"),
                Work::Stop(_) => Some("stopped"),
                Work::Start(_) => Some("started"),
                Work::Await(_) | Work::Monitor(..) => Some("ready"),
                _ => None,
            };
            if let Some(reached) = reached {
                progress.container(slot.service.as_str(), slot.number, reached);
            }
        }
        done
    }

    async fn work(&self, work: Work, step: &Step) -> Result<(), BackendError> {
        let slot = || step.slot().expect("only containers are stopped, started and waited for");
        match work {
            Work::Keep(_) | Work::AllMade | Work::AllCleared => Ok(()),
            Work::Make(_) => self.make(step).await,
            Work::Stop(_) => self.hands.stop(slot()).await,
            Work::Start(_) => {
                {
                    let _slot = self.slots.acquire().await;
                    self.hands.start(slot()).await?;
                }
                self.hands.post_start(slot()).await
            }
            Work::Await(_) => self.hands.reach(slot(), Goal::Ready).await,
            Work::Monitor(_, time) => self.monitor(slot(), time).await,
        }
    }

    async fn condition(&self, after: &After) -> Result<(), BackendError> {
        let goal = match after.until {
            Until::Done => return Ok(()),
            Until::Started => Goal::Started,
            Until::Healthy => Goal::Healthy,
            Until::Completed => Goal::Completed,
        };
        let step = self.plan.tasks[after.task].work.step().map(|step| &self.plan.steps[step]);
        let Some(slot) = step.and_then(Step::slot) else { return Ok(()) };
        let reached = self.hands.reach(slot, goal).await;
        if reached.is_ok() && goal != Goal::Started {
            let state = if goal == Goal::Healthy { "healthy" } else { "completed" };
            self.run.progress.container(slot.service.as_str(), slot.number, state);
        }
        match reached {
            Err(error) if !after.required && !matches!(error, BackendError::Unavailable) => {
                tracing::info!(dependency = %slot.service, %error, "optional dependency is not there");
                Ok(())
            }
            other => other,
        }
    }

    async fn make(&self, step: &Step) -> Result<(), BackendError> {
        let _slot = self.slots.acquire().await;
        match step.slot() {
            Some(slot) => self.hands.make_container(slot).await,
            None => self.hands.make_object(&step.object, step.action).await,
        }
    }

    /// Waits for a container to be well, and to stay so.
    async fn monitor(&self, slot: Slot<'_>, time: Duration) -> Result<(), BackendError> {
        self.hands.reach(slot, Goal::Ready).await?;
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.rest(left.min(LOOK), "watching new containers").await?;
            self.hands.reach(slot, Goal::Ready).await?;
        }
        Ok(())
    }

    async fn rest(&self, time: Duration, step: &str) -> Result<(), BackendError> {
        tokio::select! {
            () = sleep(time) => Ok(()),
            () = sleep_until(self.run.deadline) => {
                Err(BackendError::DeadlineExceeded { step: step.to_owned(), details: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::backend::plan::Task;
    use crate::backend::{ProgressEvent, Step};
    use crate::domain::{ContainerName, ObjectKey, ServiceName};

    /// Writes down what it was asked for.
    #[derive(Default)]
    struct Fake {
        done: Mutex<Vec<String>>,
        fails_at: &'static str,
    }

    impl Fake {
        fn note(&self, what: String) -> Result<(), BackendError> {
            let fails = what == self.fails_at;
            self.done.lock().unwrap().push(what);
            if fails { Err(BackendError::NoSpace) } else { Ok(()) }
        }
    }

    #[async_trait]
    impl Hands for Fake {
        async fn make_object(&self, object: &PlannedObject, _: Action) -> Result<(), BackendError> {
            self.note(format!("make {object}"))
        }
        async fn make_container(&self, slot: Slot<'_>) -> Result<(), BackendError> {
            tokio::task::yield_now().await;
            self.note(format!("make {}", slot.name))
        }
        async fn stop(&self, slot: Slot<'_>) -> Result<(), BackendError> {
            self.note(format!("stop {}", slot.name))
        }
        async fn start(&self, slot: Slot<'_>) -> Result<(), BackendError> {
            self.note(format!("start {}", slot.name))
        }
        async fn post_start(&self, slot: Slot<'_>) -> Result<(), BackendError> {
            self.note(format!("hooks of {}", slot.name))
        }
        async fn reach(&self, slot: Slot<'_>, goal: Goal) -> Result<(), BackendError> {
            self.note(format!("{goal:?} {}", slot.name))
        }
        async fn fall(&self, slot: Slot<'_>) -> BackendError {
            match self.note(format!("fall of {}", slot.name)) {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        }
        async fn last_look(&self, started: &[Slot<'_>]) -> Result<(), BackendError> {
            self.note(format!("last look at {}", started[0].name))
        }
    }

    /// A volume, and a container that is started after both are made.
    fn plan() -> Plan {
        let step = |object| Step { object, action: Action::Create, reason: String::new() };
        let after = |tasks: &[usize]| {
            tasks.iter().map(|task| After { task: *task, until: Until::Done, required: true }).collect()
        };
        let task = |work, before: &[usize]| Task { work, after: after(before), pause: Duration::ZERO };
        Plan {
            steps: vec![
                step(PlannedObject::Volume { key: ObjectKey::parse("v").unwrap(), name: "v".to_owned() }),
                step(PlannedObject::Container {
                    service: ServiceName::parse("web").unwrap(),
                    number: 1,
                    name: ContainerName::parse("web-1").unwrap(),
                    existing: None,
                }),
            ],
            tasks: vec![
                task(Work::Make(0), &[]),
                task(Work::Make(1), &[]),
                task(Work::AllMade, &[0, 1]),
                task(Work::Start(1), &[2]),
                task(Work::Await(1), &[3]),
            ],
            ..Plan::default()
        }
    }

    fn run() -> Run {
        Run::until(Instant::now() + Duration::from_secs(10))
    }

    #[tokio::test]
    async fn tasks_follow_the_graph() {
        let hands = Fake::default();
        execute(&plan(), &hands, &run()).await.expect("nothing is wrong");
        let done = hands.done.into_inner().unwrap();
        let expected = [
            "make volume v",
            "make web-1",
            "start web-1",
            "hooks of web-1",
            "Ready web-1",
            "fall of web-1",
            "last look at web-1",
        ];
        assert_eq!(done, expected);
    }

    #[tokio::test]
    async fn what_was_ready_and_fails_ends_it() {
        let mut plan = plan();
        // Something else is waited for much longer.
        plan.tasks.push(Task { work: Work::AllCleared, after: Vec::new(), pause: Duration::from_secs(3600) });
        let (hands, mut run) = (Fake { fails_at: "fall of web-1", ..Fake::default() }, run());
        run.deadline = Instant::now() + Duration::from_secs(7200);
        tokio::time::pause();
        let began = Instant::now();
        let result = execute(&plan, &hands, &run).await;
        assert!(matches!(result, Err(BackendError::NoSpace)), "{result:?}");
        assert!(began.elapsed() < Duration::from_secs(1));
        assert!(!hands.done.into_inner().unwrap().iter().any(|what| what.starts_with("last look")));
    }

    #[tokio::test]
    async fn who_cancels_waits_for_what_is_being_made_only() {
        let (hands, run) = (Fake::default(), run());
        run.cancel.cancel();
        let result = execute(&plan(), &hands, &run).await;
        assert!(matches!(result, Err(BackendError::Cancelled)), "{result:?}");
        let done = hands.done.into_inner().unwrap();
        assert!(done.iter().all(|what| what.starts_with("make")), "{done:?}");
    }

    #[tokio::test]
    async fn steps_are_told_as_they_begin_and_end() {
        let (hands, run) = (Fake { fails_at: "start web-1", ..Fake::default() }, run());
        execute(&plan(), &hands, &run).await.expect_err("it does not start");
        let told: Vec<String> = run
            .progress
            .after(0, 100)
            .events
            .into_iter()
            .filter_map(|told| match told.event {
                ProgressEvent::Step { object, action, state } => Some(format!("{action} {object} {state:?}")),
                _ => None,
            })
            .collect();
        let expected = [
            "make volume v Begun",
            "make volume v Done",
            "make container web-1 Begun",
            "make container web-1 Done",
            "start container web-1 Begun",
            "start container web-1 Failed",
        ];
        assert_eq!(told.iter().filter(|line| expected.contains(&line.as_str())).count(), 6, "{told:?}");
        let counters = run.progress.counters();
        assert_eq!((counters.steps, counters.steps_done), (4, 2));
    }

    #[tokio::test]
    async fn a_failure_is_told_when_nothing_is_being_made_any_more() {
        let hands = Fake { fails_at: "make volume v", ..Fake::default() };
        let result = execute(&plan(), &hands, &run()).await;
        assert!(matches!(result, Err(BackendError::NoSpace)), "{result:?}");
        let done = hands.done.into_inner().unwrap();
        assert_eq!(done, ["make volume v", "make web-1"], "the container is not given up, and not started either");
    }
}
