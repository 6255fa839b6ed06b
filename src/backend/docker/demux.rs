//! Splits the engine's log stream into lines, holding at most one piece of a line in memory.
//!
//! The engine sends either frames (`stream, 0, 0, 0, length`, then the payload: one log message) or, for a container
//! with a terminal, plain bytes. Every message begins with a timestamp (it was asked for), and the engine itself cuts
//! messages at 16 KiB, each piece with a timestamp of its own. A terminal that never sends a newline therefore costs no
//! more memory here than anything else. (Engine API, `ContainerLogs` and `ContainerAttach`, "Stream format".)

use bytes::{Bytes, BytesMut};

use crate::backend::{LogStreamKind, cursor};

/// Where the engine cuts a message (moby `daemon/logger/copier.go`).
const PIECE: usize = 16 * 1024;
/// The longest timestamp prefix: RFC 3339 with nanoseconds, a zone and a space.
const STAMP: usize = 36;

/// Lines that come together are parts of one allocation of this size.
const TOGETHER: usize = 16 * 1024;

/// One line, or a piece of a longer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) time: Option<jiff::Timestamp>,
    pub(super) stream: LogStreamKind,
    pub(super) line: Bytes,
    pub(super) partial: bool,
}

impl Piece {
    /// Its time in nanoseconds since 1970.
    pub(super) fn nanoseconds(&self) -> Option<i64> {
        cursor::nanoseconds(self.time?)
    }

    /// What tells it apart from other lines of its time.
    pub(super) fn check(&self) -> u32 {
        cursor::check(&self.line)
    }
}

/// The state between two chunks of the stream.
pub(super) struct Demux {
    framed: bool,
    /// Header bytes of a frame, as far as they have come.
    header: Vec<u8>,
    /// Payload bytes of the current frame that are still to come.
    remaining: usize,
    stream: LogStreamKind,
    /// The current piece, its timestamp included.
    piece: BytesMut,
    /// How long that timestamp is, once enough bytes have come to tell.
    stamp: Option<(Option<jiff::Timestamp>, usize)>,
    /// The previous piece of this line was partial, for each of the two streams: their pieces may alternate.
    continued: [bool; 2],
}

impl Demux {
    pub(super) fn new(tty: bool) -> Self {
        Self {
            framed: !tty,
            header: Vec::with_capacity(8),
            remaining: 0,
            stream: LogStreamKind::Stdout,
            piece: BytesMut::new(),
            stamp: None,
            continued: [false; 2],
        }
    }

    /// Takes the next chunk; gives the pieces it completes.
    pub(super) fn feed(&mut self, mut chunk: &[u8], out: &mut Vec<Piece>) {
        while !chunk.is_empty() {
            if self.framed && self.remaining == 0 {
                let take = chunk.len().min(8 - self.header.len());
                self.header.extend_from_slice(&chunk[..take]);
                chunk = &chunk[take..];
                if let Ok([stream, _, _, _, length @ ..]) = <[u8; 8]>::try_from(self.header.as_slice()) {
                    let stream = if stream == 2 { LogStreamKind::Stderr } else { LogStreamKind::Stdout };
                    if stream != self.stream {
                        self.flush(true, out);
                        self.stream = stream;
                    }
                    self.remaining = u32::from_be_bytes(length) as usize;
                    self.header.clear();
                }
                continue;
            }
            let available = if self.framed { chunk.len().min(self.remaining) } else { chunk.len() };
            let taken = self.text(&chunk[..available], out);
            chunk = &chunk[taken..];
            if self.framed {
                self.remaining -= taken;
                // A message without a line end is a piece that the engine cut.
                if self.remaining == 0 && !self.piece.is_empty() {
                    self.flush(true, out);
                }
            }
        }
    }

    /// The stream has ended: what is left is a line without an end.
    pub(super) fn finish(mut self, out: &mut Vec<Piece>) {
        self.flush(false, out);
    }

    /// Takes text up to a line end or a full piece; gives how many bytes it took.
    fn text(&mut self, text: &[u8], out: &mut Vec<Piece>) -> usize {
        // First only what may be the timestamp, because how long that is decides where the piece ends.
        let limit = self.stamp.map_or(STAMP, |(_, length)| PIECE + length);
        let room = limit - self.piece.len().min(limit);
        let line_end = memchr::memchr(b'\n', &text[..room.min(text.len())]);
        let taken = line_end.map_or(room.min(text.len()), |at| at + 1);
        if self.piece.capacity() - self.piece.len() < taken {
            self.piece.reserve(TOGETHER.max(taken));
        }
        self.piece.extend_from_slice(&text[..taken]);
        if self.stamp.is_none() && (self.piece.len() >= STAMP || line_end.is_some()) {
            self.stamp = Some(stamp(&self.piece));
        }
        if line_end.is_some() {
            self.flush(false, out);
        } else if self.stamp.is_some_and(|(_, length)| self.piece.len() >= PIECE + length) {
            self.flush(true, out);
        }
        taken
    }

