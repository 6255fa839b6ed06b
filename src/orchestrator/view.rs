//! Questions: list, status, images, logs, info, readiness. None of them takes a tenant's lock.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use super::{Error, Orchestrator, Readiness, SystemInfo, TenantLine, TenantList, TenantStatus, Verified, summary};
use crate::backend::{LogQuery, LogStream, ObservedContainer};
use crate::domain::{Generation, ImageInfo, OperationKind, ProjectName, Subdomain, TenantState};
use crate::tenant_fs::Record;

impl Orchestrator {
    /// Every tenant, with one call to the backend for all of them.
    pub async fn list(&self) -> Result<TenantList, Error> {
        let records = self.disk(crate::tenant_fs::TenantFs::tenants).await?;
        let mut containers: BTreeMap<Subdomain, Vec<ObservedContainer>> = BTreeMap::new();
        for backend in self.inner.backends.values() {
            for container in backend.tenants().await? {
                containers.entry(container.tenant.clone()).or_default().push(container);
            }
        }
        let mut tenants = Vec::new();
        for record in records.into_iter().filter_map(|(_, record)| record.ok()) {
            let own = containers.remove(&record.subdomain).unwrap_or_default();
            tenants.push(self.line(&record, own).await);
        }
        Ok(TenantList { tenants })
    }

    async fn line(&self, record: &Record, containers: Vec<ObservedContainer>) -> TenantLine {
        let operation = self.inner.operations.current(&record.subdomain);
        let loaded = if is_up(record) { self.committed(record).await.ok() } else { None };
        let services = loaded.map_or_else(Vec::new, |loaded| {
            summary::services(loaded.deployment.project.project(), record.desired, containers)
        });
        TenantLine {
            subdomain: record.subdomain.clone(),
            id: record.id.clone(),
            project: ProjectName::of(&record.subdomain),
            backend: record.backend,
            desired: record.desired,
            state: state(record, operation.as_ref().map(|operation| operation.kind), &services),
            generation: record.generation,
            services_ready: services.iter().filter(|service| summary::is_ready(service)).count(),
            services: services.len(),
            operation,
            last_error: record.last_error.clone(),
        }
    }

    /// One tenant in detail.
    pub async fn status(&self, tenant: &Subdomain) -> Result<TenantStatus, Error> {
        let record = self.record(tenant).await?.ok_or_else(|| Error::NoSuchTenant(tenant.clone()))?;
        let operation = self.inner.operations.current(tenant);
        let (mut services, mut endpoints, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        if is_up(&record) {
            let loaded = self.committed(&record).await?;
            let observed = self.backend(record.backend)?.status(&self.tenant_ref(&record)).await?;
            endpoints = observed.iter().flat_map(|container| container.endpoints.iter().cloned()).collect();
            services = summary::services(loaded.deployment.project.project(), record.desired, observed);
            warnings.clone_from(&loaded.warnings);
        }
        Ok(TenantStatus {
            subdomain: record.subdomain.clone(),
            id: record.id.clone(),
            project: ProjectName::of(&record.subdomain),
            backend: record.backend,
            region: record.region.clone(),
            desired: record.desired,
            state: state(&record, operation.as_ref().map(|operation| operation.kind), &services),
            generation: record.generation,
            // Asked of the backend for this answer.
            age_ms: 0,
            operation,
            last_error: record.last_error,
            warnings,
            endpoints,
            services,
        })
    }

    /// The images that a tenant's containers were made from.
    pub async fn images(&self, tenant: &Subdomain) -> Result<Vec<ImageInfo>, Error> {
        let record = self.live_record(tenant).await?;
        Ok(self.backend(record.backend)?.images(&self.tenant_ref(&record)).await?)
    }

    /// The log lines of a tenant.
    pub async fn logs(&self, tenant: &Subdomain, query: &LogQuery) -> Result<LogStream, Error> {
        let record = self.live_record(tenant).await?;
        let loaded = self.committed(&record).await?;
        if let Some(unknown) = query.services.iter().find(|name| loaded.deployment.service(name).is_none()) {
            return Err(Error::NoSuchService { subdomain: tenant.clone(), service: unknown.clone() });
        }
        Ok(self.backend(record.backend)?.logs(&self.tenant_ref(&record), query).await?)
    }

    /// The agent and the machine it runs on.
    pub async fn info(&self) -> SystemInfo {
        let settings = &self.inner.settings;
        let backend = &self.inner.backends[&settings.default_backend];
        let tenants = self.disk(crate::tenant_fs::TenantFs::tenants).await.unwrap_or_default();
        let host = backend.host().await.ok();
        let verified = Verified {
            api_on_loopback: settings.listens_on.is_loopback(),
            ports_on_loopback: settings.publish_host.is_loopback(),
            subnet_pool_is_free: backend.is_pool_free().await,
            engine: host.as_ref().map(|host| host.guards).unwrap_or_default(),
            metadata_closed: None,
            host_closed: None,
        };
        SystemInfo {
            version: env!("CARGO_PKG_VERSION"),
            agent: self.inner.fs.agent_id().as_str().to_owned(),
            backend: settings.default_backend,
            policy: settings.policy.profile().as_str(),
            capabilities: backend.capabilities(),
            host,
            verified,
            tenants: tenants.iter().filter(|(_, record)| record.as_ref().is_ok_and(|record| !record.kept)).count(),
            max_tenants: settings.max_tenants,
            uptime_s: self.inner.started.elapsed().as_secs(),
        }
    }

    /// Whether a client's address is a tenant's.
    pub fn is_tenant_address(&self, address: IpAddr) -> bool {
        self.inner.backends.values().any(|backend| backend.is_tenant_address(address))
    }

    /// What `/health` and `/ready` say.
    pub async fn readiness(&self) -> Readiness {
        let backend = &self.inner.backends[&self.inner.settings.default_backend];
        let usable = backend.health().await.is_ok();
        let inventory = self.inner.inventory_done.load(Ordering::Acquire);
        let mut degraded: Vec<String> =
            self.inner.degraded.iter().map(|entry| format!("tenant:{}", entry.key())).collect();
        degraded.sort();
        if !inventory {
            degraded.insert(0, "inventory".to_owned());
        }
        if !usable {
            degraded.insert(0, "backend".to_owned());
        }
        Readiness { ready: usable && inventory && !self.inner.stopping.is_cancelled(), degraded }
    }
}

fn is_up(record: &Record) -> bool {
    !record.kept && record.generation != Generation::NONE
}

fn state(record: &Record, operation: Option<OperationKind>, services: &[crate::domain::ServiceStatus]) -> TenantState {
    use OperationKind::{Provision, Recover, Restart, Rollback, Start, Update};
    match operation {
        Some(Provision | Update | Rollback | Restart | Start | Recover) => return TenantState::Provisioning,
        _ if record.kept => return TenantState::Kept,
        _ if record.generation == Generation::NONE => return TenantState::Pending,
        _ => {}
    }
    summary::tenant_state(record.desired, services)
}
