//! Connections: calls are read whole, disturbed if a rule says so, answered and recorded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

use super::Inner;
use super::answer::{Answer, Body};
use super::call::Call;
use super::clock::Millis;
use super::faults::Fault;
use super::world::{Heard, State};

/// Which service is behind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Arm,
    Authority,
    Metadata,
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
pub(super) struct Closed;

type Reply = Result<Response<BoxBody<Bytes, Closed>>, Closed>;

pub(super) async fn serve(listener: TcpListener, door: Door, inner: Arc<Inner>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let inner = Arc::clone(&inner);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(door, Arc::clone(&inner), request));
            // Connections break on purpose here.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(door: Door, inner: Arc<Inner>, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let call = Call::new(&head, bytes);
    let fault = {
        let now = inner.clock.now();
        let mut state = inner.state();
        state.patience(&call, now);
        state.rules.iter_mut().find_map(|rule| rule.strike(&call.method, &call.path))
    };
    match &fault {
        Some(Fault::Slow(time)) => tokio::time::sleep(*time).await,
        Some(Fault::ResetBefore) => {
            record(&inner, door, &call, 0);
            return Err(Closed);
        }
        Some(Fault::Hang) => {
            record(&inner, door, &call, 0);
            return std::future::pending().await;
        }
        _ => {}
    }
    let answer = act(door, &inner, &call, fault.as_ref());
    if matches!(fault, Some(Fault::ResetAfter | Fault::HangAfter)) {
        record(&inner, door, &call, 0);
        if matches!(fault, Some(Fault::HangAfter)) {
            return std::future::pending().await;
        }
        return Err(Closed);
    }
    record(&inner, door, &call, answer.status);
    Ok(write(&call, answer, fault.as_ref()))
}

/// Does what was asked for, or refuses it as a rule says; notes how long the client is to wait.
fn act(door: Door, inner: &Inner, call: &Call, fault: Option<&Fault>) -> Answer {
    let now = inner.clock.now();
    let mut state = inner.state();
    let answer = match fault {
        Some(Fault::Status { status, code, message, retry_after }) => {
            Answer::error(*status, code, *message).retry_after(*retry_after)
        }
        Some(Fault::Html(status)) => Answer::html(*status),
        Some(Fault::Empty(status)) => Answer::empty(*status),
        Some(Fault::ExpiredToken) => state.challenge(
            "ExpiredAuthenticationToken",
            "The access token expiry UTC time is earlier than current UTC time.",
        ),
        _ => match door {
            Door::Arm => state.arm(call, now, &inner.clock),
            Door::Authority => state.authority(call, now),
            Door::Metadata => state.metadata(call, now, &inner.clock),
        },
    };
    state.note(call, &answer, now);
    answer
}

impl State {
    /// A call that comes before a `Retry-After` is over is a violation.
    fn patience(&mut self, call: &Call, now: Millis) {
        let name = format!("{} {}", call.method, call.path);
        if let Some(until) = self.not_before.remove(&name)
            && now < until
        {
            self.violation(format!("{name}: {} ms before Retry-After was over", until - now));
        }
    }

    fn note(&mut self, call: &Call, answer: &Answer, now: Millis) {
        let Some(seconds) = answer.wait() else { return };
        let until = now + seconds * 1000;
        let headers = answer.headers.iter().filter(|(name, _)| matches!(*name, "location" | "azure-asyncoperation"));
        let links: Vec<&str> = headers.map(|(_, link)| link.as_str()).collect();
        // An operation is asked about where the links lead; a refusal is for the call itself.
        if answer.status >= 400 || (links.is_empty() && call.method == "GET") {
            self.not_before.insert(format!("{} {}", call.method, call.path), until);
        }
        for link in links {
            let path = link.strip_prefix(self.endpoint.as_str()).unwrap_or(link);
            let path = path.split('?').next().unwrap_or_default().to_owned();
            self.not_before.insert(format!("GET {path}"), until);
        }
    }
}

fn record(inner: &Inner, door: Door, call: &Call, status: u16) {
    if door != Door::Arm {
        return;
    }
    let mut headers = call.headers.clone();
    headers.remove("authorization");
    let heard = Heard {
        method: call.method.clone(),
        path: call.path.clone(),
        query: call.query.clone(),
        headers,
        body: serde_json::from_slice(&call.bytes).unwrap_or(Value::Null),
        at: inner.clock.now(),
        status,
    };
    inner.state().heard.push(heard);
}

fn write(call: &Call, answer: Answer, fault: Option<&Fault>) -> Response<BoxBody<Bytes, Closed>> {
    let mut response = Response::builder()
        .status(answer.status)
        .header("x-ms-request-id", uuid::Uuid::new_v4().to_string())
        .header("x-ms-correlation-request-id", uuid::Uuid::new_v4().to_string())
        .header("x-ms-client-request-id", call.header("x-ms-client-request-id"))
        .header("cache-control", "no-cache");
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let (kind, text) = match answer.body {
        Body::None => (None, Bytes::new()),
        Body::Json(value) => (Some("application/json; charset=utf-8"), Bytes::from(value.to_string())),
        Body::Html(page) => (Some("text/html"), Bytes::from(page)),
    };
    if let Some(kind) = kind {
        response = response.header("content-type", kind);
    }
    let never = |error: Infallible| -> Closed { match error {} };
    let body = match fault {
        Some(Fault::Truncated) => {
            response = response.header("content-length", text.len());
            let half = text.slice(..text.len() / 2);
            // The half goes out before the connection breaks.
            let broken = futures::stream::once(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(Closed)
            });
            let frames = futures::stream::iter([Ok(Frame::data(half))]).chain(broken);
            BoxBody::new(StreamBody::new(frames))
        }
        Some(Fault::Garbage) => Full::new(Bytes::from_static(b"{\"value\": [")).map_err(never).boxed(),
        _ => Full::new(text).map_err(never).boxed(),
    };
    response.body(body).expect("the double's answers are right")
}
