//! The media model of [`millrace_media`] as media units on the wire, and back.
//!
//! The two models are kept apart because they change for different reasons: the media model follows what the parsers and
//! the packager need, the wire format only changes together with its version.

use millrace_media::codec::{AudioCodec, VideoCodec};
use millrace_media::frame::{
    AccessUnit, AudioConfig, AudioFrame, MediaEvent, MediaFrame, SegmentTag, SyncKind, TaggedFrame,
    TrackConfig, VideoConfig,
};
use millrace_media::time::Timescale;
use millrace_wire::fact::{TrackInfo, TrackMedia};
use millrace_wire::ids::{DiscontinuitySeq, InitVersion, Msn};
use millrace_wire::message::media::{Codec, ConfigUnit, FrameUnit, MediaUnit, Track};
use thiserror::Error;

/// A configuration unit that no decoder can be set up with. Only that unit is lost; the fault is its sender's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("segment {msn}: {codec:?} configuration record of {length} bytes is malformed: {reason}")]
pub struct BadConfig {
    /// Media sequence number of the segment that the unit belongs to.
    pub msn: Msn,
    /// Codec that the record is for.
    pub codec: Codec,
    /// Length of the record in bytes.
    pub length: usize,
    /// The error of the record's parser.
    pub reason: String,
}

/// The numbers that a configuration is published under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigPlace {
    /// The segment that is open.
    pub msn: Msn,
    /// That segment's absolute discontinuity sequence number.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// The initialisation section that the configuration makes.
    pub init_version: InitVersion,
}

/// Returns the description of a rendition with this configuration, for playlists. `bandwidth` is in bits per second; where
/// it is not known, 0 stands for the least: BANDWIDTH is required (RFC 8216 §4.3.4.2), and players cannot choose by a rate
/// of 0.
pub fn track_info(config: &TrackConfig, bandwidth: u64) -> TrackInfo {
    let (media, timescale) = match config {
        TrackConfig::Video(video) => {
            let rate = video.frame_rate.map(|(ticks, per)| f64::from(ticks) / f64::from(per.max(1)));
            // RESOLUTION is the size in which pictures are shown.
            let (width, height) = video.display_size();
            let media = TrackMedia::Video {
                width,
                height,
                frame_rate_milli: rate.map(|rate| (rate * 1000.0).round() as u32),
            };
            (media, Timescale::VIDEO)
        }
        TrackConfig::Audio(audio) => {
            let media = TrackMedia::Audio { channels: audio.channels, sample_rate: audio.rate };
            (media, audio.timescale())
        }
    };
    let codecs = config.codecs().to_owned();
    TrackInfo { media, codecs, bandwidth: bandwidth.max(1), timescale: timescale.ticks_per_second() }
}

/// Converts a tagged frame to a media unit; media bytes are shared.
pub fn frame_unit(tagged: TaggedFrame, discontinuity_sequence: DiscontinuitySeq) -> MediaUnit {
    let TaggedFrame { tag, frame } = tagged;
    let (track, dts, cts, sync, data) = match frame {
        MediaFrame::Video(picture) => (Track::Video, picture.dts, picture.cts, picture.sync, picture.data),
        MediaFrame::Audio(frame) => (Track::Audio, frame.pts, 0, SyncKind::Idr, frame.data),
    };
    MediaUnit::Frame(FrameUnit {
        track,
        msn: Msn(tag.msn),
        discontinuity_sequence,
        init_version: InitVersion(tag.init_version),
        dts,
        cts,
        duration: tag.duration,
        keyframe: sync.is_join(),
        boundary: tag.boundary,
        independent: tag.independent,
        discontinuity: tag.discontinuity,
        may_be_last: tag.may_be_last,
        data,
    })
}

/// Converts a track's configuration to a media unit that declares `bit_rate` bits per second; the record is shared.
pub fn config_unit(config: &TrackConfig, place: ConfigPlace, bit_rate: u64) -> MediaUnit {
    let (codec, record) = match config {
        TrackConfig::Video(video) => (video_codec(video.codec), video.record.clone()),
        TrackConfig::Audio(audio) => (audio_codec(audio.codec), audio.record.clone()),
    };
    let ConfigPlace { msn, discontinuity_sequence, init_version } = place;
    MediaUnit::Config(ConfigUnit {
        codec,
        msn,
        discontinuity_sequence,
        init_version,
        bit_rate,
        record: record.into(),
    })
}

/// Converts a media unit to the event that the packager takes; media bytes are shared.
pub fn media_event(unit: MediaUnit) -> Result<MediaEvent, BadConfig> {
    match unit {
        MediaUnit::Config(config) => {
            let track_config = track_config(&config)?;
            Ok(MediaEvent::Init { version: config.init_version.0, config: track_config })
        }
        MediaUnit::Frame(unit) => {
            let tag = SegmentTag {
                msn: unit.msn.0,
                discontinuity: unit.discontinuity,
                boundary: unit.boundary,
                independent: unit.independent,
                init_version: unit.init_version.0,
                duration: unit.duration,
                may_be_last: unit.may_be_last,
            };
            Ok(MediaEvent::Frame(TaggedFrame { tag, frame: media_frame(unit) }))
        }
    }
}

