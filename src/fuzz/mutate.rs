//! Bytes that look like what a room reads, and are wrong somewhere.

use std::fmt;
use std::path::Path;

use super::Rng;

/// Bytes that are shown escaped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// The files of this extension in a directory of the corpus, ordered by name.
pub(crate) fn corpus(directory: &str, extension: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus").join(directory);
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    assert!(!paths.is_empty());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Text of what may not be.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What inputs are made of.
pub(crate) struct Material {
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    most: usize,
}

/// What is at home in no text in particular.
const ANYWHERE: &[&str] = &[
    "",
    "\0",
    "\n",
    "\r\n",
    "\r",
    "\t",
    " ",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "ä",
    "\u{1f600}",
    "-1",
    "0",
    "1",
    "18446744073709551616",
    "9223372036854775807",
    "1e999",
    "NaN",
    "%00",
    "%2e%2e%2f",
    "..",
    "/",
    "\\",
    "'",
    "\"",
    "`",
    "$",
    "${",
    "}",
    "#",
    ":",
    ";",
    ",",
];

impl Material {
    /// Inputs of at most `most` bytes, made of these seeds and words.
    pub(crate) fn new(seeds: Vec<Vec<u8>>, words: &[&str], most: usize) -> Self {
        let words = words.iter().chain(ANYWHERE).map(|word| word.as_bytes().to_vec()).collect();
        Self { seeds, words, most }
    }

    /// Seeds that are texts.
    pub(crate) fn of_texts(seeds: &[&str], words: &[&str], most: usize) -> Self {
        Self::new(seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect(), words, most)
    }

    /// One input.
    pub(crate) fn bytes(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = if rng.one_in(16) { Vec::new() } else { rng.pick(&self.seeds).clone() };
        // Most with few changes, which get far; some with many.
        let changes = if rng.one_in(4) { rng.below(30) } else { rng.below(4) };
        for _ in 0..changes {
            self.change(rng, &mut bytes);
            bytes.truncate(self.most);
        }
        bytes
    }

    /// One input that is a text.
    pub(crate) fn text(&self, rng: &mut Rng) -> String {
        lossy(&self.bytes(rng))
    }

    fn change(&self, rng: &mut Rng, bytes: &mut Vec<u8>) {
        let at = rng.below(bytes.len() + 1);
        let reach = if rng.one_in(4) { bytes.len() } else { 16 };
        let end = at + rng.below((bytes.len() - at).min(reach) + 1);
        match rng.below(12) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = rng.byte(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].to_vec();
                let times = if rng.one_in(8) { 200 } else { 1 + rng.below(3) };
                bytes.splice(at..at, part.repeat(times.min(self.most / part.len().max(1))));
            }
            4 => {
                let word = rng.pick(&self.words);
                let times = if rng.one_in(8) { 1 + rng.below(300) } else { 1 };
                bytes.splice(at..at, word.repeat(times));
            }
            5 | 6 => drop(bytes.splice(at..at, rng.pick(&self.words).iter().copied())),
            7 | 8 => drop(bytes.splice(at..end, rng.pick(&self.words).iter().copied())),
            // The beginning of one and the end of another.
            9 => {
                let other = rng.pick(&self.seeds);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[rng.below(other.len() + 1)..]);
            }
            10 => bytes.truncate(at),
            // A line of another in place of one.
            _ => {
                let other: Vec<&[u8]> = rng.pick(&self.seeds).split(|&byte| byte == b'\n').collect();
                let mut lines: Vec<Vec<u8>> = bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
                let line = rng.below(lines.len());
                lines[line] = rng.pick(&other).to_vec();
                *bytes = lines.join(&b'\n');
            }
        }
    }
}
