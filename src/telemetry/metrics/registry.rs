//! The registry together with the list of what is in it, so that a test can hold dashboards and documentation to it.

use prometheus_client::metrics::family::Family as Series;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Metric, Registry};

/// What kind of metric a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It has `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// One family of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// The name as it is exposed, with `_total` for a counter.
    pub name: String,
    /// Its kind.
    pub kind: FamilyKind,
    /// What it says.
    pub help: &'static str,
}

/// A registry that is being filled.
#[derive(Default)]
pub(super) struct Filling {
    pub(super) registry: Registry,
    pub(super) families: Vec<Family>,
}

impl Filling {
    /// Registers a metric and keeps a handle to it.
    pub(super) fn add<M: Metric + TypedMetric + Clone>(&mut self, name: &str, help: &'static str, metric: M) -> M {
        let (kind, suffix) = match M::TYPE {
            MetricType::Counter => (FamilyKind::Counter, "_total"),
            MetricType::Histogram => (FamilyKind::Histogram, ""),
            _ => (FamilyKind::Gauge, ""),
        };
        self.families.push(Family { name: format!("{name}{suffix}"), kind, help });
        self.registry.register(name, help, metric.clone());
        metric
    }
}

/// Histograms by labels.
pub(super) type Histograms<L> = Series<L, Histogram, fn() -> Histogram>;

/// Bounds in seconds for what is answered from memory or by the engine.
pub(super) fn quick() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0])
}

/// Bounds in seconds for what starts containers or pulls images.
pub(super) fn slow() -> Histogram {
    Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0])
}
