//! Following one author's log: order, repair, fold.

use millrace_wire::fact::{Fact, FactMessage, StreamState};
use millrace_wire::ids::{Epoch, FactSeq, Generation};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::Millis;
use crate::log::repair::GapTracker;
use crate::state::apply;

/// Folds the log of one (epoch, generation) from fact 0 or from a snapshot.
#[derive(Debug)]
pub struct LogFollower {
    epoch: Epoch,
    generation: Generation,
    view: Option<StreamState>,
    tracker: GapTracker<Fact>,
    wants_snapshot: bool,
}

impl LogFollower {
    /// Expects the log from fact 0.
    pub fn new(now: Millis, epoch: Epoch, generation: Generation, seed: u64) -> Self {
        let tracker = GapTracker::new(now, 0, seed);
        Self { epoch, generation, view: None, tracker, wants_snapshot: false }
    }
    /// The log followed.
    pub fn log(&self) -> (Epoch, Generation) {
        (self.epoch, self.generation)
    }
    /// The folded state, once fact 0 or a snapshot has come.
    pub fn view(&self) -> Option<&StreamState> {
        self.view.as_ref()
    }
    /// Facts known to exist and not folded.
    pub fn lag(&self) -> u64 {
        self.tracker.lag()
    }
    /// Takes a fact; gives whether the state changed. Another log's facts are dropped.
    pub fn receive(&mut self, now: Millis, message: &FactMessage) -> bool {
        if (message.epoch, message.generation) != self.log() {
            return false;
        }
        self.tracker.receive(now, message.seq.0, message.fact.clone());
        self.fold()
    }
    /// Takes a snapshot of the same log; gives whether the state changed.
    pub fn snapshot(&mut self, snapshot: &StreamState) -> bool {
        let newer = self.view.as_ref().is_none_or(|v| v.seq < snapshot.seq);
        if (snapshot.epoch, snapshot.generation) != self.log() || !newer {
            return false;
        }
        self.view = Some(snapshot.clone());
        self.wants_snapshot = false;
        self.tracker.skip_to(snapshot.seq.0 + 1);
        self.fold();
        true
    }
    /// Takes the author's answer to a repair request.
    pub fn reply(&mut self, now: Millis, reply: &RepairReply) {
        self.tracker.learn_head(now, reply.next);
        // What the author no longer holds is part of its snapshot.
        if reply.oldest.unwrap_or(reply.next) > self.tracker.next_seq() {
            self.wants_snapshot = true;
        }
    }
    /// The log can no longer be had from its ring: a snapshot is needed. Says so once.
    pub fn take_wants_snapshot(&mut self) -> bool {
        std::mem::take(&mut self.wants_snapshot)
    }
    /// What to ask the author for now.
    pub fn poll_request(&mut self, now: Millis) -> Option<RepairRequest> {
        self.tracker.poll_request(now)
    }
    /// When to poll again.
    pub fn next_timeout(&self) -> Millis {
        self.tracker.next_timeout()
    }

    fn fold(&mut self) -> bool {
        let mut changed = false;
        while let Some((seq, fact)) = self.tracker.pop() {
            match (&mut self.view, &fact) {
                (Some(view), fact) => apply::apply(view, FactSeq(seq), fact),
                (None, Fact::Takeover { base }) => {
                    self.view = Some(apply::takeover(self.epoch, self.generation, base));
                }
                // A log that does not begin with its base cannot be folded; a snapshot may still come.
                (None, _) => self.wants_snapshot = true,
            }
            changed = true;
        }
        changed
    }
}
