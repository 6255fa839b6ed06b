//! Log lines as every backend gives them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::BackendError;
use super::cursor::{LineMark, LogCursor, LogSource, Mark, Position, check, nanoseconds};
use crate::domain::{ContainerName, ServiceName};

/// Which lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Of these services; of all when empty.
    pub services: Vec<ServiceName>,
    /// How many of the last lines of each container, before `since` and `until` are looked at.
    pub tail: Tail,
    /// Go on as lines are written.
    pub follow: bool,
    /// Not before.
    pub since: Option<jiff::Timestamp>,
    /// Not after.
    pub until: Option<jiff::Timestamp>,
    /// What comes after this; then `tail` and `since` count for nothing. A container that it does not know is told from
    /// its beginning.
    pub cursor: Option<LogCursor>,
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

/// A container that writes lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOrigin {
    /// Its id.
    pub source: LogSource,
    /// Its name.
    pub container: ContainerName,
    /// Its service.
    pub service: ServiceName,
    /// Its number within the service, from 1.
    pub number: u32,
}

impl LogOrigin {
    /// Its mark in a cursor.
    pub fn at(&self, position: Position) -> Mark {
        Mark { source: self.source, service: self.service.clone(), number: self.number, position }
    }
}

/// One line, or a piece of one that is longer than a relay should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, if the backend says so.
    pub time: Option<jiff::Timestamp>,
    /// By whom.
    pub origin: Arc<LogOrigin>,
    /// The how manyeth of this time in a row in its stream, from 1.
    pub nth: u32,
    /// To which stream. A container with a terminal has standard output only.
    pub stream: LogStreamKind,
    /// The text without its line end; not always UTF-8.
    pub line: Bytes,
    /// The line goes on in the next piece.
    pub partial: bool,
}

impl LogLine {
    /// What recognises it when it is read again.
    pub fn mark(&self) -> Option<LineMark> {
        let time = nanoseconds(self.time?)?;
        Some(LineMark { time, stream: self.stream, nth: self.nth, check: check(&self.line) })
    }
}

/// Why lines after a cursor cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// The container's log has been rotated: the line at the cursor is no longer there.
    Rotated,
    /// The container is gone, and its log with it. What it wrote after the cursor, if anything, nobody knows.
    Removed,
    /// The backend cannot read the log any further, or not from where it was told: it may be damaged.
    Unreadable,
}

/// Lines that the backend no longer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGap {
    /// Whose lines.
    pub service: ServiceName,
    /// Of which of its containers, from 1.
    pub number: u32,
    /// That container's name; none when the container is gone.
    pub container: Option<ContainerName>,
    /// The time of the last line that was told, if any was.
    pub from: Option<jiff::Timestamp>,
    /// The time of the first line that is held; none when there is none.
    pub to: Option<jiff::Timestamp>,
    /// Why.
    pub reason: GapReason,
}

/// What a stream tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// A container's log is read from here on. Comes before its first line; a cursor needs it.
    Joined(Mark),
    /// A line of it.
    Line(LogLine),
    /// Lines are missing here.
    Gap(LogGap),
    /// The container is gone, all of its lines have been told or a gap says that they were not.
    Left(LogSource),
}

/// When `until` is, by a clock that says `now`: at once if it has passed.
pub(super) fn instant_of(until: jiff::Timestamp, now: jiff::Timestamp) -> Instant {
    Instant::now() + Duration::try_from(until.duration_since(now)).unwrap_or_default()
}

/// Events as they come, several at a time. An error is the last item.
pub type LogStream = BoxStream<'static, Result<Vec<LogEvent>, BackendError>>;
