//! Pictures that repeat the last one, while an encoder sends none.
//!
//! The picture that stands in is a P picture of skipped macroblocks that no other picture refers to
//! (`nal_ref_idc` 0): about 20 bytes, from which a decoder makes the newest reference picture once
//! more. It has the frame number that follows that picture's, which every picture after it may have
//! as well (H.264 §7.4.3), so the encoder's later pictures are decoded as if it were not there. Its
//! picture order count is the one behind the newest picture's; several in a row share it, which
//! decoders output in the order of decoding.
//!
//! Streams whose slices need more than that (interlaced, several slice groups, redundant pictures,
//! picture order count type 1, several parameter sets) get none.

use bytes::{Bytes, BytesMut};
use millrace_buf::ByteChain;

use super::record::take_set;
use super::skip_slice::{BitWriter, SLICE_QP, write_cabac, write_cavlc};
use super::sps::Format;
use super::{AvcConfig, NAL_IDR};
use crate::bits::BitReader;
use crate::codec::nal::{Rbsp, nal_units, unescape};

/// Bytes of a slice header that are read: the fields up to the picture order count need fewer.
const HEAD_BYTES: usize = 32;

/// Makes pictures that repeat the newest reference picture of one configuration.
#[derive(Debug, Clone)]
pub struct PictureRepeater {
    length_size: u8,
    sequence: Sequence,
    picture: Picture,
    /// The newest reference picture's frame number, and the greatest order count since the last IDR.
    frame_number: Option<u32>,
    order: u32,
}

/// The fields of the SPS that a slice header depends on.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    frame_number_bits: u32,
    /// Bits of `pic_order_cnt_lsb`; 0 for picture order count type 2.
    order_bits: u32,
    has_chroma: bool,
    macroblocks: u32,
}

/// The fields of the PPS that a slice header depends on.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of the syntax")]
struct Picture {
    id: u32,
    is_cabac: bool,
    has_field_order: bool,
    is_weighted: bool,
    init_qp: i32,
    has_deblocking: bool,
}

impl PictureRepeater {
    /// Creates a repeater for a decoder configuration record; `None` where no picture can be made.
    pub fn new(record: &[u8]) -> Option<Self> {
        let length_size = AvcConfig::parse(record).ok()?.nal_length_size;
        let mut rest = record.get(5..)?;
        let sps = take_only_set(&mut rest, 0x1f)?;
        let pps = take_only_set(&mut rest, 0xff)?;
        let sequence = Sequence::parse(&unescape(sps.get(1..)?))?;
        let picture = Picture::parse(&unescape(pps.get(1..)?))?;
        Some(Self { length_size, sequence, picture, frame_number: None, order: 0 })
    }

    /// Takes the next picture of the encoder.
    pub fn observe(&mut self, data: &ByteChain) {
        for unit in nal_units(data, self.length_size) {
            let Ok(unit) = unit else { break };
            let mut bytes = [0; HEAD_BYTES + 1];
            let mut length = 0;
            for (slot, byte) in bytes.iter_mut().zip(Rbsp::new(unit)) {
                *slot = byte;
                length += 1;
            }
            if matches!(bytes[0] & 0x1f, 1 | NAL_IDR) && length > 1 {
                self.read_slice(bytes[0], &bytes[1..length]);
                return;
            }
        }
        self.frame_number = None;
    }

