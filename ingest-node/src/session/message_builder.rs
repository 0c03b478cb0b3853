//! From source frames to the tagged units of media messages, without I/O.
//!
//! One message carries one picture with the audio since the last one, or [`AUDIO_FLUSH`] of audio alone. A segment's
//! first message begins with the codec configurations, so that a worker can start at any segment.

use std::collections::VecDeque;
use std::time::Duration;

use millrace_link::media_convert::{self, ConfigPlace};
use millrace_media::frame::{AudioConfig, MediaEvent, MediaFrame, TaggedFrame, TrackConfig, TrackKind};
use millrace_media::repair::{Repair, RepairCounts};
use millrace_media::segmenter::{Segmenter, SegmenterConfig};
use millrace_media::time::Timescale;
use millrace_media::timeline::Timeline;
use millrace_wire::ids::{InitVersion, Msn};
use millrace_wire::message::control::{ClaimGrant, PublishLimits};
use millrace_wire::message::media::{MAX_UNITS, MediaUnit};

use super::acceptance::{check_codec, check_picture};
use super::bandwidth::Bandwidth;
use super::discontinuities::Discontinuities;
use super::source::{DeclaredAudio, MediaFault, SourceFrame, SourceMetadata};
use crate::limits::AUDIO_FLUSH;

/// Sampling rate and channels assumed of declared AAC whose metadata omits them: the defaults of live encoders.
const USUAL_AUDIO: (u32, u8) = (48_000, 2);

/// Repairs the timestamps of one publish, cuts it into segments and groups it into messages.
#[derive(Debug)]
pub(crate) struct MessageBuilder {
    limits: PublishLimits,
    bandwidth: Bandwidth,
    timeline: Timeline,
    segmenter: Segmenter,
    pending: Vec<MediaUnit>,
    /// Presentation time of the oldest pending audio frame, in samples.
    audio_since: Option<i64>,
    audio_rate: i64,
    discontinuities: Discontinuities,
    open_msn: Option<Msn>,
    /// The decoding time of the newest keyframe, and its distance from the one before, in 90 kHz ticks.
    last_keyframe: Option<i64>,
    keyframe_distance: Option<i64>,
    frames: FrameCounts,
    out: VecDeque<Vec<MediaUnit>>,
}

/// Numbers of frames sent, by track.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FrameCounts {
    /// Access units of the video track.
    pub(crate) video: u64,
    /// Frames of the audio track, with silence.
    pub(crate) audio: u64,
}

impl FrameCounts {
    /// Counts one more frame of `track`.
    pub(crate) fn count(&mut self, track: TrackKind) {
        match track {
            TrackKind::Video => self.video += 1,
            TrackKind::Audio => self.audio += 1,
        }
    }

    /// Returns the frames that came after `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let (video, audio) =
            (self.video.saturating_sub(earlier.video), self.audio.saturating_sub(earlier.audio));
        Self { video, audio }
    }
}

impl MessageBuilder {
    /// Creates a builder for a publisher that may send `max_bitrate` bits per second.
    pub(crate) fn new(grant: &ClaimGrant, max_bitrate: u64) -> Self {
        let first = grant.discontinuity_sequence;
        let config = SegmenterConfig {
            first_msn: grant.first_msn.0,
            discontinuity: grant.continues || first.0 > 0,
            target_duration: grant.settings.target_duration,
        };
        Self {
            limits: grant.limits.clone(),
            bandwidth: Bandwidth::new(max_bitrate, grant.settings.target_duration),
            timeline: Timeline::new(),
            segmenter: Segmenter::new(config),
            pending: Vec::new(),
            audio_since: None,
            audio_rate: 1,
            discontinuities: Discontinuities::new(grant.first_msn, first),
            open_msn: None,
            last_keyframe: None,
            keyframe_distance: None,
            frames: FrameCounts::default(),
            out: VecDeque::new(),
        }
    }

    /// Takes the publisher's declared properties.
    pub(crate) fn metadata(&mut self, metadata: &SourceMetadata) {
        self.bandwidth.declare(metadata);
        if let Some(audio) = metadata.aac.and_then(expected_audio) {
            self.timeline.expect_audio(audio);
        }
        self.advance();
    }

