//! The route of logs.

use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};

use super::Handlers;
use crate::api::error::ApiError;
use crate::api::front::Call;
use crate::api::logs::{Format, Telling, relay};
use crate::api::query;
use crate::api::respond::{self, Answer};
use crate::domain::{ErrorCode, Subdomain};

impl Handlers {
    pub(super) async fn logs(&self, tenant: &Subdomain, call: &Call) -> Result<Answer, ApiError> {
        let (query, timestamps) = query::logs(call.query.as_deref(), jiff::Timestamp::now(), tenant)?;
        let format = format(&call.headers, timestamps);
        let place = self.log_streams.take(tenant).map_err(|why| ApiError::new(ErrorCode::RateLimited, why))?;
        let place = (place, self.orchestrator.metrics().log_stream());
        let lines = self.reading(self.orchestrator.logs(tenant, &query)).await?;
        let telling = Telling {
            tenant: tenant.clone(),
            cursor: query.cursor.unwrap_or_default(),
            format,
            request_id: call.request_id.clone(),
        };
        let body = relay(lines, telling, self.stop.clone(), place);
        let mut answer = respond::with_type(StatusCode::OK, format.content_type(), body);
        // nginx holds a proxied answer back until its buffer is full, unless it is told not to.
        answer.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        Ok(answer)
    }
}

/// NDJSON for those who ask for it, text for everybody else.
fn format(headers: &HeaderMap, timestamps: bool) -> Format {
    let ndjson = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let essence = parts.next().unwrap_or_default();
            // A weight of 0 is "not acceptable" (RFC 9110, 12.4.2).
            let is_refused = parts.any(|parameter| {
                let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
                weight.is_some_and(|weight| weight.parse() == Ok(0.0_f32))
            });
            let is_ndjson =
                ["application/x-ndjson", "application/ndjson"].iter().any(|it| essence.eq_ignore_ascii_case(it));
            is_ndjson && !is_refused
        })
    });
    if ndjson { Format::Ndjson } else { Format::Text { timestamps } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_accept() {
        for (accept, ndjson) in [
            ("application/x-ndjson", true),
            ("text/html, Application/X-NDJSON;q=0.9", true),
            ("*/*", false),
            ("text/plain, application/x-ndjson;q=0", false),
            ("application/x-ndjson; Q=0.000", false),
            ("application/x-ndjson;q=0, application/ndjson;q=0.1", true),
            ("text/plain", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(format(&headers, false) == Format::Ndjson, ndjson, "{accept}");
        }
        assert_eq!(format(&HeaderMap::new(), true), Format::Text { timestamps: true });
    }
}
