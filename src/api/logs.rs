//! Relays log lines to a client: text or NDJSON, in bounded memory, however slow the client is.
//!
//! ```text
//! backend stream --> task: render into a block --> channel of one --> hyper --> client
//!                    a block leaves at 32 KiB or 20 ms after its first line
//! ```
//! A client that reads slowly fills the channel; then the task does not read on, so the engine waits too. One that takes
//! nothing for [`STALL`] is dropped: its place and the connections to the engine are given back at once, and a last line says
//! so if it ever reads on. A chunk per line would cost twice the CPU time of these blocks.

mod places;

pub(super) use places::Places;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::access_log::RequestId;
use super::error::{ApiError, ErrorBody};
use super::respond::Body;
use crate::backend::{GapReason, LogCursor, LogEvent, LogGap, LogLine, LogSource, LogStream, LogStreamKind};
use crate::domain::{ContainerName, ErrorCode, ServiceName, Subdomain};

const BLOCK: usize = 32 * 1024;
const PATIENCE: Duration = Duration::from_millis(20);
/// How long a client may take nothing. Shorter than the deadline of its connection, so that it may yet read why.
const STALL: Duration = Duration::from_secs(10);
/// How long a client that has been dropped may take to read on.
const LAST_WORD: Duration = Duration::from_secs(60);

/// How lines look to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `service-1 | line`, with the time before it if wanted.
    Text {
        /// Begin each line with its time.
        timestamps: bool,
    },
    /// One JSON object a line.
    Ndjson,
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text { .. } => "text/plain; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

/// How a stream is told to a client.
pub(super) struct Telling {
    /// Whose log it is.
    pub(super) tenant: Subdomain,
    /// What was told before: the cursor that the client has given.
    pub(super) cursor: LogCursor,
    /// How lines look.
    pub(super) format: Format,
    /// For errors.
    pub(super) request_id: RequestId,
}

/// Starts the relay. It ends with the stream, with the client or with the server; `place` is given back then.
pub(super) fn relay(lines: LogStream, telling: Telling, stop: CancellationToken, place: impl Send + 'static) -> Body {
    let (blocks, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut writer = Writer::new(telling);
        let pumped = AssertUnwindSafe(pump(lines, &mut writer, &stop, &blocks)).catch_unwind().await;
        let left = pumped.unwrap_or_else(|_| {
            // Not the end of the log: whoever follows it must not take it for that.
            writer.end_line();
            writer.error(&ApiError::internal());
            Left::Ended
        });
        drop(place);
        if matches!(left, Left::Stalled) {
            tracing::info!(tenant = %writer.telling.tenant, "a log reader that took nothing was dropped");
            let why = format!("nothing was read for {} s; go on from the last cursor", STALL.as_secs());
            writer.error(&ApiError::new(ErrorCode::DeadlineExceeded, why));
        }
        writer.finish();
        if !matches!(left, Left::Gone) && !writer.out.is_empty() {
            // Nobody left to read it is no failure.
            let _ = timeout(LAST_WORD, blocks.send(writer.take())).await;
        }
    });
    Blocks(receiver).boxed_unsync()
}

/// Why the relay ended.
enum Left {
    /// There is no more; what the writer still holds is the end.
    Ended,
    /// The client took nothing for too long.
    Stalled,
    /// The client has gone.
    Gone,
}

/// Fills blocks until the stream ends, the client has gone or stalls, or the server stops.
async fn pump(
    mut lines: LogStream,
    writer: &mut Writer,
    stop: &CancellationToken,
    blocks: &mpsc::Sender<Bytes>,
) -> Left {
    let mut due: Option<Instant> = None;
    loop {
        let flush = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            // In this order: a stream that is always ready must starve neither the stop nor the clock.
            biased;
            () = blocks.closed() => return Left::Gone,
            () = stop.cancelled() => {
                writer.error(&ApiError::new(ErrorCode::ShuttingDown, "the agent is stopping"));
                return Left::Ended;
            }
            () = flush => {
                due = None;
                if let Some(left) = hand_over(writer, blocks).await {
                    return left;
                }
                continue;
            }
            next = lines.next() => next,
        };
        match next {
            Some(Ok(events)) => {
                for event in events {
                    writer.event(event);
                    if writer.out.len() >= BLOCK {
                        due = None;
                        if let Some(left) = hand_over(writer, blocks).await {
                            return left;
                        }
                    }
                }
                if !writer.out.is_empty() {
                    due = due.or_else(|| Some(Instant::now() + PATIENCE));
                }
            }
            Some(Err(error)) => {
                writer.error(&ApiError::from(&error));
                return Left::Ended;
            }
            None => return Left::Ended,
        }
    }
}

/// Gives the client what has been written, or says why it cannot be given.
async fn hand_over(writer: &mut Writer, blocks: &mpsc::Sender<Bytes>) -> Option<Left> {
    match timeout(STALL, blocks.reserve()).await {
        Ok(Ok(room)) => {
            room.send(writer.take());
            None
        }
        Ok(Err(_)) => Some(Left::Gone),
        Err(_) => Some(Left::Stalled),
    }
}

/// Lines as the client wants them.
struct Writer {
    telling: Telling,
    out: Vec<u8>,
    /// For the text of a cursor, and what it is made of.
    cursor: (String, Vec<u8>),
    /// The cursor has every container that is read: something has been told, which comes after all have joined.
    joined: bool,
    /// Text only: the line that stands last goes on with the next piece of this one, which has the same time.
    open: Option<(LogSource, LogStreamKind, Option<jiff::Timestamp>)>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct JsonLine<'a> {
    time: Option<jiff::Timestamp>,
    service: &'a ServiceName,
    container: &'a ContainerName,
    stream: LogStreamKind,
    line: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    cursor: Option<&'a str>,
}

