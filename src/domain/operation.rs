//! One mutation of one tenant, from its start to its end.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::names::Subdomain;

/// Identifies an operation. Ordered by time of creation (UUID version 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct OperationId(uuid::Uuid);

impl OperationId {
    /// A new id for an operation that starts now.
    #[allow(clippy::new_without_default, reason = "two defaults would not be equal")]
    pub fn new() -> Self {
        Self(uuid::Uuid::now_v7())
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "named after the routes")]
pub enum OperationKind {
    Provision,
    Update,
    Rollback,
    Restart,
    Stop,
    Start,
    Teardown,
    /// Finishing or undoing, at start, what an earlier run of the agent left open.
    Recover,
    /// Removing one thing that is left over.
    Prune,
}

/// A running operation as others may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The tenant it works on.
    pub subdomain: Subdomain,
    /// What it does.
    pub kind: OperationKind,
    /// The step it is at, in words for a person, e.g. `pulling nginx:1.27`.
    pub step: String,
    /// When it began.
    pub started_at: jiff::Timestamp,
    /// When it will be given up.
    pub deadline_at: jiff::Timestamp,
}
