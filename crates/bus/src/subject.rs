//! Subjects and patterns: validity and matching, as NATS defines them.

use crate::BusError;

/// The longest subject accepted, in bytes: a NATS control line holds 4096 with reply, sizes and verb.
pub(crate) const MAX_SUBJECT_LEN: usize = 1024;

fn invalid(subject: &str) -> BusError {
    BusError::InvalidSubject { subject: subject.chars().take(80).collect() }
}

fn is_token_char(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

/// A subject to publish on: no empty tokens, no white space, no wildcards.
pub(crate) fn check_subject(subject: &str) -> Result<(), BusError> {
    let mut previous = b'.';
    for &byte in subject.as_bytes() {
        let empty_token = byte == b'.' && previous == b'.';
        if empty_token || !is_token_char(byte) || byte == b'*' || byte == b'>' {
            return Err(invalid(subject));
        }
        previous = byte;
    }
    if previous == b'.' || subject.len() > MAX_SUBJECT_LEN { Err(invalid(subject)) } else { Ok(()) }
}

/// A pattern to subscribe to: `*` and `>` only as whole tokens, `>` only as the last one.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), BusError> {
    if pattern.is_empty() || pattern.len() > MAX_SUBJECT_LEN || !pattern.bytes().all(is_token_char) {
        return Err(invalid(pattern));
    }
    let mut tokens = pattern.split('.').peekable();
    while let Some(token) = tokens.next() {
        let wild = token.contains(['*', '>']) && token.len() > 1;
        let early_rest = token == ">" && tokens.peek().is_some();
        if token.is_empty() || wild || early_rest {
            return Err(invalid(pattern));
        }
    }
    Ok(())
}

/// A queue group, queue or job name: one non-empty token.
pub(crate) fn check_name(name: &str) -> Result<(), BusError> {
    let ok = |byte: u8| is_token_char(byte) && !matches!(byte, b'.' | b'*' | b'>' | b'/' | b'\\');
    if name.is_empty() || name.len() > MAX_SUBJECT_LEN || !name.bytes().all(ok) {
        return Err(invalid(name));
    }
    Ok(())
}

/// True if the pattern has a wildcard.
pub(crate) fn is_wild(pattern: &str) -> bool {
    pattern.split('.').any(|token| token == "*" || token == ">")
}

/// True if `subject` matches `pattern`; both must be valid.
pub(crate) fn matches(pattern: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for token in pattern.split('.') {
        match (token, subject.next()) {
            (">", rest) => return rest.is_some(),
            ("*", Some(_)) => {}
            (token, Some(other)) if token == other => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_and_patterns_follow_nats() {
        for good in ["a", "a.b", "media.01J.17", "$JS.API.INFO", "_INBOX.x"] {
            assert_eq!(check_subject(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "a\r\n", "a\u{7f}"] {
            assert!(check_subject(bad).is_err(), "{bad:?}");
        }
        assert!(check_subject(&"x".repeat(MAX_SUBJECT_LEN + 1)).is_err());
        for good in ["a", "*", ">", "a.*.c", "a.>", "*.*.>"] {
            assert_eq!(check_pattern(good), Ok(()), "{good}");
        }
        for bad in ["", "a.>.b", "a*", "a.b>", "a..b", "a b"] {
            assert!(check_pattern(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a.b", "a b", "a*", "a/b"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn matching_follows_nats() {
        let table = [
            ("a", "a", true),
            ("a", "a.b", false),
            ("a.b", "a", false),
            ("*", "a", true),
            ("*", "a.b", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.d", false),
            ("a.>", "a", false),
            ("a.>", "a.b", true),
            ("a.>", "a.b.c", true),
            (">", "a.b.c", true),
            ("*.>", "a", false),
        ];
        for (pattern, subject, expected) in table {
            assert_eq!(matches(pattern, subject), expected, "{pattern} {subject}");
        }
    }
}
