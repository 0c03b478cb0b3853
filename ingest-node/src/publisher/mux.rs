//! From RTMP audio and video bodies to the stamped units of media messages, without I/O.
//!
//! One message carries one picture with the audio since the last one, or [`AUDIO_FLUSH`] of audio alone. A segment's
//! first message begins with the codec configurations, so that a worker can start at any segment.

use std::collections::VecDeque;

use millrace_media::codec::aac::AacError;
use millrace_media::codec::h264::H264Error;
use millrace_media::container::flv::{FlvAudio, FlvError, FlvVideo};
use millrace_media::frame::{AudioConfig, MediaEvent, MediaFrame, TaggedFrame, TrackConfig};
use millrace_media::pieces::Pieces;
use millrace_media::segmenter::{Segmenter, SegmenterConfig, SegmenterStats};
use millrace_media::time::Timescale;
use millrace_media::timeline::Timeline;
use millrace_rtmp::{AacInfo, StreamInfo};
use millrace_wire::ids::{DiscontinuitySeq, InitVersion, Msn};
use millrace_wire::message::control::{ClaimGrant, PublishLimits};
use millrace_wire::message::media::{MAX_UNITS, MediaUnit, Track, UnitKind};

use super::bandwidth::Bandwidth;
use crate::limits::AUDIO_FLUSH;

/// What announced AAC is taken for where metadata does not tell: what live encoders send unless told otherwise.
const USUAL_AUDIO: (u32, u8) = (48_000, 2);

