//! Splits the engine's log stream into lines, holding at most one piece of a line in memory.
//!
//! The engine sends either frames (`stream, 0, 0, 0, length`, then the payload: one log message) or, for a container
//! with a terminal, plain bytes, a chunk of the answer for each message. Every message begins with a timestamp (it was asked
//! for), and the engine itself cuts messages at 16 KiB, each piece with the timestamp of its line. A terminal that never
//! sends a newline therefore costs no more memory here than anything else. What a program wrote last without a newline is a
//! message, too. (Engine API, `ContainerLogs` and `ContainerAttach`, "Stream format".)
//!
//! When the engine cannot read a log any further it says so in the log, in a frame of its own kind or, to a terminal, in a
//! message without a timestamp (moby `api/server/httputils/write_log_stream.go`).

use bytes::{Bytes, BytesMut};

use crate::backend::{LogStreamKind, cursor};

/// Where the engine cuts a message (moby `daemon/logger/copier.go`).
const PIECE: usize = 16 * 1024;
/// The longest timestamp prefix: RFC 3339 with nanoseconds, a zone and a space.
const STAMP: usize = 36;

/// The kind of a frame that holds the engine's own word (moby `pkg/stdcopy`, `Systemerr`), and how that begins.
const SYSTEM: u8 = 3;
const FAULT: &[u8] = b"Error grabbing logs: ";
/// So much of it is kept.
const FAULT_KEPT: usize = 512;

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
    /// The current frame holds the engine's own word.
    system: bool,
    /// What the engine said when it could not read on.
    fault: Vec<u8>,
    /// The current piece, its timestamp included.
    piece: BytesMut,
    /// How long that timestamp is, once enough bytes have come to tell.
    stamp: Option<(Option<jiff::Timestamp>, usize)>,
    /// The time of a line whose last piece was partial, for each of the two streams: their pieces may alternate.
    continued: [Option<jiff::Timestamp>; 2],
}

impl Demux {
    pub(super) fn new(tty: bool) -> Self {
        Self {
            framed: !tty,
            header: Vec::with_capacity(8),
            remaining: 0,
            stream: LogStreamKind::Stdout,
            system: false,
            fault: Vec::new(),
            piece: BytesMut::new(),
            stamp: None,
            continued: [None; 2],
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
                    self.system = stream == SYSTEM;
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
            if self.system {
                let (said, rest) = chunk.split_at(available);
                self.keep_fault(said);
                (chunk, self.remaining) = (rest, self.remaining - available);
                continue;
            }
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

    /// A chunk of the answer ends here, and with it a terminal's message.
    pub(super) fn end_chunk(&mut self, out: &mut Vec<Piece>) {
        if !self.framed {
            self.flush(true, out);
        }
    }

    /// The stream has ended: what is left is a line without an end. Gives what the engine said if it could not read on.
    pub(super) fn finish(mut self, out: &mut Vec<Piece>) -> Option<String> {
        self.flush(false, out);
        let said = String::from_utf8_lossy(&self.fault);
        (!said.is_empty()).then(|| said.trim_end().to_owned())
    }

    fn keep_fault(&mut self, said: &[u8]) {
        let room = FAULT_KEPT - self.fault.len();
        self.fault.extend_from_slice(&said[..said.len().min(room)]);
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
        if !self.framed && time.is_none() && line.starts_with(FAULT) {
            return self.keep_fault(&line);
        }
        if !partial {
            let end =
                line.strip_suffix(b"\n").map_or(line.len(), |rest| rest.strip_suffix(b"\r").unwrap_or(rest).len());
            line.truncate(end);
        }
        // The end of a line that was cut exactly at its last byte is no line of its own. All pieces of a line have one time:
        // an empty line of another time comes after a last line without an end.
        let continued = &mut self.continued[usize::from(self.stream == LogStreamKind::Stderr)];
        if !(continued.is_some() && *continued == time && line.is_empty() && !partial) {
            out.push(Piece { time, stream: self.stream, line, partial });
        }
        *continued = time.filter(|_| partial);
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

    /// What comes of a terminal's messages, a chunk for each of them, and of the last one what the engine said of itself.
    fn run_chunks(messages: &[&str]) -> (Vec<(String, bool)>, Option<String>) {
        let (mut demux, mut out) = (Demux::new(true), Vec::new());
        for message in messages {
            demux.feed(message.as_bytes(), &mut out);
            demux.end_chunk(&mut out);
        }
        let said = demux.finish(&mut out);
        let shown = |piece: Piece| (String::from_utf8_lossy(&piece.line).into_owned(), piece.partial);
        (out.into_iter().map(shown).collect(), said)
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
    fn a_terminal_that_ended_without_a_newline_begins_anew() {
        let (lines, _) = run_chunks(&[&format!("{TIME} foo"), "2026-11-21T10:00:01Z Starting\r\n"]);
        assert_eq!(lines, [("foo".to_owned(), true), ("Starting".to_owned(), false)]);
        let (lines, _) = run_chunks(&[&format!("{TIME} foo"), "2026-11-21T10:00:01Z \r\n"]);
        assert_eq!(lines, [("foo".to_owned(), true), (String::new(), false)], "an empty line of another time");
    }

    #[test]
    fn what_the_engine_says_of_itself_is_no_line() {
        let mut input = frame(1, format!("{TIME} one\n").as_bytes());
        input.extend(frame(3, b"Error grabbing logs: unexpected EOF\n"));
        for chunk in [1, 9, 4096] {
            let (mut demux, mut out) = (Demux::new(false), Vec::new());
            input.chunks(chunk).for_each(|part| demux.feed(part, &mut out));
            let said = demux.finish(&mut out);
            assert_eq!((out.len(), said.as_deref()), (1, Some("Error grabbing logs: unexpected EOF")), "{chunk}");
        }
        let said = "Error grabbing logs: unexpected EOF\n";
        let (lines, fault) = run_chunks(&[&format!("{TIME} one\r\n"), &format!("{TIME} {said}"), said]);
        assert_eq!((lines.len(), fault.as_deref()), (2, Some(said.trim_end())), "a program may say the same");
        let mut demux = Demux::new(false);
        demux.feed(&frame(3, &b"x".repeat(100_000)), &mut Vec::new());
        assert_eq!(demux.finish(&mut Vec::new()).map(|said| said.len()), Some(FAULT_KEPT));
    }

    #[test]
    fn text_without_a_timestamp_is_kept_whole() {
        let lines = run(true, b"no stamp here at all, and longer than one would be\nshort\n", 5);
        assert_eq!(lines[0].1, "no stamp here at all, and longer than one would be");
        assert_eq!((lines[1].1.as_str(), lines[1].3), ("short", false));
    }
}
