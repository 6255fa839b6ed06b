//! The routes of tenants, logs excepted.

use http_body_util::{BodyExt as _, Full};
use hyper::StatusCode;

use super::Handlers;
use super::operations::Caller;
use crate::api::error::ApiError;
use crate::api::front::Call;
use crate::api::query::{Lines, Status};
use crate::api::respond::{self, Answer};
use crate::api::router::Route;
use crate::api::{query, requests};
use crate::domain::Subdomain;
use crate::orchestrator::{ImageList, Mutation};

impl Handlers {
    pub(super) async fn provision(&self, call: Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let caller = Caller::of(&call)?;
        let body = self.bodies.read(&call.headers, call.body, &self.limits).await?;
        let request = requests::provision(&body.bytes)?;
        let repeat = self.repeat_key(&caller, "/v1/tenants/provision", &body.bytes);
        drop(body);
        self.change(&caller, Mutation::Provision(Box::new(request)), repeat).await
    }

    pub(super) async fn update(&self, call: Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let caller = Caller::of(&call)?;
        let body = self.bodies.read(&call.headers, call.body, &self.limits).await?;
        let request = requests::update(&body.bytes)?;
        let repeat = self.repeat_key(&caller, "/v1/tenants/update", &body.bytes);
        drop(body);
        self.change(&caller, Mutation::Update(Box::new(request)), repeat).await
    }

    pub(super) async fn plan(&self, call: Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let body = self.bodies.read(&call.headers, call.body, &self.limits).await?;
        let request = requests::provision(&body.bytes)?;
        drop(body);
        Ok(respond::json(StatusCode::OK, &self.reading(self.orchestrator.plan(request)).await?))
    }

    /// Mutations without a body.
    pub(super) async fn change_without_body(&self, route: &Route, call: &Call) -> Result<Answer, ApiError> {
        let raw = call.query.as_deref();
        let mutation = match route.clone() {
            Route::Rollback(tenant) => Mutation::Rollback { tenant, from: query::from(raw)? },
            Route::Restart(tenant) => Mutation::Restart { tenant, service: query::service(raw)? },
            Route::Stop(tenant) => Mutation::Stop { tenant, service: query::service(raw)? },
            Route::Start(tenant) => Mutation::Start { tenant, service: query::service(raw)? },
            Route::Teardown(tenant) => Mutation::Teardown { tenant, purge: query::purge(raw)? },
            _ => return Err(ApiError::internal()),
        };
        let caller = Caller::of(call)?;
        let target = route.template().replace("{subdomain}", mutation.tenant().as_str());
        let repeat = self.repeat_key(&caller, &target, &[]);
        self.change(&caller, mutation, repeat).await
    }

    pub(super) async fn tenants(&self, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let list = self.reading(self.orchestrator.list()).await?;
        Ok(respond::tagged(&call.headers, &list.tag, list.body))
    }

    /// The status as it is in memory, asked for without more.
    pub(super) fn status_at_once(&self, tenant: &Subdomain, call: &Call) -> Option<Answer> {
        let status = self.orchestrator.status_at_once(tenant)?;
        Some(respond::tagged(&call.headers, &status.tag, status.body))
    }

    pub(super) async fn status(&self, tenant: &Subdomain, call: &Call) -> Result<Answer, ApiError> {
        let Status { fresh, compose_lines } = query::status(call.query.as_deref())?;
        if let Some(Lines { all }) = compose_lines {
            let lines = Box::pin(self.reading(self.orchestrator.compose_lines(tenant, all))).await?;
            return Ok(respond::with_type(StatusCode::OK, "application/x-ndjson", Full::new(lines).boxed_unsync()));
        }
        let status = self.reading(self.orchestrator.status_text(tenant, fresh)).await?;
        Ok(respond::tagged(&call.headers, &status.tag, status.body))
    }

    pub(super) async fn images(&self, tenant: &Subdomain, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let images = self.reading(self.orchestrator.images(tenant)).await?;
        Ok(respond::json(StatusCode::OK, &ImageList { subdomain: tenant.clone(), images }))
    }

    pub(super) async fn tenant_stats(&self, tenant: &Subdomain, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        Ok(respond::json(StatusCode::OK, &self.reading(self.orchestrator.tenant_stats(tenant)).await?))
    }
}
