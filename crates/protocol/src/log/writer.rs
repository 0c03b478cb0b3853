//! The author of one log: numbers facts, folds them, keeps them for repair.

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_wire::fact::{EncodedFact, Fact, StreamState};
use millrace_wire::fragment::{FragmentError, Position};
use millrace_wire::ids::{Epoch, FactSeq, Generation, Msn};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::Millis;
use crate::log::repair::{RepairLimits, Retransmitter};
use crate::log::replay_buffer::{ReplayBuffer, ReplayLimits};
use crate::state::apply;

/// EncodedMessage to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodedMessage {
    /// New: on the live subject.
    Live(Vec<Bytes>),
    /// The same fact without its bytes: on the digest subject. Of a worker only: nobody supervises control.
    Digest(Vec<Bytes>),
    /// Again: on the repair subject.
    Retransmit(Vec<Bytes>),
}

/// Writes one log. Workers author through [`crate::job::WorkerJob`]; control uses this directly when it closes a
/// broadcast that has no worker: epoch from control, generation 1, a snapshot as base, then [`Fact::End`].
#[derive(Debug)]
pub struct LogWriter {
    epoch: Epoch,
    generation: Generation,
    view: StreamState,
    /// By the segment whose bytes a fact carries; 0 without.
    ring: ReplayBuffer<Msn>,
    repairer: Retransmitter,
    max_payload: usize,
    out: VecDeque<EncodedMessage>,
}

impl LogWriter {
    /// Opens the log with fact 0, the takeover of `base`. `max_payload` is the bus's.
    pub fn open(
        now: Millis,
        (epoch, generation): (Epoch, Generation),
        base: StreamState,
        max_payload: usize,
    ) -> Result<Self, FragmentError> {
        let view = apply::takeover(epoch, generation, &base);
        let mut ring = ReplayBuffer::new(ReplayLimits::FACTS);
        ring.pin(now, Some(0));
        let mut author = Self {
            epoch,
            generation,
            view,
            ring,
            repairer: Retransmitter::new(now, RepairLimits::default()),
            max_payload,
            out: VecDeque::new(),
        };
        author.announce(now, &Fact::Takeover { base: Box::new(base) }, Bytes::new())?;
        Ok(author)
    }
    /// The log's folded state.
    pub fn view(&self) -> &StreamState {
        &self.view
    }
    /// The number the next fact will have.
    pub fn next_seq(&self) -> FactSeq {
        FactSeq(self.ring.next_seq())
    }
    /// Appends a fact with its payload.
    pub fn announce(&mut self, now: Millis, fact: &Fact, payload: Bytes) -> Result<(), FragmentError> {
        self.announce_chain(now, fact, &payload.into()).map(drop)
    }
    /// Appends a fact with its payload; returns the payload as the ring holds it.
    pub fn announce_chain(
        &mut self,
        now: Millis,
        fact: &Fact,
        payload: &ByteChain,
    ) -> Result<ByteChain, FragmentError> {
        let seq = self.next_seq();
        let at = Position { epoch: self.epoch, generation: self.generation, seq: seq.0 };
        let EncodedFact { frames, digest, payload } = EncodedFact::new(at, fact, payload, self.max_payload)?;
        apply::apply(&mut self.view, seq, fact);
        let tag = if let Fact::Part(part) = fact { part.msn } else { Msn(0) };
        self.ring.push(now, tag, frames.clone());
        self.out.push_back(EncodedMessage::Live(frames));
        self.out.push_back(EncodedMessage::Digest(digest));
        Ok(payload)
    }
    /// Bytes of segments from `oldest` on are not in the store yet: readers can have them from here only.
    pub fn keep_from(&mut self, now: Millis, oldest: Msn) {
        let seq = self.ring.find(|msn| *msn >= oldest).unwrap_or(self.ring.next_seq());
        self.ring.pin(now, Some(seq));
    }
    /// Takes a repair request; gives the reply. Repeated frames come out of [`LogWriter::poll_output`].
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
                self.out.push_back(EncodedMessage::Retransmit(frames.to_vec()));
            }
        }
    }
    /// Next frames to publish.
    pub fn poll_output(&mut self) -> Option<EncodedMessage> {
        self.out.pop_front()
    }
    /// When to call [`LogWriter::tick`].
    pub fn next_timeout(&self) -> Option<Millis> {
        self.repairer.next_timeout()
    }
}
