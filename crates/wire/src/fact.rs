//! The log of facts: what an author announces and every reader folds.
//!
//! Facts are numbered from 0 per (epoch, generation). Number 0 is always [`Fact::Takeover`], whose snapshot is the
//! state the following facts apply to, so a log explains itself without its predecessors.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use millrace_buf::ByteChain;
use serde::{Deserialize, Serialize};

use crate::fragment::{self, FragmentError, FragmentReader, Fragmented, Kind, Position};
use crate::ids::{
    BroadcastId, DiscontinuitySeq, Epoch, FactSeq, Generation, InitVersion, Msn, PartIndex, Rendition,
    UnixMillis,
};

/// Largest encoded fact without its payload: a snapshot of the longest live window (see [`MAX_SLOTS`]) fits.
pub const MAX_FACT: usize = 4 << 20;
/// Most segments in the live window; longer DVR windows are read from the index.
pub const MAX_SLOTS: usize = 1024;

/// An exact duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MediaDuration {
    /// Ticks.
    pub ticks: u64,
    /// Ticks per second; never 0 in a valid fact.
    pub timescale: u32,
}

impl MediaDuration {
    /// Returns a duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self { ticks: seconds, timescale: 1 }
    }

    /// Whole milliseconds, as a duration in a 1/1000 s timescale.
    pub const fn from_millis(ms: u64) -> Self {
        Self { ticks: ms, timescale: 1000 }
    }
    /// Seconds, for rendering.
    pub fn as_secs_f64(self) -> f64 {
        self.ticks as f64 / f64::from(self.timescale.max(1))
    }
    /// Milliseconds, rounded down.
    pub fn as_millis(self) -> u64 {
        let ms = u128::from(self.ticks) * 1000 / u128::from(self.timescale.max(1));
        u64::try_from(ms).unwrap_or(u64::MAX)
    }
}

/// What kind of track a rendition is and what the multivariant playlist says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackInfo {
    /// Video or audio parameters.
    pub media: TrackMedia,
    /// RFC 6381 codec string (`avc1.64001f`, `mp4a.40.2`).
    pub codecs: String,
    /// Peak bits per second as declared (BANDWIDTH).
    pub bandwidth: u64,
    /// Ticks per second of the track.
    pub timescale: u32,
}

/// Parameters of a track by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TrackMedia {
    /// Video.
    Video {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Thousandths of frames per second, when known.
        #[serde(default)]
        frame_rate_milli: Option<u32>,
    },
    /// Audio.
    Audio {
        /// Channels.
        channels: u8,
        /// Samples per second.
        sample_rate: u32,
    },
}

/// One announced fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Number 0 of every log: the state this author builds on.
    Takeover {
        /// The state.
        base: Box<StreamState>,
    },
    /// The epoch's numbers, said by its first author.
    EpochOpen(EpochOpen),
    /// A rendition's initialisation section; the payload is its bytes. Said again by every author.
    Init {
        /// Rendition.
        rendition: Rendition,
        /// Version within the epoch.
        version: InitVersion,
        /// Description for the multivariant playlist.
        info: TrackInfo,
    },
    /// A rendition's PART-TARGET, said with its first part and frozen from then on.
    PartTarget {
        /// Rendition.
        rendition: Rendition,
        /// PART-TARGET.
        target: MediaDuration,
    },
    /// A part; the payload is its bytes.
    Part(Part),
    /// A segment is complete. Its bytes are its parts' concatenated, unless the payload carries them.
    Segment(Segment),
    /// A segment's object is in the store under the author's generation.
    Stored {
        /// Rendition.
        rendition: Rendition,
        /// Segment.
        msn: Msn,
    },
    /// A segment nobody has, in every rendition that has not closed it.
    Gap(Gap),
    /// A segment that one rendition does not have and never will, whether or not the other renditions have it.
    RenditionGap(RenditionGap),
    /// A rendition ends while the broadcast goes on: its playlist gets ENDLIST, and its name is not used again.
    RenditionEnd {
        /// The rendition that ends.
        rendition: Rendition,
        /// The last segment that its playlist lists.
        last: Msn,
    },
    /// No segment of this epoch will follow `last`.
    Seal {
        /// Last segment of the epoch, if it had any.
        last: Option<Msn>,
    },
    /// The broadcast is over: ENDLIST.
    End,
    /// Segments below `first` leave the live window.
    Trim {
        /// The new media sequence number.
        first: Msn,
    },
}

/// Numbers an epoch starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochOpen {
    /// Broadcast the epoch belongs to; another one starts a fresh window.
    pub broadcast: BroadcastId,
    /// Number of the epoch's first segment.
    pub first_msn: Msn,
    /// Its absolute discontinuity sequence number.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// Wall clock of the epoch's first sample.
    pub program_date_time: UnixMillis,
    /// TARGETDURATION in seconds; constant for a broadcast.
    pub target_duration: u32,
    /// In a fresh window: GAP segments listed below the first one, because players wait for a few segments.
    #[serde(default)]
    pub lead_gaps: u32,
}

