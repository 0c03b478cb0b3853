//! ADTS headers (ISO/IEC 13818-7 §6.2), which some encoders leave in front of AAC frames.

use bytes::Bytes;
use millrace_buf::ByteChain;

use super::config::AudioSpecificConfig;
use super::{AacError, RATES};

/// Bytes of a header without its check sum, and of the check sum.
const FIXED_BYTES: usize = 7;
const CHECK_SUM_BYTES: usize = 2;

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdtsHeader {
    /// Bytes of the header.
    pub header_bytes: usize,
    /// Bytes of the frame with its header.
    pub frame_bytes: usize,
    object_type: u32,
    rate_index: u8,
    channels: u8,
}

impl AdtsHeader {
    /// Reads the header that the bytes begin with; `None` if they begin with none. No raw data block
    /// begins like one: that would be an end element with nothing before it.
    pub fn parse(data: &ByteChain) -> Option<Self> {
        let [sync, layer, profile, channels, high, low, blocks] = data.first_chunk::<FIXED_BYTES>()?;
        if sync != 0xff || layer & 0xf6 != 0xf0 {
            return None;
        }
        let frame_bytes = usize::from(channels & 3) << 11 | usize::from(high) << 3 | usize::from(low >> 5);
        let header_bytes = FIXED_BYTES + if layer & 1 == 0 { CHECK_SUM_BYTES } else { 0 };
        // Several raw data blocks in one frame cannot be told apart without decoding them.
        (frame_bytes >= header_bytes && blocks.trailing_zeros() >= 2).then_some(Self {
            header_bytes,
            frame_bytes,
            object_type: u32::from(profile >> 6) + 1,
            rate_index: profile >> 2 & 0x0f,
            channels: (profile & 1) << 2 | channels >> 6,
        })
    }

    /// Returns the AudioSpecificConfig that the header stands for.
    pub fn config(&self) -> Result<Bytes, AacError> {
        if self.object_type != 2 {
            return Err(AacError::ObjectType(self.object_type));
        }
        let rate = *RATES.get(usize::from(self.rate_index)).ok_or(AacError::Rate)?;
        let channels = if self.channels == 7 { 8 } else { self.channels };
        AudioSpecificConfig::aac_lc(rate, channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_of_ffmpeg_gives_sizes_and_configuration() {
        // 48 kHz, stereo, 371 bytes.
        let data = ByteChain::from(vec![0xff, 0xf1, 0x4c, 0x80, 0x2e, 0x7f, 0xfc, 0x21]);
        let header = AdtsHeader::parse(&data).unwrap();
        assert_eq!((header.header_bytes, header.frame_bytes), (7, 371));
        assert_eq!(header.config().unwrap()[..], [0x11, 0x90]);
        let main = ByteChain::from(vec![0xff, 0xf0, 0x0c, 0x80, 0x2e, 0x7f, 0xfc]);
        let header = AdtsHeader::parse(&main).unwrap();
        assert_eq!((header.header_bytes, header.config()), (9, Err(AacError::ObjectType(1))));
    }

    #[test]
    fn other_bytes_are_no_header() {
        for data in
            [&[0x21, 0x10, 5, 0, 0, 0, 0, 0][..], &[0xff, 0xf1, 0x4c], &[0xff, 0xfb, 0x90, 0x64, 0, 0, 0]]
        {
            assert_eq!(AdtsHeader::parse(&Bytes::copy_from_slice(data).into()), None, "{data:02x?}");
        }
        // Two raw data blocks.
        assert_eq!(AdtsHeader::parse(&ByteChain::from(vec![0xff, 0xf1, 0x4c, 0x80, 0x2e, 0x7f, 0xfd])), None);
    }
}
