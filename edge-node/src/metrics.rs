//! What an edge measures.

use millrace_runtime::Metrics;
use millrace_runtime::metrics::{Counter, Gauge, Histogram, LATENCY_BUCKETS_S, Unit};

/// What requests are for.
const KINDS: [&str; 5] = ["media", "playlist", "beacon", "preflight", "other"];
/// How they were answered.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// All metrics of an edge, `millrace_edge_…`.
#[derive(Debug, Clone)]
pub struct EdgeMetrics {
    requests: [[Counter; 4]; 5],
    /// Body bytes of answers.
    pub sent_bytes: Counter,
    /// Requests waiting for a playlist or a part.
    pub waiters: Gauge,
    /// Requests refused because too many wait.
    pub waiters_refused: Counter,
    /// How long requests waited.
    pub waited: Histogram,
    /// Streams followed.
    pub feeds: Gauge,
    /// Feeds that do not follow their author within a second.
    pub feeds_lagging: Gauge,
    /// Bytes of parts and segments held by feeds.
    pub hot_bytes: Gauge,
    /// Media requests answered from memory.
    pub cache_hits: Counter,
    /// Media requests not answered from memory.
    pub cache_misses: Counter,
    /// Reads from the object store.
    pub store_reads: Counter,
    /// Bytes read from the object store.
    pub store_read_bytes: Counter,
    /// Reads that failed, missing objects apart.
    pub store_errors: Counter,
    /// Requests that joined a read under way.
    pub coalesced: Counter,
    /// Look-ups of unknown playback ids answered from memory.
    pub unknown_remembered: Counter,
    /// Beats of viewers that were not counted.
    pub beats_uncounted: Counter,
    /// Messages of the bus lost because a feed was behind.
    pub feed_dropped: Counter,
}

impl EdgeMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        let m = metrics.scope("edge");
        let help = "Answers by kind and status class";
        let requests = m.counters("http_requests", Unit::Count, help, &["kind", "status"]);
        let counter = |name, unit, help| m.counter(name, unit, help);
        Self {
            requests: KINDS.map(|kind| CLASSES.map(|class| requests.with(&[kind, class]))),
            sent_bytes: counter("http_sent", Unit::Bytes, "Body bytes of answers"),
            waiters: m.gauge("waiters", Unit::Count, "Requests waiting for a playlist or part"),
            waiters_refused: counter(
                "waiters_refused",
                Unit::Count,
                "Requests refused because too many wait",
            ),
            waited: m.histogram("wait", Unit::Seconds, "Time requests were held", LATENCY_BUCKETS_S),
            feeds: m.gauge("feeds", Unit::Count, "Streams followed"),
            feeds_lagging: m.gauge(
                "feeds_lagging",
                Unit::Count,
                "Feeds more than a second behind their author",
            ),
            hot_bytes: m.gauge("hot", Unit::Bytes, "Parts and segments held by feeds"),
            cache_hits: counter("cache_hits", Unit::Count, "Media requests answered from memory"),
            cache_misses: counter("cache_misses", Unit::Count, "Media requests not answered from memory"),
            store_reads: counter("store_reads", Unit::Count, "Reads from the object store"),
            store_read_bytes: counter("store_read", Unit::Bytes, "Bytes read from the object store"),
            store_errors: counter("store_errors", Unit::Count, "Failed reads from the object store"),
            coalesced: counter("store_reads_coalesced", Unit::Count, "Requests that joined a read under way"),
            unknown_remembered: counter(
                "unknown_remembered",
                Unit::Count,
                "Unknown playback ids refused from memory",
            ),
            beats_uncounted: counter("beats_uncounted", Unit::Count, "Viewers' beats beyond a limit"),
            feed_dropped: counter("feed_messages_dropped", Unit::Count, "Bus messages lost by slow feeds"),
        }
    }
    /// Counts an answer: `class` 0 to 3 for 2xx to 5xx.
    pub(crate) fn answered(&self, kind: &'static str, class: usize) {
        let kind = KINDS.iter().position(|k| *k == kind).unwrap_or(KINDS.len() - 1);
        if let Some(counter) = self.requests[kind].get(class) {
            counter.inc();
        }
    }
}
