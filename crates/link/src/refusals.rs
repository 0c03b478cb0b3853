//! Counts refused messages and warns about them at a bounded rate.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use millrace_runtime::metrics::{Counters, Unit};
use millrace_runtime::{LogLimit, Metrics};
use millrace_wire::{WIRE_VERSION, WireError};

/// The one place where a message that cannot be used is counted and logged.
pub(crate) struct Refusals {
    counters: Counters,
    /// By topic and reason, both from small fixed sets.
    warned: Mutex<HashMap<(&'static str, &'static str), LogLimit>>,
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
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.entry((topic, reason)).or_default().due()
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
        tokio::time::advance(LogLimit::INTERVAL).await;
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
