//! Waiting for containers: driven by the engine's events, checked by inspect, always under a deadline.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum};
use futures::StreamExt as _;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::engine::{Engine, EngineError};
use super::{details, labels, status};
use crate::backend::{BackendError, Run, TenantRef};
use crate::domain::{ContainerId, ContainerStatus, Health, ServiceName};

/// How often a container is looked at when no event comes: events may be lost when the engine restarts.
const POLL: Duration = Duration::from_secs(1);

/// A container under a restart policy may fail this often on its way to health (it may be waiting for another service
/// without saying so) before it counts as failed.
const TOLERATED_RESTARTS: i64 = 5;

/// How long a container without a healthcheck must have stayed up, at least, before it counts as started. A command that
/// cannot run at all ends within this time; the engine's own reaction to an exit takes a part of it.
const STAYED_UP: Duration = Duration::from_millis(40);
/// On a slow host commands take longer to end, as they take longer to start: a container must have stayed up for this
/// part of the time that the engine needs for one start.
const PART_OF_START: u32 = 8;

/// A container that the engine has just started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    /// When the engine said so.
    pub(super) at: Instant,
    /// How long that took it, of which it gave a part to each of those that it started at the same time.
    pub(super) took: Duration,
    /// How many those were, this one included.
    pub(super) at_once: u32,
}

/// The time in which a new container may still show that it cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probation {
    /// How long it must have been up.
    time: Duration,
    /// Looking earlier is of no use.
    ends: Option<Instant>,
}

impl Probation {
    /// That of a container that was started; of one that was not, if none.
    pub(super) fn of(started: Option<Started>) -> Self {
        let one = started.map_or(Duration::ZERO, |started| started.took / started.at_once.max(1));
        let time = STAYED_UP.max(one / PART_OF_START);
        Self { time, ends: started.map(|started| started.at + time) }
    }
}

/// What a container is waited for to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// It runs, or has ended with code 0 if that is allowed.
    Started { may_end: bool },
    /// Its healthcheck succeeds.
    Healthy,
    /// It has ended with code 0.
    Completed,
    /// Healthy if it has a healthcheck, else started and up for the probation. `is_checked`: it may have one.
    Ready { may_end: bool, probation: Probation, is_checked: bool },
}

impl Goal {
    /// The same for a container that has been waited for: it is looked at, and at once.
    pub(super) fn again(self) -> Self {
        match self {
            Self::Ready { may_end, probation, .. } => {
                let probation = Probation { ends: None, ..probation };
                Self::Ready { may_end, probation, is_checked: true }
            }
            other => other,
        }
    }

    /// Whether all that such a container lacks is time.
    fn is_probation_of(self, status: &ContainerStatus) -> bool {
        matches!(self, Self::Ready { .. }) && status.health == Health::None && status.state == "running"
    }
}

/// Something happened to a container.
#[derive(Clone)]
struct Happened {
    id: String,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Started,
    /// It ended, or was found unhealthy.
    Fell,
    /// Anything else that a wait may be about.
    Changed,
}

impl What {
    /// What an event's action means here; nothing for most of them, such as the three of each healthcheck that is run.
    fn of(action: &str) -> Option<Self> {
        match action {
            "start" => Some(Self::Started),
            "die" | "health_status: unhealthy" => Some(Self::Fell),
            "destroy" | "oom" | "pause" | "unpause" | "update" => Some(Self::Changed),
            _ if action.starts_with("health_status") => Some(Self::Changed),
            _ => None,
        }
    }
}

/// A subscription to the events of one tenant's containers.
pub(super) struct Watch {
    events: broadcast::Sender<Happened>,
    /// The containers that have fallen since, also before anybody waited for them.
    fallen: Arc<Mutex<BTreeSet<String>>>,
    _reader: AbortOnDropHandle<()>,
}

impl Watch {
    /// Subscribes. Events between now and the first read are delivered, because the engine replays from `since`.
    pub(super) fn start(engine: &Arc<Engine>, tenant: &TenantRef) -> Self {
        let (events, _) = broadcast::channel(1024);
        let fallen = Arc::new(Mutex::new(BTreeSet::new()));
        let (sender, fell) = (events.clone(), Arc::clone(&fallen));
        let (engine, filter) = (Arc::clone(engine), labels::filter(tenant));
        let since = jiff::Timestamp::now().as_second();
        let reader = tokio::spawn(async move {
            loop {
                if let Ok(stream) = engine.events(filter.clone(), since) {
                    let mut stream = std::pin::pin!(stream);
                    while let Some(Ok(event)) = stream.next().await {
                        let what = event.action.as_deref().and_then(What::of);
                        if let (Some(what), Some(id)) = (what, event.actor.and_then(|actor| actor.id)) {
                            if what == What::Fell {
                                fell.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
                            }
                            // No receiver means that nobody waits right now.
                            let _ = sender.send(Happened { id, what });
                        }
                    }
                }
                tokio::time::sleep(POLL).await;
            }
        });
        Self { events, fallen, _reader: AbortOnDropHandle::new(reader) }
    }

