//! Byte streams of encoders (H.264 Annex B) to samples of a file.

use bytes::{BufMut, Bytes, BytesMut};
use millrace_media::codec::h264::{AvcConfig, NAL_IDR, NAL_PPS, NAL_SPS};

use super::interface::Coded;
use crate::CodecError;

/// Last type of a NAL unit that carries slices (H.264 table 7-1).
const LAST_SLICE: u8 = 5;

/// Iterates over the NAL units of a byte stream, without start codes and the zeros before them.
pub(super) fn units(mut stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    stream = start_code(stream).map_or(&[][..], |at| &stream[at + 3..]);
    std::iter::from_fn(move || {
        if stream.is_empty() {
            return None;
        }
        let end = start_code(stream);
        let (unit, rest) = end.map_or((stream, &[][..]), |at| (&stream[..at], &stream[at + 3..]));
        stream = rest;
        // Zeros before a start code belong to no unit: a unit ends with a bit that is set.
        let zeros = unit.iter().rev().take_while(|byte| **byte == 0).count();
        Some(&unit[..unit.len() - zeros])
    })
    .filter(|unit| !unit.is_empty())
}

/// Returns the position of the next start code of three bytes.
fn start_code(stream: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at + 2 < stream.len() {
        // The third byte tells how far the next start code is away at least.
        match stream[at + 2] {
            0 => at += 1,
            1 if stream[at] == 0 && stream[at + 1] == 0 => return Some(at),
            _ => at += 3,
        }
    }
    None
}

/// Returns the configuration record of the first SPS and PPS in a byte stream.
pub(super) fn record(stream: &[u8]) -> Result<Bytes, CodecError> {
    let find = |kind: u8| units(stream).find(|unit| unit[0] & 0x1f == kind);
    let missing = CodecError::Malformed { what: "header of an encoder: it lacks parameter sets" };
    let (Some(sps), Some(pps)) = (find(NAL_SPS), find(NAL_PPS)) else { return Err(missing) };
    AvcConfig::build(sps, pps).map_err(|_| CodecError::Malformed {
        what: "header of an encoder: its parameter sets cannot be read",
    })
}

/// Returns the slices of a coded picture with length prefixes.
pub(super) fn sample(stream: &[u8]) -> Coded {
    let (mut data, mut idr) = (BytesMut::with_capacity(stream.len() + 4), false);
    for unit in units(stream) {
        let kind = unit[0] & 0x1f;
        if kind <= LAST_SLICE {
            idr |= kind == NAL_IDR;
            data.put_u32(unit.len() as u32);
            data.put_slice(unit);
        }
    }
    Coded { idr, data: data.freeze() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_between_start_codes_of_both_lengths() {
        let stream = [0, 0, 0, 1, 0x67, 0, 3, 0, 0, 1, 0x68, 9, 0, 0, 0, 1, 0x65, 1, 0, 0, 2];
        let found: Vec<&[u8]> = units(&stream).collect();
        assert_eq!(found, [&[0x67, 0, 3][..], &[0x68, 9], &[0x65, 1, 0, 0, 2]]);
        assert_eq!(units(&[]).count(), 0);
        assert_eq!(units(&[0, 0, 1]).count(), 0);
        assert_eq!(units(&[1, 2, 3, 4]).count(), 0);
    }

    #[test]
    fn sample_has_slices_alone_and_tells_idr_pictures() {
        let coded =
            sample(&[0, 0, 0, 1, 0x09, 0xf0, 0, 0, 1, 0x06, 5, 0, 0, 1, 0x65, 7, 8, 0, 0, 1, 0x65, 9]);
        assert!(coded.idr);
        assert_eq!(coded.data[..], [0, 0, 0, 3, 0x65, 7, 8, 0, 0, 0, 2, 0x65, 9]);
        let coded = sample(&[0, 0, 1, 0x41, 1]);
        assert!(!coded.idr);
        assert_eq!(coded.data[..], [0, 0, 0, 2, 0x41, 1]);
    }
}
