//! The one table from error codes to HTTP, and the JSON body that every error has.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use serde_json::{Value, json};

use super::access_log::RequestId;
use super::respond::{self, Answer};
use super::wire::Refusal;
use crate::backend::BackendError;
use crate::compose::Location;
use crate::domain::{ErrorCode, Failure, InvalidName, OperationId};
use crate::orchestrator;

/// What a code means in HTTP.
struct Meaning {
    status: StatusCode,
    /// Seconds after which a retry makes sense, for the header of that name.
    retry_after: Option<u16>,
}

/// The table. Whoever adds a code must decide here what it means.
fn meaning(code: ErrorCode) -> Meaning {
    use ErrorCode as C;
    use StatusCode as S;
    let (status, retry_after) = match code {
        C::InvalidRequest | C::InvalidSubdomain | C::InvalidFilePath => (S::BAD_REQUEST, None),
        C::Unauthorized => (S::UNAUTHORIZED, None),
        C::Forbidden => (S::FORBIDDEN, None),
        C::NotFound => (S::NOT_FOUND, None),
        C::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, None),
        C::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, None),
        C::ComposeInvalid
        | C::PolicyDenied
        | C::QuotaExceeded
        | C::UnsupportedOnBackend
        | C::BackendNotConfigured
        | C::RegistryAuthRequired
        | C::IdempotencyMismatch => (S::UNPROCESSABLE_ENTITY, None),
        C::TenantBusy => (S::CONFLICT, Some(5)),
        C::GenerationMismatch
        | C::PlanChanged
        | C::Cancelled
        | C::NotCancellable
        | C::IdMismatch
        | C::NameTaken
        | C::PortTaken
        | C::HostFull
        | C::HostCordoned
        | C::PlacementChange => (S::CONFLICT, None),
        C::ImageNotFound | C::RegistryDenied | C::ServiceUnhealthy | C::ServiceExited | C::BackendError => {
            (S::BAD_GATEWAY, None)
        }
        C::RegistryUnavailable => (S::BAD_GATEWAY, None),
        C::DeadlineExceeded => (S::GATEWAY_TIMEOUT, None),
        C::BackendUnavailable => (S::SERVICE_UNAVAILABLE, Some(5)),
        C::NoSpace => (S::INSUFFICIENT_STORAGE, None),
        C::RateLimited => (S::TOO_MANY_REQUESTS, Some(1)),
        C::ShuttingDown => (S::SERVICE_UNAVAILABLE, Some(10)),
        C::TenantDamaged | C::Internal => (S::INTERNAL_SERVER_ERROR, None),
    };
    Meaning { status, retry_after }
}

/// The status that a code is answered with.
#[cfg(test)]
pub(super) fn status_of(code: ErrorCode) -> StatusCode {
    meaning(code).status
}

/// A refusal or failure on its way to the client. Everything in it may be shown.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    pub(super) field: Option<String>,
    pub(super) location: Option<Location>,
    /// Boxed, because a `Result` is as large as its error and most errors have none.
    pub(super) details: Option<Box<Value>>,
    /// The methods that the path has, for 405.
    allow: Option<&'static str>,
    /// The rest of the request has not been read and is not going to be.
    hang_up: bool,
    /// Seconds to wait, where they are known better than the table knows them.
    retry_after: Option<u64>,
    /// The operation that failed, and whether that is told from memory. Boxed for the same reason.
    operation: Option<Box<(OperationId, bool)>>,
    /// For the few refusals of a message's form that HTTP has a word of its own for; the table has one for the code.
    status: Option<StatusCode>,
}

/// The error object of the contract.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ErrorBody<'a> {
    error: &'a str,
    code: ErrorCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    request_id: &'a str,
    retryable: bool,
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code,
            message,
            field: None,
            location: None,
            details: None,
            allow: None,
            hang_up: false,
            retry_after: None,
            operation: None,
            status: None,
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// Says nothing about what was wrong with the credentials.
    pub(super) fn unauthorized() -> Self {
        Self::new(ErrorCode::Unauthorized, "a valid bearer token is needed").hanging_up()
    }

    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("this path has {allow} only");
        Self { allow: Some(allow), ..Self::new(ErrorCode::MethodNotAllowed, message) }
    }

    pub(super) fn internal() -> Self {
        Self::new(ErrorCode::Internal, "an unexpected failure; the agent's log has it under this request id")
    }

    #[must_use]
    pub(super) fn at_field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    #[must_use]
    pub(super) fn at(self, location: Option<Location>) -> Self {
        Self { location, ..self }
    }

    /// For a refusal before the body was read: the connection cannot be used again without reading it.
    #[must_use]
    pub(super) fn hanging_up(self) -> Self {
        Self { hang_up: true, ..self }
    }

    #[must_use]
    pub(super) fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self { retry_after: Some(seconds), ..self }
    }

    #[must_use]
    pub(super) fn of_operation(self, operation: Option<OperationId>, replayed: bool) -> Self {
        Self { operation: operation.map(|id| Box::new((id, replayed))), ..self }
    }

    pub(super) fn body<'a>(&'a self, request: &'a RequestId) -> ErrorBody<'a> {
        ErrorBody {
            error: &self.message,
            code: self.code,
            details: self.details.as_deref(),
            field: self.field.as_deref(),
            line: self.location.map(|place| place.line),
            column: self.location.map(|place| place.column),
            request_id: request.as_str(),
            retryable: self.code.is_retryable(),
        }
    }

    pub(super) fn answer(&self, request: &RequestId) -> Answer {
        let meaning = meaning(self.code);
        let mut answer = respond::json(self.status.unwrap_or(meaning.status), &self.body(request));
        let headers = answer.headers_mut();
        if meaning.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after.or(meaning.retry_after.map(u64::from)) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if let Some((operation, replayed)) = self.operation.as_deref() {
            respond::name_operation(&mut answer, *operation, *replayed);
        }
        let headers = answer.headers_mut();
        if self.hang_up {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self { status: Some(refusal.status()), ..Self::invalid(refusal.message()).hanging_up() }
    }
}

