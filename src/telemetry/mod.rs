//! What the agent tells about itself: for now its log. Events go to standard error, so that standard output belongs to
//! the commands.

mod log;

pub use log::{LogFilter, LogFormat, init, log_panics};
