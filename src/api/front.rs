//! What every request passes, in this order: form, request id, token, route, endpoint; and on the way out the log entry.
//!
//! The token is checked before the route, so that without one nothing can be learnt about paths, and before the body.

use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
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

    /// Does what is asked. May panic: that becomes a 500.
    fn call(&self, route: Route, call: Call) -> impl Future<Output = Result<Answer, ApiError>> + Send;
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
    pub(super) async fn serve(
        &self,
        request: Request<Incoming>,
        refusal: Option<Refusal>,
        peer: IpAddr,
        exchange: Arc<Exchange>,
    ) -> Response<Logged> {
        let request_id = RequestId::of(request.headers());
        let mut entry =
            Entry::new(request.method().clone(), peer, request_id.clone(), exchange, Arc::clone(&self.metrics));
        // A panic leaves at most the entry's route unset; the endpoints guard their own state.
        // The span lets every event of this request, a panic's too, be found under its id.
        let span = tracing::info_span!("request", request_id = request_id.as_str());
        let answering = self.answer(request, refusal, &request_id, &mut entry).instrument(span);
        let answered = AssertUnwindSafe(answering).catch_unwind().await;
        let result = answered.unwrap_or_else(|_| Err(ApiError::internal()));
        let mut answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                entry.code = Some(error.code);
                error.answer(&request_id)
            }
        };
        answer.headers_mut().insert(X_REQUEST_ID, request_id.header());
        let status = answer.status();
        answer.map(|body| Logged::new(body, entry, status))
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        refusal: Option<Refusal>,
        request_id: &RequestId,
        entry: &mut Entry,
    ) -> Result<Answer, ApiError> {
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
        let call = Call { query, headers: head.headers, body, request_id: request_id.clone() };
        self.endpoints.call(route, call).await
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

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;
    use crate::api::handlers::Handlers;

    /// hyper moves the future of each request; those of all routes together in it made each answer slower.
    #[test]
    fn the_future_of_a_request_is_small() {
        fn sizes<'a, A: Future, B: Future>(
            _: impl Fn(&'a Handlers, Route, Call) -> A,
            _: impl Fn(&'a Front<Handlers>, Request<Incoming>, IpAddr, Arc<Exchange>) -> B,
        ) -> (usize, usize) {
            (size_of::<A>(), size_of::<B>())
        }
        let (call, serve) =
            sizes(Handlers::call, |front, request, peer, exchange| front.serve(request, None, peer, exchange));
        assert!(call < 2048 && serve < 4096, "{call} and {serve} bytes");
    }
}
