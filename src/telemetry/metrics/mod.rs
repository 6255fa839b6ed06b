//! Metrics for Prometheus, in a registry of this agent's own.
//!
//! What happens is counted where it happens; what *is* (memory, tenants by state) is written into the gauges when somebody
//! asks, by [`Metrics::text`]. The number of series is bounded: labels are words of the source, except for `subdomain`,
//! whose series the caller bounds. `docs/metrics.md` has them all, and a test holds it to that.

mod present;
mod registry;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Series;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::Serialize;

pub use present::{Fact, Present};
pub use registry::{Family, FamilyKind};

use self::present::Gauges;
use self::registry::{Filling, Histograms, quick, slow};
use crate::domain::{ErrorCode, OperationKind};

/// The labels of a series, each name with its value.
type Labels<const N: usize> = [(&'static str, &'static str); N];
/// The same with words that the domain has for its values.
type Words<const N: usize> = [(&'static str, String); N];
/// Route and method by their addresses and lengths, for they are words of the program; and the class of the status.
type RequestKind = [(usize, usize); 3];

/// All metrics of one agent. Made once in `main` and handed to the rooms; counting takes no lock that is held long.
pub struct Metrics {
    registry: Registry,
    families: Vec<Family>,
    requests: Series<Labels<3>, Counter>,
    request_time: Histograms<Labels<2>>,
    /// Both of each kind of request that there has been: to find them by their labels takes longer than all else here.
    of_requests: DashMap<RequestKind, (Counter, Histogram)>,
    connections: Gauge,
    connections_refused: Counter,
    failed_logins: Counter,
    log_streams: Gauge,
    operations: Series<Words<2>, Counter>,
    operation_time: Histograms<Words<2>>,
    step_time: Histograms<Words<2>>,
    running: Gauge,
    recoveries: Series<Labels<1>, Counter>,
    engine_time: Histograms<Labels<1>>,
    engine_errors: Series<Labels<2>, Counter>,
    pulls: Series<Labels<1>, Counter>,
    pull_time: Histograms<Labels<1>>,
    pull_bytes: Counter,
    restart_loops: Counter,
    panics: Counter,
    gauges: Mutex<Gauges>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Filling::default();
        let quick: fn() -> _ = quick;
        let slow: fn() -> _ = slow;
        Self {
            requests: all.add(
                "q8_agent_http_requests",
                "Requests answered, by route template, method and class of status (none: the client went away first)",
                Series::default(),
            ),
            request_time: all.add(
                "q8_agent_http_request_duration_seconds",
                "Time from a request's head to the head of its answer, by route template and method",
                Series::new_with_constructor(quick),
            ),
            connections: all.add("q8_agent_http_connections", "Open connections", Gauge::default()),
            connections_refused: all.add(
                "q8_agent_http_connections_refused",
                "Connections that were refused because all places were taken",
                Counter::default(),
            ),
            failed_logins: all.add(
                "q8_agent_http_failed_logins",
                "Requests with a wrong token, or without one",
                Counter::default(),
            ),
            log_streams: all.add("q8_agent_log_streams", "Log streams that are being served", Gauge::default()),
            operations: all.add(
                "q8_agent_operations",
                "Operations that have ended, by kind and outcome (ok, interrupted, or the error code)",
                Series::default(),
            ),
            operation_time: all.add(
                "q8_agent_operation_duration_seconds",
                "Duration of operations, by kind and outcome (ok or failed)",
                Series::new_with_constructor(slow),
            ),
            step_time: all.add(
                "q8_agent_operation_step_duration_seconds",
                "Duration of the steps of operations, by kind and step",
                Series::new_with_constructor(slow),
            ),
            running: all.add(
                "q8_agent_operations_running",
                "Operations that run, on tenants or on the host",
                Gauge::default(),
            ),
            recoveries: all.add(
                "q8_agent_recoveries",
                "Attempts to finish or undo what an operation left open, by outcome (ok or failed)",
                Series::default(),
            ),
            engine_time: all.add(
                "q8_agent_engine_call_duration_seconds",
                "Duration of calls to the engine, by call",
                Series::new_with_constructor(quick),
            ),
            engine_errors: all.add(
                "q8_agent_engine_call_errors",
                "Calls to the engine that failed, by call and reason",
                Series::default(),
            ),
            pulls: all.add("q8_agent_image_pulls", "Image pulls that have ended, by outcome", Series::default()),
            pull_time: all.add(
                "q8_agent_image_pull_duration_seconds",
                "Duration of image pulls, by outcome",
                Series::new_with_constructor(slow),
            ),
            pull_bytes: all.add(
                "q8_agent_image_pull_bytes",
                "Bytes of layers that pulls have downloaded",
                Counter::default(),
            ),
            restart_loops: all.add(
                "q8_agent_restart_loops",
                "Containers that were found to restart again and again",
                Counter::default(),
            ),
            panics: all.add("q8_agent_panics", "Panics: each is a bug, and the log has its place", Counter::default()),
            of_requests: DashMap::default(),
            gauges: Mutex::new(Gauges::new(&mut all)),
            registry: all.registry,
            families: all.families,
        }
    }
}

/// Something that is being counted as long as this lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    fn begin(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// All families there are, in the order of the text.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// A request has its answer (or will never have one: no status).
    pub fn request(&self, route: &'static str, method: &'static str, status: Option<u16>, took: Duration) {
        let Some(status) = status else {
            self.requests.get_or_create(&[("route", route), ("method", method), ("status", "none")]).inc();
            return;
        };
        let class = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        let tell = |(count, time): &(Counter, Histogram)| {
            count.inc();
            time.observe(took.as_secs_f64());
        };
        let kind = [route, method, class].map(|word| (word.as_ptr().addr(), word.len()));
        if let Some(known) = self.of_requests.get(&kind) {
            return tell(&known);
        }
        let new = (
            self.requests.get_or_create(&[("route", route), ("method", method), ("status", class)]).clone(),
            self.request_time.get_or_create(&[("route", route), ("method", method)]).clone(),
        );
        tell(&new);
        self.of_requests.insert(kind, new);
    }

    /// A connection is open.
    pub fn connection(&self) -> Counted {
        Counted::begin(&self.connections)
    }

    /// A connection found no place.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// A request had a wrong token, or none.
    pub fn login_failed(&self) {
        self.failed_logins.inc();
    }

    /// A log stream is being served.
    pub fn log_stream(&self) -> Counted {
        Counted::begin(&self.log_streams)
    }

    /// An operation has its tenant's lock.
    pub fn operation(&self) -> Counted {
        Counted::begin(&self.running)
    }

    /// An operation has ended: `code` is the error's, none when it succeeded.
    pub fn operation_ended(&self, kind: OperationKind, code: Option<ErrorCode>, took: Duration) {
        let kind = || ("kind", word(&kind));
        let outcome = code.as_ref().map_or_else(|| "ok".to_owned(), word);
        self.operations.get_or_create(&[kind(), ("outcome", outcome)]).inc();
        let outcome = if code.is_none() { "ok" } else { "failed" };
        self.operation_time.get_or_create(&[kind(), ("outcome", outcome.to_owned())]).observe(took.as_secs_f64());
    }

    /// An operation that an earlier run of the agent began has been recovered.
    pub fn operation_interrupted(&self, kind: OperationKind) {
        self.operations.get_or_create(&[("kind", word(&kind)), ("outcome", "interrupted".to_owned())]).inc();
    }

    /// One step of an operation has ended, in whatever way. `step` is a word of the source.
    pub fn step(&self, kind: OperationKind, step: &'static str, took: Duration) {
        self.step_time.get_or_create(&[("kind", word(&kind)), ("step", step.to_owned())]).observe(took.as_secs_f64());
    }

    /// An attempt to finish or undo what an operation left open has ended.
    pub fn recovered(&self, good: bool) {
        self.recoveries.get_or_create(&[("outcome", if good { "ok" } else { "failed" })]).inc();
    }

    /// A call to the engine has ended: `failure` says why it failed, a word of the source.
    pub fn engine_call(&self, call: &'static str, failure: Option<&'static str>, took: Duration) {
        self.engine_time.get_or_create(&[("call", call)]).observe(took.as_secs_f64());
        if let Some(reason) = failure {
            self.engine_errors.get_or_create(&[("call", call), ("reason", reason)]).inc();
        }
    }

    /// A pull has ended: `failure` says why it failed, a word of the source.
    pub fn pull(&self, failure: Option<&'static str>, took: Duration) {
        let outcome = [("outcome", failure.unwrap_or("ok"))];
        self.pulls.get_or_create(&outcome).inc();
        self.pull_time.get_or_create(&outcome).observe(took.as_secs_f64());
    }

    /// A pull has downloaded bytes.
    pub fn pulled_bytes(&self, bytes: u64) {
        self.pull_bytes.inc_by(bytes);
    }

    /// A container was found to restart again and again.
    pub fn restart_loop(&self) {
        self.restart_loops.inc();
    }

    /// Something has panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// The text for Prometheus (text format 0.0.4), with the gauges as things are now.
    pub fn text(&self, present: &Present) -> String {
        // Two who ask at once must not read each other's half-written gauges.
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.show(present);
        let mut text = String::with_capacity(16 << 10);
        prometheus_text::encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}

/// A word of the domain as answers have it.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
