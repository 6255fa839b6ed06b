//! One container's log as the engine sends it, over a connection of its own.
//!
//! Neither bollard nor hyper's client is used for it. bollard holds a terminal's output until a newline comes (its issue
//! 805), so that a tenant could fill the agent's memory. The engine sends a chunk for every line, and hyper hands chunks over
//! one at a time from task to task, which costs more than everything else that is done with a line.

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Duration, timeout};

use super::Window;
use crate::backend::docker::demux::{Demux, Piece};
use crate::backend::docker::engine::{Engine, EngineError};
use crate::domain::ContainerId;

/// How much is read at a time: what a batch of lines can hold.
const READ: usize = 32 * 1024;
/// The longest head of an answer; the engine's are about 200 bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Longest wait for the head.
const PATIENCE: Duration = Duration::from_secs(20);

/// A log that is being read.
pub(in crate::backend::docker) struct Reading {
    connection: Connection<UnixStream>,
    /// None when there is no more.
    demux: Option<Demux>,
    /// What the engine said at the end when it could not read on.
    said: Option<String>,
}

impl Reading {
    /// Asks the engine for this part of a container's log.
    pub(in crate::backend::docker) async fn open(
        engine: &Engine,
        id: &ContainerId,
        tty: bool,
        window: &Window,
    ) -> Result<Self, EngineError> {
        let open = async {
            let mut socket = UnixStream::connect(engine.socket()).await.map_err(|error| broken(&error))?;
            let query = window.query();
            let request = format!("GET /containers/{id}/logs?{query} HTTP/1.1\r\nHost: docker\r\n\r\n");
            socket.write_all(request.as_bytes()).await.map_err(|error| broken(&error))?;
            Connection::of(socket).await
        };
        let connection = timeout(PATIENCE, open).await.map_err(|_| EngineError::Timeout)??;
        Ok(Self { connection, demux: Some(Demux::new(tty)), said: None })
    }

    /// Why the log could not be read to its end, once `next` has given all.
    pub(in crate::backend::docker) fn fault(&mut self) -> Option<String> {
        self.said.take()
    }

