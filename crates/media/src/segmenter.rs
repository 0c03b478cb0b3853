//! Segment boundaries, decided once, where the media enters.
//!
//! - A segment starts at the first keyframe at or after [`SEGMENT_AIM`], on decoding time. A keyframe is taken earlier
//!   when waiting for the next one would exceed the target duration, or when the open segment is not independent.
//! - No keyframe by TARGETDURATION: a synthetic boundary, and the segment is not independent.
//! - Audio alone is cut every [`SEGMENT_AIM`]. While pictures stay away by more than [`VIDEO_STALL`], audio drives the
//!   boundaries, so that segments keep coming.
//! - New codec parameters are a new init version, a boundary and a discontinuity, with the same numbering.
//! - Audio belongs to the segment in whose time it starts, but at most one segment behind the pictures: whoever packages
//!   may close an audio segment when the pictures are two further.

use std::collections::VecDeque;

use crate::frame::{
    AccessUnit, AudioFrame, MediaEvent, MediaFrame, SegmentTag, TaggedFrame, TrackConfig, TrackKind,
};
use crate::time::Timescale;
use crate::timeline::TimelineEvent;

/// Aimed segment duration in 90 kHz ticks (2 s).
pub const SEGMENT_AIM: i64 = 180_000;
/// A keyframe this much early still counts as on time: millisecond timestamps round. 90 kHz ticks (100 ms).
pub const BOUNDARY_SLACK: i64 = 9_000;
/// Audio drives the boundaries when pictures are this far behind it. 90 kHz ticks (1 s).
pub const VIDEO_STALL: i64 = 90_000;
/// Audio without any sign of video for this long is an audio-only stream. 90 kHz ticks (500 ms).
pub const AUDIO_ONLY_WAIT: i64 = 45_000;
/// Announced video without a keyframe for this long lets audio start alone. 90 kHz ticks (10 s).
pub const KEYFRAME_WAIT: i64 = 900_000;
/// How much audio from before the first keyframe is kept. 90 kHz ticks (500 ms).
const HELD_AUDIO: i64 = 45_000;
/// Shortest segment that a timestamp discontinuity may cut. 90 kHz ticks (500 ms).
const MIN_DISCONTINUITY_SEGMENT: i64 = 45_000;
/// Frames longer than this say nothing about the frame rate. 90 kHz ticks (500 ms).
const MAX_FRAME: i64 = 45_000;

/// Settings of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmenterConfig {
    /// Media sequence number of the first segment.
    pub first_msn: u64,
    /// The first segment follows other media of this stream (any epoch but the first).
    pub discontinuity: bool,
    /// EXT-X-TARGETDURATION in seconds, 2 to 10.
    pub target_duration: u32,
}

/// What happened, for a stream's health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmenterStats {
    /// Boundaries without a keyframe, in a stream with video.
    pub synthetic_boundaries: u64,
    /// Pictures before the first keyframe, or between new parameters and theirs.
    pub undecodable_dropped: u64,
    /// Audio frames too old when the first segment began.
    pub early_audio_dropped: u64,
    /// Longest distance between keyframes in 90 kHz ticks.
    pub longest_gop: i64,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    msn: u64,
    /// Decoding time of the boundary unit in 90 kHz ticks.
    start: i64,
    /// Earliest time of any unit in it, which is audio's when that comes late after a hole.
    earliest: i64,
    independent: bool,
    /// Earliest time in the segment before.
    previous: i64,
}

/// See the module.
#[derive(Debug)]
pub struct Segmenter {
    config: SegmenterConfig,
    target: i64,
    open: Option<Open>,
    video: Track,
    audio: Track,
    held: VecDeque<AudioFrame>,
    first_held: Option<i64>,
    last_dts: Option<i64>,
    last_keyframe: Option<i64>,
    frame: i64,
    gop: i64,
    audio_msn: u64,
    pending: bool,
    out: VecDeque<MediaEvent>,
    stats: SegmenterStats,
}

#[derive(Debug, Default)]
struct Track {
    config: Option<TrackConfig>,
    version: u32,
    /// Units of the newest version wait for a boundary.
    changed: bool,
    started: bool,
}

