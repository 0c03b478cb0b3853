//! Timestamp repair where media enters: every source's clock becomes one unwrapped timeline per stream.
//!
//! - Both tracks share one zero, [`TIMELINE_START`], so that audio and video stay in sync: the first unit of either
//!   track lands there, the other track keeps its distance. A track that starts more than [`JUMP_LIMIT`] away has a
//!   zero of its own and is put at the present instead.
//! - Decoding times grow strictly; a unit that would not is moved by as little as needed and its composition offset
//!   keeps its presentation time exact. Only where pictures are shown in decoding order (the composition offset is that of the
//!   one before) the presentation time moves along: it would collide, too, and no two pictures may be shown at one time.
//! - Audio is counted in samples: the millisecond timestamps only anchor the count. They may stray by
//!   [`AUDIO_SLACK`]; a hole beyond that is filled with silence (mono and stereo) or left, an overlap is dropped.
//! - Audio that is announced and absent ([`AUDIO_START_LIMIT`], [`AUDIO_STALL_LIMIT`]) is replaced by silence until it
//!   comes, because a player starves when one of its tracks does. Announced by metadata alone, its configuration is
//!   assumed from the first keyframe on, because a player chooses its tracks once; the real one takes its place
//!   without a trace when it decodes alike.
//! - A step of [`JUMP_LIMIT`] beyond both tracks, or [`BACK_LIMIT`] back, is a discontinuity: the
//!   timeline goes on without a hole and the unit says so.
//! - AAC priming is neither trimmed nor signalled: the publisher's first frame plays at its own timestamp, as in RTMP.

use std::collections::VecDeque;

use crate::codec::aac::silent_frame;
use crate::codec::h264;
use crate::container::flv::{FlvAudio, FlvVideo};
use crate::frame::{
    AAC_FRAME_SAMPLES, AccessUnit, AudioConfig, AudioFrame, MediaFrame, TrackConfig, VideoConfig,
};
use crate::time::{RtmpClock, Timescale};
use millrace_buf::ByteChain;

/// Where every timeline starts, in 90 kHz ticks: one second, so that a track that starts a little before the other,
/// or a negative composition offset, stays positive (`tfdt` is unsigned).
pub const TIMELINE_START: i64 = 90_000;
/// A step this far beyond both tracks is no pause of one of them but another timeline. 90 kHz ticks (1.5 s): a hole
/// must fit a segment below the smallest target duration.
pub const JUMP_LIMIT: i64 = 135_000;
/// A backward step beyond this is no reordering. 90 kHz ticks (1 s).
pub const BACK_LIMIT: i64 = 90_000;
/// How far audio timestamps may stray from the sample count. 90 kHz ticks (100 ms): senders batch frames.
pub const AUDIO_SLACK: i64 = 9_000;
/// Silence starts when announced audio has not come this long after the first keyframe. 90 kHz ticks (400 ms).
pub const AUDIO_START_LIMIT: i64 = 36_000;
/// Silence starts when running audio falls this far behind the pictures. 90 kHz ticks (2 s).
pub const AUDIO_STALL_LIMIT: i64 = 180_000;
/// Smallest step between decoding times. 90 kHz ticks (1 ms, RTMP's resolution).
pub const MIN_VIDEO_STEP: i64 = 90;
/// New configurations per publish; each one costs an init segment and may cut a segment. A publisher that
/// switches scenes or encoders stays far below.
const MAX_CONFIG_CHANGES: u32 = 256;
/// Composition offsets beyond this are nonsense (16 pictures at 2 per second). 90 kHz ticks (8 s).
const MAX_CTS: i64 = 720_000;
/// A second track that starts further in the past than this has its own zero. 90 kHz ticks (3 s).
const LATE_START_LIMIT: i64 = 270_000;
/// Nothing is put before this on the timeline; `tfdt` is unsigned. 90 kHz ticks (100 ms).
const EARLIEST: i64 = 9_000;

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimelineEvent {
    /// A new or changed configuration; units of this track follow it.
    Config(TrackConfig),
    /// A repaired unit.
    Frame {
        /// The unit.
        unit: MediaFrame,
        /// Its timestamp does not continue the one before it at the source.
        discontinuity: bool,
    },
}

/// What was repaired or refused, for metrics and a stream's health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepairStats {
    /// New configurations beyond the limit.
    pub configs_refused: u64,
    /// Units without a configuration before them.
    pub unconfigured: u64,
    /// Access units whose NAL unit lengths do not add up.
    pub malformed: u64,
    /// Decoding times moved to stay increasing.
    pub dts_repaired: u64,
    /// Audio frames that overlapped what was already there.
    pub audio_dropped: u64,
    /// Audio anchored anew after a hole.
    pub audio_reanchored: u64,
    /// Silent frames put in.
    pub silence_frames: u64,
    /// Discontinuities.
    pub discontinuities: u64,
}

