//! What a job is told, by the packager too, and what it wants done.

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_wire::fact::{MediaDuration, Part, Segment, TrackInfo};
use millrace_wire::ids::{InitVersion, Msn, Rendition, RungId};
use millrace_wire::message::announce::{EpochAnnouncement, IndexFact, SessionAnnouncement};
use millrace_wire::message::control::SealReport;
use millrace_wire::message::job::Heartbeat;
use millrace_wire::message::media::MediaMessage;
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::log::writer::EncodedMessage;

/// The result of a rung's work: one item of what it made of the media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packaged {
    /// An initialisation section.
    Init {
        /// Rendition.
        rendition: Rendition,
        /// Version.
        version: InitVersion,
        /// Description.
        info: TrackInfo,
        /// Bytes.
        bytes: Bytes,
    },
    /// The rendition's PART-TARGET; before its first part.
    PartTarget {
        /// Rendition.
        rendition: Rendition,
        /// PART-TARGET.
        target: MediaDuration,
    },
    /// A part with its bytes.
    Part(Part, ByteChain),
    /// A segment is complete; its bytes are its parts'.
    Segment(Segment),
    /// The rung has handed in everything that [`Output::Flush`] asked it for.
    Flushed,
}

/// What a job is told.
#[derive(Debug)]
pub enum Input {
    /// From the `media` or `repair.media` subject.
    Media(MediaMessage),
    /// The session's reply to [`Output::AskMedia`].
    MediaReply(RepairReply),
    /// A rung made this, at once or later.
    Packaged(RungId, Packaged),
    /// The object of an [`Output::Upload`] is stored.
    Stored(Rendition, Msn),
    /// From `epoch.{stream}`.
    Epoch(EpochAnnouncement),
    /// From `session.{stream}`.
    Session(SessionAnnouncement),
    /// The grant was revoked.
    Revoked,
    /// The node drains: a successor is wanted.
    Leave,
    /// A successor is at hand: announce no more, and say so.
    Yield,
    /// Control has recorded the report.
    Reported,
    /// Nothing but time.
    Tick,
}

/// What a job wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Publish on `live` or `repair.live`.
    Publish(EncodedMessage),
    /// Hand the message to every rung, in this order.
    Package(MediaMessage),
    /// Media are lost for good: the rung drops its open segments and starts again with the next message.
    RestartRung(RungId),
    /// The rung closes its open segments as they are, hands everything in, then [`Packaged::Flushed`], at once or later.
    Flush(RungId),
    /// Request on `ring.media`; hand the reply in.
    AskMedia(RepairRequest),
    /// Publish on the heartbeat subject.
    Heartbeat(Heartbeat),
    /// Store an init section.
    UploadInit(Rendition, InitVersion, Bytes),
    /// Store a segment under this generation's name; [`Input::Stored`] when it is.
    Upload(Segment, ByteChain),
    /// Publish on `index.{stream}`, acknowledged.
    Index(IndexFact),
    /// Request on `control.sealed`; [`Input::Reported`] when answered.
    Report(SealReport),
    /// Superseded: nothing is announced any more.
    Superseded,
    /// Everything is stored and reported: drop the job.
    Done,
}
