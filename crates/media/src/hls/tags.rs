//! Writing and reading attribute lists and decimal numbers (RFC 8216bis §4.2).

use std::fmt::Write;
use std::time::Duration;

/// Most attributes of a tag; the tags that are written have at most a dozen.
const MAX_ATTRIBUTES: usize = 64;
/// Largest number of seconds that is read: eleven days.
const MAX_SECONDS: u64 = 1_000_000;

/// Writes a decimal number of seconds without superfluous zeros, at least one decimal.
pub(super) fn write_seconds(out: &mut String, duration: Duration) {
    let micros = duration.subsec_micros();
    let _ = write!(out, "{}.", duration.as_secs());
    let digits = format_args!("{micros:06}").to_string();
    let trimmed = digits.trim_end_matches('0');
    out.push_str(if trimmed.is_empty() { "0" } else { trimmed });
}

/// Writes a quoted string without the characters that it must not contain.
pub(super) fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    out.extend(text.chars().filter(|c| !matches!(c, '"' | '\n' | '\r')));
    out.push('"');
}

/// Writes a URI line or other bare text without line breaks.
pub(super) fn write_line(out: &mut String, text: &str) {
    out.extend(text.chars().filter(|c| !matches!(c, '\n' | '\r')));
    out.push('\n');
}

/// Reads a non-negative decimal number of seconds, to the microsecond.
pub(super) fn parse_seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let seconds: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    if seconds > MAX_SECONDS {
        return None;
    }
    let first_six = format!("{:0<6}", &fraction[..fraction.len().min(6)]);
    let round_up = fraction.as_bytes().get(6).is_some_and(|digit| *digit >= b'5');
    let micros: u64 = first_six.parse().ok()?;
    Some(Duration::from_micros(seconds * 1_000_000 + micros + u64::from(round_up)))
}

/// An attribute list, whose values have lost their quotes.
pub(super) struct Attributes<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Attributes<'a> {
    /// Reads a list; `None` if it is malformed or has a name twice.
    pub(super) fn parse(mut text: &'a str) -> Option<Self> {
        let mut list: Vec<(&str, &str)> = Vec::new();
        while !text.is_empty() {
            let (name, rest) = text.split_once('=')?;
            let name = name.trim();
            let legal = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-';
            let known = list.iter().any(|(known, _)| *known == name);
            if name.is_empty() || !name.bytes().all(legal) || known || list.len() == MAX_ATTRIBUTES {
                return None;
            }
            let (value, rest) = if let Some(quoted) = rest.strip_prefix('"') {
                quoted.split_once('"')?
            } else {
                let (value, rest) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (value.trim(), rest)
            };
            list.push((name, value));
            text = match rest.strip_prefix(',') {
                Some(more) if !more.is_empty() => more,
                None if rest.trim().is_empty() => "",
                _ => return None,
            };
        }
        Some(Self(list))
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    pub(super) fn yes(&self, name: &str) -> bool {
        self.get(name) == Some("YES")
    }

    /// Reads a number of seconds; an error if the attribute is there and no decimal number.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<Duration>, ()> {
        self.get(name).map(|value| parse_seconds(value).ok_or(())).transpose()
    }

    /// Reads an integer; an error if the attribute is there and no decimal integer.
    pub(super) fn integer(&self, name: &str) -> Result<Option<u64>, ()> {
        self.get(name).map(|value| parse_integer(value).ok_or(())).transpose()
    }
}

/// Reads a decimal integer, which consists of digits only.
pub(super) fn parse_integer(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
