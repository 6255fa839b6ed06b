//! Why the orchestrator refused or failed: one enum that joins the errors of the rooms below.

use serde_json::{Value, json};

use super::Pruned;
use crate::backend::BackendError;
use crate::compose::{ComposeError, Location};
use crate::domain::{
    BackendName, ErrorCode, Excess, Failure, Generation, Operation, ProjectPath, Quantity, ServiceName, Subdomain,
};
use crate::policy::Refusal;
use crate::tenant_fs::{Cordon, FsError};

/// A refusal by the policy, with its place in the file.
#[derive(Debug, Clone, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LocatedRefusal {
    /// What is refused.
    #[serde(flatten)]
    pub refusal: Refusal,
    /// The file it stands in, when that is not `compose.yaml` but one that is included or extended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Its column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// Everything that can go wrong with a tenant. The messages may be shown to the client.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(transparent)]
    Compose(#[from] ComposeError),
    #[error("the policy of this host refuses {}", fields(.0))]
    Policy(Vec<LocatedRefusal>),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error("{field} cannot be done here: {reason}")]
    Unsupported { field: String, reason: String },
    #[error("together with the tenant's other files, {path} is in conflict with {other}: not both can be files")]
    FileConflict { path: ProjectPath, other: ProjectPath },
    #[error("there is no tenant {0}")]
    NoSuchTenant(Subdomain),
    #[error("tenant {subdomain} has no service {service}")]
    NoSuchService { subdomain: Subdomain, service: ServiceName },
    #[error("tenant {subdomain} is stopped: start all of it, not service {service} alone")]
    Stopped { subdomain: Subdomain, service: ServiceName },
    #[error("another operation is running on this tenant")]
    Busy(Option<Box<Operation>>),
    #[error("the subdomain belongs to another tenant id until it is torn down with purge")]
    IdMismatch,
    #[error("a tenant cannot move to another placement")]
    PlacementChange,
    #[error("backend {0} is not configured on this agent")]
    BackendNotConfigured(BackendName),
    #[error("the tenant is at generation {at}, not at {from}")]
    GenerationMismatch { at: Generation, from: Generation },
    #[error("there is no earlier generation to go back to")]
    NoPrevious,
    #[error("the tenant may not have so much: {}", excesses(.0))]
    Quota(Vec<Excess>),
    #[error("the host is full: {asked} {what} are needed, {taken} of {capacity} are taken", taken = .0.what.show(.0.taken), asked = .0.what.show(.0.asked), what = .0.what, capacity = .0.what.show(.0.capacity))]
    HostFull(HostFull),
    #[error("what would be done is not what the expected plan says; ask for a new one")]
    PlanChanged { plan_hash: String },
    #[error("the Idempotency-Key was used for another request")]
    IdempotencyMismatch,
    #[error("there is no such operation, or it is older than the agent remembers")]
    NoSuchOperation,
    #[error("the operation was cancelled")]
    Cancelled,
    #[error("the operation cannot be cancelled: {0}")]
    NotCancellable(&'static str),
    #[error("too many operations are running on this host")]
    TooManyOperations,
    #[error(
        "as many requests of the last 24 hours had an Idempotency-Key as can be remembered, and none is forgotten before its time; send this one without a key, or later"
    )]
    TooManyKeys,
    #[error("the host is cordoned and takes no new tenant{}", .0.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    HostCordoned(Cordon),
    #[error(
        "the operation has not ended by its deadline, nor its undo in time; both go on, and status tells of their end"
    )]
    Overdue,
    #[error("no container of the service is in a crash loop any more")]
    NoLoop,
    #[error("another prune is running on this host")]
    Pruning(Option<Box<Operation>>),
    #[error("the prune took too long")]
    PruneTooLong,
    #[error("{why}; what the prune had removed before is gone")]
    PruneCutShort { why: Box<Error>, pruned: Box<Pruned> },
    #[error("the agent is stopping")]
    ShuttingDown,
    #[error("an unexpected failure; the agent's log has it")]
    Internal,
}

/// What of the host is taken: CPUs in billionths, memory in bytes, tenants counted.
#[derive(Debug, Clone, Copy, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HostFull {
    /// What there is not enough of.
    pub what: Quantity,
    /// What the request needs.
    pub asked: u64,
    /// What other tenants have.
    pub taken: u64,
    /// What all tenants may have together.
    pub capacity: u64,
}

fn excesses(excesses: &[Excess]) -> String {
    let told = excesses.iter().map(|excess| {
        let Excess { limit, asked, allowed } = *excess;
        format!("{limit}: {} of at most {}", limit.show(asked), limit.show(allowed))
    });
    told.collect::<Vec<_>>().join(", ")
}

fn fields(refusals: &[LocatedRefusal]) -> String {
    let fields: Vec<&str> = refusals.iter().map(|refused| refused.refusal.field.as_str()).collect();
    fields.join(", ")
}