fn media_frame(unit: FrameUnit) -> MediaFrame {
    let FrameUnit { track, dts, cts, keyframe, independent, data, .. } = unit;
    // An open GOP is not told from a closed one: both begin independent segments.
    let sync = match (keyframe, independent) {
        (true, true) => SyncKind::Idr,
        (true, false) => SyncKind::Refresh,
        (false, _) => SyncKind::None,
    };
    match track {
        Track::Video => MediaFrame::Video(AccessUnit { dts, cts, sync, data }),
        Track::Audio => MediaFrame::Audio(AudioFrame { pts: dts, data }),
    }
}

fn track_config(unit: &ConfigUnit) -> Result<TrackConfig, BadConfig> {
    let record = unit.record.contiguous();
    let length = record.len();
    let parsed = match unit.codec {
        Codec::H264 => VideoConfig::parse(VideoCodec::H264, record).map(TrackConfig::Video),
        Codec::Hevc => VideoConfig::parse(VideoCodec::Hevc, record).map(TrackConfig::Video),
        Codec::Av1 => VideoConfig::parse(VideoCodec::Av1, record).map(TrackConfig::Video),
        Codec::Aac => AudioConfig::parse(AudioCodec::Aac, record).map(TrackConfig::Audio),
        Codec::Opus => AudioConfig::parse(AudioCodec::Opus, record).map(TrackConfig::Audio),
        Codec::Mp3 => AudioConfig::parse(AudioCodec::Mp3, record).map(TrackConfig::Audio),
    };
    parsed.map_err(|error| BadConfig { msn: unit.msn, codec: unit.codec, length, reason: error.to_string() })
}

const fn video_codec(codec: VideoCodec) -> Codec {
    match codec {
        VideoCodec::H264 => Codec::H264,
        VideoCodec::Hevc => Codec::Hevc,
        VideoCodec::Av1 => Codec::Av1,
    }
}

const fn audio_codec(codec: AudioCodec) -> Codec {
    match codec {
        AudioCodec::Aac => Codec::Aac,
        AudioCodec::Opus => Codec::Opus,
        AudioCodec::Mp3 => Codec::Mp3,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const PLACE: ConfigPlace = ConfigPlace {
        msn: Msn(7),
        discontinuity_sequence: DiscontinuitySeq(2),
        init_version: InitVersion(3),
    };

    #[test]
    fn configurations_come_back_as_they_went() {
        let config = TrackConfig::Audio(AudioConfig::aac_lc(48_000, 2).unwrap());
        let unit = config_unit(&config, PLACE, 128_000);
        let sent = unit.config().unwrap();
        assert_eq!((sent.codec, sent.bit_rate, unit.track()), (Codec::Aac, 128_000, Track::Audio));
        assert_eq!(media_event(unit), Ok(MediaEvent::Init { version: 3, config }));
    }

    #[test]
    fn frames_come_back_as_they_went() {
        let tag = SegmentTag {
            msn: 7,
            discontinuity: true,
            boundary: true,
            independent: true,
            init_version: 3,
            duration: 3_000,
            may_be_last: true,
        };
        let data = Bytes::from_static(b"frame");
        let picture =
            |sync| MediaFrame::Video(AccessUnit { dts: 90, cts: -3, sync, data: data.clone().into() });
        for (independent, frame) in [
            (true, picture(SyncKind::Idr)),
            (false, picture(SyncKind::Refresh)),
            (false, picture(SyncKind::None)),
            (true, MediaFrame::Audio(AudioFrame { pts: 1_024, data: data.clone().into() })),
        ] {
            let tagged = TaggedFrame { tag: SegmentTag { independent, ..tag }, frame };
            let unit = frame_unit(tagged.clone(), DiscontinuitySeq(2));
            assert_eq!((unit.msn(), unit.discontinuity_sequence()), (Msn(7), DiscontinuitySeq(2)));
            assert_eq!(media_event(unit), Ok(MediaEvent::Frame(tagged)));
        }
    }

    #[test]
    fn malformed_configuration_records_are_refused_with_codec_and_length() {
        for codec in Codec::ALL {
            let ConfigPlace { msn, discontinuity_sequence, init_version } = PLACE;
            let record = Bytes::new().into();
            let unit = ConfigUnit { codec, msn, discontinuity_sequence, init_version, bit_rate: 1, record };
            let error = media_event(MediaUnit::Config(unit)).unwrap_err();
            assert_eq!((error.codec, error.length, error.msn), (codec, 0, Msn(7)));
        }
    }
}