    fn flush(&mut self, partial: bool, out: &mut Vec<Piece>) {
        let (time, length) = self.stamp.take().unwrap_or_else(|| stamp(&self.piece));
        if self.piece.is_empty() {
            return;
        }
        let mut line = self.piece.split().freeze().slice(length..);
        if !partial {
            let end =
                line.strip_suffix(b"\n").map_or(line.len(), |rest| rest.strip_suffix(b"\r").unwrap_or(rest).len());
            line.truncate(end);
        }
        // The end of a line that was cut exactly at its last byte is no line of its own.
        let continued = &mut self.continued[usize::from(self.stream == LogStreamKind::Stderr)];
        if !(*continued && line.is_empty() && !partial) {
            out.push(Piece { time, stream: self.stream, line, partial });
        }
        *continued = partial;
    }
}

/// The timestamp at the start of a message and its length with the space behind it; length 0 when there is none.
fn stamp(message: &[u8]) -> (Option<jiff::Timestamp>, usize) {
    let head = &message[..message.len().min(STAMP)];
    let Some(space) = head.iter().position(|&byte| matches!(byte, b' ' | b'\n' | b'\r')) else { return (None, 0) };
    match std::str::from_utf8(&head[..space]).ok().and_then(|text| text.parse().ok()) {
        Some(time) => (Some(time), space + usize::from(head[space] == b' ')),
        None => (None, 0),
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-21T10:00:00.123456789Z";

    fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
        frame.extend(text);
        frame
    }

    fn run(tty: bool, input: &[u8], chunk: usize) -> Vec<(LogStreamKind, String, bool, bool)> {
        let (mut demux, mut out) = (Demux::new(tty), Vec::new());
        for part in input.chunks(chunk) {
            demux.feed(part, &mut out);
        }
        demux.finish(&mut out);
        out.into_iter()
            .map(|piece| {
                (piece.stream, String::from_utf8_lossy(&piece.line).into_owned(), piece.partial, piece.time.is_some())
            })
            .collect()
    }

    #[test]
    fn frames_are_told_apart_however_the_bytes_are_cut() {
        let mut input = frame(1, format!("{TIME} one\n").as_bytes());
        input.extend(frame(2, format!("{TIME} two\r\n").as_bytes()));
        input.extend(frame(1, format!("{TIME} \n").as_bytes()));
        for chunk in [1, 2, 3, 7, 8, 9, 40, 4096] {
            let lines = run(false, &input, chunk);
            assert_eq!(
                lines,
                [
                    (LogStreamKind::Stdout, "one".to_owned(), false, true),
                    (LogStreamKind::Stderr, "two".to_owned(), false, true),
                    (LogStreamKind::Stdout, String::new(), false, true),
                ],
                "chunks of {chunk}"
            );
        }
    }

    #[test]
    fn a_message_that_the_engine_cut_is_partial() {
        let mut input = frame(1, format!("{TIME} {}", "x".repeat(PIECE)).as_bytes());
        input.extend(frame(1, format!("{TIME} end\n").as_bytes()));
        for chunk in [1000, 16 * 1024, 1 << 20] {
            let lines = run(false, &input, chunk);
            assert_eq!(lines.len(), 2, "chunks of {chunk}");
            assert_eq!((lines[0].1.len(), lines[0].2), (PIECE, true));
            assert_eq!((lines[1].1.as_str(), lines[1].2), ("end", false));
        }
    }

    #[test]
    fn an_empty_line_of_one_stream_is_no_end_of_a_line_of_the_other() {
        let mut input = frame(1, format!("{TIME} {}", "x".repeat(PIECE)).as_bytes());
        input.extend(frame(2, format!("{TIME} \n").as_bytes()));
        // The engine cut the line exactly at its last byte.
        input.extend(frame(1, format!("{TIME} \n").as_bytes()));
        for chunk in [1000, 1 << 20] {
            let lines = run(false, &input, chunk);
            let told: Vec<_> = lines.iter().map(|(stream, text, partial, _)| (*stream, text.len(), *partial)).collect();
            let wanted = [(LogStreamKind::Stdout, PIECE, true), (LogStreamKind::Stderr, 0, false)];
            assert_eq!(told, wanted, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_terminal_without_newlines_is_cut_and_never_held() {
        let mut demux = Demux::new(true);
        let mut out = Vec::new();
        for _ in 0..1000 {
            demux.feed(&[b'x'; 1000], &mut out);
            assert!(demux.piece.capacity() <= 4 * PIECE, "held {}", demux.piece.capacity());
        }
        demux.finish(&mut out);
        assert_eq!(out.iter().map(|piece| piece.line.len()).sum::<usize>(), 1_000_000);
        assert!(out.iter().rev().skip(1).all(|piece| piece.partial));
    }

    #[test]
    fn a_terminal_that_the_engine_cut_has_timestamps_inside() {
        let input = format!("{TIME} {}{TIME} rest\r\n{TIME} next\r\n", "y".repeat(PIECE));
        for chunk in [1, 100, 5000, 1 << 20] {
            let lines = run(true, input.as_bytes(), chunk);
            let texts: Vec<(usize, bool)> = lines.iter().map(|line| (line.1.len(), line.2)).collect();
            assert_eq!(texts, [(PIECE, true), (4, false), (4, false)], "chunks of {chunk}");
        }
    }

    #[test]
    fn text_without_a_timestamp_is_kept_whole() {
        let lines = run(true, b"no stamp here at all, and longer than one would be\nshort\n", 5);
        assert_eq!(lines[0].1, "no stamp here at all, and longer than one would be");
        assert_eq!((lines[1].1.as_str(), lines[1].3), ("short", false));
    }
}
