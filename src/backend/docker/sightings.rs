//! Every change of a tenant's container: one subscription to the engine's events for all of them, and a look at whatever an
//! event names and has not destroyed.
//!
//! ```text
//! events ──> due (one entry a container, however many events) ──> looks, 8 at a time ──> Changed / Gone
//!        └─> Ended, OutOfMemory, Gone (destroyed), as they come
//! ping, every second ──> InStep          list, every minute ──> what differs from what was told becomes due
//! ```
//! The engine drops events for a reader that is slow, and forgets them when it restarts. So nothing here waits while events
//! can be read, and whatever goes wrong ends the stream: whoever reads it begins anew with a whole picture. Containers of
//! others cost nothing, because the engine filters by label.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::models::EventMessage;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, MissedTickBehavior};

use super::engine::{Engine, EngineError};
use super::{labels, status};
use crate::backend::{Ended, ObservedContainer, Sighting, Sightings};
use crate::domain::{AgentId, ContainerId, Health, ServiceName, Subdomain};

/// How often the engine is asked whether it answers.
const BEAT: Duration = Duration::from_secs(1);
/// Events of one container within this time cost one look.
const SETTLE: Duration = Duration::from_millis(10);
/// What was made is about to be started: that is then seen by the same look.
const NEWBORN: Duration = Duration::from_secs(1);
/// And a container is looked at no more often than this, whatever it does.
const PACE: Duration = Duration::from_millis(200);
/// How many containers are looked at at a time.
const LOOKS: usize = 8;
/// How often the whole list is compared with what was told, in case an event was lost after all; first soon after the
/// beginning, when events may have come faster than the subscription.
const CHECK: Duration = Duration::from_secs(60);
const FIRST_CHECK: Duration = Duration::from_secs(1);
/// A whole picture takes no longer.
const BEGINNING: Duration = Duration::from_secs(30);
/// How often a container that is not healthy is looked at, because what its checks say changes without an event.
const CHECKS: Duration = Duration::from_secs(5);
/// For so long a new subscription may tell again what an earlier one has told.
const REPLAY: Duration = Duration::from_secs(5);
/// One that takes longer to be looked at is wedged, and has to wait until it can be.
const WEDGED: Duration = Duration::from_secs(2);
/// Pause before a container that could not be looked at is looked at again.
const AGAIN: Duration = Duration::from_secs(1);

type Events = BoxStream<'static, Result<EventMessage, bollard::errors::Error>>;
/// Containers, and those of them that have to be looked at again.
type Seen = (Vec<ObservedContainer>, HashMap<ContainerId, Due>);
type Look = (ContainerId, Instant, Result<Option<ObservedContainer>, EngineError>);

/// What one watch leaves to the next. The engine holds its last 256 events: the next watch begins with those of the gap, so
/// that how containers have ended is known of it as well.
#[derive(Default)]
pub(super) struct Read {
    /// The time of the last event, in nanoseconds since 1970.
    last: AtomicI64,
    /// Containers that were sent a signal since they were last started.
    killed: Mutex<HashSet<ContainerId>>,
}

impl Read {
    /// None, too, when the clock has been set back since.
    fn last(&self, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let last = self.last.load(Ordering::Relaxed);
        let last = jiff::Timestamp::from_nanosecond(last.into()).ok()?;
        (last != jiff::Timestamp::UNIX_EPOCH && last <= now).then_some(last)
    }

