//! What loading costs: large projects, and texts that are made to cost a lot. No engine is needed. Prints medians beside
//! their budgets, in milliseconds.
//!
//! `make bench`, or `cargo bench --bench load`. `Q8_BENCH_ROUNDS` sets the number of rounds (7 unless told).
#![allow(clippy::print_stdout, reason = "a table on standard output is what a benchmark is for")]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use q8_agent::compose::{Document, Files, LoadInput, load};
use q8_agent::domain::ProjectName;

struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

fn main() {
    let rounds = std::env::var("Q8_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(7_usize);
    println!("loading, medians of {rounds} rounds, milliseconds");
    println!("{:>28} {:>9} {:>9} {:>8}  outcome", "", "KiB", "q8-agent", "budget");
    for (name, budget, text) in texts() {
        let mut times: Vec<Duration> = Vec::new();
        let mut outcome = String::new();
        for _ in 0..rounds {
            let start = Instant::now();
            outcome = once(&text);
            times.push(start.elapsed());
        }
        times.sort();
        let median = times[times.len() / 2].as_secs_f64() * 1000.0;
        println!("{name:>28} {:>9} {median:>9.1} {budget:>8}  {outcome}", text.len() >> 10);
    }
}

fn once(text: &str) -> String {
    let loaded = load(&LoadInput {
        documents: &[Document { name: "compose.yaml", bytes: text.as_bytes() }],
        variables: &BTreeMap::from([("TAG".to_owned(), "1".to_owned())]),
        files: &NoFiles,
        profiles: &BTreeSet::new(),
        project: &ProjectName::parse("q8-acme").expect("a project name"),
        names_the_project: true,
        directory: "/opt/tenants/acme",
    });
    match loaded {
        Ok(loaded) => format!("{} services", loaded.project.services.len()),
        Err(error) => format!("refused: {}", error.reason.chars().take(50).collect::<String>()),
    }
}

/// Name, budget in milliseconds, text.
fn texts() -> Vec<(&'static str, u32, String)> {
    let services = |count: usize, service: &dyn Fn(usize) -> String| {
        let mut text = "services:\n".to_owned();
        for at in 0..count {
            let _ = writeln!(text, "  s{at}: {}", service(at));
        }
        text
    };
    let typical = services(5000, &|at| format!("{{image: 'img:${{TAG}}', ports: [{}], tty: true}}", 1000 + at));
    let bomb: String =
        (1..12).map(|at| format!("x-{at}: &a{at} [{}]\n", vec![format!("*a{}", at - 1); 9].join(","))).collect();
    vec![
        ("5,000 services", 50, typical),
        ("10,000 services", 100, services(10_000, &|_| "{image: x}".to_owned())),
        ("10,001 services", 100, services(10_001, &|_| "{image: x}".to_owned())),
        (
            "5,000 services that extend",
            100,
            services(5000, &|at| match at {
                0 => "{image: x, environment: {A: b}}".to_owned(),
                _ => "{extends: s0, environment: {B: c}}".to_owned(),
            }),
        ),
        ("alias bomb", 100, format!("x-0: &a0 [a,a,a,a,a,a,a,a,a]\n{bomb}services: {{a: {{image: x}}}}\n")),
        ("flow nesting", 100, format!("a: {}", "[".repeat(500_000))),
        ("block nesting", 100, (0..900).map(|at| format!("{}a:\n", " ".repeat(at))).collect()),
        ("a scalar of 1 MB", 100, format!("services: {{a: {{image: x, command: ['{}']}}}}\n", "x".repeat(1_000_000))),
        (
            "variables in 1 MB",
            100,
            format!("services: {{a: {{image: x, hostname: '{}'}}}}\n", "${TAG}".repeat(160_000)),
        ),
        ("a byte order mark", 100, "\u{feff}services: {a: {image: x}}\n".to_owned()),
        ("100 documents", 100, "services: {a: {image: x}}\n---\n".repeat(99) + "services: {}\n"),
    ]
}