    /// Takes a codec configuration, or refuses its codec, or a picture larger than the stream's limit.
    pub(crate) fn config(&mut self, config: TrackConfig) -> Result<(), MediaFault> {
        check_codec(&config, &self.limits)?;
        match config {
            TrackConfig::Video(video) => {
                check_picture(video.width, video.height, &self.limits)?;
                self.timeline.video_config(video);
            }
            TrackConfig::Audio(audio) => self.timeline.audio_config(audio),
        }
        self.advance();
        Ok(())
    }

    /// Takes a coded frame that arrived at `now`, of any origin; a frame without a configuration before it is dropped.
    pub(crate) fn frame(&mut self, frame: SourceFrame, now: Duration) {
        let arrival = Timescale::VIDEO.ticks(now);
        self.timeline.arrive(arrival);
        self.segmenter.arrive(arrival);
        let SourceFrame { position, presentation_time, sync, data } = frame;
        let pts = position.video_ticks(presentation_time);
        match position.track {
            TrackKind::Video => {
                let dts = position.video_ticks(position.time);
                self.timeline.push_picture(dts, pts - dts, sync, data);
            }
            TrackKind::Audio => self.timeline.push_audio(pts, data),
        }
        self.advance();
    }

    /// Returns the units of the next message to publish.
    pub(crate) fn poll(&mut self) -> Option<Vec<MediaUnit>> {
        self.out.pop_front()
    }

    /// Completes the last message: no picture will follow the audio that waits for one.
    pub(crate) fn finish(&mut self) {
        // Configurations alone are no media: a publish without a usable frame leaves none behind.
        if self.pending.iter().any(|unit| unit.frame().is_some()) {
            self.flush();
        }
    }

    /// Returns the frames sent so far.
    pub(crate) fn frames(&self) -> FrameCounts {
        self.frames
    }

    /// Returns the repairs of the timeline and the segmenter.
    pub(crate) fn repairs(&self) -> RepairCounts {
        let mut repairs = *self.timeline.repairs();
        repairs.merge(self.segmenter.repairs());
        repairs
    }

    /// Returns the distance of the two newest keyframes in 90 kHz ticks.
    pub(crate) fn keyframe_distance(&self) -> Option<i64> {
        self.keyframe_distance
    }

    /// Returns the number of segments begun without a keyframe.
    pub(crate) fn synthetic_boundaries(&self) -> u64 {
        self.segmenter.repairs().get(Repair::SegmentWithoutKeyframe)
    }

    /// Returns the seconds of video since the last keyframe, or since the first picture if none came; `None` without
    /// video.
    pub(crate) fn since_keyframe_s(&self) -> Option<i64> {
        Some(self.timeline.since_keyframe()? / 90_000)
    }

    fn advance(&mut self) {
        while let Some(event) = self.timeline.poll() {
            self.segmenter.push(event);
        }
        while let Some(event) = self.segmenter.poll() {
            match event {
                MediaEvent::Init { version, config } => {
                    if let TrackConfig::Audio(audio) = &config {
                        self.audio_rate = i64::from(audio.rate);
                    }
                    let unit = self.config_unit(version, &config);
                    self.pending.push(unit);
                }
                MediaEvent::Frame(frame) => self.tagged_frame(frame),
            }
        }
    }

    fn tagged_frame(&mut self, TaggedFrame { tag, frame }: TaggedFrame) {
        if tag.boundary {
            self.bandwidth.boundary(self.start_ticks(&frame));
            self.begin_segment(tag.msn, tag.discontinuity);
        }
        self.bandwidth.count(frame.track(), frame.data().len());
        let (track, time) = match &frame {
            MediaFrame::Video(picture) => (TrackKind::Video, picture.dts),
            MediaFrame::Audio(frame) => (TrackKind::Audio, frame.pts),
        };
        if matches!(&frame, MediaFrame::Video(picture) if picture.sync.is_join()) {
            self.keyframe_distance = self.last_keyframe.map(|last| time - last);
            self.last_keyframe = Some(time);
        }
        let discontinuity_sequence = self.discontinuities.sequence_of(Msn(tag.msn));
        self.pending.push(media_convert::frame_unit(TaggedFrame { tag, frame }, discontinuity_sequence));
        match track {
            TrackKind::Video => {
                self.frames.video += 1;
                self.flush();
            }
            TrackKind::Audio => {
                self.frames.audio += 1;
                let since = *self.audio_since.get_or_insert(time);
                let held_ms = (time - since) * 1_000 / self.audio_rate;
                if held_ms >= AUDIO_FLUSH.as_millis() as i64 || self.pending.len() >= MAX_UNITS {
                    self.flush();
                }
            }
        }
    }

