//! What is mounted into a service's containers, and the top-level volumes.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::domain::{ObjectKey, ObjectName, ServiceName};

/// One entry of a service's `volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute, clean path in the container.
    pub target: String,
    /// What the file says; none when it says nothing (the engine then mounts read-write).
    pub read_only: Option<bool>,
    /// Docker Desktop's hint, without effect on Linux.
    pub consistency: Option<String>,
    /// The file has the options of its type (`bind`, `volume`, …), if only empty ones, as the short syntax has.
    pub has_options: bool,
}

/// What a [`Mount`] mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub enum MountSource {
    /// A volume of the top-level `volumes`.
    Volume {
        key: ObjectKey,
        nocopy: bool,
        subpath: Option<String>,
        labels: BTreeMap<String, String>,
        /// Options of a bind, which may stand here too: printed, without effect on a volume.
        propagation: Option<String>,
        /// As `propagation`.
        selinux: Option<String>,
    },
    /// A volume that belongs to the container alone.
    Anonymous { nocopy: bool, labels: BTreeMap<String, String> },
    /// A path of the host.
    Bind {
        /// Absolute and clean; a path that begins with `~` is as written.
        source: String,
        create_host_path: bool,
        propagation: Option<String>,
        selinux: Option<String>,
        /// `enabled`, `disabled`, `writable` or `readonly`.
        recursive: Option<String>,
    },
    /// Memory.
    Tmpfs { size: Option<u64>, mode: Option<u32> },
    /// The content of an image (Engine API 1.48).
    Image { source: String, subpath: Option<String> },
    /// `npipe` (Windows) or `cluster` (a swarm): no backend mounts these.
    Foreign { kind: String, source: Option<String>, options: Option<Value> },
}

/// One entry of the `tmpfs` attribute: `path` or `path:options`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TmpfsMount {
    /// Absolute path in the container, as written.
    pub path: String,
    /// Options of the mount, as for `mount -o`.
    pub options: String,
}

/// One entry of `volumes_from`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumesFrom {
    /// Whose volumes.
    pub source: VolumesFromSource,
    /// `ro` or `rw`, when the file says so.
    pub mode: Option<String>,
}

/// Whose volumes `volumes_from` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumesFromSource {
    /// Another service's.
    Service(ServiceName),
    /// Some container's.
    Container(String),
}

/// A top-level volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct Volume {
    /// The real name: `{project}_{key}` unless the file gives one (an external one: its key).
    pub name: ObjectName,
    pub external: bool,
    pub driver: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}
