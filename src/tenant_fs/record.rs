//! What is written about a tenant: its record, its stored generations, its open operation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FsError;
use super::sealed;
use crate::domain::{
    Adopted, BackendName, Demand, DesiredState, ErrorCode, Generation, OperationId, OperationKind, ServiceName,
    Subdomain, TenantId, TenantSpec,
};

/// The format that this agent writes.
pub const RECORD_VERSION: u32 = 1;

/// What the agent knows about a tenant across restarts. Writing it is the commit of every change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Format version; a newer one than this agent knows is refused, not rewritten.
    pub version: u32,
    /// The tenant's identity.
    pub id: TenantId,
    /// Its name; always that of the directory the record is in.
    pub subdomain: Subdomain,
    /// Where it runs, fixed for its life.
    pub backend: BackendName,
    /// The cloud location, when the backend has such.
    pub region: Option<String>,
    /// Whether its services are meant to run.
    pub desired: DesiredState,
    /// Torn down: no container, but data is kept for the same id.
    pub kept: bool,
    /// The committed generation; `NONE` until a first provision has succeeded.
    pub generation: Generation,
    /// The one before it that `rollback` goes to.
    pub previous: Option<Generation>,
    /// Keyed hash of the committed specification, to recognise an identical request.
    pub fingerprint: String,
    /// What it has taken over and that says nowhere else that it is the tenant's.
    #[serde(default, skip_serializing_if = "Adopted::is_empty")]
    pub adopted: Adopted,
    /// What the committed generation needs, for the host's sums.
    #[serde(default)]
    pub demand: Demand,
    /// A hash of the rules that its containers were last confined by as a whole; nothing, if nobody knows any more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rules: String,
    /// The images, `repository@digest`, that it has been accepted with: they need not be authorised again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorised_images: Vec<String>,
    /// When the tenant was first provisioned.
    pub created_at: jiff::Timestamp,
    /// When this record was written.
    pub updated_at: jiff::Timestamp,
    /// Why the last operation failed, if it did.
    pub last_error: Option<LastError>,
    /// The operation that wrote this with its commit: after a crash it says whether that operation has finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
}

impl Record {
    /// Whether a generation of it is up or stopped: not only begun, and not merely kept.
    pub fn is_live(&self) -> bool {
        !self.kept && self.generation != Generation::NONE
    }

    /// Whether its objects are where those of another record are.
    pub fn is_where(&self, other: &Self) -> bool {
        self.backend == other.backend && self.region == other.region
    }
}

/// The last failure, for status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LastError {
    /// The stable code.
    pub code: ErrorCode,
    /// The message as the client saw it.
    pub message: String,
    /// When.
    pub at: jiff::Timestamp,
}

/// A specification with what was resolved for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredGeneration {
    /// What was asked for.
    pub spec: TenantSpec,
    /// Image ids by service, so that a rollback runs exactly these.
    pub images: BTreeMap<ServiceName, String>,
}

impl std::fmt::Debug for StoredGeneration {
    /// `TenantSpec` shows its shape only, so this is safe to log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredGeneration").field("spec", &self.spec).field("images", &self.images).finish()
    }
}

/// An operation whose effects may be half done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The operation.
    pub operation: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// The generation it brings, for provision, update and rollback.
    pub target: Option<Generation>,
    /// The one service that a restart, stop or start is about; all when none.
    #[serde(default)]
    pub service: Option<ServiceName>,
    /// What the backend needs to put back what ran before, in the backend's own words.
    pub undo: serde_json::Value,
    /// A teardown that deletes volumes and data as well.
    pub purge: bool,
    /// When it began.
    pub started_at: jiff::Timestamp,
}

/// Reads a record file of `tenant`.
pub(super) fn read_record(tenant: &Subdomain, file: &[u8]) -> Result<Record, FsError> {
    /// The one member that every format has.
    #[derive(Deserialize)]
    struct Format {
        version: u32,
    }

    let corrupt = || FsError::Corrupt { tenant: tenant.clone(), what: "record" };
    let content = sealed::open_seal(file).map_err(|_| corrupt())?;
    // The format comes first: a newer record may have members that the strict reading below would call damage.
    let Format { version } = serde_json::from_slice(content).map_err(|_| corrupt())?;
    if version > RECORD_VERSION {
        return Err(FsError::TooNew { tenant: tenant.clone(), found: version, known: RECORD_VERSION });
    }
    let record: Record = serde_json::from_slice(content).map_err(|_| corrupt())?;
    // A directory that somebody copied must not pass for a second tenant of the same identity.
    if record.subdomain == *tenant { Ok(record) } else { Err(corrupt()) }
}
