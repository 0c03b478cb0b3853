//! The author of one log: numbers facts, folds them, keeps them for repair.

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_wire::fact::{Fact, FactMessage, Snapshot};
use millrace_wire::frame::FrameError;
use millrace_wire::ids::{Epoch, FactSeq, Generation};
use millrace_wire::repair::{RepairReply, RepairRequest};

use crate::Millis;
use crate::repair::{RepairLimits, Repairer};
use crate::ring::{Ring, RingLimits};
use crate::view;

/// Frames to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frames {
    /// New: on the live subject.
    Live(Vec<Bytes>),
    /// Again: on the repair subject.
    Repeat(Vec<Bytes>),
}

/// Writes one log. Workers author through [`crate::worker::WorkerJob`]; control uses this directly when it closes a
/// broadcast that has no worker: epoch from control, generation 1, a snapshot as base, then [`Fact::End`].
#[derive(Debug)]
pub struct Author {
    epoch: Epoch,
    generation: Generation,
    view: Snapshot,
    ring: Ring<()>,
    repairer: Repairer,
    max_payload: usize,
    out: VecDeque<Frames>,
}

impl Author {
    /// Opens the log with fact 0, the takeover of `base`. `max_payload` is the bus's.
    pub fn open(
        now: Millis,
        (epoch, generation): (Epoch, Generation),
        base: Snapshot,
        max_payload: usize,
    ) -> Result<Self, FrameError> {
        let view = view::takeover(epoch, generation, &base);
        let mut author = Self {
            epoch,
            generation,
            view,
            ring: Ring::new(RingLimits::FACTS),
            repairer: Repairer::new(now, RepairLimits::default()),
            max_payload,
            out: VecDeque::new(),
        };
        author.announce(now, Fact::Takeover { base: Box::new(base) }, Bytes::new())?;
        Ok(author)
    }
    /// The log's folded state.
    pub fn view(&self) -> &Snapshot {
        &self.view
    }
    /// The number the next fact will have.
    pub fn next_seq(&self) -> FactSeq {
        FactSeq(self.ring.next_seq())
    }
    /// Appends a fact with its payload.
    pub fn announce(&mut self, now: Millis, fact: Fact, payload: Bytes) -> Result<(), FrameError> {
        let seq = self.next_seq();
        let message = FactMessage { epoch: self.epoch, generation: self.generation, seq, fact, payload };
        let frames = message.encode(self.max_payload)?;
        view::apply(&mut self.view, seq, &message.fact);
        self.ring.push(now, (), frames.clone());
        self.out.push_back(Frames::Live(frames));
        Ok(())
    }
    /// Takes a repair request; gives the reply. Repeated frames come out of [`Author::poll_output`].
    pub fn repair(&mut self, now: Millis, request: &RepairRequest) -> RepairReply {
        self.repairer.request(now, request, self.ring.oldest(), self.ring.next_seq());
        self.tick(now);
        RepairReply { oldest: self.ring.oldest(), next: self.ring.next_seq() }
    }
    /// Repeats what the budget allows.
    pub fn tick(&mut self, now: Millis) {
        let ring = &self.ring;
        let len = |seq| ring.get(seq).map(|f| f.iter().map(|b| b.len() as u64).sum());
        while let Some(seq) = self.repairer.poll(now, len) {
            if let Some(frames) = ring.get(seq) {
                self.out.push_back(Frames::Repeat(frames.to_vec()));
            }
        }
    }
    /// Next frames to publish.
    pub fn poll_output(&mut self) -> Option<Frames> {
        self.out.pop_front()
    }
    /// When to call [`Author::tick`].
    pub fn next_timeout(&self) -> Option<Millis> {
        self.repairer.next_timeout()
    }
}
