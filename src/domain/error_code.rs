//! The stable words that tell a client what went wrong.

use serde::{Deserialize, Serialize};

/// A stable code of the HTTP contract. `api` maps each to a status; the text of an error may change, this does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each name is its own description; docs/api.md has the table")]
pub enum ErrorCode {
    InvalidRequest,
    InvalidSubdomain,
    InvalidFilePath,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    PayloadTooLarge,
    ComposeInvalid,
    PolicyDenied,
    QuotaExceeded,
    UnsupportedOnBackend,
    BackendNotConfigured,
    TenantBusy,
    GenerationMismatch,
    PlanChanged,
    IdempotencyMismatch,
    Cancelled,
    NotCancellable,
    IdMismatch,
    NameTaken,
    PortTaken,
    HostFull,
    HostCordoned,
    PlacementChange,
    ImageNotFound,
    RegistryAuthRequired,
    RegistryDenied,
    RegistryUnavailable,
    ServiceUnhealthy,
    ServiceExited,
    DeadlineExceeded,
    BackendUnavailable,
    BackendError,
    NoSpace,
    RateLimited,
    ShuttingDown,
    TenantDamaged,
    Internal,
}

impl ErrorCode {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::TenantBusy
                | Self::RegistryUnavailable
                | Self::DeadlineExceeded
                | Self::BackendUnavailable
                | Self::RateLimited
                | Self::ShuttingDown
        )
    }

    /// Whether it says how the host is, and not what the request is: that changes with others.
    pub fn is_of_the_host(self) -> bool {
        matches!(self, Self::HostFull | Self::HostCordoned | Self::PortTaken | Self::NoSpace)
    }
}
