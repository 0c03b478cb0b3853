//! Pictures that repeat the last one, while an encoder sends none.
//!
//! The picture that stands in is a P picture of skipped macroblocks that no other picture refers to
//! (`nal_ref_idc` 0): about 20 bytes, from which a decoder makes the newest reference picture once
//! more. It has the frame number that follows that picture's, which every picture after it may have
//! as well (H.264 §7.4.3), so the encoder's later pictures are decoded as if it were not there. Its
//! picture order count is the one behind the newest picture's; several in a row share it, which
//! decoders output in the order of decoding.
//!
//! It is always a frame, also among fields and frames of field macroblocks, where each skipped pair of
//! macroblocks is one of frame macroblocks. Nothing is repeated between the two fields of a frame.
//!
//! Streams whose slices need more than that (several slice groups, redundant pictures, picture order
//! count type 1, separate colour planes) get none.

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
/// Largest width and height in macroblocks: 16 384 samples, as level 6.2 allows.
const MAX_MACROBLOCKS: u32 = 1_024;

/// Makes pictures that repeat the newest reference picture of one configuration.
#[derive(Debug, Clone)]
pub struct PictureRepeater {
    length_size: u8,
    sets: Vec<Sets>,
    /// The sets of the newest picture.
    active: Option<Sets>,
    /// The newest reference picture's frame number, and the greatest order count since the last IDR.
    frame_number: Option<u32>,
    order: u32,
    /// The frame number of a field whose second field has not come.
    first_field: Option<u32>,
}

/// A picture parameter set with the sequence parameter set that it refers to.
#[derive(Debug, Clone, Copy)]
struct Sets {
    sequence: Sequence,
    picture: Picture,
}

/// The fields of the SPS that a slice header depends on.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    id: u32,
    frame_number_bits: u32,
    /// Bits of `pic_order_cnt_lsb`; 0 for picture order count type 2.
    order_bits: u32,
    has_chroma: bool,
    /// True if pictures may be fields (`frame_mbs_only_flag` 0).
    may_be_fields: bool,
    /// True if frames consist of pairs of macroblocks (`mb_adaptive_frame_field_flag`).
    is_paired: bool,
    /// Macroblocks of a frame.
    macroblocks: u32,
}

/// The fields of the PPS that a slice header depends on.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of the syntax")]
struct Picture {
    id: u32,
    sequence: u32,
    is_cabac: bool,
    has_field_order: bool,
    is_weighted: bool,
    init_qp: i32,
    has_deblocking: bool,
}

/// The head of a slice (H.264 §7.3.3).
#[derive(Debug, Clone, Copy)]
struct Slice {
    sets: Sets,
    frame_number: u32,
    order: u32,
    is_field: bool,
    is_idr: bool,
    is_reference: bool,
}

impl PictureRepeater {
    /// Creates a repeater for a decoder configuration record; `None` where no picture can be made.
    pub fn new(record: &[u8]) -> Option<Self> {
        let length_size = AvcConfig::parse(record).ok()?.nal_length_size;
        let mut rest = record.get(5..)?;
        let sequences: Vec<Sequence> =
            take_sets(&mut rest, 0x1f)?.filter_map(|set| Sequence::parse(&set)).collect();
        let pictures = take_sets(&mut rest, 0xff)?.filter_map(|set| Picture::parse(&set));
        let with_sequence = |picture: Picture| {
            let sequence = *sequences.iter().find(|sequence| sequence.id == picture.sequence)?;
            Some(Sets { sequence, picture })
        };
        let sets: Vec<Sets> = pictures.filter_map(with_sequence).collect();
        let (active, frame_number, first_field) = (None, None, None);
        (!sets.is_empty()).then_some(Self { length_size, sets, active, frame_number, order: 0, first_field })
    }

    /// Takes the next picture of the encoder, or a field of one.
    pub fn observe(&mut self, data: &ByteChain) {
        let mut is_first = true;
        for unit in nal_units(data, self.length_size) {
            let Ok(unit) = unit else { break };
            let mut bytes = [0; HEAD_BYTES + 1];
            let mut length = 0;
            for (slot, byte) in bytes.iter_mut().zip(Rbsp::new(unit)) {
                *slot = byte;
                length += 1;
            }
            // The first slice of a second field has the first macroblock, too: a single bit.
            let is_slice = matches!(bytes[0] & 0x1f, 1 | NAL_IDR) && length > 1;
            if !is_slice || !is_first && bytes[1] & 0x80 == 0 {
                continue;
            }
            let slice = self.read_slice(bytes[0], &bytes[1..length]);
            self.take_slice(slice);
            is_first = false;
            if !slice.is_some_and(|slice| slice.is_field) {
                return;
            }
        }
        if is_first {
            self.take_slice(None);
        }
    }

