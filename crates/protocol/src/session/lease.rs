//! What control is told of a session: renewals with the open segment's number while the publisher is here, the release
//! once it left, each repeated until it is answered.

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{DiscontinuitySeq, Msn};
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::control::{ClaimGrant, ReleaseRequest, RenewRequest};
use millrace_wire::message::media::MediaUnit;

use super::{Output, SessionConfig};
use crate::Millis;

#[derive(Debug)]
pub(super) struct Lease {
    open_msn: Option<Msn>,
    discontinuity: DiscontinuitySeq,
    gone: Option<(Millis, CloseReason)>,
    released: bool,
    interval: u64,
    renew_at: Millis,
}

impl Lease {
    pub(super) fn new(now: Millis, claim: &ClaimGrant) -> Self {
        let interval = u64::from(claim.lease_ms) / 3;
        Self {
            open_msn: None,
            discontinuity: claim.discontinuity_sequence,
            gone: None,
            released: false,
            interval,
            renew_at: now + interval,
        }
    }
    /// The newest segment that media were stamped with.
    pub(super) fn open_msn(&self) -> Option<Msn> {
        self.open_msn
    }
    /// Since when the publisher is gone.
    pub(super) fn gone_since(&self) -> Option<Millis> {
        self.gone.map(|(at, _)| at)
    }
    /// Control knows that the session is over, or has said so itself.
    pub(super) fn is_released(&self) -> bool {
        self.released
    }
    pub(super) fn stamp(&mut self, units: &[MediaUnit]) {
        for unit in units {
            self.open_msn = self.open_msn.max(Some(unit.msn()));
            self.discontinuity = self.discontinuity.max(unit.discontinuity_sequence());
        }
    }
    /// The publisher is gone; gives whether that is new.
    pub(super) fn leave(&mut self, now: Millis, reason: CloseReason) -> bool {
        let new = self.gone.is_none();
        if new {
            self.gone = Some((now, reason));
            self.renew_at = now;
        }
        new
    }
    /// Control has answered: when the publisher was gone, it was the release.
    pub(super) fn on_ok(&mut self) {
        self.released |= self.gone.is_some();
    }
    /// Control wants the session to end.
    pub(super) fn on_end(&mut self) {
        self.released = true;
    }
    /// What to tell control now.
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
        Some(if let Some((_, reason)) = self.gone {
            Output::Release(ReleaseRequest {
                stream,
                session,
                epoch,
                open_msn,
                discontinuity_sequence,
                reason,
            })
        } else {
            Output::Renew(RenewRequest { stream, session, epoch, open_msn, discontinuity_sequence, degraded })
        })
    }
    /// When to poll again.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        (!self.released).then_some(self.renew_at)
    }
}
