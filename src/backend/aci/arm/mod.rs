//! Azure Resource Manager: calls under a deadline, with tokens, retries, long-running operations, pages and write limits.
//!
//! What it is asked for is the caller's: bodies are any types that serde knows. A call is
//!
//! ```text
//!  call.rs       a URL below the endpoint, with the version of its API
//!    retry.rs      again, until it works, is refused, or there is no time left
//!      token.rs      with a token; refused with 401, once more with a fresh one
//!        pace.rs       when its turn has come
//!          transport.rs  one request, one answer
//! ```
//!
//! and what it has begun is followed by `operation.rs`. `error.rs` says what an answer that is no success means.

mod call;
mod error;
mod operation;
mod pace;
mod retry;
mod socket;
mod source;
#[cfg(test)]
mod tests;
mod token;
mod transport;

pub(super) use error::{ArmError, Refusal};
pub(super) use operation::{Following, Pending};

use std::sync::Arc;

use backon::Retryable as _;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use tokio::time::Instant;

use self::call::{Call, Endpoint, LONGEST_ATTEMPT};
use self::operation::Followed;
use self::pace::{Lane, Pace};
use self::retry::{Failed, retry_after, waits};
use self::source::Source;
use self::token::{Token, Tokens};
use self::transport::{Broken, Http, Reply};
use crate::config::AciSettings;
use crate::telemetry::Metrics;

/// The most pages of a list. A page has at least some hundred groups.
const MOST_PAGES: usize = 1000;

/// A subscription's Azure Resource Manager. Cheap to clone.
#[derive(Clone)]
pub(super) struct Arm {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    http: Http,
    tokens: Tokens,
    pace: Pace,
    followed: Followed,
    metrics: Option<Arc<Metrics>>,
}

/// What was answered to a change that was accepted.
#[derive(Debug)]
pub(super) struct Accepted<T> {
    /// The HTTP status.
    pub(super) status: u16,
    /// The answer, if it has one: the resource, or what was asked for.
    pub(super) body: Option<T>,
    /// What goes on, if something does.
    pub(super) pending: Option<Pending>,
    /// The resource was there before.
    pub(super) existed: bool,
}

/// A page of a list.
#[derive(Deserialize)]
struct Page<T> {
    #[serde(default = "Vec::new")]
    value: Vec<T>,
    #[serde(rename = "nextLink")]
    next_link: Option<String>,
}

/// A success.
struct Answer<T> {
    reply: Reply,
    body: Option<T>,
}

impl std::fmt::Debug for Arm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arm").field("endpoint", &self.shared.endpoint).finish_non_exhaustive()
    }
}

impl Arm {
    /// Nothing is sent yet.
    pub(super) fn new(settings: &AciSettings, metrics: Option<Arc<Metrics>>) -> Self {
        Self::over(Http::new(), settings, metrics)
    }

    fn over(http: Http, settings: &AciSettings, metrics: Option<Arc<Metrics>>) -> Self {
        let regions = settings.regions.iter();
        let regions = regions.map(|region| (region.resource_group.to_ascii_lowercase(), region.location.clone()));
        let endpoint = Endpoint::new(&settings.arm_endpoint, &settings.api_version, regions.collect());
        let source = Source::new(settings.credentials.clone(), endpoint.audience());
        let tokens = Tokens::new(source, http.clone());
        let shared = Shared { endpoint, http, tokens, pace: Pace::new(), followed: Followed::default(), metrics };
        Self { shared: Arc::new(shared) }
    }

