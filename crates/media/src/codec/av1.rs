//! AV1: the configuration record, the size in the sequence header, random access points.

use bytes::Buf;
use millrace_buf::ByteChain;

use crate::bits::BitReader;

/// Why an AV1 header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Av1Error {
    /// Fewer bytes than the fields need.
    #[error("{0} is truncated")]
    Truncated(&'static str),
    /// A record longer than [`MAX_AV1C_BYTES`], which is refused unread.
    #[error("AV1CodecConfigurationRecord of {0} bytes is longer than {MAX_AV1C_BYTES}")]
    TooLong(usize),
    /// A marker and version byte other than 0x81.
    #[error("AV1CodecConfigurationRecord begins with {0:#04x}, not with 0x81 (marker, version 1)")]
    Version(u8),
    /// No sequence header in the record, so that the size of the pictures is unknown.
    #[error("AV1CodecConfigurationRecord without sequence header")]
    NoSequenceHeader,
    /// A sequence of still pictures, which is no video.
    #[error("AV1 still pictures")]
    StillPicture,
}

/// Largest record that is read; real ones are below 100 bytes.
pub const MAX_AV1C_BYTES: usize = 4 * 1024;
const OBU_SEQUENCE_HEADER: u8 = 1;
const OBU_FRAME_HEADER: u8 = 3;
const OBU_FRAME: u8 = 6;

/// An AV1CodecConfigurationRecord (AV1-ISOBMFF §2.3) with the size from its sequence header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Av1Config {
    /// RFC 6381 codec string (AV1-ISOBMFF §5) in its short form, such as `av01.0.04M.08`.
    pub codecs: String,
    /// Largest width of a picture, in pixels.
    pub width: u32,
    /// Largest height of a picture, in pixels.
    pub height: u32,
    /// Frames per second as a fraction, if the sequence header states that pictures have equal
    /// intervals.
    pub frame_rate: Option<(u32, u32)>,
}

impl Av1Config {
    /// Reads a record; an error if it is malformed or has no sequence header.
    pub fn parse(data: &[u8]) -> Result<Self, Av1Error> {
        if data.len() > MAX_AV1C_BYTES {
            return Err(Av1Error::TooLong(data.len()));
        }
        let (&[version, profile_level, depth, _], obus) =
            data.split_first_chunk::<4>().ok_or(Av1Error::Truncated("AV1CodecConfigurationRecord"))?;
        if version != 0x81 {
            return Err(Av1Error::Version(version));
        }
        let tier = if depth & 0x80 == 0 { 'M' } else { 'H' };
        let bit_depth = match (depth & 0x40 != 0, depth & 0x20 != 0) {
            (false, _) => 8,
            (true, false) => 10,
            (true, true) => 12,
        };
        let (profile, level) = (profile_level >> 5, profile_level & 0x1f);
        let codecs = format!("av01.{profile}.{level:02}{tier}.{bit_depth:02}");
        let header = sequence_header(obus)?.ok_or(Av1Error::NoSequenceHeader)?;
        let sequence = Sequence::parse(&mut BitReader::new(header))?;
        let Sequence { width, height, frame_rate } = sequence;
        Ok(Self { codecs, width, height, frame_rate })
    }
}

/// Returns the payload of the first sequence header among the record's OBUs.
fn sequence_header(mut obus: &[u8]) -> Result<Option<&[u8]>, Av1Error> {
    while obus.has_remaining() {
        let (kind, length) = obu_header(&mut obus)?;
        let (payload, rest) = obus.split_at(length);
        if kind == OBU_SEQUENCE_HEADER {
            return Ok(Some(payload));
        }
        obus = rest;
    }
    Ok(None)
}

/// Reads an OBU header (AV1 §5.3); returns the OBU's type and the length of its payload, which is
/// within `data`.
fn obu_header(data: &mut impl Buf) -> Result<(u8, usize), Av1Error> {
    let truncated = Av1Error::Truncated("OBU");
    let header = data.try_get_u8().map_err(|_| truncated)?;
    if header & 0x04 != 0 {
        data.try_get_u8().map_err(|_| truncated)?; // temporal and spatial layer
    }
    let length = if header & 0x02 == 0 { data.remaining() } else { leb128(data).ok_or(truncated)? };
    if length > data.remaining() {
        return Err(truncated);
    }
    Ok((header >> 3 & 0x0f, length))
}

/// Reads a number of seven bits a byte, least significant first, in at most eight bytes (AV1
/// §4.10.5).
fn leb128(data: &mut impl Buf) -> Option<usize> {
    let mut value = 0u64;
    for index in 0..8 {
        let byte = data.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return usize::try_from(value).ok();
        }
    }
    None
}

/// The fields of a sequence header (AV1 §5.5.1) up to the size of the pictures.
struct Sequence {
    width: u32,
    height: u32,
    frame_rate: Option<(u32, u32)>,
}

