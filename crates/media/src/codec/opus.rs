//! Opus: the decoder configuration and the duration of a packet.

use bytes::{BufMut, Bytes, BytesMut};
use millrace_buf::ByteChain;

/// Why an Opus header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpusError {
    /// Fewer bytes than the fields need.
    #[error("Opus configuration is truncated")]
    Truncated,
    /// More bytes than the fields need.
    #[error("Opus configuration of {0} bytes is too long")]
    TooLong(usize),
    /// A version that this build does not know.
    #[error("Opus configuration version {0}")]
    Version(u8),
    /// No channels, or more than 8.
    #[error("unsupported Opus channel count {0}")]
    Channels(u8),
}

/// Samples a second of every Opus decoder, whatever the rate of the source was (RFC 6716 §2).
pub const RATE: u32 = 48_000;
/// Samples of the packet that encoders send by default (20 ms).
pub const USUAL_FRAME_SAMPLES: u32 = 960;
/// Samples of the longest packet (120 ms, RFC 6716 §3.2.5).
const MAX_PACKET_SAMPLES: u32 = 5_760;
/// Bytes of the box before the channel mapping.
const FIXED_BYTES: usize = 11;

/// The fields of an OpusSpecificBox (Opus in ISOBMFF §4.3.2) that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusConfig {
    /// Output channels, 1 to 8.
    pub channels: u8,
    /// Samples at the start that a decoder discards.
    pub pre_skip: u16,
}

impl OpusConfig {
    /// Reads the content of an OpusSpecificBox (`dOps`).
    pub fn parse(data: &[u8]) -> Result<Self, OpusError> {
        let (&[version, channels, skip_high, skip_low, _, _, _, _, _, _, family], mapping) =
            data.split_first_chunk::<FIXED_BYTES>().ok_or(OpusError::Truncated)?;
        if version != 0 {
            return Err(OpusError::Version(version));
        }
        if !(1..=8).contains(&channels) || (family == 0 && channels > 2) {
            return Err(OpusError::Channels(channels));
        }
        // Stream count, coupled count and one byte a channel.
        let expected = if family == 0 { 0 } else { 2 + usize::from(channels) };
        match mapping.len() {
            length if length < expected => Err(OpusError::Truncated),
            length if length > expected => Err(OpusError::TooLong(data.len())),
            _ => Ok(Self { channels, pre_skip: u16::from_be_bytes([skip_high, skip_low]) }),
        }
    }
}

/// Returns the content of an OpusSpecificBox for `record`, which is either that or an `OpusHead`
/// (RFC 7845 §5.1). The fields are the same; an `OpusHead` has a magic, another version and
/// little-endian numbers.
pub fn to_specific_box(record: Bytes) -> Result<Bytes, OpusError> {
    let Some(head) = record.strip_prefix(b"OpusHead") else { return Ok(record) };
    let (fixed, mapping) = head.split_first_chunk::<FIXED_BYTES>().ok_or(OpusError::Truncated)?;
    // A minor version may add nothing that matters; a major version is in the high four bits.
    if fixed[0] == 0 || fixed[0] > 15 {
        return Err(OpusError::Version(fixed[0]));
    }
    let mut out = BytesMut::with_capacity(head.len());
    out.put_u8(0);
    out.put_u8(fixed[1]);
    out.put_u16(u16::from_le_bytes([fixed[2], fixed[3]]));
    out.put_u32(u32::from_le_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]));
    out.put_u16(u16::from_le_bytes([fixed[8], fixed[9]]));
    out.put_u8(fixed[10]);
    out.put_slice(mapping);
    Ok(out.freeze())
}

/// Returns the number of samples at 48 kHz that a packet decodes to (RFC 6716 §3.1 and §3.2), or
/// `None` if the packet is malformed.
pub fn packet_samples(packet: &ByteChain) -> Option<u32> {
    let [toc] = packet.first_chunk()?;
    let frame = match toc >> 3 {
        config @ 0..12 => [480, 960, 1_920, 2_880][usize::from(config & 3)],
        config @ 12..16 => [480, 960][usize::from(config & 1)],
        config => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.first_chunk::<2>()?[1] & 0x3f),
    };
    Some(frame * frames).filter(|samples| (1..=MAX_PACKET_SAMPLES).contains(samples))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0";
    const SPECIFIC_BOX: &[u8] = &[0, 2, 0x01, 0x38, 0, 0, 0xbb, 0x80, 0, 0, 0];

    #[test]
    fn opus_head_becomes_the_content_of_a_specific_box() {
        let converted = to_specific_box(Bytes::from_static(HEAD)).unwrap();
        assert_eq!(converted, SPECIFIC_BOX);
        assert_eq!(to_specific_box(converted.clone()).unwrap(), converted);
        assert_eq!(OpusConfig::parse(&converted), Ok(OpusConfig { channels: 2, pre_skip: 312 }));
    }

    #[test]
    fn configuration_with_wrong_channels_or_length_is_refused() {
        let with = |at: usize, value: u8| {
            let mut record = SPECIFIC_BOX.to_vec();
            record[at] = value;
            OpusConfig::parse(&record)
        };
        assert_eq!(with(0, 1), Err(OpusError::Version(1)));
        assert_eq!(with(1, 0), Err(OpusError::Channels(0)));
        assert_eq!(with(1, 6), Err(OpusError::Channels(6)), "family 0 has two channels at most");
        assert_eq!(with(10, 1), Err(OpusError::Truncated), "a mapping is missing");
        assert_eq!(OpusConfig::parse(&[SPECIFIC_BOX, &[0]].concat()), Err(OpusError::TooLong(12)));
        assert_eq!(OpusConfig::parse(&SPECIFIC_BOX[..10]), Err(OpusError::Truncated));
        let surround =
            [&SPECIFIC_BOX[..1], &[6], &SPECIFIC_BOX[2..10], &[1, 4, 2, 0, 4, 1, 2, 3, 5]].concat();
        assert_eq!(OpusConfig::parse(&surround).unwrap().channels, 6);
    }

    #[test]
    fn packet_duration_follows_its_first_bytes() {
        let samples = |bytes: &'static [u8]| packet_samples(&Bytes::from_static(bytes).into());
        assert_eq!(samples(&[0xfc]), Some(960), "one CELT frame of 20 ms");
        assert_eq!(samples(&[0x18]), Some(2_880), "one SILK frame of 60 ms");
        assert_eq!(samples(&[0x61]), Some(960), "two hybrid frames of 10 ms");
        assert_eq!(samples(&[0xfb, 3]), Some(2_880), "three CELT frames of 20 ms");
        assert_eq!(samples(&[0xfb, 0]), None);
        assert_eq!(samples(&[0xfb, 7]), None, "longer than 120 ms");
        assert_eq!(samples(&[0xfb]), None);
        assert_eq!(samples(&[]), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..40), is_head: bool) {
            let record = if is_head { [b"OpusHead", &data[..]].concat() } else { data };
            if let Ok(converted) = to_specific_box(record.clone().into()) {
                prop_assert!(converted.len() <= record.len());
                let _ = OpusConfig::parse(&converted);
            }
            if let Some(samples) = packet_samples(&record.into()) {
                prop_assert!((120..=MAX_PACKET_SAMPLES).contains(&samples));
            }
        }
    }
}
