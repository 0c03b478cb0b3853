//! The publisher's session: numbers and keeps media, finds a worker, supervises it, replaces it.

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_wire::announce::{Degraded, SessionAnnouncement};
use millrace_wire::control_api::{ClaimGrant, LeaseReply, ReleaseRequest, RenewRequest};
use millrace_wire::fact::{EpochOpen, FactMessage, Snapshot};
use millrace_wire::frame::FrameError;
use millrace_wire::ids::{DiscontinuitySeq, Epoch, Generation, MediaSeq, Msn, NodeId, SessionId, UnixMillis};
use millrace_wire::job::{Bid, Grant, GrantOrder, Heartbeat, Offer};
use millrace_wire::media_msg::{MediaMessage, MediaUnit};
use millrace_wire::reasons::CloseReason;
use millrace_wire::repair::{RepairReply, RepairRequest};

use crate::Millis;
use crate::follow::Follower;
use crate::repair::{RepairLimits, Repairer};
use crate::ring::{Ring, RingLimits};
use crate::time::earlier;
use crate::view;

/// Bids are awaited this long after the first one came: the nearest workers answer within it.
pub const BID_MS: u64 = 20;
/// Without a bid for this long the job goes to the backlog.
pub const NO_BID_MS: u64 = 300;
/// A job in the backlog is offered again at this interval, and at once when a worker frees up.
pub const REOFFER_MS: u64 = 2000;
/// Silence after which an author is replaced: three missed heartbeats and a half.
pub const SILENCE_MS: u64 = 700;
/// Interval of the session's probe to itself.
pub const LOOPBACK_MS: u64 = 200;
/// Silence counts only while the own probe came back within this time.
pub const LOOPBACK_FRESH_MS: u64 = 500;
/// A timer this late means a starved machine: silence starts counting anew.
pub const LATE_MS: u64 = 400;
/// A granted worker that has not sent a heartbeat after this time never got or took the grant.
pub const TAKE_UP_MS: u64 = 1500;
/// A grant is repeated at this interval until it shows in a heartbeat.
pub const REGRANT_MS: u64 = 300;
/// A live author is replaced at most once per this time.
pub const REDISPATCH_MS: u64 = 5000;
/// How long the earlier epoch's sealed state is awaited before the first grant; its author may be dead.
pub const BASE_MS: u64 = 1000;
/// The state is asked for at this interval meanwhile.
pub const BASE_ASK_MS: u64 = 60;
/// Announcements are repeated at this interval.
pub const ANNOUNCE_MS: u64 = 1000;
/// After its publisher left, a session waits this long for its media to be stored.
pub const LINGER_MS: u64 = 120_000;

/// What a session is made from.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Control's grant.
    pub claim: ClaimGrant,
    /// The session.
    pub session: SessionId,
    /// Wall clock of the first sample.
    pub program_date_time: UnixMillis,
    /// GAP segments below the first in a fresh window.
    pub lead_gaps: u32,
    /// Cost units of the job.
    pub cost: u64,
    /// The bus's largest payload.
    pub max_payload: usize,
    /// Bounds of the media ring.
    pub ring: RingLimits,
    /// Bounds of repeated media.
    pub repair: RepairLimits,
    /// Spreads repair requests.
    pub seed: u64,
}

/// What a session is told.
#[derive(Debug)]
pub enum Input {
    /// Stamped units to publish as one message.
    Media(Vec<MediaUnit>),
    /// The publisher is gone.
    PublisherGone(CloseReason),
    /// From `jobs.bid.{session}`.
    Bid(Bid),
    /// From the heartbeat subject.
    Heartbeat(Heartbeat),
    /// From `jobs.free`.
    WorkerFree,
    /// From a followed log.
    Fact(FactMessage),
    /// A reply to [`Output::AskSnapshot`].
    Snapshot(Box<Snapshot>),
    /// The author's reply to [`Output::AskFacts`].
    FactReply(Epoch, Generation, RepairReply),
    /// The own probe came back.
    Loopback,
    /// Control's answer to [`Output::Renew`] or [`Output::Release`].
    Lease(LeaseReply),
    /// From `control.kick.{session}`.
    Kick(CloseReason),
    /// Nothing but time.
    Tick,
}

