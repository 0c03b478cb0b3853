//! The author of one log: numbers facts, folds them, keeps them for repair.

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_wire::fact::{EncodedFact, Fact, Snapshot};
use millrace_wire::frame::{FrameError, Position};
use millrace_wire::ids::{Epoch, FactSeq, Generation, Msn};
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
    /// The same fact without its bytes: on the digest subject. Of a worker only: nobody supervises control.
    Digest(Vec<Bytes>),
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
    /// By the segment whose bytes a fact carries; 0 without.
    ring: Ring<Msn>,
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
        let mut ring = Ring::new(RingLimits::FACTS);
        ring.pin(now, Some(0));
        let mut author = Self {
            epoch,
            generation,
            view,
            ring,
            repairer: Repairer::new(now, RepairLimits::default()),
            max_payload,
            out: VecDeque::new(),
        };
        author.announce(now, &Fact::Takeover { base: Box::new(base) }, Bytes::new())?;
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
    pub fn announce(&mut self, now: Millis, fact: &Fact, payload: Bytes) -> Result<(), FrameError> {
        self.announce_pieces(now, fact, &[payload]).map(drop)
    }
    /// Appends a fact whose payload is `pieces` one after the other; gives the payload as the ring holds it.
    pub fn announce_pieces(
        &mut self,
        now: Millis,
        fact: &Fact,
        pieces: &[Bytes],
    ) -> Result<Vec<Bytes>, FrameError> {
        let seq = self.next_seq();
        let at = Position { epoch: self.epoch, generation: self.generation, seq: seq.0 };
        let EncodedFact { frames, digest, payload } = EncodedFact::new(at, fact, pieces, self.max_payload)?;
        view::apply(&mut self.view, seq, fact);
        let tag = if let Fact::Part(part) = fact { part.msn } else { Msn(0) };
        self.ring.push(now, tag, frames.clone());
        self.out.push_back(Frames::Live(frames));
        self.out.push_back(Frames::Digest(digest));
        Ok(payload)
    }
    /// Bytes of segments from `oldest` on are not in the store yet: readers can have them from here only.
    pub fn keep_from(&mut self, now: Millis, oldest: Msn) {
        let seq = self.ring.find(|msn| *msn >= oldest).unwrap_or(self.ring.next_seq());
        self.ring.pin(now, Some(seq));
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
