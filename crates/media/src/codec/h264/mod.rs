//! H.264: the decoder configuration record, the SPS, NAL units of access units.

mod sps;

pub use sps::Sps;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use millrace_buf::ByteChain;

/// Why H.264 headers were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum H264Error {
    /// Fewer bytes than the fields need.
    #[error("{0} is truncated")]
    Truncated(&'static str),
    /// Longer than [`MAX_AVCC_BYTES`].
    #[error("AVCDecoderConfigurationRecord of {0} bytes is too long")]
    TooLong(usize),
    /// Only version 1 exists.
    #[error("AVCDecoderConfigurationRecord version {0}")]
    Version(u8),
    /// A length prefix of 3 bytes is forbidden (ISO/IEC 14496-15 §5.3.3.1.2).
    #[error("NAL length size {0}")]
    LengthSize(u8),
    /// No sequence parameter set: nothing can be decoded.
    #[error("AVCDecoderConfigurationRecord without SPS")]
    NoSps,
    /// No picture parameter set.
    #[error("AVCDecoderConfigurationRecord without PPS")]
    NoPps,
    /// A field of the SPS is outside what H.264 allows.
    #[error("SPS field {0} is out of range")]
    Range(&'static str),
}

/// 31 SPS and 255 PPS could be larger; real records are below 200 bytes.
pub const MAX_AVCC_BYTES: usize = 64 * 1024;

/// NAL unit type of an IDR slice (H.264 table 7-1).
pub const NAL_IDR: u8 = 5;
/// NAL unit type of a sequence parameter set.
pub const NAL_SPS: u8 = 7;
/// NAL unit type of a picture parameter set.
pub const NAL_PPS: u8 = 8;

/// An AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1) with its first SPS read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvcConfig {
    /// `profile_idc`.
    pub profile: u8,
    /// `constraint_set` flags.
    pub compatibility: u8,
    /// `level_idc`.
    pub level: u8,
    /// Bytes of a NAL unit's length prefix: 1, 2 or 4.
    pub nal_length_size: u8,
    /// The first sequence parameter set.
    pub sps: Sps,
}

impl AvcConfig {
    /// Reads a record.
    pub fn parse(data: &[u8]) -> Result<Self, H264Error> {
        if data.len() > MAX_AVCC_BYTES {
            return Err(H264Error::TooLong(data.len()));
        }
        let truncated = H264Error::Truncated("AVCDecoderConfigurationRecord");
        let &[version, profile, compatibility, level, sizes, sps_count, ref rest @ ..] = data else {
            return Err(truncated);
        };
        if version != 1 {
            return Err(H264Error::Version(version));
        }
        let nal_length_size = (sizes & 3) + 1;
        if nal_length_size == 3 {
            return Err(H264Error::LengthSize(nal_length_size));
        }
        let mut rest = rest;
        let mut sps = None;
        for _ in 0..sps_count & 0x1f {
            let nal = take_set(&mut rest).ok_or(truncated)?;
            if sps.is_none() {
                sps = Some(Sps::parse(nal)?);
            }
        }
        let (pps_count, mut rest) = rest.split_first().ok_or(truncated)?;
        for _ in 0..*pps_count {
            take_set(&mut rest).ok_or(truncated)?;
        }
        if *pps_count == 0 {
            return Err(H264Error::NoPps);
        }
        Ok(Self { profile, compatibility, level, nal_length_size, sps: sps.ok_or(H264Error::NoSps)? })
    }

    /// RFC 6381 codec string: `avc1.PPCCLL` in lower-case hex.
    pub fn codec(&self) -> String {
        format!("avc1.{:02x}{:02x}{:02x}", self.profile, self.compatibility, self.level)
    }

    /// Builds a record with 4-byte lengths from parameter sets without start codes, as RTP and Annex B carry them.
    pub fn build(sps: &[u8], pps: &[u8]) -> Result<Bytes, H264Error> {
        let parsed = Sps::parse(sps)?;
        let (Ok(sps_len), Ok(pps_len)) = (u16::try_from(sps.len()), u16::try_from(pps.len())) else {
            return Err(H264Error::TooLong(sps.len() + pps.len()));
        };
        if pps.is_empty() {
            return Err(H264Error::NoPps);
        }
        let mut out = BytesMut::with_capacity(16 + sps.len() + pps.len());
        out.put_slice(&[1, sps[1], sps[2], sps[3], 0xff, 0xe1]);
        out.put_u16(sps_len);
        out.put_slice(sps);
        out.put_u8(1);
        out.put_u16(pps_len);
        out.put_slice(pps);
        // High profiles carry the chroma format and bit depths too (§5.3.3.1.2).
        if matches!(sps[1], 100 | 110 | 122 | 144) {
            let depth = |bits: u32| 0xf8 | (bits.saturating_sub(8) & 7) as u8;
            let chroma = 0xfc | (parsed.chroma_format & 3) as u8;
            out.put_slice(&[chroma, depth(parsed.luma_bits), depth(parsed.chroma_bits), 0]);
        }
        Ok(out.freeze())
    }
}