    /// Returns the start of a frame in 90 kHz ticks.
    fn start_ticks(&self, frame: &MediaFrame) -> i64 {
        match frame {
            MediaFrame::Video(picture) => picture.dts,
            MediaFrame::Audio(frame) => {
                Timescale::of_rate(self.audio_rate as u32).convert(frame.pts, Timescale::VIDEO)
            }
        }
    }

    /// Begins a segment: its first message begins with the configurations.
    fn begin_segment(&mut self, msn: u64, discontinuity: bool) {
        if self.pending.iter().any(|unit| unit.frame().is_some()) {
            self.flush();
        }
        let first = self.open_msn.replace(Msn(msn)).is_none();
        // The grant's number is the first segment's own, discontinuity or not.
        if discontinuity && !first {
            self.discontinuities.begin(Msn(msn));
        }
        self.pending.clear();
        let inits: Vec<MediaEvent> = self.segmenter.inits().collect();
        for init in inits {
            if let MediaEvent::Init { version, config } = init {
                let unit = self.config_unit(version, &config);
                self.pending.push(unit);
            }
        }
    }

    fn config_unit(&mut self, version: u32, config: &TrackConfig) -> MediaUnit {
        let bandwidth = self.bandwidth.declared(config);
        let msn = self.open_msn.unwrap_or_else(|| self.discontinuities.newest());
        let discontinuity_sequence = self.discontinuities.sequence_of(msn);
        let place = ConfigPlace { msn, discontinuity_sequence, init_version: InitVersion(version) };
        media_convert::config_unit(config, place, bandwidth)
    }

    fn flush(&mut self) {
        self.audio_since = None;
        self.out.push_back(std::mem::take(&mut self.pending));
    }
}