impl From<InvalidName> for ApiError {
    /// For names in a path or query. Only a subdomain has a code of its own.
    fn from(refusal: InvalidName) -> Self {
        let code = match refusal.kind {
            "subdomain" => ErrorCode::InvalidSubdomain,
            "file path" => ErrorCode::InvalidFilePath,
            _ => ErrorCode::InvalidRequest,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<&BackendError> for ApiError {
    fn from(error: &BackendError) -> Self {
        Self {
            field: error.field(),
            details: error.details().map(|details| Box::new(json!(details))),
            ..Self::new(error.code(), error.to_string())
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let Failure { code, message, field, line, column, details } = failure;
        let location = line.zip(column).map(|(line, column)| Location { line, column });
        Self { field, location, details: details.map(Box::new), ..Self::new(code, message) }
    }
}

impl From<orchestrator::Error> for ApiError {
    fn from(error: orchestrator::Error) -> Self {
        error.failure().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code of the contract with its status, written down a second time: a change of the table is a change of the
    /// contract and must be made twice.
    const CONTRACT: &[(&str, u16, bool)] = &[
        ("INVALID_REQUEST", 400, false),
        ("INVALID_SUBDOMAIN", 400, false),
        ("INVALID_FILE_PATH", 400, false),
        ("UNAUTHORIZED", 401, false),
        ("FORBIDDEN", 403, false),
        ("NOT_FOUND", 404, false),
        ("METHOD_NOT_ALLOWED", 405, false),
        ("PAYLOAD_TOO_LARGE", 413, false),
        ("COMPOSE_INVALID", 422, false),
        ("POLICY_DENIED", 422, false),
        ("QUOTA_EXCEEDED", 422, false),
        ("UNSUPPORTED_ON_BACKEND", 422, false),
        ("BACKEND_NOT_CONFIGURED", 422, false),
        ("TENANT_BUSY", 409, true),
        ("GENERATION_MISMATCH", 409, false),
        ("PLAN_CHANGED", 409, false),
        ("IDEMPOTENCY_MISMATCH", 422, false),
        ("CANCELLED", 409, false),
        ("NOT_CANCELLABLE", 409, false),
        ("ID_MISMATCH", 409, false),
        ("NAME_TAKEN", 409, false),
        ("PORT_TAKEN", 409, false),
        ("HOST_FULL", 409, false),
        ("HOST_CORDONED", 409, false),
        ("PLACEMENT_CHANGE", 409, false),
        ("IMAGE_NOT_FOUND", 502, false),
        ("REGISTRY_AUTH_REQUIRED", 422, false),
        ("REGISTRY_DENIED", 502, false),
        ("REGISTRY_UNAVAILABLE", 502, true),
        ("SERVICE_UNHEALTHY", 502, false),
        ("SERVICE_EXITED", 502, false),
        ("DEADLINE_EXCEEDED", 504, true),
        ("BACKEND_UNAVAILABLE", 503, true),
        ("BACKEND_ERROR", 502, false),
        ("NO_SPACE", 507, false),
        ("RATE_LIMITED", 429, true),
        ("SHUTTING_DOWN", 503, true),
        ("TENANT_DAMAGED", 500, false),
        ("INTERNAL", 500, false),
    ];

    #[test]
    fn every_code_has_the_status_of_the_contract() {
        for &(word, status, retryable) in CONTRACT {
            let code: ErrorCode = serde_json::from_value(json!(word)).expect(word);
            let request = RequestId::parse("r-1").unwrap();
            let error = ApiError::new(code, "text").at_field("f").at(Some(Location { line: 2, column: 3 }));
            assert_eq!(error.answer(&request).status().as_u16(), status, "{word}");
            assert_eq!(
                json!(error.body(&request)),
                json!({ "error": "text", "code": word, "field": "f", "line": 2, "column": 3, "request_id": "r-1",
                        "retryable": retryable })
            );
        }
    }

    #[test]
    fn some_answers_carry_headers() {
        let request = RequestId::parse("r-1").unwrap();
        let header = |error: ApiError, name: &str| {
            error.answer(&request).headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(header(ApiError::unauthorized(), "www-authenticate").as_deref(), Some("Bearer"));
        assert_eq!(header(ApiError::method_not_allowed("POST"), "allow").as_deref(), Some("POST"));
        assert_eq!(header(ApiError::internal(), "retry-after"), None);
        for code in
            [ErrorCode::TenantBusy, ErrorCode::BackendUnavailable, ErrorCode::RateLimited, ErrorCode::ShuttingDown]
        {
            assert!(header(ApiError::new(code, ""), "retry-after").is_some(), "{code:?}");
        }
    }
}
