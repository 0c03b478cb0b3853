//! Whether the session itself is well: others' silence counts only while its own probe comes back over the bus and its
//! timer is on time.

use crate::Millis;

/// Interval of the session's probe to itself.
pub const LOOPBACK_MS: u64 = 200;
/// Silence counts only while the own probe came back within this time.
pub const LOOPBACK_FRESH_MS: u64 = 500;
/// A timer this late means a starved machine: silence starts counting anew.
pub const LATE_MS: u64 = 400;

#[derive(Debug)]
pub(super) struct Pulse {
    loop_at: Millis,
    looped: Millis,
    steady_since: Millis,
    polled: Millis,
}

impl Pulse {
    pub(super) fn new(now: Millis) -> Self {
        Self { loop_at: now, looped: now, steady_since: now, polled: now }
    }
    /// The machine runs: a long time after it last did, silence starts counting anew.
    pub(super) fn poll(&mut self, now: Millis) {
        if now - self.polled > LATE_MS {
            self.steady_since = now;
        }
        self.polled = now;
    }
    /// Whether to send the probe now.
    pub(super) fn take_probe(&mut self, now: Millis) -> bool {
        let due = now >= self.loop_at;
        if due {
            self.loop_at = now + LOOPBACK_MS;
        }
        due
    }
    /// The probe came back.
    pub(super) fn on_loopback(&mut self, now: Millis) {
        self.looped = now;
    }
    /// Whether somebody last heard at `since` has been silent for `limit`, as far as this session can tell.
    pub(super) fn is_silent(&self, now: Millis, since: Millis, limit: u64) -> bool {
        let since = since.max(self.steady_since);
        now - self.looped <= LOOPBACK_FRESH_MS && now - since >= limit
    }
    /// When to send the next probe.
    pub(super) fn next_timeout(&self) -> Millis {
        self.loop_at
    }
}
