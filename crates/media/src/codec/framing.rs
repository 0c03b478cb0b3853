//! The framings of NAL units that encoders send: lengths, start codes, and lengths with stray zero
//! bytes between them.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use millrace_buf::ByteChain;

use super::nal::NalLengthError;

/// Most NAL units of an access unit that is put into another framing. Level 6.2 allows 600 slices; a
/// limit keeps the work for a message that consists of start codes small.
pub const MAX_NAL_UNITS: usize = 1_024;
/// Most zero bytes between two NAL units that are skipped. Encoders are known to add up to three.
const MAX_STRAY_ZEROS: usize = 8;
/// Most positions that are tried for the next length behind stray zero bytes.
const MAX_TRIES: usize = 4 * MAX_NAL_UNITS;

/// The framing of an access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Length prefixes that add up to the access unit (ISO/IEC 14496-15 §4.3.2).
    Lengths,
    /// Start codes (H.264 Annex B).
    StartCodes,
    /// Length prefixes with zero bytes behind NAL units.
    LengthsAndZeros,
}

/// True if the bytes begin with a start code of three or four bytes.
pub fn begins_with_start_code(data: &ByteChain) -> bool {
    data.first_chunk::<3>() == Some([0, 0, 1]) || data.first_chunk::<4>() == Some([0, 0, 0, 1])
}

/// Returns the framing of an access unit, and the place of each NAL unit in it. `length_size` is the
/// size of length prefixes that the configuration states; 4 bytes, the usual size, are tried as well.
/// `expects_codes` is true if the access units before have start codes: it decides where both framings fit.
pub fn split(
    data: &ByteChain,
    length_size: u8,
    expects_codes: bool,
) -> Result<(Framing, Vec<Range<usize>>), NalLengthError> {
    let sizes = || [length_size, 4].into_iter().take(if length_size == 4 { 1 } else { 2 }).map(usize::from);
    let of_codes = || start_codes(data).map(|units| (Framing::StartCodes, units));
    if expects_codes && begins_with_start_code(data) {
        return of_codes().ok_or(NalLengthError);
    }
    // Lengths that add up are no start codes: those would add up by chance only.
    if let Some(units) = sizes().find_map(|size| lengths(data, size)) {
        return Ok((Framing::Lengths, units));
    }
    // A first unit of one byte is no unit; one of 256 to 511 bytes has a length like a start code.
    if data.first_chunk() == Some([0, 0, 0, 1]) {
        return of_codes().ok_or(NalLengthError);
    }
    let bytes = data.contiguous();
    let units = sizes().find_map(|size| lengths_and_zeros(&bytes, size));
    let found = units.map(|units| (Framing::LengthsAndZeros, units));
    let has_code = begins_with_start_code(data);
    found.or_else(|| of_codes().filter(|_| has_code)).ok_or(NalLengthError)
}

/// Returns the NAL units at `places` with length prefixes of four bytes. The units are shared.
pub fn join(data: &ByteChain, places: &[Range<usize>]) -> ByteChain {
    let mut lengths = BytesMut::with_capacity(4 * places.len());
    for place in places {
        lengths.extend_from_slice(&(place.len() as u32).to_be_bytes());
    }
    let mut lengths = lengths.freeze();
    let mut chain = ByteChain::with_capacity(2 * places.len());
    for place in places {
        chain.push(lengths.split_to(4));
        chain.extend(data.slice(place.clone()));
    }
    chain
}

/// Returns the place of each NAL unit behind a length prefix of `size` bytes; `None` if the lengths do
/// not add up. Empty units are left out.
fn lengths(data: &ByteChain, size: usize) -> Option<Vec<Range<usize>>> {
    let (mut rest, total) = (data.reader(), data.len());
    let mut units = Vec::new();
    while rest.has_remaining() {
        let length = usize::try_from(rest.try_get_uint(size).ok()?).ok()?;
        let start = total - rest.remaining();
        if length > rest.remaining() || units.len() == MAX_NAL_UNITS {
            return None;
        }
        rest.advance(length);
        if length > 0 {
            units.push(start..start + length);
        }
    }
    Some(units)
}

/// Returns the place of each NAL unit behind a start code, without the zero bytes behind it; `None` if
/// there are too many.
fn start_codes(data: &ByteChain) -> Option<Vec<Range<usize>>> {
    let mut units = Vec::new();
    let (mut position, mut zeros, mut begin) = (0, 0, None);
    let mut end_unit = |begin: Option<usize>, end: usize| {
        units.extend(begin.filter(|begin| *begin < end).map(|begin| begin..end));
        units.len() <= MAX_NAL_UNITS
    };
    for byte in data.iter().flatten() {
        match byte {
            0 => zeros += 1,
            1 if zeros >= 2 => {
                if !end_unit(begin, position - zeros) {
                    return None;
                }
                (begin, zeros) = (Some(position + 1), 0);
            }
            _ => zeros = 0,
        }
        position += 1;
    }
    end_unit(begin, position - zeros).then_some(units)
}

