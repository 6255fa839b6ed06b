//! What an operation says of itself while it runs: the step it is at, and a short log of numbered events.
//!
//! Whoever follows remembers the number of the last event it has seen and asks for what came after it. The log keeps the
//! newest events only, so a follower that is too slow learns that it has missed some; nobody waits for anybody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use super::ObservedContainer;
use crate::domain::{Counters, Health};

/// How many events are kept. Those of a pull replace each other, and those of a wait, so a stack of 50 services fits.
const KEPT: usize = 512;

/// Events of what an earlier run of the agent began have greater numbers than this, which is a time in 2004 in milliseconds.
pub const TAKEN_UP: u64 = 1 << 40;

/// How much of what a healthcheck says is told while it is waited for, in bytes.
const HEALTH_OUTPUT: usize = 1024;

/// What an event tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum ProgressEvent {
    /// A phase of the operation, in words for a person.
    Message {
        /// The words.
        text: String,
    },
    /// A task of the plan.
    Step {
        /// The object, such as `container web-1`.
        object: String,
        /// What is done to it: `make`, `stop`, `start`, `await`, `remove`.
        action: &'static str,
        /// How that stands.
        state: StepState,
    },
    /// An image that is being pulled.
    Pull {
        /// Its reference.
        image: String,
        /// Layers that are here.
        layers_done: u64,
        /// All layers, as far as they are known.
        layers: u64,
        /// Bytes that are here.
        bytes_done: u64,
        /// All bytes, as far as they are known.
        bytes: u64,
    },
    /// A container that is waited for, as long as it is not what it has to become; told again when that changes.
    Waiting {
        /// Its service.
        service: String,
        /// Its number within the service.
        number: u32,
        /// The engine's word, as in a status.
        state: String,
        /// What its healthcheck has found so far.
        health: Health,
        /// How often the engine's restart policy has restarted it.
        restart_count: u64,
        /// The code of its last end, unless it runs.
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<i64>,
        /// What its healthcheck said last, at most 1 KiB.
        #[serde(skip_serializing_if = "Option::is_none")]
        health_output: Option<String>,
    },
    /// A container became something that was waited for.
    Container {
        /// Its service.
        service: String,
        /// Its number within the service.
        number: u32,
        /// `started`, `healthy`, `completed`, `ready`, `stopped`, or `failed`.
        state: &'static str,
    },
}

impl ProgressEvent {
    /// The kind of event, as in its JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Message { .. } => "message",
            Self::Step { .. } => "step",
            Self::Pull { .. } => "pull",
            Self::Waiting { .. } => "waiting",
            Self::Container { .. } => "container",
        }
    }
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words of the HTTP contract")]
pub enum StepState {
    Begun,
    Done,
    Failed,
}

/// An event with its number, from 1, and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "OperationEvent"))]
pub struct Told {
    /// The number.
    #[serde(skip)]
    pub number: u64,
    /// When.
    pub at: jiff::Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: ProgressEvent,
}

/// What came after an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct News {
    /// The events, in order; a bounded number of them.
    pub events: Vec<Told>,
    /// How many were dropped before the first of them.
    pub missed: u64,
}

/// The progress of one operation. Cheap to clone; all clones are the same progress.
#[derive(Clone)]
pub struct Progress {
    log: Arc<Mutex<Log>>,
    /// The number of the last event.
    last: watch::Sender<u64>,
    /// The number before that of its first event.
    begin: u64,
}

struct Log {
    step: String,
    events: VecDeque<Told>,
    counters: Counters,
    /// The bytes of each image: all, and those that are here.
    images: Vec<(String, u64, u64)>,
}

impl Progress {
    /// Progress nobody has reported on yet.
    pub fn new() -> Self {
        Self::from(0)
    }

