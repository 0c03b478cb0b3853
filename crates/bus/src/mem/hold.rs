//! The state of a delivery until it is acknowledged, the same for jobs and facts.

use std::time::Duration;

use tokio::time::Instant;

/// A message out with its receiver, or held back until `due`; then it is delivered again.
pub(super) struct Hold {
    pub(super) due: Instant,
    pub(super) out: bool,
}

impl Hold {
    /// The delivery has just been handed out.
    pub(super) fn delivered(now: Instant, ack_wait: Duration) -> Self {
        Self { due: now + ack_wait, out: true }
    }

    /// The receiver refused it; it is delivered again after `delay`.
    pub(super) fn put_back(&mut self, delay: Duration) {
        *self = Self { due: Instant::now() + delay, out: false };
    }

    /// The receiver is still at it; void once it was put back.
    pub(super) fn extend(&mut self, ack_wait: Duration) {
        if self.out {
            self.due = Instant::now() + ack_wait;
        }
    }
}
