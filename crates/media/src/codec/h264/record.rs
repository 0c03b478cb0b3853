//! The decoder configuration record of H.264.

use bytes::{BufMut, Bytes, BytesMut};

use super::sps::Sps;
use super::{H264Error, MAX_AVCC_BYTES};

/// An AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1) with its first SPS read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvcConfig {
    /// The profile of the stream (`profile_idc`).
    pub profile: u8,
    /// The `constraint_set` flags in the order of the SPS.
    pub compatibility: u8,
    /// Ten times the level (`level_idc`).
    pub level: u8,
    /// Size of a NAL unit's length prefix in bytes: 1, 2 or 4.
    pub nal_length_size: u8,
    /// The first sequence parameter set of the record.
    pub sps: Sps,
}

impl AvcConfig {
    /// Reads a record with its first SPS.
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

    /// Returns the RFC 6381 codec string: `avc1.PPCCLL` in lower-case hex.
    pub fn codecs(&self) -> String {
        format!("avc1.{:02x}{:02x}{:02x}", self.profile, self.compatibility, self.level)
    }

    /// Builds a record with 4-byte lengths from parameter sets without start codes, as RTP and
    /// Annex B carry them.
    pub fn build(sps: &[u8], pps: &[u8]) -> Result<Bytes, H264Error> {
        let own = Bytes::copy_from_slice;
        build(&[&own(sps)], &[&own(pps)])
    }
}

/// Splits off the next parameter set, which has a length prefix of 16 bits.
pub(super) fn take_set<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let nal = tail.get(..length)?;
    *rest = &tail[length..];
    Some(nal)
}

/// Builds a record with 4-byte lengths from parameter sets without start codes, as RTP and Annex B
/// carry them; at most 31 and 255.
pub(super) fn build(sps: &[&Bytes], pps: &[&Bytes]) -> Result<Bytes, H264Error> {
    let first = sps.first().ok_or(H264Error::NoSps)?;
    let parsed = Sps::parse(first)?;
    if pps.is_empty() || pps.iter().any(|nal| nal.is_empty()) {
        return Err(H264Error::NoPps);
    }
    let (sps, pps) = (&sps[..sps.len().min(31)], &pps[..pps.len().min(255)]);
    let mut out = BytesMut::with_capacity(64);
    out.put_slice(&[1, first[1], first[2], first[3], 0xff, 0xe0 | sps.len() as u8]);
    put_sets(&mut out, sps)?;
    out.put_u8(pps.len() as u8);
    put_sets(&mut out, pps)?;
    // High profiles carry the chroma format and bit depths too (§5.3.3.1.2).
    if matches!(first[1], 100 | 110 | 122 | 144) {
        let depth = |bits: u32| 0xf8 | (bits.saturating_sub(8) & 7) as u8;
        let chroma = 0xfc | (parsed.chroma_format & 3) as u8;
        out.put_slice(&[chroma, depth(parsed.luma_bits), depth(parsed.chroma_bits), 0]);
    }
    let record = out.freeze();
    AvcConfig::parse(&record).map(|_| record)
}

fn put_sets(out: &mut BytesMut, sets: &[&Bytes]) -> Result<(), H264Error> {
    for nal in sets {
        out.put_u16(u16::try_from(nal.len()).map_err(|_| H264Error::TooLong(nal.len()))?);
        out.put_slice(nal);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{active_pps, sync_kind};
    use super::*;

    /// x264 High 3.1, 1280x720, 30 fps.
    const SPS_720P30: &[u8] = &[
        0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10,
        0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60,
    ];
    const PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];

    #[test]
    fn record_that_is_built_is_read_back() {
        let avcc = AvcConfig::build(SPS_720P30, PPS).unwrap();
        let parsed = AvcConfig::parse(&avcc).unwrap();
        assert_eq!((parsed.sps.width, parsed.sps.height), (1280, 720));
        assert_eq!(parsed.sps.frame_rate, Some((30, 1)));
        assert_eq!(parsed.codecs(), "avc1.64001f");
        assert_eq!(parsed.nal_length_size, 4);
        assert_eq!((parsed.sps.chroma_format, parsed.sps.luma_bits, parsed.sps.chroma_bits), (1, 8, 8));
    }

    #[test]
    fn record_that_is_cut_or_has_another_version_is_refused() {
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

    proptest! {
        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..256), size in 0u8..8) {
            let _ = AvcConfig::parse(&data);
            let _ = Sps::parse(&data);
            let _ = AvcConfig::build(&data, PPS);
            let _ = sync_kind(&Bytes::from(data.clone()).into(), size, true);
            let _ = active_pps(&Bytes::from(data).into(), size);
        }

        #[test]
        fn flipped_sps_bits_never_panic(byte in 1usize..26, bit in 0u8..8) {
            let mut sps = SPS_720P30.to_vec();
            sps[byte] ^= 1 << bit;
            let _ = Sps::parse(&sps);
        }
    }
}
