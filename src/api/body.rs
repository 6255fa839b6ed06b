//! Reads a request's body within limits of size, time and, over all requests, memory.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::Limits;
use super::error::ApiError;
use crate::domain::ErrorCode;

/// One permit of the budget, in bytes.
const UNIT: usize = 4096;

/// Memory for bodies that are being read, shared by all requests.
#[derive(Clone)]
pub(super) struct BodyBudget {
    memory: Arc<Semaphore>,
    largest: usize,
}

/// A whole body. Its share of the budget comes back when it is dropped.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl BodyBudget {
    /// Room for several bodies of the largest size, however many connections there are.
    pub(super) fn new(limits: &Limits) -> Self {
        let whole = limits.max_body.saturating_mul(8).max(64 << 20);
        Self { memory: Arc::new(Semaphore::new(whole.div_ceil(UNIT))), largest: limits.max_body }
    }

    /// Reads a JSON body. What is too large by its own account is refused before anything is read.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        mut body: Incoming,
        limits: &Limits,
    ) -> Result<Whole, ApiError> {
        check_type(headers)?;
        let deadline = Instant::now() + limits.body_time;
        let size = match body.size_hint().exact() {
            Some(size) => usize::try_from(size).unwrap_or(usize::MAX),
            // Chunked: it may become as large as any.
            None => self.largest,
        };
        if size > self.largest {
            return Err(self.too_large());
        }
        let units = u32::try_from(size.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let Ok(Ok(share)) = timeout_at(deadline, Arc::clone(&self.memory).acquire_many_owned(units)).await else {
            let message = "too many large requests are being read";
            return Err(ApiError::new(ErrorCode::RateLimited, message).hanging_up());
        };
        let announced = if headers.contains_key(CONTENT_LENGTH) { size } else { 0 };
        let mut bytes = BytesMut::with_capacity(announced);
        loop {
            let frame = match timeout_at(deadline, body.frame()).await {
                Ok(None) => break,
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => {
                    return Err(ApiError::invalid("the body ended early or is badly framed").hanging_up());
                }
                Err(_) => {
                    let seconds = limits.body_time.as_secs();
                    let message = format!("the body did not arrive within {seconds} seconds");
                    return Err(ApiError::invalid(message).hanging_up());
                }
            };
            // Trailers are not used by anything.
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > self.largest {
                return Err(self.too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Whole { bytes: bytes.freeze(), _share: share })
    }

    fn too_large(&self) -> ApiError {
        let message = format!("the body is larger than {} bytes", self.largest);
        ApiError::new(ErrorCode::PayloadTooLarge, message).hanging_up()
    }
}

/// JSON, or nothing said. A form or a compressed body is a mistake that the JSON reader would explain badly.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let refuse = |message| Err(ApiError::invalid(message).hanging_up());
    if headers.contains_key(CONTENT_ENCODING) {
        return refuse("a body with a Content-Encoding is not accepted: send plain JSON");
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = types.next() else { return Ok(()) };
    if types.next().is_some() {
        return refuse("there are two Content-Type headers");
    }
    let text = value.to_str().unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    let json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    // RFC 8259 8.1: JSON is UTF-8; a charset is not part of its media type but often sent.
    let utf8 = parts.all(|parameter| {
        parameter.split_once('=').is_none_or(|(name, value)| {
            !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
    });
    if json && utf8 { Ok(()) } else { refuse("the Content-Type must be application/json (in UTF-8)") }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn content_types() {
        for (value, good) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; profile=x", true),
            ("application/json; charset=latin1", false),
            ("application/x-www-form-urlencoded", false),
            ("text/plain", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(check_type(&headers).is_ok(), good, "{value}");
        }
        assert!(check_type(&HeaderMap::new()).is_ok());
        let json = || (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut twice = HeaderMap::from_iter([json()]);
        twice.append(CONTENT_TYPE, json().1);
        assert!(check_type(&twice).is_err());
        let gzip = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        assert!(check_type(&gzip).is_err());
    }
}
