//! How fast and how many: Azure's write limits, kept here rather than run into.
//!
//! A subscription may make 100 container groups in 5 minutes and 300 an hour in each region, and delete as many. Whoever
//! wants to write takes the next free moment; one that lies beyond the deadline is refused at once. Beside that, only so many
//! calls are under way at a time, and some places are kept for those that only read.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::error::{ArmError, Refusal};

/// The most calls at a time.
pub(super) const AT_ONCE: usize = 16;
/// The most of them that change something.
const WRITES_AT_ONCE: usize = 12;
/// So many in so long, with a second more: the service counts when a request arrives.
const LIMITS: [(usize, Duration); 2] = [(100, Duration::from_secs(301)), (300, Duration::from_secs(3601))];
/// The longest of these times.
const LONGEST: Duration = LIMITS[1].1;

/// What a call counts as.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Read,
    /// A change that has no limit of its own.
    Write,
    /// A container group made or changed, in this region.
    Create(String),
    /// A container group removed.
    Delete(String),
}

impl Lane {
    fn is_limited(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Delete(_))
    }
}

#[derive(Debug, Default)]
struct Window {
    /// The moments that were taken in the longest time, the oldest first; some are still to come.
    taken: VecDeque<Instant>,
    /// Nobody goes before that.
    closed: Option<Instant>,
}

impl Window {
    /// The next moment at which one more may go.
    fn next(&mut self, now: Instant) -> Instant {
        while self.taken.front().is_some_and(|&oldest| oldest + LONGEST <= now) {
            self.taken.pop_front();
        }
        let full = LIMITS.iter().filter_map(|&(most, time)| {
            let last = self.taken.len().checked_sub(most)?;
            Some(self.taken[last] + time)
        });
        full.chain(self.closed).fold(now, Instant::max)
    }
}

/// The pace of one subscription.
#[derive(Debug)]
pub(super) struct Pace {
    calls: Semaphore,
    writes: Semaphore,
    windows: Mutex<HashMap<Lane, Window>>,
}

/// A call that is under way.
pub(super) struct Going<'a> {
    turn: Turn<'a>,
    _write: Option<SemaphorePermit<'a>>,
    _call: SemaphorePermit<'a>,
}

impl Going<'_> {
    /// Nothing was asked of the service that it counts, so that somebody else may go in its place.
    pub(super) fn give_back(mut self) {
        self.turn.is_used = !self.turn.lane.is_limited();
    }
}

impl Pace {
    pub(super) fn new() -> Self {
        let (calls, writes) = (Semaphore::new(AT_ONCE), Semaphore::new(WRITES_AT_ONCE));
        Self { calls, writes, windows: Mutex::default() }
    }

    /// Waits for this call's turn.
    pub(super) async fn enter<'a>(&'a self, lane: &'a Lane, deadline: Instant) -> Result<Going<'a>, ArmError> {
        let mut turn = self.take(lane, deadline)?;
        // A timer takes a millisecond even for no time at all.
        if turn.at > Instant::now() {
            sleep_until(turn.at).await;
        }
        let places = async {
            let write = if *lane == Lane::Read { None } else { Some(self.writes.acquire().await) };
            (write.transpose(), self.calls.acquire().await)
        };
        match timeout_at(deadline, places).await {
            Ok((Ok(write), Ok(call))) => {
                turn.is_used = true;
                Ok(Going { turn, _write: write, _call: call })
            }
            _ => Err(ArmError::Deadline { doing: "waiting for other calls to end".to_owned() }),
        }
    }

    fn take<'a>(&'a self, lane: &'a Lane, deadline: Instant) -> Result<Turn<'a>, ArmError> {
        let now = Instant::now();
        let mut windows = self.lock();
        // One that is not limited is there only once it was closed.
        let window = if lane.is_limited() {
            windows.entry(lane.clone()).or_default()
        } else if let Some(window) = windows.get_mut(lane) {
            window
        } else {
            return Ok(Turn { pace: self, lane, at: now, is_used: true });
        };
        let at = window.next(now);
        if at > deadline {
            let message = format!("the write limit of the subscription leaves room only in {} s", (at - now).as_secs());
            return Err(ArmError::Throttled(Box::new(Refusal { status: 429, message, ..Refusal::default() })));
        }
        if lane.is_limited() {
            window.taken.push_back(at);
        }
        Ok(Turn { pace: self, lane, at, is_used: !lane.is_limited() })
    }

    /// Takes note of what an answer says is left: with nothing left, calls go at the rate at which room comes back.
    pub(super) fn learn(&self, lane: &Lane, headers: &HeaderMap) {
        let left = headers.iter().filter_map(|(name, value)| {
            let kind = name.as_str().strip_prefix("x-ms-ratelimit-remaining-")?;
            let is_used_up = value.to_str().ok()?.trim() == "0";
            is_used_up.then(|| match kind {
                _ if kind.ends_with("-pt5m") => Duration::from_secs(3),
                _ if kind.ends_with("-pt1h") => Duration::from_secs(12),
                _ => Duration::from_secs(1),
            })
        });
        if let Some(longest) = left.max() {
            self.close(lane, longest);
        }
    }

    /// Nobody goes there for so long.
    pub(super) fn close(&self, lane: &Lane, time: Duration) {
        let Some(until) = Instant::now().checked_add(time) else { return };
        let mut windows = self.lock();
        let window = windows.entry(lane.clone()).or_default();
        window.closed = window.closed.max(Some(until));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Lane, Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A moment that is taken. It is given back if it is not used.
struct Turn<'a> {
    pace: &'a Pace,
    lane: &'a Lane,
    at: Instant,
    is_used: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        if let Some(window) = self.pace.lock().get_mut(self.lane)
            && let Some(place) = window.taken.iter().rposition(|&at| at == self.at)
        {
            window.taken.remove(place);
        }
    }
}
