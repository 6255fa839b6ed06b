//! What a service's containers run, and when it counts as well.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::domain::ServiceName;

/// Compose Specification, `pull_policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// Before every apply.
    Always,
    /// The image must be there already.
    Never,
    /// When the image is not there: the default.
    Missing,
    /// `build`: no backend does it.
    Build,
    /// When what is there was pulled so long ago: `daily`, `weekly`, `every_<duration>`, `refresh`.
    Refresh {
        /// The word in the file.
        word: String,
        /// The age from which it is pulled again.
        after: Duration,
    },
}

/// Compose Specification, `restart`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never: the default.
    No,
    /// Whenever it ends.
    Always,
    /// When it ends with another code than 0, so many times at most.
    OnFailure(Option<u32>),
    /// Whenever it ends, unless somebody stopped it.
    UnlessStopped,
}

/// When a dependent may start (Compose Specification, `depends_on.condition`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::enum_variant_names, reason = "the words of the specification")]
pub enum Condition {
    /// Its containers run.
    ServiceStarted,
    /// Its containers are healthy.
    ServiceHealthy,
    /// Its containers have exited with code 0.
    ServiceCompletedSuccessfully,
}

impl Condition {
    /// The word of the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceStarted => "service_started",
            Self::ServiceHealthy => "service_healthy",
            Self::ServiceCompletedSuccessfully => "service_completed_successfully",
        }
    }
}

/// Compose Specification, `healthcheck`. Absent members keep the image's or the engine's values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", text]` or `["NONE"]`; none keeps the image's test.
    pub test: Option<Vec<String>>,
    /// Switches the image's healthcheck off, whatever `test` says.
    pub disable: bool,
    /// Time between two checks.
    pub interval: Option<Duration>,
    /// Time after which a check has failed.
    pub timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
    /// Time in which failures do not count.
    pub start_period: Option<Duration>,
    /// Time between two checks within the start period (Engine API 1.44).
    pub start_interval: Option<Duration>,
}

impl Healthcheck {
    /// Whether it switches the image's healthcheck off.
    pub fn is_disabled(&self) -> bool {
        self.disable || self.test.as_ref().is_some_and(|test| test.first().is_some_and(|word| word == "NONE"))
    }
}

/// Compose Specification, `post_start` and `pre_stop`: a command that runs inside a running container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the attributes of the Compose Specification, under their own names")]
pub struct Hook {
    pub command: Vec<String>,
    pub user: Option<String>,
    pub privileged: bool,
    pub working_dir: Option<String>,
    /// Added to the container's own.
    pub environment: BTreeMap<String, Option<String>>,
}

/// `pid`, `ipc`, `uts`, `userns_mode` and `cgroup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// The host's.
    Host,
    /// Its own.
    Private,
    /// Its own, and others may join it (`ipc` only).
    Shareable,
    /// None at all (`ipc` only).
    None,
    /// Another service's.
    Service(ServiceName),
    /// Some container's.
    Container(String),
}

/// Compose Specification, `ulimits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ulimit {
    /// The limit in force.
    pub soft: i64,
    /// What the container may raise it to.
    pub hard: i64,
    /// Written as one number for both.
    pub is_single: bool,
}

/// Compose Specification, `logging`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "self-explaining")]
pub struct Logging {
    pub driver: Option<String>,
    pub options: BTreeMap<String, String>,
}
