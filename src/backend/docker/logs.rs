//! Log lines of a tenant's containers.
//!
//! ```text
//! source (a task for each container: `source`) --> merge by time --> stream of events
//!        ^ finds the place to go on at: `finder`          ^
//!        ^ reads over a connection of its own             discovery: containers that join while it is followed
//! ```

mod connection;
mod finder;
mod merge;
mod source;

pub(super) use connection::Reading;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::EventMessage;
use futures::future::join_all;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use self::merge::{Head, News, broken, feed, merge};
use self::source::{Looked, Source, Start};
use super::engine::{Engine, EngineError};
use super::observe::{self, Container};
use super::{BackendError, LogQuery, LogStream, TenantRef, labels};
use crate::backend::{GapReason, LogCursor, LogEvent, LogGap, LogOrigin, LogSource, Mark, Position, Tail};
use crate::domain::{ContainerId, ServiceName};

/// Batches (what one read of the engine's answer brings) that may wait for a slow reader, for each container.
const WAITING_BATCHES: usize = 2;
/// Events of the engine often come together.
const TOGETHER: Duration = Duration::from_millis(20);
/// How often the containers are listed when no event comes: events may be lost when the engine restarts.
const LOOK: Duration = Duration::from_secs(10);
/// How long to wait with asking for events again.
const PAUSE: Duration = Duration::from_secs(1);

/// Which part of one container's log.
#[derive(Debug, Clone)]
pub(super) struct Window {
    tail: Tail,
    follow: bool,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
}

impl Window {
    /// The last lines of what has been written so far.
    pub(super) fn last(lines: u32) -> Self {
        Self { tail: Tail::Lines(lines), ..Self::all(false) }
    }

    fn all(follow: bool) -> Self {
        Self { tail: Tail::All, follow, since: None, until: None }
    }

    fn query(&self) -> String {
        let mut query = format!("stdout=true&stderr=true&timestamps=true&follow={}", self.follow);
        if let Tail::Lines(lines) = self.tail {
            query.push_str(&format!("&tail={lines}"));
        }
        for (name, time) in [("since", self.since), ("until", self.until)] {
            if let Some(time) = time {
                query.push_str(&format!("&{name}={}.{:09}", time.as_second(), time.subsec_nanosecond().max(0)));
            }
        }
        query
    }
}

/// The lines of the tenant's containers, merged by time.
pub(super) async fn stream(
    engine: &Arc<Engine>,
    tenant: &TenantRef,
    query: &LogQuery,
) -> Result<LogStream, BackendError> {
    let since = jiff::Timestamp::now();
    let changes = query.follow.then(|| watch::Sender::new(0));
    let reading = Reader { engine: Arc::clone(engine), until: query.until, changes };
    let containers = observe::containers(engine, &labels::filter(tenant)).await;
    let containers = containers.map_err(|error| error.into_backend("listing containers"))?;
    let known: BTreeSet<ContainerId> = containers.iter().map(|container| container.id.clone()).collect();
    let cursor = query.cursor.as_ref();
    let mut sources = Vec::new();
    if let Some(gone) = gone(query, &known) {
        sources.push(gone);
    }
    let window = Window { tail: query.tail, follow: false, since: query.since, until: query.until };
    let wanted: Vec<(Container, Start)> = containers
        .into_iter()
        .filter_map(|container| {
            let mark = cursor.and_then(|cursor| cursor.mark(LogSource::of(&container.id)));
            // What is set aside has been replaced, but what it wrote after the cursor is still to be told.
            let wanted = wants(&query.services, &container.service) && (mark.is_some() || !container.is_aside());
            let start = match (cursor, mark) {
                (_, Some(mark)) => Start::After(mark.position),
                (Some(_), None) => Start::After(Position::Beginning),
                (None, None) => Start::Window(window.clone()),
            };
            wanted.then_some((container, start))
        })
        .collect();
    let reads = wanted.iter().map(|(container, _)| container.id.clone()).collect();
    let heads = reading.heads(wanted).await.map_err(|error| error.into_backend("reading logs"))?;
    sources.extend(heads);
    if !query.follow {
        return Ok(merge(sources, None, query.until, ()));
    }
    let (sender, news) = mpsc::channel(4);
    let discovery = Discovery {
        reader: reading,
        tenant: tenant.clone(),
        services: query.services.clone(),
        known,
        reads,
        started: BTreeMap::new(),
        news: sender.clone(),
        since,
        looked: since,
    };
    let discovery = AbortOnDropHandle::new(feed(sender, News::Failed(broken()), discovery.run()));
    Ok(merge(sources, Some(news), query.until, discovery))
}

