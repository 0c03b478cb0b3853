//! The log of facts, which a log writer announces and every reader folds into a stream's state.
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
    Airing, BroadcastId, DiscontinuitySeq, Epoch, FactSeq, Generation, InitVersion, Msn, PartIndex,
    Rendition, UnixMillis,
};
use crate::ladder::LadderPlan;

/// Largest encoded fact without its payload: a snapshot of the longest live window (see [`MAX_SLOTS`]) fits.
pub const MAX_FACT: usize = 4 << 20;
/// Most segments in the live window; longer DVR windows are read from the index.
pub const MAX_SLOTS: usize = 1024;

/// An exact duration in a track's timescale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MediaDuration {
    /// Number of ticks of the timescale.
    pub ticks: u64,
    /// Ticks per second; never 0 in a valid fact.
    pub timescale: u32,
}

impl MediaDuration {
    /// Returns a duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self { ticks: seconds, timescale: 1 }
    }

    /// Returns a duration of whole milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self { ticks: ms, timescale: 1000 }
    }
    /// Returns the duration in seconds, for rendering.
    pub fn as_secs_f64(self) -> f64 {
        self.ticks as f64 / f64::from(self.timescale.max(1))
    }
    /// Returns the duration in milliseconds, rounded down.
    pub fn as_millis(self) -> u64 {
        let ms = u128::from(self.ticks) * 1000 / u128::from(self.timescale.max(1));
        u64::try_from(ms).unwrap_or(u64::MAX)
    }
}

/// The kind of track that a rendition is, and its attributes in the multivariant playlist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackInfo {
    /// The parameters of the track, by its kind.
    pub media: TrackMedia,
    /// RFC 6381 codec string (`avc1.64001f`, `mp4a.40.2`).
    pub codecs: String,
    /// Peak bits per second as declared (BANDWIDTH).
    pub bandwidth: u64,
    /// Ticks per second of the track.
    pub timescale: u32,
}

/// The parameters of a track by its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TrackMedia {
    /// A track of coded pictures.
    Video {
        /// Width of the picture, in pixels.
        width: u32,
        /// Height of the picture, in pixels.
        height: u32,
        /// Thousandths of frames per second, when known.
        #[serde(default)]
        frame_rate_milli: Option<u32>,
    },
    /// A track of coded audio frames.
    Audio {
        /// Number of channels of the audio.
        channels: u8,
        /// Samples per second of each channel.
        sample_rate: u32,
    },
}

/// One fact of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Number 0 of every log: the state that its writer builds on.
    Takeover {
        /// The state that the log starts from.
        base: Box<StreamState>,
    },
    /// The numbers of the epoch, announced by its first log writer.
    EpochOpen(EpochOpen),
    /// A rendition's initialisation section; the payload is its bytes. Every log writer announces it again.
    Init {
        /// The rendition that the fact is about.
        rendition: Rendition,
        /// Version of the initialisation section within the epoch.
        version: InitVersion,
        /// Description for the multivariant playlist.
        info: TrackInfo,
    },
    /// A rendition's PART-TARGET, announced with its first part and constant from then on.
    PartTarget {
        /// The rendition that the fact is about.
        rendition: Rendition,
        /// The rendition's PART-TARGET (RFC 8216bis §4.4.3.7).
        target: MediaDuration,
    },
    /// A part; the payload is its bytes.
    Part(Part),
    /// A segment is complete. Its bytes are its parts' concatenated, unless the payload carries them.
    Segment(Segment),
    /// A segment's object is in the store under the log writer's generation.
    Stored {
        /// The rendition that the fact is about.
        rendition: Rendition,
        /// Media sequence number of the stored segment.
        msn: Msn,
    },
    /// A segment that does not exist in any rendition that has not completed it.
    Gap(Gap),
    /// A segment that one rendition does not have and never will, whether or not the other renditions have it.
    RenditionGap(RenditionGap),
    /// A rendition ends while the broadcast goes on: its playlist gets ENDLIST, and its name is not used again.
    RenditionEnd {
        /// The rendition that ends for good.
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
    /// The number of that broadcast, which the names of its media playlists carry.
    #[serde(default, skip_serializing_if = "Airing::is_first")]
    pub airing: Airing,
    /// Number of the epoch's first segment.
    pub first_msn: Msn,
    /// Absolute discontinuity sequence number of that segment.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// Wall clock of the epoch's first sample.
    pub program_date_time: UnixMillis,
    /// TARGETDURATION in seconds; constant for a broadcast.
    pub target_duration: u32,
    /// In a fresh window: GAP segments listed below the first one, because players wait for a few segments.
    #[serde(default)]
    pub lead_gaps: u32,
    /// The renditions that the epoch's workers make, which the multivariant playlist depends on.
    #[serde(default, skip_serializing_if = "LadderPlan::is_copy")]
    pub plan: LadderPlan,
}

/// A partial segment of one rendition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The rendition that the fact is about.
    pub rendition: Rendition,
    /// Media sequence number of the segment that it is part of.
    pub msn: Msn,
    /// Index of the part in its segment, from 0.
    pub part: PartIndex,
    /// Exact duration in the track's timescale.
    pub duration: MediaDuration,
    /// True if it starts with a random access point.
    pub independent: bool,
    /// Length of the payload in bytes.
    pub bytes: u64,
    /// Absolute discontinuity sequence number of the segment.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// Wall clock of the segment's first sample.
    pub program_date_time: UnixMillis,
    /// Version of the initialisation section that it is decoded with.
    pub init_version: InitVersion,
    /// True for GAP=YES: the part's bytes do not exist.
    #[serde(default)]
    pub gap: bool,
    /// True if its segment ends with it: the part that follows is the first one of the next segment.
    #[serde(default)]
    pub last: bool,
}

