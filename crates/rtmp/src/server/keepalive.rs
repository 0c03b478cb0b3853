//! Pings (RTMP 7.1.7) that show whether a silent peer is still there.

use std::time::Duration;

use crate::limits::Limits;

/// The step that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// A ping is to be sent.
    Ping,
    /// The peer has been silent for too long.
    Silent,
}

/// Sends a ping at each interval, and counts the silence of the peer.
///
/// Any byte counts as an answer, not only the answer to a ping: some encoders, OBS among them, send media and never read what the
/// server sends.
#[derive(Debug)]
pub(super) struct Keepalive {
    interval: Duration,
    limit: Duration,
    next_ping: Duration,
    heard: Duration,
    offset: u64,
}

impl Keepalive {
    /// Begins to count at `now`. An interval of zero sends nothing and closes nothing.
    pub(super) fn new(limits: &Limits, now: Duration) -> Self {
        let (interval, limit) = (limits.ping, limits.ping_timeout);
        Self { interval, limit, next_ping: now + interval, heard: now, offset: 0 }
    }

    /// Records that the connection has received `offset` bytes by `now`.
    pub(super) fn heard(&mut self, now: Duration, offset: u64) {
        if self.offset != offset {
            self.offset = offset;
            self.heard = now;
        }
    }

    /// Returns the time of the next step.
    pub(super) fn deadline(&self) -> Option<Duration> {
        (!self.interval.is_zero()).then(|| self.next_ping.min(self.heard + self.limit))
    }

    /// Returns the step that is due at `now`; a ping is due once for each interval.
    pub(super) fn step(&mut self, now: Duration) -> Due {
        if self.interval.is_zero() {
            Due::Nothing
        } else if now >= self.heard + self.limit {
            Due::Silent
        } else if now >= self.next_ping {
            self.next_ping = now + self.interval;
            Due::Ping
        } else {
            Due::Nothing
        }
    }
}
