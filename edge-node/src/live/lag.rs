//! The report that the feed of one stream lags behind the stream's log: for as long as it exists, metrics name the stream
//! and the time; its beginning and its end are logged. A lag makes that stream answer 503 and leaves the node ready. Its
//! causes are facts lost on the bus, a log writer that does not repair them, and fragments that this node dropped
//! (`millrace_edge_feed_messages_dropped_total`).

use std::sync::Arc;

use millrace_protocol::reader::CURRENT_MS;
use millrace_runtime::Clock;
use millrace_wire::ids::{Epoch, Generation, StreamId};

use crate::metrics::EdgeMetrics;

/// The epoch and the generation that name a log.
pub(crate) type LogId = (Epoch, Generation);

/// Lagging streams that metrics name, each by a series of its own. Beyond them streams are only counted and logged, so that an
/// outage of the bus does not give each followed stream a series.
const MAX_NAMED_STREAMS: i64 = 100;

/// One stream's lag, from the moment it is noticed until it is dropped.
#[derive(Debug)]
pub(crate) struct LagReport {
    metrics: EdgeMetrics,
    clock: Arc<dyn Clock>,
    stream: StreamId,
    log: LogId,
    since_unix_ms: u64,
    named: bool,
}

impl LagReport {
    /// Reports that `stream` has lagged behind the log of (`epoch`, `generation`) for a second.
    pub(crate) fn begin(
        metrics: EdgeMetrics,
        clock: Arc<dyn Clock>,
        stream: StreamId,
        (epoch, generation): LogId,
    ) -> Self {
        let since_unix_ms = clock.unix_ms().saturating_sub(CURRENT_MS);
        metrics.feeds_lagging.add(1);
        let named = metrics.feeds_lagging.get() <= MAX_NAMED_STREAMS;
        if named {
            let seconds = i64::try_from(since_unix_ms / 1000).unwrap_or(i64::MAX);
            metrics.feed_lag_since.with(&[&stream.to_string()]).set(seconds);
        }
        tracing::warn!(
            %stream, %epoch, %generation, since_unix_ms,
            "stream lags behind its log; its playlists answer 503 until the missing facts are repaired or another log is adopted"
        );
        Self { metrics, clock, stream, log: (epoch, generation), since_unix_ms, named }
    }

    /// Returns the log that the stream lags behind.
    pub(crate) fn log(&self) -> LogId {
        self.log
    }

    /// Returns the unix time in milliseconds since which the stream lags.
    pub(crate) fn since_unix_ms(&self) -> u64 {
        self.since_unix_ms
    }
}

impl Drop for LagReport {
    fn drop(&mut self) {
        self.metrics.feeds_lagging.add(-1);
        if self.named {
            self.metrics.feed_lag_since.remove(&[&self.stream.to_string()]);
        }
        let lag_ms = self.clock.unix_ms().saturating_sub(self.since_unix_ms);
        tracing::info!(stream = %self.stream, lag_ms, "report of a lagging stream ended: the stream is current again, or its feed follows another log or has stopped");
    }
}
