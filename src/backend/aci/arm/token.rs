//! The token that every call bears: kept until shortly before its end, then had anew, by one question however many wait.
//!
//! ```text
//!  none ──ask──▶ good ──5 min before its end──▶ good, a new one is being asked for ──▶ good
//!   ▲             │                                   │ that fails: asked again later
//!   └──refused────┴───────────── its end ─────────────┘
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::Retryable as _;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use hyper::header::HeaderValue;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::error::ArmError;
use super::retry::{Failed, waits};
use super::source::Source;
use super::transport::Http;

/// How long before its end a token is replaced.
const EARLY: Duration = Duration::from_secs(300);
/// A token is used at least so long, or for half of its life, before another is asked for.
const LEAST: Duration = Duration::from_secs(10);
/// How long after a renewal that failed the next one comes.
const AGAIN: Duration = Duration::from_secs(30);
/// How long whoever gives tokens is asked before those who wait are told that there is none.
const LIFE: Duration = Duration::from_secs(75);

/// A token.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// The whole header. It is marked as sensitive, so that nothing prints it.
    pub(super) header: HeaderValue,
    /// Tells it from those before it.
    number: u64,
    renew: Instant,
    ends: Instant,
}

type Outcome = Result<Token, ArmError>;
/// A question that goes on, whoever waits for it.
type Flight = (AbortHandle, Shared<BoxFuture<'static, Outcome>>);

#[derive(Default)]
struct State {
    token: Option<Token>,
    flight: Option<Flight>,
    /// How many tokens there have been.
    count: u64,
    /// Why there is none yet.
    trouble: Option<ArmError>,
}

/// Gives tokens to any number of callers.
pub(super) struct Tokens {
    shared: Arc<SharedState>,
}

struct SharedState {
    source: Source,
    http: Http,
    state: Mutex<State>,
}

impl Tokens {
    pub(super) fn new(source: Source, http: Http) -> Self {
        Self { shared: Arc::new(SharedState { source, http, state: Mutex::default() }) }
    }

    /// A token that is good now.
    pub(super) async fn get(&self, deadline: Instant) -> Outcome {
        let (_, outcome) = {
            let mut state = self.shared.lock();
            let now = Instant::now();
            match state.token.clone().filter(|token| now < token.ends) {
                None => self.shared.flight(&mut state),
                Some(token) => {
                    if now >= token.renew {
                        // It comes without anybody waiting for it.
                        drop(self.shared.flight(&mut state));
                    }
                    return Ok(token);
                }
            }
        };
        match timeout_at(deadline, outcome).await {
            Ok(outcome) => outcome,
            Err(_) => Err(match self.shared.lock().trouble.clone() {
                Some(trouble) => trouble,
                None => ArmError::Deadline { doing: "waiting for a token".to_owned() },
            }),
        }
    }

    /// This token was not taken. Others that have come since are kept.
    pub(super) fn refused(&self, token: &Token) {
        let mut state = self.shared.lock();
        if state.token.as_ref().is_some_and(|current| current.number == token.number) {
            state.token = None;
        }
    }
}

impl SharedState {
    /// The question that goes on, or a new one.
    fn flight(self: &Arc<Self>, state: &mut State) -> Flight {
        if let Some(flight) = &state.flight
            && !flight.0.is_finished()
        {
            return flight.clone();
        }
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.renew().await });
        let handle = task.abort_handle();
        let outcome = task.map(|ended| {
            let broken = |_| ArmError::Unavailable { message: "asking for a token ended abnormally".to_owned() };
            ended.map_err(broken).flatten()
        });
        let outcome = outcome.boxed().shared();
        let flight = (handle, outcome);
        state.flight = Some(flight.clone());
        flight
    }

    async fn renew(&self) -> Outcome {
        let (begun, deadline) = (Instant::now(), Instant::now() + LIFE);
        let asked = (|| self.source.ask(&self.http))
            .retry(waits())
            .when(Failed::is_passing)
            .adjust(|failed: &Failed, wait| failed.wait(wait, begun, deadline))
            .notify(|failed: &Failed, wait| {
                tracing::debug!(error = %failed.error, ?wait, "asking for a token again");
                self.lock().trouble = Some(failed.error.clone());
            })
            .await;
        let mut state = self.lock();
        (state.flight, state.trouble) = (None, None);
        match asked {
            Ok(granted) => {
                state.count += 1;
                let now = Instant::now();
                let used = granted.good_for.saturating_sub(EARLY).max(LEAST.min(granted.good_for / 2));
                let (renew, ends) = (now + used, now + granted.good_for);
                let token = Token { header: granted.token, number: state.count, renew, ends };
                state.token = Some(token.clone());
                Ok(token)
            }
            Err(failed) => {
                tracing::warn!(error = %failed.error, "no token");
                if let Some(token) = &mut state.token {
                    token.renew = Instant::now() + AGAIN;
                }
                Err(failed.error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
