//! Timestamp repair: the clocks of one publish become one timeline. A *publish* is what a publisher
//! sends from its first to its last frame over one connection.
//!
//! Encoders send timestamps that start anywhere, jitter, stand still, jump, or stop for one track.
//! A player needs the opposite: decoding times that grow strictly and tracks that stay in sync. A
//! [`Timeline`] takes the configurations and frames of one publish, with unwrapped times of the
//! source's clock in 90 kHz ticks, and returns the same frames, byte for byte, with times of its
//! own: 90 kHz ticks for pictures, samples at the audio's rate for audio. The caller, a publisher's
//! session on an ingest node, feeds it and then drains [`Timeline::poll`]. No call fails: a frame
//! that cannot be used is dropped and counted in [`RepairCounts`]. The timeline decides nothing about
//! segments; the segmenter comes next.
//!
//! - **One zero.** The first frame of either track is put at [`TIMELINE_START`]. The other track
//!   keeps its distance from it, so that audio and video stay in sync. If it starts more than
//!   [`JUMP_LIMIT`] ahead or `LATE_START_LIMIT` behind, the source counts its tracks from
//!   different zeros, and the second track is put at the greatest time of the first. No second track starts
//!   before 100 ms (`EARLIEST`).
//! - **Video.** Decoding times grow strictly. A picture whose time does not grow is moved forward
//!   by as little as needed, and its composition offset shrinks by as much, so that it is shown at
//!   its exact time. A picture with the composition offset of the picture before it is taken to be
//!   shown in decoding order, and is shown later, too: otherwise two of them would be shown at one
//!   time.
//! - **Audio.** Audio is counted in samples; timestamps only anchor the count, because RTMP rounds
//!   them to milliseconds and senders batch frames. While a timestamp is within [`AUDIO_SLACK`] of
//!   the count, the count wins. A frame that lies earlier is dropped. A frame that lies later
//!   follows a hole, which is filled with silent frames, or left if no silent frame is known for
//!   the codec and channels.
//! - **Absent audio.** A player stalls if one of its tracks does. So audio that was announced but
//!   stays away is replaced by silence: after [`AUDIO_START_LIMIT`] at the start and
//!   [`AUDIO_STALL_LIMIT`] later, until audio comes whose times lie behind the silence. One step adds
//!   at most [`MAX_SILENCE`]; what lies further back stays a hole. If only metadata announced it, its configuration is assumed from
//!   the first keyframe on, because a player chooses its tracks once. The real configuration
//!   replaces the assumed one without any event if both have the same codec and record.
//!   Frames that come before the real configuration are dropped.
//! - **Discontinuities.** A time more than [`JUMP_LIMIT`] beyond both tracks, or more than
//!   [`BACK_LIMIT`] behind its own, is no pause but another clock. The timeline goes on without a
//!   hole and the frame is marked as discontinuous. The other track usually jumps alike a moment
//!   later; it takes over the new offset and is not marked again. A step back within
//!   [`BACK_LIMIT`] is jitter: the track follows it, and its decoding times creep on by the smallest
//!   step until the source's times have caught up.
//!
//! AAC priming is neither trimmed nor signalled: the publisher's first frame plays at its own
//! timestamp, as in RTMP.

use std::collections::VecDeque;

use millrace_buf::ByteChain;

use crate::frame::{AccessUnit, AudioConfig, AudioFrame, MediaFrame, SyncKind, TrackConfig, VideoConfig};
use crate::repair::{Repair, RepairCounts};
use crate::time::Timescale;