/// A media message of the publisher that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MediaError {
    #[error(transparent)]
    Flv(#[from] FlvError),
    #[error(transparent)]
    H264(#[from] H264Error),
    #[error(transparent)]
    Aac(#[from] AacError),
    #[error("the picture is {width}x{height}, at most {max_width}x{max_height} is allowed")]
    TooLarge { width: u32, height: u32, max_width: u32, max_height: u32 },
}

impl MediaError {
    /// A codec or size that no later message can make good.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::Flv(FlvError::VideoCodec(_) | FlvError::EnhancedVideo(_) | FlvError::AudioCodec(_))
        )
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mux {
    limits: PublishLimits,
    bandwidth: Bandwidth,
    timeline: Timeline,
    segmenter: Segmenter,
    pending: Vec<MediaUnit>,
    /// Presentation time of the oldest pending audio frame, and the rate, when there is one.
    audio_since: Option<i64>,
    audio_rate: i64,
    /// Discontinuity sequence numbers of the newest segments, by first segment number.
    discontinuities: VecDeque<(u64, DiscontinuitySeq)>,
    open_msn: Option<Msn>,
    last_keyframe: Option<i64>,
    last_dts: Option<i64>,
    frames: Frames,
    out: VecDeque<Vec<MediaUnit>>,
}

/// Units sent on, by track.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Frames {
    pub(crate) video: u64,
    pub(crate) audio: u64,
}

/// Segments whose discontinuity number audio may still need: it is at most one behind the pictures.
const REMEMBERED: usize = 4;

impl Mux {
    /// For a publisher that may send `max_bitrate` bits per second.
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
            discontinuities: VecDeque::from([(grant.first_msn.0, first)]),
            open_msn: None,
            last_keyframe: None,
            last_dts: None,
            frames: Frames::default(),
            out: VecDeque::new(),
        }
    }

    /// What the publisher says of its stream.
    pub(crate) fn metadata(&mut self, info: &StreamInfo) -> Result<(), MediaError> {
        self.bandwidth.announce(info);
        if let Some(audio) = info.aac {
            self.timeline.expect_audio(expected_audio(audio)?);
        }
        self.advance()
    }

    /// An RTMP video message.
    pub(crate) fn video(&mut self, timestamp: u32, body: Pieces) -> Result<(), MediaError> {
        if let Some(video) = FlvVideo::parse(body)? {
            self.timeline.push_flv_video(timestamp, video)?;
            self.advance()?;
        }
        Ok(())
    }

    /// An RTMP audio message.
    pub(crate) fn audio(&mut self, timestamp: u32, body: Pieces) -> Result<(), MediaError> {
        if let Some(audio) = FlvAudio::parse(body)? {
            self.timeline.push_flv_audio(timestamp, audio)?;
            self.advance()?;
        }
        Ok(())
    }

    /// The units of the next message to publish.
    pub(crate) fn poll(&mut self) -> Option<Vec<MediaUnit>> {
        self.out.pop_front()
    }

    /// The publisher is gone: what waited for a picture goes, too.
    pub(crate) fn finish(&mut self) {
        if !self.pending.is_empty() {
            self.flush();
        }
    }

    pub(crate) fn frames(&self) -> Frames {
        self.frames
    }

    pub(crate) fn segments(&self) -> SegmenterStats {
        self.segmenter.stats()
    }

    /// Seconds of video since the last keyframe; `None` without video.
    pub(crate) fn since_keyframe_s(&self) -> Option<i64> {
        Some((self.last_dts? - self.last_keyframe?) / 90_000)
    }

    fn advance(&mut self) -> Result<(), MediaError> {
        while let Some(event) = self.timeline.poll() {
            self.segmenter.push(event);
        }
        while let Some(event) = self.segmenter.poll() {
            match event {
                MediaEvent::Init { version, config } => self.configure(version, &config)?,
                MediaEvent::Frame(unit) => self.unit(unit),
            }
        }
        Ok(())
    }

    fn configure(&mut self, version: u32, config: &TrackConfig) -> Result<(), MediaError> {
        match config {
            TrackConfig::Video(video) => {
                let PublishLimits { max_width, max_height, .. } = self.limits;
                let (width, height) = (video.width, video.height);
                // An encoder in portrait mode turns the frame round.
                let turned = width <= max_height && height <= max_width;
                if (width > max_width || height > max_height) && !turned {
                    return Err(MediaError::TooLarge { width, height, max_width, max_height });
                }
            }
            TrackConfig::Audio(audio) => self.audio_rate = i64::from(audio.rate),
        }
        let unit = self.config_unit(version, config);
        self.pending.push(unit);
        Ok(())
    }

    fn unit(&mut self, TaggedFrame { stamp, unit }: TaggedFrame) {
        if stamp.boundary {
            self.bandwidth.boundary(self.start_of(&unit));
            self.boundary(stamp.msn, stamp.discontinuity);
        }
        self.bandwidth.count(unit.track(), unit.data().len());
        let (track, dts, cts, keyframe, data) = match unit {
            MediaFrame::Video(unit) => (Track::Video, unit.dts, unit.cts, unit.keyframe, unit.data),
            MediaFrame::Audio(frame) => (Track::Audio, frame.pts, 0, true, frame.data),
        };
        self.pending.push(MediaUnit {
            track,
            kind: UnitKind::Frame,
            msn: Msn(stamp.msn),
            discontinuity_sequence: self.discontinuity_of(stamp.msn),
            init_version: InitVersion(stamp.init_version),
            dts,
            cts,
            keyframe,
            boundary: stamp.boundary,
            independent: stamp.independent,
            discontinuity: stamp.discontinuity,
            data,
        });
        match track {
            Track::Video => {
                self.last_dts = Some(dts);
                if keyframe {
                    self.last_keyframe = Some(dts);
                }
                self.frames.video += 1;
                self.flush();
            }
            Track::Audio => {
                self.frames.audio += 1;
                let since = *self.audio_since.get_or_insert(dts);
                let held_ms = (dts - since) * 1_000 / self.audio_rate;
                if held_ms >= AUDIO_FLUSH.as_millis() as i64 || self.pending.len() >= MAX_UNITS {
                    self.flush();
                }
            }
        }
    }

    /// In 90 kHz ticks.
    fn start_of(&self, unit: &MediaFrame) -> i64 {
        match unit {
            MediaFrame::Video(unit) => unit.dts,
            MediaFrame::Audio(frame) => {
                Timescale::of_rate(self.audio_rate as u32).convert(frame.pts, Timescale::VIDEO)
            }
        }
    }

    /// A segment begins: its first message begins with the configurations.
    fn boundary(&mut self, msn: u64, discontinuity: bool) {
        if self.pending.iter().any(|unit| unit.kind == UnitKind::Frame) {
            self.flush();
        }
        let first = self.open_msn.replace(Msn(msn)).is_none();
        // The grant's number is the first segment's own, discontinuity or not.
        if discontinuity && !first {
            let next = self.discontinuity_of(msn).next();
            self.discontinuities.push_back((msn, next));
            if self.discontinuities.len() > REMEMBERED {
                self.discontinuities.pop_front();
            }
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
        let bandwidth = self.bandwidth.of(config);
        let (track, data) = match config {
            TrackConfig::Video(video) => (Track::Video, video.avcc.clone()),
            TrackConfig::Audio(audio) => (Track::Audio, audio.asc.clone()),
        };
        let newest = self.discontinuities.back().copied();
        let msn = self.open_msn.or(newest.map(|(msn, _)| Msn(msn))).unwrap_or_default();
        MediaUnit {
            track,
            kind: UnitKind::Config { bandwidth },
            msn,
            discontinuity_sequence: self.discontinuity_of(msn.0),
            init_version: InitVersion(version),
            dts: 0,
            cts: 0,
            keyframe: false,
            boundary: false,
            independent: false,
            discontinuity: false,
            data: data.into(),
        }
    }

    fn discontinuity_of(&self, msn: u64) -> DiscontinuitySeq {
        let known = self.discontinuities.iter().rev().find(|(first, _)| *first <= msn);
        known.or(self.discontinuities.front()).map_or(DiscontinuitySeq(0), |(_, number)| *number)
    }

    fn flush(&mut self) {
        self.audio_since = None;
        self.out.push_back(std::mem::take(&mut self.pending));
    }
}

