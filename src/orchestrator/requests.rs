//! What the orchestrator is asked for, already parsed.

use std::collections::{BTreeMap, BTreeSet};

use super::LeftOverKind;
use crate::domain::{FileContent, Limits, Placement, ProjectPath, RegistryAuth, ServiceName, Subdomain, TenantId};

/// `POST /v1/tenants/provision`.
#[derive(Debug, Clone)]
pub struct ProvisionRequest {
    /// The tenant's identity.
    pub id: TenantId,
    /// Its name.
    pub subdomain: Subdomain,
    /// The Compose file.
    pub compose: String,
    /// The env file; empty when there is none.
    pub env: String,
    /// The whole set of config files.
    pub files: BTreeMap<ProjectPath, FileContent>,
    /// Active profiles.
    pub profiles: BTreeSet<String>,
    /// Where to run; the agent's default when none.
    pub placement: Option<Placement>,
    /// The most that the tenant may have.
    pub limits: Limits,
    /// Credentials for this operation.
    pub registry_auth: Vec<RegistryAuth>,
    /// Take over objects of the same project that another tool or agent made.
    pub adopt: bool,
}

/// `POST /v1/system/prune`.
#[derive(Debug, Clone)]
pub struct PruneRequest {
    /// Only say what is left over.
    pub dry_run: bool,
    /// What to look for; everything when empty.
    pub kinds: BTreeSet<LeftOverKind>,
    /// The volumes that may go, by name.
    pub volumes: BTreeSet<String>,
}

impl PruneRequest {
    pub(super) fn wants(&self, kind: LeftOverKind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }
}

/// `POST /v1/tenants/update`: what is none stays as accepted.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// The tenant.
    pub subdomain: Subdomain,
    /// A new Compose file.
    pub compose: Option<String>,
    /// A new env file.
    pub env: Option<String>,
    /// Files to write (`Some`) or delete (`None`), by path.
    pub files: BTreeMap<ProjectPath, Option<FileContent>>,
    /// New profiles.
    pub profiles: Option<BTreeSet<String>>,
    /// Pull and recreate these services only; all when empty.
    pub services: BTreeSet<ServiceName>,
    /// New limits.
    pub limits: Option<Limits>,
    /// Pull images even when they are there.
    pub pull: bool,
    /// Credentials for this operation.
    pub registry_auth: Vec<RegistryAuth>,
}