/// What a session wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Publish on `media`.
    Media(Vec<Bytes>),
    /// Publish on `repair.media`.
    Repeat(Vec<Bytes>),
    /// Publish on `session.{stream}`.
    Announce(SessionAnnouncement),
    /// Publish on `jobs.offer`.
    Offer(Offer),
    /// Push to the backlog queue (deduplicated by epoch).
    Backlog(Offer),
    /// Publish on `job.grant.{node}`.
    Order(NodeId, Box<GrantOrder>),
    /// Subscribe to this log, besides the one followed before.
    Follow(Epoch, Generation),
    /// Request on `ring.live`; hand the reply in.
    AskFacts(Epoch, Generation, RepairRequest),
    /// Request on `snap`; hand every reply in.
    AskSnapshot,
    /// Publish on the loopback subject.
    Loopback,
    /// Request on `control.renew`.
    Renew(RenewRequest),
    /// Request on `control.release`.
    Release(ReleaseRequest),
    /// Close the publisher's connection.
    Close(CloseReason),
    /// Everything is stored: drop the session.
    Done,
}

#[derive(Debug)]
struct Seat {
    node: NodeId,
    grant: Box<Grant>,
    follower: Follower,
    granted_at: Millis,
    sent_at: Millis,
    heard: Option<Millis>,
    ready: bool,
    leaving: bool,
    done: bool,
}

#[derive(Debug)]
struct Offering {
    round: u64,
    since: Millis,
    first_bid: Option<Millis>,
    best: Option<Bid>,
}

/// A publisher's session.
#[derive(Debug)]
pub struct Session {
    cfg: SessionConfig,
    ring: Ring<Msn>,
    repairer: Repairer,
    base: Snapshot,
    base_until: Option<Millis>,
    base_ask: Millis,
    author: Option<Seat>,
    standby: Option<Seat>,
    generation: Generation,
    offering: Option<Offering>,
    round: u64,
    offer_at: Millis,
    dispatched: Option<Millis>,
    open_msn: Option<Msn>,
    discontinuity: DiscontinuitySeq,
    gone: Option<(Millis, CloseReason)>,
    released: bool,
    degraded: Option<Degraded>,
    announce_at: Millis,
    renew_at: Millis,
    loop_at: Millis,
    looped: Millis,
    steady_since: Millis,
    polled: Millis,
    done: bool,
    out: VecDeque<Output>,
}

