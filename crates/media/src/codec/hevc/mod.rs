//! HEVC: the decoder configuration record, the size in the SPS, random access points.

mod error;
mod sps;

use std::fmt::Write as _;

use bytes::Buf;
use millrace_buf::ByteChain;

use super::nal::nal_units;
use crate::codec::sync::SyncKind;
pub use error::{HevcError, MAX_HVCC_BYTES};
use sps::Sps;

/// Bytes of the record before its arrays of parameter sets.
const FIXED_BYTES: usize = 23;
/// NAL unit type of a sequence parameter set (HEVC table 7-1).
const NAL_SPS: u8 = 33;

/// An HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 §8.3.3.1) with the size from its first SPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HevcConfig {
    /// RFC 6381 codec string (ISO/IEC 14496-15 Annex E), such as `hvc1.1.6.L93.B0`.
    pub codecs: String,
    /// Size of a NAL unit's length prefix in bytes: 1, 2 or 4.
    pub nal_length_size: u8,
    /// Luma width after cropping, in pixels.
    pub width: u32,
    /// Luma height after cropping, in pixels.
    pub height: u32,
    /// Width and height of a pixel as a reduced fraction; 1:1 if the SPS does not state them.
    pub pixel_aspect: (u32, u32),
    /// Frames per second as a fraction, if the record states an average frame rate.
    pub frame_rate: Option<(u32, u32)>,
}

impl HevcConfig {
    /// Reads a record; an error if it is malformed or has no SPS.
    pub fn parse(data: &[u8]) -> Result<Self, HevcError> {
        if data.len() > MAX_HVCC_BYTES {
            return Err(HevcError::TooLong(data.len()));
        }
        let Some((fixed, arrays)) = data.split_first_chunk::<FIXED_BYTES>() else {
            return Err(HevcError::Truncated("HEVCDecoderConfigurationRecord"));
        };
        if fixed[0] != 1 {
            return Err(HevcError::Version(fixed[0]));
        }
        let nal_length_size = (fixed[21] & 3) + 1;
        if nal_length_size == 3 {
            return Err(HevcError::LengthSize(nal_length_size));
        }
        let Sps { width, height, pixel_aspect } =
            Sps::parse(first_sps(arrays, fixed[22])?.ok_or(HevcError::NoSps)?)?;
        // Frames per 256 seconds; 0 means unspecified.
        let average = u32::from(u16::from_be_bytes([fixed[19], fixed[20]]));
        let frame_rate = Some((average, 256)).filter(|_| average > 0);
        Ok(Self { codecs: codecs(fixed), nal_length_size, width, height, pixel_aspect, frame_rate })
    }
}

/// Returns the codec string of a record's fixed fields (ISO/IEC 14496-15 §E.3): profile space and
/// profile, reversed compatibility flags, tier and level, and the constraint bytes up to the last
/// one that is not zero.
fn codecs(fixed: &[u8; FIXED_BYTES]) -> String {
    let space = ["", "A", "B", "C"][usize::from(fixed[1] >> 6)];
    let tier = if fixed[1] & 0x20 == 0 { 'L' } else { 'H' };
    let flags = u32::from_be_bytes([fixed[2], fixed[3], fixed[4], fixed[5]]).reverse_bits();
    let mut codecs = format!("hvc1.{space}{}.{flags:X}.{tier}{}", fixed[1] & 0x1f, fixed[12]);
    let constraints = &fixed[6..12];
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        // Writing to a string cannot fail.
        let _ = write!(codecs, ".{byte:X}");
    }
    codecs
}

/// Returns the first SPS of the record's arrays, after all arrays have been walked.
fn first_sps(mut rest: &[u8], arrays: u8) -> Result<Option<&[u8]>, HevcError> {
    let truncated = HevcError::Truncated("HEVCDecoderConfigurationRecord");
    let mut sps = None;
    for _ in 0..arrays {
        let (&[kind, high, low], mut tail) = rest.split_first_chunk::<3>().ok_or(truncated)?;
        for _ in 0..u16::from_be_bytes([high, low]) {
            let (length, after) = tail.split_first_chunk::<2>().ok_or(truncated)?;
            let (nal, after) =
                after.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(truncated)?;
            if kind & 0x3f == NAL_SPS {
                sps = sps.or(Some(nal));
            }
            tail = after;
        }
        rest = tail;
    }
    Ok(sps)
}

