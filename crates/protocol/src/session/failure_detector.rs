//! The failure detector: it judges a worker silent only while its own session is healthy.
//!
//! Silence counts only while the session's own probe comes back over the bus and its timer is on time; otherwise the
//! session, not the worker, may be the one that is cut off or starved ("local health", as in Lifeguard).

use crate::time::Millis;

/// Interval of the session's probe to itself.
pub const LOOPBACK_MS: u64 = 200;
/// Silence counts only while the probe came back within this time.
pub const LOOPBACK_FRESH_MS: u64 = 500;
/// A timer this late means a starved machine: silence is counted anew.
pub const LATE_MS: u64 = 400;

/// The health of the session itself.
#[derive(Debug)]
pub(super) struct FailureDetector {
    probe_at: Millis,
    probe_returned: Millis,
    on_time_since: Millis,
    polled: Millis,
}

impl FailureDetector {
    /// Creates the detector of a session that is healthy.
    pub(super) fn new(now: Millis) -> Self {
        Self { probe_at: now, probe_returned: now, on_time_since: now, polled: now }
    }

    /// Notes that the session runs. If it last ran a long time ago, silence is counted anew.
    pub(super) fn poll(&mut self, now: Millis) {
        if now - self.polled > LATE_MS {
            self.on_time_since = now;
        }
        self.polled = now;
    }

    /// True, once per interval, if the probe is to be sent now.
    pub(super) fn take_probe(&mut self, now: Millis) -> bool {
        let due = now >= self.probe_at;
        if due {
            self.probe_at = now + LOOPBACK_MS;
        }
        due
    }

    /// Notes that the probe came back.
    pub(super) fn on_loopback(&mut self, now: Millis) {
        self.probe_returned = now;
    }

    /// True if a worker that was last received from at `since` has been silent for `limit` milliseconds, and this session
    /// is healthy enough to judge.
    pub(super) fn is_silent(&self, now: Millis, since: Millis, limit: u64) -> bool {
        let since = since.max(self.on_time_since);
        now - self.probe_returned <= LOOPBACK_FRESH_MS && now - since >= limit
    }

    /// Returns when to send the next probe.
    pub(super) fn next_timeout(&self) -> Millis {
        self.probe_at
    }
}
