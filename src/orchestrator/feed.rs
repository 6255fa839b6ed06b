//! The change feed: what happened to all tenants, in order, in a ring of bounded size.
//!
//! A cursor is the number of the last event that a reader has, with the id of this run of the agent. Readers keep their own
//! place and are not known here, so a slow one costs nothing: what the ring no longer holds when it comes back is replaced
//! by one event `resync`, after which the reader asks for the list and goes on from there. A reader without a cursor, or
//! with one of another run, begins with the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, stream};
use serde::Serialize;
use tokio::sync::watch;

use crate::domain::{
    ContainerName, Exit, Health, OperationId, OperationKind, ServiceName, ServiceState, Subdomain, TenantState,
};
use crate::domain::{ErrorCode, Generation};

/// The most events that are held, and the most bytes of them.
const EVENTS: usize = 10_000;
const BYTES: usize = 2 << 20;
/// How many a reader takes at a time.
const BATCH: usize = 64;
/// After so many events of others a reader gets a newer cursor, so that its own does not become too old while it is quiet.
const STRIDE: u64 = 256;

/// What can happen. The name of each is the type of its event.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event")]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub(super) enum Happening {
    /// A tenant is there that was not, or was only kept.
    #[serde(rename = "tenant_created")]
    Created { generation: Generation },
    /// It was torn down, its data is kept.
    #[serde(rename = "tenant_kept")]
    Kept {},
    /// It is gone with all it had.
    #[serde(rename = "tenant_purged")]
    Purged {},
    /// Its state is another one.
    #[serde(rename = "tenant_state")]
    State { from: TenantState, to: TenantState, generation: Generation, reasons: Vec<String> },
    /// The state of one of its services is another one.
    #[serde(rename = "service_state")]
    Service { service: ServiceName, from: Option<ServiceState>, to: ServiceState, reason: Option<String> },
    /// The health of one of its services is another one.
    #[serde(rename = "service_health")]
    Health { service: ServiceName, from: Option<Health>, to: Health },
    /// A port of it is reached at another address, or under another name, than before.
    #[serde(rename = "address_changed")]
    Address { service: ServiceName, port: u16, protocol: String, from: Vec<String>, to: Vec<String> },
    /// A process of it was killed because there was no memory left for it.
    #[serde(rename = "out_of_memory")]
    OutOfMemory { service: ServiceName, container: ContainerName },
    /// A container ends again and again.
    #[serde(rename = "restart_loop")]
    RestartLoop { service: ServiceName, container: ContainerName, last_exits: Vec<Exit> },
    /// An operation has ended: `succeeded`, `failed`, or what became of it when the agent had ended before it: `finished`,
    /// `undone`, `unknown`.
    #[serde(rename = "operation_ended")]
    OperationEnded {
        operation: OperationId,
        kind: OperationKind,
        outcome: &'static str,
        code: Option<ErrorCode>,
        duration_ms: u64,
    },
}

impl Happening {
    fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "tenant_created",
            Self::Kept {} => "tenant_kept",
            Self::Purged {} => "tenant_purged",
            Self::State { .. } => "tenant_state",
            Self::Service { .. } => "service_state",
            Self::Health { .. } => "service_health",
            Self::Address { .. } => "address_changed",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::RestartLoop { .. } => "restart_loop",
            Self::OperationEnded { .. } => "operation_ended",
        }
    }
}

/// One event as a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEvent {
    /// Goes on behind this event.
    pub cursor: String,
    /// The event's type.
    pub name: &'static str,
    /// A JSON object; empty when there is nothing to tell but the cursor.
    pub data: Arc<str>,
}

/// The ring and the bell that rings with each event.
pub(super) struct Feed {
    /// Tells this run of the agent from any other.
    run: String,
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Held>,
    bytes: usize,
    /// The number of the last event; the first has 1.
    last: u64,
}

struct Held {
    /// None when it is about the host.
    tenant: Option<Subdomain>,
    name: &'static str,
    data: Arc<str>,
}

impl Ring {
    /// The number of the oldest event that is still there.
    fn first(&self) -> u64 {
        self.last + 1 - self.events.len() as u64
    }
}

/// The data of an event.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "FeedEvent"))]
pub(crate) struct Data<'a> {
    time: jiff::Timestamp,
    /// None when it is about the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    subdomain: Option<&'a Subdomain>,
    #[serde(flatten)]
    happening: &'a Happening,
}

