//! Finding a worker: the job is offered while nobody holds it or its author is lost, and granted to the best bid. A live
//! author is replaced seldom; without a bid the stream is degraded and the job waits in the backlog.

use millrace_wire::fact::EpochOpen;
use millrace_wire::ids::{MediaSeq, NodeId};
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::job::{Bid, Grant, Offer};

use super::bidding::Outcome;
use super::{Output, Session};
use crate::Millis;
use crate::state::apply;

/// A live author is replaced at most once per this time.
pub const REDISPATCH_MS: u64 = 5000;
/// A leaving author has this long to fall silent and to store what it announced; its successor is granted without it then.
pub const YIELD_WAIT_MS: u64 = 1000;

/// Won the round that replaces a leaving author, and waits for that one to fall silent.
#[derive(Debug)]
pub(super) struct Successor {
    node: NodeId,
    until: Millis,
}

impl Successor {
    pub(super) fn due(&self) -> Millis {
        self.until
    }
}

impl Session {
    pub(super) fn on_bid(&mut self, now: Millis, bid: Bid) {
        let tired = self.seats.author().is_some_and(|a| *a.node() == bid.node);
        if !tired {
            self.offers.on_bid(now, bid);
        }
    }

    pub(super) fn dispatch(&mut self, now: Millis) {
        let finished = self.lease.gone_since().is_some() && self.is_stored();
        if finished || !self.seats.is_vacant(now, &self.pulse) {
            self.offers.close();
            self.successor = None;
            return;
        }
        if let Some(successor) = &self.successor {
            if now >= successor.until || self.seats.is_handed_over(now, &self.pulse) {
                let node = successor.node.clone();
                self.successor = None;
                self.grant(now, node);
            }
            return;
        }
        if self.offers.is_due(now) {
            let first = self.seats.author().is_none();
            if first || self.dispatched.is_none_or(|at| now - at >= REDISPATCH_MS) {
                self.offers.open(now);
                self.out.push_back(Output::Offer(self.offer()));
            }
            return;
        }
        match self.offers.poll(now) {
            Some(Outcome::Won(node)) if self.seats.ask_to_yield(now, &self.pulse, &mut self.out) => {
                self.successor = Some(Successor { node, until: now + YIELD_WAIT_MS });
            }
            Some(Outcome::Won(node)) => self.grant(now, node),
            Some(Outcome::NoBid) => self.queue(now),
            None => {}
        }
    }

    fn queue(&mut self, now: Millis) {
        if self.degraded.replace(Degraded::NoCapacity) != Some(Degraded::NoCapacity) {
            self.out.push_back(Output::Backlog(self.offer()));
            self.announce(now);
        }
    }

    fn offer(&self) -> Offer {
        let claim = &self.cfg.claim;
        let (stream, epoch, session) = (claim.stream, claim.epoch, self.cfg.session);
        Offer { stream, epoch, session, round: self.offers.round(), cost: self.cfg.cost }
    }

    fn grant(&mut self, now: Millis, node: NodeId) {
        self.generation = self.generation.next();
        self.dispatched = Some(now);
        self.degraded.take_if(|d| *d == Degraded::NoCapacity);
        let claim = &self.cfg.claim;
        let mut base = self.snapshot().clone();
        // An author that had not heard of this session for long sealed before the end of the media.
        base.sealed &= base.epoch != claim.epoch || self.is_sealed_at_end();
        let resume = apply::resume_msn(&base, claim.epoch, claim.first_msn);
        let resume_from = MediaSeq(self.ring.find(|m| *m >= resume).unwrap_or(self.ring.next_seq()));
        let open = EpochOpen {
            broadcast: claim.broadcast,
            first_msn: claim.first_msn,
            discontinuity_sequence: claim.discontinuity_sequence,
            program_date_time: self.cfg.program_date_time,
            target_duration: claim.settings.target_duration,
            lead_gaps: if claim.continues { 0 } else { self.cfg.lead_gaps },
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
        self.seats.seat(now, node, grant, seed, &mut self.out);
        self.supervise(now);
    }
}