/// A partial segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Rendition.
    pub rendition: Rendition,
    /// Segment it is part of.
    pub msn: Msn,
    /// Index in the segment.
    pub part: PartIndex,
    /// Exact duration.
    pub duration: MediaDuration,
    /// Starts with a random access point.
    pub independent: bool,
    /// Length of the payload.
    pub bytes: u64,
    /// Absolute discontinuity sequence number of the segment.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// Wall clock of the segment's first sample.
    pub program_date_time: UnixMillis,
    /// Initialisation section.
    pub init_version: InitVersion,
    /// GAP=YES: the part's bytes do not exist.
    #[serde(default)]
    pub gap: bool,
}

/// A complete segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Rendition.
    pub rendition: Rendition,
    /// Number.
    pub msn: Msn,
    /// Number of parts.
    pub parts: u32,
    /// Exact duration.
    pub duration: MediaDuration,
    /// Starts with a random access point.
    pub independent: bool,
    /// Length of the object.
    pub bytes: u64,
    /// Absolute discontinuity sequence number.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// Wall clock of the first sample.
    pub program_date_time: UnixMillis,
    /// Initialisation section.
    pub init_version: InitVersion,
}

/// A missing segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Number.
    pub msn: Msn,
    /// Its stated duration.
    pub duration: MediaDuration,
    /// Absolute discontinuity sequence number.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// Wall clock of its start.
    pub program_date_time: UnixMillis,
}

/// A segment that is missing from one rendition: its media playlist lists the segment as GAP (RFC 8216bis §4.4.4.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenditionGap {
    /// The rendition that misses the segment.
    pub rendition: Rendition,
    /// Media sequence number of the segment.
    pub msn: Msn,
    /// EXTINF of the missing segment; it does not change once listed.
    pub duration: MediaDuration,
    /// Absolute discontinuity sequence number of the segment.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// Wall clock of the segment's start.
    pub program_date_time: UnixMillis,
}

/// Where a [`StreamState`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// No log: an initial state, or one that was read from the state store or rebuilt from the segment index. It names
    /// only what is stored, which may be less than readers were shown.
    Checkpoint,
    /// The fold of a log, up to and including fact `seq`.
    #[default]
    Log,
}

/// The folded state of a log at one position: everything a playlist needs but the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// Broadcast.
    pub broadcast: BroadcastId,
    /// Epoch of the log.
    pub epoch: Epoch,
    /// Whether this is the fold of a log or what a checkpoint kept of one.
    #[serde(default)]
    pub origin: Origin,
    /// Generation of the log; 0 in a state that no log was folded into.
    pub generation: Generation,
    /// Last fact folded.
    pub seq: FactSeq,
    /// TARGETDURATION in seconds; 0 until the first EpochOpen.
    pub target_duration: u32,
    /// EpochOpen of `epoch` has been folded.
    pub opened: bool,
    /// `epoch` has its last segment.
    pub sealed: bool,
    /// The broadcast is over.
    pub ended: bool,
    /// Media sequence number: nothing below it is or ever will be listed.
    pub first_msn: Msn,
    /// Segments of the window, complete or open, by number; shared with earlier states, from which they seldom differ.
    pub slots: VecDeque<Arc<SegmentSlot>>,
    /// Renditions seen in the broadcast.
    pub renditions: BTreeMap<Rendition, RenditionState>,
}

/// A rendition's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct RenditionState {
    /// PART-TARGET, once known.
    pub part_target: Option<MediaDuration>,
    /// Initialisation sections that the window still uses, and the newest.
    pub inits: Vec<InitEntry>,
    /// The segments that the rendition lists, once it has ended for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<RenditionSpan>,
}

/// The segments that the media playlist of an ended rendition lists. The playlist does not change any more
/// (RFC 8216bis §4.4.3.4): it is served as long as the window has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenditionSpan {
    /// The first segment.
    pub first: Msn,
    /// The last segment.
    pub last: Msn,
}

/// One initialisation section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitEntry {
    /// Epoch.
    pub epoch: Epoch,
    /// Version within the epoch.
    pub version: InitVersion,
    /// Author whose log last carried the bytes.
    pub generation: Generation,
    /// Where in that log.
    pub seq: FactSeq,
    /// Description.
    pub info: TrackInfo,
}

/// One media sequence number of the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSlot {
    /// Number.
    pub msn: Msn,
    /// Epoch it belongs to.
    pub epoch: Epoch,
    /// Absolute discontinuity sequence number.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// Wall clock of its start.
    pub program_date_time: UnixMillis,
    /// Set when it was declared missing in every rendition that has not completed it: its stated duration.
    pub gap: Option<MediaDuration>,
    /// The renditions it was declared missing in, each with the stated duration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rendition_gaps: BTreeMap<Rendition, MediaDuration>,
    /// What each rendition has of it.
    pub tracks: BTreeMap<Rendition, RenditionSegment>,
}