impl Feed {
    pub(super) fn new() -> Self {
        let run = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
        Self { run, ring: Mutex::default(), last: watch::Sender::new(0) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event. The oldest go when there is no room.
    pub(super) fn publish<'a>(&self, tenant: impl Into<Option<&'a Subdomain>>, happening: &Happening) {
        let tenant = tenant.into();
        let data = Data { time: jiff::Timestamp::now(), subdomain: tenant, happening };
        let data: Arc<str> = serde_json::to_string(&data).unwrap_or_default().into();
        let mut ring = self.ring();
        ring.bytes += data.len();
        ring.events.push_back(Held { tenant: tenant.cloned(), name: happening.name(), data });
        ring.last += 1;
        while ring.events.len() > EVENTS || ring.bytes > BYTES {
            let Some(old) = ring.events.pop_front() else { break };
            ring.bytes -= old.data.len();
        }
        let last = ring.last;
        drop(ring);
        // Two who publish at once may come here in either order.
        self.last.send_if_modified(|told| last > std::mem::replace(told, last.max(*told)));
    }

    /// The events behind a cursor, of one tenant or of all. It never ends.
    pub(super) fn read(
        self: &Arc<Self>,
        cursor: Option<&str>,
        tenant: Option<Subdomain>,
    ) -> impl Stream<Item = FeedEvent> + Send + use<> {
        let place = cursor.and_then(|cursor| {
            let (run, number) = cursor.split_once('-')?;
            let number: u64 = number.parse().ok()?;
            // A number that has not been given out is no place either.
            (run == self.run && number <= self.ring().last).then_some(number)
        });
        let reader = Reader {
            feed: Arc::clone(self),
            bell: self.last.subscribe(),
            place,
            told: place,
            tenant,
            taken: VecDeque::new(),
        };
        stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) })
    }
}

struct Reader {
    feed: Arc<Feed>,
    bell: watch::Receiver<u64>,
    /// The number of the last event that it has, or need not have; none when it has no place yet.
    place: Option<u64>,
    /// The number that its last cursor has.
    told: Option<u64>,
    tenant: Option<Subdomain>,
    taken: VecDeque<FeedEvent>,
}

impl Reader {
    async fn next(&mut self) -> Option<FeedEvent> {
        loop {
            if let Some(event) = self.taken.pop_front() {
                return Some(event);
            }
            self.bell.mark_unchanged();
            self.take();
            if self.taken.is_empty() {
                // The feed, which this holds, has the sender.
                self.bell.changed().await.ok()?;
            }
        }
    }

