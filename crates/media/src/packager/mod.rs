//! Stamped units in, CMAF parts out: the same units give the same bytes, whoever packages them.
//!
//! The bytes of segment M depend on three things only: the events from M's boundary unit on, the init configurations,
//! and [`PartTiming`]. Part names, `mfhd` sequence numbers and decoding times come from (MSN, part) and from the
//! segment's own units, never from what was packaged before. So a replacement that is given the params and starts at any
//! boundary goes on byte for byte.
//!
//! - Video parts span [`PartTiming::part_ticks`]: `frames` frames of `frame_ticks`. A part closes as soon as its last
//!   frame is in; the duration of that frame is predicted. The next decoding time is snapped to the prediction when it
//!   is within half a frame (the composition offset keeps the presentation time exact); otherwise a hole stays between
//!   the parts and `tfdt` tells it. No part is longer than `part_target`, even when the frame rate varies.
//! - Every segment starts at its first unit's exact time, so predictions never add up.
//! - Audio parts take the frames that start before the video part's end, counted from the segment's boundary.
//! - The params are measured on the first part ([`Output::Params`]). When later video has another init version, the
//!   frame time is measured anew and `part_target` stays: players give up when PART-TARGET changes.

mod timing;
mod track;

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_buf::ByteChain;

pub use timing::{PART_AIM, PartTiming};
use track::Track;

use crate::container::cmaf::init_segment;
use crate::frame::{MediaEvent, MediaFrame, SegmentTag, TaggedFrame, TrackConfig, TrackKind};
use crate::time::Timescale;

/// The frame time is taken from what came when this many pictures were not enough for a part: a bound on memory.
const MAX_MEASURED_PICTURES: usize = 120;
/// This much audio ends the measurement: pictures stay away. 90 kHz ticks (2 s).
const MAX_MEASURED_AUDIO: u64 = 180_000;

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An init segment; before the first part that needs it.
    Init(Init),
    /// The params in use from segment `from_msn` on; whoever takes over needs them.
    Params {
        /// First segment they hold for.
        from_msn: u64,
        /// To be handed over as they are.
        params: PartTiming,
    },
    /// A segment's first part is being collected (or it is a gap): what a playlist writes above it.
    SegmentStart(SegmentStart),
    /// A part.
    Part(Part),
    /// A segment is complete: its bytes are those of its parts.
    SegmentEnd(SegmentEnd),
}

/// An init segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// Its track.
    pub track: TrackKind,
    /// Version within the epoch.
    pub version: u32,
    /// What it was made of.
    pub config: TrackConfig,
    /// The file.
    pub bytes: Bytes,
}

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStart {
    /// Its track.
    pub track: TrackKind,
    /// Media sequence number.
    pub msn: u64,
    /// Decoding time of its first sample in ticks of `timescale`; of its boundary when it is a gap.
    pub start: i64,
    /// Of the track.
    pub timescale: Timescale,
    /// It follows a discontinuity.
    pub discontinuity: bool,
    /// A decoder can start at its first sample.
    pub independent: bool,
    /// The init segment it needs.
    pub init_version: u32,
}

/// A partial segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its track.
    pub track: TrackKind,
    /// Its segment.
    pub msn: u64,
    /// Index within the segment, from 0.
    pub part: u32,
    /// A decoder can start at its first sample.
    pub independent: bool,
    /// `tfdt`, in ticks of `timescale`.
    pub start: i64,
    /// Sum of the samples' durations, in ticks of `timescale`.
    pub duration: u32,
    /// Of the track.
    pub timescale: Timescale,
    /// Samples in it.
    pub samples: u32,
    /// `moof` and `mdat`.
    pub body: ByteChain,
}

/// A complete segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Its head.
    pub head: SegmentStart,
    /// Number of parts; 0 for a gap.
    pub parts: u32,
    /// From the first sample's start to the last one's end, in ticks of the head's timescale. For a gap: the time it
    /// stands for.
    pub duration: u64,
    /// Bytes of all parts.
    pub bytes: u64,
    /// No media of this track exists for it (EXT-X-GAP).
    pub gap: bool,
}

