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
mod writer;

pub(super) use places::Places;
pub(super) use writer::Format;
#[cfg(test)]
pub(super) use writer::{JsonError, JsonGap, JsonLine};

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::writer::Writer;
use super::access_log::RequestId;
use super::error::ApiError;
use super::respond::Body;
use crate::backend::{LogCursor, LogStream};
use crate::domain::{ErrorCode, Subdomain};

const BLOCK: usize = 32 * 1024;
const PATIENCE: Duration = Duration::from_millis(20);
/// How long a client may take nothing. Shorter than the deadline of its connection, so that it may yet read why.
const STALL: Duration = Duration::from_secs(10);
/// How long a client that has been dropped may take to read on.
const LAST_WORD: Duration = Duration::from_secs(60);

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
