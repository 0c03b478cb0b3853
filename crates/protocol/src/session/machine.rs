//! The machine of a session: it publishes and repeats media, keeps the lease, and supervises the primary.

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

use super::assignment::{Assignment, PrimaryStandby};
use super::bidding::{BidRound, Successor};
use super::failure_detector::FailureDetector;
use super::initial_state::InitialState;
use super::io::{Input, Output, SessionConfig};
use super::lease::Lease;
use super::pre_roll::{Published, pre_roll_start};
use crate::log::repair::Retransmitter;
use crate::log::replay_buffer::ReplayBuffer;
use crate::machine::Machine;
use crate::state::query::{is_stored, resume_msn};
use crate::time::{Millis, earlier};

/// Announcements are repeated at this interval.
pub const ANNOUNCE_MS: u64 = 1000;
/// A session stays this long after it first named a primary: a lost announcement is repeated, to readers and to the
/// primary, and after the session none repeats it.
pub const NAMED_MS: u64 = 3 * ANNOUNCE_MS;
/// The media of a publisher that control has ended are taken for this long at most: the node reads what waits in the
/// socket, for a fraction of it, and then ends them.
pub(super) const LAST_MEDIA_MS: u64 = 500;
/// A session waits this long after its publisher left for its media to be stored.
pub const LINGER_MS: u64 = 120_000;

/// The session of one publisher connection.
#[derive(Debug)]
pub struct Session {
    pub(super) cfg: SessionConfig,
    pub(super) media: ReplayBuffer<Published>,
    /// Memory of the messages in `media`.
    arena: Arena,
    retransmitter: Retransmitter,
    initial_state: InitialState,
    pub(super) assignments: PrimaryStandby,
    /// The newest granted generation; 0 before the first grant.
    pub(super) generation: Generation,
    pub(super) bidding: BidRound,
    pub(super) successor: Option<Successor>,
    pub(super) granted_at: Option<Millis>,
    pub(super) lease: Lease,
    pub(super) degraded: Option<Degraded>,
    announce_at: Millis,
    named_at: Option<Millis>,
    /// The time at which a publisher that control has ended counts as gone, and the reason.
    closing: Option<(Millis, CloseReason)>,
    pub(super) detector: FailureDetector,
    done: bool,
    pub(super) out: VecDeque<Output>,
}

impl Machine for Session {
    type Input = Input;
    type Output = Output;
    /// Units could not be encoded; they are not published.
    type Error = FragmentError;

    fn handle(&mut self, now: Millis, input: Input) -> Result<(), FragmentError> {
        match input {
            Input::Media(units) => self.publish_media(now, units, false)?,
            Input::PublisherGone(reason, text) => self.on_publisher_gone(now, reason, text)?,
            Input::Health(notes) => self.lease.set_notes(now, notes),
            Input::Bid(bid) => self.on_bid(now, bid),
            Input::Heartbeat(heartbeat) => self.assignments.on_heartbeat(now, &heartbeat),
            Input::WorkerFree => self.bidding.on_worker_free(now),
            Input::Fact(message) => self.on_fact(now, &message),
            Input::Snapshot(snapshot) => self.on_snapshot(*snapshot),
            Input::FactReply(epoch, generation, reply) => {
                self.assignments.on_repair_reply(now, (epoch, generation), &reply);
            }
            Input::Loopback => self.detector.on_loopback(now),
            Input::Renewed(LeaseReply::Ok) | Input::Tick => {}
            Input::Released(LeaseReply::Ok) => self.lease.on_released(),
            Input::Renewed(LeaseReply::Superseded { reason })
            | Input::Released(LeaseReply::Superseded { reason })
            | Input::Kick(reason) => {
                self.lease.on_ended_by_control();
                self.on_ended_by_control(now, reason)?;
            }
        }
        if let Some((at, reason)) = self.closing
            && now >= at
        {
            self.on_publisher_gone(now, reason, String::new())?;
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
        let own = Some(self.detector.next_timeout().min(self.announce_at));
        [
            self.lease.next_timeout(),
            self.bidding.next_timeout(),
            self.successor.as_ref().map(|successor| successor.grant_at),
            self.closing.map(|(at, _)| at).filter(|_| self.lease.gone_since().is_none()),
            self.assignments.next_timeout(),
            self.initial_state.next_timeout(),
            self.retransmitter.next_timeout(),
        ]
        .into_iter()
        .fold(own, earlier)
    }

    /// True if all media are stored, or the session has waited for it long enough.
    fn is_done(&self) -> bool {
        self.done
    }
}

impl Session {
    /// Starts the session of a claim that control granted.
    pub fn new(now: Millis, cfg: SessionConfig) -> Self {
        let mut media = ReplayBuffer::new(cfg.replay);
        media.pin(now, Some(0));
        let mut session = Self {
            media,
            arena: Arena::default(),
            retransmitter: Retransmitter::new(now, cfg.repair),
            initial_state: InitialState::new(now, &cfg.claim),
            assignments: PrimaryStandby::default(),
            generation: Generation(0),
            bidding: BidRound::new(now),
            successor: None,
            granted_at: None,
            lease: Lease::new(now, &cfg.claim),
            degraded: None,
            announce_at: now,
            named_at: None,
            closing: None,
            detector: FailureDetector::new(now),
            done: false,
            out: VecDeque::new(),
            cfg,
        };
        session.drive(now);
        session
    }