fn wants(services: &[ServiceName], service: &ServiceName) -> bool {
    services.is_empty() || services.contains(service)
}

/// Tells of containers in the cursor that the engine no longer has.
fn gone(query: &LogQuery, known: &BTreeSet<ContainerId>) -> Option<Head> {
    let there: BTreeSet<LogSource> = known.iter().map(LogSource::of).collect();
    let marks = query.cursor.iter().flat_map(LogCursor::marks);
    let is_gone = |mark: &&Mark| !there.contains(&mark.source) && wants(&query.services, &mark.service);
    let events: Vec<LogEvent> = marks.filter(is_gone).flat_map(removed).collect();
    (!events.is_empty()).then(|| Head::of(events))
}

/// What is told of a container that is gone, in this order: who goes on from the gap does not hear of it again.
fn removed(mark: &Mark) -> [LogEvent; 2] {
    let from = mark.position.time_of_line();
    let (service, number, reason) = (mark.service.clone(), mark.number, GapReason::Removed);
    let gap = LogGap { service, number, container: None, from, to: None, reason };
    [LogEvent::Left(mark.source), LogEvent::Gap(gap)]
}

/// Starts sources.
struct Reader {
    engine: Arc<Engine>,
    until: Option<jiff::Timestamp>,
    /// Ticks when something has happened to one of the tenant's containers; none when nothing is followed.
    changes: Option<watch::Sender<u64>>,
}

impl Reader {
    /// A source for each of these containers. Of one that has gone meanwhile it tells that.
    async fn heads(&self, containers: Vec<(Container, Start)>) -> Result<Vec<Head>, EngineError> {
        let inspected = join_all(containers.iter().map(|(container, _)| self.engine.inspect(&container.id))).await;
        let mut heads = Vec::new();
        for ((container, start), inspected) in containers.into_iter().zip(inspected) {
            let looked = match inspected {
                Ok(details) => Some(Looked {
                    tty: details.config.and_then(|config| config.tty).unwrap_or(false),
                    started: details.state.and_then(|state| state.started_at),
                }),
                Err(EngineError::NotFound(_)) => None,
                Err(error) => return Err(error),
            };
            let source = LogSource::of(&container.id);
            // One that is set aside is told of by the name that it had when it wrote.
            let name = crate::domain::ContainerName::parse(container.final_name()).unwrap_or(container.name);
            let origin = LogOrigin { source, container: name, service: container.service, number: container.number };
            let Some(looked) = looked else {
                if let Start::After(position) = start {
                    heads.push(Head::of(removed(&origin.at(position)).into()));
                }
                continue;
            };
            let (sender, batches) = mpsc::channel(WAITING_BATCHES);
            let source =
                Source::new(&self.engine, (container.id, looked, Arc::new(origin)), self.until, sender.clone());
            let changes = self.changes.as_ref().map(watch::Sender::subscribe);
            heads.push(Head::new(batches, feed(sender, Err(broken()), source.run(start, changes))));
        }
        Ok(heads)
    }
}

/// Looks for containers that join while the log is followed.
struct Discovery {
    reader: Reader,
    tenant: TenantRef,
    services: Vec<ServiceName>,
    /// Containers that were there at the start. If one of them comes back, what it wrote before then is not wanted.
    known: BTreeSet<ContainerId>,
    /// Containers that have a source.
    reads: BTreeSet<ContainerId>,
    /// Containers that have been started and not been seen yet.
    started: BTreeMap<ContainerId, (ServiceName, u32)>,
    news: mpsc::Sender<News>,
    /// Before the first look, and before the last one.
    since: jiff::Timestamp,
    looked: jiff::Timestamp,
}

/// What containers do that concerns a follower. Healthchecks make events too, several a second.
const EVENTS: [&str; 5] = ["create", "start", "die", "destroy", "rename"];

