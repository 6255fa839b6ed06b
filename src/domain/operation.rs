//! One mutation of a tenant or of the host, from its start to its end.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error_code::ErrorCode;
use super::names::{InvalidName, Subdomain};

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

    /// Accepts the one way in which ids are written: 36 characters, lower case.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let refused = InvalidName { kind: "operation id", rule: "as it was given: a UUID in lower case with hyphens" };
        let id = uuid::Uuid::try_parse(text).map(Self).map_err(|_| refused.clone())?;
        if id.to_string() == text { Ok(id) } else { Err(refused) }
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
    /// Removing what is left over on the host; with a subdomain, one thing of it under that tenant's lock.
    Prune,
    Cordon,
    Uncordon,
}

impl OperationKind {
    /// Whether it is to end with a new generation.
    pub fn brings_generation(self) -> bool {
        matches!(self, Self::Provision | Self::Update | Self::Rollback)
    }

    /// Whether containers may be made or started for it.
    pub fn brings_up(self) -> bool {
        self.brings_generation() || matches!(self, Self::Restart | Self::Start | Self::Recover)
    }

    /// Whether it gets what is kept for a full disk, so that there can be room again.
    pub fn makes_room(self) -> bool {
        match self {
            Self::Stop | Self::Teardown | Self::Recover => true,
            // A prune needs no space, and whatever can be asked for without end would use all of it up.
            Self::Prune | Self::Cordon | Self::Uncordon => false,
            Self::Provision | Self::Update | Self::Rollback | Self::Restart | Self::Start => false,
        }
    }
}

/// A running operation as others may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The tenant it works on; none when it is the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<Subdomain>,
    /// What it does.
    pub kind: OperationKind,
    /// The step it is at, in words for a person, e.g. `pulling nginx:1.27`.
    pub step: String,
    /// When it began.
    pub started_at: jiff::Timestamp,
    /// When it will be given up.
    pub deadline_at: jiff::Timestamp,
}

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words of the HTTP contract")]
pub enum OperationState {
    Running,
    Succeeded,
    Failed,
    /// Somebody asked for its end before its commit, and it was undone.
    Cancelled,
    /// The agent ended before it did; its outcome says what became of it.
    Interrupted,
}

/// What is left of an operation that did not answer for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What it was to do has been done.
    Finished,
    /// Nothing of it stands.
    Undone,
    /// It cannot be told; a repeat makes sure.
    Unknown,
}

/// What an operation answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationResult {
    /// Whether it made the tenant.
    pub created: bool,
    /// The answer's body.
    pub body: serde_json::Value,
}

/// A failure as it is told to clients and kept for later. Everything in it may be shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The stable code.
    pub code: ErrorCode,
    /// What went wrong, for a person.
    pub message: String,
    /// The field of the request or Compose file it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Line in the Compose file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

/// How far an operation is, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counters {
    /// Steps of its plan, as far as it has one.
    pub steps: u64,
    /// Of these, the ones that are done.
    pub steps_done: u64,
    /// Images that had to be pulled.
    pub images: u64,
    /// Bytes of their layers, as far as the engine says.
    pub bytes: u64,
    /// Of these, the ones that are here.
    pub bytes_done: u64,
}

/// What recognises a repeat: keyed hashes, nothing that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepeatKey {
    /// Of the `Idempotency-Key`.
    pub key: String,
    /// Of method, path, query and body.
    pub request: String,
}

/// All that is known of an operation, as it is kept across restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// Who does what to whom since when; the step is the last one.
    #[serde(flatten)]
    pub operation: Operation,
    /// How it stands.
    pub state: OperationState,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<jiff::Timestamp>,
    /// What is left of it, if it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<OperationResult>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// How far it is or came.
    pub progress: Counters,
    /// How many events were told of it; the one of its end has the next number.
    #[serde(default)]
    pub events: u64,
    /// The request that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What recognises a repeat of that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<RepeatKey>,
}