    /// The progress of what an earlier run of the agent began. Its events are numbered from the time in milliseconds, behind
    /// any number that a run before this one can have given.
    pub fn taken_up() -> Self {
        Self::from(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
    }

    fn from(begin: u64) -> Self {
        let log = Log {
            step: String::from("starting"),
            events: VecDeque::new(),
            counters: Counters::default(),
            images: Vec::new(),
        };
        Self { log: Arc::new(Mutex::new(log)), last: watch::Sender::new(begin), begin }
    }

    /// Reports the current step.
    pub fn report(&self, step: impl Into<String>) {
        let step = step.into();
        let mut log = self.log();
        if log.step != step {
            log.step.clone_from(&step);
            self.push(&mut log, ProgressEvent::Message { text: step });
        }
    }

    /// The step last reported.
    pub fn current(&self) -> String {
        self.log().step.clone()
    }

    /// Says how far a pull is; `step` says it for a person.
    pub fn pull(&self, step: String, event: ProgressEvent) {
        let mut log = self.log();
        log.step = step;
        if let ProgressEvent::Pull { image, bytes, bytes_done, .. } = &event {
            // What it said before is out of date.
            log.events
                .retain(|told| !matches!(&told.event, ProgressEvent::Pull { image: other, .. } if other == image));
            log.images.retain(|(other, ..)| other != image);
            log.images.push((image.clone(), *bytes, *bytes_done));
            log.counters.images = log.images.len() as u64;
            log.counters.bytes = log.images.iter().map(|(_, all, _)| all).sum();
            log.counters.bytes_done = log.images.iter().map(|(_, _, done)| done).sum();
        }
        self.push(&mut log, event);
    }

    /// Says how many steps there are.
    pub fn planned(&self, steps: usize) {
        self.log().counters.steps = steps as u64;
    }

    /// Says that there are so many steps more.
    pub fn plan_more(&self, steps: usize) {
        self.log().counters.steps += steps as u64;
    }

    /// Says how a step stands.
    pub fn step(&self, object: String, action: &'static str, state: StepState) {
        let mut log = self.log();
        log.counters.steps_done += u64::from(state == StepState::Done);
        self.push(&mut log, ProgressEvent::Step { object, action, state });
    }

    /// Says what a container has become.
    pub fn container(&self, service: &str, number: u32, state: &'static str) {
        let mut log = self.log();
        self.push(&mut log, ProgressEvent::Container { service: service.to_owned(), number, state });
    }

    /// Says what a container is that has to become something else; nothing if that was said already.
    pub(super) fn waiting(&self, container: &ObservedContainer) {
        let ObservedContainer { service: name, number, status, .. } = container;
        let output = status.health_output.as_deref();
        let event = ProgressEvent::Waiting {
            service: name.as_str().to_owned(),
            number: *number,
            state: status.state.clone(),
            health: status.health,
            restart_count: status.restart_count,
            exit_code: status.exit_code,
            health_output: output.map(|output| output[..output.floor_char_boundary(HEALTH_OUTPUT)].to_owned()),
        };
        let mut log = self.log();
        // Other steps may have been reported since.
        log.step = match status.health {
            Health::Starting => format!("waiting for {name} to become healthy"),
            _ => format!("waiting for {name}, which is {}", status.state),
        };
        if log.events.iter().any(|told| told.event == event) {
            return;
        }
        log.events.retain(|told| {
            !matches!(&told.event, ProgressEvent::Waiting { service, number: other, .. }
                if service == name.as_str() && other == number)
        });
        self.push(&mut log, event);
    }

    /// How far it is, in numbers.
    pub fn counters(&self) -> Counters {
        self.log().counters
    }

    /// The number before that of its first event: what has a number up to this was told by an earlier run of the agent, if
    /// by anybody.
    pub fn begin(&self) -> u64 {
        self.begin
    }

    /// The number of the last event; that before the first when there was none.
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// What was told after the event of this number, `most` events at most.
    pub fn after(&self, number: u64, most: usize) -> News {
        let log = self.log();
        let mut events = log.events.iter().skip_while(|told| told.number <= number);
        let first: Option<&Told> = events.next();
        let events: Vec<Told> = first.into_iter().chain(events).take(most).cloned().collect();
        // Pulls leave holes on purpose; only what the log could not keep counts.
        let oldest = log.events.front().map_or(0, |told| told.number);
        let lost = log.events.len() >= KEPT && number + 1 < oldest;
        News { events, missed: if lost { oldest - number - 1 } else { 0 } }
    }

    /// Whoever waits for more.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    fn push(&self, log: &mut Log, event: ProgressEvent) {
        let number = self.last() + 1;
        log.events.push_back(Told { number, at: jiff::Timestamp::now(), event });
        if log.events.len() > KEPT {
            log.events.pop_front();
        }
        self.last.send_replace(number);
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ContainerId, ContainerName, ContainerStatus, ServiceName, Subdomain, TenantId};

