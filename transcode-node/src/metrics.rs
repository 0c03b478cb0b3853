//! The metrics of a worker node.

use millrace_runtime::metrics::{Counter, Counters, Gauge, Gauges, Histograms, LATENCY_BUCKETS_S, Unit};
use millrace_wire::ids::Rendition;

/// The worker's metrics, each named `millrace_transcode_` and its field's name.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// The number of jobs that are running now.
    pub(crate) jobs: Gauge,
    /// Jobs granted since the process started.
    pub(crate) grants: Counter,
    /// Offers that the worker did not bid for, because it has no room.
    pub(crate) offers_declined: Counter,
    /// Jobs that ended with an error.
    pub(crate) failures: Counter,
    /// The number of parts that rungs have made.
    pub(crate) parts: Counter,
    /// Segments whose objects are in the store.
    pub(crate) segments_stored: Counter,
    /// Segments whose uploads failed for good.
    pub(crate) segments_lost: Counter,
    /// Index entries by outcome: written, dropped from the full queue, rebuilt after that, or refused by the state store.
    pub(crate) index_entries: Counters,
    /// Index entries that wait for the state store.
    pub(crate) index_waiting: Gauge,
    /// Index facts by the journal's outcome.
    pub(crate) index_facts: Counters,
    /// Fragments of facts that the bus dropped; readers ask for them again.
    pub(crate) facts_dropped: Counter,
    /// Repair requests from readers that missed facts.
    pub(crate) repair_requests: Counter,
    /// Bytes that wait for the object store.
    pub(crate) spill: Gauge,
    /// 1 while the object store takes nothing.
    pub(crate) storage_failing: Gauge,
    /// Objects that were given up: dropped from the full queue, or refused by the store.
    pub(crate) uploads_given_up: Counter,
    /// Frames that rungs moved, dropped or made up, by reason.
    pub(crate) repairs: Counters,
    /// Keyframes of copied streams that were to become pictures, by outcome.
    pub(crate) pictures: Counters,
    /// Figures of the encoded rungs.
    pub(crate) rungs: RungMetrics,
    /// 1 for each encoder that works on this machine, 0 for one that was to be used and does not.
    pub(crate) encoder_usable: Gauges,
    /// Pixels that the first of them makes in a second of one core's time.
    pub(crate) encoder_speed: Gauge,
    /// Encoders' processes that run.
    pub(crate) encoder_processes: Gauge,
    /// Ends of encoders' processes that were not asked for, by cause.
    pub(crate) encoder_ends: Counters,
    /// Encoders' processes that were given up because they were too far behind.
    pub(crate) encoders_behind: Counter,
    /// Rungs that are left out now because encoding is slower than the source.
    pub(crate) rungs_shed: Gauge,
}

/// The figures of one rung in about one second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RungFigures {
    /// The rendition that the rung makes.
    pub rendition: Rendition,
    /// Pictures that were encoded.
    pub pictures: u64,
    /// Bytes of these pictures.
    pub bytes: u64,
    /// Microseconds of media.
    pub media_us: u64,
    /// Microseconds of CPU time that encoding took.
    pub encode_us: u64,
    /// Milliseconds of media that waited for the encoder.
    pub waiting_ms: u64,
}

/// The metrics of encoded rungs by rendition, over all streams; the API has those of one stream.
#[derive(Debug)]
pub(crate) struct RungMetrics {
    pictures: Counters,
    media: Counters,
    speed: Histograms,
    queue_age: Histograms,
}

/// Bucket bounds of seconds of media that an encoder makes in a second of CPU time.
const SPEED_BUCKETS: &[f64] = &[0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0];

impl RungMetrics {
    fn new(scope: &millrace_runtime::Metrics) -> Self {
        let scope = scope.scope("rung");
        Self {
            pictures: scope.counters(
                "pictures",
                Unit::Count,
                "Pictures that encoded rungs have made; their rate over the running rungs is the frame rate",
                &["rendition"],
            ),
            media: scope.counters(
                "media",
                Unit::Bytes,
                "Bytes of the pictures that encoded rungs have made",
                &["rendition"],
            ),
            speed: scope.histograms(
                "speed",
                Unit::Count,
                "Seconds of media that an encoder makes in a second of CPU time, once a second for each rung",
                SPEED_BUCKETS,
                &["rendition"],
            ),
            queue_age: scope.histograms(
                "queue_age",
                Unit::Seconds,
                "Media that wait for an encoder, once a second for each rung",
                LATENCY_BUCKETS_S,
                &["rendition"],
            ),
        }
    }

    /// Adds the figures of reports.
    pub(crate) fn add(&self, figures: &[RungFigures]) {
        for figures in figures {
            let rendition = [figures.rendition.as_str()];
            self.pictures.with(&rendition).add(figures.pictures);
            self.media.with(&rendition).add(figures.bytes);
            self.queue_age.with(&rendition).observe(figures.waiting_ms as f64 / 1_000.0);
            if figures.encode_us > 0 {
                self.speed.with(&rendition).observe(figures.media_us as f64 / figures.encode_us as f64);
            }
        }
    }
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
            index_entries: scope.counters(
                "index_entries",
                Unit::Count,
                "Index entries by outcome",
                &["outcome"],
            ),
            index_waiting: scope.gauge(
                "index_waiting",
                Unit::Count,
                "Index entries waiting for the state store",
            ),
            index_facts: scope.counters("index_facts", Unit::Count, "Index facts by outcome", &["outcome"]),
            facts_dropped: count("facts_dropped", "Fragments of facts the bus dropped"),
            repair_requests: count("repair_requests", "Requests for facts that readers missed"),
            spill: scope.gauge("spill", Unit::Bytes, "Objects waiting for the store"),
            storage_failing: scope.gauge(
                "storage_failing",
                Unit::Count,
                "1 while the object store takes nothing",
            ),
            uploads_given_up: count("uploads_given_up", "Objects that never get into the store"),
            repairs: scope.counters(
                "repairs",
                Unit::Count,
                "Frames moved, dropped or made up, by reason",
                &["reason"],
            ),
            pictures: scope.counters(
                "pictures",
                Unit::Count,
                "Keyframes of copied streams that were to become pictures, by outcome",
                &["outcome"],
            ),
            rungs: RungMetrics::new(&scope),
            encoder_usable: scope.gauges(
                "encoder_usable",
                Unit::Count,
                "1 for each encoder that works on this machine, 0 for one that does not",
                &["encoder"],
            ),
            encoder_speed: scope.gauge(
                "encoder_speed",
                Unit::Count,
                "Pixels that the encoder makes in a second of one core's time, measured at start",
            ),
            encoder_processes: scope.gauge("encoder_processes", Unit::Count, "Encoders' processes that run"),
            encoder_ends: scope.counters(
                "encoder_ends",
                Unit::Count,
                "Ends of encoders' processes that were not asked for, by cause",
                &["cause"],
            ),
            encoders_behind: count("encoders_behind", "Encoders given up because they were too far behind"),
            rungs_shed: scope.gauge("rungs_shed", Unit::Count, "Rungs left out because encoding is too slow"),
        }
    }
}
