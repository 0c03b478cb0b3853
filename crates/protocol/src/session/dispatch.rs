//! Finding a worker: the session's job is offered while it has no primary or the primary is lost, and granted to the best
//! bid. A live primary is replaced seldom; without a bid the stream is degraded and the job waits in the backlog.

use millrace_wire::fact::EpochOpen;
use millrace_wire::ids::{MediaSeq, NodeId};
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::job::{Bid, Grant, Offer};

use super::bidding::{Outcome, Successor};
use super::io::Output;
use super::machine::Session;
use crate::state::query::resume_msn;
use crate::time::Millis;

/// A live primary is replaced at most once in this time.
pub const REDISPATCH_MS: u64 = 5000;
/// A draining primary has this long to quiesce; then its successor is granted the job without it.
pub const QUIESCE_WAIT_MS: u64 = 1000;

impl Session {
    /// Takes a bid; the primary itself does not bid for its own replacement.
    pub(super) fn on_bid(&mut self, now: Millis, bid: Bid) {
        let is_current_primary = self.assignments.primary().is_some_and(|p| *p.node() == bid.node);
        if !is_current_primary {
            self.bidding.on_bid(now, bid);
        }
    }

    /// Offers the job while it needs a worker, and grants it to the winner. Without media there is no job: a publish that
    /// never sends any leaves nothing behind.
    pub(super) fn dispatch(&mut self, now: Millis) {
        let finished = self.lease.gone_since().is_some() && self.is_stored();
        if finished || self.lease.open_msn().is_none() || !self.assignments.needs_standby(now, &self.detector)
        {
            self.bidding.close();
            self.successor = None;
            return;
        }
        if let Some(successor) = &self.successor {
            if now >= successor.grant_at || self.assignments.is_handed_over(now, &self.detector) {
                let node = successor.node.clone();
                self.successor = None;
                self.grant(now, node);
            }
            return;
        }
        if self.bidding.is_due(now) {
            let first = self.assignments.primary().is_none();
            if first || self.granted_at.is_none_or(|at| now - at >= REDISPATCH_MS) {
                self.bidding.open(now);
                self.out.push_back(Output::Offer(self.offer()));
            }
            return;
        }
        match self.bidding.poll(now) {
            Some(Outcome::Won(node))
                if self.assignments.request_quiesce(now, &self.detector, &mut self.out) =>
            {
                self.successor = Some(Successor { node, grant_at: now + QUIESCE_WAIT_MS });
            }
            Some(Outcome::Won(node)) => self.grant(now, node),
            Some(Outcome::NoBid) => self.queue_in_backlog(now),
            None => {}
        }
    }

    fn queue_in_backlog(&mut self, now: Millis) {
        if self.degraded.replace(Degraded::NoCapacity) != Some(Degraded::NoCapacity) {
            self.out.push_back(Output::Backlog(self.offer()));
            self.announce(now);
        }
    }

    fn offer(&self) -> Offer {
        let claim = &self.cfg.claim;
        let (stream, epoch, session) = (claim.stream, claim.epoch, self.cfg.session);
        Offer { stream, epoch, session, round: self.bidding.number(), cost: self.cfg.cost }
    }

    fn grant(&mut self, now: Millis, node: NodeId) {
        self.generation = self.generation.next();
        self.granted_at = Some(now);
        self.degraded.take_if(|reason| *reason == Degraded::NoCapacity);
        let claim = &self.cfg.claim;
        let mut base = self.snapshot().clone();
        // A primary that received nothing from this session for long sealed before the end of the media.
        base.sealed &= base.epoch != claim.epoch || self.is_sealed_at_end();
        let resume = resume_msn(&base, claim.epoch, claim.first_msn);
        let resume_from = MediaSeq(self.media.find(|msn| *msn >= resume).unwrap_or(self.media.next_seq()));
        let open = EpochOpen {
            broadcast: claim.broadcast,
            first_msn: claim.first_msn,
            discontinuity_sequence: claim.discontinuity_sequence,
            program_date_time: self.cfg.program_date_time,
            target_duration: claim.settings.target_duration,
            lead_gaps: if claim.continues { 0 } else { self.cfg.lead_gaps },
            plan: claim.settings.plan.clone(),
        };
        let grant = Box::new(Grant {
            stream: claim.stream,
            playback: claim.playback,
            session: self.cfg.session,
            epoch: claim.epoch,
            generation: self.generation,
            open,
            cost: self.cfg.cost,
            base,
            resume_from,
            settings: claim.settings.clone(),
        });
        let seed = self.cfg.seed.wrapping_add(self.generation.0);
        self.assignments.assign_standby(now, node, grant, seed, &mut self.out);
        self.supervise(now);
    }
}
