//! The simulated bus: messages are lost, delayed, repeated and reordered.

use bytes::Bytes;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::fact::StreamState;
use millrace_wire::ids::*;
use millrace_wire::message::announce::{EpochAnnouncement, SessionAnnouncement};
use millrace_wire::message::control::{LeaseReply, ReleaseRequest, RenewRequest, SealReport};
use millrace_wire::message::job::{Bid, GrantOrder, Heartbeat, Offer};
use millrace_wire::message::repair::{RepairReply, RepairRequest};
use rand::Rng;

use super::world::World;

/// A node that receives messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Session(usize),
    Worker(usize),
    Edge(usize),
    Control,
}

/// A message of the protocol, or the result of a request.
#[derive(Debug, Clone)]
pub enum Msg {
    Media(Bytes),
    Fact(Bytes),
    Epoch(EpochAnnouncement),
    Announce(SessionAnnouncement),
    Offer(Offer),
    Bid(Bid),
    Order(NodeId, Box<GrantOrder>),
    Heartbeat(Heartbeat),
    AskMedia(Epoch, RepairRequest, usize),
    MediaReply(Epoch, RepairReply),
    AskFacts((Epoch, Generation), RepairRequest, To),
    FactReply((Epoch, Generation), RepairReply),
    AskSnapshot(To),
    Snapshot(Box<StreamState>),
    Loopback,
    Renew(RenewRequest, usize),
    Release(ReleaseRequest, usize),
    Renewed(LeaseReply),
    Released(LeaseReply),
    Kick(CloseReason),
    Report(SealReport, usize),
    Reported(Epoch),
    Stored(usize, (Epoch, Generation), Rendition, Msn),
}

impl World {
    /// Sends a message to one node. Results from the store and a session's probe to itself are not lost.
    pub fn send(&mut self, to: To, msg: Msg) {
        let lossless = matches!(msg, Msg::Stored(..) | Msg::Loopback);
        if !lossless && self.rng.random_bool(self.loss) {
            return;
        }
        let copies = if !lossless && self.rng.random_bool(self.loss / 2.0) { 2 } else { 1 };
        for _ in 0..copies {
            let late = if self.rng.random_bool(self.loss) { 200 } else { 8 };
            let at = self.now + 1 + self.rng.random_range(0..late);
            self.order += 1;
            self.queue.insert((at, self.order), (to, msg.clone()));
        }
        assert!(self.queue.len() < 100_000, "messages pile up");
    }

    /// Sends a message to each of these nodes.
    pub fn all(&mut self, to: &[To], msg: &Msg) {
        for t in to {
            self.send(*t, msg.clone());
        }
    }

    pub fn workers(&self) -> Vec<To> {
        (0..self.workers.len()).map(To::Worker).collect()
    }

    pub fn log_writers(&self) -> Vec<To> {
        [self.workers(), vec![To::Control]].concat()
    }

    pub fn edge_nodes(&self) -> Vec<To> {
        (0..self.edges.len()).map(To::Edge).collect()
    }

    pub fn live_sessions(&self) -> Vec<To> {
        (0..self.sessions.len()).filter(|i| self.sessions[*i].up).map(To::Session).collect()
    }

    pub fn snapshot_holders(&self) -> Vec<To> {
        [self.workers(), self.edge_nodes(), self.live_sessions(), vec![To::Control]].concat()
    }
}