/// A complete segment of one rendition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The rendition that the fact is about.
    pub rendition: Rendition,
    /// Media sequence number of the segment.
    pub msn: Msn,
    /// Number of parts that the segment was made of.
    pub parts: u32,
    /// Exact duration in the track's timescale.
    pub duration: MediaDuration,
    /// True if it starts with a random access point.
    pub independent: bool,
    /// Length of the segment's object in bytes.
    pub bytes: u64,
    /// Absolute discontinuity sequence number of the segment.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// Wall clock of the first sample.
    pub program_date_time: UnixMillis,
    /// Version of the initialisation section that it is decoded with.
    pub init_version: InitVersion,
}

/// A segment that is missing from every rendition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Media sequence number of the segment.
    pub msn: Msn,
    /// EXTINF of the missing segment; it does not change once listed.
    pub duration: MediaDuration,
    /// Absolute discontinuity sequence number of the segment.
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

/// The source of a [`StreamState`].
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
    /// The broadcast that the epoch belongs to.
    pub broadcast: BroadcastId,
    /// The number of that broadcast, which the names of its media playlists carry.
    #[serde(default, skip_serializing_if = "Airing::is_first")]
    pub airing: Airing,
    /// The epoch of the folded log.
    pub epoch: Epoch,
    /// The source of this state: the fold of a log, or what a checkpoint kept of one.
    #[serde(default)]
    pub origin: Origin,
    /// Generation of the log; 0 in a state that no log was folded into.
    pub generation: Generation,
    /// Number of the last folded fact.
    pub seq: FactSeq,
    /// TARGETDURATION in seconds; 0 until the first EpochOpen.
    pub target_duration: u32,
    /// The renditions that the newest epoch's workers make.
    #[serde(default, skip_serializing_if = "LadderPlan::is_copy")]
    pub plan: LadderPlan,
    /// True if the EpochOpen fact of `epoch` has been folded.
    pub opened: bool,
    /// True if no segment of `epoch` follows any more.
    pub sealed: bool,
    /// True if the broadcast is over: the playlists end with ENDLIST.
    pub ended: bool,
    /// Media sequence number: nothing below it is or ever will be listed.
    pub first_msn: Msn,
    /// Segments of the window, complete or open, by number; shared with earlier states, from which they seldom differ.
    pub slots: VecDeque<Arc<SegmentSlot>>,
    /// Renditions seen in the broadcast.
    pub renditions: BTreeMap<Rendition, RenditionState>,
}

/// The state of one rendition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct RenditionState {
    /// PART-TARGET of the rendition, once known.
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
    /// Media sequence number of the first segment.
    pub first: Msn,
    /// Media sequence number of the last segment.
    pub last: Msn,
}

/// One initialisation section of a rendition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitEntry {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// Version of the initialisation section within the epoch.
    pub version: InitVersion,
    /// Generation of the log that last carried the bytes.
    pub generation: Generation,
    /// Number of the fact in that log.
    pub seq: FactSeq,
    /// Description for the multivariant playlist.
    pub info: TrackInfo,
}

/// One media sequence number of the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSlot {
    /// Media sequence number of the segment.
    pub msn: Msn,
    /// The epoch that it belongs to.
    pub epoch: Epoch,
    /// Absolute discontinuity sequence number of the segment.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// Wall clock of its start.
    pub program_date_time: UnixMillis,
    /// Set when it was declared missing in every rendition that has not completed it: its stated duration.
    pub gap: Option<MediaDuration>,
    /// The renditions it was declared missing in, each with the stated duration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rendition_gaps: BTreeMap<Rendition, MediaDuration>,
    /// The segment's parts and completion in each rendition.
    pub tracks: BTreeMap<Rendition, RenditionSegment>,
}

/// A rendition's share of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenditionSegment {
    /// Version of the initialisation section that it is decoded with.
    pub init_version: InitVersion,
    /// Parts by index; emptied when the segment is old enough to be listed without.
    pub parts: Vec<PartEntry>,
    /// The segment's numbers, once it is complete.
    pub segment: Option<SegmentEntry>,
    /// True if the segment's object is in the store.
    pub stored: bool,
}

/// A part in the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    /// Generation in its name and of the log that carried its bytes.
    pub generation: Generation,
    /// Number of the fact in that log.
    pub seq: FactSeq,
    /// Exact duration in the track's timescale.
    pub duration: MediaDuration,
    /// True if it starts with a random access point.
    pub independent: bool,
    /// Number of bytes that it has.
    pub bytes: u64,
    /// True for GAP=YES: the bytes do not exist.
    pub gap: bool,
    /// True if its segment ends with it.
    #[serde(default)]
    pub last: bool,
}

/// A complete segment in the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// Generation in the segment's name.
    pub generation: Generation,
    /// Number of the fact that completed it.
    pub seq: FactSeq,
    /// Exact duration in the track's timescale.
    pub duration: MediaDuration,
    /// True if it starts with a random access point.
    pub independent: bool,
    /// Number of bytes that it has.
    pub bytes: u64,
    /// Number of parts it was made of.
    pub parts: u32,
}

/// A fact with its log, number and payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactMessage {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The generation of the log.
    pub generation: Generation,
    /// Number of the fact in its log.
    pub seq: FactSeq,
    /// The fact without its payload.
    pub fact: Fact,
    /// Bytes of an init section, a part or (rarely) a segment; else empty.
    pub payload: Bytes,
}

/// A fact as fragments of at most the bus's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFact {
    /// The fact with its payload.
    pub frames: Vec<Bytes>,
    /// The fact without its payload, for readers that only follow the state.
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
