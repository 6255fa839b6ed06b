//! Fuzzing without coverage, on the stable toolchain: a loop that makes inputs, puts them to a room and looks at what
//! comes back. The targets are the modules `fuzz` in the rooms, because what they look at is private there.
//!
//! `cargo test` puts a few hundred inputs to each, always the same ones. `make fuzz` goes on for minutes:
//! - `Q8_FUZZ_SECONDS` is how long each target goes on;
//! - `Q8_FUZZ_SEED` is the number that the first input is made of. The next input is made of the next number, so a number
//!   that was told with a finding makes that input again, first of all.

mod mutate;
mod rng;
mod tree;

pub(crate) use mutate::{Bytes, Material, corpus, lossy};
pub(crate) use rng::Rng;
pub(crate) use tree::Forest;

use std::fmt::Debug;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::compose::Location;

/// What becomes of an input. A target whose inputs all end alike looks at nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accepted,
    Refused,
}

impl<T, E> From<&Result<T, E>> for Outcome {
    fn from(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Accepted } else { Self::Refused }
    }
}

/// Inputs of a run that is not told how long to go on.
const SMOKE: u64 = 300;
/// No input takes so long; the run is given up, because the thread cannot be.
const HANG: Duration = Duration::from_secs(120);

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number")))
}

/// Runs one target. `make` makes an input of a number's random stream; `check` panics when it finds something.
pub(crate) fn run<I: Debug>(name: &str, make: impl Fn(&mut Rng) -> I, check: impl Fn(&I) -> Outcome) {
    let time = setting("Q8_FUZZ_SECONDS").map(Duration::from_secs);
    run_for(time, setting("Q8_FUZZ_SEED").unwrap_or(0), name, make, check);
}

fn run_for<I: Debug>(
    time: Option<Duration>,
    first: u64,
    name: &str,
    make: impl Fn(&mut Rng) -> I,
    check: impl Fn(&I) -> Outcome,
) {
    // A stack that overflows ends the process without a word; then this file has the number.
    let trace = time.map(|_| std::env::temp_dir().join(format!("q8-fuzz-{name}.seed")));
    let file = trace.as_ref().map(|path| std::fs::File::create(path).unwrap());
    let (began, seed, over) = (Instant::now(), AtomicU64::new(first), AtomicBool::new(false));
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    let failure = std::thread::scope(|scope| {
        scope.spawn(|| watch(name, &seed, &over));
        let failure = loop {
            let inputs = accepted + refused;
            if time.map_or(inputs >= SMOKE, |time| inputs > 0 && began.elapsed() >= time) {
                break None;
            }
            let number = first.wrapping_add(inputs);
            seed.store(number, Ordering::Relaxed);
            if let Some(file) = &file {
                file.write_all_at(format!("{number:020}\n").as_bytes(), 0).unwrap();
            }
            let input = make(&mut Rng::new(number));
            match catch_unwind(AssertUnwindSafe(|| check(&input))) {
                Ok(Outcome::Accepted) => accepted += 1,
                Ok(Outcome::Refused) => refused += 1,
                Err(failure) => {
                    eprintln!("{}\n{input:?}", told(name, number));
                    break Some(failure);
                }
            }
        };
        over.store(true, Ordering::Relaxed);
        failure
    });
    if let Some(failure) = failure {
        resume_unwind(failure);
    }
    if let Some(path) = trace {
        std::fs::remove_file(path).unwrap();
    }
    eprintln!(
        "fuzz {name}: {} inputs from number {first}, {accepted} accepted, {refused} refused, {:.0?}",
        accepted + refused,
        began.elapsed()
    );
    assert!(accepted > 0 || accepted + refused < 100, "{name}: no input was accepted");
}

fn told(name: &str, number: u64) -> String {
    format!("fuzz {name}: a finding. Q8_FUZZ_SEED={number} Q8_FUZZ_SECONDS=1 makes it again. The input:")
}

/// Ends the process when one input takes too long.
fn watch(name: &str, seed: &AtomicU64, over: &AtomicBool) {
    let (mut at, mut since) = (seed.load(Ordering::Relaxed), Instant::now());
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        let now = seed.load(Ordering::Relaxed);
        if now != at {
            (at, since) = (now, Instant::now());
        } else if since.elapsed() > HANG {
            eprintln!("{} does not end", told(name, at));
            std::process::abort();
        }
    }
}

/// The value of `work`, which must take less than `limit`. Other processes slow it down too, so it may try again.
pub(crate) fn within<T>(limit: Duration, work: impl Fn() -> T) -> T {
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let value = work();
        fastest = fastest.min(start.elapsed());
        if fastest < limit {
            return value;
        }
    }
    panic!("it took {fastest:?}, and may take {limit:?}");
}

/// Whether a place is in a text or just behind one of its lines, whatever ends a line.
pub(crate) fn is_inside(text: &str, location: Location) -> bool {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let fits = |lines: Vec<&str>| {
        let line = usize::try_from(location.line).unwrap().checked_sub(1).and_then(|at| lines.get(at));
        let columns = line.map_or(0, |line| line.chars().count() + 1);
        (1..=columns).contains(&usize::try_from(location.column).unwrap())
    };
    let normal = text.replace("\r\n", "\n");
    fits(text.split('\n').collect()) || fits(normal.split(['\n', '\r']).collect())
}

#[test]
fn the_same_number_makes_the_same_input() {
    let material = Material::new(corpus("valid", "yaml"), &["a", "bc"], 4096);
    let make = |seed| material.bytes(&mut Rng::new(seed));
    assert!((0..50).all(|seed| make(seed) == make(seed)));
    assert!((0..50).any(|seed| make(seed) != make(seed + 1)));
}

#[test]
fn a_finding_is_a_failure() {
    let never = |_: &u64| -> Outcome { panic!("found") };
    assert!(catch_unwind(|| run_for(None, 0, "never", Rng::next, never)).is_err());
    let refused = |_: &u64| Outcome::Refused;
    assert!(catch_unwind(|| run_for(None, 0, "refused", Rng::next, refused)).is_err());
}

#[test]
fn places_are_inside_or_not() {
    for (text, line, column, inside) in [
        ("", 1, 1, true),
        ("ab\nc", 1, 3, true),
        ("ab\nc", 1, 4, false),
        ("ab\nc", 2, 2, true),
        ("ab\nc", 3, 1, false),
        ("ab\n", 2, 1, true),
        ("a\rb", 2, 1, true),
        ("ab", 0, 1, false),
        ("ab", 1, 0, false),
    ] {
        assert_eq!(is_inside(text, Location { line, column }), inside, "{text:?} {line}:{column}");
    }
}
