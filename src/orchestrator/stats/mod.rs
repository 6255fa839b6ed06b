//! Numbers: of the host for whoever places the next tenant, of one tenant, and the text for Prometheus.
//!
//! ```text
//! question ─> snapshot younger than FRESH, and nothing has changed since ──────────────────────> answer
//!             older, but younger than STALE: answer, and a refresh in the background
//!             older still, or an operation has ended since: wait for the refresh
//!
//! refresh  =  /proc and statvfs now  +  records, if an operation has ended  +  a ping
//!                                    +  what the engine holds, if that is older than SELDOM
//! ```
//!
//! Nothing is refreshed while nobody asks. One refresh runs at a time, and none waits for the engine longer than
//! [`PATIENCE`]. Directories and volumes are measured one after the other, after somebody has asked for them.

mod host;
mod scrape;
mod sizes;
mod tenant;

pub use host::{
    Committable, Cores, CountedImages, Disks, EngineSeen, EngineState, HostMemory, Load, Ports, Reason, Slots, Subnets,
    SystemStats,
};
pub use tenant::{ContainerStats, DirectoryUse, DiskUse, Numbers, TenantStats, VolumeUse, VolumesUse};

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use self::host::{Committed, EngineView};
use super::contained::contained;
use super::{Error, Orchestrator};
use crate::domain::ContainerId;
use crate::telemetry::host::{Disk, HostReader};

/// A snapshot so young is the answer.
const FRESH: Duration = Duration::from_secs(1);
/// One so young is the answer too, but the next one is being made.
const STALE: Duration = Duration::from_secs(3);
/// How old what the engine holds may become.
const SELDOM: Duration = Duration::from_secs(10);
/// How old sums over the records may become although no operation has ended.
const RECORDS: Duration = Duration::from_secs(60);
/// How long the engine is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What stands between two questions.
#[derive(Default)]
pub(super) struct Stats {
    reader: HostReader,
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    /// Held during a refresh.
    carried: tokio::sync::Mutex<Carried>,
    /// Whether a refresh has been begun in the background.
    refreshing: AtomicBool,
    /// Grows whenever something has changed that a snapshot would not show.
    changes: AtomicU64,
    /// The last look at each container's CPU time.
    looks: Mutex<HashMap<ContainerId, tenant::Look>>,
    sizes: sizes::Sizes,
    scraped: scrape::Scraped,
}

/// What one refresh leaves to the next.
#[derive(Default)]
struct Carried {
    cpu: Option<host::CpuLook>,
    committed: Option<(Instant, u64, Committed)>,
    engine: EngineView,
    tenants_root: Begun<Option<Disk>>,
    engine_root: Begun<Option<Disk>>,
    records: Begun<(u64, Result<Committed, Error>)>,
}

/// A question to what may not answer: it is asked once, and waited for [`PATIENCE`] at a time.
struct Begun<T>(Option<(Instant, tokio::task::JoinHandle<T>)>);

impl<T> Default for Begun<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Begun<T> {
    /// The answer, and when it was asked for; none while there is none.
    async fn wait(&mut self, begin: impl FnOnce() -> tokio::task::JoinHandle<T>) -> Option<(Instant, T)> {
        let (since, work) = self.0.get_or_insert_with(|| (Instant::now(), begin()));
        let since = *since;
        let ended = tokio::time::timeout(PATIENCE, work).await.ok()?;
        self.0 = None;
        Some((since, ended.ok()?))
    }

    /// The same, of now: what came after nobody waited any more is old.
    async fn wait_anew(&mut self, begin: impl FnOnce() -> tokio::task::JoinHandle<T>) -> Option<T> {
        if self.0.as_ref().is_some_and(|(_, work)| work.is_finished()) {
            self.0 = None;
        }
        self.wait(begin).await.map(|(_, answer)| answer)
    }
}

/// The numbers of the host at one moment, and the answer that they make.
pub struct Snapshot {
    taken: Instant,
    /// The count of changes that it shows.
    change: u64,
    /// The numbers.
    pub stats: SystemStats,
    /// They as JSON, up to where the age belongs.
    text: Bytes,
}

