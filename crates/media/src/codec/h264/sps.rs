//! The sequence parameter set (H.264 §7.3.2.1.1, Annex E).

use super::H264Error;
use crate::bits::BitReader;
use crate::codec::nal::unescape;
use crate::codec::pixel_aspect::{self, gcd};

/// Largest width or height accepted: level 6.2 allows 16 384.
const MAX_SIDE: u64 = 16_384;
/// Highest frame rate that is believed of a VUI; one above it is ignored.
const MAX_FRAME_RATE: u64 = 480;

/// The fields of an SPS that describe the pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sps {
    /// Width after cropping, in luma samples.
    pub width: u32,
    /// Height after cropping, in luma samples.
    pub height: u32,
    /// Width and height of a pixel as a reduced fraction; 1:1 if the SPS does not state them.
    pub pixel_aspect: (u32, u32),
    /// Frames per second as a reduced fraction, when timing information is present and sane.
    pub frame_rate: Option<(u32, u32)>,
    /// The chroma format: 0 is monochrome, 1 is 4:2:0, 2 is 4:2:2, 3 is 4:4:4
    /// (`chroma_format_idc`).
    pub chroma_format: u32,
    /// The bit depth of luma samples, 8 to 14.
    pub luma_bits: u32,
    /// The bit depth of chroma samples, 8 to 14.
    pub chroma_bits: u32,
}

impl Sps {
    /// Reads an SPS NAL unit, header byte included.
    pub fn parse(nal: &[u8]) -> Result<Self, H264Error> {
        let (header, payload) = nal.split_first().ok_or(H264Error::Truncated("SPS"))?;
        if header & 0x1f != super::NAL_SPS {
            return Err(H264Error::Range("nal_unit_type"));
        }
        if nal.len() > super::MAX_AVCC_BYTES {
            return Err(H264Error::TooLong(nal.len()));
        }
        let rbsp = unescape(payload);
        let mut bits = BitReader::new(&rbsp);
        let truncated = H264Error::Truncated("SPS");
        let profile = bits.bits(8).ok_or(truncated)?;
        bits.bits(16).ok_or(truncated)?; // constraint flags, level
        bits.ue().ok_or(truncated)?; // seq_parameter_set_id
        let format = Format::parse(&mut bits, profile)?;
        skip_order(&mut bits)?;
        let (width, height) = size(&mut bits, &format)?;
        // A VUI that does not read to its timing is no reason to refuse the stream.
        let Vui { pixel_aspect, frame_rate } = Vui::read(&mut bits);
        Ok(Self {
            width,
            height,
            pixel_aspect,
            frame_rate,
            chroma_format: format.chroma,
            luma_bits: format.luma_bits,
            chroma_bits: format.chroma_bits,
        })
    }
}

pub(super) struct Format {
    pub(super) chroma: u32,
    pub(super) separate_planes: bool,
    luma_bits: u32,
    chroma_bits: u32,
}

impl Format {
    pub(super) fn parse(bits: &mut BitReader<'_>, profile: u32) -> Result<Self, H264Error> {
        let mut format = Self { chroma: 1, separate_planes: false, luma_bits: 8, chroma_bits: 8 };
        if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
            format.high(bits).ok_or(H264Error::Truncated("SPS"))?;
        }
        if format.chroma > 3 || format.luma_bits > 14 || format.chroma_bits > 14 {
            return Err(H264Error::Range("chroma_format_idc"));
        }
        Ok(format)
    }

    fn high(&mut self, bits: &mut BitReader<'_>) -> Option<()> {
        self.chroma = bits.ue()?;
        if self.chroma == 3 {
            self.separate_planes = bits.flag()?;
        }
        self.luma_bits = bits.ue()?.saturating_add(8);
        self.chroma_bits = bits.ue()?.saturating_add(8);
        bits.flag()?; // qpprime_y_zero_transform_bypass
        if bits.flag()? {
            let lists = if self.chroma == 3 { 12 } else { 8 };
            for index in 0..lists {
                if bits.flag()? {
                    skip_scaling_list(bits, if index < 6 { 16 } else { 64 })?;
                }
            }
        }
        Some(())
    }
}

