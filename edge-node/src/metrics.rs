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
        let count = |name, help| m.counter(name, Unit::Count, help);
        let bytes = |name, help| m.counter(name, Unit::Bytes, help);
        Self {
            requests: KINDS.map(|kind| CLASSES.map(|class| requests.with(&[kind, class]))),
            sent_bytes: bytes("http_sent", "Body bytes of answers"),
            waiters: m.gauge("waiters", Unit::Count, "Requests waiting for a playlist or part"),
            waiters_refused: count("waiters_refused", "Requests refused because too many wait"),
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
            unstored_dropped: count(
                "unstored_segments_dropped",
                "Segments dropped from memory before the object store had them",
            ),
            cache_hits: count("cache_hits", "Media requests answered from memory"),
            cache_misses: count("cache_misses", "Media requests not answered from memory"),
            store_reads: count("store_reads", "Reads from the object store"),
            store_read_bytes: bytes("store_read", "Bytes read from the object store"),
            store_errors: count("store_errors", "Failed reads from the object store"),
            coalesced: count("store_reads_coalesced", "Requests that joined a read under way"),
            catalog_records: m.gauge("catalog_records", Unit::Count, "Playback records in memory"),
            catalog_reads: count("catalog_reads", "Reads of playback records from the state store"),
            unknown_remembered: count("unknown_remembered", "Unknown playback ids refused from memory"),
            viewers_uncounted: count(
                "viewers_uncounted",
                "Requests and heartbeats of viewers that are not counted because a limit is reached",
            ),
            viewers_here: m.gauge(
                "viewers",
                Unit::Count,
                "Viewers that this edge sees, by each of their ids",
            ),
            feed_dropped: count(
                "feed_messages_dropped",
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
