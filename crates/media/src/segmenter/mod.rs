//! Segment boundaries, which ingest decides once for all workers.
//!
//! A [`Segmenter`] takes the events of a [`Timeline`](crate::timeline::Timeline) and tags each
//! frame with the media sequence number of its segment.
//!
//! - A segment starts at the first keyframe at or after [`SEGMENT_AIM`], on decoding time. An
//!   earlier keyframe starts one if waiting for the next would exceed the target duration, or if
//!   the open segment is not independent.
//! - The beginning of a gradual refresh counts as a keyframe, but its segment is not independent.
//! - If no keyframe comes within the target duration, a picture of any kind starts a segment, which
//!   is not independent: a synthetic boundary. Keyframes that come at equal distances have segments of equal
//!   length between them.
//! - Audio alone is cut every [`SEGMENT_AIM`]. While pictures are behind the audio by more than
//!   [`VIDEO_STALL`], audio starts the segments, so that they keep coming.
//! - A new configuration is a new init version, a boundary and a discontinuity. The numbering goes
//!   on.
//! - Decoding times of pictures are contiguous ([`decode_clock`]); composition offsets keep presentation
//!   times exact. Each frame says whether the next one of its track may begin another segment
//!   ([`SegmentTag::may_be_last`]): its part waits for that one, because a player is told the name of
//!   the part that follows.
//! - While pictures pause, ones that repeat the last are added ([`standing`]), so that both tracks go on.
//! - An audio frame belongs to the segment in whose time it starts, but to none more than one
//!   behind the pictures: the packager may close an audio segment as soon as the pictures are two
//!   further.

mod audio_span;
mod decode_clock;
mod forecast;
mod keyframes;
mod limits;
mod pause;
mod standing;
mod waiting;

use std::collections::VecDeque;

use crate::frame::{
    AccessUnit, AudioFrame, MediaEvent, MediaFrame, SegmentTag, TaggedFrame, TrackConfig, TrackKind,
};
use crate::repair::{Repair, RepairCounts};
use crate::time::Timescale;
use crate::timeline::TimelineEvent;

use audio_span::AudioSpan;
use decode_clock::DecodeClock;
use keyframes::Keyframes;
pub use limits::{AUDIO_ONLY_WAIT, BOUNDARY_SLACK, KEYFRAME_WAIT, SEGMENT_AIM, VIDEO_STALL};
use limits::{EXTINF_ROUNDING, MAX_AUDIO_FRAME, MIN_DISCONTINUITY_SEGMENT, WAITING_AUDIO};
use standing::{LONGEST_STEP, Standing};

/// The settings of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmenterConfig {
    /// Media sequence number of the first segment.
    pub first_msn: u64,
    /// True if the first segment follows other media of this stream, as in any epoch but the first.
    pub discontinuity: bool,
    /// EXT-X-TARGETDURATION in seconds, 2 to 10.
    pub target_duration: u32,
}

/// Measures for a stream's health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmenterStats {
    /// Longest distance between keyframes in 90 kHz ticks.
    pub longest_gop: i64,
}

/// The segment that frames are being added to.
#[derive(Debug, Clone, Copy)]
struct OpenSegment {
    msn: u64,
    /// Decoding time of the boundary frame in 90 kHz ticks.
    start: i64,
    /// Earliest time of any of its frames, which is that of audio after a hole in it.
    earliest: i64,
    independent: bool,
    /// Earliest time of any frame of the segment before.
    previous: i64,
}

/// The segmenter of one epoch; the module describes the rules.
#[derive(Debug)]
pub struct Segmenter {
    config: SegmenterConfig,
    /// Target duration in 90 kHz ticks.
    target: i64,
    open: Option<OpenSegment>,
    video: Track,
    audio: Track,
    /// Audio that waits for the first segment, and the time at which the wait began.
    waiting_audio: VecDeque<AudioFrame>,
    waiting_since: Option<i64>,
    clock: DecodeClock,
    last_dts: Option<i64>,
    keyframes: Keyframes,
    standing: Standing,
    /// The arrival of the newest frame, in 90 kHz ticks of any origin.
    arrival: Option<i64>,
    /// The segment of the latest audio frame.
    audio_msn: u64,
    /// The audio of the segment that audio was added to last.
    audio_segment: AudioSpan,
    /// True if the next boundary follows a discontinuity.
    discontinuity_pending: bool,
    events: VecDeque<MediaEvent>,
    stats: SegmenterStats,
    repairs: RepairCounts,
}

/// The configuration of one track.
#[derive(Debug, Default)]
struct Track {
    config: Option<TrackConfig>,
    version: u32,
    /// True if the frames of the newest version wait for a boundary.
    changed: bool,
    /// True once a frame of the track has been tagged.
    started: bool,
}

