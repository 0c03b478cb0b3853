//! The packager: tagged frames in, CMAF parts out. The same frames give the same bytes, whichever
//! worker packages them.
//!
//! The bytes of a segment depend on three things only: the events from its boundary frame on, the
//! init configurations, and the [`PartTiming`]. Part names, `mfhd` sequence numbers and decoding
//! times follow from the media sequence number, the part's index and the segment's own frames,
//! never from earlier segments. So a replacement that is given the timing and starts at any
//! boundary goes on byte for byte.
//!
//! - Ingest has decided the decoding time and the duration of each picture
//!   ([`SegmentTag::duration`]), so that decoding times are contiguous over parts and segments.
//! - A video part spans [`PartTiming::part_ticks`]: `frames` pictures of `frame_ticks`. It closes as
//!   soon as its last picture is in, unless that may be the last one of its segment
//!   ([`SegmentTag::may_be_last`]): then it closes when the next one shows. No part is longer than
//!   `part_target`, even if the frame rate varies.
//! - An audio part ends at the first frame boundary at or after the end of the video part beside
//!   it, counted from the segment's boundary.
//! - The timing is measured on the first part ([`Output::Timing`]). If later video has another init
//!   version, its frame time is measured anew and `part_target` stays, because players give up if
//!   PART-TARGET changes.

mod open_part;
mod output;
mod timing;
mod track;

use std::collections::VecDeque;

pub use output::{Init, Output, Part, SegmentEnd, SegmentStart};
use timing::PartLength;
pub use timing::{PART_MS, PartTiming};
use track::{Boundary, Track};

use crate::container::cmaf::init_segment;
use crate::frame::{AudioConfig, MediaEvent, MediaFrame, SegmentTag, TaggedFrame, TrackConfig, TrackKind};
use crate::repair::{Repair, RepairCounts};
use crate::time::Timescale;

/// Most pictures that are kept while the frame time is measured: a bound on memory.
const MAX_MEASURED_PICTURES: usize = 120;
/// Most audio that is kept while pictures are waited for, in 90 kHz ticks (2 s).
const MAX_MEASURED_AUDIO: u64 = 180_000;

/// The origin of the part timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartSetup {
    /// A new stream: the timing is measured, and frozen by the first [`Output::Timing`].
    Measure {
        /// Aim for the duration of a part in milliseconds, as the stream's settings ask for it;
        /// [`PART_MS`] are its limits.
        part_ms: u32,
    },
    /// A new epoch of a running stream: the frame time is measured, PART-TARGET stays.
    Frozen {
        /// PART-TARGET in 90 kHz ticks.
        part_target: u32,
    },
    /// A replacement within an epoch: the whole timing stays.
    Resume(PartTiming),
}

/// The packager of one epoch; the module describes the rules.
#[derive(Debug)]
pub struct Packager {
    setup: PartSetup,
    timing: Option<PartTiming>,
    video: Option<Track>,
    audio: Option<Track>,
    /// The open segment's boundary and the few before it that a track may still be in.
    boundaries: VecDeque<Boundary>,
    /// Events that wait for the timing, in order, from the first frame on.
    measuring: VecDeque<MediaEvent>,
    out: VecDeque<Output>,
    repairs: RepairCounts,
}

impl Packager {
    /// Creates a packager. It takes the init events that came before a boundary frame, then all
    /// events from that frame on.
    pub fn new(setup: PartSetup) -> Self {
        Self {
            setup,
            timing: match setup {
                PartSetup::Resume(timing) => Some(timing),
                PartSetup::Measure { .. } | PartSetup::Frozen { .. } => None,
            },
            video: None,
            audio: None,
            boundaries: VecDeque::new(),
            measuring: VecDeque::new(),
            out: VecDeque::new(),
            repairs: RepairCounts::new(),
        }
    }

    /// Returns the timing in use, once it is known.
    pub const fn timing(&self) -> Option<PartTiming> {
        self.timing
    }

    /// Returns the counts of all repairs so far.
    pub const fn repairs(&self) -> &RepairCounts {
        &self.repairs
    }

