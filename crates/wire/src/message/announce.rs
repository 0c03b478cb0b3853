//! Announcements that readers adopt: epochs from control, generations from the publisher's session.

use serde::{Deserialize, Serialize};

use crate::ids::{
    BroadcastId, DiscontinuitySeq, Epoch, Generation, Msn, NodeId, PlaybackId, SessionId, StreamId,
};
use crate::topic::Message;

/// Published by control on `epoch.{stream}` on every change, and again about every second while it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochAnnouncement {
    /// The livestream that this is about.
    pub stream: StreamId,
    /// The livestream's id in viewers' URLs.
    pub playback: PlaybackId,
    /// The broadcast that the epoch belongs to.
    pub broadcast: BroadcastId,
    /// The newest epoch of the livestream.
    pub epoch: Epoch,
    /// Its publisher session; `None` if control itself writes the epoch's log.
    pub session: Option<SessionId>,
    /// The phase of the epoch, which its log writer follows.
    pub phase: EpochPhase,
}

impl Message for EpochAnnouncement {}

/// The phase of the newest epoch of a stream.
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
    /// The livestream that this is about.
    pub stream: StreamId,
    /// The epoch of the publisher session.
    pub epoch: Epoch,
    /// The publisher session that announces this.
    pub session: SessionId,
    /// The generation whose log readers follow; `None` before the first grant.
    pub generation: Option<Generation>,
    /// The worker that the generation is granted to.
    pub worker: Option<NodeId>,
    /// The reason the stream runs with less than it should; `None` if all is well.
    pub degraded: Option<Degraded>,
}

impl Message for SessionAnnouncement {}

/// The reason a stream runs with less than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degraded {
    /// No worker has capacity; the job waits in the backlog.
    NoCapacity,
    /// The ring overflowed before media were stored: some segments are GAPs.
    MediaLost,
    /// No worker has the capacity to encode: the source's own rendition alone is delivered until one has.
    CopyOnly,
    /// The encoded renditions fail one time after the other: they are GAPs, and are tried again.
    EncodersFailing,
    /// The worker is slower than the source: the highest encoded renditions are left out until it keeps up.
    RungsShed,
}

impl Degraded {
    /// Returns the text that an operator reads.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoCapacity => "degraded: no capacity",
            Self::MediaLost => "degraded: media lost",
            Self::CopyOnly => "degraded: no capacity to encode; only the source's own quality is delivered",
            Self::EncodersFailing => {
                "degraded: the encoders fail on this source; the encoded qualities are missing and are tried again"
            }
            Self::RungsShed => "degraded: encoding is too slow; the highest encoded qualities are left out",
        }
    }
}

/// Kept on `index.{stream}` once a segment's object is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFact {
    /// The livestream that this is about.
    pub stream: StreamId,
    /// The broadcast that the epoch belongs to.
    pub broadcast: BroadcastId,
    /// The epoch that this is about.
    pub epoch: Epoch,
    /// The generation in the object's name.
    pub generation: Generation,
    /// The segment whose object is stored.
    pub segment: crate::fact::Segment,
}

impl Message for IndexFact {}

impl IndexFact {
    /// Returns an id that no other index fact has, so that a fact appended twice is kept once.
    pub fn id(&self) -> String {
        let Self { stream, epoch, generation, segment, .. } = self;
        format!("{stream}-{epoch}-{generation}-{}-{}", segment.rendition, segment.msn)
    }
}
