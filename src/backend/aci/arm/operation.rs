//! Long-running operations: what a call has begun, followed to its end.
//!
//! Azure tells in three ways where to look, and the agent takes the first that is there: `Azure-AsyncOperation`, a document
//! with a status; `Location`, which answers 202 until the end; else the resource itself, with its `provisioningState`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::header::LOCATION;
use hyper::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::call::{Call, Endpoint};
use super::error::{ArmError, Refusal, clean};
use super::retry::retry_after;
use super::transport::Reply;
use super::{Answer, Arm};

/// The shortest and the longest wait between two looks that no answer asks for.
const POLL: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(10));
/// The wait as a part of the time that has passed: an end is noticed late by at most so much of it.
const LATE: f64 = 0.04;
/// How many looks a second all operations, and all that look at groups, may take together.
const LOOKS: f64 = 20.0;
/// How long a resource that was made may not be seen yet.
const UNSEEN: Duration = Duration::from_secs(30);

/// What an operation is to lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    There,
    Gone,
}

/// Where its state is told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Status(Uri),
    Location(Uri),
    Resource,
}

/// An operation that goes on.
#[derive(Debug, Clone)]
pub(in crate::backend::aci) struct Pending {
    place: Place,
    goal: Goal,
    /// The path of the resource.
    resource: String,
    /// When it began, as far as is known here.
    begun: Instant,
    /// How long to wait before the first look.
    after: Option<Duration>,
}

/// What is known of a state document, or of a resource.
#[derive(Default, Deserialize)]
struct Told {
    status: Option<Value>,
    properties: Option<Properties>,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "provisioningState")]
    provisioning_state: Option<Value>,
}

impl Told {
    fn state(self) -> Option<String> {
        let state = self.status.or_else(|| self.properties?.provisioning_state)?;
        state.as_str().map(|state| clean(state, 40))
    }
}

/// A state in the service's words.
enum State {
    Succeeded,
    /// Failed, or cancelled.
    Ended(String),
    GoesOn(String),
}

impl State {
    fn of(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "succeeded" => Self::Succeeded,
            "failed" | "canceled" | "cancelled" => Self::Ended(word.to_owned()),
            _ => Self::GoesOn(word.to_owned()),
        }
    }
}

impl Pending {
    /// The operation that this answer to a change of `resource` tells of, if it goes on. `is_removal`: the resource is to go.
    pub(super) fn of(endpoint: &Endpoint, resource: &str, is_removal: bool, reply: &Reply) -> Option<Self> {
        let named = |name: &str| endpoint.own(reply.headers.get(name)?.to_str().ok()?);
        let is_accepted = reply.status == StatusCode::ACCEPTED;
        let told: Told = serde_json::from_slice(&reply.body).unwrap_or_default();
        let goes_on = || told.state().is_some_and(|word| matches!(State::of(&word), State::GoesOn(_)));
        let place = if let Some(url) = named("azure-asyncoperation") {
            Place::Status(url)
        } else if let Some(url) = named(LOCATION.as_str()) {
            Place::Location(url)
        } else if is_accepted || !is_removal && goes_on() {
            Place::Resource
        } else {
            return None;
        };
        let goal = if is_removal { Goal::Gone } else { Goal::There };
        let after = retry_after(&reply.headers);
        Some(Self { place, goal, resource: resource.to_owned(), begun: reply.at, after })
    }
}

/// How much is being looked at again and again: operations, and groups on their way.
#[derive(Debug, Default)]
pub(super) struct Followed(AtomicUsize);

/// One that looks.
pub(in crate::backend::aci) struct Following<'a>(&'a AtomicUsize);

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Followed {
    fn one(&self) -> Following<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Following(&self.0)
    }
}

/// What one look has shown.
enum Look {
    GoesOn {
        state: String,
        at: Instant,
        after: Option<Duration>,
    },
    Done,
    /// Nothing is known there any more, which happens some time after the end.
    Forgotten,
}

impl Following<'_> {
    /// The wait before the next look at something that has gone on for so long.
    pub(in crate::backend::aci) fn pause(&self, gone: Duration) -> Duration {
        pause(self.0, gone)
    }
}

