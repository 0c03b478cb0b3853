//! Metrics with Prometheus names: prefix, what is measured, unit; exposed as `OpenMetrics` text.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter as RawCounter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge as RawGauge;
use prometheus_client::metrics::histogram::Histogram as RawHistogram;
use prometheus_client::registry::{Registry, Unit as RawUnit};

/// The prefix of every metric's name.
const NAMESPACE: &str = "millrace";

/// Bucket bounds in seconds for latencies of the live path, from 1 ms to 10 s.
pub const LATENCY_BUCKETS_S: &[f64] =
    &[0.001, 0.002, 0.005, 0.010, 0.015, 0.025, 0.050, 0.100, 0.250, 0.500, 1.0, 2.5, 5.0, 10.0];

/// The unit of a metric, appended to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A plain count of the things in the metric's name.
    Count,
    /// Seconds, as `_seconds` in the name.
    Seconds,
    /// Bytes, as `_bytes` in the name.
    Bytes,
    /// A share from 0 to 1, as `_ratios` in the name.
    Ratio,
}

type LabelSet = Vec<(&'static str, String)>;

/// The registry of a process, seen through one node's prefix. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    prefix: String,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Makes an empty registry with the prefix `millrace`.
    pub fn new() -> Self {
        Self { registry: Arc::new(Mutex::new(Registry::default())), prefix: NAMESPACE.to_owned() }
    }

    /// Returns the same registry with `part` added to the prefix: `metrics.scope("ingest")` gives
    /// `millrace_ingest_…`.
    #[must_use]
    pub fn scope(&self, part: &str) -> Self {
        Self { registry: self.registry.clone(), prefix: format!("{}_{part}", self.prefix) }
    }

    /// Registers a counter, which only grows. `_total` is appended to its name in the output.
    pub fn counter(&self, name: &str, unit: Unit, help: &str) -> Counter {
        let metric = RawCounter::default();
        self.register(name, unit, help, metric.clone());
        Counter(metric)
    }

    /// Registers a gauge of whole numbers.
    pub fn gauge(&self, name: &str, unit: Unit, help: &str) -> Gauge {
        let metric = RawGauge::default();
        self.register(name, unit, help, metric.clone());
        Gauge(metric)
    }

    /// Registers a gauge of fractions.
    pub fn gauge_f64(&self, name: &str, unit: Unit, help: &str) -> GaugeF64 {
        let metric = RawGauge::default();
        self.register(name, unit, help, metric.clone());
        GaugeF64(metric)
    }

    /// Registers a histogram over fixed bucket bounds, which ascend.
    pub fn histogram(&self, name: &str, unit: Unit, help: &str, buckets: &'static [f64]) -> Histogram {
        let metric = RawHistogram::new(buckets.iter().copied());
        self.register(name, unit, help, metric.clone());
        Histogram(metric)
    }

    /// Registers counters distinguished by labels. Label values must come from a bounded set.
    pub fn counters(&self, name: &str, unit: Unit, help: &str, labels: &'static [&'static str]) -> Counters {
        let family = Family::<LabelSet, RawCounter>::default();
        self.register(name, unit, help, family.clone());
        Counters { family, labels }
    }

    /// Registers gauges distinguished by labels. The owner removes the label sets of things that are gone.
    pub fn gauges(&self, name: &str, unit: Unit, help: &str, labels: &'static [&'static str]) -> Gauges {
        let family = Family::<LabelSet, RawGauge>::default();
        self.register(name, unit, help, family.clone());
        Gauges { family, labels }
    }

    /// Registers histograms distinguished by labels, over the same bucket bounds.
    pub fn histograms(
        &self,
        name: &str,
        unit: Unit,
        help: &str,
        buckets: &'static [f64],
        labels: &'static [&'static str],
    ) -> Histograms {
        let family = Family::new_with_constructor(Buckets(buckets));
        self.register(name, unit, help, family.clone());
        Histograms { family, labels }
    }

    /// Returns all metrics of the process as `OpenMetrics` text.
    pub fn render(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            tracing::error!("metrics could not be written as text");
        }
        text
    }

    fn register(&self, name: &str, unit: Unit, help: &str, metric: impl prometheus_client::registry::Metric) {
        let name = format!("{}_{name}", self.prefix);
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match unit {
            Unit::Count => registry.register(name, help, metric),
            Unit::Seconds => registry.register_with_unit(name, help, RawUnit::Seconds, metric),
            Unit::Bytes => registry.register_with_unit(name, help, RawUnit::Bytes, metric),
            Unit::Ratio => registry.register_with_unit(name, help, RawUnit::Ratios, metric),
        }
    }
}

