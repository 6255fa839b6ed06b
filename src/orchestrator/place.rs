//! Where a tenant is to run: a backend and, where it has such, one of its regions.
//!
//! Both are fixed for the tenant's life. Only a first provision may be moved on to another region, and only if the request
//! allows it: what was begun in the one that had no room is undone before the next is tried, record and all. So a crash
//! at any moment leaves one region at most with something in it, and the record of that one.

use super::bring::Wanted;
use super::operations::Op;
use super::{Error, Orchestrator, Provisioned};
use crate::backend::BackendError;
use crate::domain::{Generation, Placement};
use crate::tenant_fs::Record;

impl Orchestrator {
    /// Which placement a request means; it cannot differ from the one that the tenant has.
    pub(super) fn placement(
        &self,
        asked: Option<Placement>,
        fallback: bool,
        existing: Option<&Record>,
    ) -> Result<Placement, Error> {
        let current = existing.map(|record| Placement { backend: record.backend, region: record.region.clone() });
        let mut placement = match (asked, current) {
            (None, None) => Placement { backend: self.inner.settings.default_backend, region: None },
            (Some(asked), None) => asked,
            (None, Some(current)) => current,
            (Some(asked), Some(current)) => {
                // A repeat of the request that was placed elsewhere means the same tenant.
                let will_do = asked.region.is_none() || asked.region == current.region || fallback;
                if asked.backend != current.backend || !will_do {
                    return Err(Error::PlacementChange);
                }
                current
            }
        };
        let regions = self.backend(placement.backend)?.regions();
        let refuse = |field: &str, reason| Err(Error::Unsupported { field: field.to_owned(), reason });
        match (&placement.region, regions) {
            (Some(_), []) => {
                return refuse("placement.region", format!("backend {} has no regions", placement.backend));
            }
            (None, []) if fallback => {
                return refuse("placement.fallback", format!("backend {} has no regions", placement.backend));
            }
            (None, [first, ..]) => placement.region = Some(first.clone()),
            (Some(region), _) if !regions.contains(region) => {
                let allowed = regions.join(", ");
                return refuse(
                    "placement.region",
                    format!("backend {} places tenants in {allowed} only", placement.backend),
                );
            }
            _ => {}
        }
        Ok(placement)
    }

    /// Brings a tenant up for the first time, in the first region that has room for it: the asked one, those after it, then
    /// those before it.
    pub(super) async fn bring_where_there_is_room(
        &self,
        op: &Op,
        mut record: Record,
        mut wanted: Wanted,
    ) -> Result<Provisioned, Error> {
        debug_assert_eq!(record.generation, Generation::NONE);
        let mut full: Vec<String> = Vec::new();
        let mut next = self.backend(record.backend)?.regions().to_vec();
        let at = next.iter().position(|region| Some(region) == record.region.as_ref());
        next.rotate_left(at.unwrap_or(0));
        let mut next = next.into_iter().skip(1);
        loop {
            let (region, message) = match self.bring(op, record.clone(), wanted.clone()).await {
                Ok(mut provisioned) => {
                    provisioned.warnings.extend(
                        full.iter().map(|region| format!("region {region} had no room; the tenant is in another one")),
                    );
                    return Ok(provisioned);
                }
                Err(Error::Backend(BackendError::NoCapacity { region, message })) => (region, message),
                Err(error) => return Err(error),
            };
            full.push(record.region.clone().unwrap_or(region));
            let failure = || BackendError::NoCapacity { region: full.join(", "), message: message.clone() };
            let Some(other) = next.next() else { return Err(failure().into()) };
            // While anything of the attempt is left, the record says where; that is put right first, by a recovery.
            if self.record(op.tenant()).await?.is_some() {
                return Err(failure().into());
            }
            op.running().open_to_cancel()?;
            op.report(&format!("region {} has no room; trying {other}", full[full.len() - 1]));
            tracing::info!(tenant = %op.tenant(), full = full.join(", "), region = other, "trying another region");
            record.region = Some(other.clone());
            wanted.spec.placement.region = Some(other);
        }
    }
}