fn take_set<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let nal = tail.get(..length)?;
    *rest = &tail[length..];
    Some(nal)
}

/// Types of the NAL units of an AVCC access unit (H.264 table 7-1), `None` for an empty one, in order. Their length
/// prefixes must add up to exactly the access unit; what does not fit ends the walk with an error.
pub fn nal_types(data: &ByteChain, length_size: u8) -> impl Iterator<Item = Result<Option<u8>, H264Error>> {
    let size = usize::from(length_size.clamp(1, 4));
    let mut rest = data.reader();
    std::iter::from_fn(move || {
        if !rest.has_remaining() {
            return None;
        }
        let length = rest.try_get_uint(size).ok().and_then(|length| usize::try_from(length).ok());
        let Some(length) = length.filter(|length| *length <= rest.remaining()) else {
            rest.advance(rest.remaining());
            return Some(Err(H264Error::Truncated("access unit")));
        };
        let header = rest.chunk().first().filter(|_| length > 0).map(|header| header & 0x1f);
        rest.advance(length);
        Some(Ok(header))
    })
}

/// Whether an AVCC access unit holds an IDR slice; an error when its length prefixes do not add up, or it is empty.
pub fn is_keyframe(data: &ByteChain, length_size: u8) -> Result<bool, H264Error> {
    if data.is_empty() {
        return Err(H264Error::Truncated("access unit"));
    }
    nal_types(data, length_size).try_fold(false, |found, kind| Ok(found | (kind? == Some(NAL_IDR))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// x264 High 3.1, 1280x720, 30 fps.
    const SPS_720P30: &[u8] = &[
        0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10,
        0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60,
    ];
    const PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];

    #[test]
    fn reads_the_record_it_builds() {
        let avcc = AvcConfig::build(SPS_720P30, PPS).unwrap();
        let parsed = AvcConfig::parse(&avcc).unwrap();
        assert_eq!((parsed.sps.width, parsed.sps.height), (1280, 720));
        assert_eq!(parsed.sps.frame_rate, Some((30, 1)));
        assert_eq!(parsed.codec(), "avc1.64001f");
        assert_eq!(parsed.nal_length_size, 4);
        assert_eq!((parsed.sps.chroma_format, parsed.sps.luma_bits, parsed.sps.chroma_bits), (1, 8, 8));
    }

    #[test]
    fn refuses_broken_records() {
        let avcc = AvcConfig::build(SPS_720P30, PPS).unwrap();
        for cut in 0..avcc.len() - 4 {
            assert!(AvcConfig::parse(&avcc[..cut]).is_err(), "cut at {cut}");
        }
        let mut wrong = avcc.to_vec();
        wrong[0] = 2;
        assert_eq!(AvcConfig::parse(&wrong), Err(H264Error::Version(2)));
        wrong[0] = 1;
        wrong[4] = 0xfe;
        assert_eq!(AvcConfig::parse(&wrong), Err(H264Error::LengthSize(3)));
    }

    #[test]
    fn walks_nal_units() {
        let unit = |data: &[u8]| ByteChain::from(Bytes::copy_from_slice(data));
        let data = [0, 0, 0, 2, 0x06, 0x01, 0, 0, 0, 0, 0, 0, 0, 1, 0x65];
        let types: Vec<_> = nal_types(&unit(&data), 4).collect();
        assert_eq!(types, [Ok(Some(6)), Ok(None), Ok(Some(NAL_IDR))]);
        assert_eq!(is_keyframe(&unit(&data), 4), Ok(true));
        assert_eq!(is_keyframe(&unit(&data[..10]), 4), Ok(false));
        let truncated = Err(H264Error::Truncated("access unit"));
        for wrong in [&data[..14], &data[..12], &[0xff, 0xff, 0xff, 0xff, 0x65], &[]] {
            assert_eq!(is_keyframe(&unit(wrong), 4), truncated, "{wrong:?}");
        }
        for cut in 0..data.len() {
            let (head, tail) = data.split_at(cut);
            let pieces: ByteChain = [head, tail].map(Bytes::copy_from_slice).into_iter().collect();
            assert_eq!(nal_types(&pieces, 4).collect::<Vec<_>>(), types, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(data in prop::collection::vec(any::<u8>(), 0..256), size in 0u8..8) {
            let _ = AvcConfig::parse(&data);
            let _ = Sps::parse(&data);
            let _ = AvcConfig::build(&data, PPS);
            let _ = is_keyframe(&Bytes::from(data).into(), size);
        }

        #[test]
        fn flipped_sps_bits_never_panic(byte in 1usize..26, bit in 0u8..8) {
            let mut sps = SPS_720P30.to_vec();
            sps[byte] ^= 1 << bit;
            let _ = Sps::parse(&sps);
        }
    }
}
