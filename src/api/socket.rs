//! A TCP stream with the deadlines that hyper does not have.
//!
//! A connection without a request is closed after a while, a request's head must be complete soon after its first byte, and
//! a reader must take something now and then. hyper's `header_read_timeout` could do the first, with a new timer for each
//! request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::Limits;
use super::wire::Exchange;

/// How long and how much a refused client may go on sending while it has not read the refusal.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;

/// See the module.
pub(super) struct Socket<S> {
    stream: S,
    exchange: Arc<Exchange>,
    /// How many requests there had been when a head was last waited for.
    requests: u64,
    head: Timer,
    idle: Idle,
    stall: Timer,
    linger: Timer,
    lingered: usize,
    shut: bool,
}

/// A deadline that may be running.
pub(super) struct Timer {
    limit: Duration,
    deadline: Option<Instant>,
    /// Made when something has to be waited for: most deadlines are met at once.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// How long a connection may stay without a request.
struct Idle {
    limit: Duration,
    /// Set anew only after it has rung, whatever has been going on until then.
    alarm: Pin<Box<Sleep>>,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { limit, alarm: Box::pin(sleep(limit)) }
    }

    /// Whether it has been too long. If not, the task is woken when it may be.
    fn is_over(&mut self, exchange: &Exchange, context: &mut Context<'_>) -> bool {
        while self.alarm.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let since = if exchange.is_busy() { now } else { exchange.idle_since() };
            if since + self.limit <= now {
                return true;
            }
            self.alarm.as_mut().reset(since + self.limit);
        }
        false
    }
}

impl Timer {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, deadline: None, alarm: None }
    }

    pub(super) fn start(&mut self) {
        if self.deadline.is_none() {
            self.deadline = Some(Instant::now() + self.limit);
        }
    }

    fn stop(&mut self) {
        self.deadline = None;
        self.alarm = None;
    }

    /// Whether it is over. Not over, or not running: the task is woken when it will be.
    pub(super) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline else { return false };
        self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline))).as_mut().poll(context).is_ready()
    }
}

impl<S> Socket<S> {
    /// The first head is due from now on.
    pub(super) fn new(stream: S, exchange: Arc<Exchange>, limits: &Limits) -> Self {
        let mut head = Timer::new(limits.head_time);
        head.start();
        let (idle, stall) = (Idle::new(limits.idle_time), Timer::new(limits.stall_time));
        let linger = Timer::new(LINGER_TIME);
        Self { stream, exchange, requests: 0, head, idle, stall, linger, lingered: 0, shut: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let requests = this.exchange.requests();
        if requests != this.requests {
            this.requests = requests;
            this.head.stop();
        }
        let before = out.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, out) {
            Poll::Ready(result) => {
                if !this.exchange.is_busy() && out.filled().len() > before {
                    this.head.start();
                }
                Poll::Ready(result)
            }
            Poll::Pending if this.head.is_over(context) => {
                tracing::debug!("a request's head did not arrive in time");
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending if this.idle.is_over(&this.exchange, context) => {
                tracing::debug!("a connection was idle for too long");
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S> Socket<S> {
    fn progress<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall.stop();
            return written;
        }
        self.stall.start();
        if self.stall.is_over(context) {
            tracing::debug!(limit = ?self.stall.limit, "a client took nothing for too long");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.stream).poll_write(context, data);
        this.progress(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, data);
        this.progress(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.progress(context, flushed)
    }

    /// Closes our side, then reads on for a moment. Closing at once while the client is still sending makes the kernel
    /// reset the connection, and the client may lose the very answer that says why (401, 413).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.shut {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            this.shut = true;
            this.linger.start();
        }
        let mut waste = [0_u8; 4096];
        loop {
            let mut out = ReadBuf::new(&mut waste);
            match Pin::new(&mut this.stream).poll_read(context, &mut out) {
                Poll::Ready(Ok(())) if !out.filled().is_empty() && this.lingered < LINGER_BYTES => {
                    this.lingered += out.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending if this.linger.is_over(context) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
