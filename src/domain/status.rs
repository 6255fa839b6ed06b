//! How a tenant is doing.

use serde::{Deserialize, Serialize};

use super::names::{ContainerId, ContainerName, ServiceName};

/// The state of a whole tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TenantState {
    /// Accepted, nothing done yet.
    Pending,
    /// An operation is bringing it up.
    Provisioning,
    /// Every service is as it should be.
    Running,
    /// Some services are not as they should be.
    Degraded,
    /// Stopped on request.
    Stopped,
    /// No service is as it should be.
    Failed,
    /// Torn down; data is kept for the same id.
    Kept,
}

/// The state of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words of the HTTP contract")]
pub enum ServiceState {
    Pending,
    Starting,
    Running,
    Healthy,
    Unhealthy,
    Restarting,
    Exited,
    Stopped,
}

/// A container's health as its healthcheck sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words of the Engine API")]
pub enum Health {
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// One container (or cloud container) of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ContainerStatus {
    /// The container's name.
    pub name: ContainerName,
    /// The container's id.
    pub id: ContainerId,
    /// The engine's word: `created`, `running`, `paused`, `restarting`, `exited`, `dead`.
    pub state: String,
    /// Its health.
    pub health: Health,
    /// The exit code, once it has exited.
    pub exit_code: Option<i64>,
    /// When it was last started.
    pub started_at: Option<jiff::Timestamp>,
    /// How often the engine's restart policy has restarted it.
    pub restart_count: u64,
    /// The image reference it was created from.
    pub image: String,
    /// Its last end came because there was no memory left for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oom_killed: bool,
    /// What its healthcheck said last while it is not healthy, at most 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_output: Option<String>,
    /// How its last runs ended, the newest last; only what the agent has seen itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub last_exits: Vec<Exit>,
    /// It ends again and again, however often it is restarted, or did so until the agent stopped it for that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub crash_loop: bool,
}

/// The end of one run of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Exit {
    /// The exit code.
    pub code: i64,
    /// When.
    pub at: jiff::Timestamp,
}

/// What a service that has not started yet waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WaitsFor {
    /// The other service.
    pub service: ServiceName,
    /// What it is to be: `service_started`, `service_healthy` or `service_completed_successfully`.
    pub condition: &'static str,
}

/// One service of the stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServiceStatus {
    /// The service's name.
    pub name: ServiceName,
    /// The sum of its containers' states.
    pub state: ServiceState,
    /// The worst health among its containers.
    pub health: Health,
    /// How many containers are wanted.
    pub replicas: u32,
    /// Why it is not as it should be, in words for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it waits for while an operation brings it up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<WaitsFor>,
    /// The containers there are.
    pub containers: Vec<ContainerStatus>,
}

/// A port under which a service can be reached from outside its networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Endpoint {
    /// The service.
    pub service: ServiceName,
    /// The container's port.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The address it is published on.
    pub host: String,
    /// The port it is published on.
    pub host_port: u16,
    /// The address behind `host` where that is a name. It may change while the name stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What a backend knows about a tenant's stack.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StackStatus {
    /// Services by name.
    pub services: Vec<ServiceStatus>,
    /// Published ports.
    pub endpoints: Vec<Endpoint>,
}

/// One image in use by a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ImageInfo {
    /// The service.
    pub service: ServiceName,
    /// The container.
    pub container: ContainerName,
    /// The reference it was created from.
    pub image: String,
    /// The image's id, `sha256:...`.
    pub id: String,
    /// The registry digest, when the image came from one.
    pub digest: Option<String>,
    /// The tag, when there is one.
    pub tag: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// When the image was built.
    pub created: Option<jiff::Timestamp>,
}
