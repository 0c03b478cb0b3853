//! A leaving author falls silent before its successor is granted: the successor then builds on all that readers were shown,
//! and no part changes its name.

use super::WorkerJob;
use crate::Millis;

/// An author that yielded and hears of no successor for this long goes on: longer than a session waits for it
/// ([`crate::session::YIELD_WAIT_MS`]) and a standby takes to be ready.
pub const YIELD_MS: u64 = 3000;

#[derive(Debug, Default)]
pub(super) struct Yielding {
    until: Option<Millis>,
    told: bool,
}

impl Yielding {
    /// No media are taken, nothing new is announced.
    pub(super) fn is_silent(&self) -> bool {
        self.until.is_some()
    }
    /// When to go on.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        self.until
    }
}

impl WorkerJob {
    /// The session has a successor at hand. Who does not leave, or writes no log that readers follow, has nothing to yield.
    pub(super) fn on_yield(&mut self, now: Millis) {
        if self.active && self.announced && self.leaving && self.ending.is_running() {
            self.yielding.until.get_or_insert(now + YIELD_MS);
        }
    }

    /// Silent, and everything that was announced is stored and said to be: the log ends here.
    pub(super) fn has_yielded(&self) -> bool {
        self.yielding.is_silent() && self.objects.is_settled()
    }

    pub(super) fn drive_yielding(&mut self, now: Millis) {
        self.yielding.until.take_if(|at| *at <= now);
        let yielded = self.has_yielded();
        if yielded && !self.yielding.told {
            self.heartbeat_at = now;
        }
        self.yielding.told = yielded;
    }
}