    /// Returns the reason the stream runs with less than it should; `None` if it does not.
    pub fn degraded(&self) -> Option<Degraded> {
        let encoding = || self.assignments.primary().and_then(|primary| primary.encoding(self.cfg.cost));
        self.degraded.or_else(encoding)
    }

    /// Returns the announced primary and its generation.
    pub fn primary(&self) -> Option<(&NodeId, Generation)> {
        self.assignments.primary().map(|primary| (primary.node(), primary.generation()))
    }

    /// Returns the newest state that this session knows: the reply to a snapshot request.
    pub fn snapshot(&self) -> &StreamState {
        self.assignments.primary().and_then(Assignment::state).unwrap_or(self.initial_state.state())
    }

    /// Returns the bytes of the media that are kept for repair.
    pub fn replay_bytes(&self) -> usize {
        self.media.bytes()
    }

    /// Takes a repair request from `ring.media` and returns the reply.
    pub fn repair(&mut self, now: Millis, request: &RepairRequest) -> RepairReply {
        self.retransmitter.on_request(now, request, self.media.oldest(), self.media.next_seq());
        self.retransmit(now);
        RepairReply { oldest: self.media.oldest(), next: self.media.next_seq() }
    }

    fn publish_media(&mut self, now: Millis, units: Vec<MediaUnit>, end: bool) -> Result<(), FragmentError> {
        if self.lease.gone_since().is_some() && !end {
            return Ok(());
        }
        self.lease.note_numbers(now, &units);
        let seq = MediaSeq(self.media.next_seq());
        let newest = self.lease.open_msn().unwrap_or(self.cfg.claim.first_msn);
        let published = Published::new(now, newest, &units);
        let message = MediaMessage { epoch: self.cfg.claim.epoch, seq, end, units };
        let fragments = message.encode(self.cfg.max_payload, &mut self.arena)?;
        self.media.push(now, published, fragments.clone());
        if self.media.pinned_lost() > 0 {
            self.degraded = Some(Degraded::MediaLost);
        }
        self.out.push_back(Output::Media(fragments));
        Ok(())
    }

    /// Closes the publisher. Its media end when it has left: what it had sent before is still on its way in. One that
    /// another has taken over from ends at once.
    fn on_ended_by_control(&mut self, now: Millis, reason: CloseReason) -> Result<(), FragmentError> {
        if self.lease.gone_since().is_none() && self.closing.is_none() {
            self.out.push_back(Output::Close(reason));
        }
        if reason == CloseReason::TakenOver {
            return self.on_publisher_gone(now, reason, String::new());
        }
        self.closing.get_or_insert((now + LAST_MEDIA_MS, reason));
        Ok(())
    }

    fn on_publisher_gone(
        &mut self,
        now: Millis,
        reason: CloseReason,
        text: String,
    ) -> Result<(), FragmentError> {
        if self.lease.on_publisher_gone(now, reason, text) {
            self.publish_media(now, Vec::new(), true)?;
        }
        Ok(())
    }

    fn on_fact(&mut self, now: Millis, message: &FactMessage) {
        self.assignments.on_fact(now, message);
        // Most facts are parts, and no part makes a segment stored.
        if !matches!(message.fact, Fact::Part(_)) {
            self.pin_media(now);
        }
    }

    /// Keeps the media that a successor would need: those of segments that the primary's log does not show as stored, and
    /// what its encoders would decode before them.
    fn pin_media(&mut self, now: Millis) {
        let (epoch, first) = (self.cfg.claim.epoch, self.cfg.claim.first_msn);
        let Some(state) = self.assignments.primary().and_then(Assignment::state) else { return };
        let resume = resume_msn(state, epoch, first);
        let seq = self.first_message_for(resume);
        // The standby's log does not say what the primary has stored since the grant: the standby packages it again.
        let seq = self.assignments.standby_resume_from().map_or(seq, |from| seq.min(from.0));
        self.media.keep(self.pre_roll_for(seq));
        self.media.pin(now, Some(seq));
    }

    /// Returns the number of the first message that the encoders of a worker decode which resumes with message `seq`.
    pub(super) fn pre_roll_for(&self, seq: u64) -> Option<u64> {
        let encodes = self.cfg.claim.settings.plan.encodes();
        if encodes { pre_roll_start(&self.media, seq) } else { None }
    }

