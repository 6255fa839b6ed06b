//! `q8-agent`: tenants' Compose stacks, run natively through the Docker Engine API.
//!
//! The house has floors. A room uses the rooms below it and never one above:
//!
//! | room | what it does |
//! |---|---|
//! | [`cli`] | arguments in, exit code out; wires the rooms together for `serve` |
//! | [`api`] | HTTP: listener, tokens, routes, the one table from error codes to statuses, log streams |
//! | [`orchestrator`] | chains the rooms below under one lock per tenant; operations, recovery |
//! | [`backend`] | the trait of places that run tenants; `docker` and `memory` behind it |
//! | [`policy`] | a resolved project in, one that may run here out, or refusals. Pure |
//! | [`tenant_fs`] | the tenants root: the only room that touches the disk |
//! | [`compose`] | Compose text in, a resolved project or a located error out. Pure |
//! | [`config`] | environment variables in, checked settings out |
//! | [`telemetry`] | the log, the metrics, the numbers of the host |
//! | [`domain`] | the words: names, states, error codes. The ground |
//!
//! Beside them is `crash`: named points where tests kill the process, compiled in by the feature `crash-points` only.
#![forbid(unsafe_code)]

pub mod api;
pub mod backend;
pub mod cli;
pub mod compose;
pub mod config;
pub mod domain;
pub mod orchestrator;
pub mod policy;
pub mod telemetry;
pub mod tenant_fs;

mod crash;
#[cfg(test)]
mod fuzz;
