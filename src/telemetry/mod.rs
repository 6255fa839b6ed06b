//! What the agent tells about itself and its machine: the log, the metrics, the numbers of the host. Log events go to
//! standard error, so that standard output belongs to the commands.

pub mod host;
mod log;
mod metrics;

pub use log::{LogFilter, LogFormat, init, log_panics};
pub use metrics::{Counted, Fact, Family, FamilyKind, Metrics, Present};
