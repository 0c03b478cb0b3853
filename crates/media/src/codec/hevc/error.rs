//! The reasons why an HEVC header is refused.

/// Why an HEVC header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HevcError {
    /// Fewer bytes than the fields need.
    #[error("{0} is truncated")]
    Truncated(&'static str),
    /// A record longer than [`MAX_HVCC_BYTES`], which is refused unread.
    #[error("HEVCDecoderConfigurationRecord of {0} bytes is longer than {MAX_HVCC_BYTES}")]
    TooLong(usize),
    /// A version other than 1, the only one that exists.
    #[error("HEVCDecoderConfigurationRecord version {0} is not 1")]
    Version(u8),
    /// A length prefix of 3 bytes, which ISO/IEC 14496-15 §8.3.3.1.3 forbids.
    #[error("NAL unit length prefix of {0} bytes")]
    LengthSize(u8),
    /// No sequence parameter set in the record, so that the size of the pictures is unknown.
    #[error("HEVCDecoderConfigurationRecord without SPS")]
    NoSps,
    /// A field outside the range that HEVC allows.
    #[error("SPS field {0} is out of range")]
    Range(&'static str),
}

/// Largest record that is read; real ones are below 500 bytes.
pub const MAX_HVCC_BYTES: usize = 64 * 1024;
