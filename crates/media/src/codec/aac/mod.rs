//! AAC: the decoder configuration, ADTS headers and silent frames.

mod adts;
mod config;
mod layout;

pub use adts::AdtsHeader;
pub use config::AudioSpecificConfig;

use bytes::Bytes;

/// Why an AAC configuration was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AacError {
    /// Fewer bytes than the fields need.
    #[error("AudioSpecificConfig is truncated")]
    Truncated,
    /// A record longer than [`MAX_ASC_BYTES`], which is refused unread.
    #[error("AudioSpecificConfig of {0} bytes is longer than {MAX_ASC_BYTES}")]
    TooLong(usize),
    /// An object type that browsers do not decode.
    #[error("{name} (audio object type {0}) is not accepted: choose AAC-LC in the encoder", name = object_name(*.0))]
    ObjectType(u32),
    /// A reserved frequency index, or a rate outside 7 350 to 96 000 Hz.
    #[error("this sampling rate is not accepted: choose 48 000 or 44 100 Hz in the encoder")]
    Rate,
    /// A channel configuration that is not one of mono to 7.1.
    #[error("channel configuration {0} is not accepted: choose stereo or 5.1 in the encoder")]
    Channels(u32),
    /// A program config element whose channels no channel configuration stands for.
    #[error(
        "{0} channels in this layout are not accepted, because players do not decode them: choose stereo or 5.1 in the encoder"
    )]
    Layout(u8),
    /// Frames of 960 samples, which browsers do not decode.
    #[error("frames of 960 samples are not accepted: choose frames of 1024 samples in the encoder")]
    ShortFrames,
}

/// Largest AudioSpecificConfig that is read; one with a program config element stays far below
/// this.
pub const MAX_ASC_BYTES: usize = 512;

/// Samples of each channel in an access unit (ISO/IEC 14496-3 §4.5.2.1.1), at the rate of the
/// AAC-LC core.
pub const FRAME_SAMPLES: u32 = 1024;

/// Sampling frequencies by index (ISO/IEC 14496-3 table 1.18).
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// Returns the usual name of an audio object type (ISO/IEC 14496-3 table 1.17).
const fn object_name(object_type: u32) -> &'static str {
    match object_type {
        1 => "AAC Main",
        2 => "AAC-LC",
        3 => "AAC-SSR",
        4 => "AAC-LTP",
        17 => "ER AAC-LC",
        23 => "AAC-LD",
        39 => "AAC-ELD",
        42 => "xHE-AAC",
        _ => "this kind of MPEG-4 audio",
    }
}

/// Returns an AAC-LC frame of digital silence for mono and stereo; `None` for other layouts.
pub fn silent_frame(channels: u8) -> Option<Bytes> {
    // A single-channel (or channel-pair) element whose scale factor bands are all zero, then the
    // end element.
    const MONO: [u8; 4] = [0x00, 0xc8, 0x00, 0x07];
    const STEREO: [u8; 6] = [0x21, 0x00, 0x03, 0x20, 0x64, 0x1c];
    match channels {
        1 => Some(Bytes::from_static(&MONO)),
        2 => Some(Bytes::from_static(&STEREO)),
        _ => None,
    }
}
