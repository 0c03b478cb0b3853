//! The metrics of an edge.

use millrace_runtime::Metrics;
use millrace_runtime::metrics::{Counter, Gauge, Gauges, Histogram, LATENCY_BUCKETS_S, Unit};

/// The kinds of requests that are counted apart.
const KINDS: [&str; 6] = ["media", "playlist", "picture", "beacon", "preflight", "other"];
/// The classes of status codes that are counted apart.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The metrics of an edge; their names begin with `millrace_edge_`.
#[derive(Debug, Clone)]
pub struct EdgeMetrics {
    requests: [[Counter; 4]; 6],
    /// Bytes of response bodies that were sent.
    pub sent_bytes: Counter,
    /// Requests waiting for a playlist or a part.
    pub waiters: Gauge,
    /// Requests refused because too many wait.
    pub waiters_refused: Counter,
    /// The time that requests waited.
    pub waited: Histogram,
    /// Streams that viewers ask for, with or without a feed.
    pub streams: Gauge,
    /// Feeds that run at this moment.
    pub feeds: Gauge,
    /// Feeds that have missed facts of their stream's log for more than a second.
    pub feeds_lagging: Gauge,
    /// The unix time in seconds since which a stream lags, by stream; a stream that does not lag has no series.
    pub feed_lag_since: Gauges,
    /// Bytes of parts and segments that feeds hold.
    pub hot_bytes: Gauge,
    /// Bytes of media that has left the cache and that unfinished answers still hold.
    pub held_bytes: Gauge,
    /// Segments that a feed dropped before the object store had them.
    pub unstored_dropped: Counter,
    /// Media requests answered from memory.
    pub cache_hits: Counter,
    /// Media requests not answered from memory.
    pub cache_misses: Counter,
    /// Reads from the object store.
    pub store_reads: Counter,
    /// Bytes read from the object store.
    pub store_read_bytes: Counter,
    /// Reads that failed; objects that the store does not have are not counted.
    pub store_errors: Counter,
    /// Requests that joined a read under way.
    pub coalesced: Counter,
    /// Playback records that the catalogue holds.
    pub catalog_records: Gauge,
    /// Reads of playback records from the state store.
    pub catalog_reads: Counter,
    /// Requests for unknown playback ids that were refused from memory.
    pub unknown_remembered: Counter,
    /// Requests and heartbeats of viewers that are not counted because a limit is reached.
    pub viewers_uncounted: Counter,
    /// Viewers that this edge counts; one may count at several edges, and several times if it shows itself in several ways.
    pub viewers_here: Gauge,
    /// Messages of the bus that were dropped because a feed did not take them in time.
    pub feed_dropped: Counter,
}

impl EdgeMetrics {
    /// Registers the metrics of an edge.
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
            streams: m.gauge("streams", Unit::Count, "Streams that viewers ask for"),
            feeds: m.gauge("feeds", Unit::Count, "Feeds that run, one for each stream that may be live"),
            feeds_lagging: m.gauge(
                "feeds_lagging",
                Unit::Count,
                "Feeds that have missed facts of their stream's log for more than a second",
            ),
            feed_lag_since: m.gauges(
                "feed_lag_since_timestamp",
                Unit::Seconds,
                "Unix time since which a stream lags, for the first hundred lagging streams",
                &["stream"],
            ),
            hot_bytes: m.gauge("hot", Unit::Bytes, "Parts and segments held by feeds"),
            held_bytes: m.gauge(
                "held",
                Unit::Bytes,
                "Media that left the cache and that unfinished answers hold",
            ),
            unstored_dropped: counter(
                "unstored_segments_dropped",
                Unit::Count,
                "Segments dropped from memory before the object store had them",
            ),
            cache_hits: counter("cache_hits", Unit::Count, "Media requests answered from memory"),
            cache_misses: counter("cache_misses", Unit::Count, "Media requests not answered from memory"),
            store_reads: counter("store_reads", Unit::Count, "Reads from the object store"),
            store_read_bytes: counter("store_read", Unit::Bytes, "Bytes read from the object store"),
            store_errors: counter("store_errors", Unit::Count, "Failed reads from the object store"),
            coalesced: counter("store_reads_coalesced", Unit::Count, "Requests that joined a read under way"),
            catalog_records: m.gauge("catalog_records", Unit::Count, "Playback records in memory"),
            catalog_reads: counter(
                "catalog_reads",
                Unit::Count,
                "Reads of playback records from the state store",
            ),
            unknown_remembered: counter(
                "unknown_remembered",
                Unit::Count,
                "Unknown playback ids refused from memory",
            ),
            viewers_uncounted: counter(
                "viewers_uncounted",
                Unit::Count,
                "Requests and heartbeats of viewers that are not counted because a limit is reached",
            ),
            viewers_here: m.gauge(
                "viewers",
                Unit::Count,
                "Viewers that this edge sees, by each of their ids",
            ),
            feed_dropped: counter(
                "feed_messages_dropped",
                Unit::Count,
                "Bus messages dropped because a feed did not take them in time",
            ),
        }
    }

    /// Counts an answer; `class` is 0 to 3 for status codes 2xx to 5xx.
    pub(crate) fn answered(&self, kind: &'static str, class: usize) {
        let kind = KINDS.iter().position(|name| *name == kind).unwrap_or(KINDS.len() - 1);
        if let Some(counter) = self.requests[kind].get(class) {
            counter.inc();
        }
    }
}
