//! Announcements that readers adopt: epochs from control, generations from the publisher's session.

use serde::{Deserialize, Serialize};

use crate::ids::{
    BroadcastId, DiscontinuitySeq, Epoch, Generation, Msn, NodeId, PlaybackId, SessionId, StreamId,
};
use crate::topic::Message;

/// Published by control on `epoch.{stream}` on every change, and again about every second while it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochAnnouncement {
    /// Stream.
    pub stream: StreamId,
    /// Its public id.
    pub playback: PlaybackId,
    /// Broadcast.
    pub broadcast: BroadcastId,
    /// Newest epoch.
    pub epoch: Epoch,
    /// Its publisher's session; `None` when control itself authors the epoch.
    pub session: Option<SessionId>,
    /// What the epoch's author is to do.
    pub phase: EpochPhase,
}

impl Message for EpochAnnouncement {}

/// Phase of the newest epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum EpochPhase {
    /// A publisher is (or is about to be) sending.
    Open,
    /// The publisher is away, its return is awaited. The author closes the open segment, seals, reports it, and
    /// appends GAP segments up to `gaps_through`: control has recorded these numbers as used.
    Away {
        /// Highest number the author may use for a GAP; `None`: none.
        gaps_through: Option<Msn>,
        /// Discontinuity sequence number of these GAPs.
        discontinuity_sequence: DiscontinuitySeq,
    },
    /// The broadcast is over: the author seals, appends ENDLIST and reports it.
    Ended,
}

/// Published by the session on `session.{stream}` on every change, and again about every second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionAnnouncement {
    /// Stream.
    pub stream: StreamId,
    /// The session's epoch.
    pub epoch: Epoch,
    /// Its session.
    pub session: SessionId,
    /// The generation that holds the authorship; `None` before the first grant.
    pub generation: Option<Generation>,
    /// The worker it is granted to.
    pub worker: Option<NodeId>,
    /// Why the stream has no author, if it has none.
    pub degraded: Option<Degraded>,
}

impl Message for SessionAnnouncement {}

/// Why a stream runs with less than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degraded {
    /// No worker has capacity; the job waits in the backlog.
    NoCapacity,
    /// The ring overflowed before media were stored: some segments are GAPs.
    MediaLost,
}

impl Degraded {
    /// The text an operator reads.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoCapacity => "degraded: no capacity",
            Self::MediaLost => "degraded: media lost",
        }
    }
}

/// Kept on `index.{stream}` once a segment's object is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFact {
    /// Stream.
    pub stream: StreamId,
    /// Broadcast.
    pub broadcast: BroadcastId,
    /// Epoch.
    pub epoch: Epoch,
    /// Generation in the object's name.
    pub generation: Generation,
    /// The segment.
    pub segment: crate::fact::Segment,
}

impl Message for IndexFact {}

impl IndexFact {
    /// What tells this fact from every other: said twice it is kept once.
    pub fn id(&self) -> String {
        let Self { stream, epoch, generation, segment, .. } = self;
        format!("{stream}-{epoch}-{generation}-{}-{}", segment.rendition, segment.msn)
    }
}
