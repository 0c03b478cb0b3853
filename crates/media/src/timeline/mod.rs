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
//! - **Video.** Decoding times grow strictly, by no less than about half the frame time. A picture whose time
//!   does not grow so is moved forward, and its composition offset shrinks by as much, so that it is
//!   shown at its exact time. A picture with the composition offset of the picture before it is taken to be
//!   shown in decoding order, and is shown later, too: otherwise two of them would be shown at one
//!   time. Times that jitter around a steady rate are put on its grid (`cadence`). If a sender with B-frames
//!   sends presentation times as decoding times, decoding times are recovered (`order`). If the times of
//!   pictures stand still, pictures are timed by their arrival.
//! - **Audio.** Audio is counted in samples; its times only anchor the count (`audio`), because RTMP rounds
//!   them to milliseconds, senders batch frames, and clocks drift. A hole is filled with silent frames, or
//!   left if no silent frame is known for the codec and channels. No frame is dropped because its time
//!   strays.
//! - **Absent audio.** A player stalls if one of its tracks does. So audio that was announced but
//!   stays away is replaced by silence: after [`AUDIO_START_LIMIT`] at the start and
//!   [`AUDIO_STALL_LIMIT`] later, until audio comes again. Frames whose times the silence covers are left out.
//!   One step adds at most [`MAX_SILENCE`], and all silence grows no faster than eight times the time
//!   that passes; what lies further back stays a hole. If only metadata announced it, its configuration is
//!   assumed from the first keyframe on, because a player chooses its tracks once. The real configuration
//!   replaces the assumed one without any event if both have the same codec and record.
//!   Frames that come before the real configuration are dropped.
//! - **Discontinuities.** A time more than [`JUMP_LIMIT`] beyond both tracks, more than
//!   [`STEP_BACK_LIMIT`] behind its own track of pictures or [`BACK_LIMIT`] behind its own track of audio,
//!   is no pause but another clock. The timeline goes on without a hole and the frame is marked as
//!   discontinuous. The other track usually jumps alike a moment later; it takes over the new offset and is
//!   not marked again. A track that runs alone may pause for longer, if as much time has passed or if its
//!   steps are always as long: a slow camera is no clock that jumps.
//!
//! The caller may tell when frames arrive ([`Timeline::arrive`]); without it, what needs a second clock is
//! decided by the times alone.
//!
//! AAC priming is neither trimmed nor signalled: the publisher's first frame plays at its own
//! timestamp, as in RTMP.

mod absent_audio;
mod audio;
mod cadence;
mod clock;
mod limits;
mod order;
mod video;

use std::collections::VecDeque;

use audio::{Arriving, AudioCount, Verdict, Witness};
use cadence::Cadence;
use clock::SourceClock;
pub use limits::{
    AUDIO_SLACK, AUDIO_STALL_LIMIT, AUDIO_START_LIMIT, BACK_LIMIT, JUMP_LIMIT, MAX_SILENCE, MIN_STEP,
    STEP_BACK_LIMIT, TIMELINE_START,
};
use millrace_buf::ByteChain;
use order::DecodingOrder;

use crate::fill_budget::FillBudget;
use crate::frame::{AudioConfig, AudioFrame, MediaFrame, TrackConfig, TrackKind, VideoConfig};
use crate::repair::{Repair, RepairCounts};
use crate::time::Timescale;

/// Longest distance between pictures, in 90 kHz ticks (250 ms), up to which they tell how much time passes
/// between audio frames.
const WITNESS_STEP: i64 = 22_500;
/// Furthest that the latest picture may lie behind the audio to tell it, in 90 kHz ticks (1 s): pictures may
/// have paused.
const WITNESS_AGE: i64 = 90_000;

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

/// The repaired timeline of one publish; the module describes the rules.
#[derive(Debug, Default)]
pub struct Timeline {
    clock: SourceClock,
    order: DecodingOrder,
    cadence: Cadence,
    video_config: Option<VideoConfig>,
    audio_config: Option<AudioConfig>,
    /// The audio that metadata announced, until its configuration is known or assumed.
    expected_audio: Option<AudioConfig>,
    /// True while `audio_config` is assumed from metadata. The publisher's audio frames are dropped
    /// until its own configuration comes.
    audio_is_assumed: bool,
    /// The decoding time of the most recent picture, in 90 kHz ticks.
    last_dts: Option<i64>,
    /// The source's composition offset of the most recent picture, in 90 kHz ticks.
    last_cts: Option<i64>,
    /// Pictures for which composition offsets are no multiples of the frame time.
    ragged_offsets: u32,
    /// The decoding times of the first keyframe and of the most recent one, in 90 kHz ticks.
    first_keyframe: Option<i64>,
    last_keyframe: Option<i64>,
    /// The decoding time and the arrival of the first picture, in 90 kHz ticks.
    first_picture: Option<(i64, Option<i64>)>,
    /// The time at which audio was announced, in 90 kHz ticks; silence never reaches back before it.
    audio_announced: i64,
    /// The end of the most recent audio frame in samples, where the next one begins.
    next_audio: Option<i64>,
    count: AudioCount,
    /// The decoding time of the most recent picture when the latest audio frame came, in 90 kHz ticks.
    heard_at: Option<i64>,
    /// True while silence replaces audio.
    is_silent: bool,
    silence: FillBudget<MAX_SILENCE>,
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

