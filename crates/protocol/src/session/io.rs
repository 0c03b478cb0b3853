//! What a session is made from, what it is told, and what it wants done.

use bytes::Bytes;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::fact::{FactMessage, StreamState};
use millrace_wire::ids::{Epoch, Generation, NodeId, SessionId, UnixMillis};
use millrace_wire::message::announce::SessionAnnouncement;
use millrace_wire::message::control::{ClaimGrant, LeaseReply, ReleaseRequest, RenewRequest};
use millrace_wire::message::job::{Bid, GrantOrder, Heartbeat, Offer};
use millrace_wire::message::media::MediaUnit;
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::log::repair::RepairLimits;
use crate::log::replay_buffer::ReplayLimits;

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
    pub ring: ReplayLimits,
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
    Snapshot(Box<StreamState>),
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
    Retransmit(Vec<Bytes>),
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
