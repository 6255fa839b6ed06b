//! One function a route.

mod logs;
mod system;
mod tenants;

#[cfg(test)]
pub(super) use system::Probe;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::body::BodyBudget;
use super::error::ApiError;
use super::front::{Call, Endpoints};
use super::logs::Places;
use super::respond::Answer;
use super::router::Route;
use crate::domain::ErrorCode;
use crate::orchestrator::{self, Orchestrator};

/// The endpoints over an orchestrator.
pub(super) struct Handlers {
    orchestrator: Orchestrator,
    limits: Arc<Limits>,
    bodies: BodyBudget,
    log_streams: Places,
    stop: CancellationToken,
}

impl Handlers {
    pub(super) fn new(orchestrator: Orchestrator, limits: Arc<Limits>, stop: CancellationToken) -> Self {
        let bodies = BodyBudget::new(&limits);
        let log_streams = Places::new(limits.log_streams, limits.log_streams_per_tenant);
        Self { orchestrator, limits, bodies, log_streams, stop }
    }

    /// An answer that only reads: an engine that hangs must not hang its readers.
    async fn reading<T>(
        &self,
        work: impl Future<Output = Result<T, orchestrator::Error>> + Send,
    ) -> Result<T, ApiError> {
        match timeout(self.limits.read_time, work).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(ApiError::new(ErrorCode::BackendUnavailable, "the backend does not answer")),
        }
    }
}

impl Endpoints for Handlers {
    /// Tenants' containers reach this host's addresses, and have nothing to say here.
    fn turns_away(&self, peer: IpAddr) -> bool {
        self.orchestrator.is_tenant_address(peer)
    }

    async fn call(&self, route: Route, call: Call) -> Result<Answer, ApiError> {
        match route {
            Route::Health => self.health(&call).await,
            Route::Live => self.live(&call),
            Route::Ready => self.ready(&call).await,
            Route::Provision => self.provision(call).await,
            Route::Update => self.update(call).await,
            Route::Rollback(tenant) => self.rollback(&tenant, &call).await,
            Route::Restart(tenant) => self.restart(&tenant, &call).await,
            Route::Stop(tenant) => self.stop(&tenant, &call).await,
            Route::Start(tenant) => self.start(&tenant, &call).await,
            Route::Teardown(tenant) => self.teardown(&tenant, &call).await,
            Route::Tenants => self.tenants(&call).await,
            Route::Status(tenant) => self.status(&tenant, &call).await,
            Route::Logs(tenant) => self.logs(&tenant, &call).await,
            Route::Images(tenant) => self.images(&tenant, &call).await,
            Route::Info => self.info(&call).await,
            Route::Cordon => self.cordon(call).await,
            Route::Uncordon => self.uncordon(&call).await,
            Route::Prune => self.prune(call).await,
            Route::OpenApi => self.openapi(&call),
        }
    }
}