/// Lines are missing here.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct JsonGap<'a> {
    gap: GapBody<'a>,
    cursor: Option<&'a str>,
}

/// The last line of a stream that did not come to its end.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct JsonError<'a> {
    #[serde(flatten)]
    error: ErrorBody<'a>,
    cursor: Option<&'a str>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct GapBody<'a> {
    service: &'a ServiceName,
    number: u32,
    container: Option<&'a ContainerName>,
    from: Option<jiff::Timestamp>,
    to: Option<jiff::Timestamp>,
    reason: GapReason,
}

impl Writer {
    fn new(telling: Telling) -> Self {
        let joined = !telling.cursor.marks().is_empty();
        Self { telling, out: Vec::new(), cursor: Default::default(), joined, open: None }
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.out).into()
    }

    fn event(&mut self, event: LogEvent) {
        match event {
            LogEvent::Joined(mark) => self.telling.cursor.join(mark),
            LogEvent::Line(line) => {
                self.joined = true;
                self.line(&line);
            }
            LogEvent::Gap(gap) => {
                self.joined = true;
                self.gap(&gap);
            }
            LogEvent::Left(source) => self.telling.cursor.leave(source),
        }
    }

    fn line(&mut self, line: &LogLine) {
        match self.telling.format {
            Format::Text { timestamps } => self.text(line, timestamps),
            Format::Ndjson => {
                self.telling.cursor.told(line);
                let text = readable(&line.line);
                self.json(|cursor| JsonLine {
                    time: line.time,
                    service: &line.origin.service,
                    container: &line.origin.container,
                    stream: line.stream,
                    line: &text,
                    partial: line.partial,
                    cursor,
                });
            }
        }
    }

    fn text(&mut self, line: &LogLine, timestamps: bool) {
        let origin = &line.origin;
        let this = Some((origin.source, line.stream, line.time));
        if self.open != this {
            self.finish();
            if timestamps && let Some(time) = line.time {
                self.put(&time.to_string());
                self.put(" ");
            }
            self.put(origin.service.as_str());
            self.put("-");
            self.put(&origin.number.to_string());
            self.put(" | ");
        }
        // A terminal ends its lines with CR LF.
        let bytes = line.line.strip_suffix(b"\r").filter(|_| !line.partial).unwrap_or(&line.line);
        let text = readable(bytes);
        if memchr::memchr2(b'\r', b'\n', bytes).is_none() {
            self.put(&text);
        } else {
            // A line that breaks could pass for a line of another service.
            self.put(&text.replace(['\r', '\n'], "␤"));
        }
        self.open = this.filter(|_| line.partial);
        if !line.partial {
            self.put("\n");
        }
    }

    fn gap(&mut self, gap: &LogGap) {
        let LogGap { service, number, container, from, to, reason } = gap;
        match self.telling.format {
            Format::Text { .. } => {
                self.finish();
                let moment = |word: &str, time: &Option<jiff::Timestamp>| {
                    time.map_or_else(String::new, |time| format!(" {word} {time}"))
                };
                let (from, to) = (moment("after", from), moment("before", to));
                let why = match reason {
                    GapReason::Rotated => "the log has been rotated",
                    GapReason::Removed => "the container has been removed",
                    GapReason::Unreadable => "the log cannot be read",
                };
                self.put(&format!("gap: lines of {service}-{number}{from}{to} are no longer held: {why}\n"));
            }
            Format::Ndjson => {
                let (container, number, from, to, reason) = (container.as_ref(), *number, *from, *to, *reason);
                let gap = GapBody { service, number, container, from, to, reason };
                self.json(|cursor| JsonGap { gap, cursor });
            }
        }
    }

    fn error(&mut self, error: &ApiError) {
        match self.telling.format {
            Format::Text { .. } => {
                self.finish();
                self.put(&format!("error: {}\n", error.message));
            }
            Format::Ndjson => {
                let request_id = self.telling.request_id.clone();
                let joined = self.joined;
                self.json(|cursor| JsonError { error: error.body(&request_id), cursor: cursor.filter(|_| joined) });
            }
        }
    }

    /// Writes what is made of the cursor as it stands.
    fn json<'a, T: Serialize>(&'a mut self, value: impl FnOnce(Option<&'a str>) -> T) {
        let Self { telling, out, cursor: (text, bytes), .. } = self;
        let fits = telling.cursor.text_over(&telling.tenant, bytes, text);
        if let Err(error) = serde_json::to_writer(&mut *out, &value(fits.then_some(text.as_str()))) {
            tracing::error!(%error, "a log line could not be written as JSON");
        }
        out.push(b'\n');
    }

    /// Ends a line that was to go on.
    fn finish(&mut self) {
        if self.open.take().is_some() {
            self.put("\n");
        }
    }

    /// What is written next begins a line, wherever the writing was broken off.
    fn end_line(&mut self) {
        match self.telling.format {
            Format::Ndjson => {
                let whole = self.out.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                self.out.truncate(whole);
            }
            Format::Text { .. } if self.open.is_none() && self.out.last().is_some_and(|byte| *byte != b'\n') => {
                self.put("\n");
            }
            Format::Text { .. } => {}
        }
    }

    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

/// UTF-8 as it is, anything else with replacement characters. Checking first is several times as fast as `from_utf8_lossy`.
fn readable(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// The client's end of the channel, as a body.
struct Blocks(mpsc::Receiver<Bytes>);

impl HttpBody for Blocks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|block| block.map(|block| Ok(Frame::data(block))))
    }
}

#[cfg(test)]
mod tests;
