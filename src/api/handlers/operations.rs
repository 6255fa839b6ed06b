//! The routes of operations, and what an operation looks like in JSON.

use futures::StreamExt as _;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue, LOCATION};
use serde::Serialize;
use serde_json::{Value, json};

use super::Handlers;
use crate::api::access_log::RequestId;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::front::Call;
use crate::api::respond::{self, Answer};
use crate::api::sse::{self, Event};
use crate::api::{ask, query};
use crate::backend::Told;
use crate::domain::{Counters, ErrorCode, Operation, OperationId, OperationRecord, OperationState, Outcome, RepeatKey};
use crate::orchestrator::{Ask, Change, Followed, Submitted};

/// An operation on its way out.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "OperationRecord"))]
pub(in crate::api) struct View<'a> {
    #[serde(flatten)]
    operation: &'a Operation,
    state: OperationState,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<jiff::Timestamp>,
    /// What is left of it, if it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    progress: Counters,
    /// The request that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    /// What its request was, or would have been, answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ResultView<'a>>,
    /// The error that its request was, or would have been, answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody<'a>>,
}

/// An answer.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "OperationResult"))]
struct ResultView<'a> {
    status: u16,
    body: &'a Value,
}

/// The answer to the list of operations.
#[cfg(test)]
#[derive(Serialize, schemars::JsonSchema)]
#[schemars(rename = "OperationList")]
#[allow(dead_code, reason = "only its schema is used: a view borrows from what it is made of")]
pub(in crate::api) struct ListView<'a> {
    operations: Vec<View<'a>>,
}

/// The operation as clients see it.
fn view(record: &OperationRecord) -> Value {
    let request = record.request_id.as_deref().and_then(RequestId::parse).unwrap_or_else(RequestId::nobody);
    let error = record.error.clone().map(ApiError::from);
    let result = record.result.as_ref();
    json!(View {
        operation: &record.operation,
        state: record.state,
        ended_at: record.ended_at,
        outcome: record.outcome,
        progress: record.progress,
        request_id: record.request_id.as_deref(),
        result: result.map(|result| ResultView { status: status(result.created).as_u16(), body: &result.body }),
        error: error.as_ref().map(|error| error.body(&request)),
    })
}

fn status(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}

impl Handlers {
    /// Carries out, accepts or remembers a change. `target` and `body` are what a repeat must have in common with it.
    pub(super) async fn change(
        &self,
        call: &Caller,
        change: impl Into<Change>,
        repeat: Option<RepeatKey>,
    ) -> Result<Answer, ApiError> {
        let request_id = Some(call.request_id.as_str().to_owned());
        let asked = Ask { respond_async: call.respond_async, repeat, request_id };
        match self.orchestrator.submit(change, asked).await? {
            Submitted::Done { operation, answer } => match answer {
                Ok(answered) => {
                    let mut answer = respond::json(status(answered.created()), &answered);
                    if let Some(operation) = operation {
                        respond::name_operation(&mut answer, operation, false);
                    }
                    Ok(answer)
                }
                Err(error) => Err(ApiError::from(error).of_operation(operation, false)),
            },
            Submitted::Replayed(record) => {
                let id = record.operation.id;
                match (&record.result, &record.error) {
                    (Some(result), _) => {
                        let mut answer = respond::json(status(result.created), &result.body);
                        respond::name_operation(&mut answer, id, true);
                        Ok(answer)
                    }
                    (None, Some(failure)) => Err(ApiError::from(failure.clone()).of_operation(Some(id), true)),
                    (None, None) => Err(ApiError::internal().of_operation(Some(id), true)),
                }
            }
            Submitted::Accepted { operation, replayed } => {
                let id = operation.operation.id;
                let mut answer = respond::json(StatusCode::ACCEPTED, &view(&operation));
                respond::name_operation(&mut answer, id, replayed);
                let location = HeaderValue::from_str(&format!("/v1/operations/{id}"));
                let headers = answer.headers_mut();
                headers.insert(LOCATION, location.map_err(|_| ApiError::internal())?);
                let applied = HeaderName::from_static("preference-applied");
                headers.insert(applied, HeaderValue::from_static("respond-async"));
                Ok(answer)
            }
        }
    }

    /// What recognises a repeat of this request, if it asks for that.
    pub(super) fn repeat_key(&self, call: &Caller, target: &str, body: &[u8]) -> Option<RepeatKey> {
        let target = format!("{target}?{}", call.query);
        call.key.as_ref().map(|key| self.orchestrator.repeat_key(key, "POST", &target, body))
    }

    pub(super) fn operations(&self, call: &Call) -> Result<Answer, ApiError> {
        let (tenant, limit) = query::operations(call.query.as_deref())?;
        let operations = self.orchestrator.operations(tenant.as_ref(), limit);
        let operations: Vec<Value> = operations.iter().map(view).collect();
        Ok(respond::json(StatusCode::OK, &json!({ "operations": operations })))
    }

    pub(super) async fn operation(&self, id: OperationId, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        Ok(respond::json(StatusCode::OK, &view(&self.orchestrator.operation(id).await?)))
    }

    pub(super) async fn cancel_operation(&self, id: OperationId, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let operation = self.orchestrator.cancel(id).await?;
        Ok(respond::json(StatusCode::ACCEPTED, &view(&operation)))
    }

    pub(super) async fn operation_events(&self, id: OperationId, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let refuse = || ApiError::invalid("must be the id of an event of this stream").at_field("Last-Event-ID");
        let after = match sse::last_event_id(&call.headers)? {
            Some(text) => Some(text.parse::<u64>().map_err(|_| refuse())?),
            None => None,
        };
        let place = std::sync::Arc::clone(&self.event_streams).try_acquire_owned();
        let place = place.map_err(|_| ApiError::new(ErrorCode::RateLimited, "too many event streams are open"))?;
        let Some(followed) = self.orchestrator.follow(id, after).await? else {
            // The one status that keeps an EventSource from connecting again.
            return Ok(respond::with_type(StatusCode::NO_CONTENT, sse::MEDIA_TYPE, respond::nothing()));
        };
        let events = followed.map(event);
        Ok(sse::answer(events, &call.request_id, self.stop.clone(), place))
    }
}

fn event(followed: Followed) -> Event {
    match followed {
        Followed::Told(told) => {
            let Told { number, event, .. } = &told;
            Event::json(Some(number.to_string()), event.kind(), &told)
        }
        Followed::Gap { missed } => Event::json(None, "gap", &json!({ "missed": missed })),
        Followed::TooSlow { missed } => {
            let error = ApiError::new(ErrorCode::RateLimited, "the events were not read fast enough");
            Event::json(None, "error", &json!({ "error": error.message, "code": error.code, "missed": missed }))
        }
        Followed::End { number, record } => Event::json(Some(number.to_string()), "end", &view(&record)),
    }
}

/// Who asks for a mutation, and how.
pub(super) struct Caller {
    pub(super) request_id: RequestId,
    respond_async: bool,
    key: Option<String>,
    query: String,
}

impl Caller {
    pub(super) fn of(call: &Call) -> Result<Self, ApiError> {
        Ok(Self {
            request_id: call.request_id.clone(),
            respond_async: ask::prefers_async(&call.headers),
            key: ask::idempotency_key(&call.headers)?.map(str::to_owned),
            query: call.query.clone().unwrap_or_default(),
        })
    }
}
