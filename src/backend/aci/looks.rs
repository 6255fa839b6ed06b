//! Looking at a group again and again until it is as it should be: how long to wait in between, and for how long in all.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::arm::{Arm, Following};
use crate::backend::BackendError;

/// One that looks at a group. All that look, at groups or at operations, share the reads of the subscription.
pub(super) struct Looks<'a> {
    following: Following<'a>,
    begun: Instant,
    deadline: Instant,
}

impl<'a> Looks<'a> {
    pub(super) fn begin(arm: &'a Arm, deadline: Instant) -> Self {
        Self { following: arm.following(), begun: Instant::now(), deadline }
    }

    /// The wait before the next look: a small part of the time that has passed.
    pub(super) fn pause(&self) -> Duration {
        self.following.pause(self.begun.elapsed())
    }

    /// Waits for the next look.
    pub(super) async fn rest(&self, doing: &str) -> Result<(), BackendError> {
        self.rest_for(self.pause(), doing).await
    }

    /// Waits so long; not at all if the time would be over by then.
    pub(super) async fn rest_for(&self, pause: Duration, doing: &str) -> Result<(), BackendError> {
        let next = Instant::now() + pause;
        if next > self.deadline {
            return Err(BackendError::DeadlineExceeded { step: doing.to_owned(), details: None });
        }
        sleep_until(next).await;
        Ok(())
    }
}