    /// Reads the head of a picture's first slice (H.264 §7.3.3).
    fn read_slice(&mut self, header: u8, rbsp: &[u8]) {
        let (is_idr, is_reference) = (header & 0x1f == NAL_IDR, header & 0x60 != 0);
        let Sequence { frame_number_bits, order_bits, .. } = self.sequence;
        let mut bits = BitReader::new(rbsp);
        let read = |bits: &mut BitReader<'_>| {
            bits.ue()?; // first_mb_in_slice
            bits.ue()?; // slice_type
            let id = bits.ue()?;
            let frame_number = bits.bits(frame_number_bits)?;
            if is_idr {
                bits.ue()?; // idr_pic_id
            }
            Some((id, frame_number, bits.bits(order_bits)?))
        };
        match read(&mut bits).filter(|(id, ..)| *id == self.picture.id) {
            None => self.frame_number = None,
            Some((_, frame_number, order)) => {
                let half = 1 << order_bits.saturating_sub(1);
                let ahead = order.wrapping_sub(self.order) & ((1 << order_bits) - 1);
                if is_idr || ahead < half {
                    self.order = order;
                }
                if is_reference {
                    self.frame_number = Some(frame_number);
                }
            }
        }
    }

    /// Returns an access unit that repeats the newest reference picture; `None` if there is none.
    pub fn repeat(&self) -> Option<Bytes> {
        let (sequence, picture) = (self.sequence, self.picture);
        let frame_number = (self.frame_number? + 1) & ((1 << sequence.frame_number_bits) - 1);
        let mut out = BitWriter::default();
        out.ue(0); // first_mb_in_slice
        out.ue(5); // slice_type: P, like all slices of the picture
        out.ue(picture.id);
        out.bits(frame_number, sequence.frame_number_bits);
        if sequence.order_bits > 0 {
            out.bits(self.order.wrapping_add(1) & ((1 << sequence.order_bits) - 1), sequence.order_bits);
            if picture.has_field_order {
                out.se(0); // delta_pic_order_cnt_bottom
            }
        }
        out.bit(true); // num_ref_idx_active_override_flag: one reference
        out.ue(0);
        out.bit(false); // ref_pic_list_modification_flag_l0
        if picture.is_weighted {
            out.ue(0); // luma_log2_weight_denom
            if sequence.has_chroma {
                out.ue(0);
            }
            out.bit(false); // luma_weight_l0_flag
            if sequence.has_chroma {
                out.bit(false);
            }
        }
        if picture.is_cabac {
            out.ue(0); // cabac_init_idc
        }
        out.se(SLICE_QP - picture.init_qp);
        if picture.has_deblocking {
            out.ue(1); // disable_deblocking_filter_idc
        }
        if picture.is_cabac {
            write_cabac(&mut out, sequence.macroblocks);
        } else {
            write_cavlc(&mut out, sequence.macroblocks);
        }
        let slice = out.into_escaped();
        let size = usize::from(self.length_size);
        let length = (slice.len() as u32 + 1).to_be_bytes();
        if size < 2 && slice.len() > 254 {
            return None;
        }
        let mut unit = BytesMut::with_capacity(size + 1 + slice.len());
        unit.extend_from_slice(&length[4 - size..]);
        unit.extend_from_slice(&[1]); // a slice of a non-IDR picture, nal_ref_idc 0
        unit.extend_from_slice(&slice);
        Some(unit.freeze())
    }
}

/// Takes the parameter set of a list that has one; the count has the bits of `mask`.
fn take_only_set<'a>(rest: &mut &'a [u8], mask: u8) -> Option<&'a [u8]> {
    let (count, tail) = rest.split_first()?;
    *rest = tail;
    (count & mask == 1).then(|| take_set(rest)).flatten()
}

impl Sequence {
    fn parse(rbsp: &[u8]) -> Option<Self> {
        let mut bits = BitReader::new(rbsp);
        let profile = bits.bits(8)?;
        bits.bits(16)?;
        bits.ue()?;
        let format = Format::parse(&mut bits, profile).ok()?;
        let frame_number_bits = bits.ue()?.checked_add(4).filter(|bits| *bits <= 16)?;
        let order_bits = match bits.ue()? {
            0 => bits.ue()?.checked_add(4).filter(|bits| *bits <= 16)?,
            2 => 0,
            _ => return None,
        };
        bits.ue()?; // max_num_ref_frames
        bits.flag()?; // gaps_in_frame_num_value_allowed_flag
        let (width, height) = (bits.ue()?.checked_add(1)?, bits.ue()?.checked_add(1)?);
        let is_progressive = bits.flag()?;
        let is_usable = is_progressive && !format.separate_planes && width <= 1_024 && height <= 1_024;
        is_usable.then_some(Self {
            frame_number_bits,
            order_bits,
            has_chroma: format.chroma != 0,
            macroblocks: width * height,
        })
    }
}

impl Picture {
    fn parse(rbsp: &[u8]) -> Option<Self> {
        let mut bits = BitReader::new(rbsp);
        let id = bits.ue()?;
        bits.ue()?; // seq_parameter_set_id
        let is_cabac = bits.flag()?;
        let has_field_order = bits.flag()?;
        let slice_groups = bits.ue()?;
        bits.ue()?; // num_ref_idx_l0_default_active_minus1
        bits.ue()?;
        let is_weighted = bits.flag()?;
        bits.bits(2)?; // weighted_bipred_idc
        let init_qp = i32::try_from(bits.se()?).ok()?.checked_add(26)?;
        bits.se()?; // pic_init_qs_minus26
        bits.se()?; // chroma_qp_index_offset
        let has_deblocking = bits.flag()?;
        bits.flag()?; // constrained_intra_pred_flag
        let has_redundant = bits.flag()?;
        let is_usable = slice_groups == 0 && !has_redundant;
        is_usable.then_some(Self { id, is_cabac, has_field_order, is_weighted, init_qp, has_deblocking })
    }
}
