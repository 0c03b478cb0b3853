//! Quiescing: a draining primary stops announcing before its successor is granted. The successor then builds on all that
//! readers were shown, and no part changes its name.

use crate::time::Millis;

/// A primary that has quiesced and receives no word of a successor for this long goes on: longer than a session waits for
/// it ([`crate::session::QUIESCE_WAIT_MS`]) and a standby takes to be ready.
pub const QUIESCE_LIMIT_MS: u64 = 3000;

/// The time until which the job has stopped announcing, if it has.
#[derive(Debug, Default)]
pub(super) struct Quiesce {
    until: Option<Millis>,
    /// True if the last heartbeat reported that the log ends here.
    reported: bool,
}

impl Quiesce {
    /// Stops announcing, unless that has happened already.
    pub(super) fn start(&mut self, now: Millis) {
        self.until.get_or_insert(now + QUIESCE_LIMIT_MS);
    }

    /// True if no media are taken and nothing new is announced.
    pub(super) fn is_active(&self) -> bool {
        self.until.is_some()
    }

    /// Resumes announcing once the limit is over.
    pub(super) fn expire(&mut self, now: Millis) {
        self.until.take_if(|at| *at <= now);
    }

    /// Notes whether everything announced is stored. True if that is to be reported at once, because it has just become so.
    pub(super) fn set_complete(&mut self, complete: bool) -> bool {
        let was_reported = std::mem::replace(&mut self.reported, complete);
        complete && !was_reported
    }

    /// Returns when announcing resumes; `None` if it has not stopped.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        self.until
    }
}