impl Discovery {
    async fn run(mut self) {
        let last = loop {
            match self.watch().await {
                // Events are not to be had for a while; a tenant whose containers can be listed is still followed.
                Ok(true) => tokio::time::sleep(PAUSE).await,
                Ok(false) => break News::Last,
                Err(error) => break News::Failed(error.into_backend("listing containers")),
            }
        };
        let _ = self.news.send(last).await;
        // Sources that wait for a start learn from their ticks that there will be none, as long as there is somebody to tick.
        std::future::pending::<()>().await;
    }

    /// Looks at each event until there are no more; false when the tenant has no container left.
    async fn watch(&mut self) -> Result<bool, EngineError> {
        let mut filters = labels::filter(&self.tenant);
        filters.insert("event".to_owned(), EVENTS.map(str::to_owned).to_vec());
        // The engine tells again what has happened from then on.
        let since = self.looked;
        let events = self.reader.engine.clone();
        let mut events = std::pin::pin!(events.events(filters, since.as_second())?);
        loop {
            if !self.look().await? {
                return Ok(false);
            }
            tokio::select! {
                event = events.next() => {
                    let Some(Ok(event)) = event else { return Ok(true) };
                    self.hear(event);
                    tokio::time::sleep(TOGETHER).await;
                    while let Some(event) = events.next().now_or_never() {
                        let Some(Ok(event)) = event else { return Ok(true) };
                        self.hear(event);
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Notes what has been started: it may have gone again before it is looked at.
    fn hear(&mut self, event: EventMessage) {
        let Some(actor) = event.actor.filter(|_| event.action.as_deref() == Some("start")) else { return };
        let Some(id) = actor.id.and_then(|id| ContainerId::parse(&id).ok()) else { return };
        let attributes = actor.attributes.unwrap_or_default();
        let service = attributes.get(labels::SERVICE).and_then(|name| ServiceName::parse(name).ok());
        let number = attributes.get(labels::NUMBER).and_then(|number| number.parse().ok());
        let before = event.time_nano.is_some_and(|time| i128::from(time) < self.since.as_nanosecond());
        if let (Some(service), Some(number), false) = (service, number, before || self.known.contains(&id)) {
            self.started.insert(id, (service, number));
        }
    }

    /// Of what has come and gone nobody has seen what it wrote.
    fn missed(&mut self, there: &[Container]) -> Option<Head> {
        let started = std::mem::take(&mut self.started);
        let is_there = |id: &ContainerId| there.iter().any(|container| container.id == *id);
        let gone = started
            .into_iter()
            .filter(|(id, (service, _))| !is_there(id) && !self.reads.contains(id) && wants(&self.services, service));
        let gone: Vec<_> = gone.collect();
        // The engine may tell of it once more.
        self.reads.extend(gone.iter().map(|(id, _)| id.clone()));
        let told = gone.into_iter().flat_map(|(id, (service, number))| {
            removed(&Mark { source: LogSource::of(&id), service, number, position: Position::Beginning })
        });
        let events: Vec<LogEvent> = told.collect();
        (!events.is_empty()).then(|| Head::of(events))
    }

    /// Starts what has joined; false when the tenant has no container left.
    async fn look(&mut self) -> Result<bool, EngineError> {
        let looked = jiff::Timestamp::now();
        let containers = observe::containers(&self.reader.engine, &labels::filter(&self.tenant)).await?;
        self.looked = looked;
        if let Some(changes) = &self.reader.changes {
            changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        if let Some(missed) = self.missed(&containers) {
            // A reader that has gone takes this task with it.
            let _ = self.news.send(News::Source(missed)).await;
        }
        if containers.is_empty() {
            return Ok(false);
        }
        let since = Position::Since(crate::backend::cursor::nanoseconds(self.since).unwrap_or(0));
        let joined = containers.into_iter().filter(|container| {
            !container.is_aside() && wants(&self.services, &container.service) && !self.reads.contains(&container.id)
        });
        let joined: Vec<(Container, Start)> = joined
            .map(|container| {
                let position = if self.known.contains(&container.id) { since } else { Position::Beginning };
                (container, Start::After(position))
            })
            .collect();
        self.reads.extend(joined.iter().map(|(container, _)| container.id.clone()));
        for head in self.reader.heads(joined).await? {
            // A reader that has gone takes this task with it.
            let _ = self.news.send(News::Source(head)).await;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