    /// Sets the arrival of the frames that follow: the time of the caller's clock since any origin, in 90 kHz ticks.
    pub const fn arrive(&mut self, now: i64) {
        self.clock.arrive(now);
    }

    /// Returns the oldest event that was not returned yet.
    pub fn poll(&mut self) -> Option<TimelineEvent> {
        self.events.pop_front()
    }

    /// Sets the video configuration; repeating the same one changes nothing.
    pub fn video_config(&mut self, config: VideoConfig) {
        if self.video_config.as_ref() != Some(&config) {
            self.cadence.declare(config.frame_rate);
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
        self.audio_is_assumed = false;
        match self.audio_config.replace(config.clone()) {
            None => self.audio_announced = self.clock.greatest().unwrap_or(TIMELINE_START),
            // The sample count goes on at the new rate from the time that it had reached.
            Some(old) if old.rate != config.rate => {
                let rescale = |next| old.timescale().convert(next, config.timescale());
                self.next_audio = self.next_audio.map(rescale);
            }
            Some(_) => {}
        }
        self.events.push_back(TimelineEvent::Config(TrackConfig::Audio(config)));
    }

    /// Processes an audio frame; `time` is the source's, unwrapped, in 90 kHz ticks. The frame is
    /// dropped and counted if no configuration came before it, or if silence was sent for its time.
    pub fn push_audio(&mut self, time: i64, data: impl Into<ByteChain>) {
        let Some(config) = self.audio_config.as_ref().filter(|_| !self.audio_is_assumed) else {
            self.repairs.add(Repair::UnconfiguredAudio, 1);
            return;
        };
        let data = data.into();
        let (scale, samples) = (config.timescale(), i64::from(config.samples_of(&data)));
        let due = self.next_audio.map(|next| scale.convert(next, Timescale::VIDEO));
        let gap = self.clock.arrival_gap(TrackKind::Audio);
        let mapped = self.clock.map(TrackKind::Audio, time, due, BACK_LIMIT);
        if mapped.is_moved {
            self.count.restart();
        }
        if std::mem::take(&mut self.is_silent) && !mapped.is_moved {
            self.count.end_silence();
        }
        self.heard_at = self.last_dts;
        let expected = due.unwrap_or(mapped.time);
        let length = scale.convert(samples, Timescale::VIDEO);
        let witness = self.witness(expected);
        let arriving = Arriving { actual: mapped.time, expected, length, witness, gap };
        let Some(pts) = self.place_audio(arriving) else { return };
        self.next_audio = Some(pts + samples);
        self.clock.advance(scale.convert(pts, Timescale::VIDEO));
        self.emit(MediaFrame::Audio(AudioFrame { pts, data }), mapped.is_jump);
    }

    /// Returns the clock that judges audio which is due at `due`: the pictures if they come often and go on, else
    /// the arrival.
    fn witness(&self, due: i64) -> Option<Witness> {
        let come_often = self.clock.picture_step().abs() <= WITNESS_STEP;
        let pictures = self.last_dts.filter(|dts| come_often && due - dts <= WITNESS_AGE);
        pictures.map(Witness::Pictures).or(self.clock.arrival().map(Witness::Arrival))
    }

    /// Returns the place of an audio frame in samples, and fills the hole before it; `None` if the frame is
    /// left out.
    fn place_audio(&mut self, frame: Arriving) -> Option<i64> {
        let config = self.audio_config.as_ref()?;
        let actual = Timescale::VIDEO.convert(frame.actual, config.timescale());
        let frame_samples = i64::from(config.frame_samples);
        let Some(next) = self.next_audio else { return Some(actual) };
        match self.count.judge(frame) {
            Verdict::Follows => {}
            Verdict::Strays(ticks) => {
                self.repairs.add(Repair::AudioTimesStray, 1);
                self.clock.shift_audio(-ticks);
            }
            Verdict::Hole => {
                self.repairs.add(Repair::AudioHole, 1);
                if !self.add_silence_until(actual - frame_samples, Repair::SilenceInHole) {
                    self.next_audio = Some(actual);
                }
            }
            Verdict::TooFew => {
                self.repairs.add(Repair::AudioHole, 1);
                if !self.add_silence_until(next, Repair::SilenceInHole) {
                    self.next_audio = Some(next + frame_samples);
                }
            }
            Verdict::TooMany => {
                self.repairs.add(Repair::AudioOverlap, 1);
                return None;
            }
            Verdict::Late => {
                self.repairs.add(Repair::AudioBehindSilence, 1);
                return None;
            }
        }
        self.next_audio
    }

    /// Emits a frame with its repaired time.
    fn emit(&mut self, frame: MediaFrame, discontinuity: bool) {
        self.repairs.add(Repair::ClockJump, u64::from(discontinuity));
        self.events.push_back(TimelineEvent::Frame { frame, discontinuity });
    }
}
