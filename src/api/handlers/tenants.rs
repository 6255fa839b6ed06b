//! The routes of tenants, logs excepted.

use hyper::StatusCode;

use super::Handlers;
use crate::api::error::ApiError;
use crate::api::front::Call;
use crate::api::respond::{self, Answer};
use crate::api::{query, requests};
use crate::domain::Subdomain;
use crate::orchestrator::ImageList;

impl Handlers {
    pub(super) async fn provision(&self, call: Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let body = self.bodies.read(&call.headers, call.body, &self.limits).await?;
        let request = requests::provision(&body.bytes)?;
        drop(body);
        let done = self.orchestrator.provision(request).await?;
        let status = if done.created { StatusCode::CREATED } else { StatusCode::OK };
        Ok(respond::json(status, &done))
    }

    pub(super) async fn update(&self, call: Call) -> Result<Answer, ApiError> {
        query::none(call.query.as_deref())?;
        let body = self.bodies.read(&call.headers, call.body, &self.limits).await?;
        let request = requests::update(&body.bytes)?;
        drop(body);
        Ok(respond::json(StatusCode::OK, &self.orchestrator.update(request).await?))
    }

    pub(super) async fn rollback(&self, tenant: &Subdomain, call: &Call) -> Result<Answer, ApiError> {
        let from = query::from(call.query.as_deref())?;
        Ok(respond::json(StatusCode::OK, &self.orchestrator.rollback(tenant, from).await?))
    }

    pub(super) async fn restart(&self, tenant: &Subdomain, call: &Call) -> Result<Answer, ApiError> {
        let service = query::service(call.query.as_deref())?;
        Ok(respond::json(StatusCode::OK, &self.orchestrator.restart(tenant, service).await?))
    }

    pub(super) async fn stop(&self, tenant: &Subdomain, call: &Call) -> Result<Answer, ApiError> {
        let service = query::service(call.query.as_deref())?;
        Ok(respond::json(StatusCode::OK, &self.orchestrator.stop(tenant, service).await?))
    }

    pub(super) async fn start(&self, tenant: &Subdomain, call: &Call) -> Result<Answer, ApiError> {
        let service = query::service(call.query.as_deref())?;
        Ok(respond::json(StatusCode::OK, &self.orchestrator.start(tenant, service).await?))
    }

    pub(super) async fn teardown(&self, tenant: &Subdomain, call: &Call) -> Result<Answer, ApiError> {
        let purge = query::purge(call.query.as_deref())?;
        Ok(respond::json(StatusCode::OK, &self.orchestrator.teardown(tenant, purge).await?))
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
