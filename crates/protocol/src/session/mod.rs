//! The publisher's session: numbers and keeps media, finds a worker, supervises it, replaces it.

mod assignment;
mod bidding;
mod dispatch;
mod failure_detector;
mod initial_state;
mod io;
mod lease;

use std::collections::VecDeque;

use millrace_buf::Arena;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::fact::{Fact, FactMessage, StreamState};
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{Generation, MediaSeq, Msn, NodeId};
use millrace_wire::message::announce::{Degraded, SessionAnnouncement};
use millrace_wire::message::control::LeaseReply;
use millrace_wire::message::media::{MediaMessage, MediaUnit};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use self::assignment::{Seat, Seats};
use self::bidding::Offers;
use self::dispatch::Successor;
use self::failure_detector::Pulse;
use self::initial_state::Base;
use self::lease::Lease;
use crate::log::repair::Retransmitter;
use crate::log::replay_buffer::ReplayBuffer;
use crate::state::apply;
use crate::time::earlier;
use crate::{Machine, Millis};

pub use self::assignment::{REGRANT_MS, SILENCE_MS, TAKE_UP_MS};
pub use self::bidding::{BID_MS, NO_BID_MS, REOFFER_MS};
pub use self::dispatch::{REDISPATCH_MS, YIELD_WAIT_MS};
pub use self::failure_detector::{LATE_MS, LOOPBACK_FRESH_MS, LOOPBACK_MS};
pub use self::initial_state::{BASE_ASK_MS, BASE_MS};
pub use self::io::{Input, Output, SessionConfig};

/// Announcements are repeated at this interval.
pub const ANNOUNCE_MS: u64 = 1000;
/// A session stays this long after it named an author: what is lost of an announcement is said again, to readers and to the
/// author, and after the session nobody says it.
pub const NAMED_MS: u64 = 3 * ANNOUNCE_MS;
/// After its publisher left, a session waits this long for its media to be stored.
pub const LINGER_MS: u64 = 120_000;

/// A publisher's session.
#[derive(Debug)]
pub struct Session {
    cfg: SessionConfig,
    ring: ReplayBuffer<Msn>,
    /// Memory of what the ring holds.
    arena: Arena,
    repairer: Retransmitter,
    base: Base,
    seats: Seats,
    generation: Generation,
    offers: Offers,
    successor: Option<Successor>,
    dispatched: Option<Millis>,
    lease: Lease,
    degraded: Option<Degraded>,
    announce_at: Millis,
    named_at: Option<Millis>,
    pulse: Pulse,
    done: bool,
    out: VecDeque<Output>,
}

impl Machine for Session {
    type Input = Input;
    type Output = Output;
    /// Units could not be encoded; they are not published.
    type Error = FragmentError;

    fn handle(&mut self, now: Millis, input: Input) -> Result<(), FragmentError> {
        match input {
            Input::Media(units) => self.push(now, units, false)?,
            Input::PublisherGone(reason) => self.leave(now, reason)?,
            Input::Bid(bid) => self.on_bid(now, bid),
            Input::Heartbeat(h) => self.seats.on_heartbeat(now, &h),
            Input::WorkerFree => self.offers.on_worker_free(now),
            Input::Fact(message) => self.on_fact(now, &message),
            Input::Snapshot(s) => self.on_snapshot(*s),
            Input::FactReply(epoch, generation, reply) => {
                self.seats.on_reply(now, (epoch, generation), &reply);
            }
            Input::Loopback => self.pulse.on_loopback(now),
            Input::Lease(LeaseReply::Ok) => self.lease.on_ok(),
            Input::Lease(LeaseReply::Superseded { reason }) | Input::Kick(reason) => {
                self.lease.on_end();
                if self.lease.gone_since().is_none() {
                    self.out.push_back(Output::Close(reason));
                }
                self.leave(now, reason)?;
            }
            Input::Tick => {}
        }
        self.drive(now);
        Ok(())
    }