impl Error {
    /// The stable code of this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Compose(_) => ErrorCode::ComposeInvalid,
            Self::Policy(_) => ErrorCode::PolicyDenied,
            Self::Backend(error) => error.code(),
            Self::Fs(error) => error.code(),
            Self::Unsupported { .. } | Self::Stopped { .. } => ErrorCode::UnsupportedOnBackend,
            Self::FileConflict { .. } => ErrorCode::InvalidFilePath,
            Self::NoSuchTenant(_) | Self::NoSuchService { .. } => ErrorCode::NotFound,
            Self::Busy(_) | Self::Pruning(_) => ErrorCode::TenantBusy,
            Self::IdMismatch => ErrorCode::IdMismatch,
            Self::PlacementChange => ErrorCode::PlacementChange,
            Self::BackendNotConfigured(_) => ErrorCode::BackendNotConfigured,
            Self::GenerationMismatch { .. } | Self::NoPrevious => ErrorCode::GenerationMismatch,
            Self::Quota(_) => ErrorCode::QuotaExceeded,
            Self::HostFull(_) => ErrorCode::HostFull,
            Self::PlanChanged { .. } => ErrorCode::PlanChanged,
            Self::IdempotencyMismatch => ErrorCode::IdempotencyMismatch,
            Self::NoSuchOperation | Self::NoLoop => ErrorCode::NotFound,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::NotCancellable(_) => ErrorCode::NotCancellable,
            Self::TooManyOperations | Self::TooManyKeys => ErrorCode::RateLimited,
            Self::HostCordoned(_) => ErrorCode::HostCordoned,
            Self::Overdue | Self::PruneTooLong => ErrorCode::DeadlineExceeded,
            Self::PruneCutShort { why, .. } => why.code(),
            Self::ShuttingDown => ErrorCode::ShuttingDown,
            Self::Internal => ErrorCode::Internal,
        }
    }

    /// Whether it failed because the backend cannot be reached: the same call may succeed as soon as it can.
    pub(super) fn is_backend_away(&self) -> bool {
        matches!(self, Self::Backend(BackendError::Unavailable))
    }

    /// Whether it came before anything of the tenant was touched.
    pub(super) fn has_touched_nothing(&self) -> bool {
        !matches!(self, Self::Backend(_) | Self::Fs(_) | Self::Internal)
    }

    /// The field of the request or Compose file it is about.
    pub fn field(&self) -> Option<String> {
        match self {
            Self::Compose(error) => Some(error.field.clone()).filter(|field| !field.is_empty()),
            Self::Policy(refusals) => refusals.first().map(|first| first.refusal.field.clone()),
            Self::Backend(error) => error.field(),
            Self::Unsupported { field, .. } => Some(field.clone()),
            Self::FileConflict { path, .. } => Some(format!("files[\"{path}\"]")),
            Self::BackendNotConfigured(_) => Some("placement.backend".to_owned()),
            Self::PlanChanged { .. } => Some("expect_plan".to_owned()),
            Self::IdempotencyMismatch => Some("Idempotency-Key".to_owned()),
            Self::Quota(excesses) => excesses.first().map(|excess| format!("limits.{}", excess.limit)),
            Self::NoSuchService { .. } | Self::Stopped { .. } => Some("service".to_owned()),
            _ => None,
        }
    }

    /// Where in the Compose file it is.
    pub fn location(&self) -> Option<Location> {
        match self {
            Self::Compose(error) => error.location,
            Self::Policy(refusals) => {
                let first = refusals.first()?;
                Some(Location { line: first.line?, column: first.column? })
            }
            _ => None,
        }
    }

    /// What is told besides, as JSON.
    pub fn details(&self) -> Option<Value> {
        match self {
            Self::Policy(refusals) => Some(json!({ "refusals": refusals })),
            Self::Quota(excesses) => Some(json!({ "limits": excesses })),
            Self::HostFull(full) => Some(json!(full)),
            Self::HostCordoned(cordon) => Some(json!(cordon)),
            Self::PruneCutShort { why, pruned } => {
                let mut details = why.details().unwrap_or_else(|| json!({}));
                details["pruned"] = json!(pruned);
                Some(details)
            }
            Self::Busy(operation) | Self::Pruning(operation) => Some(json!({ "operation": operation })),
            Self::GenerationMismatch { at, .. } => Some(json!({ "generation": at })),
            Self::PlanChanged { plan_hash } => Some(json!({ "plan_hash": plan_hash })),
            Self::Backend(BackendError::NoCapacity { region, .. }) => Some(json!({ "region": region })),
            Self::Backend(backend) => backend.details().map(|details| json!(details)),
            _ => None,
        }
    }

    /// All of it, as it is told to clients.
    pub fn failure(&self) -> Failure {
        let location = self.location();
        Failure {
            code: self.code(),
            message: self.to_string(),
            field: self.field(),
            line: location.map(|place| place.line),
            column: location.map(|place| place.column),
            details: self.details(),
        }
    }
}
