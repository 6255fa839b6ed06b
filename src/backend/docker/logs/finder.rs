//! Finds the line at which reading goes on.

use crate::backend::docker::demux::Piece;
use crate::backend::{LineMark, LogStreamKind};

/// Counts the lines of one time in a row, for each stream: all pieces of a long line have the time of its beginning (moby
/// `daemon/logger/copier.go`), and the other stream may write in between.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Runs([Option<(i64, u32)>; 2]);

impl Runs {
    /// The how manyeth in a row this one is.
    pub(super) fn count(&mut self, stream: LogStreamKind, time: Option<i64>) -> u32 {
        let run = &mut self.0[usize::from(stream == LogStreamKind::Stderr)];
        let nth = match (*run, time) {
            (Some((last, nth)), Some(time)) if last == time => nth.saturating_add(1),
            _ => 1,
        };
        *run = time.map(|time| (time, nth));
        nth
    }

    /// What recognises this piece, which comes next.
    pub(super) fn mark(&mut self, piece: &Piece) -> Option<LineMark> {
        let (time, stream) = (piece.nanoseconds(), piece.stream);
        let nth = self.count(stream, time);
        Some(LineMark { time: time?, stream, nth, check: piece.check() })
    }

    fn set(&mut self, stream: LogStreamKind, time: i64, nth: u32) {
        self.0[usize::from(stream == LogStreamKind::Stderr)] = Some((time, nth));
    }
}

/// Looks for a line among those of a log that is read again.
pub(super) struct Finder {
    mark: LineMark,
    runs: Runs,
    /// What it looks at may begin anywhere in the log.
    windowed: bool,
    /// Pieces of each stream that it has looked at.
    of_stream: [u32; 2],
    /// Pieces that it has looked at.
    pub(super) seen: usize,
    /// Where the line was, if the log has lost the first lines of its time since.
    pub(super) early: Option<u32>,
}

impl Finder {
    pub(super) fn new(mark: LineMark, windowed: bool) -> Self {
        Self { mark, runs: Runs::default(), windowed, of_stream: [0; 2], seen: 0, early: None }
    }

    /// Whether reading goes on with this piece (`Some(true)`), after it (`Some(false)`) or further on.
    ///
    /// What is read may begin in the middle of lines of one time, then a line is further to the front than it was. It may
    /// also have been told from there, then it is further to the back. So its text decides, except within a long line: its
    /// pieces may all be alike, and how manyeth one is cannot be told where a window begins in the middle of them.
    pub(super) fn look(&mut self, piece: &Piece) -> Option<bool> {
        self.seen += 1;
        let time = piece.nanoseconds();
        let nth = self.runs.count(piece.stream, time);
        let of_stream = &mut self.of_stream[usize::from(piece.stream == LogStreamKind::Stderr)];
        *of_stream = of_stream.saturating_add(1);
        let uncounted = self.windowed && piece.partial && nth == *of_stream;
        let mark = &self.mark;
        if time != Some(mark.time) || piece.stream != mark.stream || piece.check() != mark.check {
            return None;
        }
        if uncounted && mark.nth > 0 {
            return None;
        }
        if nth >= mark.nth {
            return Some(mark.nth == 0);
        }
        self.early = Some(nth);
        None
    }

    /// How to count what comes after the line was found.
    pub(super) fn runs(&self) -> Runs {
        let (mark, mut runs) = (&self.mark, self.runs);
        runs.set(mark.stream, mark.time, mark.nth);
        runs
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn piece(time: i64, stream: LogStreamKind, text: &'static str) -> Piece {
        let time = Some(jiff::Timestamp::from_nanosecond(time.into()).unwrap());
        Piece { time, stream, line: Bytes::from_static(text.as_bytes()), partial: false }
    }

    const OUT: LogStreamKind = LogStreamKind::Stdout;
    const ERR: LogStreamKind = LogStreamKind::Stderr;

    /// Times of one line each, of several, in both streams at once, and a clock that went back.
    fn log() -> Vec<Piece> {
        vec![
            piece(10, OUT, "a"),
            piece(20, OUT, "b"),
            piece(20, OUT, "b"),
            piece(20, ERR, "b"),
            piece(20, OUT, "c"),
            piece(20, ERR, "c"),
            piece(15, OUT, "d"),
            piece(16, OUT, "d"),
            piece(20, OUT, "e"),
            piece(20, OUT, "b"),
        ]
    }

    fn marks(log: &[Piece]) -> Vec<LineMark> {
        let mut runs = Runs::default();
        log.iter().map(|piece| runs.mark(piece).unwrap()).collect()
    }

    /// Where reading goes on.
    fn find(log: &[Piece], mark: LineMark) -> Option<usize> {
        let mut finder = Finder::new(mark, true);
        log.iter().enumerate().find_map(|(at, piece)| finder.look(piece).map(|with| at + usize::from(!with)))
    }

    #[test]
    fn every_line_is_found_again() {
        let log = log();
        for (at, mark) in marks(&log).into_iter().enumerate().take(9) {
            assert_eq!(find(&log, mark), Some(at + 1), "{mark:?}");
            assert_eq!(find(&log[at..], LineMark { nth: 0, ..mark }), Some(0), "{mark:?}");
        }
        assert_eq!(find(&log, LineMark { time: 17, ..marks(&log)[0] }), None);
    }

    #[test]
    fn lines_of_one_time_may_be_cut() {
        let log = log();
        let marks = marks(&log);
        // Told from the middle: "c" was the first of its time then, and is the third in the whole log.
        assert_eq!(find(&log, LineMark { nth: 1, ..marks[4] }), Some(5));
        // Rotated away from the middle: only `early` knows.
        let mut finder = Finder::new(marks[4], false);
        assert!(log[4..].iter().all(|piece| finder.look(piece).is_none()));
        assert_eq!(finder.early, Some(1));
    }

    #[test]
    fn pieces_that_are_alike_are_counted_from_their_line_s_beginning() {
        let mut log = vec![piece(1, OUT, "a"), piece(2, ERR, "e")];
        log.extend((0..10).map(|_| Piece { partial: true, ..piece(3, OUT, "yyy") }));
        let mark = LineMark { nth: 4, ..marks(&log)[5] };
        assert_eq!(find(&log, mark), Some(6));
        assert_eq!(find(&log[4..], mark), None, "which is the fourth?");
        assert_eq!(find(&log[4..], LineMark { nth: 0, ..mark }), Some(0), "the first that is there");
        let whole = &log[2..];
        let mut finder = Finder::new(mark, false);
        assert_eq!(whole.iter().position(|piece| finder.look(piece).is_some()), Some(3), "nothing was before it");
    }
}
