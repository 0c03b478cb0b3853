//! The way in which a decoder can start at an access unit of H.264.

use bytes::Buf;
use bytes::buf::Take;
use millrace_buf::{ByteChain, Reader};

use super::{H264Error, NAL_IDR, NAL_SEI, NAL_SLICE, NAL_SLICE_PARTITION};
use crate::bits::BitReader;
use crate::codec::nal::{Rbsp, nal_units};
use crate::codec::sync::SyncKind;

/// SEI payload type of a recovery point (H.264 §D.1.8).
const SEI_RECOVERY_POINT: u32 = 6;
/// Bytes of a slice that are read: enough for the three Exp-Golomb codes of its first fields.
const SLICE_HEAD: usize = 16;

/// Returns how a decoder can start at this access unit, whose NAL units have prefixes of
/// `length_size` bytes; an error if the lengths do not add up, or the access unit is empty.
///
/// - An IDR slice makes it [`SyncKind::Idr`].
/// - A recovery point with the frame count 0 and I slices makes it [`SyncKind::OpenGop`], and so does
///   `flagged`, the container's flag of a keyframe, if all slices of the (first) picture are I slices.
/// - Another recovery point makes it [`SyncKind::Refresh`].
pub fn sync_kind(data: &ByteChain, length_size: u8, flagged: bool) -> Result<SyncKind, H264Error> {
    if data.is_empty() {
        return Err(H264Error::Truncated("access unit"));
    }
    let (mut recovery, mut intra, mut is_idr) = (None, Intra::default(), false);
    for unit in nal_units(data, length_size) {
        let unit = unit.map_err(|_| H264Error::Truncated("access unit"))?;
        match unit.chunk().first().map(|header| header & 0x1f) {
            Some(NAL_IDR) => is_idr = true,
            Some(NAL_SEI) if !is_idr => recovery = recovery.or_else(|| recovery_frames(unit)),
            Some(NAL_SLICE | NAL_SLICE_PARTITION) if !is_idr && (flagged || recovery.is_some()) => {
                intra.add(SliceHead::read(unit));
            }
            _ => {}
        }
    }
    let is_intra = intra.is_intra == Some(true);
    Ok(match recovery {
        _ if is_idr => SyncKind::Idr,
        Some(0) if is_intra => SyncKind::OpenGop,
        Some(_) => SyncKind::Refresh,
        None if flagged && is_intra => SyncKind::OpenGop,
        None => SyncKind::None,
    })
}

/// Returns the number of the picture parameter set that the first slice of an access unit refers to;
/// the NAL units have prefixes of `length_size` bytes.
pub fn active_pps(data: &ByteChain, length_size: u8) -> Option<u32> {
    first_slice(data, length_size).map(|head| head.pps)
}

/// True if the first slice of the access unit is a B slice.
pub fn is_bidirectional(data: &ByteChain, length_size: u8) -> bool {
    first_slice(data, length_size).is_some_and(SliceHead::is_bidirectional)
}

/// True if an access unit does not begin a picture: its first slice begins with a later macroblock (H.264 §7.4.3), so that
/// it is the rest of the picture before.
pub fn continues_picture(data: &ByteChain, length_size: u8) -> bool {
    first_slice(data, length_size).is_some_and(|slice| slice.first_macroblock > 0)
}

/// Returns the head of the first slice of an access unit.
fn first_slice(data: &ByteChain, length_size: u8) -> Option<SliceHead> {
    let is_slice = |unit: &Take<Reader<'_>>| {
        let kind = unit.chunk().first().map(|header| header & 0x1f);
        matches!(kind, Some(NAL_IDR | NAL_SLICE | NAL_SLICE_PARTITION))
    };
    SliceHead::read(nal_units(data, length_size).filter_map(Result::ok).find(is_slice)?)
}

/// The kinds of the slices of the first picture of an access unit, which may be two fields.
#[derive(Debug, Default)]
struct Intra {
    /// True while all slices so far are I slices; `None` before the first one.
    is_intra: Option<bool>,
    is_complete: bool,
}

