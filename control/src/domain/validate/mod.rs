//! The fields of requests to create and to change a livestream, and the rules they must keep.

mod create;
mod key;
mod ladder;
mod update;

use serde::Serialize;

pub use self::create::{Checked, Create};
pub use self::key::{CheckedKey, NewKey};
pub use self::update::{Changes, TakesEffect, Unchanged, Update};
use super::visible_text::first_hidden;

/// Longest title: one line of any player.
pub const MAX_TITLE_CHARS: usize = 200;
/// Longest description of a livestream, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 5_000;
/// Longest reconnect window, one day: a publisher that is away longer begins another broadcast.
pub const MAX_RECONNECT_WINDOW_S: u32 = 86_400;
/// Default reconnect window: long enough to restart an encoder by hand.
pub const DEFAULT_RECONNECT_WINDOW_S: u32 = 60;
/// Bounds of EXT-X-TARGETDURATION: segments of 2 s outgrow a lower value at once; with a higher one joining takes too
/// long.
pub const TARGET_DURATION_S: std::ops::RangeInclusive<u32> = 2..=10;
/// Default EXT-X-TARGETDURATION: segments aim at 2 s, and EXTINF may round down to it (ADR 10).
pub const DEFAULT_TARGET_DURATION_S: u32 = 2;

/// Bounds of the part duration in milliseconds: shorter parts cost more requests than they save delay, longer ones are
/// segments.
pub const PART_MS: std::ops::RangeInclusive<u32> = 200..=1_000;

/// Bounds of the number of listed segments: a live playlist holds at least three target durations (RFC 8216 §6.2.2), and two
/// minutes of media are in memory at edges.
pub const LIST_SEGMENTS: std::ops::RangeInclusive<u32> = 3..=60;

/// An error of one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field that breaks a rule, with the place within it: `ladder[1].height`.
    pub field: String,
    /// The rule, to be read after the field's name.
    pub message: String,
}

impl FieldError {
    /// Creates an error of a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// Returns the errors as one sentence, separated by semicolons.
    pub fn list(errors: &[Self]) -> String {
        let list: Vec<String> = errors.iter().map(|e| format!("{} {}", e.field, e.message)).collect();
        list.join("; ")
    }
}

/// Control characters of a text with several lines.
const LINES: &[char] = &['\n', '\r', '\t'];

/// Returns the rule that a title breaks.
pub(crate) fn broken_title_rule(title: &str) -> Option<String> {
    let title = title.trim();
    if title.is_empty() || title.chars().count() > MAX_TITLE_CHARS {
        return Some(format!("must have 1 to {MAX_TITLE_CHARS} printable characters"));
    }
    first_hidden(title, &[]).map(hidden_rule)
}

/// Returns the rule that a description breaks.
fn broken_description_rule(description: &str) -> Option<String> {
    if description.chars().count() > MAX_DESCRIPTION_CHARS {
        return Some(format!("must have at most {MAX_DESCRIPTION_CHARS} characters"));
    }
    first_hidden(description, LINES).map(hidden_rule)
}

/// Returns the rule that a text with the character `hidden` breaks.
fn hidden_rule(hidden: char) -> String {
    format!("must not have invisible or direction-changing characters: it has U+{:04X}", u32::from(hidden))
}
