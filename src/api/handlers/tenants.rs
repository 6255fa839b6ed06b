//! The routes of tenants, logs excepted.

use hyper::StatusCode;

use super::Handlers;
use super::operations::Caller;
use crate::api::error::ApiError;
use crate::api::front::Call;
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
        self.mutate(&caller, Mutation::Provision(Box::new(request)), repeat).await
    }

    pub(super) async fn update(&self, call: Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let caller = Caller::of(&call)?;
        let body = self.bodies.read(&call.headers, call.body, &self.limits).await?;
        let request = requests::update(&body.bytes)?;
        let repeat = self.repeat_key(&caller, "/v1/tenants/update", &body.bytes);
        drop(body);
        self.mutate(&caller, Mutation::Update(Box::new(request)), repeat).await
    }

    pub(super) async fn plan(&self, call: Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let body = self.bodies.read(&call.headers, call.body, &self.limits).await?;
        let request = requests::provision(&body.bytes)?;
        drop(body);
        Ok(respond::json(StatusCode::OK, &self.reading(self.orchestrator.plan(request)).await?))
    }

    /// Mutations without a body.
    pub(super) async fn change(&self, route: &Route, call: &Call) -> Result<Answer, ApiError> {
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
        self.mutate(&caller, mutation, repeat).await
    }

    pub(super) async fn tenants(&self, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        Ok(respond::json(StatusCode::OK, &self.reading(self.orchestrator.list()).await?))
    }

    pub(super) async fn status(&self, tenant: &Subdomain, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        Ok(respond::json(StatusCode::OK, &self.reading(self.orchestrator.status(tenant)).await?))
    }

    pub(super) async fn images(&self, tenant: &Subdomain, call: &Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let images = self.reading(self.orchestrator.images(tenant)).await?;
        Ok(respond::json(StatusCode::OK, &ImageList { subdomain: tenant.clone(), images }))
    }
}
