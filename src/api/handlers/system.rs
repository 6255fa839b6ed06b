//! The routes about the agent itself.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::StatusCode;
use serde::Serialize;
use tokio::time::timeout;

use super::Handlers;
use super::operations::Caller;
use crate::api::OPENAPI;
use crate::api::error::ApiError;
use crate::api::front::Call;
use crate::api::respond::{self, Answer};
use crate::api::router::Route;
use crate::api::{query, requests};
use crate::domain::ErrorCode;
use crate::orchestrator::{HostMutation, Readiness, Snapshot};

/// A probe that gets no answer within this time has got one (design: "503 backend away (within 5 s)").
const PROBE_TIME: Duration = Duration::from_secs(5);

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::api) struct Probe {
    status: &'static str,
    degraded: Vec<String>,
}

impl Handlers {
    pub(super) async fn health(&self, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        Ok(probe(self.readiness().await, "healthy", "unhealthy"))
    }

    pub(super) async fn ready(&self, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        Ok(probe(self.readiness().await, "ready", "not_ready"))
    }

    /// Says only that the process answers. A restart of the agent would not mend an engine that is away.
    pub(super) fn live(&self, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let _ = self;
        Ok(respond::json(StatusCode::OK, &Probe { status: "alive", degraded: Vec::new() }))
    }

    pub(super) async fn info(&self, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        match timeout(self.limits.read_time, self.orchestrator.info()).await {
            Ok(info) => Ok(respond::json(StatusCode::OK, &info)),
            Err(_) => Err(ApiError::new(ErrorCode::BackendUnavailable, "the backend does not answer")),
        }
    }

    /// From memory: nothing here waits for a hanging engine longer than the orchestrator's own patience.
    pub(super) async fn system_stats(&self, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        Ok(stats(&*self.orchestrator.system_stats().await))
    }

    pub(super) async fn metrics(&self, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let text = self.orchestrator.metrics_text().await;
        let body = Full::new(text.into()).boxed_unsync();
        Ok(respond::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body))
    }

    pub(super) async fn cordon(&self, call: Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let caller = Caller::of(&call)?;
        let body = self.bodies.read(&call.headers, call.body, &self.limits).await?;
        let reason = requests::cordon(&body.bytes)?;
        let repeat = self.repeat_key(&caller, Route::Cordon.template(), &body.bytes);
        self.change(&caller, HostMutation::Cordon { reason }, repeat).await
    }

    pub(super) async fn uncordon(&self, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let caller = Caller::of(call)?;
        let repeat = self.repeat_key(&caller, Route::Uncordon.template(), &[]);
        self.change(&caller, HostMutation::Uncordon, repeat).await
    }

    pub(super) async fn prune(&self, call: Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let caller = Caller::of(&call)?;
        let body = self.bodies.read(&call.headers, call.body, &self.limits).await?;
        let request = requests::prune(&body.bytes)?;
        if request.dry_run {
            // It changes nothing, so it is no operation, and is answered anew each time.
            return Ok(respond::json(StatusCode::OK, &self.orchestrator.what_is_left_over(request).await?));
        }
        let repeat = self.repeat_key(&caller, Route::Prune.template(), &body.bytes);
        drop(body);
        self.change(&caller, HostMutation::Prune(request), repeat).await
    }

    /// The description of the API.
    pub(super) fn openapi(&self, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let _ = self;
        let body = Full::new(Bytes::from_static(OPENAPI.as_bytes())).boxed_unsync();
        Ok(respond::with_type(StatusCode::OK, "application/json", body))
    }

    async fn readiness(&self) -> Readiness {
        let silent = |_| Readiness { ready: false, degraded: vec!["backend".to_owned()] };
        timeout(PROBE_TIME, self.orchestrator.readiness()).await.unwrap_or_else(silent)
    }
}

pub(super) fn stats(snapshot: &Snapshot) -> Answer {
    respond::with_type(StatusCode::OK, "application/json", Full::new(snapshot.json()).boxed_unsync())
}

fn probe(readiness: Readiness, yes: &'static str, no: &'static str) -> Answer {
    let Readiness { ready, degraded } = readiness;
    let (code, status) = if ready { (StatusCode::OK, yes) } else { (StatusCode::SERVICE_UNAVAILABLE, no) };
    let mut answer = respond::json(code, &Probe { status, degraded });
    if !ready {
        let soon = hyper::header::HeaderValue::from_static("5");
        answer.headers_mut().insert(hyper::header::RETRY_AFTER, soon);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_503_only_when_the_agent_is_not_ready() {
        let readiness = |ready| Readiness { ready, degraded: vec!["tenant:acme".to_owned()] };
        assert_eq!(probe(readiness(true), "ready", "not_ready").status(), 200);
        assert_eq!(probe(readiness(false), "ready", "not_ready").status(), 503);
    }
}
