//! Tenants that were recovered a moment ago. What the engine was making for one when its caller died may appear after the
//! recovery, and the agent that has to look for it may be another one by then: after an undone first provision nothing else
//! would know of the tenant.

use serde::{Deserialize, Serialize};

use super::{FsError, Record, TenantFs, sealed};
use crate::crash;
use crate::domain::Subdomain;

pub(super) const LATE_DIR: &str = "late";

/// What has to be known to look for late objects of a tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Late {
    /// The record before the recovery.
    pub record: Record,
    /// What the open operation noted for its undo.
    pub undo: serde_json::Value,
}

impl TenantFs {
    /// Notes that a tenant has to be looked at again, in place of an older note.
    pub fn note_late(&self, late: &Late) -> Result<(), FsError> {
        let _step = crash::step("late");
        let noting = FsError::io("noting a recovery");
        let name = late.record.subdomain.as_str();
        let written = self.host.workshop.write(&self.host.late, name, &sealed::seal(late), 0o600, None);
        written.and_then(|()| self.host.late.sync()).map_err(noting)
    }

    /// The tenants that have to be looked at again. A note that is damaged is one about nothing.
    pub fn late(&self) -> Result<Vec<Late>, FsError> {
        let reading = FsError::io("reading the notes about recoveries");
        let mut found = Vec::new();
        for name in self.host.late.names().map_err(&reading)? {
            let name = name.map_err(&reading)?;
            match self.host.late.read(name.as_c_str()).map_err(&reading)?.map(|(bytes, _)| sealed::unseal(&bytes)) {
                Some(Ok(late)) => found.push(late),
                Some(Err(_)) => tracing::warn!("a note about a recovery is damaged"),
                None => {}
            }
        }
        Ok(found)
    }

    /// It has been looked at for long enough.
    pub fn forget_late(&self, tenant: &Subdomain) -> Result<(), FsError> {
        let _step = crash::step("forget_late");
        let removed = self.host.late.remove_file(tenant.as_str()).and_then(|_| self.host.late.sync());
        removed.map_err(FsError::io("removing a note about a recovery"))
    }
}