    /// Reads a resource; none when it is not there. A missing resource group is an error, because nobody removes it.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        deadline: Instant,
    ) -> Result<Option<T>, ArmError> {
        let call = self.shared.endpoint.call(Method::GET, path, query, None)?;
        match self.run(&call, deadline).await {
            Ok(answer) => needed(answer.body).map(Some),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that something is there that has no more to say, such as a resource group.
    pub(super) async fn head(&self, path: &str, deadline: Instant) -> Result<(), ArmError> {
        let call = self.shared.endpoint.call(Method::HEAD, path, &[], None)?;
        self.run::<IgnoredAny>(&call, deadline).await.map(drop)
    }

    /// Reads a whole list. One that cannot be read to its end is an error: whoever asks may act on what is not in it.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        deadline: Instant,
    ) -> Result<Vec<T>, ArmError> {
        let mut call = self.shared.endpoint.call(Method::GET, path, query, None)?;
        let mut all = Vec::new();
        for _ in 0..MOST_PAGES {
            let page: Page<T> = needed(self.run(&call, deadline).await?.body)?;
            all.extend(page.value);
            let Some(next) = page.next_link.filter(|next| !next.is_empty()) else { return Ok(all) };
            let next = self.shared.endpoint.own(&next);
            let next = next.ok_or_else(|| unreadable("the next page of a list is somewhere else"))?;
            call = Call::follow(next, "arm_get");
        }
        Err(unreadable("a list does not end"))
    }

    /// Makes a resource, or brings it to this state.
    pub(super) async fn put<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        deadline: Instant,
    ) -> Result<Accepted<T>, ArmError> {
        self.change(Method::PUT, path, Some(encode(body)?), deadline).await
    }

    /// Changes a part of a resource.
    pub(super) async fn patch<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        deadline: Instant,
    ) -> Result<Accepted<T>, ArmError> {
        self.change(Method::PATCH, path, Some(encode(body)?), deadline).await
    }

    /// Does something with a resource. `T` is [`IgnoredAny`] when there is nothing to be read.
    pub(super) async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&B>,
        deadline: Instant,
    ) -> Result<Accepted<T>, ArmError> {
        self.change(Method::POST, path, body.map(encode).transpose()?, deadline).await
    }

    /// Removes a resource. One that was not there is no error.
    pub(super) async fn delete(&self, path: &str, deadline: Instant) -> Result<Accepted<()>, ArmError> {
        match self.change::<IgnoredAny>(Method::DELETE, path, None, deadline).await {
            Ok(Accepted { status, pending, existed, .. }) => Ok(Accepted { status, body: None, pending, existed }),
            Err(error) if is_absence(&error) => Ok(Accepted { status: 404, body: None, pending: None, existed: false }),
            Err(error) => Err(error),
        }
    }

    /// Whether a token can be had; for health.
    pub(super) async fn token_works(&self, deadline: Instant) -> Result<(), ArmError> {
        self.shared.tokens.get(deadline).await.map(drop)
    }

    async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        deadline: Instant,
    ) -> Result<Accepted<T>, ArmError> {
        let call = self.shared.endpoint.call(method, path, &[], body)?;
        let Answer { reply, body } = self.run(&call, deadline).await?;
        let is_removal = call.method == Method::DELETE;
        let resource = resource_of(&call.method, path);
        let pending = Pending::of(&self.shared.endpoint, resource, is_removal, &reply);
        let existed = match call.method {
            Method::PUT => reply.status != StatusCode::CREATED,
            Method::DELETE => reply.status != StatusCode::NO_CONTENT,
            _ => true,
        };
        // There is nothing left to be waited for.
        let pending = pending.filter(|_| !is_removal || existed);
        Ok(Accepted { status: reply.status.as_u16(), body, pending, existed })
    }

    /// Makes a call until it succeeds, is refused, or would go on for too long.
    async fn run<T: DeserializeOwned>(&self, call: &Call, deadline: Instant) -> Result<Answer<T>, ArmError> {
        let begun = Instant::now();
        let calling = (|| self.attempt(call, deadline))
            .retry(waits())
            .when(Failed::is_passing)
            .adjust(|failed: &Failed, wait| failed.wait(wait, begun, deadline))
            .notify(|failed: &Failed, wait| {
                tracing::debug!(call = call.what(), error = %failed.error, ?wait, "calling again");
            });
        // On the heap: everything that makes calls would be as large as several of them.
        Box::pin(calling).await.map_err(|failed| failed.error)
    }

    /// Makes a call once; once more if the token was refused.
    async fn attempt<T: DeserializeOwned>(&self, call: &Call, deadline: Instant) -> Result<Answer<T>, Failed> {
        // Without a token nobody's turn is used up.
        self.shared.tokens.get(deadline).await?;
        let (mut reply, token) = self.send(call, deadline).await?;
        if reply.status == StatusCode::UNAUTHORIZED {
            self.shared.tokens.refused(&token);
            self.shared.tokens.get(deadline).await?;
            (reply, _) = self.send(call, deadline).await?;
        }
        if !reply.status.is_success() {
            return Err(self.failure(call, &reply));
        }
        let body = body(&reply)?;
        Ok(Answer { reply, body })
    }

    /// One request and its answer, when its turn has come.
    async fn send(&self, call: &Call, deadline: Instant) -> Result<(Reply, Token), Failed> {
        let going = self.shared.pace.enter(&call.lane, deadline).await?;
        // The turn may have been long in coming.
        let token = self.shared.tokens.get(deadline).await?;
        let begun = Instant::now();
        let limit = deadline.saturating_duration_since(begun).min(LONGEST_ATTEMPT);
        let sent = self.shared.http.exchange(call.request(token.header.clone()), limit).await;
        let is_counted = match &sent {
            Ok(reply) => !matches!(reply.status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS),
            Err(error) => !matches!(error, Broken::Unconnected(_)),
        };
        if is_counted {
            drop(going);
        } else {
            going.give_back();
        }
        let sent = sent.map_err(|error| match error {
            Broken::TimedOut if limit < LONGEST_ATTEMPT => ArmError::Deadline { doing: call.what() },
            Broken::TooLong => unreadable(&Broken::TooLong.to_string()),
            error => ArmError::Unavailable { message: error.to_string() },
        });
        if let Ok(reply) = &sent {
            self.shared.pace.learn(&call.lane, &reply.headers);
        }
        if let Some(metrics) = &self.shared.metrics {
            let failure = match &sent {
                Ok(reply) if reply.status.is_success() => None,
                Ok(reply) => Some(ArmError::of(Refusal::read(reply.status.as_u16(), &reply.body)).reason()),
                Err(error) => Some(error.reason()),
            };
            metrics.engine_call(call.name, failure, begun.elapsed());
        }
        Ok((sent?, token))
    }

    fn failure(&self, call: &Call, reply: &Reply) -> Failed {
        let refusal = Refusal::read(reply.status.as_u16(), &reply.body);
        let after = retry_after(&reply.headers);
        let error = ArmError::of(refusal);
        if let (ArmError::Throttled(_), Some(after), Lane::Create(_) | Lane::Delete(_)) = (&error, after, &call.lane) {
            self.shared.pace.close(&call.lane, after);
        }
        Failed { error, after }
    }
}