/// Returns the place of each NAL unit behind a length prefix of `size` bytes, with zero bytes between
/// them that no length counts; `None` if no choice of zero bytes makes the lengths add up.
fn lengths_and_zeros(data: &Bytes, size: usize) -> Option<Vec<Range<usize>>> {
    let end = data.iter().rposition(|byte| *byte != 0)? + 1;
    let mut units: Vec<Range<usize>> = Vec::new();
    let (mut position, mut skip, mut tries) = (0, 0, 0);
    while position < end {
        tries += 1;
        if tries > MAX_TRIES || units.len() == MAX_NAL_UNITS {
            return None;
        }
        let stray = data.get(position..position + skip)?;
        if skip <= MAX_STRAY_ZEROS && stray.iter().all(|byte| *byte == 0) {
            if let Some(unit) = unit_at(data, position + skip, size) {
                (position, skip) = (unit.end, 0);
                units.push(unit);
            } else {
                skip += 1;
            }
            continue;
        }
        // No unit begins here: the one before was misread, and more zero bytes are before its length.
        let wrong = units.pop()?;
        let before = units.last().map_or(0, |unit| unit.end);
        (position, skip) = (before, wrong.start - size - before + 1);
    }
    Some(units)
}

/// Returns the place of the NAL unit whose length is at `position`, if it may be one.
fn unit_at(data: &[u8], position: usize, size: usize) -> Option<Range<usize>> {
    let mut prefix = data.get(position..position + size)?;
    let length = usize::try_from(prefix.get_uint(size)).ok()?;
    let start = position + size;
    let header = data.get(start..start.checked_add(length)?)?.first()?;
    // The forbidden bit is 0, and types from 24 on are not used in streams (H.264 table 7-1).
    (header & 0x80 == 0 && matches!(header & 0x1f, 1..=23)).then_some(start..start + length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units_of(data: &ByteChain, (_, places): &(Framing, Vec<Range<usize>>)) -> Vec<Bytes> {
        places.iter().map(|place| data.slice(place.clone()).contiguous()).collect()
    }

    fn nal_units() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let tail = prop::collection::vec(4u8.., 0..300);
        let unit = (1u8..13, tail).prop_map(|(kind, tail)| [&[0x60 | kind][..], &tail, &[0x80]].concat());
        prop::collection::vec(unit, 1..8)
    }

    fn chain(bytes: &[u8], cut: usize) -> ByteChain {
        let (head, tail) = bytes.split_at(cut % (bytes.len() + 1));
        [head, tail].map(Bytes::copy_from_slice).into_iter().collect()
    }

    proptest! {
        #[test]
        fn units_are_found_in_every_framing(
            units in nal_units(), cut: usize, zeros in 0usize..4, long_codes: bool,
        ) {
            let lengths = |size: usize, zeros: usize| -> Vec<u8> {
                let framed = units.iter().map(|unit| {
                    let length = (unit.len() as u32).to_be_bytes();
                    [&length[4 - size..], unit, &vec![0; zeros]].concat()
                });
                framed.collect::<Vec<_>>().concat()
            };
            let code: &[u8] = if long_codes { &[0, 0, 0, 1] } else { &[0, 0, 1] };
            let codes: Vec<Vec<u8>> = units.iter().map(|unit| [code, unit, &vec![0; zeros]].concat()).collect();
            let stray = if zeros == 0 { Framing::Lengths } else { Framing::LengthsAndZeros };
            for (bytes, size, framing) in [
                (lengths(4, 0), 4, Framing::Lengths),
                (lengths(2, 0), 2, Framing::Lengths),
                (lengths(3, 0), 3, Framing::Lengths),
                (lengths(4, 0), 2, Framing::Lengths),
                (codes.concat(), 4, Framing::StartCodes),
                (lengths(4, zeros), 4, stray),
            ] {
                let data = chain(&bytes, cut);
                let has_codes = framing == Framing::StartCodes;
                let found = split(&data, size, has_codes).unwrap();
                // The length of a unit of 256 to 511 bytes reads like a start code of three bytes.
                if !has_codes || long_codes {
                    prop_assert_eq!(&split(&data, size, false).unwrap(), &found);
                }
                prop_assert_eq!(found.0, framing, "{} bytes of {:?}", size, framing);
                prop_assert_eq!(units_of(&data, &found), units.clone());
                let joined = join(&data, &found.1);
                prop_assert_eq!(joined.contiguous(), lengths(4, 0));
            }
        }

        #[test]
        fn garbage_never_panics(
            data in prop::collection::vec(prop_oneof![Just(0u8), Just(1u8), any::<u8>()], 0..400),
            cut: usize, size in 1u8..5,
        ) {
            let data = chain(&data, cut);
            if let Ok((_, places)) = split(&data, size, false) {
                prop_assert!(join(&data, &places).len() <= data.len() + 4 * places.len());
            }
        }
    }

    #[test]
    fn access_unit_of_too_many_units_is_refused() {
        let data = ByteChain::from([0, 0, 1, 0x41].repeat(MAX_NAL_UNITS + 2));
        assert_eq!(split(&data, 4, false), Err(NalLengthError));
        let zeros = ByteChain::from(vec![0; 100_000]);
        assert!(split(&zeros, 4, false).is_ok_and(|(_, places)| places.is_empty()));
        let fives = ByteChain::from([0, 0, 0, 0, 0, 5, 5].repeat(50_000));
        assert!(split(&fives, 4, false).is_err());
    }
}
