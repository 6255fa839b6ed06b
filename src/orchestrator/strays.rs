//! Tenants of which only their backend still knows: this host has lost its records, or the disk with them.
//!
//! Where tenants are elsewhere, what bears this agent's id and a tenant's name is that tenant, whatever this host knows. So
//! it is in list and status, its logs can be read and it can be torn down; whatever needs its specification (an update, a
//! start) first needs that again, with a provision, which takes it up where it is.
//!
//! Nothing here decides anything: before a stray is believed, the disk is asked for a record and the backend for the tenant.

use std::sync::Arc;

use dashmap::{DashMap, DashSet};
use tokio::time::Instant;

use super::bring::new_record;
use super::contained::contained;
use super::mirror::Entry;
use super::operations::Op;
use super::summary::Shape;
use super::watching::ANSWER;
use super::{Error, Orchestrator};
use crate::backend::{BackendError, Stray, TenantRef};
use crate::domain::{Adopted, BackendName, Generation, Placement, Subdomain};
use crate::tenant_fs::Record;

/// Those that are known.
#[derive(Default)]
pub(super) struct Strays {
    found: DashMap<Subdomain, Found>,
    /// Those that are being looked for.
    looking: DashSet<Subdomain>,
}

/// One of them, as it was when its backend was asked.
#[derive(Debug, Clone)]
struct Found {
    backend: BackendName,
    stray: Stray,
    as_of: Instant,
}

impl Strays {
    /// It has a record again, or is gone.
    pub(super) fn forget(&self, tenant: &Subdomain) {
        self.found.remove(tenant);
    }

    /// Those on a backend.
    pub(super) fn on(&self, backend: BackendName) -> Vec<Subdomain> {
        self.found.iter().filter(|found| found.backend == backend).map(|found| found.key().clone()).collect()
    }
}

impl Orchestrator {
    /// A backend has told of a tenant that is not in the mirror. Looks for it, once at a time.
    pub(super) fn suspect(&self, name: BackendName, tenant: &Subdomain) {
        if name.is_on_this_host() || !self.inner.mirror.strays.looking.insert(tenant.clone()) {
            return;
        }
        let (this, tenant) = (self.clone(), tenant.clone());
        let looking = async move {
            if let Err(error) = contained(this.look_for_stray(name, &tenant, false)).await {
                tracing::debug!(%tenant, %error, "whether this tenant's record is lost cannot be told");
            }
            this.inner.mirror.strays.looking.remove(&tenant);
        };
        tokio::spawn(self.inner.stopping.clone().run_until_cancelled_owned(looking));
    }

    /// Asks a backend for a tenant without a record, and remembers what it says. `held`: whoever asks works on it.
    async fn look_for_stray(&self, name: BackendName, tenant: &Subdomain, held: bool) -> Result<Option<Found>, Error> {
        let strays = &self.inner.mirror.strays;
        let as_of = Instant::now();
        let found = if self.has_no_record(tenant, held).await? {
            let asked = tokio::time::timeout(ANSWER, self.backend(name)?.find(tenant)).await;
            asked.map_err(|_| BackendError::Unavailable)??
        } else {
            None
        };
        // Somebody may have begun to bring it up, or to take it down, meanwhile.
        let found = match found {
            Some(stray) if self.has_no_record(tenant, held).await? => Some(Found { backend: name, stray, as_of }),
            _ => None,
        };
        match &found {
            Some(found) => {
                if strays.found.insert(tenant.clone(), found.clone()).is_none() {
                    tracing::warn!(%tenant, backend = %name, "there is no record of this tenant, but it is there");
                }
            }
            None => strays.forget(tenant),
        }
        Ok(found)
    }

    /// Whether nothing on this host tells of a tenant, and nobody else works on it.
    async fn has_no_record(&self, tenant: &Subdomain, held: bool) -> Result<bool, Error> {
        let is_known = || {
            self.inner.mirror.tenants.contains_key(tenant)
                || !held
                    && (self.inner.operations.current(tenant).is_some() || self.inner.degraded.contains_key(tenant))
        };
        Ok(!is_known() && self.record(tenant).await?.is_none() && !is_known())
    }

