//! The inputs and the outputs of a job, and what its packager makes.

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_wire::fact::{MediaDuration, Part, RenditionGap, Segment, TrackInfo};
use millrace_wire::ids::{InitVersion, Msn, Rendition, RungId};
use millrace_wire::message::announce::{EpochAnnouncement, IndexFact, SessionAnnouncement};
use millrace_wire::message::control::SealReport;
use millrace_wire::message::job::Heartbeat;
use millrace_wire::message::media::{MediaMessage, MediaUnit};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use crate::log::writer::EncodedMessage;

/// Something that a rung made of the media. The job knows rungs and renditions by name only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packaged {
    /// An initialisation section. It comes before anything that needs it, and may come again with a higher bandwidth.
    Init {
        /// The rendition that the section initialises.
        rendition: Rendition,
        /// Its version within the epoch.
        version: InitVersion,
        /// Codec, dimensions and bandwidth, for the multivariant playlist.
        info: TrackInfo,
        /// The bytes of the section.
        bytes: Bytes,
    },
    /// The rendition's PART-TARGET, before its first part.
    PartTarget {
        /// The rendition it holds for.
        rendition: Rendition,
        /// The PART-TARGET of the playlist's EXT-X-PART-INF.
        target: MediaDuration,
    },
    /// A part and its bytes.
    Part(Part, ByteChain),
    /// A segment is complete; its bytes are those of its parts.
    Segment(Segment),
    /// The rendition has no media for this segment, because its encoder failed; the other renditions are not affected.
    /// Parts of the segment that were made before stay listed.
    Gap(RenditionGap),
    /// The rendition ends for good; the other renditions go on.
    RenditionEnd {
        /// The rendition that is over.
        rendition: Rendition,
        /// The last segment that its playlist lists.
        last: Msn,
    },
    /// The rung has handed in everything that [`Output::Flush`] asked it for.
    Flushed,
}

/// An input of a job.
#[derive(Debug)]
pub enum Input {
    /// A message from the `media` or `repair.media` subject.
    Media(MediaMessage),
    /// The session's reply to [`Output::AskMedia`].
    MediaReply(RepairReply),
    /// A product of a rung, made at once or later.
    Packaged(RungId, Packaged),
    /// The object of an [`Output::Upload`] is stored.
    Stored(Rendition, Msn),
    /// An announcement of control, from `epoch.{stream}`.
    Epoch(EpochAnnouncement),
    /// An announcement of the session, from `session.{stream}`.
    Session(SessionAnnouncement),
    /// The session has revoked the grant.
    Revoked,
    /// The node drains: the session is asked for a successor.
    Leave,
    /// The session has a successor: the job stops announcing, and reports it in its heartbeat.
    Quiesce,
    /// Control has recorded the report.
    Reported,
    /// Time has passed; nothing else has happened.
    Tick,
}

/// An output of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Publish on `live`, `digest` or `repair.live`.
    Publish(EncodedMessage),
    /// Hand these units to the rungs, whose decoders go on from them: none of them is packaged.
    PreRoll(Vec<MediaUnit>),
    /// Some of the units that decoders were to begin with are missing: encoded renditions may begin with a click, or lack
    /// the segments up to the next keyframe.
    PreRollMissing,
    /// Hand the message to every rung, in this order.
    Package(MediaMessage),
    /// Have the rung drop its open segments, because media are lost for good, and start anew with the next message.
    RestartRung(RungId),
    /// Have the rung close its open segments as they are and hand everything in, then [`Packaged::Flushed`].
    Flush(RungId),
    /// Send a request on `ring.media`, and hand the reply in.
    AskMedia(RepairRequest),
    /// Publish the message on the heartbeat subject.
    Heartbeat(Heartbeat),
    /// Store an initialisation section under its name.
    UploadInit(Rendition, InitVersion, Bytes),
    /// Store a segment under this generation's name, then hand in [`Input::Stored`].
    Upload(Segment, ByteChain),
    /// Publish the entry on `index.{stream}` and wait for its acknowledgement.
    Index(IndexFact),
    /// Send a request on `control.sealed`, and hand in [`Input::Reported`] when it is answered.
    Report(SealReport),
    /// Another generation has taken over: nothing is announced any more.
    Superseded,
    /// Drop the job: everything is stored and reported.
    Done,
}
