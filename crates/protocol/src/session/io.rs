//! The configuration, the inputs and the outputs of a session.

use bytes::Bytes;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::fact::{FactMessage, StreamState};
use millrace_wire::ids::{Epoch, Generation, NodeId, SessionId, UnixMillis};
use millrace_wire::message::announce::SessionAnnouncement;
use millrace_wire::message::control::{ClaimGrant, HealthNote, LeaseReply, ReleaseRequest, RenewRequest};
use millrace_wire::message::job::{Bid, GrantOrder, Heartbeat, Offer};
use millrace_wire::message::media::MediaUnit;
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::log::repair::RepairLimits;
use crate::log::replay_buffer::ReplayLimits;

/// The configuration of a session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The claim of the stream key that control granted.
    pub claim: ClaimGrant,
    /// The id under which the session claimed the key.
    pub session: SessionId,
    /// Wall clock of the first sample.
    pub program_date_time: UnixMillis,
    /// GAP segments to list below the first one in an empty window.
    pub lead_gaps: u32,
    /// Cost units of the job.
    pub cost: u64,
    /// The bus's largest message in bytes.
    pub max_payload: usize,
    /// Bounds of the media that are kept for repair.
    pub replay: ReplayLimits,
    /// Bounds of the media that are repeated.
    pub repair: RepairLimits,
    /// Spreads the repair requests of different sessions.
    pub seed: u64,
}

/// An input of a session.
#[derive(Debug)]
pub enum Input {
    /// Tagged media units, to be published as one message.
    Media(Vec<MediaUnit>),
    /// The publisher has left, for this reason; the text is the reason in words, empty for the reason's own.
    PublisherGone(CloseReason, String),
    /// The conditions of the media that last now; they replace the ones before.
    Health(Vec<HealthNote>),
    /// A worker's bid, from `jobs.bid.{session}`.
    Bid(Bid),
    /// A worker's heartbeat, from the heartbeat subject.
    Heartbeat(Heartbeat),
    /// A message from `jobs.free`: a worker has free capacity again.
    WorkerFree,
    /// A fact of a followed log.
    Fact(FactMessage),
    /// One of the replies to [`Output::AskSnapshot`].
    Snapshot(Box<StreamState>),
    /// The log writer's reply to [`Output::AskFacts`].
    FactReply(Epoch, Generation, RepairReply),
    /// The session's own probe ([`Output::Loopback`]) came back.
    Loopback,
    /// Control's reply to [`Output::Renew`].
    Renewed(LeaseReply),
    /// Control's reply to [`Output::Release`].
    Released(LeaseReply),
    /// A message from `control.kick.{session}`: control ends the session, for this reason.
    Kick(CloseReason),
    /// Time has passed; nothing else has happened.
    Tick,
}

/// An output of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Publish these fragments on `media`.
    Media(Vec<Bytes>),
    /// Publish these fragments on `repair.media`.
    Retransmit(Vec<Bytes>),
    /// Publish the announcement on `session.{stream}`.
    Announce(SessionAnnouncement),
    /// Publish the offer on `jobs.offer`.
    Offer(Offer),
    /// Push to the backlog queue, which keeps one offer of an epoch.
    Backlog(Offer),
    /// Publish the order on `job.grant.{node}`.
    Order(NodeId, Box<GrantOrder>),
    /// Subscribe to this log, besides the one followed before.
    Follow(Epoch, Generation),
    /// Send a request on `ring.live` of this log, and hand the reply in.
    AskFacts(Epoch, Generation, RepairRequest),
    /// Send a request on `snap`, and hand every reply in.
    AskSnapshot,
    /// Publish the session's probe to itself on the loopback subject.
    Loopback,
    /// Send a request on `control.renew`, and hand the reply in.
    Renew(RenewRequest),
    /// Send a request on `control.release`, and hand the reply in.
    Release(ReleaseRequest),
    /// Close the publisher's connection, for this reason.
    Close(CloseReason),
    /// Drop the session: all its media are stored, or it has waited long enough.
    Done,
}
