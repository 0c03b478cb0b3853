//! The writer of one log: it numbers facts, folds them, and repeats them on request.

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_wire::fact::{EncodedFact, Fact, StreamState};
use millrace_wire::fragment::{FragmentError, Position};
use millrace_wire::ids::{Epoch, FactSeq, Generation, Msn};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::log::repair::{RepairLimits, Retransmitter};
use crate::log::replay_buffer::{ReplayBuffer, ReplayLimits};
use crate::state::apply;
use crate::time::Millis;

/// The fragments of one fact, and the kind of subject they are published on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodedMessage {
    /// A new fact, for the live subject.
    Live(Vec<Bytes>),
    /// The same fact without its payload, for the digest subject. Only a worker's log is followed by a session.
    Digest(Vec<Bytes>),
    /// A repeated fact, for the repair subject.
    Retransmit(Vec<Bytes>),
}

/// The writer of the log of one (epoch, generation). A worker writes through [`crate::job::WorkerJob`], control through
/// [`crate::takeover::OrphanLog`].
#[derive(Debug)]
pub struct LogWriter {
    epoch: Epoch,
    generation: Generation,
    state: StreamState,
    /// Facts by the segment whose bytes they carry; segment 0 without any.
    replay: ReplayBuffer<Msn>,
    retransmitter: Retransmitter,
    max_payload: usize,
    out: VecDeque<EncodedMessage>,
}

impl LogWriter {
    /// Opens the log with fact 0, the takeover of `base`. `max_payload` is the bus's largest message in bytes.
    pub fn open(
        now: Millis,
        (epoch, generation): (Epoch, Generation),
        base: StreamState,
        max_payload: usize,
    ) -> Result<Self, FragmentError> {
        let state = apply::takeover(epoch, generation, &base);
        let mut replay = ReplayBuffer::new(ReplayLimits::FACTS);
        replay.pin(now, Some(0));
        let mut writer = Self {
            epoch,
            generation,
            state,
            replay,
            retransmitter: Retransmitter::new(now, RepairLimits::default()),
            max_payload,
            out: VecDeque::new(),
        };
        writer.announce(now, &Fact::Takeover { base: Box::new(base) }, Bytes::new())?;
        Ok(writer)
    }

    /// Returns the folded state of the log.
    pub fn state(&self) -> &StreamState {
        &self.state
    }

    /// Returns the number that the next fact will have.
    pub fn next_seq(&self) -> FactSeq {
        FactSeq(self.replay.next_seq())
    }

    /// Appends a fact with its payload.
    pub fn announce(&mut self, now: Millis, fact: &Fact, payload: Bytes) -> Result<(), FragmentError> {
        self.announce_chain(now, fact, &payload.into()).map(drop)
    }

    /// Appends a fact with its payload. Returns the payload as the replay buffer holds it: a caller that keeps it has the
    /// media in memory once.
    pub fn announce_chain(
        &mut self,
        now: Millis,
        fact: &Fact,
        payload: &ByteChain,
    ) -> Result<ByteChain, FragmentError> {
        let seq = self.next_seq();
        let position = Position { epoch: self.epoch, generation: self.generation, seq: seq.0 };
        let encoded = EncodedFact::new(position, fact, payload, self.max_payload)?;
        let EncodedFact { frames, digest, payload } = encoded;
        apply::apply(&mut self.state, seq, fact);
        let segment = match fact {
            Fact::Part(part) => part.msn,
            Fact::Segment(segment) if !payload.is_empty() => segment.msn,
            _ => Msn(0),
        };
        self.replay.push(now, segment, frames.clone());
        self.out.push_back(EncodedMessage::Live(frames));
        self.out.push_back(EncodedMessage::Digest(digest));
        Ok(payload)
    }

    /// Keeps the facts from the first bytes of segment `oldest` on: its object is not stored, so readers can have its bytes
    /// from this replay buffer only.
    pub fn pin_from_segment(&mut self, now: Millis, oldest: Msn) {
        let seq = self.replay.find(|msn| *msn >= oldest).unwrap_or(self.replay.next_seq());
        self.replay.pin(now, Some(seq));
    }

    /// Takes a repair request and returns the reply. The repeated facts come out of [`LogWriter::poll_output`].
    pub fn repair(&mut self, now: Millis, request: &RepairRequest) -> RepairReply {
        self.retransmitter.on_request(now, request, self.replay.oldest(), self.replay.next_seq());
        self.retransmit(now);
        RepairReply { oldest: self.replay.oldest(), next: self.replay.next_seq() }
    }

    /// Repeats as many requested facts as the repair budget allows.
    pub fn retransmit(&mut self, now: Millis) {
        while let Some(fragments) = self.retransmitter.poll_from(now, &self.replay) {
            self.out.push_back(EncodedMessage::Retransmit(fragments));
        }
    }

    /// Removes and returns the next message to publish.
    pub fn poll_output(&mut self) -> Option<EncodedMessage> {
        self.out.pop_front()
    }

    /// Returns when to call [`LogWriter::retransmit`]; `None` if nothing is to be repeated.
    pub fn next_timeout(&self) -> Option<Millis> {
        self.retransmitter.next_timeout()
    }
}
