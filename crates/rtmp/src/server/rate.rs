//! The rate at which a peer may send messages and chunks.

use std::time::Duration;

use crate::error::ErrorKind;
use crate::limits::{Limits, RATE_WINDOW};

/// An allowance of units: it holds those of [`RATE_WINDOW`] at most, and grows by the rate.
#[derive(Debug)]
struct Allowance {
    per_second: u32,
    left: u64,
}

impl Allowance {
    fn new(per_second: u32) -> Self {
        Self { per_second, left: Self::most(per_second) }
    }

    fn most(per_second: u32) -> u64 {
        u64::from(per_second) * RATE_WINDOW.as_secs()
    }

    fn grow(&mut self, passed: Duration) {
        let grown = (passed.as_millis() as u64).saturating_mul(u64::from(self.per_second)) / 1_000;
        self.left = self.left.saturating_add(grown).min(Self::most(self.per_second));
    }

    fn spend(&mut self, units: u64) -> bool {
        let enough = units <= self.left;
        self.left = self.left.saturating_sub(units);
        enough
    }
}

/// The allowances of one connection for messages and for chunks.
///
/// A message or chunk costs the server the same however small it is, so a limit of the bitrate does not bound its work.
#[derive(Debug)]
pub(super) struct RateLimit {
    messages: Allowance,
    chunks: Allowance,
    /// The time up to which the allowances have grown.
    grown: Duration,
    /// The chunks counted so far.
    counted_chunks: u64,
}

/// The allowances grow in steps of this time, so that a message costs no division.
const STEP: Duration = Duration::from_millis(100);

impl RateLimit {
    /// Creates the full allowances of a connection accepted at `now`.
    pub(super) fn new(limits: &Limits, now: Duration) -> Self {
        Self {
            messages: Allowance::new(limits.messages_per_second),
            chunks: Allowance::new(limits.chunks_per_second),
            grown: now,
            counted_chunks: 0,
        }
    }

    /// Counts messages that arrived by `now`, and the chunks up to the connection's `chunks`-th.
    pub(super) fn count(&mut self, now: Duration, messages: u64, chunks: u64) -> Result<(), ErrorKind> {
        let passed = now.saturating_sub(self.grown);
        if passed >= STEP {
            self.messages.grow(passed);
            self.chunks.grow(passed);
            self.grown = now;
        }
        let new = chunks - std::mem::replace(&mut self.counted_chunks, chunks);
        if !self.messages.spend(messages) {
            return Err(ErrorKind::RateExceeded { what: "messages", limit: self.messages.per_second });
        }
        if !self.chunks.spend(new) {
            return Err(ErrorKind::RateExceeded { what: "chunks", limit: self.chunks.per_second });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> RateLimit {
        let limits = Limits { messages_per_second: 100, chunks_per_second: 1_000, ..Limits::default() };
        RateLimit::new(&limits, Duration::ZERO)
    }

    #[test]
    fn rate_limit_allows_the_units_of_its_window_at_once_and_no_more() {
        let mut rate = limit();
        for message in 1..=1_000 {
            rate.count(Duration::ZERO, 1, message).unwrap();
        }
        let exceeded = ErrorKind::RateExceeded { what: "messages", limit: 100 };
        assert_eq!(rate.count(Duration::ZERO, 1, 1_001), Err(exceeded));
        let exceeded = ErrorKind::RateExceeded { what: "chunks", limit: 1_000 };
        assert_eq!(limit().count(Duration::ZERO, 0, 10_001), Err(exceeded));
    }

    #[test]
    fn rate_limit_allows_a_steady_rate_for_ever() {
        let mut rate = limit();
        let ms = (0..600_000).step_by(10);
        for (message, ms) in (1..).zip(ms) {
            rate.count(Duration::from_millis(ms), 1, message * 10).unwrap();
        }
    }
}
