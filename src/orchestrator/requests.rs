//! What the orchestrator is asked for, already parsed.

use std::collections::{BTreeMap, BTreeSet};

use super::LeftOverKind;
use crate::domain::{
    FileContent, Generation, Limits, OperationKind, Placement, ProjectPath, RegistryAuth, RepeatKey, ServiceName,
    Subdomain, TenantId,
};

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
    /// Whether another region will do when there is no room in that one. Of no more account once the tenant is there.
    pub fallback: bool,
    /// The most that the tenant may have.
    pub limits: Limits,
    /// Credentials for this operation.
    pub registry_auth: Vec<RegistryAuth>,
    /// Take over objects of the same project that another tool or agent made.
    pub adopt: bool,
    /// The hash of a plan: anything else than it is refused.
    pub expect_plan: Option<String>,
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
    /// The hash of a plan: anything else than it is refused.
    pub expect_plan: Option<String>,
}

/// Every way to change a tenant.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "named after the routes")]
pub enum Mutation {
    Provision(Box<ProvisionRequest>),
    Update(Box<UpdateRequest>),
    /// Back to the generation before; only if the tenant is at `from`, when that is given.
    Rollback {
        tenant: Subdomain,
        from: Option<Generation>,
    },
    Restart {
        tenant: Subdomain,
        service: Option<ServiceName>,
    },
    Stop {
        tenant: Subdomain,
        service: Option<ServiceName>,
    },
    Start {
        tenant: Subdomain,
        service: Option<ServiceName>,
    },
    /// A stop of what has been in a crash loop for too long; nobody asks for it.
    Break {
        tenant: Subdomain,
        service: ServiceName,
    },
    Teardown {
        tenant: Subdomain,
        purge: bool,
    },
}

impl Mutation {
    /// The tenant it is about.
    pub fn tenant(&self) -> &Subdomain {
        match self {
            Self::Provision(request) => &request.subdomain,
            Self::Update(request) => &request.subdomain,
            Self::Rollback { tenant, .. }
            | Self::Restart { tenant, .. }
            | Self::Stop { tenant, .. }
            | Self::Start { tenant, .. }
            | Self::Break { tenant, .. }
            | Self::Teardown { tenant, .. } => tenant,
        }
    }

    /// What it is called in records.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::Provision(_) => OperationKind::Provision,
            Self::Update(_) => OperationKind::Update,
            Self::Rollback { .. } => OperationKind::Rollback,
            Self::Restart { .. } => OperationKind::Restart,
            Self::Stop { .. } | Self::Break { .. } => OperationKind::Stop,
            Self::Start { .. } => OperationKind::Start,
            Self::Teardown { .. } => OperationKind::Teardown,
        }
    }
}

/// Every way to change the host.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "named after the routes")]
pub enum HostMutation {
    /// No dry run: that changes nothing.
    Prune(PruneRequest),
    Cordon {
        reason: Option<String>,
    },
    Uncordon,
}

impl HostMutation {
    /// What it is called in records.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::Prune(_) => OperationKind::Prune,
            Self::Cordon { .. } => OperationKind::Cordon,
            Self::Uncordon => OperationKind::Uncordon,
        }
    }
}

/// A change of a tenant or of the host.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "named after what they change")]
pub enum Change {
    Tenant(Mutation),
    Host(HostMutation),
}

impl Change {
    pub(super) fn kind(&self) -> OperationKind {
        match self {
            Self::Tenant(mutation) => mutation.kind(),
            Self::Host(mutation) => mutation.kind(),
        }
    }
}

impl From<Mutation> for Change {
    fn from(mutation: Mutation) -> Self {
        Self::Tenant(mutation)
    }
}

impl From<HostMutation> for Change {
    fn from(mutation: HostMutation) -> Self {
        Self::Host(mutation)
    }
}

/// How a change is asked for.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// The answer comes as soon as the operation is accepted.
    pub respond_async: bool,
    /// Recognises a repeat of the request.
    pub repeat: Option<RepeatKey>,
    /// The request, for the operation's record.
    pub request_id: Option<String>,
}