/// Returns the configuration to assume of audio that is only declared. Silence exists for one channel and two.
fn expected_audio(declared: DeclaredAudio) -> Option<AudioConfig> {
    let channels = if declared.channels == Some(1) { 1 } else { USUAL_AUDIO.1 };
    let rate = declared.sample_rate.and_then(|rate| AudioConfig::aac_lc(rate, channels).ok());
    rate.or_else(|| AudioConfig::aac_lc(USUAL_AUDIO.0, channels).ok())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_media::frame::SyncKind;
    use millrace_wire::ids::{BroadcastId, DiscontinuitySeq, Epoch, StreamId};
    use millrace_wire::message::control::StreamSettings;
    use millrace_wire::message::media::FrameUnit;

    use super::super::source::MessagePosition;
    use super::*;

    fn builder() -> MessageBuilder {
        let grant = ClaimGrant {
            stream: StreamId::from_u128(1),
            playback: "00112233445566778899aabbccddeeff".parse().unwrap(),
            broadcast: BroadcastId::from_u128(1),
            airing: millrace_wire::ids::Airing::FIRST,
            epoch: Epoch(1),
            first_msn: Msn(10),
            discontinuity_sequence: DiscontinuitySeq(3),
            continues: true,
            follows: None,
            lease_ms: 3_000,
            limits: PublishLimits::default(),
            settings: StreamSettings::default(),
        };
        MessageBuilder::new(&grant, 8_000_000)
    }

    fn frame(time_ms: i64, data: &[u8]) -> SourceFrame {
        let (track, timescale) = (TrackKind::Audio, Timescale::MILLIS);
        let position = MessagePosition { track, number: 1, time: time_ms, timescale };
        let data = Bytes::copy_from_slice(data).into();
        SourceFrame { position, presentation_time: time_ms, sync: SyncKind::Idr, data }
    }

    /// Pushes stereo AAC at 48 kHz from `from_ms` on; returns the messages it makes.
    fn push_audio(builder: &mut MessageBuilder, from_ms: i64, frames: u32) -> Vec<Vec<MediaUnit>> {
        builder.config(TrackConfig::Audio(AudioConfig::aac_lc(48_000, 2).unwrap())).unwrap();
        for n in 0..frames {
            let time_ms = from_ms + (f64::from(n) * 1024.0 / 48.0).round() as i64;
            builder.frame(frame(time_ms, &[n as u8, 1]), Duration::from_millis(time_ms as u64));
        }
        std::iter::from_fn(|| builder.poll()).collect()
    }

    #[test]
    fn builder_sends_audio_without_video_every_40_ms() {
        let mut builder = builder();
        let messages = push_audio(&mut builder, 0, 300);
        let frames = |units: &Vec<MediaUnit>| units.iter().filter(|unit| unit.frame().is_some()).count();
        assert!(messages.iter().all(|units| frames(units) <= 3), "more than 40 ms in one message");
        let starts: Vec<_> =
            messages.iter().filter(|units| units.iter().any(MediaUnit::is_boundary)).collect();
        assert_eq!(starts.len(), 4);
        for (n, units) in starts.iter().enumerate() {
            assert!(units[0].config().is_some());
            assert!(units[1].is_boundary() && units[1].msn() == Msn(10 + n as u64), "{:?}", units[1]);
            assert!(units.iter().all(|unit| unit.discontinuity_sequence() == DiscontinuitySeq(3)));
        }
        // The first segment of an epoch follows other media; its number is the grant's.
        let discontinuous = |units: &[MediaUnit]| units[1].frame().is_some_and(|frame| frame.discontinuity);
        assert!(discontinuous(starts[0]) && !discontinuous(starts[1]));
        builder.finish();
        let rest: usize = std::iter::from_fn(|| builder.poll()).map(|units| frames(&units)).sum();
        assert_eq!(messages.iter().map(frames).sum::<usize>() + rest, 300);
    }

    #[test]
    fn builder_counts_a_clock_jump_as_one_discontinuity() {
        let mut builder = builder();
        push_audio(&mut builder, 0, 150);
        let after = push_audio(&mut builder, 3_600_000, 300);
        let frames = after.iter().flatten().filter_map(MediaUnit::frame);
        let boundaries: Vec<&FrameUnit> = frames.filter(|frame| frame.boundary).collect();
        assert!(boundaries[0].discontinuity);
        assert!(boundaries.iter().all(|unit| unit.discontinuity_sequence == DiscontinuitySeq(4)));
        assert_eq!(boundaries.iter().filter(|unit| unit.discontinuity).count(), 1);
    }

    #[test]
    fn builder_declares_the_bandwidth_at_each_segments_start() {
        let declared = |messages: &[Vec<MediaUnit>]| -> Vec<u64> {
            messages.iter().flatten().filter_map(MediaUnit::config).map(|config| config.bit_rate).collect()
        };
        let mut honest = builder();
        let info = SourceMetadata { audio_bitrate: Some(128_000), ..SourceMetadata::default() };
        honest.metadata(&info);
        assert_eq!(declared(&push_audio(&mut honest, 0, 300)), [134_400; 4]);
        // 2 bytes a frame are 750 bits a second: more than this publisher declares.
        let mut modest = builder();
        modest.metadata(&SourceMetadata { audio_bitrate: Some(100), ..info });
        let corrected = declared(&push_audio(&mut modest, 0, 300));
        assert_eq!(corrected[0], 105);
        assert!(matches!(corrected[1], 800..=850), "{corrected:?}");
        assert_eq!(corrected[1..], [corrected[1]; 3]);
    }

    #[test]
    fn expected_audio_follows_the_declaration_where_silence_exists() {
        for (sample_rate, channels, expected) in [
            (Some(44_100), Some(1), (44_100, 1)),
            (Some(32_000), None, (32_000, 2)),
            (Some(44_000), Some(6), (48_000, 2)),
            (None, None, (48_000, 2)),
        ] {
            let config = expected_audio(DeclaredAudio { sample_rate, channels }).unwrap();
            assert_eq!((config.rate, config.channels), expected);
        }
    }
}
