//! Why a backend could not do what was asked.

use serde::Serialize;

use crate::domain::{ErrorCode, ServiceName};

/// What is left of a container that failed, because undoing removes the container that said it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailureDetails {
    /// The exit code, if it has exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// The last output of its healthcheck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_output: Option<String>,
    /// Its last log lines: 20 at most, 4 KiB at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<String>,
}

/// A failure, in words that may be shown to the client. What only the operator may see is logged where it happens.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum BackendError {
    #[error("image {image} of service {service} was not found{hint}")]
    ImageNotFound { service: ServiceName, image: String, hint: &'static str },
    #[error("image {image} of service {service} was not found for platform {platform}{hint}")]
    PlatformNotFound { service: ServiceName, image: String, platform: String, hint: &'static str },
    #[error("the registry of service {service}'s image needs credentials, of the request or of this host")]
    RegistryAuthRequired { service: ServiceName },
    #[error("the registry refused access to image {image} of service {service}")]
    RegistryDenied { service: ServiceName, image: String },
    #[error("the registry of image {image} of service {service} could not be reached")]
    RegistryUnavailable { service: ServiceName, image: String },
    #[error("service {service} became unhealthy")]
    ServiceUnhealthy { service: ServiceName, details: Box<FailureDetails> },
    #[error("service {service} {what}")]
    ServiceExited { service: ServiceName, what: String, details: Box<FailureDetails> },
    #[error("the operation's deadline passed while {step}")]
    DeadlineExceeded { step: String, details: Option<Box<FailureDetails>> },
    #[error("{kind} {name} exists and belongs to somebody else")]
    NameTaken { kind: &'static str, name: String },
    #[error("host port {port} is in use")]
    PortTaken {
        service: ServiceName,
        /// The place in the service's `ports`, if it is known.
        at: Option<usize>,
        port: u16,
    },
    #[error("this host has no {what} left")]
    HostFull {
        what: String,
        /// The field that asks for it.
        field: Option<String>,
    },
    #[error("region {region} has no room for it now: {message}")]
    NoCapacity {
        /// The location that has not.
        region: String,
        message: String,
    },
    #[error("the tenant is in region {region}, though no record on this host says so")]
    Elsewhere {
        /// The location that it is in.
        region: String,
    },
    #[error("{field} cannot be done here: {reason}")]
    Unsupported { field: String, reason: String },
    #[error("service {service} does not exist in this tenant")]
    NoSuchService { service: ServiceName },
    #[error("the backend cannot be reached")]
    Unavailable,
    #[error("the operation was cancelled")]
    Cancelled,
    #[error("no space is left on the host")]
    NoSpace,
    #[error("the backend refused a request: {message}")]
    Refused { message: String },
    #[error("the last check before the engine refused {object}: {field} must be {rule}")]
    GateRefused { object: String, field: String, rule: &'static str },
    #[error("an unexpected failure while {what}; the agent's log has it")]
    Unexpected { what: &'static str },
}

impl BackendError {
    /// The stable code of this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::ImageNotFound { .. } | Self::PlatformNotFound { .. } => ErrorCode::ImageNotFound,
            Self::RegistryAuthRequired { .. } => ErrorCode::RegistryAuthRequired,
            Self::RegistryDenied { .. } => ErrorCode::RegistryDenied,
            Self::RegistryUnavailable { .. } => ErrorCode::RegistryUnavailable,
            Self::ServiceUnhealthy { .. } => ErrorCode::ServiceUnhealthy,
            Self::ServiceExited { .. } => ErrorCode::ServiceExited,
            Self::DeadlineExceeded { .. } => ErrorCode::DeadlineExceeded,
            Self::NameTaken { .. } => ErrorCode::NameTaken,
            Self::PortTaken { .. } => ErrorCode::PortTaken,
            Self::HostFull { .. } | Self::NoCapacity { .. } => ErrorCode::HostFull,
            Self::Elsewhere { .. } => ErrorCode::PlacementChange,
            Self::Unsupported { .. } => ErrorCode::UnsupportedOnBackend,
            Self::NoSuchService { .. } => ErrorCode::NotFound,
            Self::Unavailable => ErrorCode::BackendUnavailable,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::NoSpace => ErrorCode::NoSpace,
            Self::Refused { .. } => ErrorCode::BackendError,
            Self::GateRefused { .. } | Self::Unexpected { .. } => ErrorCode::Internal,
        }
    }

    /// The field of the Compose file it is about, if it is about one.
    pub fn field(&self) -> Option<String> {
        match self {
            Self::ImageNotFound { service, .. }
            | Self::PlatformNotFound { service, .. }
            | Self::RegistryAuthRequired { service, .. }
            | Self::RegistryDenied { service, .. }
            | Self::RegistryUnavailable { service, .. } => Some(format!("services.{service}.image")),
            Self::ServiceUnhealthy { service, .. } | Self::ServiceExited { service, .. } => {
                Some(format!("services.{service}"))
            }
            Self::PortTaken { service, at: Some(at), .. } => Some(format!("services.{service}.ports[{at}]")),
            Self::PortTaken { service, .. } => Some(format!("services.{service}.ports")),
            Self::HostFull { field, .. } => field.clone(),
            Self::NoCapacity { .. } | Self::Elsewhere { .. } => Some("placement.region".to_owned()),
            Self::Unsupported { field, .. } => Some(field.clone()),
            _ => None,
        }
    }

    /// What the failed container left behind.
    pub fn details(&self) -> Option<&FailureDetails> {
        match self {
            Self::ServiceUnhealthy { details, .. } | Self::ServiceExited { details, .. } => Some(details),
            Self::DeadlineExceeded { details, .. } => details.as_deref(),
            _ => None,
        }
    }
}
