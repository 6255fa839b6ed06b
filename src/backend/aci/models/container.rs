//! Containers of a group, and what an answer says about each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{RunWord, Secret, Transport, or_default, whole};

/// One container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) properties: ContainerProperties,
}

/// `properties` of a container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerProperties {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    /// In place of both the image's ENTRYPOINT and its CMD.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) environment_variables: Vec<EnvironmentVariable>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<ContainerPort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<Resources>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) volume_mounts: Vec<VolumeMount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) liveness_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) readiness_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) security_context: Option<SecurityContext>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config_map: Option<ConfigMap>,
    /// Answers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance_view: Option<ContainerInstanceView>,
}

/// A container that ends before the others start. It has no ports, probes and resources of its own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InitContainer {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) properties: InitContainerProperties,
}

/// `properties` of an init container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InitContainerProperties {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) environment_variables: Vec<EnvironmentVariable>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) volume_mounts: Vec<VolumeMount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) security_context: Option<SecurityContext>,
    /// Answers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance_view: Option<ContainerInstanceView>,
}

/// A variable with exactly one kind of value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EnvironmentVariable {
    pub(crate) name: String,
    /// Shown to everybody who may read the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    /// In no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secure_value: Option<Secret>,
    /// The name of one of `secretReferences`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secure_value_reference: Option<String>,
}

/// A port that a container listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerPort {
    pub(crate) port: u16,
    /// TCP when it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Transport>,
}

/// `resources`: the sum of the requests is what the group has and what is paid for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Resources {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) requests: ResourceAmounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<ResourceAmounts>,
}

/// CPUs in steps of 0.01, gigabytes in steps of 0.1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct ResourceAmounts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<f64>,
    #[serde(rename = "memoryInGB", skip_serializing_if = "Option::is_none")]
    pub(crate) memory_in_gb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<Gpu>,
}

/// GPUs of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Gpu {
    #[serde(default, deserialize_with = "whole")]
    pub(crate) count: Option<i64>,
    /// `K80`, `P100` or `V100`.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) sku: String,
}

/// Where a volume of the group is in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeMount {
    pub(crate) name: String,
    /// Without a colon.
    pub(crate) mount_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_only: Option<bool>,
}

/// A check, by exactly one of `exec` and `httpGet`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Probe {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exec: Option<ExecAction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http_get: Option<HttpGet>,
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) initial_delay_seconds: Option<i64>,
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) period_seconds: Option<i64>,
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) failure_threshold: Option<i64>,
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) success_threshold: Option<i64>,
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_seconds: Option<i64>,
}

/// A command that exits with 0 when all is well.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct ExecAction {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) command: Vec<String>,
}

/// A request that is answered with 200 to 399 when all is well.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpGet {
    pub(crate) port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scheme: Option<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) http_headers: Vec<HttpHeader>,
}

/// One header of a [`HttpGet`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct HttpHeader {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
}

/// `securityContext`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecurityContext {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) privileged: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_privilege_escalation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<Capabilities>,
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) run_as_user: Option<i64>,
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) run_as_group: Option<i64>,
    /// Base64 of a profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seccomp_profile: Option<String>,
}

/// Capabilities beyond or without the usual ones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Capabilities {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) add: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) drop: Vec<String>,
}

/// `configMap`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigMap {
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) key_value_pairs: BTreeMap<String, String>,
}

/// How a container is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerInstanceView {
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) restart_count: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current_state: Option<ContainerState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) previous_state: Option<ContainerState>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<Event>,
}

/// One run of a container, or the waiting for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerState {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<RunWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start_time: Option<String>,
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finish_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail_status: Option<String>,
}

/// Something that happened to a group or a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_timestamp: Option<String>,
    /// `Pulling`, `Pulled`, `Started`, `Killing`, `Unhealthy`, `FailedMount`, `BackOff`, …
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
}