    fn killed(&self) -> MutexGuard<'_, HashSet<ContainerId>> {
        self.killed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Subscribes, then looks at everything.
pub(super) async fn watch(engine: &Arc<Engine>, agent: &AgentId, read: &Arc<Read>) -> Result<Sightings, EngineError> {
    let now = jiff::Timestamp::now();
    let last = read.last(now);
    let since = last.unwrap_or(now);
    let mut events: Events = engine.changes(labels::filter_agent(agent), since)?.boxed();
    let mut early = Vec::new();
    let looking = tokio::time::timeout(BEGINNING, everything(engine, agent));
    tokio::pin!(looking);
    let (looks, as_of) = loop {
        tokio::select! {
            // The first poll of the events sends the subscription: before the list.
            biased;
            event = events.next() => match event {
                Some(Ok(event)) => early.push(event),
                Some(Err(error)) => return Err(error.into()),
                None => return Err(EngineError::Unreachable("the events ended".to_owned())),
            },
            looked = &mut looking => break looked.map_err(|_| EngineError::Timeout)??,
        }
    };
    let (containers, mut due) = looks;
    for seen in &containers {
        if let Some(checks) = Due::of_checks(seen) {
            due.entry(seen.status.id.clone()).or_insert(checks);
        }
    }
    let mut beat = tokio::time::interval_at(as_of, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watching = Watching {
        engine: Arc::clone(engine),
        agent: agent.clone(),
        read: Arc::clone(read),
        replayed: last.map(|last| (last.as_nanosecond(), as_of + REPLAY)),
        events,
        ready: VecDeque::new(),
        known: containers.iter().map(|container| (container.status.id.clone(), Known::of(container))).collect(),
        due,
        busy: HashMap::new(),
        looks: FuturesUnordered::new(),
        beat,
        ping: None,
        check: None,
        next_check: Instant::now() + FIRST_CHECK,
    };
    watching.ready.push_back(Sighting::All { containers, as_of });
    for event in early {
        watching.take(event);
    }
    Ok(stream::unfold(watching, |mut watching| async move { Some((watching.next().await?, watching)) }).boxed())
}

/// All containers, each inspected; of one that the engine cannot tell about what the list has of it, and it is due.
async fn everything(engine: &Arc<Engine>, agent: &AgentId) -> Result<(Seen, Instant), EngineError> {
    let as_of = Instant::now();
    let listed = status::host(engine, agent).await?;
    let looks = stream::iter(listed.into_iter().map(|container| {
        let engine = Arc::clone(engine);
        async move {
            let looked = look(&engine, &container.status.id).await;
            (container, looked)
        }
    }));
    let mut looks = looks.buffer_unordered(LOOKS);
    let (mut seen, mut due) = (Vec::new(), HashMap::new());
    while let Some((listed, looked)) = looks.next().await {
        match looked {
            Ok(found) => seen.extend(found),
            Err(error @ EngineError::Unreachable(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(tenant = %listed.tenant, %error, "a container could not be looked at");
                let again = Due { tenant: listed.tenant.clone(), since: as_of, at: Instant::now() + AGAIN };
                due.insert(listed.status.id.clone(), again);
                seen.push(listed);
            }
        }
    }
    Ok(((status::sorted(seen), due), as_of))
}

/// One container, unless the engine has it locked.
async fn look(engine: &Engine, id: &ContainerId) -> Result<Option<ObservedContainer>, EngineError> {
    tokio::time::timeout(WEDGED, status::container(engine, id)).await.unwrap_or(Err(EngineError::Timeout))
}

/// What the list has of a container too, and when it was last looked at.
struct Known {
    tenant: Subdomain,
    state: String,
    health: Health,
    looked: Instant,
}

impl Known {
    fn of(container: &ObservedContainer) -> Self {
        Self {
            tenant: container.tenant.clone(),
            state: container.status.state.clone(),
            health: container.status.health,
            looked: Instant::now(),
        }
    }
}

/// A container of which something is not known yet.
struct Due {
    tenant: Subdomain,
    /// Since when.
    since: Instant,
    /// When it is to be looked at.
    at: Instant,
}

impl Due {
    /// For the next of its healthchecks, if it is not healthy.
    fn of_checks(container: &ObservedContainer) -> Option<Self> {
        let at = Instant::now() + CHECKS;
        // Until then nothing is known to have changed.
        let due = Self { tenant: container.tenant.clone(), since: at, at };
        matches!(container.status.health, Health::Starting | Health::Unhealthy).then_some(due)
    }
}

struct Watching {
    engine: Arc<Engine>,
    agent: AgentId,
    read: Arc<Read>,
    /// What an earlier watch has read, up to this time, is told again at the beginning and no news.
    replayed: Option<(i128, Instant)>,
    events: Events,
    ready: VecDeque<Sighting>,
    known: HashMap<ContainerId, Known>,
    due: HashMap<ContainerId, Due>,
    /// Those that are being looked at, and since when something of them is not known.
    busy: HashMap<ContainerId, (Subdomain, Instant)>,
    looks: FuturesUnordered<BoxFuture<'static, Look>>,
    beat: tokio::time::Interval,
    ping: Option<BoxFuture<'static, (Instant, Result<(), EngineError>)>>,
    check: Option<BoxFuture<'static, Result<Vec<ObservedContainer>, EngineError>>>,
    next_check: Instant,
}

/// Waits for what may not be there. What is there stays until it is taken away, so that the waiting may be given up.
async fn of<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

impl Watching {
    /// The next sighting; none when the subscription cannot be trusted any more.
    async fn next(&mut self) -> Option<Sighting> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            self.begin_looks();
            let room = self.looks.len() < LOOKS;
            let wake =
                self.due.iter().filter(|&(id, _)| room && !self.busy.contains_key(id)).map(|(_, due)| due.at).min();
            tokio::select! {
                event = self.events.next() => match event {
                    Some(Ok(event)) => self.take(event),
                    _ => return None,
                },
                Some(look) = self.looks.next(), if !self.looks.is_empty() => self.looked(look)?,
                (asked, answered) = of(&mut self.ping) => {
                    self.ping = None;
                    answered.ok()?;
                    self.ready.push_back(Sighting::InStep { as_of: asked, behind: self.behind(asked) });
                }
                listed = of(&mut self.check) => {
                    self.check = None;
                    self.compare(listed.ok()?);
                }
                _ = self.beat.tick() => self.begin_beat(),
                () = async { tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)).await }, if wake.is_some() => {}
            }
        }
    }

    /// Reads one event.
    fn take(&mut self, event: EventMessage) {
        if let Some(time) = event.time_nano {
            if self.replayed.is_some_and(|(last, until)| i128::from(time) <= last && Instant::now() < until) {
                return;
            }
            self.read.last.store(time, Ordering::Relaxed);
        }
        let Some(actor) = event.actor else { return };
        let attributes = actor.attributes.unwrap_or_default();
        let id = actor.id.and_then(|id| ContainerId::parse(&id).ok());
        let tenant = attributes.get(labels::TENANT).and_then(|name| Subdomain::parse(name).ok());
        let service = attributes.get(labels::SERVICE).and_then(|name| ServiceName::parse(name).ok());
        // What lacks one of these is no service's container, and status has none of it either.
        let (Some(container), Some(tenant), Some(service)) = (id, tenant, service) else { return };
        let mut settle = SETTLE;
        match event.action.as_deref().unwrap_or_default() {
            // Each run of a healthcheck has three of them; what they change has an event of its own.
            action if action.starts_with("exec_") => return,
            "attach" | "detach" | "resize" | "top" | "archive-path" | "extract-to-dir" | "export" | "commit"
            | "copy" => {
                return;
            }
            "create" => settle = NEWBORN,
            "kill" => {
                self.read.killed().insert(container);
                return;
            }
            "start" => drop(self.read.killed().remove(&container)),
            "destroy" => {
                self.read.killed().remove(&container);
                // No id is used twice: there is nothing to look at, unless a look that began before may still show it.
                if !self.busy.contains_key(&container) {
                    self.due.remove(&container);
                    self.known.remove(&container);
                    self.ready.push_back(Sighting::Gone { tenant, container, as_of: Instant::now() });
                    return;
                }
            }
            "oom" => {
                let sighting = Sighting::OutOfMemory { tenant: tenant.clone(), service, container: container.clone() };
                self.ready.push_back(sighting);
            }
            "die" => {
                let time = event.time_nano.and_then(|nanos| jiff::Timestamp::from_nanosecond(nanos.into()).ok());
                self.ready.push_back(Sighting::Ended(Ended {
                    tenant: tenant.clone(),
                    service,
                    container: container.clone(),
                    code: attributes.get("exitCode").and_then(|code| code.parse().ok()).unwrap_or(-1),
                    at: time.unwrap_or_else(jiff::Timestamp::now),
                    requested: self.read.killed().contains(&container),
                }));
            }
            _ => {}
        }
        self.is_due(container, tenant, settle);
    }

    /// The container is to be looked at, soon if it has not been lately.
    fn is_due(&mut self, container: ContainerId, tenant: Subdomain, after: Duration) {
        let now = Instant::now();
        let paced = self.known.get(&container).map_or(now, |known| known.looked + PACE);
        let at = paced.max(now + after);
        let due = self.due.entry(container).or_insert(Due { tenant, since: now, at });
        due.at = due.at.min(at);
        due.since = due.since.min(now);
    }

    fn begin_looks(&mut self) {
        let now = Instant::now();
        while self.looks.len() < LOOKS {
            let next = self.due.iter().filter(|&(id, due)| due.at <= now && !self.busy.contains_key(id));
            let Some(id) = next.min_by_key(|(_, due)| due.at).map(|(id, _)| id.clone()) else { return };
            let Some(due) = self.due.remove(&id) else { return };
            self.busy.insert(id.clone(), (due.tenant, due.since));
            let engine = Arc::clone(&self.engine);
            self.looks.push(
                async move {
                    let as_of = Instant::now();
                    let found = look(&engine, &id).await;
                    (id, as_of, found)
                }
                .boxed(),
            );
        }
    }

    /// Takes in what a look has shown; none when the engine is away.
    fn looked(&mut self, (id, as_of, found): Look) -> Option<()> {
        let (tenant, since) = self.busy.remove(&id)?;
        match found {
            Ok(Some(container)) => {
                if let Some(due) = Due::of_checks(&container) {
                    self.due.entry(id.clone()).or_insert(due);
                }
                self.known.insert(id, Known::of(&container));
                self.ready.push_back(Sighting::Changed { container: Box::new(container), as_of });
            }
            Ok(None) => {
                self.known.remove(&id);
                self.ready.push_back(Sighting::Gone { tenant, container: id, as_of });
            }
            Err(EngineError::Unreachable(_)) => return None,
            // One container that the engine cannot tell about is in nobody else's way.
            Err(error) => {
                tracing::warn!(%tenant, %error, "a container could not be looked at");
                let due = self.due.entry(id).or_insert(Due { tenant, since, at: Instant::now() + AGAIN });
                due.since = due.since.min(since);
            }
        }
        Some(())
    }

    fn begin_beat(&mut self) {
        if self.ping.is_none() {
            let engine = Arc::clone(&self.engine);
            let asked = Instant::now();
            self.ping = Some(async move { (asked, engine.ping().await) }.boxed());
        }
        if self.check.is_none() && self.next_check <= Instant::now() {
            self.next_check = Instant::now() + CHECK;
            let (engine, agent) = (Arc::clone(&self.engine), self.agent.clone());
            self.check = Some(async move { status::host(&engine, &agent).await }.boxed());
        }
    }

    /// Whose changes have been waiting since before the engine was asked, and since when.
    fn behind(&self, asked: Instant) -> HashMap<Subdomain, Instant> {
        let due = self.due.values().map(|due| (&due.tenant, due.since));
        let busy = self.busy.values().map(|(tenant, since)| (tenant, *since));
        let mut behind: HashMap<Subdomain, Instant> = HashMap::new();
        for (tenant, since) in due.chain(busy).filter(|(_, since)| *since < asked) {
            let oldest = behind.entry(tenant.clone()).or_insert(since);
            *oldest = since.min(*oldest);
        }
        behind
    }

    /// What the list has otherwise than it was told is looked at. The list alone is no truth: it may be late.
    fn compare(&mut self, listed: Vec<ObservedContainer>) {
        let mut unseen: HashMap<ContainerId, Subdomain> =
            self.known.iter().map(|(id, known)| (id.clone(), known.tenant.clone())).collect();
        for container in listed {
            let id = container.status.id;
            unseen.remove(&id);
            let told = self.known.get(&id);
            let state = container.status.state;
            let runs = state == "running";
            let same =
                told.is_some_and(|told| told.state == state && (!runs || told.health == container.status.health));
            if !same {
                self.is_due(id, container.tenant, Duration::ZERO);
            }
        }
        for (id, tenant) in unseen {
            self.is_due(id, tenant, Duration::ZERO);
        }
    }
}