/// A rendition's share of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenditionSegment {
    /// Initialisation section.
    pub init_version: InitVersion,
    /// Parts by index; emptied when the segment is old enough to be listed without.
    pub parts: Vec<PartEntry>,
    /// Set when complete.
    pub segment: Option<SegmentEntry>,
    /// The object is in the store.
    pub stored: bool,
}

/// A part in the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// Generation in its name and of the log that carried its bytes.
    pub generation: Generation,
    /// Where in that log.
    pub seq: FactSeq,
    /// Exact duration.
    pub duration: MediaDuration,
    /// Starts with a random access point.
    pub independent: bool,
    /// Length.
    pub bytes: u64,
    /// GAP=YES.
    pub gap: bool,
}

/// A complete segment in the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// Generation in its name.
    pub generation: Generation,
    /// Fact that completed it.
    pub seq: FactSeq,
    /// Exact duration.
    pub duration: MediaDuration,
    /// Starts with a random access point.
    pub independent: bool,
    /// Length.
    pub bytes: u64,
    /// Number of parts it was made of.
    pub parts: u32,
}

/// A fact with its author, number and payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactMessage {
    /// Epoch.
    pub epoch: Epoch,
    /// Generation of the author.
    pub generation: Generation,
    /// Number in the author's log.
    pub seq: FactSeq,
    /// The fact.
    pub fact: Fact,
    /// Bytes of an init section, a part or (rarely) a segment; else empty.
    pub payload: Bytes,
}

/// A fact as frames of at most the bus's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFact {
    /// With its payload.
    pub frames: Vec<Bytes>,
    /// Without it, for those who only follow the state.
    pub digest: Vec<Bytes>,
    /// The payload as slices of `frames`: a holder of both has the media in memory once.
    pub payload: ByteChain,
}

impl EncodedFact {
    /// Encodes a fact with its payload, which is copied once.
    pub fn new(
        at: Position,
        fact: &Fact,
        payload: &ByteChain,
        max_payload: usize,
    ) -> Result<Self, FragmentError> {
        let fact = serde_json::to_vec(fact).map_err(|_| FragmentError::Body("not encodable"))?;
        if fact.len() > MAX_FACT {
            return Err(FragmentError::Body("fact too long"));
        }
        let len = (fact.len() as u32).to_le_bytes();
        let head: [&[u8]; 2] = [&len, &fact];
        let body: Vec<&[u8]> = head.into_iter().chain(payload.iter().map(|slice| &slice[..])).collect();
        let frames = fragment::encode(Kind::Fact, at, &body, max_payload, BytesMut::with_capacity)?;
        let digest = if payload.is_empty() {
            frames.clone()
        } else {
            fragment::encode(Kind::Fact, at, &head, max_payload, BytesMut::with_capacity)?
        };
        let mut skip = len.len() + fact.len();
        let mut payload = ByteChain::with_capacity(frames.len());
        for frame in &frames {
            let body = frame.slice(fragment::HEADER..);
            let skipped = skip.min(body.len());
            skip -= skipped;
            if skipped < body.len() {
                payload.push(body.slice(skipped..));
            }
        }
        Ok(Self { frames, digest, payload })
    }
}

impl FactMessage {
    /// Encodes into frames of at most `max_payload` bytes, copying the payload once.
    pub fn encode(&self, max_payload: usize) -> Result<Vec<Bytes>, FragmentError> {
        let at = Position { epoch: self.epoch, generation: self.generation, seq: self.seq.0 };
        let payload = ByteChain::from(self.payload.clone());
        EncodedFact::new(at, &self.fact, &payload, max_payload).map(|encoded| encoded.frames)
    }

    /// Reads a reassembled body; the payload is a slice of it.
    pub fn decode(at: Position, mut body: Bytes) -> Result<Self, FragmentError> {
        if body.len() < 4 {
            return Err(FragmentError::Truncated { need: 4, have: body.len() });
        }
        let len = body.get_u32_le() as usize;
        if len > MAX_FACT {
            return Err(FragmentError::Body("fact too long"));
        }
        if len > body.len() {
            return Err(FragmentError::Truncated { need: len, have: body.len() });
        }
        let fact: Fact =
            serde_json::from_slice(&body.split_to(len)).map_err(|_| FragmentError::Body("not a fact"))?;
        let seq = FactSeq(at.seq);
        Ok(Self { epoch: at.epoch, generation: at.generation, seq, fact, payload: body })
    }
}

impl Fragmented for FactMessage {
    const KIND: Kind = Kind::Fact;

    fn decode(position: Position, body: Bytes) -> Result<Self, FragmentError> {
        Self::decode(position, body)
    }
}

/// Turns the fragments received on one subject into facts.
pub type FactReader = FragmentReader<FactMessage>;

#[cfg(test)]
#[path = "fact_tests.rs"]
mod tests;
