//! The sequence parameter set of HEVC (§7.3.2.2.1): the size and the shape of the pictures.

use super::error::HevcError;
use crate::bits::BitReader;
use crate::codec::nal::unescape;
use crate::codec::pixel_aspect;

/// Largest width or height accepted: level 6.2 allows 16 888.
pub(super) const MAX_SIDE: u32 = 16_888;
/// Most pictures of a reference picture set, in either direction (HEVC §7.4.8).
const MAX_REFERENCES: u32 = 16;
/// Most reference picture sets of a sequence (HEVC §7.4.3.2.1).
const MAX_REFERENCE_SETS: u32 = 64;
/// Most long-term reference pictures of a sequence (HEVC §7.4.3.2.1).
const MAX_LONG_TERM: u32 = 32;

/// The fields of an SPS that describe the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sps {
    /// Size in luma samples, cropping applied.
    pub(super) width: u32,
    pub(super) height: u32,
    /// Width and height of a pixel as a reduced fraction; 1:1 if the SPS does not state them.
    pub(super) pixel_aspect: (u32, u32),
}

impl Sps {
    /// Reads an SPS NAL unit (HEVC §7.3.2.2.1).
    pub(super) fn parse(nal: &[u8]) -> Result<Self, HevcError> {
        let truncated = HevcError::Truncated("SPS");
        let rbsp = unescape(nal.get(2..).ok_or(truncated)?);
        let mut bits = BitReader::new(&rbsp);
        let sub_layers = sub_layers(&mut bits).ok_or(truncated)?;
        let (width, height) = size(&mut bits)?;
        // A VUI that cannot be reached is no reason to refuse the stream.
        let pixel_aspect = vui(&mut bits, sub_layers).unwrap_or((1, 1));
        Ok(Self { width, height, pixel_aspect })
    }
}

/// Reads the fields before the size; returns the number of sub-layers besides the first.
fn sub_layers(bits: &mut BitReader<'_>) -> Option<u32> {
    bits.bits(4)?; // sps_video_parameter_set_id
    let sub_layers = bits.bits(3)?; // sps_max_sub_layers_minus1
    bits.flag()?; // sps_temporal_id_nesting_flag
    skip_profile_tier_level(bits, sub_layers)?;
    bits.ue()?; // sps_seq_parameter_set_id
    Some(sub_layers)
}

/// Reads the size of the pictures, cropping applied.
fn size(bits: &mut BitReader<'_>) -> Result<(u32, u32), HevcError> {
    let truncated = HevcError::Truncated("SPS");
    let chroma = bits.ue().ok_or(truncated)?;
    let separate = chroma == 3 && bits.flag().ok_or(truncated)?;
    let (width, height) = (bits.ue().ok_or(truncated)?, bits.ue().ok_or(truncated)?);
    if chroma > 3 || !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
        return Err(HevcError::Range("pic_width_in_luma_samples"));
    }
    if !bits.flag().ok_or(truncated)? {
        return Ok((width, height));
    }
    let mut window = [0u64; 4];
    for offset in &mut window {
        *offset = u64::from(bits.ue().ok_or(truncated)?);
    }
    // Offsets count chroma samples (HEVC table 6-1).
    let (sub_width, sub_height) = match chroma {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let (sub_width, sub_height) = if separate { (1, 1) } else { (sub_width, sub_height) };
    let crop = |side: u32, offsets: u64| {
        let cropped = u64::from(side).checked_sub(offsets).filter(|side| *side > 0);
        cropped.map(|side| side as u32).ok_or(HevcError::Range("conformance window"))
    };
    let width = crop(width, (window[0] + window[1]) * sub_width)?;
    let height = crop(height, (window[2] + window[3]) * sub_height)?;
    Ok((width, height))
}

