//! AAC: the decoder configuration and silent frames.

use bytes::Bytes;

use crate::bits::BitReader;

/// Why an AudioSpecificConfig was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AacError {
    /// Fewer bytes than the fields need.
    #[error("AudioSpecificConfig is truncated")]
    Truncated,
    /// A record longer than [`MAX_ASC_BYTES`], which is refused unread.
    #[error("AudioSpecificConfig of {0} bytes is longer than {MAX_ASC_BYTES}")]
    TooLong(usize),
    /// An object type that HLS players are not required to decode.
    #[error("audio object type {0} is not AAC-LC, HE-AAC or HE-AACv2")]
    ObjectType(u32),
    /// A reserved frequency index, or a rate outside 7 350 to 96 000 Hz.
    #[error("unsupported AAC sampling rate")]
    Rate,
    /// A channel configuration that is not one of mono to 7.1.
    #[error("unsupported AAC channel configuration {0}")]
    Channels(u32),
    /// Frames of 960 samples, which no HLS player is required to decode.
    #[error("AAC with 960-sample frames is not supported")]
    ShortFrames,
}

/// Largest AudioSpecificConfig that is read; one with a program config element stays far below
/// this.
pub const MAX_ASC_BYTES: usize = 512;

/// Sampling frequencies by index (ISO/IEC 14496-3 table 1.18).
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// Samples of each channel in an access unit (ISO/IEC 14496-3 §4.5.2.1.1), at the rate of the
/// AAC-LC core.
pub const FRAME_SAMPLES: u32 = 1024;

const AOT_LC: u32 = 2;
const AOT_SBR: u32 = 5;
const AOT_PS: u32 = 29;

/// The fields of an AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1) that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// Audio object type as signalled: 2 (AAC-LC), 5 (SBR, HE-AAC) or 29 (PS, HE-AACv2).
    pub object_type: u32,
    /// Sampling rate of the core in Hz: [`FRAME_SAMPLES`] of this rate make a frame.
    pub rate: u32,
    /// Channels, 1 to 6 or 8.
    pub channels: u8,
}

impl AudioSpecificConfig {
    /// Reads a configuration; an error if it is malformed or not carried here.
    pub fn parse(data: &[u8]) -> Result<Self, AacError> {
        if data.len() > MAX_ASC_BYTES {
            return Err(AacError::TooLong(data.len()));
        }
        let mut bits = BitReader::new(data);
        let object_type = object_type(&mut bits)?;
        let rate = rate(&mut bits)?;
        let channel_config = bits.bits(4).ok_or(AacError::Truncated)?;
        let core = match object_type {
            AOT_SBR | AOT_PS => {
                self::rate(&mut bits)?; // the extension's rate
                self::object_type(&mut bits)?
            }
            other => other,
        };
        if core != AOT_LC {
            return Err(AacError::ObjectType(core));
        }
        if bits.flag().ok_or(AacError::Truncated)? {
            return Err(AacError::ShortFrames);
        }
        let channels = match channel_config {
            1..=6 => channel_config as u8,
            7 => 8,
            other => return Err(AacError::Channels(other)),
        };
        Ok(Self { object_type, rate, channels })
    }

    /// Returns the bytes of an AAC-LC configuration. The rate must have an index (7 350 to 96 000
    /// Hz), and there must be 1 to 6 or 8 channels.
    pub fn aac_lc(rate: u32, channels: u8) -> Result<Bytes, AacError> {
        let index = RATES.iter().position(|known| *known == rate).ok_or(AacError::Rate)? as u16;
        let config = match channels {
            1..=6 => u16::from(channels),
            8 => 7,
            other => return Err(AacError::Channels(u32::from(other))),
        };
        let word = (AOT_LC as u16) << 11 | index << 7 | config << 3;
        Ok(Bytes::copy_from_slice(&word.to_be_bytes()))
    }

    /// Returns the RFC 6381 codec string: `mp4a.40.` and the object type.
    pub fn codecs(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }
}

fn object_type(bits: &mut BitReader<'_>) -> Result<u32, AacError> {
    let value = bits.bits(5).ok_or(AacError::Truncated)?;
    if value == 31 { Ok(32 + bits.bits(6).ok_or(AacError::Truncated)?) } else { Ok(value) }
}

fn rate(bits: &mut BitReader<'_>) -> Result<u32, AacError> {
    let index = bits.bits(4).ok_or(AacError::Truncated)?;
    let rate = if index == 15 {
        bits.bits(24).ok_or(AacError::Truncated)?
    } else {
        *RATES.get(index as usize).ok_or(AacError::Rate)?
    };
    if (7_350..=96_000).contains(&rate) { Ok(rate) } else { Err(AacError::Rate) }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn configuration_of_usual_encoders_is_read() {
        let cases: [(&[u8], u32, u8, &str); 4] = [
            (&[0x11, 0x90], 48_000, 2, "mp4a.40.2"),
            (&[0x12, 0x10, 0x56, 0xe5, 0x00], 44_100, 2, "mp4a.40.2"), // ffmpeg adds the SBR sync extension
            (&[0x15, 0x88], 8_000, 1, "mp4a.40.2"),
            (&[0x2b, 0x11, 0x88, 0x00], 24_000, 2, "mp4a.40.5"), // explicit SBR over 24 kHz
        ];
        for (asc, rate, channels, codec) in cases {
            let parsed = AudioSpecificConfig::parse(asc).unwrap();
            assert_eq!(
                (parsed.rate, parsed.channels, parsed.codecs().as_str()),
                (rate, channels, codec),
                "{asc:02x?}"
            );
        }
    }

    #[test]
    fn configuration_of_other_aac_is_refused() {
        assert_eq!(AudioSpecificConfig::parse(&[]), Err(AacError::Truncated));
        assert_eq!(AudioSpecificConfig::parse(&[0x09, 0x90]), Err(AacError::ObjectType(1)));
        assert_eq!(AudioSpecificConfig::parse(&[0x16, 0x90]), Err(AacError::Rate));
        assert_eq!(AudioSpecificConfig::parse(&[0x11, 0x80]), Err(AacError::Channels(0)));
        assert_eq!(AudioSpecificConfig::parse(&[0x11, 0x94]), Err(AacError::ShortFrames));
        assert_eq!(AudioSpecificConfig::parse(&[0; 600]), Err(AacError::TooLong(600)));
    }

    #[test]
    fn configuration_that_is_built_is_read_back() {
        for rate in RATES {
            for channels in [1, 2, 3, 4, 5, 6, 8] {
                let asc = AudioSpecificConfig::aac_lc(rate, channels).unwrap();
                let parsed = AudioSpecificConfig::parse(&asc).unwrap();
                assert_eq!((parsed.rate, parsed.channels), (rate, channels));
            }
        }
        assert_eq!(AudioSpecificConfig::aac_lc(44_000, 2), Err(AacError::Rate));
        assert_eq!(AudioSpecificConfig::aac_lc(48_000, 7), Err(AacError::Channels(7)));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = AudioSpecificConfig::parse(&data);
        }
    }
}