impl Segmenter {
    /// Creates a segmenter for one epoch.
    pub fn new(config: SegmenterConfig) -> Self {
        Self {
            target: i64::from(config.target_duration.clamp(2, 10)) * 90_000,
            open: None,
            video: Track::default(),
            audio: Track::default(),
            waiting_audio: VecDeque::new(),
            waiting_since: None,
            clock: DecodeClock::default(),
            last_dts: None,
            keyframes: Keyframes::default(),
            standing: Standing::default(),
            arrival: None,
            audio_msn: config.first_msn,
            audio_segment: AudioSpan::default(),
            discontinuity_pending: config.discontinuity,
            events: VecDeque::new(),
            stats: SegmenterStats::default(),
            repairs: RepairCounts::new(),
            config,
        }
    }

    /// Returns the media sequence number of the open segment; `None` before the first frame.
    pub fn open_msn(&self) -> Option<u64> {
        self.open.map(|open| open.msn)
    }

    /// Returns the counts of all repairs so far.
    pub const fn repairs(&self) -> &RepairCounts {
        &self.repairs
    }

    /// Returns the measures so far.
    pub const fn stats(&self) -> SegmenterStats {
        self.stats
    }

    /// Returns the newest configurations as events, for workers that join late.
    pub fn inits(&self) -> impl Iterator<Item = MediaEvent> + '_ {
        [&self.video, &self.audio].into_iter().filter_map(|track| {
            Some(MediaEvent::Init { version: track.version, config: track.config.clone()? })
        })
    }

    /// Sets the arrival of the frames that follow: the time of the caller's clock since any origin, in 90 kHz ticks.
    /// Without it, repeated pictures are bounded for each frame only.
    pub const fn arrive(&mut self, now: i64) {
        self.arrival = Some(now);
    }

    /// Returns the oldest event that was not returned yet.
    pub fn poll(&mut self) -> Option<MediaEvent> {
        self.events.pop_front()
    }

    /// Takes the next event of the timeline.
    pub fn push(&mut self, event: TimelineEvent) {
        match event {
            TimelineEvent::Config(config) => self.configure(config),
            TimelineEvent::Frame { frame, discontinuity } => {
                self.discontinuity_pending |= discontinuity && self.open.is_some();
                match frame {
                    MediaFrame::Video(picture) => self.video(picture),
                    MediaFrame::Audio(frame) => self.audio(frame),
                }
            }
        }
    }

    fn configure(&mut self, config: TrackConfig) {
        let track = match config.track() {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        };
        match &track.config {
            Some(old) if *old == config => return,
            Some(_) => {
                track.version += 1;
                track.changed = track.started;
            }
            None => {}
        }
        track.config = Some(config.clone());
        if let TrackConfig::Video(video) = &config {
            self.standing.configure(video);
            let longest = self.standing.is_possible().then_some(LONGEST_STEP);
            self.clock.declare(video.frame_rate, longest);
        }
        if matches!(config, TrackConfig::Audio(_)) {
            // The waiting frames need the old configuration, and their times may count another
            // rate.
            self.repairs.add(Repair::EarlyAudio, self.waiting_audio.len() as u64);
            self.waiting_audio.clear();
            self.waiting_since = None;
        }
        self.events.push_back(MediaEvent::Init { version: track.version, config });
    }

    /// Tags a picture, which may start a segment.
    fn video(&mut self, picture: AccessUnit) {
        if self.video.config.is_none()
            || (!picture.sync.is_join() && (!self.video.started || self.video.changed))
        {
            self.repairs.add(Repair::PictureBeforeKeyframe, 1);
            return;
        }
        self.stand_before_picture(picture.dts);
        self.standing.observe(&picture);
        self.place_picture(picture);
    }

    /// Tags a picture that can be decoded.
    fn place_picture(&mut self, picture: AccessUnit) {
        let placed = self.clock.place(picture.dts, picture.sync.is_keyframe());
        self.repairs.add(Repair::PictureHole, u64::from(placed.follows_hole));
        let picture = AccessUnit { cts: (picture.pts() - placed.dts) as i32, dts: placed.dts, ..picture };
        if picture.sync.is_join() {
            let distance = self.keyframes.observe(picture.dts);
            self.stats.longest_gop = self.stats.longest_gop.max(distance);
        }
        let step = self.last_dts.replace(picture.dts).map_or(0, |last| picture.dts - last);
        let boundary = self.video_boundary(&picture, step.max(i64::from(placed.duration)));
        if let Some(open) = self.open.as_mut().filter(|_| !boundary) {
            // Audio that runs ahead may have begun the segment.
            open.earliest = open.earliest.min(picture.dts);
        }
        // Pictures that join running audio change the tracks of the segments; so does a new
        // configuration.
        self.discontinuity_pending |= self.open.is_some() && (!self.video.started || self.video.changed);
        self.video.started = true;
        self.video.changed = false;
        let (is_join, independent) = (picture.sync.is_join(), picture.sync.is_keyframe());
        let discontinuity = boundary && self.start_segment(picture.dts, independent);
        self.repairs.add(Repair::SegmentWithoutKeyframe, u64::from(boundary && !is_join));
        self.repairs.add(Repair::SegmentOnRefresh, u64::from(boundary && is_join && !independent));
        let waiting = self.waiting_audio.len();
        self.standing.shown_until(picture.pts() + i64::from(placed.duration));
        let may_be_last = self.may_cut_at(placed.dts + i64::from(placed.duration));
        let tag = SegmentTag {
            discontinuity,
            boundary,
            independent,
            duration: placed.duration,
            may_be_last,
            ..NO_TAG
        };
        self.emit(MediaFrame::Video(picture), tag);
        for _ in 0..waiting {
            if let Some(frame) = self.waiting_audio.pop_front() {
                self.audio(frame);
            }
        }
    }

    /// True if this picture, which may last `duration`, starts a segment.
    fn video_boundary(&self, picture: &AccessUnit, duration: i64) -> bool {
        let Some(open) = self.open else { return true };
        let elapsed = picture.dts - open.start;
        if !picture.sync.is_join() {
            return self.is_due_without_keyframe(&open, picture.dts, duration);
        }
        !self.video.started
            || self.video.changed
            || (!open.independent && picture.sync.is_keyframe())
            || (self.discontinuity_pending && elapsed >= MIN_DISCONTINUITY_SEGMENT)
            || elapsed >= SEGMENT_AIM - BOUNDARY_SLACK
            || picture.dts - open.earliest + self.keyframes.distance() > self.longest_segment()
    }

    /// Tags an audio frame, which may start a segment if there are no pictures.
    fn audio(&mut self, frame: AudioFrame) {
        let Some(TrackConfig::Audio(config)) = &self.audio.config else { return };
        let time = config.timescale().convert(frame.pts, Timescale::VIDEO);
        let length = config.timescale().convert(i64::from(config.samples_of(&frame.data)), Timescale::VIDEO);
        self.stand_beside_audio(time);
        let Some(open) = self.open else {
            self.wait(frame, time);
            return;
        };
        let elapsed = time - open.start;
        let stalled = self.is_stalled_at(time);
        let limit = if self.video.started { self.target - length } else { SEGMENT_AIM };
        let boundary = self.audio.changed
            || self.audio_is_full_at(time + length)
            || (stalled && elapsed >= limit.min(self.target - length - (open.start - open.earliest)));
        let mut discontinuity = false;
        if boundary {
            self.discontinuity_pending |= self.audio.changed;
            let alone = !self.video.started;
            discontinuity = self.start_segment(time, alone);
            self.repairs.add(Repair::SegmentWithoutKeyframe, u64::from(!alone));
        } else {
            // A segment that would grow beyond the target duration takes no more late audio.
            let fits = time + length - open.previous <= self.longest_segment();
            let behind = time < open.start && open.msn > self.audio_msn && fits;
            self.audio_msn = self.audio_msn.max(if behind { open.msn - 1 } else { open.msn });
            if !behind {
                self.open = Some(OpenSegment { earliest: open.earliest.min(time), ..open });
            }
        }
        self.audio.started = true;
        let msn = if boundary { self.open.map_or(open.msn, |open| open.msn) } else { self.audio_msn };
        self.audio_segment.add(msn, time, time + length);
        let independent = !boundary || !self.video.started;
        let may_be_last = self.may_be_last_audio(time + length);
        self.emit(
            MediaFrame::Audio(frame),
            SegmentTag { discontinuity, boundary, independent, may_be_last, ..NO_TAG },
        );
    }

    /// Opens the next segment at `start`; returns true if it follows a discontinuity.
    fn start_segment(&mut self, start: i64, independent: bool) -> bool {
        let msn = self.open.map_or(self.config.first_msn, |open| open.msn + 1);
        let previous = self.open.map_or(start, |open| open.earliest);
        self.open = Some(OpenSegment { msn, start, earliest: start, independent, previous });
        let floor = if self.audio.changed || !self.audio.started { msn } else { self.audio_msn.max(msn - 1) };
        self.audio_msn = floor.max(self.config.first_msn);
        self.audio.changed = false;
        std::mem::take(&mut self.discontinuity_pending)
    }

    /// Emits a frame with its tag, of which the segment and the init version are filled in.
    fn emit(&mut self, frame: MediaFrame, tag: SegmentTag) {
        let Some(open) = self.open else { return };
        let (msn, init_version) = match frame {
            MediaFrame::Video(_) => (open.msn, self.video.version),
            MediaFrame::Audio(_) if tag.boundary => {
                self.audio_msn = open.msn;
                (open.msn, self.audio.version)
            }
            MediaFrame::Audio(_) => (self.audio_msn, self.audio.version),
        };
        let tag = SegmentTag { msn, init_version, ..tag };
        self.events.push_back(MediaEvent::Frame(TaggedFrame { tag, frame }));
    }
}

/// A tag before anything is known of its frame.
const NO_TAG: SegmentTag = SegmentTag {
    msn: 0,
    discontinuity: false,
    boundary: false,
    independent: false,
    init_version: 0,
    duration: 0,
    may_be_last: false,
};
