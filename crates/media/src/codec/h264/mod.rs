//! H.264: the decoder configuration record, the SPS, random access points.

mod picture;
mod record;
mod repeat;
mod sets;
mod skip_slice;
mod sps;

pub use picture::{active_pps, continues_picture, is_bidirectional, sync_kind};
pub use record::AvcConfig;
pub use repeat::PictureRepeater;
pub use sets::ParameterSets;
pub use sps::Sps;

/// Why H.264 headers were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum H264Error {
    /// Fewer bytes than the fields need.
    #[error("{0} is truncated")]
    Truncated(&'static str),
    /// A record longer than [`MAX_AVCC_BYTES`], which is refused unread.
    #[error("AVCDecoderConfigurationRecord of {0} bytes is longer than {MAX_AVCC_BYTES}")]
    TooLong(usize),
    /// A version other than 1, the only one that exists.
    #[error("AVCDecoderConfigurationRecord version {0} is not 1")]
    Version(u8),
    /// A length prefix of 3 bytes, which ISO/IEC 14496-15 §5.3.3.1.2 forbids.
    #[error("NAL unit length prefix of {0} bytes")]
    LengthSize(u8),
    /// No sequence parameter set, so that nothing can be decoded.
    #[error("AVCDecoderConfigurationRecord without SPS")]
    NoSps,
    /// No picture parameter set, so that nothing can be decoded.
    #[error("AVCDecoderConfigurationRecord without PPS")]
    NoPps,
    /// A field outside the range that H.264 allows.
    #[error("SPS field {0} is out of range")]
    Range(&'static str),
}

/// Largest record that is read. One of 31 SPS and 255 PPS could be larger; real ones are below 200
/// bytes.
pub const MAX_AVCC_BYTES: usize = 64 * 1024;

/// NAL unit type of a slice of a picture that is no IDR picture (H.264 table 7-1).
const NAL_SLICE: u8 = 1;
/// NAL unit type of the first partition of such a slice, which holds its header.
const NAL_SLICE_PARTITION: u8 = 2;
/// NAL unit type of an IDR slice.
pub const NAL_IDR: u8 = 5;
/// NAL unit type of supplemental enhancement information.
const NAL_SEI: u8 = 6;
/// NAL unit type of a sequence parameter set.
pub const NAL_SPS: u8 = 7;
/// NAL unit type of a picture parameter set.
pub const NAL_PPS: u8 = 8;
