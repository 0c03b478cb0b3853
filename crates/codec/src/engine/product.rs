//! The products of a transcoder.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::order::{EncoderKind, RungIndex, Slot};

/// One product of a transcoder. Those of one rung come in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Product {
    /// The rung encodes from here on with this configuration; its pictures follow. It comes once for a configuration of the
    /// source, and again only if the record changes: not when a rung is taken back, nor behind a flush.
    RungStarted(RungStart),
    /// The rung makes nothing of this source, which is smaller than the rung. It may start with a later configuration.
    RungDropped {
        /// The rung.
        rung: RungIndex,
        /// The version of the source's initialisation section.
        source_version: u32,
    },
    /// Nothing comes of a part of the input, until its next configuration.
    Refused(Refusal),
    /// A coded picture of a rung.
    Picture(CodedPicture),
    /// The configuration of the audio that follows.
    AudioStarted(AudioStart),
    /// A coded AAC frame of 1024 samples.
    Sound {
        /// Presentation time in samples of 48 kHz, on the grid of n × 1024.
        pts: i64,
        /// The raw data block.
        data: Bytes,
    },
    /// A picture of the source as JPEG, for the watch page and the dashboard.
    Thumbnail {
        /// Presentation time in 90 kHz ticks.
        pts: i64,
        /// The JPEG file.
        jpeg: Bytes,
    },
    /// A sheet of the storyboard so far: tiles of 160 × 90 pixels, five in a line, one for each thumbnail.
    Sheet {
        /// Number of the sheet, from 0 on; a sheet of 25 tiles is full.
        number: u32,
        /// Tiles on it.
        tiles: u8,
        /// Presentation time of its first tile in 90 kHz ticks.
        first_pts: i64,
        /// The JPEG file, of 800 × 450 pixels.
        jpeg: Bytes,
    },
    /// A condition of the pictures or of the sound begins or ends.
    Condition {
        /// The condition.
        condition: Condition,
        /// True when it begins.
        begins: bool,
    },
    /// Figures since the last such product, about once a second.
    Report(Report),
    /// Everything ordered before the flush has been handed in.
    Flushed,
}

/// The start of a rung.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RungStart {
    /// The rung.
    pub rung: RungIndex,
    /// The version of the source's initialisation section that it follows.
    pub source_version: u32,
    /// The AVCDecoderConfigurationRecord of its pictures.
    pub record: Bytes,
    /// Bits per second that VBV holds the pictures to.
    pub bitrate: u64,
    /// Thousandths of frames per second.
    pub frame_rate_milli: u32,
    /// The encoder that was opened.
    pub encoder: EncoderKind,
}

/// A part of the input that the engine makes nothing of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The part.
    pub part: Part,
    /// The version of the source's initialisation section; 0 for audio.
    pub source_version: u32,
    /// The reason, for the operator.
    pub reason: String,
}

/// A part of the input or of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The video with all rungs: it cannot be decoded.
    Video,
    /// The audio: it cannot be decoded.
    Audio,
    /// One rung: no encoder could be opened, or each of them failed.
    Rung(RungIndex),
}

/// A coded picture of a rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodedPicture {
    /// The rung.
    pub rung: RungIndex,
    /// The place whose decoding time and segment the picture takes over.
    pub slot: Slot,
    /// The number of places from this one to the rung's next picture: more than 1 where the frame rate is divided.
    pub slots: u32,
    /// Presentation time in 90 kHz ticks.
    pub pts: i64,
    /// True for an IDR picture.
    pub idr: bool,
    /// True if the picture repeats the one before, because the source's picture for the place could not be decoded.
    pub repeats: bool,
    /// NAL units with length prefixes of four bytes.
    pub data: Bytes,
}

/// The start of encoded audio: AAC-LC of 48 kHz, two channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioStart {
    /// The AudioSpecificConfig.
    pub record: Bytes,
    /// Bits per second.
    pub bitrate: u64,
}

/// A condition of decoded media that viewers notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// All pictures are black.
    Black,
    /// All pictures are equal.
    Frozen,
    /// The sound is digital silence or close to it.
    Silent,
    /// The decoder reports errors.
    DecodeErrors,
}

/// Figures of a transcoder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Microseconds of media that were decoded.
    pub media_us: u64,
    /// Microseconds of CPU time that decoding and scaling took.
    pub decode_us: u64,
    /// Pictures that could not be decoded.
    pub lost_pictures: u64,
    /// Milliseconds of media that wait for the decoder.
    pub waiting_ms: u64,
    /// Figures of each rung that encodes.
    pub rungs: Vec<RungReport>,
}

/// Figures of one rung.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RungReport {
    /// The rung.
    pub rung: RungIndex,
    /// Pictures that were encoded.
    pub pictures: u64,
    /// Bytes of these pictures.
    pub bytes: u64,
    /// Microseconds of CPU time that encoding took.
    pub encode_us: u64,
    /// Milliseconds of media that wait for the encoder.
    pub waiting_ms: u64,
}

/// Video codecs in messages between job and transcoder.
pub(super) mod video_codec {
    use millrace_media::codec::VideoCodec;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(crate) fn serialize<S: Serializer>(codec: &VideoCodec, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(codec.name())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<VideoCodec, D::Error> {
        let name = String::deserialize(from)?;
        let known = [VideoCodec::H264, VideoCodec::Hevc, VideoCodec::Av1];
        let found = known.into_iter().find(|codec| codec.name() == name);
        found.ok_or_else(|| serde::de::Error::custom(format!("no video codec is named {name:?}")))
    }
}

/// Audio codecs in messages between job and transcoder.
pub(super) mod audio_codec {
    use millrace_media::codec::AudioCodec;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    pub(crate) fn serialize<S: Serializer>(codec: &AudioCodec, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(codec.name())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<AudioCodec, D::Error> {
        let name = String::deserialize(from)?;
        let known = [AudioCodec::Aac, AudioCodec::Opus, AudioCodec::Mp3];
        let found = known.into_iter().find(|codec| codec.name() == name);
        found.ok_or_else(|| serde::de::Error::custom(format!("no audio codec is named {name:?}")))
    }
}