impl Snapshot {
    fn new(taken: Instant, change: u64, stats: SystemStats) -> Self {
        let mut text = serde_json::to_vec(&stats).expect("numbers serialise");
        // The age, which is zero, and the closing brace.
        text.truncate(text.len() - 2);
        Self { taken, change, stats, text: text.into() }
    }

    /// How old it is.
    pub fn age(&self) -> Duration {
        self.taken.elapsed()
    }

    /// The JSON answer, with its age in milliseconds.
    pub fn json(&self) -> Bytes {
        let age = format!("{}}}", self.age().as_millis());
        let mut text = Vec::with_capacity(self.text.len() + age.len());
        text.extend_from_slice(&self.text);
        text.extend_from_slice(age.as_bytes());
        text.into()
    }
}

impl Stats {
    /// Something has changed (an operation has ended, the host was closed): the next answer shows it.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    fn current(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shows_all(&self, snapshot: &Snapshot) -> bool {
        snapshot.change == self.changes.load(Ordering::Acquire)
    }
}

impl Orchestrator {
    /// The numbers of the host: from memory if they are young, else after a refresh.
    pub async fn system_stats(&self) -> Arc<Snapshot> {
        match self.stats_at_once() {
            Some(snapshot) => snapshot,
            None => Box::pin(self.refresh()).await,
        }
    }

    /// The same, if the last snapshot is good enough; one that is not the newest has the next one begun.
    pub fn stats_at_once(&self) -> Option<Arc<Snapshot>> {
        let stats = &self.inner.stats;
        match stats.current().filter(|snapshot| stats.shows_all(snapshot)) {
            Some(snapshot) if snapshot.age() < FRESH => Some(snapshot),
            Some(snapshot) if snapshot.age() < STALE => {
                if !stats.refreshing.swap(true, Ordering::AcqRel) {
                    let this = self.clone();
                    tokio::spawn(async move {
                        // What asks for one that is not there makes it itself.
                        contained(async { Ok(this.refresh().await) }).await.ok();
                        this.inner.stats.refreshing.store(false, Ordering::Release);
                    });
                }
                Some(snapshot)
            }
            _ => None,
        }
    }

    /// A snapshot that was begun after this was called.
    async fn refresh(&self) -> Arc<Snapshot> {
        let stats = &self.inner.stats;
        let asked = Instant::now();
        let mut carried = stats.carried.lock().await;
        // Somebody else's refresh, which began while this one waited for its turn.
        if let Some(snapshot) = stats.current()
            && snapshot.taken >= asked
            && stats.shows_all(&snapshot)
        {
            return snapshot;
        }
        let (taken, change) = (Instant::now(), stats.changes.load(Ordering::Acquire));
        let (numbers, change) = self.look_at_host(&mut carried, change).await;
        let snapshot = Arc::new(Snapshot::new(taken, change, numbers));
        *stats.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&snapshot));
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_is_asked_once() {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let mut question = Begun::default();
        let asked = Instant::now();
        let begin = || tokio::spawn(async { answered.await.unwrap() });
        assert_eq!(question.wait(begin).await, None);
        assert_eq!(asked.elapsed(), PATIENCE);
        let again = || panic!("it is being asked already");
        assert_eq!(question.wait(again).await, None);
        answer.send(7).unwrap();
        assert_eq!(question.wait(again).await, Some((asked, 7)));
        assert_eq!(question.wait(|| tokio::spawn(async { 8 })).await.map(|(_, answer)| answer), Some(8));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_waited_for_is_old() {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let mut question = Begun::default();
        assert_eq!(question.wait_anew(|| tokio::spawn(async { answered.await.unwrap() })).await, None);
        answer.send(7).unwrap();
        tokio::time::sleep(PATIENCE).await;
        assert_eq!(question.wait_anew(|| tokio::spawn(async { 8 })).await, Some(8));
    }

    #[tokio::test]
    async fn a_question_that_panicked_is_asked_anew() {
        let mut question = Begun::default();
        assert_eq!(question.wait(|| tokio::spawn(async { panic!("a test asked for this") })).await, None::<(_, u8)>);
        assert_eq!(question.wait_anew(|| tokio::spawn(async { 8 })).await, Some(8));
    }
}