/// A metric that only grows.
#[derive(Debug, Clone)]
pub struct Counter(RawCounter);

impl Counter {
    /// Adds one to the count.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `n` to the count.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// Returns the count so far.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A metric that goes up and down in whole numbers.
#[derive(Debug, Clone)]
pub struct Gauge(RawGauge);

impl Gauge {
    /// Sets the current value of the gauge.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.inc_by(n);
    }

    /// Returns the current value of the gauge.
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// A metric that goes up and down in fractions.
#[derive(Debug, Clone)]
pub struct GaugeF64(RawGauge<f64, AtomicU64>);

impl GaugeF64 {
    /// Sets the current value of the gauge.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// Returns the current value of the gauge.
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

/// A metric that counts observations by size.
#[derive(Debug, Clone)]
pub struct Histogram(RawHistogram);

impl Histogram {
    /// Counts one observation, in the unit of the metric.
    pub fn observe(&self, value: f64) {
        self.0.observe(value);
    }
}

#[derive(Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<RawHistogram> for Buckets {
    fn new_metric(&self) -> RawHistogram {
        RawHistogram::new(self.0.iter().copied())
    }
}

fn label_set(labels: &'static [&'static str], values: &[&str]) -> LabelSet {
    debug_assert_eq!(labels.len(), values.len(), "one value for each label");
    labels.iter().zip(values).map(|(label, value)| (*label, (*value).to_owned())).collect()
}

macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident, $one:ident, $raw:ty, $family:ty) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            family: $family,
            labels: &'static [&'static str],
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("labels", &self.labels).finish_non_exhaustive()
            }
        }

        impl $name {
            /// Returns the metric with these label values, in the order in which the labels were declared. The
            /// look-up takes a lock: keep the result where it is used often.
            pub fn with(&self, values: &[&str]) -> $one {
                $one(self.family.get_or_create(&label_set(self.labels, values)).clone())
            }

            /// Removes a label set, so that its series ends.
            pub fn remove(&self, values: &[&str]) {
                self.family.remove(&label_set(self.labels, values));
            }
        }
    };
}

labelled!(
    /// Counters of one name, distinguished by the values of their labels.
    Counters, Counter, RawCounter, Family<LabelSet, RawCounter>
);
labelled!(
    /// Gauges of one name, distinguished by the values of their labels.
    Gauges, Gauge, RawGauge, Family<LabelSet, RawGauge>
);
labelled!(
    /// Histograms of one name, distinguished by the values of their labels.
    Histograms, Histogram, RawHistogram, Family<LabelSet, RawHistogram, Buckets>
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_carry_the_prefix_of_their_scope_and_the_unit() {
        let metrics = Metrics::new();
        let ingest = metrics.scope("ingest");
        ingest.counter("received", Unit::Bytes, "Bytes received from publishers").add(7);
        ingest.gauge("sessions", Unit::Count, "Open publisher sessions").set(2);
        ingest.histogram("claim", Unit::Seconds, "Time to claim", LATENCY_BUCKETS_S).observe(0.004);
        let refused = ingest.counters("refused", Unit::Count, "Refused", &["reason"]);
        refused.with(&["unknown_key"]).inc();
        let text = metrics.render();
        assert!(text.contains("millrace_ingest_received_bytes_total 7"), "{text}");
        assert!(text.contains("millrace_ingest_sessions 2"), "{text}");
        assert!(text.contains("millrace_ingest_claim_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("millrace_ingest_refused_total{reason=\"unknown_key\"} 1"), "{text}");
        refused.remove(&["unknown_key"]);
        assert!(!metrics.render().contains("unknown_key"));
    }
}