impl Intra {
    fn add(&mut self, slice: Option<SliceHead>) {
        // The second field begins with its first macroblock again; it may refer to the first field.
        self.is_complete |= self.is_intra.is_some() && slice.is_some_and(|slice| slice.first_macroblock == 0);
        if !self.is_complete {
            let is_intra = slice.is_some_and(SliceHead::is_intra);
            self.is_intra = Some(self.is_intra.unwrap_or(true) && is_intra);
        }
    }
}

/// The first fields of a slice header (H.264 §7.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SliceHead {
    /// Number of the slice's first macroblock (`first_mb_in_slice`).
    pub(super) first_macroblock: u32,
    /// Type of the slice; 5 to 9 are 0 to 4 for all slices of the picture.
    kind: u32,
    /// Number of the picture parameter set.
    pub(super) pps: u32,
}

impl SliceHead {
    /// Reads the head of a slice NAL unit; `None` if it is cut short.
    pub(super) fn read(mut unit: impl Buf) -> Option<Self> {
        unit.try_get_u8().ok()?;
        let (mut head, mut length) = ([0; SLICE_HEAD], 0);
        for (slot, byte) in head.iter_mut().zip(Rbsp::new(unit)) {
            *slot = byte;
            length += 1;
        }
        let mut bits = BitReader::new(&head[..length]);
        Some(Self { first_macroblock: bits.ue()?, kind: bits.ue()?, pps: bits.ue()? })
    }

    /// True for B slices, which may refer to pictures that are shown later.
    const fn is_bidirectional(self) -> bool {
        self.kind % 5 == 1 && self.kind < 10
    }

    /// True for I and SI slices, which refer to no other picture.
    const fn is_intra(self) -> bool {
        matches!(self.kind % 5, 2 | 4) && self.kind < 10
    }
}

/// Returns the frame count of the recovery point in an SEI NAL unit (H.264 §7.3.2.3 and §D.1.8);
/// `None` if it has none or is cut short.
fn recovery_frames(mut unit: impl Buf) -> Option<u32> {
    unit.try_get_u8().ok()?;
    let mut bytes = Rbsp::new(unit);
    loop {
        let kind = sei_number(&mut bytes)?;
        let size = sei_number(&mut bytes)?;
        if kind != SEI_RECOVERY_POINT {
            // Skips the payload; the trailing bits after the last one end the loop.
            if size > 0 {
                bytes.nth(size as usize - 1)?;
            }
            continue;
        }
        let mut payload = [0; 8];
        let mut length = 0;
        for (slot, byte) in payload.iter_mut().zip(bytes.take(size as usize)) {
            *slot = byte;
            length += 1;
        }
        return BitReader::new(&payload[..length]).ue();
    }
}