/// The time of the first frame, in 90 kHz ticks. It is one second and not zero, so that a track
/// that starts a little before the other stays positive: `tfdt`, the decoding time in CMAF, is
/// unsigned.
pub const TIMELINE_START: i64 = 90_000;
/// Largest step forward beyond both tracks that still counts as a pause, in 90 kHz ticks (1.5 s).
/// It is below the smallest target duration (2 s), so that a segment can hold the pause.
pub const JUMP_LIMIT: i64 = 135_000;
/// Largest step back of a track's times that still counts as jitter, in 90 kHz ticks (1 s).
pub const BACK_LIMIT: i64 = 90_000;
/// Largest distance of an audio timestamp from the sample count that is ignored, in 90 kHz ticks
/// (100 ms).
pub const AUDIO_SLACK: i64 = 9_000;
/// Silence starts if announced audio has not come this long after the first keyframe, or after its
/// announcement if that came later. 90 kHz ticks (400 ms).
pub const AUDIO_START_LIMIT: i64 = 36_000;
/// Silence starts if audio that has come before is this far behind the pictures. 90 kHz ticks (2
/// s).
pub const AUDIO_STALL_LIMIT: i64 = 180_000;
/// Most silence that one frame of the source can add, in 90 kHz ticks (5 s): the longest stall before
/// silence starts and a pause of the largest size on top of it, twice. It bounds what is made up when
/// a codec without a silent frame is replaced by one that has it.
pub const MAX_SILENCE: i64 = AUDIO_STALL_LIMIT + 2 * JUMP_LIMIT;
/// Smallest step between decoding times, and between the two sides of a discontinuity, in 90 kHz
/// ticks (1 ms, the resolution of RTMP).
pub const MIN_STEP: i64 = 90;
/// Configurations accepted per publish. Later ones are ignored and counted, and
/// the frames behind them keep the last accepted one. Each configuration costs an init segment and
/// may cut a segment; a publisher that switches scenes or encoders stays far below.
const MAX_CONFIG_CHANGES: u32 = 256;
/// Largest composition offset accepted, in 90 kHz ticks (8 s: 16 reordered pictures at 2 per
/// second). A larger one is replaced by 0.
const MAX_CTS: i64 = 720_000;
/// Furthest that a second track may start behind the first with the same zero, in 90 kHz ticks (3
/// s).
const LATE_START_LIMIT: i64 = 270_000;
/// Earliest time at which a second track starts, in 90 kHz ticks (100 ms), because `tfdt` is
/// unsigned.
const EARLIEST: i64 = 9_000;

/// One step of the repaired timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimelineEvent {
    /// A new configuration, which the frames of its track that follow need.
    Config(TrackConfig),
    /// A frame with its repaired time.
    Frame {
        /// The frame, its coded bytes unchanged.
        frame: MediaFrame,
        /// True if the source's clock jumped between the track's frame before and this one.
        discontinuity: bool,
    },
}

/// The mapping of one track from the source's clock to the timeline.
#[derive(Debug, Default)]
struct TrackClock {
    /// Ticks to add to the source's time; `None` before the first frame.
    offset: Option<i64>,
    /// The time of the track's most recent frame on the timeline, in 90 kHz ticks.
    last: i64,
}

/// The repaired timeline of one publish; the module describes the rules.
#[derive(Debug, Default)]
pub struct Timeline {
    video: TrackClock,
    audio: TrackClock,
    video_config: Option<VideoConfig>,
    audio_config: Option<AudioConfig>,
    /// The audio that metadata announced, until its configuration is known or assumed.
    expected_audio: Option<AudioConfig>,
    /// True while `audio_config` is assumed from metadata. The publisher's audio frames are dropped
    /// until its own configuration comes.
    audio_is_assumed: bool,
    config_changes: u32,
    /// The greatest time of either track so far, in 90 kHz ticks.
    greatest: Option<i64>,
    /// The decoding time of the most recent picture, in 90 kHz ticks.
    last_dts: Option<i64>,
    /// The source's composition offset of the most recent picture, in 90 kHz ticks.
    last_cts: Option<i64>,
    /// The decoding time of the first keyframe, in 90 kHz ticks.
    first_keyframe: Option<i64>,
    /// The time at which audio was announced, in 90 kHz ticks; silence never reaches back before it.
    audio_announced: i64,
    /// The end of the most recent audio frame in samples, where the next one begins.
    next_audio: Option<i64>,
    /// True while silence replaces audio.
    is_silent: bool,
    events: VecDeque<TimelineEvent>,
    repairs: RepairCounts,
}

impl Timeline {
    /// Creates a timeline without any frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the counts of all repairs so far.
    pub const fn repairs(&self) -> &RepairCounts {
        &self.repairs
    }

    /// Returns the oldest event that was not returned yet.
    pub fn poll(&mut self) -> Option<TimelineEvent> {
        self.events.pop_front()
    }

    /// Sets the video configuration; repeating the same one changes nothing.
    pub fn video_config(&mut self, config: VideoConfig) {
        if self.video_config.as_ref() != Some(&config) && self.count_config_change() {
            self.video_config = Some(config.clone());
            self.events.push_back(TimelineEvent::Config(TrackConfig::Video(config)));
        }
    }

    /// Sets the configuration of audio that metadata announces; it is valid until the track's own
    /// configuration comes.
    pub fn expect_audio(&mut self, config: AudioConfig) {
        if self.audio_config.is_none() {
            self.expected_audio = Some(config);
            if self.first_keyframe.is_some() {
                self.assume_audio();
            }
        }
    }