    /// Takes the next events out of the ring.
    fn take(&mut self) {
        let ring = self.feed.ring();
        let (first, last) = (ring.first(), ring.last);
        let cursor = |number: u64| format!("{}-{number}", self.feed.run);
        let Some(place) = self.place.filter(|place| place + 1 >= first) else {
            let reason = if self.place.is_some() { "too_old" } else { "unknown_cursor" };
            let data =
                format!("{{\"time\":\"{}\",\"event\":\"resync\",\"reason\":\"{reason}\"}}", jiff::Timestamp::now());
            self.taken.push_back(FeedEvent { cursor: cursor(last), name: "resync", data: data.into() });
            (self.place, self.told) = (Some(last), Some(last));
            return;
        };
        let from = usize::try_from(place + 1 - first).unwrap_or(usize::MAX);
        let mut number = place;
        for held in ring.events.iter().skip(from) {
            number += 1;
            if self.tenant.is_none() || self.tenant == held.tenant {
                self.taken.push_back(FeedEvent {
                    cursor: cursor(number),
                    name: held.name,
                    data: Arc::clone(&held.data),
                });
                self.told = Some(number);
                if self.taken.len() == BATCH {
                    break;
                }
            }
        }
        self.place = Some(number);
        if self.told.is_none_or(|told| number - told >= STRIDE) {
            self.told = Some(number);
            self.taken.push_back(FeedEvent { cursor: cursor(number), name: "", data: Arc::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    fn tenant(name: &str) -> Subdomain {
        Subdomain::parse(name).unwrap()
    }

    fn created(number: u64) -> Happening {
        Happening::Created { generation: Generation(number) }
    }

    /// What can be read without waiting: cursors and names.
    fn read(feed: &Arc<Feed>, cursor: Option<&str>, of: Option<&str>) -> Vec<FeedEvent> {
        let mut stream = Box::pin(feed.read(cursor, of.map(tenant)));
        std::iter::from_fn(|| stream.next().now_or_never().flatten()).collect()
    }

    fn generations(events: &[FeedEvent]) -> Vec<u64> {
        let number = |event: &FeedEvent| {
            let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
            data["generation"].as_u64().unwrap()
        };
        events.iter().map(number).collect()
    }

    #[tokio::test]
    async fn a_cursor_goes_on_where_it_was() {
        let feed = Arc::new(Feed::new());
        let begin = read(&feed, None, None);
        assert_eq!((begin.len(), begin[0].name), (1, "resync"));
        for number in 1..=200 {
            feed.publish(&tenant(if number % 2 == 0 { "even" } else { "odd" }), &created(number));
        }
        let all = read(&feed, Some(&begin[0].cursor), None);
        assert_eq!(generations(&all), (1..=200).collect::<Vec<_>>());
        for at in [0, 1, 63, 64, 65, 199] {
            let rest = read(&feed, Some(&all[at].cursor), None);
            assert_eq!(rest, all[at + 1..], "behind event {at}");
        }
        let even = read(&feed, Some(&begin[0].cursor), Some("even"));
        assert_eq!(generations(&even), (1..=100).map(|number| number * 2).collect::<Vec<_>>());
        assert_eq!(read(&feed, Some(&even[10].cursor), Some("even")), even[11..]);
        for strange in ["", "x", "-", "-5", "0-0", &format!("{}-201", feed.run), &format!("{}-x", feed.run)] {
            let told = read(&feed, Some(strange), None);
            assert_eq!((told.len(), told[0].name), (1, "resync"), "{strange:?}");
            assert_eq!(read(&feed, Some(&told[0].cursor), None), []);
        }
        let other = Arc::new(Feed::new());
        assert_eq!(read(&other, Some(&all[3].cursor), None)[0].name, "resync", "another run of the agent");
    }

    #[tokio::test]
    async fn a_quiet_reader_keeps_its_place() {
        let feed = Arc::new(Feed::new());
        let mut cursor = read(&feed, None, Some("quiet"))[0].cursor.clone();
        let mut following = Box::pin(feed.read(Some(&cursor), Some(tenant("quiet"))));
        while feed.ring().last <= 2 * EVENTS as u64 {
            for number in 0..STRIDE {
                feed.publish(&tenant("loud"), &created(number));
            }
            while let Some(event) = following.next().now_or_never().flatten() {
                assert_eq!((event.name, &*event.data), ("", ""), "nothing is told but the cursor");
                cursor = event.cursor;
            }
        }
        feed.publish(&tenant("quiet"), &created(7));
        assert_eq!(generations(&read(&feed, Some(&cursor), Some("quiet"))), [7]);
    }

    #[tokio::test]
    async fn what_is_about_the_host_names_no_tenant() {
        let feed = Arc::new(Feed::new());
        let begin = read(&feed, None, None)[0].cursor.clone();
        feed.publish(None, &created(1));
        let all = read(&feed, Some(&begin), None);
        assert!(all.len() == 1 && !all[0].data.contains("subdomain"), "{all:?}");
        assert_eq!(read(&feed, Some(&begin), Some("acme")), []);
    }

    #[tokio::test]
    async fn the_ring_is_bounded_and_says_what_it_lost() {
        let feed = Arc::new(Feed::new());
        let begin = read(&feed, None, None)[0].cursor.clone();
        let mut slow = Box::pin(feed.read(Some(&begin), None));
        for number in 1..=EVENTS as u64 + 1 {
            feed.publish(&tenant("acme"), &created(number));
        }
        assert_eq!(feed.ring().events.len(), EVENTS);
        assert!(feed.ring().bytes <= BYTES);
        let told = slow.next().await.unwrap();
        assert_eq!(told.name, "resync");
        feed.publish(&tenant("acme"), &created(7));
        assert_eq!(generations(&[slow.next().await.unwrap()]), [7], "it goes on behind what it has to look at anew");

        let reasons = vec!["x".repeat(1000)];
        let (from, to) = (TenantState::Running, TenantState::Degraded);
        for _ in 0..3000 {
            let state = Happening::State { from, to, generation: Generation(1), reasons: reasons.clone() };
            feed.publish(&tenant("acme"), &state);
        }
        assert!(feed.ring().bytes <= BYTES && feed.ring().events.len() > 1000);
    }

    #[tokio::test]
    async fn readers_wait_for_what_comes() {
        let feed = Arc::new(Feed::new());
        let begin = read(&feed, None, None)[0].cursor.clone();
        let mut reader = Box::pin(feed.read(Some(&begin), Some(tenant("mine"))));
        assert!(reader.next().now_or_never().is_none());
        let waiting = tokio::spawn(async move { reader.next().await });
        tokio::task::yield_now().await;
        feed.publish(&tenant("other"), &created(1));
        feed.publish(&tenant("mine"), &created(2));
        assert_eq!(generations(&[waiting.await.unwrap().unwrap()]), [2]);
    }
}
