//! Counts refused messages and warns about them at a bounded rate.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use millrace_runtime::Metrics;
use millrace_runtime::metrics::{Counters, Unit};
use millrace_wire::{WIRE_VERSION, WireError};
use tokio::time::Instant;

/// Shortest time between two warnings about one topic and reason: a cluster of two releases exchanges thousands of
/// messages a second, and each would be a line.
const WARN_INTERVAL: Duration = Duration::from_secs(30);

/// When a warning was last written, and how many refusals have been counted since.
struct Warned {
    at: Instant,
    suppressed: u64,
}

/// The one place where a message that cannot be used is counted and logged.
pub(crate) struct Refusals {
    counters: Counters,
    /// By topic and reason, both from small fixed sets.
    warned: Mutex<HashMap<(&'static str, &'static str), Warned>>,
}

impl Refusals {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let counters = metrics.counters(
            "link_refused_messages",
            Unit::Count,
            "Messages from the bus that were refused, by topic and reason",
            &["topic", "reason"],
        );
        Self { counters, warned: Mutex::default() }
    }

    /// Returns the message if it was decoded, and refuses it otherwise.
    pub(crate) fn accept<T>(&self, topic: &'static str, decoded: Result<T, WireError>) -> Option<T> {
        decoded.inspect_err(|error| self.refuse(topic, error)).ok()
    }

    /// Counts one refused message of `topic` and logs it unless a line about the same has been written just now.
    pub(crate) fn refuse(&self, topic: &'static str, error: &WireError) {
        let reason = error.reason();
        self.counters.with(&[topic, reason]).inc();
        let Some(suppressed) = self.is_line_due(topic, reason) else { return };
        if let WireError::Version { found } = error {
            tracing::warn!(
                topic,
                peer_version = found,
                our_version = WIRE_VERSION,
                suppressed,
                "message of another wire version refused; it has no effect on this node: bring all nodes to the same release"
            );
        } else {
            tracing::warn!(
                topic,
                reason,
                %error,
                suppressed,
                "malformed message refused; it has no effect on this node: check which client publishes on this topic"
            );
        }
    }

    /// Returns the number of lines left out since the last one if a line is due now.
    fn is_line_due(&self, topic: &'static str, reason: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = warned.get_mut(&(topic, reason)) else {
            warned.insert((topic, reason), Warned { at: now, suppressed: 0 });
            return Some(0);
        };
        if now.duration_since(last.at) < WARN_INTERVAL {
            last.suppressed += 1;
            return None;
        }
        last.at = now;
        Some(std::mem::take(&mut last.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refusals_write_one_line_per_interval_and_count_the_others() {
        let metrics = Metrics::new();
        let refusals = Refusals::register(&metrics);
        assert_eq!(refusals.is_line_due("jobs.bid", "version"), Some(0));
        assert_eq!(refusals.is_line_due("jobs.bid", "version"), None);
        assert_eq!(refusals.is_line_due("jobs.bid", "malformed"), Some(0));
        assert_eq!(refusals.is_line_due("jobs.bid", "version"), None);
        tokio::time::advance(WARN_INTERVAL).await;
        assert_eq!(refusals.is_line_due("jobs.bid", "version"), Some(2));
        refusals.refuse("jobs.bid", &WireError::Version { found: 1 });
        refusals.refuse("jobs.bid", &WireError::Version { found: 1 });
        let text = metrics.render();
        assert!(
            text.contains("link_refused_messages_total{topic=\"jobs.bid\",reason=\"version\"} 2"),
            "{text}"
        );
    }
}
