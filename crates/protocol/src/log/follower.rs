//! A follower of one log: it puts facts in order, has missing ones repeated, and folds them.

use millrace_wire::fact::{Fact, FactMessage, Origin, StreamState};
use millrace_wire::ids::{Epoch, FactSeq, Generation};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::log::repair::GapTracker;
use crate::state::apply;
use crate::time::Millis;

/// Folds the log of one (epoch, generation), from fact 0 or from a snapshot of it.
#[derive(Debug)]
pub struct LogFollower {
    epoch: Epoch,
    generation: Generation,
    state: Option<StreamState>,
    tracker: GapTracker<Fact>,
    wants_snapshot: bool,
}

impl LogFollower {
    /// Creates a follower that expects the log from fact 0; `seed` spreads its repair requests.
    pub fn new(now: Millis, epoch: Epoch, generation: Generation, seed: u64) -> Self {
        let tracker = GapTracker::new(now, 0, seed);
        Self { epoch, generation, state: None, tracker, wants_snapshot: false }
    }

    /// Returns the epoch and generation of the followed log.
    pub fn log(&self) -> (Epoch, Generation) {
        (self.epoch, self.generation)
    }

    /// Returns the folded state; `None` until fact 0 or a snapshot has come.
    pub fn state(&self) -> Option<&StreamState> {
        self.state.as_ref()
    }

    /// Returns the number of facts that are known to exist and are not folded yet.
    pub fn lag(&self) -> u64 {
        self.tracker.lag()
    }

    /// Takes a fact, dropping those of other logs. True if the state changed.
    pub fn on_fact(&mut self, now: Millis, message: &FactMessage) -> bool {
        if (message.epoch, message.generation) != self.log() {
            return false;
        }
        self.tracker.receive(now, message.seq.0, message.fact.clone());
        self.fold()
    }

    /// Takes a snapshot of the followed log that is newer than the folded state. True if it was one.
    pub fn on_snapshot(&mut self, snapshot: &StreamState) -> bool {
        let is_own = (snapshot.epoch, snapshot.generation) == self.log() && snapshot.origin == Origin::Log;
        if !is_own || self.state.as_ref().is_some_and(|state| state.seq >= snapshot.seq) {
            return false;
        }
        self.state = Some(snapshot.clone());
        self.wants_snapshot = false;
        self.tracker.skip_to(snapshot.seq.0 + 1);
        self.fold();
        true
    }

    /// Takes the writer's reply to a repair request.
    pub fn on_repair_reply(&mut self, now: Millis, reply: &RepairReply) {
        self.tracker.learn_head(now, reply.next);
        // Facts that have left the writer's replay buffer are part of its snapshot.
        if reply.oldest.unwrap_or(reply.next) > self.tracker.next_seq() {
            self.wants_snapshot = true;
        }
    }

    /// True, once, if the log can no longer be had from its writer's replay buffer, so that a snapshot is needed.
    pub fn take_wants_snapshot(&mut self) -> bool {
        std::mem::take(&mut self.wants_snapshot)
    }

    /// Returns the repair request to send to the writer now, if one is due.
    pub fn poll_request(&mut self, now: Millis) -> Option<RepairRequest> {
        self.tracker.poll_request(now)
    }

    /// Returns when to call [`LogFollower::poll_request`] again.
    pub fn next_timeout(&self) -> Millis {
        self.tracker.next_timeout()
    }

    fn fold(&mut self) -> bool {
        let mut changed = false;
        while let Some((seq, fact)) = self.tracker.pop() {
            match (&mut self.state, &fact) {
                (Some(state), fact) => apply::apply(state, FactSeq(seq), fact),
                (None, Fact::Takeover { base }) => {
                    self.state = Some(apply::takeover(self.epoch, self.generation, base));
                }
                // A log that does not begin with its base cannot be folded; a snapshot may still come.
                (None, _) => self.wants_snapshot = true,
            }
            changed = true;
        }
        changed
    }
}
