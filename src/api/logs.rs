//! Relays log lines to a client: text or NDJSON, in bounded memory, however slow the client is.
//!
//! ```text
//! backend stream --> task: render into a block --> channel of one --> hyper --> client
//!                    a block leaves at 32 KiB or 20 ms after its first line
//! ```
//! A client that reads slowly fills the channel; then the task does not read on, so the engine waits too. A chunk per
//! line would cost twice the CPU time of these blocks.

mod places;

pub(super) use places::Places;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::access_log::RequestId;
use super::error::ApiError;
use super::respond::Body;
use crate::backend::{LogLine, LogStream, LogStreamKind};
use crate::domain::{ContainerName, ErrorCode, ServiceName};

const BLOCK: usize = 32 * 1024;
const PATIENCE: Duration = Duration::from_millis(20);

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

/// Starts the relay. It ends with the stream, with the client or with the server; `place` is given back then.
pub(super) fn relay(
    lines: LogStream,
    format: Format,
    request_id: RequestId,
    stop: CancellationToken,
    place: impl Send + 'static,
) -> Body {
    let (blocks, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        pump(lines, Writer::new(format), &request_id, &stop, &blocks).await;
        drop(place);
    });
    Blocks(receiver).boxed_unsync()
}

/// Fills blocks until the stream ends, the client has gone or the server stops.
async fn pump(
    mut lines: LogStream,
    mut writer: Writer,
    request_id: &RequestId,
    stop: &CancellationToken,
    blocks: &mpsc::Sender<Bytes>,
) {
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
            () = blocks.closed() => return,
            () = stop.cancelled() => {
                writer.error(&ApiError::new(ErrorCode::ShuttingDown, "the agent is stopping"), request_id);
                None
            }
            () = flush => {
                due = None;
                if blocks.send(writer.take()).await.is_err() {
                    return;
                }
                continue;
            }
            next = lines.next() => next,
        };
        match next {
            Some(Ok(line)) => {
                writer.line(&line);
                if writer.out.len() >= BLOCK {
                    due = None;
                    if blocks.send(writer.take()).await.is_err() {
                        return;
                    }
                } else {
                    due = due.or_else(|| Some(Instant::now() + PATIENCE));
                }
            }
            Some(Err(error)) => {
                writer.error(&ApiError::from(&error), request_id);
                break;
            }
            None => break,
        }
    }
    drop(lines);
    writer.finish();
    if !writer.out.is_empty() {
        // Nobody left to read it is no failure.
        let _ = blocks.send(writer.take()).await;
    }
}

/// Lines as the client wants them.
struct Writer {
    format: Format,
    out: BytesMut,
    /// Text only: the line that stands last goes on with the next piece of this one.
    open: Option<(ContainerName, LogStreamKind)>,
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
}

impl Writer {
    fn new(format: Format) -> Self {
        Self { format, out: BytesMut::new(), open: None }
    }

    fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    fn line(&mut self, line: &LogLine) {
        match self.format {
            Format::Text { timestamps } => self.text(line, timestamps),
            Format::Ndjson => {
                let text = String::from_utf8_lossy(&line.line);
                self.json(&JsonLine {
                    time: line.time,
                    service: &line.service,
                    container: &line.container,
                    stream: line.stream,
                    line: &text,
                    partial: line.partial,
                });
            }
        }
    }

    fn text(&mut self, line: &LogLine, timestamps: bool) {
        let goes_on = self.open.as_ref().is_some_and(|open| *open == (line.container.clone(), line.stream));
        if !goes_on {
            self.finish();
            if timestamps && let Some(time) = line.time {
                self.put(&time.to_string());
                self.put(" ");
            }
            self.put(&format!("{}-{} | ", line.service, line.number));
        }
        // A terminal ends its lines with CR LF.
        let bytes = line.line.strip_suffix(b"\r").filter(|_| !line.partial).unwrap_or(&line.line);
        let text = String::from_utf8_lossy(bytes);
        // A line that breaks could pass for a line of another service.
        for (at, part) in text.split(['\r', '\n']).enumerate() {
            if at > 0 {
                self.put("␤");
            }
            self.put(part);
        }
        if line.partial {
            self.open = Some((line.container.clone(), line.stream));
        } else {
            self.open = None;
            self.put("\n");
        }
    }

    fn error(&mut self, error: &ApiError, request_id: &RequestId) {
        match self.format {
            Format::Text { .. } => {
                self.finish();
                self.put(&format!("error: {}\n", error.message));
            }
            Format::Ndjson => self.json(&error.body(request_id)),
        }
    }

    fn json(&mut self, value: &impl Serialize) {
        if let Err(error) = serde_json::to_writer((&mut self.out).writer(), value) {
            tracing::error!(%error, "a log line could not be written as JSON");
        }
        self.put("\n");
    }

    /// Ends a line that was to go on.
    fn finish(&mut self) {
        if self.open.take().is_some() {
            self.put("\n");
        }
    }

    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
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
