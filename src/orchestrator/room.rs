//! Whether the host has room for a tenant: slots, memory and CPUs, summed over the records of all tenants and over what is
//! being brought up right now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::HostFull;
use super::load::Loaded;
use super::{Error, Orchestrator};
use crate::domain::{Demand, Generation, NANO_CPUS, Quantity, Subdomain};
use crate::tenant_fs::Record;

/// What operations have been promised and no record says yet.
#[derive(Default)]
pub(super) struct Claims {
    /// Held while records are summed, so that two tenants are not promised the same room.
    choosing: tokio::sync::Mutex<()>,
    open: Arc<Mutex<BTreeMap<Subdomain, Demand>>>,
}

/// Room for one operation; given back when this is dropped.
pub(super) struct Claim {
    tenant: Subdomain,
    open: Arc<Mutex<BTreeMap<Subdomain, Demand>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.tenant);
    }
}

impl Claims {
    fn open(&self) -> BTreeMap<Subdomain, Demand> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Orchestrator {
    /// Claims room for what a tenant is to become. None when it needs no more than it has: that is never refused.
    pub(super) async fn claim(&self, record: &Record, loaded: &Loaded) -> Result<Option<Claim>, Error> {
        let (demand, has) = (loaded.demand, record.demand);
        let live = !record.kept && record.generation != Generation::NONE;
        let grows = demand.reserved_memory > has.reserved_memory || demand.reserved_nano_cpus > has.reserved_nano_cpus;
        if live && !grows {
            return Ok(None);
        }
        if !live && let Some(cordon) = self.cordoned() {
            return Err(Error::HostCordoned(cordon));
        }
        let settings = &self.inner.settings;
        // The size of a host does not change while the agent runs.
        let host = self.backend(record.backend)?.host();
        let size = self.inner.host_size.get_or_try_init(|| async {
            let host = host.await?;
            Ok::<_, Error>((host.memory, host.cpus))
        });
        let &(memory, cpus) = size.await?;

        let claims = &self.inner.claims;
        let _one_at_a_time = claims.choosing.lock().await;
        let tenants = self.disk(crate::tenant_fs::TenantFs::tenants).await?;
        let mut others: BTreeMap<Subdomain, Demand> = tenants
            .into_iter()
            .filter_map(|(tenant, record)| match record {
                Ok(record) if record.kept || record.generation == Generation::NONE => None,
                Ok(record) => Some((tenant, record.demand)),
                // It takes a slot whatever it needs.
                Err(_) => Some((tenant, Demand::default())),
            })
            .collect();
        for (tenant, claimed) in claims.open() {
            let entry = others.entry(tenant).or_default();
            entry.reserved_memory = entry.reserved_memory.max(claimed.reserved_memory);
            entry.reserved_nano_cpus = entry.reserved_nano_cpus.max(claimed.reserved_nano_cpus);
        }
        others.remove(&record.subdomain);

        let sum = |part: fn(&Demand) -> u64| others.values().map(part).fold(0, u64::saturating_add);
        let slots = u64::try_from(others.len()).unwrap_or(u64::MAX);
        let most = u64::try_from(settings.max_tenants).unwrap_or(u64::MAX);
        refuse_if_full(!live, Quantity::Tenants, 1, slots, Some(most))?;
        // An operator's own stacks may have more than there is, as on any Docker host; they are counted all the same.
        let confined = loaded.deployment.project.is_confined();
        let share = settings.policy.host();
        let memory = memory.map(|bytes| share.memory(bytes));
        refuse_if_full(confined, Quantity::Memory, demand.reserved_memory, sum(|d| d.reserved_memory), memory)?;
        let cpus_together = cpus.map(|cpus| share.nano_cpus(cpus));
        let (asked, taken) = (demand.reserved_nano_cpus, sum(|d| d.reserved_nano_cpus));
        refuse_if_full(confined, Quantity::Cpus, asked, taken, cpus_together)?;
        // However often CPUs are given away, no container can have more of them than there are.
        let largest = loaded.deployment.project.project().services.values().filter_map(crate::policy::nano_cpus).max();
        let there = cpus.map(|cpus| cpus.saturating_mul(NANO_CPUS));
        refuse_if_full(confined, Quantity::Cpus, largest.unwrap_or(0), 0, there)?;

        let open = Arc::clone(&claims.open);
        open.lock().unwrap_or_else(PoisonError::into_inner).insert(record.subdomain.clone(), demand);
        Ok(Some(Claim { tenant: record.subdomain.clone(), open }))
    }
}

fn refuse_if_full(counts: bool, what: Quantity, asked: u64, taken: u64, capacity: Option<u64>) -> Result<(), Error> {
    match capacity {
        Some(capacity) if counts && taken.saturating_add(asked) > capacity => {
            Err(Error::HostFull(HostFull { what, asked, taken, capacity }))
        }
        _ => Ok(()),
    }
}
