//! What every request passes, in this order: form, request id, token, route, endpoint; and on the way out the log entry.
//!
//! The token is checked before the route, so that without one nothing can be learnt about paths, and before the body.

use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, Ready, ready};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use tracing::Instrument as _;

use super::access_log::{Entry, Logged, RequestId};
use super::auth::{self, LiveTokens};
use super::error::ApiError;
use super::peers::{FailedLogins, Peer};
use super::respond::{Answer, X_REQUEST_ID};
use super::router::{self, Route};
use super::wire::{Exchange, Refusal};
use crate::domain::ErrorCode;
use crate::telemetry::Metrics;

/// A request that has been let in.
pub(super) struct Call {
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Incoming,
    pub(super) request_id: RequestId,
}

/// What answers the routes.
pub(super) trait Endpoints: Send + Sync + 'static {
    /// Whether nobody at this address is listened to.
    fn turns_away(&self, _peer: IpAddr) -> bool {
        false
    }

    /// The answer, if it is in memory and nothing has to be waited for. May panic: that becomes a 500.
    fn at_once(&self, _route: &Route, _call: &Call) -> Option<Answer> {
        None
    }

    /// Does what is asked. May panic: that becomes a 500.
    fn call(&self, route: Route, call: Call) -> impl Future<Output = Result<Answer, ApiError>> + Send;
}

/// An answer that is there, or is waited for.
pub(super) type Serving = Either<Ready<Response<Logged>>, BoxFuture<'static, Response<Logged>>>;

/// How far a request has come without waiting.
enum Begun {
    Answered(Answer),
    Waits(Route, Call),
}

/// See the module.
pub(super) struct Front<E> {
    tokens: LiveTokens,
    failed_logins: FailedLogins,
    endpoints: E,
    metrics: Arc<Metrics>,
}

impl<E: Endpoints> Front<E> {
    pub(super) fn new(tokens: LiveTokens, endpoints: E) -> Self {
        Self { tokens, failed_logins: FailedLogins::default(), endpoints, metrics: Arc::default() }
    }

    /// Counts requests and connections there.
    #[must_use]
    pub(super) fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Where requests and connections are counted.
    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether a connection from this address is closed unread.
    pub(super) fn turns_away(&self, peer: IpAddr) -> bool {
        self.endpoints.turns_away(peer)
    }

    /// Answers one request, whatever it is. One with a `refusal` stands for a message that could not be taken.
    ///
    /// What is in memory is answered at once: a future that is made, moved and polled costs more than such an answer.
    pub(super) fn serve(
        self: &Arc<Self>,
        request: Request<Incoming>,
        refusal: Option<Refusal>,
        peer: IpAddr,
        exchange: Arc<Exchange>,
    ) -> Serving {
        let request_id = RequestId::of(request.headers());
        let mut entry =
            Entry::new(request.method().clone(), peer, request_id.clone(), exchange, Arc::clone(&self.metrics));
        // A panic leaves at most the entry's route unset; the endpoints guard their own state.
        let begun = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let (route, call) = self.admit(request, refusal, &request_id, &mut entry)?;
            Ok(match self.endpoints.at_once(&route, &call) {
                Some(answer) => Begun::Answered(answer),
                None => Begun::Waits(route, call),
            })
        }));
        let begun = begun.unwrap_or_else(|_| {
            // What went wrong is in the log by now, but not whose request it was.
            tracing::error!(request_id = request_id.as_str(), "a request ended in a panic");
            Err(ApiError::internal())
        });
        match begun {
            Ok(Begun::Answered(answer)) => Either::Left(ready(finish(Ok(answer), &request_id, entry))),
            Err(error) => Either::Left(ready(finish(Err(error), &request_id, entry))),
            Ok(Begun::Waits(route, call)) => {
                let front = Arc::clone(self);
                let waiting = async move {
                    // The span lets every event of this request, a panic's too, be found under its id.
                    let span = tracing::info_span!("request", request_id = request_id.as_str());
                    let answering = front.endpoints.call(route, call).instrument(span);
                    let answered = AssertUnwindSafe(answering).catch_unwind().await;
                    let result = answered.unwrap_or_else(|_| Err(ApiError::internal()));
                    finish(result, &request_id, entry)
                };
                Either::Right(waiting.boxed())
            }
        }
    }

    /// Lets a request in, as far as that needs nothing but its head.
    fn admit(
        &self,
        request: Request<Incoming>,
        refusal: Option<Refusal>,
        request_id: &RequestId,
        entry: &mut Entry,
    ) -> Result<(Route, Call), ApiError> {
        if let Some(refusal) = refusal {
            return Err(refusal.into());
        }
        if !auth::is_probe(&request) {
            let checked = auth::check(&self.tokens, request.method(), request.headers());
            checked.map_err(|error| self.failed_login(error, entry.peer()))?;
        }
        let route = router::find(request.method(), request.uri().path())?;
        entry.route = route.template();
        let (head, body) = request.into_parts();
        let query = head.uri.query().map(str::to_owned);
        Ok((route, Call { query, headers: head.headers, body, request_id: request_id.clone() }))
    }

    /// A refused login, or, when its peer has had too many of them, only the advice to wait.
    fn failed_login(&self, error: ApiError, peer: IpAddr) -> ApiError {
        if error.code != ErrorCode::Unauthorized {
            return error;
        }
        self.metrics.login_failed();
        match self.failed_logins.count(Peer::of(peer)) {
            Ok(()) => error,
            Err(wait) => ApiError::new(ErrorCode::RateLimited, "too many failed logins from this address")
                .hanging_up()
                .retry_after(wait),
        }
    }
}

fn finish(result: Result<Answer, ApiError>, request_id: &RequestId, mut entry: Entry) -> Response<Logged> {
    let mut answer = match result {
        Ok(answer) => answer,
        Err(error) => {
            entry.code = Some(error.code);
            error.answer(request_id)
        }
    };
    answer.headers_mut().insert(X_REQUEST_ID, request_id.header());
    let status = answer.status();
    answer.map(|body| Logged::new(body, entry, status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::handlers::Handlers;

    /// hyper moves the future of each request; those of all routes together in it made each answer slower.
    #[test]
    fn the_future_of_a_request_is_small() {
        fn size<'a, F: Future>(_: impl Fn(&'a Handlers, Route, Call) -> F) -> usize {
            size_of::<F>()
        }
        let (call, serving) = (size(Handlers::call), size_of::<Serving>());
        assert!(call < 2048 && serving < 512, "{call} and {serving} bytes");
    }
}