    /// Uses the configuration from metadata as long as the track has none of its own.
    fn assume_audio(&mut self) {
        if let Some(config) = self.expected_audio.take().filter(|_| self.audio_config.is_none()) {
            self.audio_config(config);
            self.audio_is_assumed = true;
        }
    }

    /// Sets the audio configuration; one with the same codec and configuration record changes nothing.
    pub fn audio_config(&mut self, config: AudioConfig) {
        if self.audio_config.as_ref().is_some_and(|old| old.same_decoder(&config)) {
            self.audio_is_assumed = false;
            return;
        }
        if !self.count_config_change() {
            return;
        }
        self.audio_is_assumed = false;
        match self.audio_config.replace(config.clone()) {
            None => self.audio_announced = self.greatest.unwrap_or(TIMELINE_START),
            // The sample count goes on at the new rate from the time that it had reached.
            Some(old) if old.rate != config.rate => {
                let rescale = |next| old.timescale().convert(next, config.timescale());
                self.next_audio = self.next_audio.map(rescale);
            }
            Some(_) => {}
        }
        self.events.push_back(TimelineEvent::Config(TrackConfig::Audio(config)));
    }

    /// Counts a new configuration; false if there were too many, and it must be ignored.
    fn count_config_change(&mut self) -> bool {
        self.config_changes = self.config_changes.saturating_add(1);
        let is_allowed = self.config_changes <= MAX_CONFIG_CHANGES;
        self.repairs.add(Repair::ConfigRefused, u64::from(!is_allowed));
        is_allowed
    }

    /// Processes an access unit. `dts` and `cts` are the source's decoding time, unwrapped, and
    /// composition offset in 90 kHz ticks. The access unit is dropped and counted if no configuration
    /// came before it or its inner lengths do not add up.
    pub fn push_video(&mut self, dts: i64, cts: i64, data: impl Into<ByteChain>) {
        let Some(config) = &self.video_config else {
            self.repairs.add(Repair::UnconfiguredPicture, 1);
            return;
        };
        let data = data.into();
        let Ok(sync) = config.sync_of(&data, false) else {
            self.repairs.add(Repair::MalformedPicture, 1);
            return;
        };
        self.push_picture(dts, cts, sync, data);
    }

    /// Processes an access unit whose kind is known. `dts` and `cts` are the source's decoding time,
    /// unwrapped, and composition offset in 90 kHz ticks. The access unit is dropped and counted if no
    /// configuration came before it.
    pub fn push_picture(&mut self, dts: i64, cts: i64, sync: SyncKind, data: ByteChain) {
        if self.video_config.is_none() {
            self.repairs.add(Repair::UnconfiguredPicture, 1);
            return;
        }
        if sync.is_join() {
            self.assume_audio();
        }
        let (time, discontinuity) = map_time(&mut self.video, &self.audio, self.greatest, dts);
        let is_offset_usable = cts.abs() <= MAX_CTS;
        let cts = if is_offset_usable { cts } else { 0 };
        let dts = self.last_dts.map_or(time, |last| time.max(last + MIN_STEP));
        let is_shown_in_decoding_order = self.last_cts.replace(cts) == Some(cts);
        let pts = cts + if is_shown_in_decoding_order { dts } else { time };
        self.repairs.add(Repair::DecodingTimeMoved, u64::from(dts != time));
        self.last_dts = Some(dts);
        if sync.is_join() {
            self.first_keyframe.get_or_insert(dts);
        }
        self.advance(dts);
        let is_in_reach = (pts - dts).abs() <= MAX_CTS;
        self.repairs.add(Repair::CompositionOffsetReset, u64::from(!is_offset_usable || !is_in_reach));
        let cts = (pts - dts).clamp(-MAX_CTS, MAX_CTS) as i32;
        self.emit(MediaFrame::Video(AccessUnit { dts, cts, sync, data }), discontinuity);
        self.replace_absent_audio(dts);
    }

