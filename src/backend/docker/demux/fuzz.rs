//! Fuzz targets: log streams, cut anywhere.

use super::*;
use crate::fuzz::{self, Bytes, Material, Outcome, Rng};

const TIME: &str = "2026-11-21T10:00:00.123456789Z";

/// A stream, and where it is cut.
#[derive(Debug)]
struct Input {
    tty: bool,
    stream: Bytes,
    seed: u64,
    longest: usize,
}

fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend(text);
    frame
}

/// What comes of the pieces, and the most that was held between two.
fn read(tty: bool, pieces: &[&[u8]]) -> (Vec<Piece>, usize) {
    let (mut demux, mut out, mut held) = (Demux::new(tty), Vec::new(), 0);
    for piece in pieces {
        demux.feed(piece, &mut out);
        held = held.max(demux.piece.capacity() + demux.header.capacity());
    }
    let said = demux.finish(&mut out);
    assert!(said.is_none_or(|said| said.len() <= 3 * FAULT_KEPT));
    (out, held)
}

#[test]
fn fuzz_log_streams() {
    let stamped = |text: &str| format!("{TIME} {text}");
    let long = "y".repeat(PIECE);
    let seeds: Vec<Vec<u8>> = vec![
        [
            frame(1, stamped("one\n").as_bytes()),
            frame(2, stamped("two\r\n").as_bytes()),
            frame(1, stamped("\n").as_bytes()),
        ]
        .concat(),
        [frame(1, stamped(&long).as_bytes()), frame(1, stamped("end\n").as_bytes())].concat(),
        [frame(1, b""), frame(2, b"no stamp"), frame(0, b"\n"), frame(3, stamped("x").as_bytes())].concat(),
        format!("{TIME} {long}{TIME} rest\r\n{TIME} next\r\n").into_bytes(),
        stamped("a\u{1b}[0m\rb\n").into_bytes(),
    ];
    let words = [
        "\u{1}\0\0\0\0\0\0\u{5}",
        "\u{2}\0\0\0\0\0\u{1}\0",
        "\u{1}\0\0\0\0\0\0\0",
        "\u{1}\0\0\0",
        "\n",
        "\r\n",
        "\r",
        " ",
        TIME,
        "2026-11-21T10:00:00+01:00 ",
        "2026-11-21",
        "Z",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ];
    let material = Material::new(seeds, &words, 80 << 10);
    let make = |rng: &mut Rng| Input {
        tty: rng.one_in(3),
        stream: Bytes(material.bytes(rng)),
        seed: rng.next(),
        longest: *rng.pick(&[1, 2, 9, 40, 1000, 20_000]),
    };
    fuzz::run("demux", make, |Input { tty, stream, seed, longest }| {
        let (whole, _) = read(*tty, &[&stream.0]);
        let (pieces, held) = read(*tty, &Rng::new(*seed).pieces(&stream.0, *longest));
        assert_eq!(pieces, whole);
        assert!(held <= 4 * PIECE, "{held} bytes were held");
        assert!(whole.iter().all(|piece| piece.line.len() <= PIECE + STAMP && !piece.line.contains(&b'\n')));
        assert!(whole.iter().map(|piece| piece.line.len()).sum::<usize>() <= stream.0.len());
        Outcome::Accepted
    });
}

/// What containers wrote, and how the engine sends it.
#[derive(Debug)]
struct Written {
    stream: Bytes,
    lines: Vec<(LogStreamKind, String, bool)>,
}

#[test]
fn fuzz_log_frames_are_the_lines_that_were_written() {
    let make = |rng: &mut Rng| {
        let (mut stream, mut lines) = (Vec::new(), Vec::new());
        for _ in 0..rng.below(6) {
            let kind = *rng.pick(&[LogStreamKind::Stdout, LogStreamKind::Stderr]);
            let length = if rng.one_in(10) { 40_000 } else { 60 };
            let text = rng.text("ab 0:-TZ\r\té", length);
            // The engine cuts at bytes; a character in two pieces would be told as none.
            let text = if text.len() > PIECE { "x".repeat(text.len()) } else { text };
            let mut rest = text.as_str();
            loop {
                let (piece, after) = rest.split_at(rest.len().min(PIECE));
                let ends = piece.len() < PIECE;
                let payload = format!("{TIME} {piece}{}", if ends { "\n" } else { "" });
                stream.extend(frame(if kind == LogStreamKind::Stderr { 2 } else { 1 }, payload.as_bytes()));
                // The end of a line that was cut at its last byte is no line of its own.
                if !(ends && piece.is_empty() && !text.is_empty()) {
                    let shown = if ends { piece.strip_suffix('\r').unwrap_or(piece) } else { piece };
                    lines.push((kind, shown.to_owned(), !ends));
                }
                if ends {
                    break;
                }
                rest = after;
            }
        }
        Written { stream: Bytes(stream), lines }
    };
    fuzz::run("frames", make, |written| {
        let (pieces, _) = read(false, &[&written.stream.0]);
        assert!(pieces.iter().all(|piece| piece.time.is_some()));
        let found: Vec<_> = pieces
            .iter()
            .map(|piece| (piece.stream, String::from_utf8(piece.line.to_vec()).unwrap(), piece.partial))
            .collect();
        assert_eq!(found, written.lines);
        Outcome::Accepted
    });
}
