//! What a worker measures.

use millrace_runtime::metrics::{Counter, Counters, Gauge, Unit};

/// `millrace_transcode_…`
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Jobs running.
    pub(crate) jobs: Gauge,
    /// Jobs granted since the start.
    pub(crate) grants: Counter,
    /// Offers not bid for: no room.
    pub(crate) offers_declined: Counter,
    /// Jobs that ended with an error.
    pub(crate) failures: Counter,
    /// Parts announced.
    pub(crate) parts: Counter,
    /// Segments stored.
    pub(crate) segments_stored: Counter,
    /// Segments that did not get into the store.
    pub(crate) segments_lost: Counter,
    /// Index facts by what became of them.
    pub(crate) index_facts: Counters,
    /// Frames of facts that the bus dropped.
    pub(crate) facts_dropped: Counter,
    /// Requests of readers for facts they missed.
    pub(crate) repair_requests: Counter,
    /// Bytes waiting for the store.
    pub(crate) spill: Gauge,
}

impl Metrics {
    pub(crate) fn new(metrics: &millrace_runtime::Metrics) -> Self {
        let scope = metrics.scope("transcode");
        let count = |name, help| scope.counter(name, Unit::Count, help);
        Self {
            jobs: scope.gauge("jobs", Unit::Count, "Streams being packaged"),
            grants: count("grants", "Jobs granted"),
            offers_declined: count("offers_declined", "Offers not bid for because there is no room"),
            failures: count("job_failures", "Jobs that ended with an error"),
            parts: count("parts", "Parts announced"),
            segments_stored: count("segments_stored", "Segments stored"),
            segments_lost: count("segments_lost", "Segments that did not get into the store"),
            index_facts: scope.counters("index_facts", Unit::Count, "Index facts by outcome", &["outcome"]),
            facts_dropped: count("facts_dropped", "Frames of facts the bus dropped"),
            repair_requests: count("repair_requests", "Requests for facts that readers missed"),
            spill: scope.gauge("spill", Unit::Bytes, "Objects waiting for the store"),
        }
    }
}
