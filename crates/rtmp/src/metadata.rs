//! `onMetaData`: the properties that a publisher declares of its stream (FLV file format, annex E.5). Hints: every value may
//! be missing or untrue.

use crate::amf::Value;

/// `audiocodecid` of AAC, as `SoundFormat` (FLV file format, annex E.4.2.1).
const AAC: f64 = 10.0;
/// `audiocodecid` of AAC as a name, as some encoders write it.
const AAC_NAMES: [&str; 2] = ["mp4a", "aac"];
/// A smaller value is treated as missing.
const LEAST: f64 = 0.001;
/// Largest plausible bitrate in kilobits per second (1 Gb/s).
const MAX_KILOBITS: f64 = 1_000_000.0;
/// Largest plausible frame rate in pictures per second.
const MAX_FRAME_RATE: f64 = 1_000.0;
/// Largest plausible width and height in pixels.
const MAX_PIXELS: f64 = 65_535.0;
/// The highest sampling rate of AAC (ISO/IEC 14496-3 table 1.18).
const MAX_SAMPLE_RATE: f64 = 96_000.0;
/// The most channels of an AAC channel configuration (ISO/IEC 14496-3 table 1.19).
const MAX_CHANNELS: f64 = 8.0;

/// The plausible values of a publisher's metadata, each in its unit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StreamInfo {
    /// Declared picture width in pixels.
    pub width: Option<u32>,
    /// Declared picture height in pixels.
    pub height: Option<u32>,
    /// Frame rate in pictures per second.
    pub frame_rate: Option<f64>,
    /// Bits per second of the video.
    pub video_bitrate: Option<u64>,
    /// Bits per second of the audio.
    pub audio_bitrate: Option<u64>,
    /// The declared AAC track, if any.
    pub aac: Option<AacInfo>,
}

/// The declared format of an AAC track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AacInfo {
    /// Sampling rate in samples per second.
    pub sample_rate: Option<u32>,
    /// Declared number of audio channels.
    pub channels: Option<u8>,
}

impl StreamInfo {
    /// Reads the properties of [`crate::Event::Metadata`]; implausible values are left out.
    pub fn from_properties(properties: &[(String, Value)]) -> Self {
        let find = |name: &str| properties.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let number = |name: &str, most: f64| {
            // NaN compares false.
            find(name).and_then(Value::as_number).filter(|value| *value >= LEAST && *value <= most)
        };
        let whole = |name, most| number(name, most).map(|value| value as u32).filter(|value| *value > 0);
        let bits = |name| number(name, MAX_KILOBITS).map(|kilobits| (kilobits * 1_000.0) as u64);
        let has_aac = match find("audiocodecid") {
            Some(Value::Number(id)) => *id == AAC,
            Some(Value::String(name)) => AAC_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)),
            _ => false,
        };
        let stereo = match find("stereo") {
            Some(Value::Boolean(stereo)) => Some(if *stereo { 2 } else { 1 }),
            _ => None,
        };
        Self {
            width: whole("width", MAX_PIXELS),
            height: whole("height", MAX_PIXELS),
            frame_rate: number("framerate", MAX_FRAME_RATE),
            video_bitrate: bits("videodatarate"),
            audio_bitrate: bits("audiodatarate"),
            aac: has_aac.then(|| AacInfo {
                sample_rate: whole("audiosamplerate", MAX_SAMPLE_RATE),
                channels: whole("audiochannels", MAX_CHANNELS).map(|count| count as u8).or(stereo),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(properties: &[(&str, Value)]) -> StreamInfo {
        let owned: Vec<_> =
            properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        StreamInfo::from_properties(&owned)
    }

    #[test]
    fn stream_info_reads_the_metadata_of_obs_and_ffmpeg() {
        let obs = read(&[
            ("width", 1280.0.into()),
            ("height", 720.0.into()),
            ("videocodecid", 7.0.into()),
            ("videodatarate", 2500.0.into()),
            ("framerate", 30.0.into()),
            ("audiocodecid", 10.0.into()),
            ("audiodatarate", 160.0.into()),
            ("audiosamplerate", 48_000.0.into()),
            ("audiochannels", 2.0.into()),
            ("stereo", true.into()),
        ]);
        let aac = AacInfo { sample_rate: Some(48_000), channels: Some(2) };
        let expected = StreamInfo {
            width: Some(1280),
            height: Some(720),
            frame_rate: Some(30.0),
            video_bitrate: Some(2_500_000),
            audio_bitrate: Some(160_000),
            aac: Some(aac),
        };
        assert_eq!(obs, expected);
        let ffmpeg = read(&[
            ("videodatarate", 0.0.into()),
            ("audiocodecid", 10.0.into()),
            ("audiosamplerate", 44_100.0.into()),
            ("stereo", false.into()),
        ]);
        assert_eq!(ffmpeg.aac, Some(AacInfo { sample_rate: Some(44_100), channels: Some(1) }));
        assert_eq!((ffmpeg.video_bitrate, ffmpeg.audio_bitrate), (None, None));
        assert_eq!(read(&[("audiocodecid", "mp4a".into())]).aac, Some(AacInfo::default()));
        assert_eq!(read(&[("audiocodecid", 2.0.into()), ("stereo", true.into())]).aac, None);
    }

    #[test]
    fn stream_info_leaves_implausible_values_out() {
        let lies = [-1.0, 0.0, 1e-9, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300];
        for name in ["width", "height", "framerate", "videodatarate", "audiodatarate", "audiosamplerate"] {
            for lie in lies {
                assert_eq!(read(&[(name, lie.into())]), StreamInfo::default(), "{name} {lie}");
            }
            assert_eq!(read(&[(name, "1".into())]), StreamInfo::default(), "{name}");
        }
        for lie in lies {
            let info = read(&[
                ("audiocodecid", 10.0.into()),
                ("audiochannels", lie.into()),
                ("audiosamplerate", lie.into()),
            ]);
            assert_eq!(info.aac, Some(AacInfo::default()), "{lie}");
        }
        assert_eq!(read(&[]), StreamInfo::default());
    }
}
