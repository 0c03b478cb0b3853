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
    pub(crate) messages: Counter,
    pub(crate) published: Counter,
    pub(crate) publish_errors: Counters,
    pub(crate) ring: Gauge,
    pub(crate) repair_requests: Counter,
    pub(crate) repair_messages: Counter,
    pub(crate) repair_bytes: Counter,
    pub(crate) claim: Histogram,
    pub(crate) lease_failures: Counter,
    pub(crate) no_worker: Gauge,
}

impl IngestMetrics {
    /// Adds the node's metrics to the registry.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let m = metrics.scope("ingest");
        let count = |name, help| m.counter(name, Unit::Count, help);
        let bytes = |name, help| m.counter(name, Unit::Bytes, help);
        let gauge = |name, help| m.gauge(name, Unit::Count, help);
        let frames = m.counters("frames", Unit::Count, "FrameCounts sent on, by track", &["track"]);
        let label = |name, help, labels| m.counters(name, Unit::Count, help, labels);
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
            messages: count("media_messages", "Media messages published on the bus"),
            published: bytes("published", "Bytes of media published on the bus"),
            publish_errors: label("publish_errors", "Messages the bus did not take, by error", &["error"]),
            ring: m.gauge("ring", Unit::Bytes, "Bytes in the replay buffers of all sessions"),
            repair_requests: count("repair_requests", "Repair requests received"),
            repair_messages: count("repair_messages", "Media messages retransmitted"),
            repair_bytes: bytes("repaired", "Bytes of media retransmitted"),
            claim: m.histogram(
                "claim",
                Unit::Seconds,
                "Time control took to answer a claim",
                LATENCY_BUCKETS_S,
            ),
            lease_failures: count("lease_failures", "Lease renewals and releases without an answer"),
            no_worker: gauge("sessions_without_worker", "Sessions no worker has capacity for"),
        }
    }
}

/// Adds one to a gauge for as long as it lives.
#[derive(Debug)]
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Adds one to `gauge`.
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