    /// The next pieces; none after the last, or after an error. Cancelling it loses nothing.
    pub(in crate::backend::docker) async fn next(&mut self) -> Option<Result<Vec<Piece>, EngineError>> {
        loop {
            let demux = self.demux.as_mut()?;
            let mut pieces = Vec::new();
            let feed = |bytes: &[u8], ends_chunk: bool| {
                demux.feed(bytes, &mut pieces);
                if ends_chunk {
                    demux.end_chunk(&mut pieces);
                }
            };
            match self.connection.read(feed).await {
                Ok(true) if pieces.is_empty() => {}
                Ok(true) => return Some(Ok(pieces)),
                Ok(false) => {
                    self.said = self.demux.take()?.finish(&mut pieces);
                    return Some(Ok(pieces));
                }
                Err(error) => {
                    self.demux = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

fn broken(why: &dyn std::fmt::Display) -> EngineError {
    EngineError::Unreachable(why.to_string())
}

/// What of the answer's body comes next (RFC 9112, 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The line end behind it.
    ChunkEnd,
    /// The body has no chunks: it goes on until the connection is closed.
    UntilClosed,
    Nothing,
}

struct Connection<S> {
    socket: S,
    buffer: BytesMut,
    next: Next,
}

impl<S: tokio::io::AsyncRead + Unpin> Connection<S> {
    /// Reads the answer's head.
    async fn of(socket: S) -> Result<Self, EngineError> {
        let mut connection = Self { socket, buffer: BytesMut::with_capacity(READ), next: Next::Size };
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut answer = httparse::Response::new(&mut headers);
            match answer.parse(&connection.buffer).map_err(|error| broken(&error))? {
                httparse::Status::Complete(length) => {
                    match answer.code.unwrap_or_default() {
                        200 => {}
                        // 409: "dead or marked for removal".
                        404 | 409 => return Err(EngineError::NotFound("container".to_owned())),
                        status => return Err(EngineError::Refused { status, message: "logs".to_owned() }),
                    }
                    let chunked = answer.headers.iter().any(|header| {
                        header.name.eq_ignore_ascii_case("transfer-encoding")
                            && header.value.eq_ignore_ascii_case(b"chunked")
                    });
                    connection.next = if chunked { Next::Size } else { Next::UntilClosed };
                    connection.buffer.advance(length);
                    return Ok(connection);
                }
                httparse::Status::Partial if connection.buffer.len() > MAX_HEAD => return Err(broken(&"a long head")),
                httparse::Status::Partial if connection.more().await? => {}
                httparse::Status::Partial => return Err(broken(&"no answer")),
            }
        }
    }

    /// Reads more; false when the other side has closed.
    async fn more(&mut self) -> Result<bool, EngineError> {
        self.buffer.reserve(READ);
        let mut room = bytes::BufMut::limit(&mut self.buffer, READ);
        self.socket.read_buf(&mut room).await.map(|count| count > 0).map_err(|error| broken(&error))
    }

    /// Gives what has come of the body to `take`, and whether a chunk ends with it; false when the body is complete. One that
    /// breaks off is an error.
    async fn read(&mut self, mut take: impl FnMut(&[u8], bool)) -> Result<bool, EngineError> {
        let mut taken = self.decode(&mut take)?;
        while !taken && self.next != Next::Nothing {
            if !self.more().await? {
                return if self.next == Next::UntilClosed { Ok(false) } else { Err(broken(&"the log broke off")) };
            }
            taken = self.decode(&mut take)?;
        }
        Ok(taken)
    }

    /// Decodes what is buffered; whether there was anything for `take`.
    fn decode(&mut self, take: &mut impl FnMut(&[u8], bool)) -> Result<bool, EngineError> {
        let mut taken = false;
        while !self.buffer.is_empty() {
            match self.next {
                Next::Size => match httparse::parse_chunk_size(&self.buffer).map_err(|_| broken(&"no chunk"))? {
                    httparse::Status::Complete((length, size)) => {
                        self.buffer.advance(length);
                        // The engine sends no trailers, and nothing is asked for after this.
                        self.next = if size == 0 { Next::Nothing } else { Next::Data(size) };
                    }
                    httparse::Status::Partial => break,
                },
                Next::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                    take(&self.buffer[..here], left == here as u64);
                    taken = true;
                    self.buffer.advance(here);
                    self.next = match left - here as u64 {
                        0 => Next::ChunkEnd,
                        left => Next::Data(left),
                    };
                }
                Next::ChunkEnd => {
                    let Some(end) = self.buffer.first_chunk::<2>() else { break };
                    if end != b"\r\n" {
                        return Err(broken(&"a chunk without an end"));
                    }
                    self.buffer.advance(2);
                    self.next = Next::Size;
                }
                Next::UntilClosed => {
                    take(&self.buffer, false);
                    taken = true;
                    self.buffer.clear();
                }
                Next::Nothing => self.buffer.clear(),
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body that comes of these bytes, which arrive in pieces of this size.
    async fn body(bytes: &[u8], piece: usize) -> Result<Vec<u8>, String> {
        let (mut engine, socket) = tokio::io::duplex(piece);
        let bytes = bytes.to_vec();
        tokio::spawn(async move { engine.write_all(&bytes).await });
        let mut connection = Connection::of(socket).await.map_err(|error| error.to_string())?;
        let mut all = Vec::new();
        while connection.read(|part, _| all.extend_from_slice(part)).await.map_err(|error| error.to_string())? {}
        Ok(all)
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: x\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[tokio::test]
    async fn chunks_are_put_together_however_they_come() {
        let text = format!("{HEAD}3\r\nabc\r\n00A;x=y\r\n0123456789\r\n0\r\n\r\n");
        for piece in [1, 2, 5, 64, 4096] {
            assert_eq!(body(text.as_bytes(), piece).await.as_deref(), Ok(&b"abc0123456789"[..]), "{piece}");
        }
        let plain = b"HTTP/1.1 200 OK\r\n\r\nabc";
        assert_eq!(body(plain, 7).await.as_deref(), Ok(&b"abc"[..]));
    }

    #[tokio::test]
    async fn the_end_of_a_chunk_is_told_however_it_comes() {
        let text = format!("{HEAD}3\r\nabc\r\n5\r\n01234\r\n0\r\n\r\n");
        for piece in [1, 2, 5, 64, 4096] {
            let (mut engine, socket) = tokio::io::duplex(piece);
            let bytes = text.clone().into_bytes();
            tokio::spawn(async move { engine.write_all(&bytes).await });
            let mut connection = Connection::of(socket).await.unwrap();
            let (mut length, mut ends) = (0, Vec::new());
            let mut take = |part: &[u8], ends_chunk: bool| {
                length += part.len();
                ends.extend(ends_chunk.then_some(length));
            };
            while connection.read(&mut take).await.unwrap() {}
            assert_eq!(ends, [3, 8], "{piece}");
        }
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_end() {
        let whole = format!("{HEAD}3\r\nabc\r\n0\r\n");
        for end in 0..whole.len() - 1 {
            assert!(body(&whole.as_bytes()[..end], 64).await.is_err(), "{}", &whole[..end]);
        }
        for bad in ["x\r\n", "3\r\nabcd\r\n", "ffffffffffffffffff\r\n"] {
            assert!(body(format!("{HEAD}{bad}").as_bytes(), 64).await.is_err(), "{bad}");
        }
        assert!(body("HTTP/1.1 200 OK\r\n".repeat(9000).as_bytes(), 64).await.is_err());
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        for (status, word) in [(404, "not found"), (409, "not found"), (500, "refused with 500")] {
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}");
            let error = body(answer.as_bytes(), 64).await.unwrap_err();
            assert!(error.starts_with(word), "{error}");
        }
    }
}
