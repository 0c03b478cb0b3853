//! The metrics of publisher sessions.

use millrace_runtime::Metrics;
use millrace_runtime::metrics::{Counter, Counters, Gauge, Unit};

/// Handles to the metrics of all publisher sessions of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionMetrics {
    pub(super) messages: Counter,
    pub(super) published: Counter,
    pub(super) publish_errors: Counters,
    pub(super) ring: Gauge,
    pub(super) repair_requests: Counter,
    pub(super) repair_messages: Counter,
    pub(super) repair_bytes: Counter,
    pub(super) lease_failures: Counter,
    pub(super) no_worker: Gauge,
}

impl SessionMetrics {
    /// Registers the metrics in the node's scope.
    pub fn register(metrics: &Metrics) -> Self {
        let count = |name, help| metrics.counter(name, Unit::Count, help);
        let bytes = |name, help| metrics.counter(name, Unit::Bytes, help);
        Self {
            messages: count("media_messages", "Media messages published on the bus"),
            published: bytes("published", "Bytes of media published on the bus"),
            publish_errors: metrics.counters(
                "publish_errors",
                Unit::Count,
                "Messages the bus did not take, by error",
                &["error"],
            ),
            ring: metrics.gauge("ring", Unit::Bytes, "Bytes of media kept for repairs, over all sessions"),
            repair_requests: count("repair_requests", "Repair requests received"),
            repair_messages: count("repair_messages", "Media messages retransmitted"),
            repair_bytes: bytes("repaired", "Bytes of media retransmitted"),
            lease_failures: count("lease_failures", "Lease renewals and releases without an answer"),
            no_worker: metrics.gauge(
                "sessions_without_worker",
                Unit::Count,
                "Sessions no worker has capacity for",
            ),
        }
    }
}
