//! Log lines as every backend gives them.

use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::BackendError;
use crate::domain::{ContainerName, ServiceName};

/// Which lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Of these services; of all when empty.
    pub services: Vec<ServiceName>,
    /// How many of the last lines of each container.
    pub tail: Tail,
    /// Go on as lines are written.
    pub follow: bool,
    /// Not before.
    pub since: Option<jiff::Timestamp>,
    /// Not after.
    pub until: Option<jiff::Timestamp>,
}

/// How many of a container's last lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// All that the backend still holds.
    All,
    /// So many.
    Lines(u32),
}

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "self-explaining")]
pub enum LogStreamKind {
    Stdout,
    Stderr,
}

/// One line, or a piece of one that is longer than a relay should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, if the backend says so.
    pub time: Option<jiff::Timestamp>,
    /// By which service.
    pub service: ServiceName,
    /// By which of its containers, from 1.
    pub number: u32,
    /// That container's name.
    pub container: ContainerName,
    /// To which stream. A container with a terminal has standard output only.
    pub stream: LogStreamKind,
    /// The text without its line end; not always UTF-8.
    pub line: Bytes,
    /// The line goes on in the next piece.
    pub partial: bool,
}

/// Lines as they come. An error is the last item.
pub type LogStream = BoxStream<'static, Result<LogLine, BackendError>>;
