//! One function a route.

mod events;
mod logs;
pub(super) mod operations;
mod system;
mod tenants;

#[cfg(test)]
pub(super) use system::Probe;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::Semaphore;
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
    event_streams: Arc<Semaphore>,
    feed_readers: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Handlers {
    pub(super) fn new(orchestrator: Orchestrator, limits: Arc<Limits>, stop: CancellationToken) -> Self {
        let bodies = BodyBudget::new(&limits);
        let log_streams = Places::new(limits.log_streams, limits.log_streams_per_tenant);
        let event_streams = Arc::new(Semaphore::new(limits.event_streams));
        let feed_readers = Arc::new(Semaphore::new(limits.feed_readers));
        Self { orchestrator, limits, bodies, log_streams, event_streams, feed_readers, stop }
    }

    /// An answer that only reads: an engine that hangs must not hang its readers.
    fn reading<T>(
        &self,
        work: impl Future<Output = Result<T, orchestrator::Error>> + Send,
    ) -> impl Future<Output = Result<T, ApiError>> + Send {
        // Not `async`: that would hold the work twice, as its argument and where it waits for it.
        timeout(self.limits.read_time, work).map(|ended| match ended {
            Ok(result) => Ok(result?),
            Err(_) => Err(ApiError::new(ErrorCode::BackendUnavailable, "the backend does not answer")),
        })
    }
}

impl Endpoints for Handlers {
    /// Tenants' containers reach this host's addresses, and have nothing to say here.
    fn turns_away(&self, peer: IpAddr) -> bool {
        self.orchestrator.is_tenant_address(peer)
    }

    /// What a Main Server asks every second.
    fn at_once(&self, route: &Route, call: &Call) -> Option<Answer> {
        match route {
            _ if call.query.is_some() => None,
            Route::Status(tenant) => self.status_at_once(tenant, call),
            Route::SystemStats => self.orchestrator.stats_at_once().map(|snapshot| system::stats(&snapshot)),
            _ => None,
        }
    }

    async fn call(&self, route: Route, call: Call) -> Result<Answer, ApiError> {
        match route {
            Route::Live => self.live(&call),
            // Boxed, because together they would be as large as the largest of them, for every request.
            Route::Status(tenant) => self.status(&tenant, &call).boxed().await,
            Route::Tenants => self.tenants(&call).boxed().await,
            Route::SystemStats => self.system_stats(&call).boxed().await,
            Route::Health => self.health(&call).boxed().await,
            Route::Ready => self.ready(&call).boxed().await,
            Route::Provision => self.provision(call).boxed().await,
            Route::Update => self.update(call).boxed().await,
            Route::Rollback(_) | Route::Restart(_) | Route::Stop(_) | Route::Start(_) | Route::Teardown(_) => {
                self.change_without_body(&route, &call).boxed().await
            }
            Route::Operations => self.operations(&call),
            Route::Operation(id) => self.operation(id, &call).boxed().await,
            Route::OperationEvents(id) => self.operation_events(id, &call).boxed().await,
            Route::CancelOperation(id) => self.cancel_operation(id, &call).boxed().await,
            Route::Plan => self.plan(call).boxed().await,
            Route::Logs(tenant) => self.logs(&tenant, &call).boxed().await,
            Route::Images(tenant) => self.images(&tenant, &call).boxed().await,
            Route::TenantStats(tenant) => self.tenant_stats(&tenant, &call).boxed().await,
            Route::Info => self.info(&call).boxed().await,
            Route::Metrics => self.metrics(&call).boxed().await,
            Route::Events => self.events(&call),
            Route::Cordon => self.cordon(call).boxed().await,
            Route::Uncordon => self.uncordon(&call).boxed().await,
            Route::Prune => self.prune(call).boxed().await,
            Route::OpenApi => self.openapi(&call),
        }
    }
}
