//! Finding a worker: the session's job is offered while it has no primary or the primary is lost, and granted to the best
//! bid. A live primary is replaced seldom; without a bid the stream is degraded and the job waits in the backlog.
//!
//! A job that encodes is offered whole first. If no worker has the capacity, the copy of the source alone is offered, and goes
//! to the backlog only if none has room for that either. A stream that is copied for want of capacity stays on offer, and moves
//! to the worker that takes it whole, as it does when its worker drains.

use millrace_wire::fact::EpochOpen;
use millrace_wire::ids::{MediaSeq, NodeId};
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::job::{Bid, COPY_COST, Grant, Offer};

use super::bidding::{Outcome, Successor};
use super::io::Output;
use super::machine::Session;
use crate::job::POST_ROLL_MS;
use crate::state::query::resume_msn;
use crate::time::Millis;

/// A live primary is replaced at most once in this time.
pub const REDISPATCH_MS: u64 = 5000;
/// A draining primary has this long to quiesce; then its successor is granted the job without it. One that encodes goes on
/// to the end of the open segment first, which lasts a target duration at most, and its rungs look a little further.
pub const QUIESCE_WAIT_MS: u64 = 1000;

impl Session {
    /// Takes a bid; the primary itself does not bid for its own replacement, unless it is to do more than before.
    pub(super) fn on_bid(&mut self, now: Millis, bid: Bid) {
        if !self.assignments.is_full_primary(&bid.node, self.cfg.cost) {
            self.bidding.on_bid(now, bid);
        }
    }

    /// Offers the job while it needs a worker, and grants it to the winner. Without media there is no job: a publish that
    /// never sends any leaves nothing behind.
    pub(super) fn dispatch(&mut self, now: Millis) {
        let is_gone = self.lease.gone_since().is_some();
        let finished = is_gone && self.is_stored();
        let is_needed = self.assignments.needs_standby(now, &self.detector);
        let wants_more = !is_gone && self.assignments.wants_more(now, &self.detector, self.cfg.cost);
        if finished || self.lease.open_msn().is_none() || !(is_needed || wants_more) {
            self.bidding.close();
            self.successor = None;
            return;
        }
        if let Some(successor) = &self.successor {
            if now >= successor.grant_at || self.assignments.is_handed_over(now, &self.detector) {
                let (node, cost) = (successor.node.clone(), successor.cost);
                self.successor = None;
                self.grant(now, node, cost);
            }
            return;
        }
        if self.bidding.is_due(now) {
            let first = self.assignments.primary().is_none();
            if first || self.granted_at.is_none_or(|at| now - at >= REDISPATCH_MS) {
                self.open_round(now, self.cfg.cost);
            }
            return;
        }
        match self.bidding.poll(now) {
            Some(Outcome::Won(node, cost)) => {
                if wants_more {
                    self.assignments.outbid_primary();
                }
                self.hand_over(now, node, cost);
            }
            // The copy goes on, and the job is offered again.
            Some(Outcome::NoBid(_)) if wants_more => {}
            Some(Outcome::NoBid(cost)) if cost > COPY_COST => self.open_round(now, COPY_COST),
            Some(Outcome::NoBid(_)) => self.queue_in_backlog(now),
            None => {}
        }
    }

    fn open_round(&mut self, now: Millis, cost: u64) {
        self.bidding.open(now, cost);
        self.out.push_back(Output::Offer(self.offer(cost)));
    }

    /// Grants the job to the winner of a round, once the primary that it replaces has quiesced, if that one can.
    fn hand_over(&mut self, now: Millis, node: NodeId, cost: u64) {
        if self.assignments.request_quiesce(now, &self.detector, &mut self.out) {
            self.successor = Some(Successor { node, cost, grant_at: now + self.quiesce_wait_ms() });
        } else {
            self.grant(now, node, cost);
        }
    }

    fn quiesce_wait_ms(&self) -> u64 {
        let settings = &self.cfg.claim.settings;
        let segment_ms = u64::from(settings.target_duration) * 1000;
        QUIESCE_WAIT_MS + if settings.plan.encodes() { segment_ms + POST_ROLL_MS } else { 0 }
    }

    fn queue_in_backlog(&mut self, now: Millis) {
        if self.degraded.replace(Degraded::NoCapacity) != Some(Degraded::NoCapacity) {
            self.out.push_back(Output::Backlog(self.offer(COPY_COST)));
            self.announce(now);
        }
    }

    fn offer(&self, cost: u64) -> Offer {
        let claim = &self.cfg.claim;
        let (stream, epoch, session) = (claim.stream, claim.epoch, self.cfg.session);
        Offer { stream, epoch, session, round: self.bidding.number(), cost }
    }

    /// Grants the job for as much as the node has bid for: a copy alone encodes nothing of the plan.
    fn grant(&mut self, now: Millis, node: NodeId, cost: u64) {
        self.generation = self.generation.next();
        self.granted_at = Some(now);
        self.degraded.take_if(|reason| *reason == Degraded::NoCapacity);
        let claim = &self.cfg.claim;
        let mut base = self.snapshot().clone();
        // A primary that received nothing from this session for long sealed before the end of the media.
        base.sealed &= base.epoch != claim.epoch || self.is_sealed_at_end();
        let resume = resume_msn(&base, claim.epoch, claim.first_msn);
        let resume_from = MediaSeq(self.first_message_for(resume));
        let open = EpochOpen {
            broadcast: claim.broadcast,
            airing: claim.airing,
            first_msn: claim.first_msn,
            discontinuity_sequence: claim.discontinuity_sequence,
            program_date_time: self.cfg.program_date_time,
            target_duration: claim.settings.target_duration,
            lead_gaps: if claim.continues { 0 } else { self.cfg.lead_gaps },
            plan: claim.settings.plan.clone(),
        };
        let mut settings = claim.settings.clone();
        if cost < self.cfg.cost {
            settings.plan.rungs.clear();
        }
        let pre_roll_from =
            self.pre_roll_for(resume_from.0).filter(|_| settings.plan.encodes()).map(MediaSeq);
        let grant = Box::new(Grant {
            stream: claim.stream,
            playback: claim.playback,
            session: self.cfg.session,
            epoch: claim.epoch,
            generation: self.generation,
            open,
            cost,
            base,
            resume_from,
            pre_roll_from,
            settings,
        });
        let seed = self.cfg.seed.wrapping_add(self.generation.0);
        self.assignments.assign_standby(now, node, grant, seed, &mut self.out);
        self.supervise(now);
    }
}
