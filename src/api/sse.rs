//! Server-sent events (WHATWG HTML, 9.2): a body that asks its source for the next event when the client has room.
//!
//! Nothing is queued here: a client that reads slowly is simply asked less of the source, which keeps its own bound and
//! ends, with an event that says so, for whoever has fallen behind it. A client that takes nothing at all is dropped by
//! the connection's own deadline.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::access_log::RequestId;
use super::error::ApiError;
use super::respond::{self, Answer};
use crate::domain::ErrorCode;

/// The type of such a body.
pub(super) const MEDIA_TYPE: &str = "text/event-stream";
/// A comment after so long without an event, so that no proxy takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What the client is told to wait, in milliseconds, before it connects again.
const RETRY: &str = "retry: 2000\n\n";
/// Events that are ready together leave together, up to so many bytes and one event.
const BLOCK: usize = 32 * 1024;
/// The longest `Last-Event-ID` that is read: longer than any id that is given out.
const MAX_ID: usize = 128;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// What a client that reconnects sends as `Last-Event-ID`; without a line break.
    pub(super) id: Option<String>,
    /// The event's type.
    pub(super) name: &'static str,
    /// Its content, JSON as a rule. Without any, a client takes note of the id and sees no event.
    pub(super) data: String,
}

impl Event {
    /// An event whose data is JSON.
    pub(super) fn json(id: Option<String>, name: &'static str, value: &impl serde::Serialize) -> Self {
        let data = serde_json::to_string(value).unwrap_or_else(|error| {
            tracing::error!(%error, "an event could not be written as JSON");
            "null".to_owned()
        });
        Self { id, name, data }
    }

    fn write(&self, out: &mut BytesMut) {
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        };
        if let Some(id) = &self.id {
            field("id", id);
        }
        if !self.data.is_empty() {
            field("event", self.name);
            // A line break of either kind would end the field.
            for line in self.data.split(['\r', '\n']) {
                field("data", line);
            }
        }
        out.extend_from_slice(b"\n");
    }
}

/// The answer that relays a source of events. It ends with the source, with the client or with the server, the latter with
/// an event `error`; `place` is given back then.
pub(super) fn answer<S>(
    source: S,
    request_id: &RequestId,
    stop: CancellationToken,
    place: impl Send + 'static,
) -> Answer
where
    S: Stream<Item = Event> + Send + 'static,
{
    let stopping = ApiError::new(ErrorCode::ShuttingDown, "the agent is stopping");
    let body = Relay {
        source: Some(Box::pin(source)),
        begun: false,
        quiet: Box::pin(sleep(KEEP_ALIVE)),
        stop: Box::pin(stop.cancelled_owned()),
        goodbye: Event::json(None, "error", &stopping.body(request_id)),
        _place: place,
    };
    let mut answer = respond::with_type(StatusCode::OK, MEDIA_TYPE, RelayBody(Box::new(body)).boxed_unsync());
    // nginx holds a proxied answer back until its buffer is full, unless it is told not to.
    answer.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    answer
}

/// The `Last-Event-ID` of a request: none when there is none or it is empty, as a client sends it that has seen no id.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    const NAME: &str = "last-event-id";
    let refuse = |message: &str| ApiError::invalid(message).at_field("Last-Event-ID");
    let mut given = headers.get_all(NAME).iter();
    let (Some(value), more) = (given.next(), given.next()) else { return Ok(None) };
    if more.is_some() {
        return Err(refuse("is there twice"));
    }
    let text = value.to_str().ok().filter(|text| text.len() <= MAX_ID);
    let text = text.ok_or_else(|| refuse("must be the id of an event of this stream"))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

struct Relay<S, P> {
    /// None once it has ended.
    source: Option<Pin<Box<S>>>,
    begun: bool,
    quiet: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    goodbye: Event,
    _place: P,
}

impl<S: Stream<Item = Event>, P> Relay<S, P> {
    fn next_block(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(RETRY.as_bytes());
        }
        while let Some(source) = self.source.as_mut().filter(|_| out.len() < BLOCK) {
            match source.as_mut().poll_next(context) {
                Poll::Ready(Some(event)) => event.write(&mut out),
                Poll::Ready(None) => self.source = None,
                Poll::Pending if self.stop.as_mut().poll(context).is_ready() => {
                    self.source = None;
                    self.goodbye.write(&mut out);
                }
                Poll::Pending => break,
            }
        }
        if out.is_empty() {
            if self.source.is_none() {
                return Poll::Ready(None);
            }
            std::task::ready!(self.quiet.as_mut().poll(context));
            out.extend_from_slice(b":\n\n");
        }
        self.quiet.as_mut().reset(Instant::now() + KEEP_ALIVE);
        Poll::Ready(Some(out.freeze()))
    }
}

