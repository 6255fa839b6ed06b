//! One log event per request, written when its answer has been sent or given up.
//!
//! The event never holds what a client wrote freely: no path, no query, no header, no body. The route is the template.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use super::respond::{Body, X_REQUEST_ID};
use super::wire::Exchange;
use crate::domain::ErrorCode;
use crate::telemetry::Metrics;

/// Names one request in answers and in the log.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    /// The client's id if it sent exactly one good one, else a new one (UUID version 7).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(X_REQUEST_ID).iter();
        let id = match (given.next(), given.next()) {
            (Some(id), None) => id.to_str().ok().and_then(Self::parse),
            _ => None,
        };
        id.unwrap_or_else(Self::new)
    }

    /// A UUID of version 7 whose random part is the run's own followed by a count (RFC 9562, 6.2): nobody else has it, and
    /// the kernel is not asked for random bytes with each request.
    fn new() -> Self {
        static RUN: LazyLock<[u8; 16]> = LazyLock::new(|| uuid::Uuid::new_v4().into_bytes());
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut random = [0; 10];
        let (run, count) = random.split_at_mut(5);
        run.copy_from_slice(&RUN[..5]);
        count.copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes()[3..]);
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        Self((&*id.as_hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer())).into())
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        ((1..=64).contains(&text.len()) && text.bytes().all(good)).then(|| Self(text.into()))
    }

    /// In the place of a request that nobody knows.
    pub(super) fn nobody() -> Self {
        Self("-".into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("its characters are allowed in a header")
    }
}

/// What is known about a request; the event is written when this is dropped.
pub(super) struct Entry {
    method: Method,
    peer: IpAddr,
    request_id: RequestId,
    started: Instant,
    /// Told of the end: the connection waits for its next request.
    exchange: Arc<Exchange>,
    metrics: Arc<Metrics>,
    pub(super) route: &'static str,
    pub(super) code: Option<ErrorCode>,
    status: Option<StatusCode>,
    bytes: u64,
    complete: bool,
}

impl Entry {
    pub(super) fn new(
        method: Method,
        peer: IpAddr,
        request_id: RequestId,
        exchange: Arc<Exchange>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            method,
            peer,
            request_id,
            started: Instant::now(),
            exchange,
            metrics,
            route: "-",
            code: None,
            status: None,
            bytes: 0,
            complete: false,
        }
    }

    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Counts it, once: with its status as soon as there is one, so that a stream is not as slow as it is long.
    fn count(&self) {
        let status = self.status.map(|status| status.as_u16());
        self.metrics.request(self.route, method_name(&self.method), status, self.started.elapsed());
    }
}

/// The methods that are worth a name in the log; a client may invent any other.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The code as the client sees it.
fn word(code: ErrorCode) -> Option<String> {
    serde_json::to_value(code).ok()?.as_str().map(str::to_owned)
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.exchange.end();
        if self.status.is_none() {
            self.count();
        }
        // Probes come every few seconds for the whole life of the agent.
        let probe = matches!(self.route, "/health" | "/live" | "/ready") && self.status == Some(StatusCode::OK);
        let code = self.code.and_then(word);
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    target: "q8_agent::access",
                    method = method_name(&self.method),
                    route = self.route,
                    // No status: the client went away before there was an answer.
                    status = self.status.map(|status| status.as_u16()),
                    code = code.as_deref(),
                    duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                    request_id = self.request_id.as_str(),
                    peer = %self.peer,
                    bytes = self.bytes,
                    complete = self.complete,
                    "request"
                )
            };
        }
        if probe { event!(debug) } else { event!(info) }
    }
}

/// A body that counts what leaves and takes the log entry with it.
pub(super) struct Logged {
    body: Body,
    entry: Entry,
}

impl Logged {
    pub(super) fn new(body: Body, mut entry: Entry, status: StatusCode) -> Self {
        entry.status = Some(status);
        entry.count();
        // An empty body, and any body of an answer to HEAD, is never asked for a frame.
        entry.complete = body.is_end_stream() || entry.method == Method::HEAD;
        Self { body, entry }
    }
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            this.entry.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        this.entry.complete = frame.is_none() || this.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_uuids_that_come_once() {
        let ids: std::collections::BTreeSet<String> =
            (0..1000).map(|_| RequestId::of(&HeaderMap::new()).as_str().to_owned()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let id = uuid::Uuid::try_parse(&id).unwrap();
            let (seconds, _) = id.get_timestamp().unwrap().to_unix();
            assert!(id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122);
            assert!(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - seconds < 60);
        }
    }

    #[test]
    fn request_ids_are_taken_over_when_they_are_harmless() {
        let long = "x".repeat(65);
        for (given, kept) in [
            (&["abc-1.2_3"][..], true),
            (&[""], false),
            (&["a b"], false),
            (&["a\u{e4}"], false),
            (&["a\"b"], false),
            (&[long.as_str()], false),
            (&["a", "b"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in given {
                headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let id = RequestId::of(&headers);
            assert_eq!(given.first() == Some(&id.as_str()), kept, "{given:?}");
            assert!(!id.as_str().is_empty());
        }
    }
}