/// Where the part params come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartSetup {
    /// A new stream: measured, and frozen by the first [`Output::Params`].
    Measure,
    /// A new epoch of a running stream: the frame time is measured, PART-TARGET (90 kHz ticks) stays.
    Frozen {
        /// PART-TARGET in 90 kHz ticks.
        part_target: u32,
    },
    /// A replacement: everything stays.
    Resume(PartTiming),
}

/// A boundary that ingest decided.
#[derive(Debug, Clone, Copy)]
struct Boundary {
    msn: u64,
    /// 90 kHz.
    start: i64,
    discontinuity: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Packager {
    setup: PartSetup,
    params: Option<PartTiming>,
    video: Option<Track>,
    audio: Option<Track>,
    /// The open segment's boundary and the few before it that a track may still be in.
    boundaries: VecDeque<Boundary>,
    /// What waits for the params, in order, from the first unit on.
    measuring: VecDeque<MediaEvent>,
    out: VecDeque<Output>,
    late_units: u64,
}

impl Packager {
    /// A packager; feed it the init events that came before a boundary unit, then everything from that unit on.
    pub fn new(setup: PartSetup) -> Self {
        Self {
            setup,
            params: match setup {
                PartSetup::Resume(params) => Some(params),
                _ => None,
            },
            video: None,
            audio: None,
            boundaries: VecDeque::new(),
            measuring: VecDeque::new(),
            out: VecDeque::new(),
            late_units: 0,
        }
    }

    /// The params in use, once known.
    pub const fn params(&self) -> Option<PartTiming> {
        self.params
    }

    /// Units that came for a segment already closed, or before any boundary; they are left out.
    pub const fn late_units(&self) -> u64 {
        self.late_units
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Takes the next event of the stream.
    pub fn push(&mut self, event: MediaEvent) {
        if !self.measuring.is_empty() || self.must_measure(&event) {
            self.measuring.push_back(event);
            if self.measured_enough() {
                self.measured();
            }
            return;
        }
        self.take(event);
    }

    fn take(&mut self, event: MediaEvent) {
        match event {
            MediaEvent::Init { version, config } => self.init(version, config),
            MediaEvent::Frame(unit) => self.package(unit),
        }
    }

    /// The stream ends here: closes what is open, with predicted durations.
    pub fn finish(&mut self) {
        // More than once when parameters changed while they were measured.
        while !self.measuring.is_empty() {
            self.measured();
        }
        let Some(last) = self.boundaries.back().map(|boundary| boundary.msn) else { return };
        let Self { video, audio, boundaries, out, .. } = self;
        let end = [&*video, &*audio].into_iter().flatten().filter_map(|track| track.end_of(last)).max();
        for track in [video, audio].into_iter().flatten() {
            track.close_through(last, boundaries, end, out);
        }
    }

    fn init(&mut self, version: u32, config: TrackConfig) {
        let kind = config.track();
        let slot = match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        };
        let timescale = match &config {
            TrackConfig::Video(_) => Timescale::VIDEO,
            TrackConfig::Audio(audio) => audio.timescale(),
        };
        let first = self.boundaries.back().map(|boundary| boundary.msn);
        let track = slot.get_or_insert_with(|| Track::new(kind, first));
        if !track.add_init(version, timescale, &config) {
            return;
        }
        let bytes = init_segment(&config);
        self.out.push_back(Output::Init(Init { track: kind, version, config, bytes }));
    }

    /// Without params, and at the first picture of a new init version.
    fn must_measure(&self, event: &MediaEvent) -> bool {
        let MediaEvent::Frame(unit) = event else { return false };
        match (&self.params, &unit.unit) {
            (None, _) => true,
            (Some(params), MediaFrame::Video(_)) => params.init_version != Some(unit.stamp.init_version),
            (Some(_), MediaFrame::Audio(_)) => false,
        }
    }

    fn measured_enough(&self) -> bool {
        if self.video.is_none() {
            return true;
        }
        let pictures: Vec<i64> = self.measured_units().filter_map(picture).collect();
        let audio_units = (self.measured_units().count() - pictures.len()) as u64;
        let frame = self.audio.as_ref().map_or(0, Track::audio_frame_ticks);
        pictures.len() >= MAX_MEASURED_PICTURES
            || audio_units * u64::from(frame) >= MAX_MEASURED_AUDIO
            || timing::spans_a_part(&pictures)
    }