impl Sequence {
    fn parse(bits: &mut BitReader<'_>) -> Result<Self, Av1Error> {
        let truncated = Av1Error::Truncated("sequence header");
        bits.bits(3).ok_or(truncated)?; // seq_profile
        bits.flag().ok_or(truncated)?; // still_picture
        if bits.flag().ok_or(truncated)? {
            return Err(Av1Error::StillPicture); // reduced_still_picture_header
        }
        let mut frame_rate = None;
        let mut delay_bits = None;
        if bits.flag().ok_or(truncated)? {
            let (scale, units) = timing(bits).ok_or(truncated)?;
            frame_rate = Some((scale, units)).filter(|_| scale > 0 && units > 0);
            if bits.flag().ok_or(truncated)? {
                delay_bits = Some(bits.bits(5).ok_or(truncated)? + 1);
                bits.bits(32).ok_or(truncated)?; // num_units_in_decoding_tick
                bits.bits(10).ok_or(truncated)?; // lengths of removal and presentation times
            }
        }
        operating_points(bits, delay_bits).ok_or(truncated)?;
        let width_bits = bits.bits(4).ok_or(truncated)? + 1;
        let height_bits = bits.bits(4).ok_or(truncated)? + 1;
        let width = bits.bits(width_bits).ok_or(truncated)? + 1;
        let height = bits.bits(height_bits).ok_or(truncated)? + 1;
        Ok(Self { width, height, frame_rate })
    }
}

/// Reads `timing_info` (AV1 §5.5.3): the time scale and the ticks per picture, which are 0 if pictures
/// have no equal intervals.
fn timing(bits: &mut BitReader<'_>) -> Option<(u32, u32)> {
    let (units, scale) = (bits.bits(32)?, bits.bits(32)?);
    if !bits.flag()? {
        return Some((scale, 0));
    }
    let ticks = bits.ue()?.checked_add(1);
    Some((scale, ticks.and_then(|ticks| units.checked_mul(ticks)).unwrap_or(0)))
}

/// Skips the operating points; `delay_bits` is the length of decoder delays if there is a decoder
/// model.
fn operating_points(bits: &mut BitReader<'_>, delay_bits: Option<u32>) -> Option<()> {
    let has_display_delay = bits.flag()?;
    for _ in 0..=bits.bits(5)? {
        bits.bits(12)?; // operating_point_idc
        if bits.bits(5)? > 7 {
            bits.flag()?; // seq_tier
        }
        if let Some(delay) = delay_bits
            && bits.flag()?
        {
            bits.bits(delay)?;
            bits.bits(delay)?;
            bits.flag()?; // low_delay_mode_flag
        }
        if has_display_delay && bits.flag()? {
            bits.bits(4)?;
        }
    }
    Some(())
}

/// True if a decoder can start at this temporal unit: its first frame is a key frame that is shown
/// as it is decoded. An error if the lengths of its OBUs do not add up, or it is empty.
pub fn is_keyframe(data: &ByteChain) -> Result<bool, Av1Error> {
    if data.is_empty() {
        return Err(Av1Error::Truncated("temporal unit"));
    }
    let mut rest = data.reader();
    let mut keyframe = None;
    while rest.has_remaining() {
        let (kind, length) = obu_header(&mut rest)?;
        if matches!(kind, OBU_FRAME_HEADER | OBU_FRAME) && length > 0 {
            // show_existing_frame, then two bits of frame_type: KEY_FRAME is 0 (AV1 §5.9.2).
            keyframe = keyframe.or(rest.chunk().first().map(|first| first & 0xe0 == 0));
        }
        rest.advance(length);
    }
    Ok(keyframe == Some(true))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// The record of SVT-AV1: Main profile, level 2.0, 8 bits, 320x180.
    const RECORD: &[u8] = &[
        0x81, 0x00, 0x0c, 0x00, 0x0a, 0x0b, 0x00, 0x00, 0x00, 0x04, 0x3c, 0xfe, 0xcc, 0x02, 0xf8, 0x00, 0x40,
    ];

    #[test]
    fn record_gives_codec_string_and_size() {
        let parsed = Av1Config::parse(RECORD).unwrap();
        assert_eq!(parsed.codecs, "av01.0.00M.08");
        assert_eq!((parsed.width, parsed.height, parsed.frame_rate), (320, 180, None));
        let mut other = RECORD.to_vec();
        other[1] = 0x2d;
        other[2] |= 0xc0;
        assert_eq!(Av1Config::parse(&other).unwrap().codecs, "av01.1.13H.10");
    }

    #[test]
    fn record_that_is_cut_or_has_another_version_is_refused() {
        for cut in 0..RECORD.len() - 1 {
            assert!(Av1Config::parse(&RECORD[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Av1Config::parse(&RECORD[..4]), Err(Av1Error::NoSequenceHeader));
        assert_eq!(Av1Config::parse(&[0x01, 0, 0, 0]), Err(Av1Error::Version(1)));
    }

    #[test]
    fn only_a_shown_key_frame_is_a_keyframe() {
        // A temporal delimiter, then a frame of one byte.
        let unit = |first: u8| ByteChain::from(vec![0x12, 0, 0x32, 1, first]);
        assert_eq!(is_keyframe(&unit(0x10)), Ok(true));
        assert_eq!(is_keyframe(&unit(0x30)), Ok(false), "an inter frame");
        assert_eq!(is_keyframe(&unit(0x80)), Ok(false), "a frame that is shown again");
        assert_eq!(is_keyframe(&ByteChain::from(vec![0x12, 0])), Ok(false), "no frame");
        assert_eq!(is_keyframe(&ByteChain::from(vec![0x32, 9, 0])), Err(Av1Error::Truncated("OBU")));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..20, flip: u8) {
            let _ = Av1Config::parse(&data);
            let _ = is_keyframe(&Bytes::from(data).into());
            let mut record = RECORD.to_vec();
            if let Some(byte) = record.get_mut(at) {
                *byte ^= flip;
            }
            if let Ok(parsed) = Av1Config::parse(&record) {
                prop_assert!(parsed.width <= 1 << 16 && parsed.height <= 1 << 16);
            }
        }
    }
}