/// One track's mapping from the source's clock.
#[derive(Debug, Default)]
struct TrackClock {
    /// Added to the source's 90 kHz time; `None` before the first unit.
    offset: Option<i64>,
    /// The latest mapped time.
    last: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Timeline {
    rtmp: RtmpClock,
    video: TrackClock,
    audio: TrackClock,
    video_config: Option<VideoConfig>,
    audio_config: Option<AudioConfig>,
    /// Audio that metadata announces, until there is a configuration.
    expected_audio: Option<AudioConfig>,
    /// The audio configuration is assumed: no frame can be decoded with it yet.
    assumed: bool,
    config_changes: u32,
    latest: Option<i64>,
    last_dts: Option<i64>,
    /// The source's composition offset of the latest picture.
    last_cts: Option<i64>,
    first_keyframe: Option<i64>,
    /// When audio was announced: what came before needs no silence.
    announced: i64,
    next_audio: Option<i64>,
    silent: bool,
    out: VecDeque<TimelineEvent>,
    stats: RepairStats,
}

impl Timeline {
    /// A timeline nothing has passed.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was repaired so far.
    pub const fn stats(&self) -> RepairStats {
        self.stats
    }

    /// The next event.
    pub fn poll(&mut self) -> Option<TimelineEvent> {
        self.out.pop_front()
    }

    /// The video configuration; repeating the same one changes nothing.
    pub fn video_config(&mut self, config: VideoConfig) {
        if self.video_config.as_ref() != Some(&config) && self.may_change() {
            self.video_config = Some(config.clone());
            self.out.push_back(TimelineEvent::Config(TrackConfig::Video(config)));
        }
    }

    /// Audio the publisher says it will send; its own configuration decides as soon as it comes.
    pub fn expect_audio(&mut self, config: AudioConfig) {
        if self.audio_config.is_none() {
            self.expected_audio = Some(config);
            if self.first_keyframe.is_some() {
                self.assume_audio();
            }
        }
    }

    fn assume_audio(&mut self) {
        if let Some(config) = self.expected_audio.take().filter(|_| self.audio_config.is_none()) {
            self.audio_config(config);
            self.assumed = true;
        }
    }

    /// The audio configuration; repeating the same one changes nothing.
    pub fn audio_config(&mut self, config: AudioConfig) {
        if self.audio_config.as_ref().is_some_and(|old| old.same_decoder(&config)) {
            self.assumed = false;
            return;
        }
        if !self.may_change() {
            return;
        }
        self.assumed = false;
        let Some(old) = self.audio_config.replace(config.clone()) else {
            self.announced = self.latest.unwrap_or(TIMELINE_START);
            self.out.push_back(TimelineEvent::Config(TrackConfig::Audio(config)));
            return;
        };
        if old.rate != config.rate {
            // The count goes on at the new rate, never before what the old one reached.
            let scale = |next| old.timescale().convert(next, config.timescale());
            self.next_audio = self.next_audio.map(scale);
        }
        self.out.push_back(TimelineEvent::Config(TrackConfig::Audio(config)));
    }

    fn may_change(&mut self) -> bool {
        self.config_changes = self.config_changes.saturating_add(1);
        let may = self.config_changes <= MAX_CONFIG_CHANGES;
        self.stats.configs_refused += u64::from(!may);
        may
    }

    /// An RTMP video message other than a sequence header; `timestamp_ms` is the message's.
    pub fn push_flv_video(&mut self, timestamp_ms: u32, video: FlvVideo) -> Result<(), h264::H264Error> {
        let millis = self.rtmp.unwrap(timestamp_ms);
        match video {
            FlvVideo::SequenceHeader(avcc) => self.video_config(VideoConfig::from_avcc(avcc)?),
            FlvVideo::Nalus { cts_ms, data, .. } => {
                self.push_video(millis * 90, i64::from(cts_ms) * 90, data);
            }
            FlvVideo::EndOfSequence => {}
        }
        Ok(())
    }

    /// An RTMP audio message; `timestamp_ms` is the message's.
    pub fn push_flv_audio(
        &mut self,
        timestamp_ms: u32,
        audio: FlvAudio,
    ) -> Result<(), crate::codec::aac::AacError> {
        let millis = self.rtmp.unwrap(timestamp_ms);
        match audio {
            FlvAudio::SequenceHeader(asc) => self.audio_config(AudioConfig::from_asc(asc)?),
            FlvAudio::Raw(data) => self.push_audio(millis * 90, data),
        }
        Ok(())
    }

    /// An access unit: unwrapped decoding time and composition offset of the source in 90 kHz ticks, AVCC bytes.
    ///
    /// Whether it is a keyframe is read from the NAL units: containers lie.
    pub fn push_video(&mut self, dts: i64, cts: i64, data: impl Into<ByteChain>) {
        let Some(config) = &self.video_config else {
            self.stats.unconfigured += 1;
            return;
        };
        let data = data.into();
        let Ok(keyframe) = h264::is_keyframe(&data, config.nal_length_size) else {
            self.stats.malformed += 1;
            return;
        };
        if keyframe {
            self.assume_audio();
        }
        let (time, jump) = map(&mut self.video, &self.audio, self.latest, dts);
        let cts = if cts.abs() > MAX_CTS { 0 } else { cts };
        let dts = self.last_dts.map_or(time, |last| time.max(last + MIN_VIDEO_STEP));
        let in_order = self.last_cts.replace(cts) == Some(cts);
        let pts = cts + if in_order { dts } else { time };
        self.stats.dts_repaired += u64::from(dts != time);
        self.last_dts = Some(dts);
        if keyframe {
            self.first_keyframe.get_or_insert(dts);
        }
        self.advance(dts);
        let cts = (pts - dts).clamp(-MAX_CTS, MAX_CTS) as i32;
        self.emit(MediaFrame::Video(AccessUnit { dts, cts, keyframe, data }), jump);
        self.fill_silence(dts);
    }

