//! The metrics of an ingest node: `millrace_ingest_…`.

use millrace_runtime::Metrics;
use millrace_runtime::metrics::{Counter, Counters, Gauge, Histogram, LATENCY_BUCKETS_S, Unit};

/// Handles to the node's metrics.
#[derive(Debug, Clone)]
pub(crate) struct IngestMetrics {
    pub(crate) connections: Gauge,
    pub(crate) accepted: Counter,
    pub(crate) turned_away: Counters,
    pub(crate) publishers: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) refused: Counters,
    pub(crate) closed: Counters,
    pub(crate) panics: Counter,
    pub(crate) received: Counter,
    pub(crate) video_frames: Counter,
    pub(crate) audio_frames: Counter,
    pub(crate) bad_media: Counter,
    pub(crate) synthetic_boundaries: Counter,
    pub(crate) repairs: Counters,
    pub(crate) claim: Histogram,
    pub(crate) key_checks: Counters,
    pub(crate) key_check: Histogram,
    pub(crate) key_check_open: Gauge,
}

impl IngestMetrics {
    /// Adds the metrics to the node's scope of the registry.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let count = |name, help| metrics.counter(name, Unit::Count, help);
        let bytes = |name, help| metrics.counter(name, Unit::Bytes, help);
        let gauge = |name, help| metrics.gauge(name, Unit::Count, help);
        let frames = metrics.counters("frames", Unit::Count, "Frames sent, by track", &["track"]);
        let label = |name, help, labels| metrics.counters(name, Unit::Count, help, labels);
        Self {
            connections: gauge("connections", "Open RTMP connections"),
            accepted: count("accepted_connections", "Connections accepted"),
            turned_away: label("turned_away_connections", "Connections closed unread, by limit", &["limit"]),
            publishers: gauge("publishers", "Publishers whose publish was accepted"),
            sessions: gauge(
                "sessions",
                "Publisher sessions, including those whose media are not all stored yet",
            ),
            refused: label("refused", "Publish requests refused, by reason", &["reason"]),
            closed: label("closed", "Connections ended, by reason", &["reason"]),
            panics: count("panics", "Connections closed by a panic"),
            received: bytes("received", "Bytes received from publishers"),
            video_frames: frames.with(&["video"]),
            audio_frames: frames.with(&["audio"]),
            bad_media: count("bad_media", "Media messages dropped because they could not be used"),
            synthetic_boundaries: count("synthetic_boundaries", "Segments begun without a keyframe"),
            repairs: label("repairs", "Frames moved, dropped or made up, by reason", &["reason"]),
            claim: metrics.histogram(
                "claim",
                Unit::Seconds,
                "Time control took to answer a claim",
                LATENCY_BUCKETS_S,
            ),
            key_checks: label(
                "key_checks",
                "Keys that the service outside decided on, by outcome",
                &["outcome"],
            ),
            key_check: metrics.histogram(
                "key_check",
                Unit::Seconds,
                "Time the key check service took to answer",
                LATENCY_BUCKETS_S,
            ),
            key_check_open: gauge("key_check_down", "1 while the key check service counts as down"),
        }
    }
}

/// Adds one to a gauge for as long as it lives.
#[derive(Debug)]
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Adds one to `gauge` until the guard is dropped.
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.add(1);
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}
