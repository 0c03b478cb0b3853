//! NAL units with length prefixes (ISO/IEC 14496-15 §4.3.2), which H.264 and HEVC access units
//! consist of.

use bytes::Buf;
use millrace_buf::ByteChain;

/// A length prefix that points beyond the end of its access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the NAL unit lengths do not add up to the access unit")]
pub struct NalLengthError;

/// Iterates over the first byte of each NAL unit in order, which is `None` for an empty one.
///
/// `length_size` is the size of the length prefixes in bytes, 1 to 4. The prefixes must add up to
/// exactly the access unit; the iterator ends after the first error.
pub fn nal_headers(
    data: &ByteChain,
    length_size: u8,
) -> impl Iterator<Item = Result<Option<u8>, NalLengthError>> {
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
        let header = rest.chunk().first().copied().filter(|_| length > 0);
        rest.advance(length);
        Some(Ok(header))
    })
}

/// Removes the emulation prevention bytes of a NAL unit (H.264 §7.4.1, HEVC §7.4.2).
pub(super) fn unescape(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut zeros = 0;
    for &byte in data {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn headers_are_the_same_however_the_chain_is_divided() {
        let data = [0, 0, 0, 2, 0x06, 0x01, 0, 0, 0, 0, 0, 0, 0, 1, 0x65];
        for cut in 0..data.len() {
            let (head, tail) = data.split_at(cut);
            let chain: ByteChain = [head, tail].map(Bytes::copy_from_slice).into_iter().collect();
            let headers: Vec<_> = nal_headers(&chain, 4).collect();
            assert_eq!(headers, [Ok(Some(0x06)), Ok(None), Ok(Some(0x65))], "cut at {cut}");
        }
    }

    #[test]
    fn walk_ends_with_the_error_of_a_wrong_length() {
        let chain = ByteChain::from(vec![0, 1, 9, 0, 5, 1]);
        assert_eq!(nal_headers(&chain, 2).collect::<Vec<_>>(), [Ok(Some(9)), Err(NalLengthError)]);
    }

    #[test]
    fn unescape_removes_emulation_prevention_bytes() {
        assert_eq!(unescape(&[0, 0, 3, 1, 0, 0, 0, 3, 0, 0, 3]), [0, 0, 1, 0, 0, 0, 0, 0]);
    }
}
