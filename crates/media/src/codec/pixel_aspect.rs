//! The shape of pixels, as the VUI of H.264 and HEVC state it in the same way.

use crate::bits::BitReader;

/// Sample aspect ratios by `aspect_ratio_idc` (H.264 table E-1, HEVC table E.1).
const ASPECT_RATIOS: [(u32, u32); 16] = [
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];
/// `aspect_ratio_idc` of a ratio that is written out.
const EXTENDED_ASPECT_RATIO: u32 = 255;
/// Largest distortion of pixels that is believed, in either direction.
const MAX_ASPECT: u64 = 8;

/// Reads the first fields of a VUI: width and height of a pixel as a reduced fraction, 1:1 if they are not stated or not
/// believed; `None` if the fields are cut short.
pub(super) fn read(bits: &mut BitReader<'_>) -> Option<(u32, u32)> {
    if !bits.flag()? {
        return Some((1, 1));
    }
    let ratio = match bits.bits(8)? {
        EXTENDED_ASPECT_RATIO => (bits.bits(16)?, bits.bits(16)?),
        0 => (0, 0), // unspecified
        index => ASPECT_RATIOS.get(index as usize - 1).copied().unwrap_or_default(),
    };
    let (width, height) = (u64::from(ratio.0), u64::from(ratio.1));
    let is_sane = width > 0 && width <= height * MAX_ASPECT && height <= width * MAX_ASPECT;
    let divisor = gcd(width, height);
    Some(if is_sane { ((width / divisor) as u32, (height / divisor) as u32) } else { (1, 1) })
}

pub(super) const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