impl Session {
    /// Starts a session whose claim was granted.
    pub fn new(now: Millis, cfg: SessionConfig) -> Self {
        let mut ring = Ring::new(cfg.ring);
        ring.pin(now, Some(0));
        let mut session = Self {
            ring,
            repairer: Repairer::new(now, cfg.repair),
            base: view::empty(cfg.claim.broadcast),
            base_until: cfg.claim.continues.then_some(now + BASE_MS),
            base_ask: now,
            author: None,
            standby: None,
            generation: Generation(0),
            offering: None,
            round: 0,
            offer_at: now,
            dispatched: None,
            open_msn: None,
            discontinuity: cfg.claim.discontinuity_sequence,
            gone: None,
            released: false,
            degraded: None,
            announce_at: now,
            renew_at: now + u64::from(cfg.claim.lease_ms) / 3,
            loop_at: now,
            looped: now,
            steady_since: now,
            polled: now,
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
        self.author.as_ref().map(|s| (&s.node, s.grant.generation))
    }
    /// The newest state this session knows: the answer to a snapshot request.
    pub fn snapshot(&self) -> &Snapshot {
        self.author.as_ref().and_then(|s| s.follower.view()).unwrap_or(&self.base)
    }
    /// Bytes the ring holds.
    pub fn ring_bytes(&self) -> usize {
        self.ring.bytes()
    }
    /// Everything is stored, or the session waited long enough.
    pub fn is_done(&self) -> bool {
        self.done
    }
    /// Next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
    /// When to hand in [`Input::Tick`].
    pub fn next_timeout(&self) -> Option<Millis> {
        let mut at = self.loop_at.min(self.announce_at);
        if !self.released {
            at = at.min(self.renew_at);
        }
        if let Some(o) = &self.offering {
            at = at.min(o.first_bid.map_or(o.since + NO_BID_MS, |f| f + BID_MS));
        }
        for seat in [&self.author, &self.standby].into_iter().flatten() {
            at = at.min(seat.follower.next_timeout());
        }
        let base = self.base_until.map(|at| at.min(self.base_ask));
        earlier(earlier(Some(at), base), self.repairer.next_timeout())
    }
    /// Takes a repair request from `ring.media`; gives the reply.
    pub fn repair(&mut self, now: Millis, request: &RepairRequest) -> RepairReply {
        self.repairer.request(now, request, self.ring.oldest(), self.ring.next_seq());
        self.repeat(now);
        RepairReply { oldest: self.ring.oldest(), next: self.ring.next_seq() }
    }

    /// Takes one input. An error means that units could not be encoded; they are not published.
    pub fn handle(&mut self, now: Millis, input: Input) -> Result<(), FrameError> {
        match input {
            Input::Media(units) => self.push(now, units, false)?,
            Input::PublisherGone(reason) => self.leave(now, reason)?,
            Input::Bid(bid) => self.on_bid(now, bid),
            Input::Heartbeat(h) => self.on_heartbeat(now, &h),
            Input::WorkerFree => {
                if self.offering.is_none() {
                    self.offer_at = now;
                }
            }
            Input::Fact(message) => self.on_fact(now, &message),
            Input::Snapshot(s) => self.on_snapshot(*s),
            Input::FactReply(epoch, generation, reply) => {
                for seat in [&mut self.author, &mut self.standby].into_iter().flatten() {
                    if seat.follower.log() == (epoch, generation) {
                        seat.follower.reply(now, &reply);
                    }
                }
            }
            Input::Loopback => self.looped = now,
            Input::Lease(LeaseReply::Ok) => self.released |= self.gone.is_some(),
            Input::Lease(LeaseReply::Superseded { reason }) | Input::Kick(reason) => {
                self.released = true;
                if self.gone.is_none() {
                    self.out.push_back(Output::Close(reason));
                }
                self.leave(now, reason)?;
            }
            Input::Tick => {}
        }
        self.drive(now);
        Ok(())
    }

    fn push(&mut self, now: Millis, units: Vec<MediaUnit>, end: bool) -> Result<(), FrameError> {
        if self.gone.is_some() && !end {
            return Ok(());
        }
        for unit in &units {
            self.open_msn = self.open_msn.max(Some(unit.msn));
            self.discontinuity = self.discontinuity.max(unit.discontinuity_sequence);
        }
        let seq = MediaSeq(self.ring.next_seq());
        let message = MediaMessage { epoch: self.cfg.claim.epoch, seq, end, units };
        let frames = message.encode(self.cfg.max_payload)?;
        self.ring.push(now, self.open_msn.unwrap_or(self.cfg.claim.first_msn), frames.clone());
        if self.ring.pinned_lost() > 0 {
            self.degraded = Some(Degraded::MediaLost);
        }
        self.out.push_back(Output::Media(frames));
        Ok(())
    }

    fn leave(&mut self, now: Millis, reason: CloseReason) -> Result<(), FrameError> {
        if self.gone.is_none() {
            self.gone = Some((now, reason));
            self.renew_at = now;
            self.push(now, Vec::new(), true)?;
        }
        Ok(())
    }

    fn on_bid(&mut self, now: Millis, bid: Bid) {
        let tired = self.author.as_ref().is_some_and(|a| a.node == bid.node);
        let Some(offering) = self.offering.as_mut().filter(|o| o.round == bid.round && !tired) else {
            return;
        };
        offering.first_bid.get_or_insert(now);
        let rank = |b: &Bid| (b.continuing, b.free, b.node.clone());
        if offering.best.as_ref().is_none_or(|best| rank(best) < rank(&bid)) {
            offering.best = Some(bid);
        }
    }

    fn on_heartbeat(&mut self, now: Millis, h: &Heartbeat) {
        if h.epoch != self.cfg.claim.epoch {
            return;
        }
        for seat in [&mut self.author, &mut self.standby].into_iter().flatten() {
            if seat.node == h.node && seat.grant.generation == h.generation {
                seat.heard = Some(now);
                seat.ready |= h.ready;
                seat.done = h.done;
                seat.leaving |= h.leaving;
            }
        }
    }

    fn on_fact(&mut self, now: Millis, message: &FactMessage) {
        for seat in [&mut self.author, &mut self.standby].into_iter().flatten() {
            seat.follower.receive(now, message);
        }
        self.pin(now);
    }

    fn pin(&mut self, now: Millis) {
        let (epoch, first) = (self.cfg.claim.epoch, self.cfg.claim.first_msn);
        let Some(view) = self.author.as_ref().and_then(|s| s.follower.view()) else { return };
        let resume = view::resume_msn(view, epoch, first);
        let seq = self.ring.find(|msn| *msn >= resume).unwrap_or(self.ring.next_seq());
        self.ring.pin(now, Some(seq));
    }

    fn on_snapshot(&mut self, s: Snapshot) {
        for seat in [&mut self.author, &mut self.standby].into_iter().flatten() {
            seat.follower.snapshot(&s);
        }
        let rank = |s: &Snapshot| (s.epoch, s.generation, s.seq);
        if self.base_until.is_some() && s.epoch < self.cfg.claim.epoch && rank(&s) > rank(&self.base) {
            self.base = s;
            // Only a sealed state has every part that readers were shown.
            if self.base.sealed {
                self.base_until = None;
            }
        }
    }

    fn drive(&mut self, now: Millis) {
        if self.done {
            return;
        }
        if now - self.polled > LATE_MS {
            self.steady_since = now;
        }
        self.polled = now;
        self.repeat(now);
        self.beat(now);
        self.base_until.take_if(|at| *at <= now);
        if self.base_until.is_some() && now >= self.base_ask {
            self.base_ask = now + BASE_ASK_MS;
            self.out.push_back(Output::AskSnapshot);
        }
        if self.base_until.is_none() {
            self.supervise(now);
            self.dispatch(now);
        }
        self.follow(now);
        if now >= self.announce_at {
            self.announce(now);
        }
        let stored = self.is_stored();
        if self.released && self.gone.as_ref().is_some_and(|(at, _)| stored || now - *at > LINGER_MS) {
            self.done = true;
            self.revoke_standby();
            self.out.push_back(Output::Done);
        }
    }

    /// The log says that everything up to the last stamped segment is in the store; an author's word is not enough.
    fn is_stored(&self) -> bool {
        let view = self.snapshot();
        let last = view.slots.back().map(|s| s.msn);
        // What the ring has lost nobody can package again, and what a predecessor stored later is not in this author's log:
        // then the author's word is all there is.
        let done = self.author.as_ref().is_some_and(|a| a.done);
        if done && (self.ring.pinned_lost() > 0 || self.has_left_ring(view)) {
            return true;
        }
        self.open_msn.is_none() || (view::is_stored(view, self.cfg.claim.epoch) && last >= self.open_msn)
    }

    /// Whether the oldest segment that may not be stored is no longer in the ring.
    fn has_left_ring(&self, view: &Snapshot) -> bool {
        let resume = view::resume_msn(view, self.cfg.claim.epoch, self.cfg.claim.first_msn);
        self.open_msn >= Some(resume)
            && self.ring.find(|m| *m >= resume) == self.ring.find(|m| *m >= resume.next())
    }

    fn repeat(&mut self, now: Millis) {
        let ring = &self.ring;
        let len = |seq| ring.get(seq).map(|f| f.iter().map(|b| b.len() as u64).sum());
        while let Some(seq) = self.repairer.poll(now, len) {
            if let Some(frames) = ring.get(seq) {
                self.out.push_back(Output::Repeat(frames.to_vec()));
            }
        }
    }

    fn beat(&mut self, now: Millis) {
        if now >= self.loop_at {
            self.loop_at = now + LOOPBACK_MS;
            self.out.push_back(Output::Loopback);
        }
        if self.released || now < self.renew_at {
            return;
        }
        self.renew_at = now + u64::from(self.cfg.claim.lease_ms) / 3;
        let (stream, session, epoch) = (self.cfg.claim.stream, self.cfg.session, self.cfg.claim.epoch);
        let (open_msn, discontinuity_sequence) = (self.open_msn, self.discontinuity);
        let degraded = self.degraded;
        self.out.push_back(if let Some((_, reason)) = self.gone {
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
        });
    }

    fn is_lost(&self, now: Millis, seat: &Seat) -> bool {
        let since = seat.heard.unwrap_or(seat.granted_at).max(self.steady_since);
        let limit = if seat.heard.is_some() { SILENCE_MS } else { TAKE_UP_MS };
        seat.leaving || (now - self.looped <= LOOPBACK_FRESH_MS && now - since >= limit)
    }

    fn supervise(&mut self, now: Millis) {
        if self.standby.as_ref().is_some_and(|s| self.is_lost(now, s)) {
            self.revoke_standby();
        }
        let author_lost = self.author.as_ref().is_none_or(|a| self.is_lost(now, a));
        if self.standby.is_some() && !author_lost {
            self.revoke_standby();
        }
        let take_over =
            self.author.is_none() || (author_lost && self.standby.as_ref().is_some_and(|s| s.ready));
        if take_over && let Some(standby) = self.standby.take() {
            // The newcomer's own log may never arrive: what is known now stays known.
            self.base = self.snapshot().clone();
            if let Some(old) = self.author.replace(standby) {
                self.revoke(&old);
            }
            self.announce(now);
        }
        for seat in [&mut self.author, &mut self.standby].into_iter().flatten() {
            if seat.heard.is_none() && now - seat.sent_at >= REGRANT_MS {
                seat.sent_at = now;
                let order = Box::new(GrantOrder::Grant(seat.grant.clone()));
                self.out.push_back(Output::Order(seat.node.clone(), order));
            }
        }
    }

    fn revoke_standby(&mut self) {
        if let Some(seat) = self.standby.take() {
            self.revoke(&seat);
        }
    }

    fn revoke(&mut self, seat: &Seat) {
        let Grant { stream, epoch, generation, .. } = *seat.grant;
        let order = Box::new(GrantOrder::Revoke { stream, epoch, generation });
        self.out.push_back(Output::Order(seat.node.clone(), order));
    }

    fn dispatch(&mut self, now: Millis) {
        let finished = self.gone.is_some() && self.is_stored();
        let needed =
            self.standby.is_none() && !finished && self.author.as_ref().is_none_or(|a| self.is_lost(now, a));
        if !needed {
            self.offering = None;
            return;
        }
        let Some(offering) = &mut self.offering else {
            let waited = self.author.is_none() || self.dispatched.is_none_or(|at| now - at >= REDISPATCH_MS);
            if waited && now >= self.offer_at {
                self.offer(now);
            }
            return;
        };
        if offering.first_bid.is_some_and(|at| now - at >= BID_MS) {
            if let Some(best) = offering.best.take() {
                self.offering = None;
                self.grant(now, best.node);
            }
        } else if offering.first_bid.is_none() && now - offering.since >= NO_BID_MS {
            self.offering = None;
            self.offer_at = now + REOFFER_MS;
            if self.degraded.replace(Degraded::NoCapacity) != Some(Degraded::NoCapacity) {
                let offer = self.offer_message();
                self.out.push_back(Output::Backlog(offer));
                self.announce(now);
            }
        }
    }

    fn offer_message(&self) -> Offer {
        let claim = &self.cfg.claim;
        let (stream, epoch, session) = (claim.stream, claim.epoch, self.cfg.session);
        Offer { stream, epoch, session, round: self.round, cost: self.cfg.cost }
    }

    fn offer(&mut self, now: Millis) {
        self.round += 1;
        self.offering = Some(Offering { round: self.round, since: now, first_bid: None, best: None });
        let offer = self.offer_message();
        self.out.push_back(Output::Offer(offer));
    }

    fn grant(&mut self, now: Millis, node: NodeId) {
        self.generation = self.generation.next();
        self.dispatched = Some(now);
        self.degraded.take_if(|d| *d == Degraded::NoCapacity);
        let claim = &self.cfg.claim;
        let (epoch, first_msn) = (claim.epoch, claim.first_msn);
        let base = self.snapshot().clone();
        let resume = view::resume_msn(&base, epoch, first_msn);
        let resume_from = MediaSeq(self.ring.find(|m| *m >= resume).unwrap_or(self.ring.next_seq()));
        let open = EpochOpen {
            broadcast: claim.broadcast,
            first_msn,
            discontinuity_sequence: claim.discontinuity_sequence,
            program_date_time: self.cfg.program_date_time,
            target_duration: claim.settings.target_duration,
            lead_gaps: if claim.continues { 0 } else { self.cfg.lead_gaps },
        };
        let grant = Box::new(Grant {
            stream: claim.stream,
            playback: claim.playback,
            session: self.cfg.session,
            epoch,
            generation: self.generation,
            open,
            cost: self.cfg.cost,
            base,
            resume_from,
            settings: claim.settings.clone(),
        });
        let seed = self.cfg.seed.wrapping_add(self.generation.0);
        let follower = Follower::new(now, epoch, self.generation, seed);
        self.out.push_back(Output::Follow(epoch, self.generation));
        self.out.push_back(Output::Order(node.clone(), Box::new(GrantOrder::Grant(grant.clone()))));
        self.standby = Some(Seat {
            node,
            grant,
            follower,
            granted_at: now,
            sent_at: now,
            heard: None,
            ready: false,
            leaving: false,
            done: false,
        });
        self.supervise(now);
    }

    fn follow(&mut self, now: Millis) {
        for seat in [&mut self.author, &mut self.standby].into_iter().flatten() {
            let (epoch, generation) = seat.follower.log();
            if let Some(request) = seat.follower.poll_request(now) {
                self.out.push_back(Output::AskFacts(epoch, generation, request));
            }
            if seat.follower.take_wants_snapshot() {
                self.out.push_back(Output::AskSnapshot);
            }
        }
    }

    fn announce(&mut self, now: Millis) {
        self.announce_at = now + ANNOUNCE_MS;
        let author = self.author.as_ref();
        self.out.push_back(Output::Announce(SessionAnnouncement {
            stream: self.cfg.claim.stream,
            epoch: self.cfg.claim.epoch,
            session: self.cfg.session,
            generation: author.map(|a| a.grant.generation),
            worker: author.map(|a| a.node.clone()),
            degraded: self.degraded,
        }));
    }
}
