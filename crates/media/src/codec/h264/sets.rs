//! The parameter sets of an H.264 stream, and the configuration record made of them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::record::{build, take_set};
use super::sps::Sps;
use super::{H264Error, MAX_AVCC_BYTES, NAL_PPS, NAL_SPS};
use crate::bits::BitReader;
use crate::codec::nal::Rbsp;

/// Greatest number of a sequence parameter set (`seq_parameter_set_id`, H.264 §7.4.2.1.1).
const MAX_SPS_ID: u32 = 31;
/// Greatest number of a picture parameter set (`pic_parameter_set_id`, H.264 §7.4.2.2).
const MAX_PPS_ID: u32 = 255;
/// Bytes at the start of a parameter set that hold its numbers.
const HEAD_BYTES: usize = 16;

/// The newest parameter sets of a stream by their numbers; at most [`MAX_AVCC_BYTES`] together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParameterSets {
    sps: BTreeMap<u32, Bytes>,
    /// The NAL unit, and the number of the sequence parameter set that it refers to.
    pps: BTreeMap<u32, (Bytes, u32)>,
}

impl ParameterSets {
    /// Reads the sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1), and the size of
    /// the length prefixes that it states. A record without sets is no error.
    pub fn of_record(record: &Bytes) -> Result<(Self, u8), H264Error> {
        if record.len() > MAX_AVCC_BYTES {
            return Err(H264Error::TooLong(record.len()));
        }
        let truncated = H264Error::Truncated("AVCDecoderConfigurationRecord");
        let &[version, _, _, _, sizes, ref rest @ ..] = &record[..] else { return Err(truncated) };
        if version != 1 {
            return Err(H264Error::Version(version));
        }
        let mut sets = Self::default();
        let mut rest = rest;
        for mask in [0x1f, 0xff] {
            // A record may end behind the sets that it has.
            let Some((count, tail)) = rest.split_first() else { break };
            rest = tail;
            for _ in 0..count & mask {
                let nal = take_set(&mut rest).ok_or(truncated)?;
                sets.insert(&record.slice_ref(nal))?;
            }
        }
        Ok((sets, (sizes & 3) + 1))
    }

