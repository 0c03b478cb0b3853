//! A bound for repeated log lines: an outage of a backend, or a cluster of two releases, must not write one line
//! for each request or message.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Decides which of many equal events are logged, and counts the others.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<Option<(Instant, u64)>>);

impl LogLimit {
    /// Shortest time between two lines about the same thing.
    pub const INTERVAL: Duration = Duration::from_mins(1);

    /// Returns the number of lines left out since the last one if a line is due now.
    pub fn due(&self) -> Option<u64> {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((at, suppressed)) if now.duration_since(*at) < Self::INTERVAL => {
                *suppressed += 1;
                None
            }
            other => Some(other.replace((now, 0)).map_or(0, |(_, suppressed)| suppressed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn log_limit_allows_one_line_per_interval_and_counts_the_others() {
        let limit = LogLimit::default();
        assert_eq!((limit.due(), limit.due(), limit.due()), (Some(0), None, None));
        tokio::time::advance(LogLimit::INTERVAL).await;
        assert_eq!((limit.due(), limit.due()), (Some(2), None));
    }
}