    /// The tenant that this is, though there is no record of it. With `now` the backends are asked, else they are only as far
    /// as their watch does not tell. One that is away is not waited for: it must not keep a question about nobody open.
    async fn stray(&self, tenant: &Subdomain, now: bool, held: bool) -> Result<Option<Found>, Error> {
        let elsewhere = self.inner.backends.keys().copied().filter(|name| !name.is_on_this_host());
        for name in elsewhere {
            let Some(link) = self.inner.mirror.links.get(&name) else { continue };
            let (in_step, failures) = {
                let standing = link.standing.borrow();
                (standing.in_step.is_some_and(|as_of| as_of.elapsed() <= link.fresh_for), standing.failures)
            };
            let is_default = name == self.inner.settings.default_backend;
            if in_step && !now {
                let known = self.inner.mirror.strays.found.get(tenant).map(|found| found.clone());
                if let Some(found) = known.filter(|found| found.backend == name) {
                    return Ok(Some(found));
                }
                continue;
            }
            if !in_step && failures > 0 && !is_default {
                continue;
            }
            match self.look_for_stray(name, tenant, held).await {
                Ok(None) => {}
                Err(error) if !is_default => {
                    tracing::debug!(%tenant, %error, "whether this tenant's record is lost cannot be told");
                }
                found => return found,
            }
        }
        Ok(None)
    }

    /// The same, as status and list show tenants.
    pub(super) async fn stray_entry(&self, tenant: &Subdomain, now: bool) -> Result<Option<Entry>, Error> {
        Ok(self.stray(tenant, now, false).await?.map(|found| Entry::of_stray(tenant, found)))
    }

    /// The one that an operation is about: where it is, and what its backend knows it by.
    pub(super) async fn stray_of(&self, op: &Op) -> Result<Option<(BackendName, TenantRef)>, Error> {
        let found = self.stray(op.tenant(), true, true).await?;
        Ok(found.map(|found| (found.backend, self.stray_ref(op.tenant(), &found.stray))))
    }

    /// Whether a backend has a tenant of which there is no record, or cannot say.
    pub(super) async fn may_be_there(&self, tenant: &Subdomain) -> bool {
        for name in self.inner.backends.keys().copied().filter(|name| !name.is_on_this_host()) {
            if !matches!(self.look_for_stray(name, tenant, true).await, Ok(None)) {
                return true;
            }
        }
        false
    }

    /// All that are known, but for those that somebody is bringing up or taking down.
    pub(super) fn stray_entries(&self) -> Vec<(Subdomain, Entry)> {
        let known = self.inner.mirror.strays.found.iter().map(|found| (found.key().clone(), found.clone()));
        let known: Vec<(Subdomain, Found)> = known.collect();
        let is_stray = |tenant: &Subdomain| {
            self.inner.operations.current(tenant).is_none() && !self.inner.mirror.tenants.contains_key(tenant)
        };
        let strays = known.into_iter().filter(|(tenant, _)| is_stray(tenant));
        strays
            .map(|(tenant, found)| {
                let entry = Entry::of_stray(&tenant, found);
                (tenant, entry)
            })
            .collect()
    }

    /// What a backend knows a stray by.
    fn stray_ref(&self, tenant: &Subdomain, stray: &Stray) -> TenantRef {
        TenantRef {
            agent: self.inner.fs.agent_id().clone(),
            subdomain: tenant.clone(),
            id: stray.id.clone(),
            region: stray.region.clone(),
            adopted: Adopted::default(),
        }
    }

    /// Where a tenant is and what its backend knows it by, whether or not its record is lost.
    pub(super) async fn whereabouts(
        &self,
        tenant: &Subdomain,
    ) -> Result<(BackendName, TenantRef, Option<Record>), Error> {
        let is_coming = || self.inner.mirror.tenants.get(tenant).is_some_and(|entry| entry.is_live());
        let there = self.record(tenant).await?.filter(|record| record.is_live() || is_coming());
        match there {
            Some(record) => Ok((record.backend, self.tenant_ref(&record), Some(record).filter(Record::is_live))),
            None => match self.stray(tenant, true, false).await? {
                Some(found) => Ok((found.backend, self.stray_ref(tenant, &found.stray), None)),
                None => Err(Error::NoSuchTenant(tenant.clone())),
            },
        }
    }
}

impl Entry {
    /// In place of a record stands what the backend says.
    fn of_stray(tenant: &Subdomain, found: Found) -> Self {
        let Found { backend, stray, as_of } = found;
        let first = Generation::NONE.next();
        let placement = Placement { backend, region: stray.region };
        let record = Record {
            generation: stray.generation.filter(|generation| *generation != Generation::NONE).unwrap_or(first),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
            ..new_record(tenant, &stray.id, &placement)
        };
        let mut entry = Self::new(&record);
        entry.is_stray = true;
        entry.shape = Some(Arc::new(Shape::of_containers(&stray.containers)));
        entry.saw_all(stray.containers, as_of);
        entry
    }
}