/// Skips a scaling list of `size` coefficients (§7.3.2.1.1.1).
fn skip_scaling_list(bits: &mut BitReader<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.se()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// Skips frame numbers and picture order counts.
fn skip_order(bits: &mut BitReader<'_>) -> Result<(), H264Error> {
    let truncated = H264Error::Truncated("SPS");
    bits.ue().ok_or(truncated)?; // log2_max_frame_num_minus4
    match bits.ue().ok_or(truncated)? {
        0 => {
            bits.ue().ok_or(truncated)?;
        }
        1 => {
            bits.flag().ok_or(truncated)?;
            bits.se().ok_or(truncated)?;
            bits.se().ok_or(truncated)?;
            let cycle = bits.ue().ok_or(truncated)?;
            if cycle > 255 {
                return Err(H264Error::Range("num_ref_frames_in_pic_order_cnt_cycle"));
            }
            for _ in 0..cycle {
                bits.se().ok_or(truncated)?;
            }
        }
        2 => {}
        _ => return Err(H264Error::Range("pic_order_cnt_type")),
    }
    bits.ue().ok_or(truncated)?; // max_num_ref_frames
    bits.flag().ok_or(truncated)?; // gaps_in_frame_num_value_allowed
    Ok(())
}

fn size(bits: &mut BitReader<'_>, format: &Format) -> Result<(u32, u32), H264Error> {
    let truncated = H264Error::Truncated("SPS");
    let width_mbs = u64::from(bits.ue().ok_or(truncated)?) + 1;
    let height_units = u64::from(bits.ue().ok_or(truncated)?) + 1;
    let frame_mbs_only = bits.flag().ok_or(truncated)?;
    if !frame_mbs_only {
        bits.flag().ok_or(truncated)?; // mb_adaptive_frame_field
    }
    bits.flag().ok_or(truncated)?; // direct_8x8_inference
    let fields = if frame_mbs_only { 1 } else { 2 };
    let (mut width, mut height) = (width_mbs * 16, height_units * 16 * fields);
    if bits.flag().ok_or(truncated)? {
        let mut crop = [0u64; 4];
        for side in &mut crop {
            *side = u64::from(bits.ue().ok_or(truncated)?);
        }
        // Units of cropping (§7.4.2.1.1): one luma sample, or one chroma sample's worth.
        let chroma = if format.separate_planes { 0 } else { format.chroma };
        let (unit_x, unit_y) = match chroma {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        width = width.saturating_sub((crop[0] + crop[1]) * unit_x);
        height = height.saturating_sub((crop[2] + crop[3]) * unit_y * fields);
    }
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        return Err(H264Error::Range("picture size"));
    }
    Ok((width as u32, height as u32))
}

/// The fields of the VUI (H.264 §E.1.1) that matter here.
struct Vui {
    pixel_aspect: (u32, u32),
    frame_rate: Option<(u32, u32)>,
}

impl Vui {
    /// Reads the VUI, if there is one. What cannot be read is as if it were absent.
    fn read(bits: &mut BitReader<'_>) -> Self {
        let mut vui = Self { pixel_aspect: (1, 1), frame_rate: None };
        if bits.flag() == Some(true)
            && let Some(pixel_aspect) = pixel_aspect::read(bits)
        {
            vui.pixel_aspect = pixel_aspect;
            vui.frame_rate = frame_rate(bits);
        }
        vui
    }
}

/// Reads the frame rate of the VUI behind its aspect ratio, `time_scale / (2 * num_units_in_tick)`
/// (§E.2.1), as a reduced fraction.
fn frame_rate(bits: &mut BitReader<'_>) -> Option<(u32, u32)> {
    if bits.flag()? {
        bits.flag()?; // overscan_appropriate
    }
    if bits.flag()? {
        bits.bits(4)?; // video_format, full range
        if bits.flag()? {
            bits.bits(24)?; // colour description
        }
    }
    if bits.flag()? {
        bits.ue()?; // chroma sample location
        bits.ue()?;
    }
    if !bits.flag()? {
        return None;
    }
    let (units, scale) = (u64::from(bits.bits(32)?), u64::from(bits.bits(32)?));
    let units = units * 2;
    if units == 0 || scale == 0 || scale > units.saturating_mul(MAX_FRAME_RATE) {
        return None;
    }
    let divisor = gcd(scale, units);
    Some((u32::try_from(scale / divisor).ok()?, u32::try_from(units / divisor).ok()?))
}