    fn measured_units(&self) -> impl Iterator<Item = &TaggedFrame> {
        self.measuring.iter().filter_map(|event| match event {
            MediaEvent::Frame(unit) => Some(unit),
            MediaEvent::Init { .. } => None,
        })
    }

    fn measured(&mut self) {
        let of_video = |unit: &&TaggedFrame| unit.unit.track() == TrackKind::Video;
        let init_version = self.measured_units().find(of_video).map(|unit| unit.stamp.init_version);
        let same = |unit: &&TaggedFrame| Some(unit.stamp.init_version) == init_version;
        let pictures: Vec<i64> = self.measured_units().filter(same).filter_map(picture).collect();
        let target = match (self.params, self.setup) {
            (Some(params), _) => Some(params.part_target),
            (None, PartSetup::Frozen { part_target }) => Some(part_target),
            (None, _) => None,
        };
        let video = self.video.as_ref().and_then(|track| track.video_config(init_version?));
        let audio_frame = self.audio.as_ref().map(Track::audio_frame_ticks);
        let params = PartTiming::measure(init_version, &pictures, video, audio_frame, target);
        let from_msn = self.measured_units().next().map_or(0, |unit| unit.stamp.msn);
        self.params = Some(params);
        self.out.push_back(Output::Params { from_msn, params });
        let mut waiting = std::mem::take(&mut self.measuring);
        while let Some(event) = waiting.pop_front() {
            // Parameters that changed while they were measured start over with their own.
            if self.must_measure(&event) {
                waiting.push_front(event);
                for event in waiting {
                    self.push(event);
                }
                return;
            }
            self.take(event);
        }
    }

    fn package(&mut self, unit: TaggedFrame) {
        let TaggedFrame { stamp, unit } = unit;
        let Some(params) = self.params else { return };
        if stamp.boundary {
            self.boundary(stamp, &unit);
        }
        let Self { video, audio, boundaries, out, .. } = self;
        let known = boundaries.front().is_some_and(|first| stamp.msn >= first.msn)
            && boundaries.back().is_some_and(|last| stamp.msn <= last.msn);
        let track = match unit {
            MediaFrame::Video(_) => video,
            MediaFrame::Audio(_) => audio,
        };
        let taken = match track {
            Some(track) if known => track.push(stamp, unit, &params, boundaries, out),
            _ => false,
        };
        self.late_units += u64::from(!taken);
        if let Some(audio) = audio {
            audio.close_if_reached(boundaries, out);
        }
        self.forget_boundaries();
    }

    fn boundary(&mut self, stamp: SegmentTag, unit: &MediaFrame) {
        let SegmentTag { msn, discontinuity, init_version, .. } = stamp;
        if self.boundaries.back().is_some_and(|last| last.msn >= msn) {
            return;
        }
        let start = match (unit, &self.audio) {
            (MediaFrame::Video(unit), _) => unit.dts,
            (MediaFrame::Audio(frame), Some(audio)) => {
                audio.timescale_of(init_version).convert(frame.pts, Timescale::VIDEO)
            }
            (MediaFrame::Audio(_), None) => return,
        };
        self.boundaries.push_back(Boundary { msn, start, discontinuity });
        let Self { video, audio, boundaries, out, .. } = self;
        for track in [video, audio].into_iter().flatten() {
            track.begin_at(boundaries[0].msn);
            // Ingest keeps each track at most one segment behind.
            if let Some(stale) = msn.checked_sub(2) {
                track.close_through(stale, boundaries, None, out);
            }
        }
    }

    fn forget_boundaries(&mut self) {
        let needed = [&self.video, &self.audio].into_iter().flatten().filter_map(Track::next_msn).min();
        while self.boundaries.len() > 1 && needed.is_some_and(|needed| self.boundaries[0].msn < needed) {
            self.boundaries.pop_front();
        }
    }
}

/// The decoding time of a picture.
const fn picture(unit: &TaggedFrame) -> Option<i64> {
    match &unit.unit {
        MediaFrame::Video(unit) => Some(unit.dts),
        MediaFrame::Audio(_) => None,
    }
}
