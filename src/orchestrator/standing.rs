//! How it stands with a backend: as of when what is known of its tenants is true, and how late its news comes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::domain::Subdomain;

/// How it stands with one backend.
pub(super) struct Link {
    pub(super) standing: watch::Sender<Standing>,
    /// Somebody wants to know now: no pause before the next attempt.
    pub(super) wanted: Notify,
    /// What is known as of so long ago counts as known now.
    pub(super) fresh_for: Duration,
    /// Held while a tenant is looked at again of which something is in doubt.
    pub(super) looking: Arc<tokio::sync::Mutex<()>>,
}

impl Link {
    pub(super) fn new(fresh_for: Duration) -> Self {
        let standing = watch::Sender::new(Standing::default());
        Self { standing, wanted: Notify::new(), fresh_for, looking: Arc::default() }
    }
}

/// How long a lag is told of.
const RECENT: Duration = Duration::from_secs(60);

/// As of when the mirror is true.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// None while the backend is not being watched.
    pub(super) in_step: Option<Instant>,
    /// Tenants of whom something has changed since an earlier moment that is not known yet.
    behind: HashMap<Subdomain, Instant>,
    /// Attempts to watch that have failed so far.
    pub(super) failures: u64,
    /// When the backend was last found away: what was known before then counts no more.
    doubted: Option<Instant>,
    /// When all was last known.
    pub(super) last_in_step: Option<Instant>,
    /// When news came last that tells its own time, and how late it was.
    late: Option<(Instant, Duration)>,
}

impl Standing {
    /// All was as it was known to be at this moment, but for those that are behind.
    pub(super) fn step(&mut self, in_step: Instant, behind: HashMap<Subdomain, Instant>) {
        if self.doubted.is_none_or(|doubted| in_step > doubted) {
            (self.in_step, self.behind) = (Some(in_step), behind);
            self.last_in_step = self.in_step;
        }
    }

    /// As of when what is held of a tenant is true that was looked at as a whole at this moment; none when nobody knows.
    pub(super) fn as_of(&self, tenant: &Subdomain, looked: Option<Instant>) -> Option<Instant> {
        // Nothing of a tenant is known before all of it was looked at once.
        let in_step = self
            .in_step
            .filter(|_| looked.is_some())
            .map(|in_step| self.behind.get(tenant).map_or(in_step, |since| in_step.min(*since)));
        let looked = looked.filter(|at| self.doubted.is_none_or(|doubted| *at > doubted));
        in_step.max(looked)
    }

    /// News has come, so long after it happened.
    pub(super) fn heard(&mut self, lag: Duration) {
        self.late = Some((Instant::now(), lag));
    }

    /// How late news is: that of the last minute, and what has not been looked at yet.
    pub(super) fn lag(&self) -> Duration {
        let told = self.late.filter(|(at, _)| at.elapsed() < RECENT).map(|(_, lag)| lag);
        let waiting = self.behind.values().min().map(Instant::elapsed);
        told.max(waiting).unwrap_or_default()
    }

    /// Somebody has found the backend away. If it is not, the watch says so within a second.
    pub(super) fn doubt(&mut self) {
        (self.in_step, self.doubted) = (None, Some(Instant::now()));
    }

    /// An attempt to watch has failed, or a watch has ended.
    pub(super) fn fail(&mut self) {
        let (doubted, last_in_step) = (Some(Instant::now()), self.last_in_step);
        *self = Self { failures: self.failures + 1, doubted, last_in_step, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn behind(since: Instant) -> HashMap<Subdomain, Instant> {
        HashMap::from([(Subdomain::parse("acme").unwrap(), since)])
    }

    #[tokio::test(start_paused = true)]
    async fn late_news_is_told_of_for_a_minute() {
        let mut standing = Standing::default();
        assert_eq!(standing.lag(), Duration::ZERO);
        standing.heard(3 * SECOND);
        assert_eq!(standing.lag(), 3 * SECOND);
        standing.heard(SECOND);
        assert_eq!(standing.lag(), SECOND, "the newest");
        tokio::time::advance(RECENT).await;
        assert_eq!(standing.lag(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_to_be_looked_at_is_late_by_now() {
        let (mut standing, since) = (Standing::default(), Instant::now());
        standing.heard(2 * SECOND);
        standing.step(since, behind(since));
        tokio::time::advance(SECOND).await;
        assert_eq!(standing.lag(), 2 * SECOND, "the longer of both");
        tokio::time::advance(4 * SECOND).await;
        assert_eq!(standing.lag(), 5 * SECOND);
        standing.step(Instant::now(), HashMap::new());
        assert_eq!(standing.lag(), 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_is_as_old_as_what_was_seen_of_it() {
        let (acme, other) = (Subdomain::parse("acme").unwrap(), Subdomain::parse("other").unwrap());
        let (mut standing, first) = (Standing::default(), Instant::now());
        assert_eq!(standing.as_of(&acme, None), None);
        assert_eq!(standing.as_of(&acme, Some(first)), Some(first), "it was looked at, whatever the watch says");
        tokio::time::advance(SECOND).await;
        let changed = Instant::now();
        tokio::time::advance(SECOND).await;
        let now = Instant::now();
        standing.step(now, behind(changed));
        assert_eq!(standing.as_of(&acme, None), None, "all was seen, but this one never as a whole");
        assert_eq!(standing.as_of(&acme, Some(first)), Some(changed), "what has changed since is not known");
        assert_eq!(standing.as_of(&acme, Some(now)), Some(now));
        assert_eq!(standing.as_of(&other, Some(first)), Some(now));
        tokio::time::advance(SECOND).await;
        standing.doubt();
        assert_eq!(standing.as_of(&other, Some(now)), None);
        tokio::time::advance(SECOND).await;
        assert_eq!(standing.as_of(&other, Some(Instant::now())), Some(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_known_before_a_doubt_counts_no_more_but_its_age_is_told() {
        let (mut standing, first) = (Standing::default(), Instant::now());
        standing.step(first, HashMap::new());
        tokio::time::advance(SECOND).await;
        standing.doubt();
        assert_eq!((standing.in_step, standing.last_in_step), (None, Some(first)));
        standing.step(first, HashMap::new());
        assert_eq!(standing.in_step, None, "that is older than the doubt");
        standing.fail();
        assert_eq!((standing.failures, standing.in_step, standing.last_in_step), (1, None, Some(first)));
        tokio::time::advance(SECOND).await;
        let now = Instant::now();
        standing.step(now, HashMap::new());
        assert_eq!((standing.in_step, standing.last_in_step), (Some(now), Some(now)));
    }
}