    fn pull(done: u64) -> ProgressEvent {
        ProgressEvent::Pull { image: "x:1".to_owned(), layers_done: 0, layers: 1, bytes_done: done, bytes: 100 }
    }

    #[test]
    fn events_are_numbered_and_followed() {
        let progress = Progress::new();
        progress.report("pulling");
        progress.report("pulling");
        progress.step("container web-1".to_owned(), "make", StepState::Begun);
        assert_eq!(progress.last(), 2, "the same step again is no event");
        let news = progress.after(1, 10);
        assert_eq!((news.events.len(), news.missed, news.events[0].number), (1, 0, 2));
        assert_eq!(progress.after(2, 10), News::default());
        assert_eq!(
            serde_json::to_value(&news.events[0].event).unwrap(),
            serde_json::json!({ "event": "step", "object": "container web-1", "action": "make", "state": "begun" })
        );
    }

    #[test]
    fn a_pull_takes_one_place_however_often_it_tells() {
        let progress = Progress::new();
        progress.report("first");
        for done in 0..=100 {
            progress.pull(format!("pulling x:1: {done}"), pull(done));
        }
        let news = progress.after(0, 1000);
        assert_eq!((news.events.len(), news.missed), (2, 0));
        assert_eq!((news.events[1].number, &news.events[1].event), (102, &pull(100)));
        let counters = progress.counters();
        assert_eq!((counters.images, counters.bytes, counters.bytes_done), (1, 100, 100));
    }

    #[test]
    fn a_wait_takes_one_place_and_tells_of_changes_only() {
        let progress = Progress::new();
        let container = |service: &str, output: &str| ObservedContainer {
            tenant: Subdomain::parse("acme").unwrap(),
            owner: TenantId::parse("acme").unwrap(),
            service: ServiceName::parse(service).unwrap(),
            number: 1,
            status: ContainerStatus {
                name: ContainerName::parse("web-1").unwrap(),
                id: ContainerId::parse(&"a".repeat(64)).unwrap(),
                state: "running".to_owned(),
                health: Health::Starting,
                exit_code: None,
                started_at: None,
                restart_count: 0,
                image: "x:1".to_owned(),
                oom_killed: false,
                health_output: Some(output.to_owned()),
                last_exits: Vec::new(),
                crash_loop: false,
            },
            endpoints: Vec::new(),
        };
        progress.waiting(&container("web", "refused"));
        progress.waiting(&container("web", "refused"));
        progress.waiting(&container("db", "refused"));
        assert_eq!(progress.last(), 2);
        progress.waiting(&container("web", &"é".repeat(1000)));
        let news = progress.after(0, 10);
        assert_eq!(news.events.iter().map(|told| told.number).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(
            serde_json::to_value(&news.events[1].event).unwrap(),
            serde_json::json!({
                "event": "waiting", "service": "web", "number": 1, "state": "running", "health": "starting",
                "restart_count": 0, "health_output": "é".repeat(512),
            })
        );
        assert_eq!(progress.current(), "waiting for web to become healthy");
    }

    #[test]
    fn the_log_is_bounded_and_says_what_is_missing() {
        let progress = Progress::new();
        let many = u64::try_from(KEPT).unwrap() + 10;
        for number in 0..many {
            progress.report(number.to_string());
        }
        let news = progress.after(0, usize::MAX);
        assert_eq!((news.events.len(), news.missed, news.events[0].number), (KEPT, 10, 11));
        assert_eq!(progress.after(10, 3).events.len(), 3);
        assert_eq!(progress.after(10, 3).missed, 0);
    }
}