    fn fallen(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.fallen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the container has reached the goal; says why it cannot. Whether one that is not checked is well at the end of
    /// its probation goes by its events alone: whoever waits for it looks at it in the end.
    pub(super) async fn reach(
        &self,
        engine: &Engine,
        service: &ServiceName,
        id: &ContainerId,
        goal: Goal,
        run: &Run,
    ) -> Result<(), BackendError> {
        let deadline = run.deadline;
        // Subscribed before the first look, so that no change between look and wait is missed.
        let mut events = self.events.subscribe();
        let mut unreachable_since: Option<Instant> = None;
        if let Goal::Ready { probation: Probation { ends: Some(ends), .. }, is_checked, .. } = goal
            && ends > Instant::now()
        {
            tokio::select! {
                biased;
                () = until_event(&mut events, id, |what| what != What::Started) => {}
                () = tokio::time::sleep_until(ends.min(deadline)) => {
                    if !is_checked && ends <= deadline && !self.fallen().contains(id.as_str()) {
                        return Ok(());
                    }
                }
            }
        }
        loop {
            let pause = match engine.inspect(id).await {
                Ok(container) => {
                    unreachable_since = None;
                    match judge(&container, goal) {
                        Verdict::Reached => return Ok(()),
                        Verdict::Wait(pause) => {
                            let seen = status::inspected(&container);
                            if let Some(seen) = seen.filter(|seen| !goal.is_probation_of(&seen.status)) {
                                run.progress.waiting(&seen);
                            }
                            pause
                        }
                        Verdict::Unhealthy => {
                            let details = Box::new(details::of(engine, id, &container).await);
                            return Err(BackendError::ServiceUnhealthy { service: service.clone(), details });
                        }
                        Verdict::Failed(what) => {
                            let details = Box::new(details::of(engine, id, &container).await);
                            return Err(BackendError::ServiceExited { service: service.clone(), what, details });
                        }
                    }
                }
                Err(EngineError::NotFound(_)) => {
                    return Err(BackendError::ServiceExited {
                        service: service.clone(),
                        what: "lost its container to somebody else".to_owned(),
                        details: Box::default(),
                    });
                }
                Err(error) => {
                    let since = *unreachable_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > Duration::from_secs(30) {
                        return Err(error.into_backend("inspecting a container"));
                    }
                    POLL
                }
            };
            tokio::select! {
                () = until_event(&mut events, id, |_| true) => {}
                () = tokio::time::sleep(pause) => {}
                () = tokio::time::sleep_until(deadline) => {
                    let details = match engine.inspect(id).await {
                        Ok(container) => Some(Box::new(details::of(engine, id, &container).await)),
                        Err(_) => None,
                    };
                    let step = match goal {
                        Goal::Completed => format!("waiting for service {service} to complete"),
                        Goal::Healthy | Goal::Ready { .. } => format!("waiting for service {service} to become healthy"),
                        Goal::Started { .. } => format!("waiting for service {service} to start"),
                    };
                    return Err(BackendError::DeadlineExceeded { step, details });
                }
            }
        }
    }

    /// Waits for a container that has reached the goal to fall from it; ends with why, and never if it does not.
    pub(super) async fn fall(
        &self,
        engine: &Engine,
        service: &ServiceName,
        id: &ContainerId,
        goal: Goal,
        run: &Run,
    ) -> BackendError {
        let mut events = self.events.subscribe();
        loop {
            until_event(&mut events, id, |what| what == What::Fell).await;
            if let Err(error) = self.reach(engine, service, id, goal.again(), run).await {
                return error;
            }
        }
    }
}

/// Ends at the next such event of this container, or when events were lost.
async fn until_event(events: &mut broadcast::Receiver<Happened>, id: &ContainerId, matters: impl Fn(What) -> bool) {
    loop {
        match events.recv().await {
            Ok(event) if event.id == id.as_str() && matters(event.what) => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    /// Look again at the next event, or after this time.
    Wait(Duration),
    Unhealthy,
    Failed(String),
}

/// The health that the engine reports, `None` without a healthcheck.
pub(super) fn health(container: &ContainerInspectResponse) -> Health {
    let state = container.state.as_ref();
    match state.and_then(|state| state.health.as_ref()).and_then(|health| health.status) {
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
        _ => Health::None,
    }
}

fn judge(container: &ContainerInspectResponse, goal: Goal) -> Verdict {
    let Some(state) = container.state.as_ref() else { return Verdict::Wait(POLL) };
    let status = state.status.unwrap_or(ContainerStateStatusEnum::EMPTY);
    let code = state.exit_code.unwrap_or(-1);
    let restarts = container.restart_count.unwrap_or(0);
    let health = match (health(container), status) {
        (health, ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED) => health,
        // The engine calls whatever has ended unhealthy, also what it is about to start again.
        (Health::Unhealthy, _) => Health::Starting,
        (health, _) => health,
    };
    let ended = match status {
        ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD | ContainerStateStatusEnum::REMOVING => true,
        // Between two runs; `restarting` says that there will be another.
        ContainerStateStatusEnum::RESTARTING => goal == Goal::Completed && restarts >= TOLERATED_RESTARTS,
        _ => false,
    };
    let exited = |code: i64| Verdict::Failed(format!("exited with code {code}"));
    match goal {
        Goal::Completed => match (ended, code) {
            (true, 0) => Verdict::Reached,
            (true, code) => exited(code),
            (false, _) => Verdict::Wait(POLL),
        },
        Goal::Healthy if health == Health::None && !ended => {
            Verdict::Failed("has no healthcheck that another service could wait for".to_owned())
        }
        Goal::Healthy => until_healthy(health, ended, code, restarts),
        Goal::Ready { may_end, .. } if health != Health::None && !(may_end && ended && code == 0) => {
            until_healthy(health, ended, code, restarts)
        }
        Goal::Started { may_end } | Goal::Ready { may_end, .. } => match status {
            _ if ended && may_end && code == 0 => Verdict::Reached,
            _ if ended => exited(code),
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING => match goal {
                Goal::Ready { .. } if status == ContainerStateStatusEnum::RESTARTING => exited(code),
                Goal::Ready { .. } if restarts > 0 => Verdict::Failed("exited and was restarted".to_owned()),
                Goal::Ready { probation, .. } => {
                    let up = state.started_at.as_deref().and_then(up_since).unwrap_or(probation.time);
                    match probation.time.checked_sub(up) {
                        None | Some(Duration::ZERO) => Verdict::Reached,
                        Some(rest) => Verdict::Wait(rest),
                    }
                }
                // It has started at least once: that is all a dependent asked for.
                _ => Verdict::Reached,
            },
            _ => Verdict::Wait(POLL),
        },
    }
}

fn until_healthy(health: Health, ended: bool, code: i64, restarts: i64) -> Verdict {
    match health {
        Health::Healthy if !ended => Verdict::Reached,
        Health::Unhealthy => Verdict::Unhealthy,
        _ if ended => Verdict::Failed(format!("exited with code {code}")),
        _ if restarts >= TOLERATED_RESTARTS => Verdict::Failed(format!("exited {restarts} times")),
        _ => Verdict::Wait(POLL),
    }
}

/// How long ago the engine says that the container was started.
fn up_since(started_at: &str) -> Option<Duration> {
    let started: jiff::Timestamp = started_at.parse().ok()?;
    Duration::try_from(jiff::Timestamp::now().duration_since(started)).ok()
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerState, Health as EngineHealth};

    use super::super::gate::Ground;
    use super::*;
    use crate::backend::docker::networks::Subnet;

    fn container(
        status: ContainerStateStatusEnum,
        code: i64,
        restarts: i64,
        health: Option<HealthStatusEnum>,
    ) -> ContainerInspectResponse {
        ContainerInspectResponse {
            restart_count: Some(restarts),
            state: Some(ContainerState {
                status: Some(status),
                exit_code: Some(code),
                started_at: Some("2020-01-01T00:00:00.5Z".to_owned()),
                health: health.map(|status| EngineHealth { status: Some(status), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn verdicts() {
        use ContainerStateStatusEnum::{EXITED, RESTARTING, RUNNING};
        use HealthStatusEnum::{HEALTHY, STARTING, UNHEALTHY};
        let ready = Goal::Ready { may_end: false, probation: Probation::of(None), is_checked: true };
        let once = Goal::Ready { may_end: true, probation: Probation::of(None), is_checked: true };
        let failed = |text: &str| Verdict::Failed(text.to_owned());
        for (case, goal, status, code, restarts, health, expected) in [
            ("runs", ready, RUNNING, 0, 0, None, Verdict::Reached),
            ("came back after a crash", ready, RUNNING, 0, 1, None, failed("exited and was restarted")),
            ("a dependency that once crashed", Goal::Started { may_end: false }, RUNNING, 0, 3, None, Verdict::Reached),
            ("crashed", ready, EXITED, 3, 0, None, failed("exited with code 3")),
            ("a service that must stay ended well", ready, EXITED, 0, 0, None, failed("exited with code 0")),
            ("a one-shot ended well", once, EXITED, 0, 0, None, Verdict::Reached),
            ("a one-shot ended badly", once, EXITED, 1, 0, None, failed("exited with code 1")),
            ("a one-shot with a healthcheck ended well", once, EXITED, 0, 0, Some(UNHEALTHY), Verdict::Reached),
            ("health is starting", ready, RUNNING, 0, 0, Some(STARTING), Verdict::Wait(POLL)),
            ("healthy", ready, RUNNING, 0, 0, Some(HEALTHY), Verdict::Reached),
            ("healthy after one crash", ready, RUNNING, 0, 1, Some(HEALTHY), Verdict::Reached),
            ("unhealthy", ready, RUNNING, 0, 0, Some(UNHEALTHY), Verdict::Unhealthy),
            ("crashing before health", ready, RESTARTING, 1, 1, Some(STARTING), Verdict::Wait(POLL)),
            ("crashing, as the engine tells it", ready, RESTARTING, 1, 1, Some(UNHEALTHY), Verdict::Wait(POLL)),
            ("crashed before health", ready, EXITED, 3, 0, Some(UNHEALTHY), failed("exited with code 3")),
            ("an awaited one crashed", Goal::Healthy, EXITED, 3, 0, Some(UNHEALTHY), failed("exited with code 3")),
            ("crashing for good", ready, RESTARTING, 1, 5, Some(STARTING), failed("exited 5 times")),
            ("awaited and running", Goal::Completed, RUNNING, 0, 0, None, Verdict::Wait(POLL)),
            ("awaited and done", Goal::Completed, EXITED, 0, 0, None, Verdict::Reached),
            ("awaited and failed", Goal::Completed, EXITED, 2, 0, None, failed("exited with code 2")),
            ("retrying while awaited", Goal::Completed, RESTARTING, 2, 1, None, Verdict::Wait(POLL)),
        ] {
            assert_eq!(judge(&container(status, code, restarts, health), goal), expected, "{case}");
        }
        assert!(matches!(judge(&container(RUNNING, 0, 0, None), Goal::Healthy), Verdict::Failed(_)), "no healthcheck");
    }

    /// Nobody answers on its socket: whoever looks is told so, after a while.
    #[tokio::test(start_paused = true)]
    async fn an_unchecked_container_is_looked_at_if_it_fell_or_was_waited_for() {
        let engine = Engine::at(
            "/nowhere/docker.sock".into(),
            Ground { publish: None, pool: Subnet::parse("10.0.0.0/16").unwrap() },
        );
        let (events, _) = broadcast::channel(16);
        let reader = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        let watch = Watch { events, fallen: Arc::default(), _reader: reader };
        let (service, run) = (ServiceName::parse("web").unwrap(), Run::until(Instant::now() + Duration::from_mins(10)));
        let [well, fell] = ["a", "b"].map(|digit| ContainerId::parse(&digit.repeat(64)).unwrap());
        watch.fallen().insert(fell.as_str().to_owned());
        let ready = |is_checked| {
            let started = Started { at: Instant::now(), took: Duration::ZERO, at_once: 1 };
            Goal::Ready { may_end: false, probation: Probation::of(Some(started)), is_checked }
        };
        let reach = async |id, goal| watch.reach(&engine, &service, id, goal, &run).await.is_ok();
        assert!(reach(&well, ready(false)).await, "its events say nothing");
        assert!(!reach(&well, ready(true)).await);
        assert!(!reach(&fell, ready(false)).await);
        assert!(!reach(&well, ready(false).again()).await);
    }

    #[test]
    fn the_probation_is_longer_where_starting_takes_long() {
        let probation = |took, at_once| Probation::of(Some(Started { at: Instant::now(), took, at_once }));
        assert_eq!(probation(Duration::from_millis(150), 1).time, STAYED_UP);
        assert_eq!(probation(Duration::from_secs(4), 16).time, STAYED_UP, "it was not the host that was slow");
        assert_eq!(probation(Duration::from_secs(4), 2).time, Duration::from_millis(250));
        let mut new = container(ContainerStateStatusEnum::RUNNING, 0, 0, None);
        let started = jiff::Timestamp::now() - Duration::from_millis(200);
        new.state.as_mut().expect("it has one").started_at = Some(started.to_string());
        let ready = |took| Goal::Ready { may_end: false, probation: probation(took, 1), is_checked: true };
        assert_eq!(judge(&new, ready(Duration::from_millis(150))), Verdict::Reached);
        assert!(matches!(judge(&new, ready(Duration::from_secs(600))), Verdict::Wait(rest) if rest > POLL));
    }
}