    /// Returns the oldest output that was not returned yet.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Uses `timing` from the next frame on, as another packager of the same source has measured it: the rungs of a
    /// ladder share one grid of parts.
    pub fn adopt(&mut self, from_msn: u64, timing: PartTiming) {
        if self.timing != Some(timing) {
            self.timing = Some(timing);
            self.out.push_back(Output::Timing { from_msn, timing });
        }
    }

    /// Begins segment `msn` at `start`, in 90 kHz ticks, and closes the segments that no frame can come for any more. A
    /// boundary frame does the same; a track that is packaged alone is told the boundaries of the others by this.
    pub fn begin_segment(&mut self, msn: u64, start: i64, discontinuity: bool) {
        if self.boundaries.back().is_some_and(|last| last.msn >= msn) {
            return;
        }
        self.boundaries.push_back(Boundary { msn, start, discontinuity });
        let Self { video, audio, boundaries, out, .. } = self;
        if let (Some(video), Some(before)) = (video.as_mut(), msn.checked_sub(1)) {
            // No picture lies behind the boundary, so a part that waits for one is the last.
            video.begin_at(boundaries[0].msn);
            video.close_through(before, boundaries, None, out);
        }
        for track in [video, audio].into_iter().flatten() {
            track.begin_at(boundaries[0].msn);
            // Ingest keeps each track at most one segment behind.
            if let Some(stale) = msn.checked_sub(2) {
                track.close_through(stale, boundaries, None, out);
            }
        }
    }

    /// Drops the samples of a track's open part, which come again. Returns the open segment and the time at which its next part
    /// begins, in ticks of the track's timescale; `None` if no segment of the track is open.
    pub fn drop_open_part(&mut self, track: TrackKind) -> Option<(u64, i64)> {
        let track = match track {
            TrackKind::Video => self.video.as_mut(),
            TrackKind::Audio => self.audio.as_mut(),
        };
        track.and_then(Track::drop_open_part)
    }

    /// Takes the next event of the stream.
    pub fn push(&mut self, event: MediaEvent) {
        if !self.measuring.is_empty() || self.must_measure(&event) {
            self.measuring.push_back(event);
            if self.has_measured_enough() {
                self.settle_timing();
            }
            return;
        }
        self.take(event);
    }

    fn take(&mut self, event: MediaEvent) {
        match event {
            MediaEvent::Init { version, config } => self.init(version, config),
            MediaEvent::Frame(frame) => self.package(frame),
        }
    }