/// Returns how a decoder can start at this access unit, whose NAL units have prefixes of
/// `length_size` bytes; an error if the lengths do not add up, or the access unit is empty.
///
/// IDR and BLA pictures (types 16 to 20 of HEVC table 7-1) refer to nothing before them. The pictures
/// that follow a CRA picture (21) and are shown before it may refer to the segment before.
pub fn sync_kind(data: &ByteChain, length_size: u8) -> Result<SyncKind, HevcError> {
    if data.is_empty() {
        return Err(HevcError::Truncated("access unit"));
    }
    nal_units(data, length_size).try_fold(SyncKind::None, |found, unit| {
        let unit = unit.map_err(|_| HevcError::Truncated("access unit"))?;
        let kind = unit.chunk().first().map(|header| header >> 1 & 0x3f);
        Ok(match kind {
            Some(16..=20) => SyncKind::Idr,
            Some(21) if found == SyncKind::None => SyncKind::OpenGop,
            _ => found,
        })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::sps::MAX_SIDE;
    use super::*;

    /// The record of x265 (Main profile, level 2.0, 320x180) with its SPS alone.
    fn record() -> Vec<u8> {
        let mut record = vec![
            1, 0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 60, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 1,
        ];
        record.extend([0xa1, 0, 1, 0, SPS.len() as u8]);
        record.extend(SPS);
        record
    }

    const SPS: &[u8] = &[
        0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00,
        0x3c, 0xa0, 0x0a, 0x08, 0x0b, 0x9f, 0x79, 0x65, 0x66, 0x92, 0x4c, 0xaf, 0x01, 0x68, 0x08, 0x00, 0x00,
        0x03, 0x00, 0x08, 0x00, 0x00, 0x03, 0x00, 0xc8, 0x40,
    ];

    fn access_unit(kind: u8) -> ByteChain {
        Bytes::from(vec![0, 0, 0, 2, kind << 1, 1]).into()
    }

    #[test]
    fn record_gives_codec_string_and_size() {
        let parsed = HevcConfig::parse(&record()).unwrap();
        assert_eq!(parsed.codecs, "hvc1.1.6.L60.90");
        assert_eq!((parsed.width, parsed.height), (320, 180));
        assert_eq!((parsed.nal_length_size, parsed.frame_rate), (4, None));
        assert_eq!(parsed.pixel_aspect, (1, 1));
    }

    #[test]
    fn codec_string_follows_annex_e() {
        let mut fixed = [0; FIXED_BYTES];
        fixed[1..13].copy_from_slice(&[0x01, 0x60, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 93]);
        assert_eq!(codecs(&fixed), "hvc1.1.6.L93.B0");
        fixed[1..13].copy_from_slice(&[0x62, 0x20, 0, 0, 0, 0x90, 0, 0x10, 0, 0, 0, 153]);
        assert_eq!(codecs(&fixed), "hvc1.A2.4.H153.90.0.10");
    }

    #[test]
    fn record_that_is_cut_or_has_another_version_is_refused() {
        let record = record();
        for cut in 0..record.len() {
            assert!(HevcConfig::parse(&record[..cut]).is_err(), "cut at {cut}");
        }
        let mut other = record.clone();
        other[0] = 2;
        assert_eq!(HevcConfig::parse(&other), Err(HevcError::Version(2)));
        other[0] = 1;
        other[21] = 0x0e;
        assert_eq!(HevcConfig::parse(&other), Err(HevcError::LengthSize(3)));
        other[21] = 0x0f;
        other[22] = 0;
        assert_eq!(HevcConfig::parse(&other), Err(HevcError::NoSps));
    }

    #[test]
    fn idr_and_bla_are_closed_and_cra_begins_an_open_gop() {
        use SyncKind::{Idr, None, OpenGop};
        for (kind, expected) in [(16, Idr), (19, Idr), (20, Idr), (21, OpenGop), (1, None), (32, None)] {
            assert_eq!(sync_kind(&access_unit(kind), 4), Ok(expected), "type {kind}");
        }
        assert!(sync_kind(&ByteChain::new(), 4).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..60, flip: u8) {
            let _ = HevcConfig::parse(&data);
            let _ = sync_kind(&Bytes::from(data).into(), 4);
            let mut record = record();
            if let Some(byte) = record.get_mut(at) {
                *byte ^= flip;
            }
            if let Ok(parsed) = HevcConfig::parse(&record) {
                prop_assert!(parsed.width <= MAX_SIDE && parsed.height <= MAX_SIDE);
            }
        }
    }
}
