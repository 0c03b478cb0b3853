//! Codecs: configuration records, and the headers inside access units and audio frames; one module
//! for each codec.
//!
//! [`VideoCodec`] and [`AudioCodec`] name the codecs that the model, the wire format and the
//! playlists know. Everything that depends on the codec is asked of
//! [`VideoConfig`](crate::frame::VideoConfig) and [`AudioConfig`](crate::frame::AudioConfig), so
//! that timeline, segmenter and packager assume none.

pub mod aac;
pub mod av1;
pub mod framing;
pub mod h264;
pub mod hevc;
pub mod mp3;
pub mod nal;
pub mod opus;
mod pixel_aspect;
pub mod sync;

use std::fmt;

use aac::AacError;
use av1::Av1Error;
use h264::H264Error;
use hevc::HevcError;
use mp3::Mp3Error;
use opus::OpusError;

/// A video codec that the model knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VideoCodec {
    /// H.264 (ISO/IEC 14496-10), NAL units with length prefixes.
    H264,
    /// HEVC (ISO/IEC 23008-2), NAL units with length prefixes.
    Hevc,
    /// AV1, temporal units in the low-overhead format.
    Av1,
}

impl VideoCodec {
    /// Returns the name that encoders and operators use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::Hevc => "HEVC",
            Self::Av1 => "AV1",
        }
    }
}

impl fmt::Display for VideoCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An audio codec that the model knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioCodec {
    /// AAC-LC, HE-AAC and HE-AACv2 (ISO/IEC 14496-3), raw data blocks without ADTS.
    Aac,
    /// Opus (RFC 6716), one packet a frame.
    Opus,
    /// MPEG audio layer III (ISO/IEC 11172-3 and 13818-3).
    Mp3,
}

impl AudioCodec {
    /// Returns the name that encoders and operators use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aac => "AAC",
            Self::Opus => "Opus",
            Self::Mp3 => "MP3",
        }
    }
}

impl fmt::Display for AudioCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A configuration record, or a header inside coded media, that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A header of H.264 media.
    #[error("H.264: {0}")]
    H264(#[from] H264Error),
    /// A header of HEVC media.
    #[error("HEVC: {0}")]
    Hevc(#[from] HevcError),
    /// A header of AV1 media.
    #[error("AV1: {0}")]
    Av1(#[from] Av1Error),
    /// A header of AAC media.
    #[error("AAC: {0}")]
    Aac(#[from] AacError),
    /// A header of Opus media.
    #[error("Opus: {0}")]
    Opus(#[from] OpusError),
    /// A header of MP3 media.
    #[error("MP3: {0}")]
    Mp3(#[from] Mp3Error),
}
