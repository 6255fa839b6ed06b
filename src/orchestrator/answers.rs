//! What the orchestrator answers, in the shape of the HTTP contract.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::Error;
use crate::backend::{Capabilities, Guards, HostInfo};
use crate::domain::{
    BackendName, DesiredState, Endpoint, Generation, ImageInfo, ObjectName, Operation, OperationId, OperationRecord,
    ProjectName, ServiceStatus, Subdomain, TenantId, TenantState,
};
use crate::tenant_fs::{Cordon, LastError};

/// The answer to provision, update and rollback.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct Provisioned {
    /// `provisioned`, `updated` or `rolled_back`.
    pub status: &'static str,
    pub id: TenantId,
    pub subdomain: Subdomain,
    pub project: ProjectName,
    pub backend: BackendName,
    /// The location that it is in, which with `placement.fallback` need not be the one that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The generation that runs now.
    pub generation: Generation,
    /// Whether anything was done.
    pub changed: bool,
    /// Whether the tenant did not exist (or was only kept) before: 201 instead of 200.
    #[serde(skip)]
    pub created: bool,
    pub warnings: Vec<String>,
    pub services: Vec<ServiceStatus>,
}

/// The answer to restart, stop and start.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct Done {
    /// `restarted`, `stopped` or `started`.
    pub status: &'static str,
    pub subdomain: Subdomain,
}

/// The answer to teardown.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct TornDown {
    /// `torn_down`.
    pub status: &'static str,
    pub subdomain: Subdomain,
    /// False when there was nothing to tear down.
    pub changed: bool,
    pub kept: Kept,
}

/// The answer to any mutation.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "named after what they hold")]
pub enum Answered {
    Provisioned(Provisioned),
    Done(Done),
    TornDown(TornDown),
    Pruned(Pruned),
    Cordoned(Cordoned),
}

impl Answered {
    /// Whether the tenant did not exist before: 201 instead of 200.
    pub fn created(&self) -> bool {
        matches!(self, Self::Provisioned(provisioned) if provisioned.created)
    }
}

/// What becomes of a request for a mutation.
#[derive(Debug)]
pub enum Submitted {
    /// It has been done, or refused.
    Done {
        /// The operation; none when it was refused before there was one.
        operation: Option<OperationId>,
        /// The answer.
        answer: Result<Answered, Error>,
    },
    /// It is being done.
    Accepted {
        /// The operation as it stands.
        operation: Box<OperationRecord>,
        /// Whether an earlier request began it.
        replayed: bool,
    },
    /// An earlier request has done it.
    Replayed(Arc<OperationRecord>),
}

/// What a teardown left.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Kept {
    /// Names of volumes that are still there.
    pub volumes: Vec<ObjectName>,
    /// Whether `data/` is still there.
    pub data: bool,
    /// The archive of the config files, relative to the archive directory.
    pub archive: Option<String>,
}

/// The answer to `GET /v1/tenants`, which is put together from lines that are written already.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct TenantList {
    /// How long ago the agent last knew that everything is as is said here, in milliseconds.
    pub age_ms: u64,
    pub tenants: Vec<TenantLine>,
}

/// One tenant in the list.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct TenantLine {
    pub subdomain: Subdomain,
    /// None when its record cannot be read and nothing of it runs: then nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<TenantId>,
    pub project: ProjectName,
    pub backend: BackendName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    pub desired: DesiredState,
    pub state: TenantState,
    pub generation: Generation,
    /// Services that are as they should be, and all.
    pub services_ready: usize,
    pub services: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Why it is not as it should be, as its status has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Its backend, which is not the default one, does not answer: its state is the last that was known. The list's age is
    /// not about it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// The answer to images.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct ImageList {
    pub subdomain: Subdomain,
    /// One for each container.
    pub images: Vec<ImageInfo>,
}

