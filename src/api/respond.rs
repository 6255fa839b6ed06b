//! Answers: their body type and the headers that all of them have.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
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

/// A JSON answer that a client may have already. The tag is a weak one: the age of what is said is not part of it.
pub(super) fn tagged(asked: &HeaderMap, tag: &[u8], body: Bytes) -> Answer {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(4 + 2 * tag.len());
    text.extend_from_slice(b"W/\"");
    for byte in tag {
        text.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    text.push(b'"');
    let value = HeaderValue::from_maybe_shared(Bytes::from(text)).expect("hexadecimal digits in quotes");
    let mut answer = if has_already(asked, &value) {
        let mut answer = with_type(StatusCode::NOT_MODIFIED, "application/json", Full::default().boxed_unsync());
        answer.headers_mut().remove(CONTENT_TYPE);
        answer
    } else {
        with_type(StatusCode::OK, "application/json", Full::new(body).boxed_unsync())
    };
    answer.headers_mut().insert(ETAG, value);
    answer
}

/// Whether `If-None-Match` names this tag, compared weakly (RFC 9110, 13.1.2). A tag here has no comma in it.
fn has_already(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let opaque = |text: &str| text.trim().trim_start_matches("W/").to_owned();
    let given = asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given
        .flat_map(|value| value.split(','))
        .any(|one| one.trim() == "*" || tag.to_str().is_ok_and(|tag| opaque(one) == opaque(tag)))
}

/// An answer of this content type. Nothing the agent says may be kept by a cache or guessed to be another type.
pub(super) fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    // With those that are still to come: it need not grow.
    headers.reserve(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_the_client_has_is_not_sent_again() {
        let tag = [0xab, 0x01];
        for (values, status) in [
            (&[][..], 200),
            (&["W/\"ab01\""], 304),
            (&["\"ab01\""], 304),
            (&["*"], 304),
            (&["\"x\", W/\"ab01\""], 304),
            (&["\"x\"", "W/\"ab01\""], 304),
            (&["\"ab02\""], 200),
            (&["ab01"], 200),
            (&["\"ab01"], 200),
            (&["W/\"ab01"], 200),
        ] {
            let mut asked = HeaderMap::new();
            for value in values {
                asked.append(IF_NONE_MATCH, HeaderValue::from_str(value).unwrap());
            }
            let answer = tagged(&asked, &tag, Bytes::from_static(b"{}"));
            assert_eq!(answer.status(), status, "{values:?}");
            assert_eq!(answer.headers()[ETAG], "W/\"ab01\"");
            assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
            assert_eq!(answer.headers().contains_key(CONTENT_TYPE), status == 200);
        }
    }
}
