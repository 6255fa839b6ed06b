//! Whether there is room for a tenant: slots, memory and CPUs, summed over the records of all tenants of its backend and
//! over what is being brought up there right now. What is not on this host has slots only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::HostFull;
use super::load::Loaded;
use super::{Error, Orchestrator};
use crate::domain::{BackendName, Demand, NANO_CPUS, Quantity, Subdomain};
use crate::tenant_fs::{Listed, Record};

/// What operations have been promised and no record says yet.
#[derive(Default)]
pub(super) struct Claims {
    /// Held while records are summed, so that two tenants are not promised the same room.
    choosing: tokio::sync::Mutex<()>,
    open: Arc<Mutex<BTreeMap<Subdomain, (BackendName, Demand)>>>,
}

/// What of the host is taken, and how much there is: memory in bytes, CPUs in billionths. None where it cannot be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Room {
    /// Tenants besides this one.
    pub tenants: u64,
    /// The most there may be.
    pub max_tenants: u64,
    /// Memory that others have.
    pub memory_taken: u64,
    /// What all may have together.
    pub memory: Option<u64>,
    /// CPUs that others have.
    pub nano_cpus_taken: u64,
    /// What all may have together.
    pub nano_cpus: Option<u64>,
}

/// Room for one operation; given back when this is dropped.
pub(super) struct Claim {
    tenant: Subdomain,
    open: Arc<Mutex<BTreeMap<Subdomain, (BackendName, Demand)>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.tenant);
    }
}

impl Claims {
    /// What is promised right now on one backend.
    pub(super) fn open(&self, backend: BackendName) -> BTreeMap<Subdomain, Demand> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let there = open.iter().filter(|(_, (on, _))| *on == backend);
        there.map(|(tenant, (_, demand))| (tenant.clone(), *demand)).collect()
    }
}

impl Orchestrator {
    /// Claims room for what a tenant is to become. None when it needs no more than it has: that is never refused.
    pub(super) async fn claim(&self, record: &Record, loaded: &Loaded) -> Result<Option<Claim>, Error> {
        if !is_growing(record, loaded) {
            return Ok(None);
        }
        let claims = &self.inner.claims;
        // Asked before the lock is taken: the engine may be slow.
        self.host_size(record).await?;
        let _one_at_a_time = claims.choosing.lock().await;
        if self.look_for_room(record, loaded).await?.is_none() {
            return Ok(None);
        }
        let open = Arc::clone(&claims.open);
        open.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.subdomain.clone(), (record.backend, loaded.demand));
        Ok(Some(Claim { tenant: record.subdomain.clone(), open }))
    }

    /// The memory and the CPUs of this host, which do not change while the agent runs. Elsewhere nobody has to share them.
    async fn host_size(&self, record: &Record) -> Result<(Option<u64>, Option<u64>), Error> {
        if !record.backend.is_on_this_host() {
            return Ok((None, None));
        }
        let host = self.backend(record.backend)?.host();
        let size = self.inner.host_size.get_or_try_init(|| async {
            let host = host.await?;
            Ok::<_, Error>((host.memory, host.cpus))
        });
        size.await.copied()
    }

    /// The room there is, or the refusal. None when the tenant needs no more than it has.
    pub(super) async fn look_for_room(&self, record: &Record, loaded: &Loaded) -> Result<Option<Room>, Error> {
        let demand = loaded.demand;
        let live = record.is_live();
        if !is_growing(record, loaded) {
            return Ok(None);
        }
        if !live && let Some(cordon) = self.cordoned() {
            return Err(Error::HostCordoned(cordon));
        }
        let settings = &self.inner.settings;
        let (memory, cpus) = self.host_size(record).await?;
        let claims = &self.inner.claims;
        let tenants = self.disk(crate::tenant_fs::TenantFs::tenants).await?;
        let mut others = demands(tenants, record.backend);
        promise(&mut others, claims.open(record.backend));
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
        let services = &loaded.deployment.project.project().services;
        let largest = services.values().filter_map(|service| crate::policy::nano_cpus(service)).max();
        let there = cpus.map(|cpus| cpus.saturating_mul(NANO_CPUS));
        refuse_if_full(confined, Quantity::Cpus, largest.unwrap_or(0), 0, there)?;

        Ok(Some(Room {
            tenants: slots,
            max_tenants: most,
            memory_taken: sum(|d| d.reserved_memory),
            memory,
            nano_cpus_taken: taken,
            nano_cpus: cpus_together,
        }))
    }
}

/// What each tenant that takes a slot of a backend needs, by the records.
pub(super) fn demands(tenants: Vec<Listed>, backend: BackendName) -> BTreeMap<Subdomain, Demand> {
    let taking = tenants.into_iter().filter_map(|(tenant, record)| match record {
        Ok(record) if !record.is_live() || record.backend != backend => None,
        Ok(record) => Some((tenant, record.demand)),
        // It takes a slot whatever it needs, and wherever it is.
        Err(_) => Some((tenant, Demand::default())),
    });
    taking.collect()
}

/// Adds what has been promised: to a tenant that is being changed the larger of what it has and what it is to have.
pub(super) fn promise(demands: &mut BTreeMap<Subdomain, Demand>, claims: BTreeMap<Subdomain, Demand>) {
    for (tenant, claimed) in claims {
        let entry = demands.entry(tenant).or_default();
        entry.reserved_memory = entry.reserved_memory.max(claimed.reserved_memory);
        entry.reserved_nano_cpus = entry.reserved_nano_cpus.max(claimed.reserved_nano_cpus);
    }
}

/// Whether a tenant needs more of the host than it has.
fn is_growing(record: &Record, loaded: &Loaded) -> bool {
    let (demand, has) = (loaded.demand, record.demand);
    let grows = demand.reserved_memory > has.reserved_memory || demand.reserved_nano_cpus > has.reserved_nano_cpus;
    grows || !record.is_live()
}

fn refuse_if_full(counts: bool, what: Quantity, asked: u64, taken: u64, capacity: Option<u64>) -> Result<(), Error> {
    match capacity {
        Some(capacity) if counts && taken.saturating_add(asked) > capacity => {
            Err(Error::HostFull(HostFull { what, asked, taken, capacity }))
        }
        _ => Ok(()),
    }
}
