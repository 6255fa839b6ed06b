//! Whether the host takes new tenants.

use serde::{Deserialize, Serialize};

use super::sealed;
use super::{FsError, TenantFs};

const CORDON: &str = "cordon.json";

/// The host takes no new tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cordon {
    /// Since when.
    pub since: jiff::Timestamp,
    /// What whoever cordoned it said about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl TenantFs {
    /// The cordon, if there is one. One that cannot be read holds all the same.
    pub fn cordoned(&self) -> Result<Option<Cordon>, FsError> {
        let file = self.host.own.read(CORDON).map_err(FsError::io("reading the cordon"))?;
        Ok(file.map(|(bytes, stat)| {
            sealed::unseal(&bytes).unwrap_or_else(|_| {
                tracing::warn!("the cordon's file is damaged; the cordon holds");
                Cordon { since: jiff::Timestamp::from_second(stat.st_mtime).unwrap_or_default(), reason: None }
            })
        }))
    }

    /// Cordons the host, durably.
    pub fn cordon(&self, cordon: &Cordon) -> Result<(), FsError> {
        self.host.write_own(CORDON, &sealed::seal(cordon)).map_err(FsError::io("writing the cordon"))
    }

    /// Ends the cordon, durably.
    pub fn uncordon(&self) -> Result<(), FsError> {
        let removed = self.host.own.remove_file(CORDON).and_then(|_| self.host.own.sync());
        removed.map_err(FsError::io("removing the cordon"))
    }
}