/// Skips `profile_tier_level(1, sub_layers)` (HEVC §7.3.3).
fn skip_profile_tier_level(bits: &mut BitReader<'_>, sub_layers: u32) -> Option<()> {
    let skip = |bits: &mut BitReader<'_>, mut count: u32| {
        while count > 0 {
            let step = count.min(32);
            bits.bits(step)?;
            count -= step;
        }
        Some(())
    };
    skip(bits, 88 + 8)?; // general profile and level
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        present.push((bits.flag()?, bits.flag()?));
    }
    if sub_layers > 0 {
        skip(bits, 2 * (8 - sub_layers))?;
    }
    for (profile, level) in present {
        skip(bits, if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    Some(())
}

/// Skips the fields between the size and the VUI, and reads the shape of pixels; `None` if there is no VUI, or it cannot be
/// reached.
fn vui(bits: &mut BitReader<'_>, sub_layers: u32) -> Option<(u32, u32)> {
    bits.ue()?; // bit_depth_luma_minus8
    bits.ue()?; // bit_depth_chroma_minus8
    let order_bits = bits.ue()?.checked_add(4).filter(|bits| *bits <= 16)?;
    let each_layer = bits.flag()?; // sps_sub_layer_ordering_info_present_flag
    for _ in 0..if each_layer { 3 * (sub_layers + 1) } else { 3 } {
        bits.ue()?;
    }
    for _ in 0..6 {
        bits.ue()?; // sizes of coding and transform blocks
    }
    if bits.flag()? && bits.flag()? {
        skip_scaling_lists(bits)?;
    }
    bits.bits(2)?; // asymmetric partitions, sample adaptive offset
    if bits.flag()? {
        bits.bits(8)?; // bit depths of PCM samples
        bits.ue()?;
        bits.ue()?;
        bits.flag()?;
    }
    skip_reference_sets(bits)?;
    if bits.flag()? {
        let count = bits.ue()?;
        for _ in 0..(count <= MAX_LONG_TERM).then_some(count)? {
            bits.bits(order_bits + 1)?;
        }
    }
    bits.bits(2)?; // temporal motion vectors, intra smoothing
    if bits.flag()? { pixel_aspect::read(bits) } else { None }
}

/// Skips `scaling_list_data` (HEVC §7.3.4).
fn skip_scaling_lists(bits: &mut BitReader<'_>) -> Option<()> {
    for size in 0..4u32 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !bits.flag()? {
                bits.ue()?; // the list that is copied
                continue;
            }
            if size > 1 {
                bits.se()?;
            }
            for _ in 0..64.min(1u32 << (4 + 2 * size)) {
                bits.se()?;
            }
        }
    }
    Some(())
}

/// Skips the short-term reference picture sets (HEVC §7.3.7). A set may be told by its difference from the one before, so
/// the distances of each have to be known (equations 7-61 and 7-62).
fn skip_reference_sets(bits: &mut BitReader<'_>) -> Option<()> {
    let count = bits.ue()?;
    // The distances of the set before: those behind, then those ahead.
    let mut before: (Vec<i64>, Vec<i64>) = Default::default();
    for index in 0..(count <= MAX_REFERENCE_SETS).then_some(count)? {
        before = if index > 0 && bits.flag()? {
            predicted_set(bits, &before)?
        } else {
            let (behind, ahead) = (bits.ue()?, bits.ue()?);
            if behind > MAX_REFERENCES || ahead > MAX_REFERENCES {
                return None;
            }
            (distances(bits, behind, -1)?, distances(bits, ahead, 1)?)
        };
    }
    Some(())
}

/// Reads distances that are told by their steps.
fn distances(bits: &mut BitReader<'_>, count: u32, sign: i64) -> Option<Vec<i64>> {
    let mut distance = 0;
    let mut read = || {
        distance += sign * (i64::from(bits.ue()?) + 1);
        bits.flag()?; // used_by_curr_pic
        Some(distance)
    };
    (0..count).map(|_| read()).collect()
}

/// Reads a set that is told by its difference from the one before.
fn predicted_set(
    bits: &mut BitReader<'_>,
    (behind, ahead): &(Vec<i64>, Vec<i64>),
) -> Option<(Vec<i64>, Vec<i64>)> {
    let is_negative = bits.flag()?;
    let step = i64::from(bits.ue()?) + 1;
    let step = if is_negative { -step } else { step };
    let mut set = (Vec::new(), Vec::new());
    // The picture that the set before belongs to is the last one.
    for distance in behind.iter().chain(ahead).copied().chain([0]) {
        let is_used = bits.flag()? || bits.flag()?;
        match distance + step {
            kept if !is_used || kept == 0 => {}
            kept if kept < 0 => set.0.push(kept),
            kept => set.1.push(kept),
        }
    }
    // From the nearest on.
    set.0.sort_unstable_by(|one, other| other.cmp(one));
    set.1.sort_unstable();
    let is_valid = set.0.len() <= MAX_REFERENCES as usize && set.1.len() <= MAX_REFERENCES as usize;
    is_valid.then_some(set)
}