    /// Adds a parameter set without start code or length, or replaces the one of its number. Returns
    /// true if the sets have changed by it. Any other NAL unit changes nothing.
    pub fn insert(&mut self, nal: &Bytes) -> Result<bool, H264Error> {
        let Some(header) = nal.first() else { return Ok(false) };
        // Zero bytes behind the last byte are no part of the NAL unit (H.264 §B.1.1).
        let length = nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let nal = nal.slice(..length);
        match header & 0x1f {
            NAL_SPS => {
                Sps::parse(&nal)?;
                let id = head_numbers(&nal, 4).map(|[id, _]| id).filter(|id| *id <= MAX_SPS_ID);
                let id = id.ok_or(H264Error::Range("seq_parameter_set_id"))?;
                if self.sps.get(&id).is_some_and(|old| *old == nal) {
                    return Ok(false);
                }
                self.check_room(nal.len(), self.sps.get(&id).map_or(0, Bytes::len))?;
                self.sps.insert(id, nal);
            }
            NAL_PPS => {
                let [id, sps] = head_numbers(&nal, 1).ok_or(H264Error::Truncated("PPS"))?;
                if id > MAX_PPS_ID || sps > MAX_SPS_ID {
                    return Err(H264Error::Range("pic_parameter_set_id"));
                }
                if self.pps.get(&id).is_some_and(|(old, _)| *old == nal) {
                    return Ok(false);
                }
                self.check_room(nal.len(), self.pps.get(&id).map_or(0, |(old, _)| old.len()))?;
                self.pps.insert(id, (nal, sps));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Refuses a set that would make the record larger than a record may be.
    fn check_room(&self, added: usize, replaced: usize) -> Result<(), H264Error> {
        let sps: usize = self.sps.values().map(Bytes::len).sum();
        let pps: usize = self.pps.values().map(|(nal, _)| nal.len()).sum();
        let total = sps + pps + added - replaced;
        if total > MAX_AVCC_BYTES / 2 { Err(H264Error::TooLong(total)) } else { Ok(()) }
    }

    /// Returns the configuration record with 4-byte lengths; `None` until there is a picture parameter
    /// set with the sequence parameter set that it refers to.
    ///
    /// The first sequence parameter set, which gives the size of the pictures, is the one that
    /// picture parameter set `active` refers to, if it is known.
    pub fn record(&self, active: Option<u32>) -> Option<Bytes> {
        let active = active.and_then(|active| self.pps.get(&active)).map(|(_, sps)| *sps);
        let used = || self.pps.values().map(|(_, sps)| *sps);
        let first = active.into_iter().chain(used()).find(|sps| self.sps.contains_key(sps))?;
        let others = self.sps.iter().filter(|(id, _)| **id != first).map(|(_, nal)| nal);
        let sps: Vec<&Bytes> = self.sps.get(&first).into_iter().chain(others).collect();
        let pps: Vec<&Bytes> =
            self.pps.values().filter(|(_, sps)| self.sps.contains_key(sps)).map(|(nal, _)| nal).collect();
        build(&sps, &pps).ok()
    }
}

/// Reads two Exp-Golomb codes behind the first `skip` bytes of a parameter set; the second is 0 if it
/// is cut short.
fn head_numbers(nal: &[u8], skip: usize) -> Option<[u32; 2]> {
    let head: Vec<u8> = Rbsp::new(nal).take(HEAD_BYTES).collect();
    let mut bits = BitReader::new(head.get(skip..)?);
    Some([bits.ue()?, bits.ue().unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::AvcConfig;
    use super::*;

    /// x264 High 3.1, 1280x720, and two picture parameter sets of it with the numbers 0 and 1.
    const SPS: &[u8] = &[
        0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10,
        0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60,
    ];
    const PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];
    const SECOND_PPS: &[u8] = &[0x68, 0x5a, 0xe3, 0xcb, 0x22, 0xc0];

    fn sets(nals: &[&'static [u8]]) -> ParameterSets {
        let mut sets = ParameterSets::default();
        for nal in nals {
            assert_eq!(sets.insert(&Bytes::from_static(nal)), Ok(true));
        }
        sets
    }

    #[test]
    fn sets_in_band_make_a_record_once_they_are_complete() {
        assert_eq!(sets(&[]).record(None), None);
        assert_eq!(sets(&[SPS]).record(None), None);
        assert_eq!(sets(&[PPS]).record(None), None);
        let mut sets = sets(&[PPS, SPS]);
        let record = sets.record(None).unwrap();
        assert_eq!(record, AvcConfig::build(SPS, PPS).unwrap());
        assert_eq!(sets.insert(&Bytes::from_static(SPS)), Ok(false), "the same again");
        assert_eq!(sets.insert(&Bytes::from([PPS, &[0, 0]].concat())), Ok(false), "zero bytes behind it");
        assert_eq!(sets.insert(&Bytes::from_static(&[0x65, 1])), Ok(false), "no parameter set");
        assert_eq!(sets.insert(&Bytes::from_static(SECOND_PPS)), Ok(true));
        let both = sets.record(Some(1)).unwrap();
        assert_eq!(both.len(), record.len() + 2 + SECOND_PPS.len());
        assert_eq!(AvcConfig::parse(&both).unwrap().sps.width, 1_280);
        assert_eq!(ParameterSets::of_record(&both).unwrap(), (sets, 4));
    }

    #[test]
    fn record_without_sets_is_read_and_has_none() {
        for record in [&[1, 0x64, 0, 0x1f, 0xfd, 0xe0, 0][..], &[1, 0x64, 0, 0x1f, 0xfd]] {
            let read = ParameterSets::of_record(&Bytes::copy_from_slice(record));
            assert_eq!(read, Ok((ParameterSets::default(), 2)));
        }
        let cut = ParameterSets::of_record(&Bytes::from_static(&[1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 9, 0x67]));
        assert_eq!(cut, Err(H264Error::Truncated("AVCDecoderConfigurationRecord")));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..60, flip: u8) {
            let _ = ParameterSets::of_record(&Bytes::from(data.clone()));
            let mut record = AvcConfig::build(SPS, PPS).unwrap().to_vec();
            if let Some(byte) = record.get_mut(at) {
                *byte ^= flip;
            }
            let mut sets = ParameterSets::of_record(&Bytes::from(record)).map(|read| read.0).unwrap_or_default();
            for kind in [0x67, 0x68] {
                let _ = sets.insert(&Bytes::from([&[kind], &data[..]].concat()));
            }
            if let Some(record) = sets.record(Some(u32::from(flip))) {
                prop_assert!(AvcConfig::parse(&record).is_ok());
            }
        }
    }
}
