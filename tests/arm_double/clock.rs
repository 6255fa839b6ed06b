//! The double's time: milliseconds since it began, plus what tests have skipped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Milliseconds since the double began.
pub(super) type Millis = u64;

pub(super) struct Clock {
    began: Instant,
    epoch: SystemTime,
    skipped: AtomicU64,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), epoch: SystemTime::now(), skipped: AtomicU64::new(0) }
    }

    pub(super) fn now(&self) -> Millis {
        millis(self.began.elapsed()) + self.skipped.load(Ordering::SeqCst)
    }

    pub(super) fn skip(&self, time: Duration) {
        self.skipped.fetch_add(millis(time), Ordering::SeqCst);
    }

    /// A moment as answers write it.
    pub(super) fn stamp(&self, at: Millis) -> String {
        let time = self.epoch + Duration::from_millis(at);
        jiff::Timestamp::try_from(time).map_or_else(|_| "0001-01-01T00:00:00Z".to_owned(), |time| format!("{time:.7}"))
    }

    /// A moment in seconds since 1970.
    pub(super) fn epoch_seconds(&self, at: Millis) -> u64 {
        let time = self.epoch + Duration::from_millis(at);
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
    }
}

pub(super) fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