/// The configuration of audio that is only announced. Silence is known for one channel and two.
fn expected_audio(info: AacInfo) -> Result<AudioConfig, AacError> {
    let channels = if info.channels == Some(1) { 1 } else { USUAL_AUDIO.1 };
    let told = info.sample_rate.and_then(|rate| AudioConfig::aac_lc(rate, channels).ok());
    told.map_or_else(|| AudioConfig::aac_lc(USUAL_AUDIO.0, channels), Ok)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_wire::ids::{BroadcastId, Epoch, StreamId};
    use millrace_wire::message::control::StreamSettings;

    use super::*;

    fn mux() -> Mux {
        let grant = ClaimGrant {
            stream: StreamId::from_u128(1),
            playback: "00112233445566778899aabbccddeeff".parse().unwrap(),
            broadcast: BroadcastId::from_u128(1),
            epoch: Epoch(1),
            first_msn: Msn(10),
            discontinuity_sequence: DiscontinuitySeq(3),
            continues: true,
            follows: None,
            lease_ms: 3_000,
            limits: PublishLimits::default(),
            settings: StreamSettings::default(),
        };
        Mux::new(&grant, 8_000_000)
    }

    /// Stereo AAC at 48 kHz from `from_ms` on; the messages it makes.
    fn audio(mux: &mut Mux, from_ms: u32, frames: u32) -> Vec<Vec<MediaUnit>> {
        mux.audio(from_ms, Bytes::from_static(&[0xaf, 0, 0x11, 0x90]).into()).unwrap();
        for n in 0..frames {
            let ms = from_ms + (f64::from(n) * 1024.0 / 48.0).round() as u32;
            mux.audio(ms, Bytes::from(vec![0xaf, 1, n as u8, 1]).into()).unwrap();
        }
        std::iter::from_fn(|| mux.poll()).collect()
    }

    #[test]
    fn audio_alone_leaves_steadily_in_small_messages() {
        let mut mux = mux();
        let messages = audio(&mut mux, 0, 300);
        let frames = |units: &Vec<MediaUnit>| units.iter().filter(|u| u.kind == UnitKind::Frame).count();
        assert!(messages.iter().all(|units| frames(units) <= 3), "more than 40 ms in one message");
        let starts: Vec<_> = messages.iter().filter(|units| units.iter().any(|u| u.boundary)).collect();
        assert_eq!(starts.len(), 4);
        for (n, units) in starts.iter().enumerate() {
            assert!(units[0].kind.is_config());
            assert!(units[1].boundary && units[1].msn == Msn(10 + n as u64), "{:?}", units[1]);
            assert!(units.iter().all(|unit| unit.discontinuity_sequence == DiscontinuitySeq(3)));
        }
        // The first segment of an epoch follows other media; its number is the grant's.
        assert!(starts[0][1].discontinuity && !starts[1][1].discontinuity);
        mux.finish();
        let rest: usize = std::iter::from_fn(|| mux.poll()).map(|units| frames(&units)).sum();
        assert_eq!(messages.iter().map(frames).sum::<usize>() + rest, 300);
    }

    #[test]
    fn a_jump_of_the_clock_is_a_discontinuity() {
        let mut mux = mux();
        audio(&mut mux, 0, 150);
        let after = audio(&mut mux, 3_600_000, 300);
        let boundaries: Vec<&MediaUnit> = after.iter().flatten().filter(|unit| unit.boundary).collect();
        assert!(boundaries[0].discontinuity);
        assert!(boundaries.iter().all(|unit| unit.discontinuity_sequence == DiscontinuitySeq(4)));
        assert_eq!(boundaries.iter().filter(|unit| unit.discontinuity).count(), 1);
    }

    #[test]
    fn each_segment_says_what_its_tracks_are_declared_with() {
        let declared = |messages: &[Vec<MediaUnit>]| -> Vec<UnitKind> {
            messages.iter().flatten().map(|unit| unit.kind).filter(|kind| kind.is_config()).collect()
        };
        let bandwidth = |bandwidth| UnitKind::Config { bandwidth };
        let mut honest = mux();
        let info = StreamInfo { audio_bitrate: Some(128_000), ..StreamInfo::default() };
        honest.metadata(&info).unwrap();
        assert_eq!(declared(&audio(&mut honest, 0, 300)), [bandwidth(134_400); 4]);
        // 2 bytes a frame are 750 bits a second: more than this publisher says.
        let mut modest = mux();
        modest.metadata(&StreamInfo { audio_bitrate: Some(100), ..info }).unwrap();
        let corrected = declared(&audio(&mut modest, 0, 300));
        assert_eq!(corrected[0], bandwidth(105));
        assert!(matches!(corrected[1], UnitKind::Config { bandwidth: 800..=850 }), "{corrected:?}");
        assert_eq!(corrected[1..], [corrected[1]; 3]);
    }

    #[test]
    fn silence_is_as_announced_as_far_as_there_is_any() {
        for (sample_rate, channels, expected) in [
            (Some(44_100), Some(1), (44_100, 1)),
            (Some(32_000), None, (32_000, 2)),
            (Some(44_000), Some(6), (48_000, 2)),
            (None, None, (48_000, 2)),
        ] {
            let config = expected_audio(AacInfo { sample_rate, channels }).unwrap();
            assert_eq!((config.rate, config.channels), expected);
        }
    }

    #[test]
    fn other_codecs_are_final_and_garbage_is_not() {
        let mut mux = mux();
        let hevc = mux.video(0, Bytes::from_static(b"\x91hvc1....").into()).unwrap_err();
        assert!(hevc.is_final(), "{hevc}");
        let mp3 = mux.audio(0, Bytes::from_static(&[0x2f, 1, 2, 3]).into()).unwrap_err();
        assert!(mp3.is_final(), "{mp3}");
        let short = mux.video(0, Bytes::from_static(&[0x17, 0]).into()).unwrap_err();
        assert!(!short.is_final(), "{short}");
    }
}
