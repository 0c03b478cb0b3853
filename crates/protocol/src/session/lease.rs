//! The session's lease of its stream key at control: renewed with the open segment's number while the publisher is
//! connected, released once it has left. Each request is repeated until control answers.

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{DiscontinuitySeq, Msn};
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::control::{ClaimGrant, HealthNote, ReleaseRequest, RenewRequest};
use millrace_wire::message::media::MediaUnit;

use super::io::{Output, SessionConfig};
use crate::time::Millis;

/// A lease is renewed this many times before it runs out, so that two lost renewals do not cost it.
const RENEWALS_PER_LEASE: u64 = 3;

/// The words of a stream whose segments cannot be stored.
const STORAGE_TEXT: &str = "storage: segments cannot be stored; they wait in the worker's memory, and beyond its bound the oldest are given up.";

/// The end of the publish: its time, its reason, and the reason in words.
#[derive(Debug)]
struct Gone {
    at: Millis,
    reason: CloseReason,
    text: String,
}

/// The lease, and the numbers that its requests report.
#[derive(Debug)]
pub(super) struct Lease {
    open_msn: Option<Msn>,
    discontinuity: DiscontinuitySeq,
    gone: Option<Gone>,
    notes: Vec<HealthNote>,
    /// True while the worker cannot store what it packages.
    is_storage_failing: bool,
    released: bool,
    interval: u64,
    renew_at: Millis,
}

impl Lease {
    /// Creates the lease that control granted with the claim.
    pub(super) fn new(now: Millis, claim: &ClaimGrant) -> Self {
        let interval = u64::from(claim.lease_ms) / RENEWALS_PER_LEASE;
        Self {
            open_msn: None,
            discontinuity: claim.discontinuity_sequence,
            gone: None,
            notes: Vec::new(),
            is_storage_failing: false,
            released: false,
            interval,
            renew_at: now + interval,
        }
    }

    /// Returns the newest segment that media were tagged with.
    pub(super) fn open_msn(&self) -> Option<Msn> {
        self.open_msn
    }

    /// Returns when the publisher left; `None` while it is connected.
    pub(super) fn gone_since(&self) -> Option<Millis> {
        self.gone.as_ref().map(|gone| gone.at)
    }

    /// True if control knows that the session is over, or has ended it itself.
    pub(super) fn is_released(&self) -> bool {
        self.released
    }

    /// Notes the numbers that `units` were tagged with. Control hears of the first media at once, because they begin the
    /// broadcast.
    pub(super) fn note_numbers(&mut self, now: Millis, units: &[MediaUnit]) {
        if self.open_msn.is_none() && !units.is_empty() {
            self.renew_at = now;
        }
        for unit in units {
            self.open_msn = self.open_msn.max(Some(unit.msn()));
            self.discontinuity = self.discontinuity.max(unit.discontinuity_sequence());
        }
    }

    /// Notes that the publisher has left. True the first time.
    pub(super) fn on_publisher_gone(&mut self, now: Millis, reason: CloseReason, text: String) -> bool {
        let first = self.gone.is_none();
        if first {
            self.gone = Some(Gone { at: now, reason, text });
            self.renew_at = now;
        }
        first
    }

    /// Notes whether the worker can store what it packages.
    pub(super) fn set_storage(&mut self, failing: bool) {
        self.is_storage_failing = failing;
    }

    /// Returns the notes of the stream's health, the worker's first.
    fn all_notes(&self) -> Vec<HealthNote> {
        let storage = self.is_storage_failing.then(|| HealthNote::new("storage", STORAGE_TEXT));
        storage.into_iter().chain(self.notes.iter().cloned()).take(HealthNote::MAX).collect()
    }

    /// Replaces the notes of the stream's health; control hears of new ones at once.
    pub(super) fn set_notes(&mut self, now: Millis, notes: Vec<HealthNote>) {
        if self.notes != notes {
            self.notes = notes;
            if self.gone.is_none() {
                self.renew_at = now;
            }
        }
    }

    /// Notes that control has answered a release. The answer to a renewal that was on its way when the publisher left is
    /// none: control would keep the stream live until the lease runs out, and would never learn why it ended.
    pub(super) fn on_released(&mut self) {
        self.released = true;
    }

    /// Notes that control has ended the session.
    pub(super) fn on_ended_by_control(&mut self) {
        self.released = true;
    }

    /// Returns the request to send to control now, if one is due.
    pub(super) fn poll(
        &mut self,
        now: Millis,
        cfg: &SessionConfig,
        degraded: Option<Degraded>,
    ) -> Option<Output> {
        if self.released || now < self.renew_at {
            return None;
        }
        self.renew_at = now + self.interval;
        let (stream, session, epoch) = (cfg.claim.stream, cfg.session, cfg.claim.epoch);
        let (open_msn, discontinuity_sequence) = (self.open_msn, self.discontinuity);
        Some(if let Some(Gone { reason, text, .. }) = &self.gone {
            Output::Release(ReleaseRequest {
                stream,
                session,
                epoch,
                open_msn,
                discontinuity_sequence,
                reason: *reason,
                text: text.clone(),
            })
        } else {
            Output::Renew(RenewRequest {
                stream,
                session,
                epoch,
                open_msn,
                discontinuity_sequence,
                degraded,
                notes: self.all_notes(),
                ladder: None,
            })
        })
    }

    /// Returns when to poll again; `None` once the lease is released.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        (!self.released).then_some(self.renew_at)
    }
}
