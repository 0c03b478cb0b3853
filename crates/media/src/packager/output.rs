//! The outputs of the packager.

use bytes::Bytes;
use millrace_buf::ByteChain;

use super::timing::PartTiming;
use crate::frame::{TrackConfig, TrackKind};
use crate::time::Timescale;

/// One step of the packager's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An init segment, before the first part that needs it.
    Init(Init),
    /// The part timing in use from segment `from_msn` on. A replacement of this packager needs it.
    Timing {
        /// The first segment that it holds for.
        from_msn: u64,
        /// The timing to hand over unchanged.
        timing: PartTiming,
    },
    /// The head of a segment, before its first part.
    SegmentStart(SegmentStart),
    /// A part of the open segment.
    Part(Part),
    /// The end of a segment, whose bytes are those of its parts.
    SegmentEnd(SegmentEnd),
}

/// An init segment of one track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// The track that it initialises.
    pub track: TrackKind,
    /// Its version within the epoch.
    pub version: u32,
    /// The configuration that it was made of.
    pub config: TrackConfig,
    /// The file: `ftyp` and `moov`.
    pub bytes: Bytes,
}

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStart {
    /// The track that it is a segment of.
    pub track: TrackKind,
    /// Media sequence number of the segment.
    pub msn: u64,
    /// Decoding time of its first sample in ticks of `timescale`; of its boundary if it is a gap.
    pub start: i64,
    /// The timescale of the track's times.
    pub timescale: Timescale,
    /// True if it follows a discontinuity.
    pub discontinuity: bool,
    /// True if a decoder can start at its first sample.
    pub independent: bool,
    /// Version of the init segment that it needs.
    pub init_version: u32,
}

/// A partial segment, or part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The track that it is a part of.
    pub track: TrackKind,
    /// Media sequence number of its segment.
    pub msn: u64,
    /// Index within the segment, from 0.
    pub part: u32,
    /// True if a decoder can start at its first sample.
    pub independent: bool,
    /// True if the segment is known to end with it.
    pub last: bool,
    /// Decoding time of its first sample (`tfdt`) in ticks of `timescale`.
    pub start: i64,
    /// Sum of the samples' durations in ticks of `timescale`.
    pub duration: u32,
    /// The timescale of the track's times.
    pub timescale: Timescale,
    /// The number of samples in it.
    pub samples: u32,
    /// Its bytes: `moof`, the header of `mdat`, and the samples as they came in.
    pub body: ByteChain,
}

/// The end of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentEnd {
    /// The head that the segment began with.
    pub head: SegmentStart,
    /// Number of parts; 0 for a gap.
    pub parts: u32,
    /// Time from the first sample's start to the last one's end, in ticks of the head's timescale.
    /// For a gap, the time that it stands for.
    pub duration: u64,
    /// The number of bytes in all its parts.
    pub bytes: u64,
    /// True if the track has no media for it (EXT-X-GAP).
    pub gap: bool,
}
