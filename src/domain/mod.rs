//! The words of the house: names, identities, states and error codes.
//!
//! No IO and no engine or HTTP type lives here. A name exists only after `parse` has accepted it, so a
//! function that takes a [`Subdomain`] or an [`ImageRef`] needs no check of its own. That matters most for
//! whatever ends up in a request path of the Docker Engine API, where names are not escaped.

mod adopted;
mod error_code;
#[cfg(test)]
mod fuzz;
mod image;
mod limits;
mod names;
mod operation;
mod path;
pub(crate) mod platform;
mod status;
mod tenant;

pub use adopted::Adopted;
pub use error_code::ErrorCode;
pub use image::ImageRef;
pub use limits::{Demand, Excess, Limits, NANO_CPUS, Quantity};
pub use names::{
    AgentId, ContainerId, ContainerName, InvalidName, ObjectKey, ObjectName, ProjectName, ServiceName, Subdomain,
    TenantId,
};
pub use operation::{
    Counters, Failure, Operation, OperationId, OperationKind, OperationRecord, OperationResult, OperationState,
    Outcome, RepeatKey,
};
pub use path::ProjectPath;
pub use platform::{is_native, own_platform};
pub use status::{
    ContainerStatus, Endpoint, Exit, Health, ImageInfo, ServiceState, ServiceStatus, StackStatus, TenantState, WaitsFor,
};
pub use tenant::{BackendName, DesiredState, FileContent, Generation, Placement, RegistryAuth, TenantSpec};
