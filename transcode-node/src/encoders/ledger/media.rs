//! The shape of coded bytes that a transcoder hands in.

/// True if `data` is one or more NAL units, each behind its length in four bytes.
pub(super) fn is_length_prefixed(mut data: &[u8]) -> bool {
    while let Some((length, rest)) = data.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        match rest.split_at_checked(length) {
            Some((unit, after)) if !unit.is_empty() => data = after,
            _ => return false,
        }
        if data.is_empty() {
            return true;
        }
    }
    false
}

/// True if `data` begins and ends as a JPEG file does.
pub(super) fn is_jpeg(data: &[u8]) -> bool {
    data.starts_with(&[0xff, 0xd8]) && data.ends_with(&[0xff, 0xd9])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nal_units_must_fill_the_bytes_exactly() {
        assert!(is_length_prefixed(&[0, 0, 0, 1, 7]));
        assert!(is_length_prefixed(&[0, 0, 0, 1, 7, 0, 0, 0, 2, 8, 8]));
        for bad in [&[][..], &[0, 0, 0, 0], &[0, 0, 0, 2, 7], &[0, 0, 0, 1, 7, 0], &[0xff; 9]] {
            assert!(!is_length_prefixed(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(data in proptest::collection::vec(0u8..3, 0..40)) {
            let _ = (is_length_prefixed(&data), is_jpeg(&data));
        }
    }
}
