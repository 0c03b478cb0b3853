//! `Range` headers (RFC 9110 §14.2): one range of bytes; anything else is ignored, as the RFC allows.

use std::ops::Range;

/// The bytes of an object that a `Range` header selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The whole object: there is no header, or it has another unit, several ranges or a malformed one.
    Whole,
    /// One range of the object's bytes: 206.
    Part(Range<usize>),
    /// A range that the object does not have: 416.
    Unsatisfiable,
}

/// Parses the header for an object of `size` bytes.
pub(super) fn parse(header: Option<&str>, size: usize) -> Wanted {
    let Some(spec) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Wanted::Whole };
    let (first, last) = (first.trim(), last.trim());
    // A number above usize lies beyond the end of any object.
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<usize>().unwrap_or(usize::MAX))
    };
    match (first.is_empty(), number(first), last.is_empty(), number(last)) {
        (false, Some(from), true, _) => within(from, size, size),
        (false, Some(from), false, Some(to)) if from <= to => {
            within(from, to.saturating_add(1).min(size), size)
        }
        (true, _, false, Some(0)) => Wanted::Unsatisfiable,
        (true, _, false, Some(count)) => within(size.saturating_sub(count), size, size),
        _ => Wanted::Whole,
    }
}

fn within(from: usize, to: usize, size: usize) -> Wanted {
    if from < size { Wanted::Part(from..to) } else { Wanted::Unsatisfiable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_header_is_read_in_every_form_of_rfc_9110() {
        for (header, wanted) in [
            ("bytes=0-", Wanted::Part(0..10)),
            ("bytes=3-", Wanted::Part(3..10)),
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-4", Wanted::Part(2..5)),
            ("bytes=2-400", Wanted::Part(2..10)),
            ("bytes=2-99999999999999999999999", Wanted::Part(2..10)),
            ("bytes=-4", Wanted::Part(6..10)),
            ("bytes=-40", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-12", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=4-2", Wanted::Whole),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("nonsense", Wanted::Whole),
        ] {
            assert_eq!(parse(Some(header), 10), wanted, "{header}");
        }
        assert_eq!(parse(None, 10), Wanted::Whole);
    }
}
