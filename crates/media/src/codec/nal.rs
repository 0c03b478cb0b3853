//! NAL units with length prefixes (ISO/IEC 14496-15 §4.3.2), which H.264 and HEVC access units
//! consist of.

use bytes::Buf;
use bytes::buf::Take;
use millrace_buf::{ByteChain, Reader};

/// A length prefix that points beyond the end of its access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the NAL unit lengths do not add up to the access unit")]
pub struct NalLengthError;

/// Iterates over the NAL units in order; each is a reader of its bytes, which may be empty.
///
/// `length_size` is the size of the length prefixes in bytes, 1 to 4. The prefixes must add up to
/// exactly the access unit; the iterator ends after the first error.
pub fn nal_units(
    data: &ByteChain,
    length_size: u8,
) -> impl Iterator<Item = Result<Take<Reader<'_>>, NalLengthError>> {
    let size = usize::from(length_size.clamp(1, 4));
    let mut rest = data.reader();
    std::iter::from_fn(move || {
        if !rest.has_remaining() {
            return None;
        }
        let length = rest.try_get_uint(size).ok().and_then(|length| usize::try_from(length).ok());
        let Some(length) = length.filter(|length| *length <= rest.remaining()) else {
            rest.advance(rest.remaining());
            return Some(Err(NalLengthError));
        };
        let unit = rest.clone().take(length);
        rest.advance(length);
        Some(Ok(unit))
    })
}

/// The bytes of a NAL unit without its emulation prevention bytes (H.264 §7.4.1, HEVC §7.4.2), read
/// one at a time without a copy.
pub(super) struct Rbsp<B> {
    data: B,
    zeros: u8,
}

impl<B: Buf> Rbsp<B> {
    /// Reads what is left of a NAL unit.
    pub(super) const fn new(data: B) -> Self {
        Self { data, zeros: 0 }
    }
}

impl<B: Buf> Iterator for Rbsp<B> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let mut byte = self.data.try_get_u8().ok()?;
        if self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            byte = self.data.try_get_u8().ok()?;
        }
        self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        Some(byte)
    }
}

/// Removes the emulation prevention bytes of a NAL unit (H.264 §7.4.1, HEVC §7.4.2).
pub(super) fn unescape(data: &[u8]) -> Vec<u8> {
    Rbsp::new(data).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn units_are_the_same_however_the_chain_is_divided() {
        let data = [0, 0, 0, 2, 0x06, 0x01, 0, 0, 0, 0, 0, 0, 0, 1, 0x65];
        for cut in 0..data.len() {
            let (head, tail) = data.split_at(cut);
            let chain: ByteChain = [head, tail].map(Bytes::copy_from_slice).into_iter().collect();
            let units: Vec<_> = nal_units(&chain, 4).map(|unit| bytes_of(unit.unwrap())).collect();
            assert_eq!(units, [&[0x06, 0x01][..], &[], &[0x65]], "cut at {cut}");
        }
    }

    fn bytes_of(mut unit: Take<Reader<'_>>) -> Bytes {
        unit.copy_to_bytes(unit.remaining())
    }

    #[test]
    fn walk_ends_with_the_error_of_a_wrong_length() {
        let chain = ByteChain::from(vec![0, 1, 9, 0, 5, 1]);
        let units: Vec<_> = nal_units(&chain, 2).map(|unit| unit.map(bytes_of)).collect();
        assert_eq!(units, [Ok(Bytes::from_static(&[9])), Err(NalLengthError)]);
    }

    #[test]
    fn unescape_removes_emulation_prevention_bytes() {
        assert_eq!(unescape(&[0, 0, 3, 1, 0, 0, 0, 3, 0, 0, 3]), [0, 0, 1, 0, 0, 0, 0, 0]);
    }
}
