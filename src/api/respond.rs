//! Answers: their body type and the headers that all of them have.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::domain::OperationId;

/// The body of any answer. A stream that fails says so in its own format, so a body never ends in an error.
pub(super) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// An answer on its way out.
pub(super) type Answer = Response<Body>;

/// The header in which clients and agent name a request.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header that names the operation which an answer is about.
const X_OPERATION_ID: HeaderName = HeaderName::from_static("x-operation-id");
/// The header of an answer that an earlier request with the same key has had already.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Says which operation an answer is about, and whether it is told from memory.
pub(super) fn name_operation(answer: &mut Answer, operation: OperationId, replayed: bool) {
    let id = HeaderValue::from_str(&operation.to_string()).expect("a UUID's characters are allowed in a header");
    answer.headers_mut().insert(X_OPERATION_ID, id);
    if replayed {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
}

/// A JSON answer. Our own types always serialise; if one ever does not, that is a bug and the answer is 500.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let (status, text) = match serde_json::to_vec(value) {
        Ok(text) => (status, text),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            let text = br#"{"error":"an unexpected failure","code":"INTERNAL","retryable":false}"#;
            (StatusCode::INTERNAL_SERVER_ERROR, text.to_vec())
        }
    };
    with_type(status, "application/json", Full::new(Bytes::from(text)).boxed_unsync())
}

/// No body.
pub(super) fn nothing() -> Body {
    Empty::new().boxed_unsync()
}

/// An answer of this content type. Nothing the agent says may be kept by a cache or guessed to be another type.
pub(super) fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    answer
}