/// Boxed, so that it need not stay where it is whatever the place is.
struct RelayBody<S, P>(Box<Relay<S, P>>);

impl<S: Stream<Item = Event>, P> HttpBody for RelayBody<S, P> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.next_block(context).map(|block| block.map(|block| Ok(Frame::data(block))))
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tokio::sync::mpsc;

    use super::*;

    fn request() -> RequestId {
        RequestId::parse("r-1").unwrap()
    }

    fn event(id: u64, data: &str) -> Event {
        Event { id: Some(id.to_string()), name: "step", data: data.to_owned() }
    }

    async fn next(answer: &mut Answer) -> Option<String> {
        let frame = answer.body_mut().frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    fn from_channel(source: mpsc::Receiver<Event>) -> impl Stream<Item = Event> {
        futures::stream::unfold(source, |mut source| async { Some((source.recv().await?, source)) })
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_framed_and_silence_is_broken() {
        let (sender, source) = mpsc::channel(4);
        let mut answer = super::answer(from_channel(source), &request(), CancellationToken::new(), ());
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(next(&mut answer).await.as_deref(), Some("retry: 2000\n\n"), "the head leaves at once");
        sender.send(event(1, "{\"a\":1}")).await.unwrap();
        sender.send(event(2, "two\nlines")).await.unwrap();
        let both = "id: 1\nevent: step\ndata: {\"a\":1}\n\nid: 2\nevent: step\ndata: two\ndata: lines\n\n";
        assert_eq!(next(&mut answer).await.as_deref(), Some(both));
        sender.send(event(3, "")).await.unwrap();
        assert_eq!(next(&mut answer).await.as_deref(), Some("id: 3\n\n"));
        assert_eq!(next(&mut answer).await.as_deref(), Some(":\n\n"));
        assert_eq!(next(&mut answer).await.as_deref(), Some(":\n\n"));
        drop(sender);
        assert_eq!(next(&mut answer).await, None);
    }

    #[tokio::test]
    async fn it_asks_for_no_more_than_a_block_at_a_time() {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = std::sync::Arc::clone(&asked);
        let source = futures::stream::iter(0..1000u64).map(move |id| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            event(id, &"x".repeat(1000))
        });
        let mut answer = super::answer(source, &request(), CancellationToken::new(), ());
        assert!(next(&mut answer).await.unwrap().len() < BLOCK + 2000);
        assert!(asked.load(std::sync::atomic::Ordering::Relaxed) < 40);
        let mut rest = 0;
        while let Some(block) = next(&mut answer).await {
            rest += block.matches("event: step").count();
        }
        assert!(rest > 960, "{rest}");
    }

    #[tokio::test]
    async fn the_end_of_the_server_is_told_and_gives_the_place_back() {
        let stop = CancellationToken::new();
        let place = std::sync::Arc::new(());
        let source = futures::stream::pending();
        let mut answer = super::answer(source, &request(), stop.clone(), std::sync::Arc::clone(&place));
        next(&mut answer).await.unwrap();
        stop.cancel();
        let last = next(&mut answer).await.unwrap();
        assert!(last.starts_with("event: error\ndata: {") && last.contains("SHUTTING_DOWN"), "{last}");
        assert_eq!(next(&mut answer).await, None);
        drop(answer);
        assert_eq!(std::sync::Arc::strong_count(&place), 1);
    }

    #[test]
    fn the_last_event_id() {
        let with = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("last-event-id", HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            last_event_id(&headers).map(|id| id.map(str::to_owned)).map_err(|error| error.field)
        };
        let refused = Err(Some("Last-Event-ID".to_owned()));
        assert_eq!(with(&[]), Ok(None));
        assert_eq!(with(&[""]), Ok(None));
        assert_eq!(with(&["17"]), Ok(Some("17".to_owned())));
        assert_eq!(with(&["17", "17"]), refused);
        assert_eq!(with(&["\u{e4}"]), refused);
        assert_eq!(with(&[&"1".repeat(MAX_ID + 1)]), refused);
    }
}