/// Reads a payload type or size: bytes of 255 and one of less add up.
fn sei_number(bytes: &mut impl Iterator<Item = u8>) -> Option<u32> {
    let mut sum = 0u32;
    loop {
        let byte = bytes.next()?;
        sum = sum.checked_add(u32::from(byte))?;
        if byte != 255 {
            return Some(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn unit(nals: &[&[u8]]) -> ByteChain {
        let lengths = nals.iter().map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat());
        ByteChain::from(lengths.collect::<Vec<_>>().concat())
    }

    /// A recovery point with this frame count behind user data, as x264 writes it.
    fn recovery(frames: u8) -> Vec<u8> {
        // ue(0) is 1, ue(1) is 010, ue(29) is 000011110.
        let payload: &[u8] = match frames {
            0 => &[0x84],
            1 => &[0x48],
            _ => &[0x0f, 0x20],
        };
        let mut nal = vec![0x06, 5, 3, 0, 0, 3, 1, 6, payload.len() as u8];
        nal.extend(payload);
        nal.push(0x80);
        nal
    }

    /// Slices of the types I (7) and P (5), with the first macroblock 0 and 3.
    const I: &[u8] = &[0x41, 0x88, 0x80];
    const P: &[u8] = &[0x41, 0x9a, 0x80];
    const SECOND_I: &[u8] = &[0x41, 0x20, 0x88];
    const SECOND_P: &[u8] = &[0x41, 0x21, 0xa0];

    #[test]
    fn access_unit_with_an_idr_slice_is_closed() {
        let chain = |data: &[u8]| ByteChain::from(Bytes::copy_from_slice(data));
        let data = [0, 0, 0, 2, 0x06, 0x01, 0, 0, 0, 0, 0, 0, 0, 1, 0x65];
        assert_eq!(sync_kind(&chain(&data), 4, false), Ok(SyncKind::Idr));
        assert_eq!(sync_kind(&chain(&data[..10]), 4, false), Ok(SyncKind::None));
        let truncated = Err(H264Error::Truncated("access unit"));
        for wrong in [&data[..14], &data[..12], &[0xff, 0xff, 0xff, 0xff, 0x65], &[]] {
            assert_eq!(sync_kind(&chain(wrong), 4, true), truncated, "{wrong:?}");
        }
    }

    #[test]
    fn recovery_point_is_an_open_gop_or_a_gradual_refresh() {
        let kind = |nals: &[&[u8]]| sync_kind(&unit(nals), 4, false).unwrap();
        assert_eq!(kind(&[&recovery(0), I]), SyncKind::OpenGop);
        assert_eq!(kind(&[&recovery(0), I, SECOND_I]), SyncKind::OpenGop);
        assert_eq!(kind(&[&recovery(0), I, P]), SyncKind::OpenGop, "the second field may refer to the first");
        assert_eq!(kind(&[&recovery(0), I, SECOND_P]), SyncKind::Refresh, "not all slices are I slices");
        assert_eq!(kind(&[&recovery(1), P]), SyncKind::Refresh);
        assert_eq!(kind(&[&recovery(29), I]), SyncKind::Refresh);
        assert_eq!(kind(&[&recovery(0), &[0x65, 0x88, 0x80]]), SyncKind::Idr);
        assert_eq!(kind(&[I]), SyncKind::None, "an I picture alone is no place to start");
        assert_eq!(kind(&[&[0x06, 5, 200, 1, 2, 0x80], I]), SyncKind::None, "an SEI that is cut short");
    }

    #[test]
    fn rest_of_a_picture_is_told_by_the_first_macroblock_of_its_first_slice() {
        let continues = |nals: &[&[u8]]| continues_picture(&unit(nals), 4);
        assert!(continues(&[SECOND_I]) && continues(&[&[0x06, 5, 1, 0, 0x80], SECOND_P]));
        for whole in [&[I][..], &[I, SECOND_I], &[&[0x06, 5, 1, 0, 0x80]], &[&[0x41]]] {
            assert!(!continues(whole), "{whole:?}");
        }
    }

    #[test]
    fn b_slices_are_recognised_in_the_first_slice() {
        // B (6): first macroblock 0, ue(6) is 00111.
        let bidirectional = |nals: &[&[u8]]| is_bidirectional(&unit(nals), 4);
        assert!(bidirectional(&[&[0x06, 5, 1, 0, 0x80], &[0x01, 0x9e, 0x80]]));
        for other in [I, P, &[0x65, 0x88, 0x80], &[0x01]] {
            assert!(!bidirectional(&[other]), "{other:?}");
        }
    }

    #[test]
    fn container_flag_makes_an_i_picture_and_no_other_a_place_to_start() {
        let kind = |nals: &[&[u8]]| sync_kind(&unit(nals), 4, true).unwrap();
        assert_eq!(kind(&[I]), SyncKind::OpenGop);
        assert_eq!(kind(&[I, SECOND_I]), SyncKind::OpenGop);
        assert_eq!(kind(&[P]), SyncKind::None);
        assert_eq!(kind(&[I, SECOND_P]), SyncKind::None);
        assert_eq!(kind(&[&[0x41]]), SyncKind::None, "a slice that is cut short");
    }
}