impl Segmenter {
    /// A segmenter for one epoch.
    pub fn new(config: SegmenterConfig) -> Self {
        Self {
            target: i64::from(config.target_duration.clamp(2, 10)) * 90_000,
            open: None,
            video: Track::default(),
            audio: Track::default(),
            held: VecDeque::new(),
            first_held: None,
            last_dts: None,
            last_keyframe: None,
            frame: 3_000,
            gop: 0,
            audio_msn: config.first_msn,
            pending: config.discontinuity,
            out: VecDeque::new(),
            stats: SegmenterStats::default(),
            config,
        }
    }

    /// The number of the open segment; `None` before the first unit.
    pub fn open_msn(&self) -> Option<u64> {
        self.open.map(|open| open.msn)
    }

    /// What happened so far.
    pub const fn stats(&self) -> SegmenterStats {
        self.stats
    }

    /// The newest init events, for whoever joins late.
    pub fn inits(&self) -> impl Iterator<Item = MediaEvent> + '_ {
        [&self.video, &self.audio].into_iter().filter_map(|track| {
            Some(MediaEvent::Init { version: track.version, config: track.config.clone()? })
        })
    }

    /// The next event.
    pub fn poll(&mut self) -> Option<MediaEvent> {
        self.out.pop_front()
    }

    /// Takes what the timeline gives.
    pub fn push(&mut self, event: TimelineEvent) {
        match event {
            TimelineEvent::Config(config) => self.configure(config),
            TimelineEvent::Frame { unit, discontinuity } => {
                self.pending |= discontinuity && self.open.is_some();
                match unit {
                    MediaFrame::Video(unit) => self.video(unit),
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
        if matches!(config, TrackConfig::Audio(_)) {
            // What waits was coded for other parameters, and its times may count another rate.
            self.stats.early_audio_dropped += self.held.len() as u64;
            self.held.clear();
            self.first_held = None;
        }
        self.out.push_back(MediaEvent::Init { version: track.version, config });
    }

    fn video(&mut self, unit: AccessUnit) {
        if self.video.config.is_none() || (!unit.keyframe && (!self.video.started || self.video.changed)) {
            self.stats.undecodable_dropped += 1;
            return;
        }
        if let Some(last) = self.last_dts {
            let step = unit.dts - last;
            self.frame = if (1..=MAX_FRAME).contains(&step) { step } else { self.frame };
        }
        if unit.keyframe {
            self.gop = self.last_keyframe.map_or(0, |last| unit.dts - last);
            self.stats.longest_gop = self.stats.longest_gop.max(self.gop);
            self.last_keyframe = Some(unit.dts);
        }
        self.last_dts = Some(unit.dts);
        let boundary = self.video_boundary(&unit);
        // Pictures that join running audio change what the segments hold; so do new parameters.
        self.pending |= self.open.is_some() && (!self.video.started || self.video.changed);
        self.video.started = true;
        self.video.changed = false;
        let independent = unit.keyframe;
        let discontinuity = boundary && self.cut(unit.dts, independent);
        self.stats.synthetic_boundaries += u64::from(boundary && !independent);
        let first = self.held.len();
        self.stamp(MediaFrame::Video(unit), boundary, discontinuity, independent);
        for _ in 0..first {
            if let Some(frame) = self.held.pop_front() {
                self.audio(frame);
            }
        }
    }

    fn video_boundary(&self, unit: &AccessUnit) -> bool {
        let Some(open) = self.open else { return true };
        let elapsed = unit.dts - open.start;
        if !unit.keyframe {
            return unit.dts - open.earliest + self.frame > self.target;
        }
        !self.video.started
            || self.video.changed
            || !open.independent
            || (self.pending && elapsed >= MIN_DISCONTINUITY_SEGMENT)
            || elapsed >= SEGMENT_AIM - BOUNDARY_SLACK
            || unit.dts - open.earliest + self.gop > self.target
    }

    fn audio(&mut self, frame: AudioFrame) {
        let Some(TrackConfig::Audio(config)) = &self.audio.config else { return };
        let time = config.timescale().convert(frame.pts, Timescale::VIDEO);
        let length = config.timescale().convert(i64::from(crate::frame::AAC_FRAME_SAMPLES), Timescale::VIDEO);
        let Some(open) = self.open else {
            self.hold(frame, time);
            return;
        };
        let elapsed = time - open.start;
        let stalled = self.last_dts.is_none_or(|dts| time - dts > VIDEO_STALL);
        let limit = if self.video.started { self.target - length } else { SEGMENT_AIM };
        let boundary = self.audio.changed
            || (stalled && elapsed >= limit.min(self.target - length - (open.start - open.earliest)));
        let mut discontinuity = false;
        if boundary {
            self.pending |= self.audio.changed;
            let alone = !self.video.started;
            discontinuity = self.cut(time, alone);
            self.stats.synthetic_boundaries += u64::from(!alone);
        } else {
            // A segment that would grow beyond the target duration takes no more late audio.
            let fits = time + length - open.previous <= self.target;
            let behind = time < open.start && open.msn > self.audio_msn && fits;
            self.audio_msn = self.audio_msn.max(if behind { open.msn - 1 } else { open.msn });
            if !behind {
                self.open = Some(Open { earliest: open.earliest.min(time), ..open });
            }
        }
        self.audio.started = true;
        let independent = !boundary || !self.video.started;
        self.stamp(MediaFrame::Audio(frame), boundary, discontinuity, independent);
    }

    /// Audio waits for the first keyframe, or until it is clear that none comes.
    fn hold(&mut self, frame: AudioFrame, time: i64) {
        let first = *self.first_held.get_or_insert(time);
        let wait = if self.video.config.is_some() { KEYFRAME_WAIT } else { AUDIO_ONLY_WAIT };
        if time - first < wait {
            self.held.push_back(frame);
            self.trim_held(time);
            return;
        }
        let start = self.held.front().map_or(time, |held| self.audio_time(held));
        self.held.push_back(frame);
        let discontinuity = self.cut(start, true);
        let mut boundary = true;
        self.audio.started = true;
        while let Some(frame) = self.held.pop_front() {
            self.stamp(MediaFrame::Audio(frame), boundary, boundary && discontinuity, true);
            boundary = false;
        }
    }

    fn trim_held(&mut self, now: i64) {
        let keep = if self.video.config.is_some() { HELD_AUDIO } else { AUDIO_ONLY_WAIT };
        while self.held.front().is_some_and(|front| now - self.audio_time(front) > keep) {
            self.held.pop_front();
            self.stats.early_audio_dropped += 1;
        }
    }

    fn audio_time(&self, frame: &AudioFrame) -> i64 {
        match &self.audio.config {
            Some(TrackConfig::Audio(config)) => config.timescale().convert(frame.pts, Timescale::VIDEO),
            _ => 0,
        }
    }

    /// Opens the next segment at `start`; returns whether it follows a discontinuity.
    fn cut(&mut self, start: i64, independent: bool) -> bool {
        let msn = self.open.map_or(self.config.first_msn, |open| open.msn + 1);
        let previous = self.open.map_or(start, |open| open.earliest);
        self.open = Some(Open { msn, start, earliest: start, independent, previous });
        let floor = if self.audio.changed || !self.audio.started { msn } else { self.audio_msn.max(msn - 1) };
        self.audio_msn = floor.max(self.config.first_msn);
        self.audio.changed = false;
        std::mem::take(&mut self.pending)
    }

    fn stamp(&mut self, unit: MediaFrame, boundary: bool, discontinuity: bool, independent: bool) {
        let Some(open) = self.open else { return };
        let (msn, init_version) = match unit {
            MediaFrame::Video(_) => (open.msn, self.video.version),
            MediaFrame::Audio(_) if boundary => {
                self.audio_msn = open.msn;
                (open.msn, self.audio.version)
            }
            MediaFrame::Audio(_) => (self.audio_msn, self.audio.version),
        };
        let stamp = SegmentTag { msn, discontinuity, boundary, independent, init_version };
        self.out.push_back(MediaEvent::Frame(TaggedFrame { stamp, unit }));
    }
}
