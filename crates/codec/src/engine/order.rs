//! The orders that a job gives its transcoder.

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_media::codec::{AudioCodec, VideoCodec};
use serde::{Deserialize, Serialize};

/// Number of an encoded video rung within its plan, from 0 on; it does not change while a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RungIndex(pub u8);

/// Number of a source picture's place in decoding order, from the start of the job on, without holes. Ingest has given each
/// place a decoding time, a duration and a segment; a rung's picture takes one place over whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u64);

/// One step of a job's order to its transcoder, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// The renditions to make; the first order, once.
    Start(Plan),
    /// The configuration that the pictures from here on need. A second one ends the pictures before it: the engine
    /// finishes them, and every rung begins anew with its own configuration.
    VideoConfig(VideoSource),
    /// A coded picture, in decoding order.
    Picture(SourcePicture),
    /// The configuration that the audio frames from here on need.
    AudioConfig(AudioSource),
    /// A coded audio frame.
    Sound(SourceSound),
    /// Encodes only the rungs listed, from the next place that starts a segment on: the others are shed, or taken back.
    Encode(Vec<RungIndex>),
    /// Hands in everything that was ordered before; answered by [`Product::Flushed`](super::product::Product::Flushed).
    Flush,
}

/// The renditions that a transcoder makes of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The encoded video rungs, highest first; [`RungIndex`] counts them. Those above the source are dropped once it is known.
    pub rungs: Vec<RungPlan>,
    /// True to encode audio that is no stereo AAC-LC of 48 kHz; false to make no audio.
    pub audio: bool,
    /// True to make thumbnails and to watch for black and frozen pictures and for silence. Without rungs, only keyframes are
    /// decoded for it, and it takes no more than a hundredth of a CPU.
    pub pictures: bool,
    /// The encoders that may be opened, in the order of preference.
    pub encoders: Vec<EncoderKind>,
    /// True if nothing under the GPL may be used.
    pub lgpl_only: bool,
    /// Threads that the encoders of this job may use together; 0 lets the engine choose.
    pub threads: u32,
}

/// One encoded video rung, as the settings ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RungPlan {
    /// Lines of the picture; the width follows from the source's aspect ratio.
    pub height: u32,
    /// Bits per second, which VBV holds; capped by the source's rate where it is known.
    pub bitrate: u64,
    /// Highest frame rate; a source of a higher rate loses every second picture (or more), so that places stay aligned.
    pub fps: Option<u32>,
    /// Preset of the encoder; the default of the encoder's kind if absent.
    pub preset: Option<String>,
}

/// An implementation of an H.264 encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderKind {
    /// libx264 (GPL), on the CPU.
    X264,
    /// OpenH264 (BSD), on the CPU.
    Openh264,
    /// NVIDIA's encoder.
    Nvenc,
    /// The encoder behind VA-API.
    Vaapi,
    /// Intel's Quick Sync Video.
    Qsv,
}

/// The configuration of the source's video.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoSource {
    /// The codec, which decides the form of `record` and of the pictures.
    #[serde(with = "super::product::video_codec")]
    pub codec: VideoCodec,
    /// The content of an `avcC`, `hvcC` or `av1C` box.
    pub record: Bytes,
    /// Width of the coded picture after cropping, in pixels.
    pub width: u32,
    /// Height of the coded picture after cropping, in pixels.
    pub height: u32,
    /// Width and height of a pixel as a fraction.
    pub pixel_aspect: (u32, u32),
    /// Thousandths of frames per second, which ingest has fixed for the epoch; 0 if it is not known. It decides the division
    /// of frame rates and a part of the parameter sets, so that every worker must give the same.
    pub frame_rate_milli: u32,
    /// Bits per second that the source declares; 0 if it declares none.
    pub bitrate: u64,
    /// Version of the source's initialisation section, which the products repeat.
    pub version: u32,
}

/// One coded picture of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent marks of the picture")]
pub struct SourcePicture {
    /// Its place in decoding order.
    pub slot: Slot,
    /// Presentation time in 90 kHz ticks.
    pub pts: i64,
    /// Decoding time from this place to the next one, in 90 kHz ticks.
    pub duration: u32,
    /// True if its place begins a segment: every rung encodes an IDR picture for the place.
    pub starts_segment: bool,
    /// True if its place begins a part that must be independent: the rungs encode an IDR picture for it too. A successor goes
    /// on behind parts of its predecessor by it.
    pub independent: bool,
    /// True if the rungs are to encode from this place on; earlier ones are decoded only, so that decoding gets going.
    pub encode: bool,
    /// True if a decoder can start here.
    pub keyframe: bool,
    /// The coded bytes.
    pub data: ByteChain,
}

/// The configuration of the source's audio.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioSource {
    /// The codec, which decides the form of `record` and of the frames.
    #[serde(with = "super::product::audio_codec")]
    pub codec: AudioCodec,
    /// The configuration record, as `millrace_media::frame::AudioConfig` has it.
    pub record: Bytes,
    /// Sampling rate in Hz.
    pub rate: u32,
    /// Number of channels.
    pub channels: u8,
}

/// One coded audio frame of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSound {
    /// Presentation time in samples of the source's rate.
    pub pts: i64,
    /// True if the frames are to be handed in that reach beyond this one's time; earlier ones only get decoder and encoder
    /// going. Frames of AAC depend on the one before, MP3 and HE-AAC on some more: four frames before suffice.
    pub encode: bool,
    /// The coded bytes.
    pub data: ByteChain,
}

impl Order {
    /// Returns the decoding time of the picture that the order brings, in 90 kHz ticks; 0 for other orders.
    pub fn media_ticks(&self) -> u64 {
        if let Self::Picture(picture) = self { u64::from(picture.duration) } else { 0 }
    }
}

impl AudioSource {
    /// Rate and channels that every player plays: such AAC-LC is copied.
    pub const PLAYS_EVERYWHERE: (u32, u8) = (48_000, 2);
}