    /// An AAC frame at an unwrapped time of the source in 90 kHz ticks.
    pub fn push_audio(&mut self, time: i64, data: impl Into<ByteChain>) {
        let Some(config) = self.audio_config.as_ref().filter(|_| !self.assumed) else {
            self.stats.unconfigured += 1;
            return;
        };
        let (scale, channels) = (config.timescale(), config.channels);
        let (time, jump) = map(&mut self.audio, &self.video, self.latest, time);
        self.advance(time);
        let actual = Timescale::VIDEO.convert(time, scale);
        let slack = Timescale::VIDEO.convert(AUDIO_SLACK, scale);
        let expected = self.next_audio.unwrap_or(actual);
        if actual < expected - slack && !jump {
            self.stats.audio_dropped += 1;
            return;
        }
        self.silent = false;
        let mut pts = expected;
        if actual > expected + slack {
            self.stats.audio_reanchored += 1;
            match silent_frame(channels) {
                Some(_) => {
                    self.silence_until(actual - i64::from(AAC_FRAME_SAMPLES));
                    pts = self.next_audio.unwrap_or(actual);
                }
                None => pts = actual,
            }
        }
        self.next_audio = Some(pts + i64::from(AAC_FRAME_SAMPLES));
        self.emit(MediaFrame::Audio(AudioFrame { pts, data: data.into() }), jump);
    }

    fn emit(&mut self, unit: MediaFrame, jump: bool) {
        self.stats.discontinuities += u64::from(jump);
        self.out.push_back(TimelineEvent::Frame { unit, discontinuity: jump });
    }

    fn advance(&mut self, time: i64) {
        self.latest = Some(self.latest.map_or(time, |latest| latest.max(time)));
    }

    /// Announced audio that stays away becomes silence up to the picture at `dts`.
    fn fill_silence(&mut self, dts: i64) {
        let (Some(config), Some(first)) = (&self.audio_config, self.first_keyframe) else { return };
        let scale = config.timescale();
        let first = first.max(self.announced);
        let due = match self.next_audio {
            _ if self.silent => true,
            None => dts - first > AUDIO_START_LIMIT,
            Some(next) => dts - scale.convert(next, Timescale::VIDEO) > AUDIO_STALL_LIMIT,
        };
        if !due || silent_frame(config.channels).is_none() {
            return;
        }
        self.silent = true;
        self.next_audio.get_or_insert(Timescale::VIDEO.convert(first, scale));
        self.silence_until(Timescale::VIDEO.convert(dts, scale) - i64::from(AAC_FRAME_SAMPLES));
    }

    /// Silent frames while they start at or before `limit`, in samples. Bounded: callers are at most a jump away.
    fn silence_until(&mut self, limit: i64) {
        let (Some(config), Some(mut next)) = (&self.audio_config, self.next_audio) else { return };
        let Some(data) = silent_frame(config.channels) else { return };
        while next <= limit {
            let unit = MediaFrame::Audio(AudioFrame { pts: next, data: data.clone().into() });
            self.out.push_back(TimelineEvent::Frame { unit, discontinuity: false });
            self.stats.silence_frames += 1;
            next += i64::from(AAC_FRAME_SAMPLES);
        }
        self.next_audio = Some(next);
    }
}

/// Maps a time of the source onto the timeline; true when it does not continue its track.
fn map(track: &mut TrackClock, other: &TrackClock, latest: Option<i64>, time: i64) -> (i64, bool) {
    let latest = latest.unwrap_or(TIMELINE_START);
    let Some(offset) = track.offset else {
        let offset = match other.offset {
            Some(shared)
                if (EARLIEST.max(latest - LATE_START_LIMIT)..=latest + JUMP_LIMIT)
                    .contains(&(time + shared)) =>
            {
                shared
            }
            _ => latest - time,
        };
        track.offset = Some(offset);
        track.last = time + offset;
        return (track.last, false);
    };
    let continues = |mapped: i64| {
        mapped >= track.last - BACK_LIMIT
            && (mapped <= track.last + JUMP_LIMIT || mapped <= latest + JUMP_LIMIT)
    };
    let mut mapped = time + offset;
    let mut jump = false;
    if !continues(mapped) {
        // When the source's clock jumps, the other track has usually told already.
        if let Some(shared) = other.offset.filter(|shared| *shared != offset && continues(time + shared)) {
            mapped = time + shared;
        } else {
            mapped = latest + MIN_VIDEO_STEP;
            jump = true;
        }
        track.offset = Some(mapped - time);
    }
    track.last = mapped;
    (mapped, jump)
}