    /// Processes an audio frame; `time` is the source's, unwrapped, in 90 kHz ticks. The frame is
    /// dropped and counted if no configuration came before it or it lies before audio that was sent.
    pub fn push_audio(&mut self, time: i64, data: impl Into<ByteChain>) {
        let Some(config) = self.audio_config.as_ref().filter(|_| !self.audio_is_assumed) else {
            self.repairs.add(Repair::UnconfiguredAudio, 1);
            return;
        };
        let data = data.into();
        let (scale, samples) = (config.timescale(), i64::from(config.samples_of(&data)));
        let silence = config.silent_frame().map(|_| i64::from(config.frame_samples));
        let (time, discontinuity) = map_time(&mut self.audio, &self.video, self.greatest, time);
        self.advance(time);
        let actual = Timescale::VIDEO.convert(time, scale);
        let slack = Timescale::VIDEO.convert(AUDIO_SLACK, scale);
        let expected = self.next_audio.unwrap_or(actual);
        if actual < expected - slack && !discontinuity {
            self.repairs.add(Repair::AudioOverlap, 1);
            return;
        }
        self.is_silent = false;
        let mut pts = expected;
        if actual > expected + slack {
            self.repairs.add(Repair::AudioHole, 1);
            pts = actual;
            if let Some(frame_samples) = silence {
                self.add_silence_until(actual - frame_samples, Repair::SilenceInHole);
                pts = self.next_audio.unwrap_or(actual);
            }
        }
        self.next_audio = Some(pts + samples);
        self.emit(MediaFrame::Audio(AudioFrame { pts, data }), discontinuity);
    }

    /// Emits a frame with its repaired time.
    fn emit(&mut self, frame: MediaFrame, discontinuity: bool) {
        self.repairs.add(Repair::ClockJump, u64::from(discontinuity));
        self.events.push_back(TimelineEvent::Frame { frame, discontinuity });
    }

    /// Moves the greatest time of either track forward to `time`.
    fn advance(&mut self, time: i64) {
        self.greatest = Some(self.greatest.map_or(time, |greatest| greatest.max(time)));
    }

    /// Adds silence up to the picture at `dts` if announced audio stays away.
    fn replace_absent_audio(&mut self, dts: i64) {
        let (Some(config), Some(first)) = (&self.audio_config, self.first_keyframe) else { return };
        let scale = config.timescale();
        let first = first.max(self.audio_announced);
        let is_absent = match self.next_audio {
            _ if self.is_silent => true,
            None => dts - first > AUDIO_START_LIMIT,
            Some(next) => dts - scale.convert(next, Timescale::VIDEO) > AUDIO_STALL_LIMIT,
        };
        if !is_absent || config.silent_frame().is_none() {
            return;
        }
        let limit = Timescale::VIDEO.convert(dts, scale) - i64::from(config.frame_samples);
        self.is_silent = true;
        self.next_audio.get_or_insert(Timescale::VIDEO.convert(first, scale));
        self.add_silence_until(limit, Repair::SilenceForAbsentAudio);
    }

    /// Adds silent frames while they start at or before `limit`, in samples, at most [`MAX_SILENCE`]
    /// before it: a hole that begins earlier stays a hole up to there.
    fn add_silence_until(&mut self, limit: i64, repair: Repair) {
        let (Some(config), Some(next)) = (&self.audio_config, self.next_audio) else { return };
        let Some(data) = config.silent_frame() else { return };
        let mut next = next.max(limit - Timescale::VIDEO.convert(MAX_SILENCE, config.timescale()));
        while next <= limit {
            let frame = MediaFrame::Audio(AudioFrame { pts: next, data: data.clone().into() });
            self.events.push_back(TimelineEvent::Frame { frame, discontinuity: false });
            self.repairs.add(repair, 1);
            next += i64::from(config.frame_samples);
        }
        self.next_audio = Some(next);
    }
}

/// Maps a time of the source onto the timeline and updates the track's offset. The second value is
/// true if the time does not continue its track: a discontinuity. `greatest` is the greatest time of
/// either track.
fn map_time(track: &mut TrackClock, other: &TrackClock, greatest: Option<i64>, time: i64) -> (i64, bool) {
    let greatest = greatest.unwrap_or(TIMELINE_START);
    let Some(offset) = track.offset else {
        let common_start = EARLIEST.max(greatest - LATE_START_LIMIT)..=greatest + JUMP_LIMIT;
        let shared = other.offset.filter(|shared| common_start.contains(&(time + shared)));
        let offset = shared.unwrap_or(greatest - time);
        *track = TrackClock { offset: Some(offset), last: time + offset };
        return (track.last, false);
    };
    let continues = |mapped: i64| {
        // The greatest time is never below the track's own.
        mapped >= track.last - BACK_LIMIT && mapped <= greatest + JUMP_LIMIT
    };
    let mut mapped = time + offset;
    let mut discontinuity = false;
    if !continues(mapped) {
        // If the other track has jumped before, its new offset holds for this track, too.
        if let Some(shared) = other.offset.filter(|shared| *shared != offset && continues(time + shared)) {
            mapped = time + shared;
        } else {
            mapped = greatest + MIN_STEP;
            discontinuity = true;
        }
        track.offset = Some(mapped - time);
    }
    track.last = mapped;
    (mapped, discontinuity)
}
