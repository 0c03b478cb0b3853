//! The AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1).

use bytes::Bytes;

use super::layout::channels_of_elements;
use super::{AacError, MAX_ASC_BYTES, RATES};
use crate::bits::{BitReader, BitWriter};

const AOT_LC: u32 = 2;
const AOT_SBR: u32 = 5;
const AOT_PS: u32 = 29;
/// `syncExtensionType` in front of an SBR extension, and of a PS extension behind it.
const SYNC_SBR: u32 = 0x2b7;
const SYNC_PS: u32 = 0x548;

/// The fields of an AudioSpecificConfig that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// Audio object type as signalled: 2 (AAC-LC), 5 (SBR, HE-AAC) or 29 (PS, HE-AACv2).
    pub object_type: u32,
    /// Sampling rate of the core in Hz: [`super::FRAME_SAMPLES`] of this rate make a frame.
    pub rate: u32,
    /// Channels, 1 to 6 or 8.
    pub channels: u8,
    /// True if the channels are described by a program config element.
    has_elements: bool,
    /// Rate of the SBR extension in Hz, and true if it is signalled in front of the core.
    extension: Option<(u32, bool)>,
}

impl AudioSpecificConfig {
    /// Reads a configuration; an error if it is malformed or not carried here.
    pub fn parse(data: &[u8]) -> Result<Self, AacError> {
        if data.len() > MAX_ASC_BYTES {
            return Err(AacError::TooLong(data.len()));
        }
        let mut bits = BitReader::new(data);
        let mut object_type = object_type(&mut bits)?;
        let rate = rate(&mut bits)?;
        let channel_config = bits.bits(4).ok_or(AacError::Truncated)?;
        let mut extension = None;
        let core = match object_type {
            AOT_SBR | AOT_PS => {
                extension = Some((self::rate(&mut bits)?, true));
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
        if bits.flag().ok_or(AacError::Truncated)? {
            bits.bits(14).ok_or(AacError::Truncated)?; // coreCoderDelay
        }
        let has_extension_flag = bits.flag();
        let channels = match channel_config {
            0 => {
                has_extension_flag.ok_or(AacError::Truncated)?;
                channels_of_elements(&mut bits)?
            }
            1..=6 => channel_config as u8,
            7 => 8,
            other => return Err(AacError::Channels(other)),
        };
        if extension.is_none()
            && let Some((rate, has_ps)) = sync_extension(&mut bits)
        {
            extension = Some((rate, false));
            object_type = if has_ps { AOT_PS } else { AOT_SBR };
        }
        Ok(Self { object_type, rate, channels, has_elements: channel_config == 0, extension })
    }

    /// Returns the bytes of an AAC-LC configuration. The rate must have an index (7 350 to 96 000
    /// Hz), and there must be 1 to 6 or 8 channels.
    pub fn aac_lc(rate: u32, channels: u8) -> Result<Bytes, AacError> {
        if !RATES.contains(&rate) {
            return Err(AacError::Rate);
        }
        if !matches!(channels, 1..=6 | 8) {
            return Err(AacError::Channels(u32::from(channels)));
        }
        Ok(Self { object_type: AOT_LC, rate, channels, has_elements: false, extension: None }.write())
    }

    /// Returns a configuration with a channel configuration for one with a program config element,
    /// which browsers do not read; `None` if this one has none.
    pub fn without_elements(&self) -> Option<Bytes> {
        self.has_elements.then(|| self.write())
    }

    /// Returns the RFC 6381 codec string: `mp4a.40.` and the object type.
    pub fn codecs(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }

    /// Writes the configuration with a channel configuration.
    fn write(&self) -> Bytes {
        let mut bits = BitWriter::default();
        let channels = if self.channels == 8 { 7 } else { u32::from(self.channels) };
        let explicit = self.extension.filter(|(_, is_first)| *is_first);
        bits.put(5, if explicit.is_some() { self.object_type } else { AOT_LC });
        put_rate(&mut bits, self.rate);
        bits.put(4, channels);
        if let Some((rate, _)) = explicit {
            put_rate(&mut bits, rate);
            bits.put(5, AOT_LC);
        }
        bits.put(3, 0); // 1024 samples, no core coder, no extension of error resilience
        if let Some((rate, false)) = self.extension {
            bits.put(11, SYNC_SBR);
            bits.put(5, AOT_SBR);
            bits.put(1, 1);
            put_rate(&mut bits, rate);
            if self.object_type == AOT_PS {
                bits.put(11, SYNC_PS);
                bits.put(1, 1);
            }
        }
        bits.finish()
    }
}

/// Reads the extension that signals SBR behind the core (ISO/IEC 14496-3 §1.6.6.1): its rate, and true
/// if PS is signalled, too. `None` if it is absent or signals that there is no SBR.
fn sync_extension(bits: &mut BitReader<'_>) -> Option<(u32, bool)> {
    if bits.bits(11)? != SYNC_SBR || object_type(bits).ok()? != AOT_SBR || !bits.flag()? {
        return None;
    }
    let rate = rate(bits).ok()?;
    let has_ps = bits.bits(11) == Some(SYNC_PS) && bits.flag() == Some(true);
    Some((rate, has_ps))
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

fn put_rate(bits: &mut BitWriter, rate: u32) {
    if let Some(index) = RATES.iter().position(|known| *known == rate) {
        bits.put(4, index as u32);
    } else {
        bits.put(4, 15);
        bits.put(24, rate);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn configuration_of_usual_encoders_is_read() {
        let cases: [(&[u8], u32, u8, &str); 6] = [
            (&[0x11, 0x90], 48_000, 2, "mp4a.40.2"),
            (&[0x12, 0x10, 0x56, 0xe5, 0x00], 44_100, 2, "mp4a.40.2"), // ffmpeg adds the SBR sync extension
            (&[0x15, 0x88], 8_000, 1, "mp4a.40.2"),
            (&[0x2b, 0x11, 0x88, 0x00], 24_000, 2, "mp4a.40.5"), // explicit SBR over 24 kHz
            (&[0x13, 0x10, 0x56, 0xe5, 0x98], 24_000, 2, "mp4a.40.5"), // SBR behind the core
            (&[0x13, 0x08, 0x56, 0xe5, 0x9d, 0x48, 0x80], 24_000, 1, "mp4a.40.29"), // and PS behind that
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
        assert_eq!(AudioSpecificConfig::parse(&[0x11, 0x80]), Err(AacError::Truncated), "no elements");
        assert_eq!(AudioSpecificConfig::parse(&[0x11, 0xd8]), Err(AacError::Channels(11)));
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

    /// ffmpeg's record of `-channel_layout 5.1(side)` at 48 kHz.
    const SIDE: &[u8] = &[
        0x11, 0x80, 0x04, 0xc8, 0x44, 0x00, 0x20, 0x00, 0xc4, 0x0d, 0x4c, 0x61, 0x76, 0x63, 0x35, 0x39, 0x2e,
        0x33, 0x37, 0x2e, 0x31, 0x30, 0x30, 0x56, 0xe5, 0x00,
    ];

    #[test]
    fn refusal_names_the_object_type_and_the_setting_to_change() {
        let refused = AudioSpecificConfig::parse(&[0x09, 0x90]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "AAC Main (audio object type 1) is not accepted: choose AAC-LC in the encoder"
        );
    }

    /// A record with a program config element of 5.1 in the order of channel configuration 6.
    fn elements() -> Vec<u8> {
        let mut bits = BitWriter::default();
        for (count, value) in [(5, 2), (4, 3), (4, 0), (3, 0)] {
            bits.put(count, value);
        }
        for (count, value) in [(10, 0x43), (4, 2), (4, 1), (4, 0), (2, 1), (10, 0)] {
            bits.put(count, value);
        }
        for (count, value) in [(5, 0), (5, 0x10), (5, 0x11), (4, 0)] {
            bits.put(count, value);
        }
        let mut record = bits.finish().to_vec();
        record.extend([2, b'o', b'k', 0x56, 0xe5, 0x00]);
        record
    }

    #[test]
    fn program_config_element_in_another_order_is_refused() {
        // ffmpeg puts the front pair before the centre, and the low frequencies into a single element at the back.
        assert_eq!(AudioSpecificConfig::parse(SIDE), Err(AacError::Layout(6)));
    }

    #[test]
    fn program_config_element_of_5_1_becomes_channel_configuration_6() {
        let parsed = AudioSpecificConfig::parse(&elements()).unwrap();
        assert_eq!((parsed.rate, parsed.channels, parsed.codecs().as_str()), (48_000, 6, "mp4a.40.2"));
        assert_eq!(parsed.without_elements().unwrap(), AudioSpecificConfig::aac_lc(48_000, 6).unwrap());
        assert_eq!(AudioSpecificConfig::parse(&[0x11, 0x90]).unwrap().without_elements(), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..64), at in 0usize..30, flip: u8) {
            let _ = AudioSpecificConfig::parse(&data);
            let mut side = elements();
            if let Some(byte) = side.get_mut(at) {
                *byte ^= flip;
            }
            if let Ok(parsed) = AudioSpecificConfig::parse(&side) {
                let written = AudioSpecificConfig::parse(&parsed.write()).unwrap();
                prop_assert_eq!(written, AudioSpecificConfig { has_elements: false, ..parsed });
            }
        }
    }
}
