//! What is tried again, after how long, and for how long.
//!
//! Every call may be repeated: a `PUT` whose answer was lost is simply sent again. What the server says about when to come
//! back is a lower bound; otherwise the wait is anything up to a ceiling that doubles. A wait that would pass the deadline
//! is not begun: the call ends at once with what stood in its way.

use std::time::Duration;

use backon::{Backoff, BackoffBuilder as _, ExponentialBuilder};
use hyper::HeaderMap;
use hyper::header::{DATE, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use tokio::time::Instant;

use super::error::ArmError;

/// The first ceiling.
const FIRST: Duration = Duration::from_millis(500);
/// The highest ceiling.
const HIGHEST: Duration = Duration::from_secs(20);
/// The shortest wait.
const SHORTEST: Duration = Duration::from_millis(50);
/// How long a server that does not work is asked again. One that names a time, or that is only busy with something, is
/// believed for as long as there is time.
const PATIENCE: Duration = Duration::from_secs(120);

/// The longest wait that is believed; more than any deadline.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: ArmError,
    /// How long to wait at least before the next one, if the server said so.
    pub(super) after: Option<Duration>,
}

impl From<ArmError> for Failed {
    fn from(error: ArmError) -> Self {
        Self { error, after: None }
    }
}

impl Failed {
    /// Whether the same call may succeed a little later.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self.error,
            ArmError::Throttled(_)
                | ArmError::Transitioning(_)
                | ArmError::ShareBeingDeleted(_)
                | ArmError::RegistryError(_)
                | ArmError::Unavailable { .. }
        )
    }

    /// The wait before the next attempt of a call that was begun then; none when there will be no next attempt.
    pub(super) fn wait(&self, drawn: Option<Duration>, begun: Instant, deadline: Instant) -> Option<Duration> {
        let drawn = drawn.unwrap_or(HIGHEST);
        // The server's word, and a little more, so that not all who were told the same come back at the same moment.
        let named = self.after.filter(|after| !after.is_zero());
        let wait = named.map_or(drawn, |after| after + drawn.min(after / 10).min(Duration::from_secs(1))).max(SHORTEST);
        let next = Instant::now().checked_add(wait)?;
        let is_down = matches!(self.error, ArmError::Unavailable { .. } | ArmError::RegistryError(_));
        (next < deadline && !(is_down && next > begun + PATIENCE)).then_some(wait)
    }
}

/// Waits without end: each anything up to its ceiling ("full jitter").
pub(super) fn waits() -> impl Backoff {
    let ceilings = ExponentialBuilder::new().with_min_delay(FIRST).with_max_delay(HIGHEST).without_max_times().build();
    ceilings.map(|ceiling| ceiling.mul_f64(share()))
}

/// A random number from 0 to 1.
fn share() -> f64 {
    // Without a random source half of the ceiling is as good as any.
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

/// What an answer says about when to come back.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let milliseconds = text("retry-after-ms").or_else(|| text("x-ms-retry-after-ms"));
    if let Some(milliseconds) = milliseconds.and_then(|text| text.parse().ok()) {
        return Some(Duration::from_millis(milliseconds).min(LONGEST));
    }
    let after = text(RETRY_AFTER.as_str())?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    // A date (RFC 9110, 10.2.3), which means the server's clock and not the one here.
    let now = text(DATE.as_str()).and_then(date).unwrap_or_else(Timestamp::now);
    let wait = Duration::try_from(date(after)?.duration_since(now)).unwrap_or_default();
    Some(wait.min(LONGEST))
}

fn date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}