    /// Returns the number of the first message that a worker needs which packages from segment `resume` on. Once the publisher
    /// has left, that is the last message at the latest: without it a successor does not learn that no media follow, though
    /// all of them may be stored before the epoch is sealed.
    pub(super) fn first_message_for(&self, resume: Msn) -> u64 {
        let next = self.media.next_seq();
        let end = if self.lease.gone_since().is_some() { next.saturating_sub(1) } else { next };
        self.media.find(|message| message.msn >= resume).unwrap_or(end)
    }

    fn on_snapshot(&mut self, snapshot: StreamState) {
        self.assignments.on_snapshot(&snapshot);
        self.initial_state.on_snapshot(&self.cfg.claim, snapshot);
    }

    fn drive(&mut self, now: Millis) {
        if self.done {
            return;
        }
        self.detector.poll(now);
        self.retransmit(now);
        if self.detector.take_probe(now) {
            self.out.push_back(Output::Loopback);
        }
        self.lease.set_storage(self.assignments.primary().is_some_and(Assignment::is_storage_failing));
        let renewal = self.lease.poll(now, &self.cfg, self.degraded());
        self.out.extend(renewal.map(|renewal| self.with_ladder(renewal)));
        if self.initial_state.poll_ask(now) {
            self.out.push_back(Output::AskSnapshot);
        }
        if !self.initial_state.is_awaited() {
            self.supervise(now);
            self.dispatch(now);
        }
        self.assignments.request_repairs(now, &mut self.out);
        if now >= self.announce_at {
            self.announce(now);
        }
        self.finish(now);
    }

    /// Adds the health of the primary's encoded rungs to a renewal.
    fn with_ladder(&self, mut request: Output) -> Output {
        if let Output::Renew(renewal) = &mut request {
            let ladder = self.assignments.primary().and_then(Assignment::ladder);
            renewal.ladder = ladder.cloned().map(Box::new);
        }
        request
    }

    fn finish(&mut self, now: Millis) {
        let named_long_enough = self.named_at.is_none_or(|at| now - at >= NAMED_MS);
        let is_over = |gone_at| now - gone_at > LINGER_MS || named_long_enough && self.is_stored();
        if self.lease.is_released() && self.lease.gone_since().is_some_and(is_over) {
            self.done = true;
            self.assignments.revoke_standby(&mut self.out);
            self.out.push_back(Output::Done);
        }
    }

    /// True if the log shows everything up to the last tagged segment as stored. A heartbeat alone is not enough evidence.
    pub(super) fn is_stored(&self) -> bool {
        let state = self.snapshot();
        let last = state.slots.back().map(|slot| slot.msn);
        // Media that have left the replay buffer cannot be packaged again, and this log does not show what an earlier
        // primary stored after the grant: then the primary's heartbeat is all the evidence there is.
        let done = self.assignments.primary().is_some_and(Assignment::is_done);
        if done && (self.media.pinned_lost() > 0 || self.has_left_replay(state)) {
            return true;
        }
        let open = self.lease.open_msn();
        open.is_none() || (is_stored(state, self.cfg.claim.epoch) && last >= open)
    }

    /// True if the publisher has left and the log's seal lies behind the last tagged segment.
    pub(super) fn is_sealed_at_end(&self) -> bool {
        let last = self.snapshot().slots.back().map(|slot| slot.msn);
        self.lease.gone_since().is_some() && last >= self.lease.open_msn()
    }

    /// True if the media of the oldest segment that may not be stored have left the replay buffer.
    fn has_left_replay(&self, state: &StreamState) -> bool {
        let resume = resume_msn(state, self.cfg.claim.epoch, self.cfg.claim.first_msn);
        let first_from = |lowest: Msn| self.media.find(|message| message.msn >= lowest);
        self.lease.open_msn() >= Some(resume) && first_from(resume) == first_from(resume.next())
    }

    fn retransmit(&mut self, now: Millis) {
        while let Some(fragments) = self.retransmitter.poll_from(now, &self.media) {
            self.out.push_back(Output::Retransmit(fragments));
        }
    }

    /// Revokes a standby that is no longer needed, and promotes one that is due.
    pub(super) fn supervise(&mut self, now: Millis) {
        self.assignments.review_standby(now, &self.detector, &mut self.out);
        if self.assignments.is_promotion_due(now, &self.detector) {
            // The new primary's log may never arrive: what is known now stays known.
            self.initial_state.set(self.snapshot().clone());
            self.assignments.promote_standby(&mut self.out);
            self.named_at = Some(now);
            self.announce(now);
        }
        self.assignments.repeat_grants(now, &mut self.out);
    }

    pub(super) fn announce(&mut self, now: Millis) {
        self.announce_at = now + ANNOUNCE_MS;
        let primary = self.assignments.primary();
        self.out.push_back(Output::Announce(SessionAnnouncement {
            stream: self.cfg.claim.stream,
            epoch: self.cfg.claim.epoch,
            session: self.cfg.session,
            generation: primary.map(Assignment::generation),
            worker: primary.map(|primary| primary.node().clone()),
            degraded: self.degraded(),
        }));
    }
}