    /// Ends the stream: closes the open parts and segments.
    pub fn finish(&mut self) {
        // More than once if the configuration changed during the measurement.
        while !self.measuring.is_empty() {
            self.settle_timing();
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
        let first = self.boundaries.back().map(|boundary| boundary.msn);
        let track = slot.get_or_insert_with(|| Track::new(kind, first));
        if !track.add_init(version, &config) {
            return;
        }
        let bytes = init_segment(&config);
        self.out.push_back(Output::Init(Init { track: kind, version, config, bytes }));
    }

    /// True without a timing, and at the first picture of a new init version.
    fn must_measure(&self, event: &MediaEvent) -> bool {
        let MediaEvent::Frame(TaggedFrame { tag, frame }) = event else { return false };
        match (&self.timing, frame) {
            (None, _) => true,
            (Some(timing), MediaFrame::Video(_)) => timing.init_version != Some(tag.init_version),
            (Some(_), MediaFrame::Audio(_)) => false,
        }
    }

    /// Returns the length of parts that is to be settled, or was.
    fn part_length(&self) -> PartLength {
        match (self.timing, self.setup) {
            (Some(timing), _) | (None, PartSetup::Resume(timing)) => PartLength::Target(timing.part_target),
            (None, PartSetup::Frozen { part_target }) => PartLength::Target(part_target),
            (None, PartSetup::Measure { part_ms }) => PartLength::of_setting(part_ms),
        }
    }

    fn has_measured_enough(&self) -> bool {
        if self.video.is_none() {
            return true;
        }
        let pictures: Vec<i64> = self.measured_frames().filter_map(decoding_time).collect();
        let audio_frames = (self.measured_frames().count() - pictures.len()) as u64;
        let frame_ticks =
            self.audio.as_ref().and_then(Track::audio_config).map_or(0, AudioConfig::frame_ticks);
        pictures.len() >= MAX_MEASURED_PICTURES
            || audio_frames * u64::from(frame_ticks) >= MAX_MEASURED_AUDIO
            || timing::spans_a_part(&pictures, self.part_length().ticks())
    }

    fn measured_frames(&self) -> impl Iterator<Item = &TaggedFrame> {
        self.measuring.iter().filter_map(|event| match event {
            MediaEvent::Frame(frame) => Some(frame),
            MediaEvent::Init { .. } => None,
        })
    }

    /// Ends the measurement and packages the frames that waited for it.
    fn settle_timing(&mut self) {
        let is_video = |frame: &&TaggedFrame| frame.frame.track() == TrackKind::Video;
        let init_version = self.measured_frames().find(is_video).map(|frame| frame.tag.init_version);
        let same_version = |frame: &&TaggedFrame| Some(frame.tag.init_version) == init_version;
        let pictures: Vec<i64> =
            self.measured_frames().filter(same_version).filter_map(decoding_time).collect();
        let video = self.video.as_ref().and_then(|track| track.video_config(init_version?));
        let audio = self.audio.as_ref().and_then(Track::audio_config);
        let timing = PartTiming::measure(init_version, &pictures, video, audio, self.part_length());
        let from_msn = self.measured_frames().next().map_or(0, |frame| frame.tag.msn);
        self.timing = Some(timing);
        self.out.push_back(Output::Timing { from_msn, timing });
        let mut waiting = std::mem::take(&mut self.measuring);
        while let Some(event) = waiting.pop_front() {
            // A configuration that changed during the measurement is measured anew.
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

    fn package(&mut self, TaggedFrame { tag, frame }: TaggedFrame) {
        let Some(timing) = self.timing else { return };
        if tag.boundary {
            self.boundary(tag, &frame);
        }
        let Self { video, audio, boundaries, out, .. } = self;
        let is_known = boundaries.front().is_some_and(|first| tag.msn >= first.msn)
            && boundaries.back().is_some_and(|last| tag.msn <= last.msn);
        let track = match frame {
            MediaFrame::Video(_) => video,
            MediaFrame::Audio(_) => audio,
        };
        let is_taken = match track {
            Some(track) if is_known => track.push(tag, frame, &timing, boundaries, out),
            _ => false,
        };
        self.repairs.add(Repair::LateFrame, u64::from(!is_taken));
        if let Some(audio) = audio {
            audio.close_if_reached(boundaries, out);
        }
        self.forget_boundaries();
    }

    /// Begins the segment of a boundary frame.
    fn boundary(&mut self, tag: SegmentTag, frame: &MediaFrame) {
        let start = match (frame, &self.audio) {
            (MediaFrame::Video(picture), _) => picture.dts,
            (MediaFrame::Audio(frame), Some(audio)) => {
                audio.timescale_of(tag.init_version).convert(frame.pts, Timescale::VIDEO)
            }
            (MediaFrame::Audio(_), None) => return,
        };
        self.begin_segment(tag.msn, start, tag.discontinuity);
    }

    /// Drops boundaries that both tracks have passed.
    fn forget_boundaries(&mut self) {
        let needed = [&self.video, &self.audio].into_iter().flatten().filter_map(Track::next_msn).min();
        while self.boundaries.len() > 1 && needed.is_some_and(|needed| self.boundaries[0].msn < needed) {
            self.boundaries.pop_front();
        }
    }
}

/// Returns the decoding time of a picture; `None` for audio.
const fn decoding_time(frame: &TaggedFrame) -> Option<i64> {
    match &frame.frame {
        MediaFrame::Video(picture) => Some(picture.dts),
        MediaFrame::Audio(_) => None,
    }
}