fn pause(number: &AtomicUsize, gone: Duration) -> Duration {
    let number = u32::try_from(number.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
    let fair = Duration::from_secs_f64(f64::from(number) / LOOKS);
    gone.mul_f64(LATE).max(fair).clamp(POLL.0, POLL.1)
}

impl Arm {
    /// Whoever looks at something until it has ended asks here how long to wait in between: all of them share the reads.
    pub(in crate::backend::aci) fn following(&self) -> Following<'_> {
        self.shared.followed.one()
    }

    /// Waits for the end of an operation. `on_poll` sees every answer in between, and may end the waiting with an error; the
    /// operation then goes on without it. The result of the operation is for the caller to get.
    pub(in crate::backend::aci) async fn wait(
        &self,
        pending: &Pending,
        deadline: Instant,
        on_poll: &mut (dyn FnMut(&Value) -> Result<(), ArmError> + Send),
    ) -> Result<(), ArmError> {
        let following = self.following();
        let mut place = pending.place.clone();
        let mut next = pending.after.map_or(pending.begun, |after| pending.begun + after);
        let mut last = "accepted".to_owned();
        loop {
            if next > deadline {
                return Err(ArmError::Deadline { doing: format!("an operation on {} was {last}", pending.resource) });
            }
            sleep_until(next).await;
            match self.look(&mut place, pending, deadline, on_poll).await? {
                Look::Done => return Ok(()),
                Look::Forgotten => place = Place::Resource,
                Look::GoesOn { state, at, after } => {
                    let own = following.pause(at.saturating_duration_since(pending.begun));
                    next = at + after.filter(|after| !after.is_zero()).unwrap_or(own);
                    last = state;
                }
            }
        }
    }

    async fn look(
        &self,
        place: &mut Place,
        pending: &Pending,
        deadline: Instant,
        on_poll: &mut (dyn FnMut(&Value) -> Result<(), ArmError> + Send),
    ) -> Result<Look, ArmError> {
        let call = match &*place {
            Place::Status(url) | Place::Location(url) => Call::follow(url.clone(), "arm_poll"),
            Place::Resource => self.shared.endpoint.call(hyper::Method::GET, &pending.resource, &[], None)?,
        };
        let answer: Answer<Value> = match self.run(&call, deadline).await {
            Ok(answer) => answer,
            Err(ArmError::NotFound(refusal)) => {
                return match (&*place, pending.goal) {
                    (Place::Resource, Goal::There) if pending.begun.elapsed() < UNSEEN => {
                        Ok(Look::GoesOn { state: "not seen yet".to_owned(), at: Instant::now(), after: None })
                    }
                    (Place::Resource, Goal::There) => Err(ArmError::NotFound(refusal)),
                    (Place::Resource | Place::Location(_), Goal::Gone) => Ok(Look::Done),
                    _ => Ok(Look::Forgotten),
                };
            }
            Err(error) => return Err(error),
        };
        let document = answer.body.unwrap_or(Value::Null);
        on_poll(&document)?;
        // It may have moved.
        if let Place::Location(_) = place
            && let Some(next) = endpoint_named(self, &answer.reply)
        {
            *place = Place::Location(next);
        }
        verdict(place, pending.goal, &answer.reply, &document)
    }
}

/// Where an answer says that its operation is told now.
fn endpoint_named(arm: &Arm, reply: &Reply) -> Option<Uri> {
    arm.shared.endpoint.own(reply.headers.get(LOCATION)?.to_str().ok()?)
}

fn verdict(place: &Place, goal: Goal, reply: &Reply, document: &Value) -> Result<Look, ArmError> {
    let after = retry_after(&reply.headers);
    let goes_on = |state: String| Ok(Look::GoesOn { state, at: reply.at, after });
    let told = Told::deserialize(document).unwrap_or_default();
    let state = told.state().map(|word| State::of(&word));
    match (place, state) {
        (_, Some(State::Ended(word))) => {
            Err(ArmError::of(Refusal::of_operation(reply.status.as_u16(), &word, document)))
        }
        (Place::Location(_), _) if reply.status == StatusCode::ACCEPTED => goes_on("going on".to_owned()),
        (_, Some(State::GoesOn(word))) => goes_on(word),
        // It is there for as long as it can be seen.
        (Place::Resource, _) if goal == Goal::Gone => goes_on("still there".to_owned()),
        (Place::Status(_), None) => goes_on("in no state".to_owned()),
        (_, Some(State::Succeeded) | None) => Ok(Look::Done),
    }
}
