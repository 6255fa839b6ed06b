//! Lets one message after another through to hyper, and only when it is certain where it ends.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::head::Framing;
use super::{Refusal, chunks, head};
use crate::api::socket::Timer;

/// How much is read at a time.
const PIECE: usize = 8 * 1024;

/// What hyper gets in place of a head that is refused, so that the answer is given in its turn, with a request id and a
/// log entry like any other. hyper closes the connection after it.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// What the parts of one connection know of each other.
#[derive(Debug)]
pub(in crate::api) struct Exchange {
    born: Instant,
    /// A request is being answered; the bytes that arrive are not a head.
    busy: AtomicBool,
    /// How many there have been.
    requests: AtomicU64,
    /// Since when it is not, in milliseconds after `born`.
    idle_since: AtomicU64,
    refusal: Mutex<Option<Refusal>>,
}

impl Exchange {
    pub(in crate::api) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            busy: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            refusal: Mutex::new(None),
        })
    }

    pub(in crate::api) fn begin(&self) {
        self.busy.store(true, Ordering::Release);
        self.requests.fetch_add(1, Ordering::Release);
    }

    pub(in crate::api) fn end(&self) {
        let millis = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.idle_since.store(millis, Ordering::Release);
        self.busy.store(false, Ordering::Release);
    }

    pub(in crate::api) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    pub(in crate::api) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    /// Since when no request is being answered, however long the next one takes to arrive.
    pub(in crate::api) fn idle_since(&self) -> Instant {
        self.born + Duration::from_millis(self.idle_since.load(Ordering::Acquire))
    }

    fn refuse(&self, refusal: Refusal) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    /// Why the request that hyper has just read is only a stand-in, if it is one. The gate shows hyper no further head
    /// before it has parsed the last, so the two cannot be mistaken for each other.
    pub(in crate::api) fn take_refusal(&self) -> Option<Refusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// See the module.
pub(in crate::api) struct Gate<S> {
    stream: S,
    exchange: Arc<Exchange>,
    /// What has been read and not been passed on; the first `cleared` bytes may be.
    buffer: BytesMut,
    cleared: usize,
    state: State,
    /// The client has said that it sends nothing more.
    ended: bool,
    /// How long it is believed that such a client still waits for its answer.
    farewell: Timer,
}

enum State {
    Head(head::Reader),
    Length(u64),
    Chunked(chunks::Reader),
    /// Nothing more is passed on.
    Refused,
}

impl<S> Gate<S> {
    pub(in crate::api) fn new(stream: S, exchange: Arc<Exchange>, half_close: Duration) -> Self {
        let state = State::Head(head::Reader::default());
        let (buffer, farewell) = (BytesMut::new(), Timer::new(half_close));
        Self { stream, exchange, buffer, cleared: 0, state, ended: false, farewell }
    }

    /// Finds out how much of the buffer may be passed on. None: more must be read first.
    fn judge(&mut self) -> io::Result<Option<usize>> {
        loop {
            match &mut self.state {
                State::Head(reader) => match reader.read(&self.buffer) {
                    Ok(None) => return Ok(None),
                    Ok(Some(head)) => {
                        self.state = match head.framing {
                            Framing::Length(length) => State::Length(length),
                            Framing::Chunked => State::Chunked(chunks::Reader::new()),
                        };
                        return Ok(Some(head.size));
                    }
                    Err(refusal) => {
                        self.stand_in(refusal);
                        return Ok(Some(STAND_IN.len()));
                    }
                },
                State::Length(0) => self.state = State::Head(head::Reader::default()),
                State::Length(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                    *left -= here as u64;
                    return Ok((here > 0).then_some(here));
                }
                State::Chunked(reader) if reader.is_done() => self.state = State::Head(head::Reader::default()),
                State::Chunked(reader) => match reader.read(&self.buffer) {
                    Some(0) => return Ok(None),
                    Some(here) => return Ok(Some(here)),
                    None => {
                        self.state = State::Refused;
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a chunked body"));
                    }
                },
                State::Refused => return Ok(None),
            }
        }
    }

    fn stand_in(&mut self, refusal: Refusal) {
        tracing::debug!(what = refusal.message(), "a request was refused for its form");
        self.exchange.refuse(refusal);
        self.state = State::Refused;
        self.buffer.clear();
        self.buffer.extend_from_slice(STAND_IN);
    }

    /// What hyper is told when the client sends nothing more.
    fn end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let between = matches!(self.state, State::Head(_) | State::Length(0) | State::Refused)
            || matches!(&self.state, State::Chunked(reader) if reader.is_done());
        // hyper drops a request whose client has closed its side. One that has said all it had to say, and waits, looks
        // the same as one that has gone; so it is given a moment.
        if between && self.exchange.is_busy() {
            self.farewell.start();
            return if self.farewell.is_over(context) { Poll::Ready(()) } else { Poll::Pending };
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> Gate<S> {
    fn fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        self.ended = piece.filled().is_empty();
        // What comes after a refusal is of no interest.
        if !matches!(self.state, State::Refused) {
            self.buffer.extend_from_slice(piece.filled());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.cleared > 0 {
                let here = this.cleared.min(out.remaining());
                out.put_slice(&this.buffer[..here]);
                this.buffer.advance(here);
                this.cleared -= here;
                if this.buffer.is_empty() && this.buffer.capacity() > PIECE {
                    this.buffer = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match this.judge()? {
                Some(size) => this.cleared = size,
                None if this.ended => {
                    // Some clients end a body with a line end too many.
                    let begun = !b"\r\n".starts_with(&this.buffer);
                    if matches!(this.state, State::Head(_)) && begun {
                        this.stand_in(Refusal::Malformed("the head ended early"));
                        this.cleared = STAND_IN.len();
                        continue;
                    }
                    return this.end(context).map(Ok);
                }
                None => ready!(this.fill(context))?,
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
