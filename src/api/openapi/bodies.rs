//! The bodies of requests, as types to make schemas from. What reads them (`requests`) is written by hand, so that errors
//! name their place; a test in `generate` compares the members.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::{BackendName, ServiceName, Subdomain, TenantId};
use crate::orchestrator::LeftOverKind;

/// A file: its text, or an object.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) enum File {
    /// The file's text; mode 0644.
    Text(String),
    /// The file's content and mode.
    Object(FileObject),
}

/// A file with a mode, or with a content that is no text.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FileObject {
    /// The content as text; this or `base64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The content in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// Permission bits as octal digits, such as `"0600"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
}

/// Where a tenant is to run; fixed for its life.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Placement {
    backend: BackendName,
    /// The cloud location, where the backend has such; its first when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// Whether the next region is tried when a new tenant finds no room in this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<bool>,
}

/// Credentials for one registry, for this request only.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct RegistryCredentials {
    /// Its host, with the port if it is not the default, such as `registry.example.com:5000`.
    registry: String,
    username: String,
    password: String,
}

/// The most that a tenant may have in sum; what is absent is not limited by the request.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    containers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volumes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids: Option<u64>,
    /// A number of CPUs, with a fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<f64>,
}

/// What a tenant is to be.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ProvisionBody {
    id: TenantId,
    subdomain: Subdomain,
    /// The Compose file, 1 MiB at most.
    compose_content: String,
    /// The env file (`.env`), 1 MiB at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    env_content: Option<String>,
    /// The whole set of config files, by path.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<BTreeMap<String, File>>,
    /// Active profiles; `*` is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    profiles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<Placement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_auth: Option<Vec<RegistryCredentials>>,
    /// Take over what `docker compose -p q8-{subdomain} up -d`, or another agent for the same id, has made.
    #[serde(skip_serializing_if = "Option::is_none")]
    adopt: Option<bool>,
    /// The `plan_hash` of a plan: 409 `PLAN_CHANGED` if anything else would be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    expect_plan: Option<String>,
}

/// What is to change; what is absent stays as it was accepted.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct UpdateBody {
    subdomain: Subdomain,
    #[serde(skip_serializing_if = "Option::is_none")]
    compose_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_content: Option<String>,
    /// Merged per path; null deletes.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<BTreeMap<String, Option<File>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profiles: Option<Vec<String>>,
    /// Pull and recreate these only; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Vec<ServiceName>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    /// Pull images even when they are there; true when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pull: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_auth: Option<Vec<RegistryCredentials>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect_plan: Option<String>,
}

/// Why the host takes no new tenant.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct CordonBody {
    /// One line of 200 bytes at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What is to be removed of what is left over.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct PruneBody {
    /// Only say what there is; true when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    /// What to look for; everything when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    kinds: Option<Vec<LeftOverKind>>,
    /// The volumes that may go, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    volumes: Option<Vec<String>>,
}