    fn handle_timeout(&mut self, now: Millis) -> Result<(), FragmentError> {
        self.handle(now, Input::Tick)
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn next_timeout(&self) -> Option<Millis> {
        let own = Some(self.pulse.next_timeout().min(self.announce_at));
        [
            self.lease.next_timeout(),
            self.offers.next_timeout(),
            self.successor.as_ref().map(Successor::due),
            self.seats.next_timeout(),
            self.base.next_timeout(),
            self.repairer.next_timeout(),
        ]
        .into_iter()
        .fold(own, earlier)
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

impl Session {
    /// Starts a session whose claim was granted.
    pub fn new(now: Millis, cfg: SessionConfig) -> Self {
        let mut ring = ReplayBuffer::new(cfg.ring);
        ring.pin(now, Some(0));
        let mut session = Self {
            ring,
            arena: Arena::default(),
            repairer: Retransmitter::new(now, cfg.repair),
            base: Base::new(now, &cfg.claim),
            seats: Seats::default(),
            generation: Generation(0),
            offers: Offers::new(now),
            successor: None,
            dispatched: None,
            lease: Lease::new(now, &cfg.claim),
            degraded: None,
            announce_at: now,
            named_at: None,
            pulse: Pulse::new(now),
            done: false,
            out: VecDeque::new(),
            cfg,
        };
        session.drive(now);
        session
    }
    /// Why the stream runs with less than it should, if it does.
    pub fn degraded(&self) -> Option<Degraded> {
        self.degraded
    }
    /// The announced author.
    pub fn author(&self) -> Option<(&NodeId, Generation)> {
        self.seats.author().map(|s| (s.node(), s.generation()))
    }
    /// The newest state this session knows: the answer to a snapshot request.
    pub fn snapshot(&self) -> &StreamState {
        self.seats.author().and_then(Seat::view).unwrap_or(self.base.state())
    }
    /// Bytes the ring holds.
    pub fn ring_bytes(&self) -> usize {
        self.ring.bytes()
    }
    /// Takes a repair request from `ring.media`; gives the reply.
    pub fn repair(&mut self, now: Millis, request: &RepairRequest) -> RepairReply {
        self.repairer.request(now, request, self.ring.oldest(), self.ring.next_seq());
        self.repeat(now);
        RepairReply { oldest: self.ring.oldest(), next: self.ring.next_seq() }
    }

    fn push(&mut self, now: Millis, units: Vec<MediaUnit>, end: bool) -> Result<(), FragmentError> {
        if self.lease.gone_since().is_some() && !end {
            return Ok(());
        }
        self.lease.stamp(&units);
        let seq = MediaSeq(self.ring.next_seq());
        let message = MediaMessage { epoch: self.cfg.claim.epoch, seq, end, units };
        let frames = message.encode(self.cfg.max_payload, &mut self.arena)?;
        self.ring.push(now, self.lease.open_msn().unwrap_or(self.cfg.claim.first_msn), frames.clone());
        if self.ring.pinned_lost() > 0 {
            self.degraded = Some(Degraded::MediaLost);
        }
        self.out.push_back(Output::Media(frames));
        Ok(())
    }

    fn leave(&mut self, now: Millis, reason: CloseReason) -> Result<(), FragmentError> {
        if self.lease.leave(now, reason) {
            self.push(now, Vec::new(), true)?;
        }
        Ok(())
    }

    fn on_fact(&mut self, now: Millis, message: &FactMessage) {
        self.seats.on_fact(now, message);
        // Most facts are parts, and no part makes a segment stored.
        if !matches!(message.fact, Fact::Part(_)) {
            self.pin(now);
        }
    }

    fn pin(&mut self, now: Millis) {
        let (epoch, first) = (self.cfg.claim.epoch, self.cfg.claim.first_msn);
        let Some(view) = self.seats.author().and_then(Seat::view) else { return };
        let resume = apply::resume_msn(view, epoch, first);
        let seq = self.ring.find(|msn| *msn >= resume).unwrap_or(self.ring.next_seq());
        // What the author has stored since, its successor's log does not tell.
        let seq = self.seats.standby_from().map_or(seq, |from| seq.min(from.0));
        self.ring.pin(now, Some(seq));
    }

    fn on_snapshot(&mut self, s: StreamState) {
        self.seats.on_snapshot(&s);
        self.base.on_snapshot(&self.cfg.claim, s);
    }

    fn drive(&mut self, now: Millis) {
        if self.done {
            return;
        }
        self.pulse.poll(now);
        self.repeat(now);
        if self.pulse.take_probe(now) {
            self.out.push_back(Output::Loopback);
        }
        self.out.extend(self.lease.poll(now, &self.cfg, self.degraded));
        if self.base.poll_ask(now) {
            self.out.push_back(Output::AskSnapshot);
        }
        if !self.base.is_awaited() {
            self.supervise(now);
            self.dispatch(now);
        }
        self.seats.follow(now, &mut self.out);
        if now >= self.announce_at {
            self.announce(now);
        }
        let named = self.named_at.is_none_or(|at| now - at >= NAMED_MS);
        let over = |at| now - at > LINGER_MS || named && self.is_stored();
        if self.lease.is_released() && self.lease.gone_since().is_some_and(over) {
            self.done = true;
            self.seats.revoke_standby(&mut self.out);
            self.out.push_back(Output::Done);
        }
    }

    /// The log says that everything up to the last stamped segment is in the store; an author's word is not enough.
    fn is_stored(&self) -> bool {
        let view = self.snapshot();
        let last = view.slots.back().map(|s| s.msn);
        // What the ring has lost nobody can package again, and what a predecessor stored later is not in this author's log:
        // then the author's word is all there is.
        let done = self.seats.author().is_some_and(Seat::is_done);
        if done && (self.ring.pinned_lost() > 0 || self.has_left_ring(view)) {
            return true;
        }
        let open = self.lease.open_msn();
        open.is_none() || (apply::is_stored(view, self.cfg.claim.epoch) && last >= open)
    }

    /// The publisher is gone, and the log's seal lies behind the last stamped segment.
    fn is_sealed_at_end(&self) -> bool {
        let last = self.snapshot().slots.back().map(|s| s.msn);
        self.lease.gone_since().is_some() && last >= self.lease.open_msn()
    }

    /// Whether the oldest segment that may not be stored is no longer in the ring.
    fn has_left_ring(&self, view: &StreamState) -> bool {
        let resume = apply::resume_msn(view, self.cfg.claim.epoch, self.cfg.claim.first_msn);
        self.lease.open_msn() >= Some(resume)
            && self.ring.find(|m| *m >= resume) == self.ring.find(|m| *m >= resume.next())
    }

    fn repeat(&mut self, now: Millis) {
        let ring = &self.ring;
        let len = |seq| ring.get(seq).map(|f| f.iter().map(|b| b.len() as u64).sum());
        while let Some(seq) = self.repairer.poll(now, len) {
            if let Some(frames) = ring.get(seq) {
                self.out.push_back(Output::Retransmit(frames.to_vec()));
            }
        }
    }

    fn supervise(&mut self, now: Millis) {
        self.seats.review_standby(now, &self.pulse, &mut self.out);
        if self.seats.is_takeover_due(now, &self.pulse) {
            // The newcomer's own log may never arrive: what is known now stays known.
            self.base.set(self.snapshot().clone());
            self.seats.take_over(&mut self.out);
            self.named_at = Some(now);
            self.announce(now);
        }
        self.seats.repeat_grants(now, &mut self.out);
    }

    fn announce(&mut self, now: Millis) {
        self.announce_at = now + ANNOUNCE_MS;
        let author = self.seats.author();
        self.out.push_back(Output::Announce(SessionAnnouncement {
            stream: self.cfg.claim.stream,
            epoch: self.cfg.claim.epoch,
            session: self.cfg.session,
            generation: author.map(Seat::generation),
            worker: author.map(|a| a.node().clone()),
            degraded: self.degraded,
        }));
    }
}