/// The answer to status.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct TenantStatus {
    pub subdomain: Subdomain,
    pub id: TenantId,
    pub project: ProjectName,
    pub backend: BackendName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    pub desired: DesiredState,
    pub state: TenantState,
    pub generation: Generation,
    /// How long ago the agent last knew that its containers are as is said here, in milliseconds.
    pub age_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Why it is not as it should be, a sentence for each service that is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    pub warnings: Vec<String>,
    pub endpoints: Vec<Endpoint>,
    pub services: Vec<ServiceStatus>,
}

/// The answer to `GET /v1/system/info`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the fields of the HTTP contract")]
pub struct SystemInfo {
    /// This agent's version.
    pub version: &'static str,
    /// This agent's identity, as in the label `dev.q8.agent`.
    pub agent: String,
    /// The one for tenants that name none.
    pub backend: BackendName,
    /// All that tenants can be placed on.
    pub backends: Vec<BackendSeen>,
    pub policy: &'static str,
    pub capabilities: Capabilities,
    /// The machine behind the backend; none when it cannot be reached.
    pub host: Option<HostInfo>,
    pub verified: Verified,
    pub tenants: usize,
    pub max_tenants: usize,
    pub uptime_s: u64,
}

/// One place for tenants.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BackendSeen {
    /// Its name in `placement.backend`.
    pub name: BackendName,
    /// The locations for `placement.region`, the default first; none where it has one place only.
    pub regions: Vec<String>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Tenants that are on it, up or stopped.
    pub tenants: usize,
}

/// What the agent made sure of itself; null is what it cannot see from where it runs, and somebody else has to look after.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Verified {
    /// The API listens on a loopback address only, which no container reaches.
    pub api_on_loopback: bool,
    /// Ports without an address of their own are published on a loopback address, which no other machine reaches.
    pub ports_on_loopback: bool,
    /// The host has no route, but to tenants, into the pool of their subnets.
    pub subnet_pool_is_free: Option<bool>,
    /// What the engine says of itself.
    pub engine: Guards,
    /// Containers do not reach the cloud's metadata service. Only a packet from one of them could tell; see
    /// `scripts/firewall.sh check`.
    pub metadata_closed: Option<bool>,
    /// Containers reach no other service of the host. The same holds.
    pub host_closed: Option<bool>,
}

/// The answer to cordon and uncordon.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cordoned {
    /// `cordoned` or `uncordoned`.
    pub status: &'static str,
    /// Whether anything is another way than before.
    pub changed: bool,
    /// Since when and why; none when the host is not cordoned.
    #[serde(flatten)]
    pub cordon: Option<Cordon>,
}

/// What a prune removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each name is its own description")]
pub enum LeftOverKind {
    Container,
    Network,
    Volume,
    Image,
    Archive,
}

impl fmt::Display for LeftOverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Container => "container",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Image => "image",
            Self::Archive => "archive",
        })
    }
}

/// Something that is left over.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeftOver {
    /// What it is.
    pub kind: LeftOverKind,
    /// Its name on the backend or in the archive.
    pub name: String,
    /// The backend that it is on; none of an archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendName>,
    /// The location that it is in, where the backend has such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whose it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<Subdomain>,
    /// Its size in bytes, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether it is gone now.
    pub removed: bool,
    /// Why it is not, unless it is a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// The answer to a prune.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pruned {
    /// Whether nothing was to be removed.
    pub dry_run: bool,
    /// What is left over, in the order in which it goes.
    pub objects: Vec<LeftOver>,
    /// Backends, not the default one, of which not everything could be looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<BackendName>,
    /// Why no image is said to be left over just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images_spared: Option<&'static str>,
    /// How many of them are gone now.
    pub removed: usize,
    /// The sum of the sizes of what is gone, in bytes, as far as they are known.
    pub freed_bytes: u64,
}

impl Pruned {
    pub(super) fn add(&mut self, line: LeftOver) {
        if line.removed {
            self.removed += 1;
            self.freed_bytes += line.bytes.unwrap_or(0);
        }
        self.objects.push(line);
    }
}

/// Whether the agent can do its work.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// False answers 503.
    pub ready: bool,
    /// What does not work, a stable word each: `backend` for the default one, `inventory`, `backend:{name}` for others,
    /// `tenant:{subdomain}`.
    pub degraded: Vec<String>,
}
