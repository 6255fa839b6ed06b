//! The agent is killed at each of its crash points, the engine fails at each of its calls, and both go on for a long time.
//!
//! `make test` runs a short form: some of the points, a few kills, half a minute. `Q8_TORTURE=1` (`make torture`) is the whole,
//! which takes two hours.
#![allow(clippy::print_stderr, reason = "how far it is, for whoever waits for the whole")]

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "the promises in `e2e_faults` use the rest")]
#[path = "../e2e_faults/auditor.rs"]
mod auditor;
#[allow(dead_code, unused_imports, reason = "the promises in `e2e_faults` use the rest")]
#[path = "../e2e_faults/scene.rs"]
mod scene;

mod actions;
mod churn;
mod engine_faults;
mod killed_at_each_point;
mod killed_at_random;
mod marks;

/// Whether all of it is to run.
pub(crate) fn whole() -> bool {
    std::env::var_os("Q8_TORTURE").is_some_and(|value| value == "1")
}