/// Whether it says that the resource itself is not there. A missing resource group or subscription is something else, and
/// so is a 404 without a code, which comes from a proxy or a front door.
fn is_absence(error: &ArmError) -> bool {
    let ArmError::NotFound(refusal) = error else { return false };
    let code = refusal.code.as_str();
    let is_around = matches!(code, "ResourceGroupNotFound" | "SubscriptionNotFound" | "ParentResourceNotFound");
    code.ends_with("NotFound") && !is_around
}

/// The resource that a call changes: an action's last part is not of its path.
fn resource_of<'a>(method: &Method, path: &'a str) -> &'a str {
    if *method == Method::POST { path.rsplit_once('/').map_or(path, |(resource, _)| resource) } else { path }
}

/// Reads an answer's body. Accepted work has none of its own.
fn body<T: DeserializeOwned>(reply: &Reply) -> Result<Option<T>, Failed> {
    if reply.body.is_empty() || reply.status == StatusCode::NO_CONTENT {
        return Ok(None);
    }
    match serde_json::from_slice(&reply.body) {
        Ok(body) => Ok(Some(body)),
        Err(_) if reply.status == StatusCode::ACCEPTED => Ok(None),
        // The parser's own words may repeat what is there, such as a key.
        Err(error) if error.classify() == Category::Data => {
            let (line, column) = (error.line(), error.column());
            Err(unreadable(&format!("unexpected contents at {line}:{column}")).into())
        }
        Err(_) => Err(ArmError::Unavailable { message: "an answer broke off, or is not JSON".to_owned() }.into()),
    }
}

fn needed<T>(body: Option<T>) -> Result<T, ArmError> {
    body.ok_or_else(|| unreadable("it is empty"))
}

fn encode<B: Serialize + Sync>(body: &B) -> Result<Bytes, ArmError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|_| unreadable("the request has no JSON form"))
}

fn unreadable(message: &str) -> ArmError {
    ArmError::Unreadable { message: message.to_owned() }
}
