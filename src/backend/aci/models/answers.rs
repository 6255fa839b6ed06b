//! What else is asked and answered: lists, operations, errors, usages, logs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Event, Provisioning, Secret, or_default, whole};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListPage<T> {
    #[serde(default = "Vec::new")]
    pub(crate) value: Vec<T>,
    /// An absolute address; none on the last page.
    #[serde(default)]
    pub(crate) next_link: Option<String>,
}

/// The body of a PATCH, which changes tags and restarts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TagsPatch<'a> {
    pub(crate) tags: &'a BTreeMap<String, String>,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct ErrorAnswer {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) error: ErrorBody,
}

/// An error; its details are errors too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct ErrorBody {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) code: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) target: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) details: Vec<ErrorBody>,
}

/// What the address in `Azure-AsyncOperation` answers. A failure may have events and no `error`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OperationStatus {
    /// The id of the resource, not of the operation.
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) name: Option<String>,
    pub(crate) status: Provisioning,
    #[serde(default)]
    pub(crate) start_time: Option<String>,
    #[serde(default)]
    pub(crate) end_time: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) properties: OperationProperties,
    #[serde(default)]
    pub(crate) error: Option<ErrorBody>,
}

/// `properties` of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct OperationProperties {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) events: Vec<Event>,
}

/// How much of something a subscription has in a location.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) name: LocalizedName,
    #[serde(default)]
    pub(crate) unit: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    pub(crate) current_value: Option<i64>,
    #[serde(default, deserialize_with = "whole")]
    pub(crate) limit: Option<i64>,
}

/// `ContainerGroups`, `StandardCores`, …, and the same for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LocalizedName {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) value: String,
    #[serde(default)]
    pub(crate) localized_value: Option<String>,
}

/// What a location can do, for one operating system, kind of address and kind of GPU.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Capability {
    #[serde(default)]
    pub(crate) resource_type: Option<String>,
    #[serde(default)]
    pub(crate) os_type: Option<String>,
    #[serde(default)]
    pub(crate) location: Option<String>,
    #[serde(default)]
    pub(crate) ip_address_type: Option<String>,
    /// `None`, or a kind.
    #[serde(default)]
    pub(crate) gpu: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) capabilities: CapabilityAmounts,
}

/// The most that one group may have.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[allow(clippy::struct_field_names, reason = "the names of the API")]
pub(crate) struct CapabilityAmounts {
    #[serde(rename = "maxCpu", default)]
    pub(crate) max_cpu: Option<f64>,
    #[serde(rename = "maxMemoryInGB", default)]
    pub(crate) max_memory_in_gb: Option<f64>,
    #[serde(rename = "maxGpuCount", default)]
    pub(crate) max_gpu_count: Option<f64>,
}

/// An image that a location has at hand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CachedImage {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) os_type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) image: String,
}

/// The last lines of a container's log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct Logs {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) content: String,
}

/// A command to run in a container, without arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exec<'a> {
    pub(crate) command: &'a str,
    pub(crate) terminal_size: TerminalSize,
}

/// Characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct TerminalSize {
    pub(crate) rows: u16,
    pub(crate) cols: u16,
}

/// Where a container's output, or a command's, can be followed. The password is the first message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attached {
    pub(crate) web_socket_uri: String,
    pub(crate) password: Secret,
}