    /// True unless the newest picture is the first of two fields.
    pub const fn is_between_frames(&self) -> bool {
        self.first_field.is_none()
    }

    /// Reads the head of a slice; `None` if it refers to sets that are not known.
    fn read_slice(&self, header: u8, rbsp: &[u8]) -> Option<Slice> {
        let (is_idr, is_reference) = (header & 0x1f == NAL_IDR, header & 0x60 != 0);
        let mut bits = BitReader::new(rbsp);
        bits.ue()?; // first_mb_in_slice
        bits.ue()?; // slice_type
        let id = bits.ue()?;
        let sets = *self.sets.iter().find(|sets| sets.picture.id == id)?;
        let frame_number = bits.bits(sets.sequence.frame_number_bits)?;
        let is_field = sets.sequence.may_be_fields && bits.flag()?;
        if is_field {
            bits.flag()?; // bottom_field_flag
        }
        if is_idr {
            bits.ue()?; // idr_pic_id
        }
        let order = bits.bits(sets.sequence.order_bits)?;
        Some(Slice { sets, frame_number, order, is_field, is_idr, is_reference })
    }

    /// Takes the first slice of a frame or field.
    fn take_slice(&mut self, slice: Option<Slice>) {
        self.active = slice.map(|slice| slice.sets);
        let Some(Slice { sets, frame_number, order, is_field, is_idr, is_reference }) = slice else {
            (self.frame_number, self.first_field) = (None, None);
            return;
        };
        let order_bits = sets.sequence.order_bits;
        let half = 1 << order_bits.saturating_sub(1);
        let ahead = order.wrapping_sub(self.order) & ((1 << order_bits) - 1);
        if is_idr || ahead < half {
            self.order = order;
        }
        if is_reference {
            self.frame_number = Some(frame_number);
        }
        let is_second = self.first_field == Some(frame_number);
        self.first_field = (is_field && !is_second).then_some(frame_number);
    }

    /// Returns an access unit that repeats the newest reference picture; `None` if there is none.
    pub fn repeat(&self) -> Option<Bytes> {
        let Sets { sequence, picture } = self.active.filter(|_| self.is_between_frames())?;
        let frame_number = (self.frame_number? + 1) & ((1 << sequence.frame_number_bits) - 1);
        let mut out = BitWriter::default();
        out.ue(0); // first_mb_in_slice
        out.ue(5); // slice_type: P, like all slices of the picture
        out.ue(picture.id);
        out.bits(frame_number, sequence.frame_number_bits);
        if sequence.may_be_fields {
            out.bit(false); // field_pic_flag
        }
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
            write_cabac(&mut out, sequence.macroblocks, sequence.is_paired);
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

/// Takes the parameter sets of a list, unescaped and without their NAL unit headers; the count has the bits of `mask`.
fn take_sets(rest: &mut &[u8], mask: u8) -> Option<impl Iterator<Item = Vec<u8>>> {
    let (count, tail) = rest.split_first()?;
    *rest = tail;
    let sets: Option<Vec<&[u8]>> = (0..count & mask).map(|_| take_set(rest)).collect();
    Some(sets?.into_iter().map(|set| unescape(set.get(1..).unwrap_or_default())))
}

impl Sequence {
    fn parse(rbsp: &[u8]) -> Option<Self> {
        let mut bits = BitReader::new(rbsp);
        let profile = bits.bits(8)?;
        bits.bits(16)?;
        let id = bits.ue()?;
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
        let may_be_fields = !bits.flag()?;
        let is_paired = may_be_fields && bits.flag()?;
        let is_usable = !format.separate_planes && width <= MAX_MACROBLOCKS && height <= MAX_MACROBLOCKS;
        is_usable.then_some(Self {
            id,
            frame_number_bits,
            order_bits,
            has_chroma: format.chroma != 0,
            may_be_fields,
            is_paired,
            macroblocks: width * height * (1 + u32::from(may_be_fields)),
        })
    }
}

impl Picture {
    fn parse(rbsp: &[u8]) -> Option<Self> {
        let mut bits = BitReader::new(rbsp);
        let (id, sequence) = (bits.ue()?, bits.ue()?);
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
        let picture = Self { id, sequence, is_cabac, has_field_order, is_weighted, init_qp, has_deblocking };
        is_usable.then_some(picture)
    }
}
