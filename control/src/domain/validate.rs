//! The fields of a request to create a livestream, and the rules they must keep.

use millrace_wire::ids::UnixMillis;
use millrace_wire::message::control::{AwayPolicy, Ladder, StreamSettings, Takeover};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// The body of `POST /api/v1/livestreams`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The title shown to viewers.
    pub title: String,
    /// Free text shown to viewers.
    #[serde(default)]
    pub description: String,
    /// The planned beginning, an RFC 3339 time.
    pub scheduled_at: Option<jiff::Timestamp>,
    /// True to keep segments that leave the live window.
    #[serde(default)]
    pub record: bool,
    /// True to write the playlists into the bucket as well.
    #[serde(default)]
    pub publish_playlist: bool,
    /// The policy for a second publisher with the same key.
    #[serde(default)]
    pub takeover: Takeover,
    /// The policy for the playlist while the publisher is away.
    #[serde(default)]
    pub away: AwayPolicy,
    /// The reconnect window in seconds.
    pub reconnect_window_s: Option<u32>,
    /// The EXT-X-TARGETDURATION of the playlists, in seconds.
    pub target_duration_s: Option<u32>,
    /// The aimed duration of a part in milliseconds.
    pub part_ms: Option<u32>,
    /// The ladder of renditions; only `"copy"` is available.
    pub ladder: Option<Value>,
}

/// An error of one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The name of the field that breaks a rule.
    pub field: &'static str,
    /// The rule, to be read after the field's name.
    pub message: String,
}

impl FieldError {
    /// Returns the errors as one sentence, separated by semicolons.
    pub fn list(errors: &[Self]) -> String {
        let list: Vec<String> = errors.iter().map(|e| format!("{} {}", e.field, e.message)).collect();
        list.join("; ")
    }
}

/// The checked values of a [`Create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The livestream's settings, defaults filled in.
    pub settings: StreamSettings,
    /// The time the livestream is planned to begin at.
    pub scheduled_at: Option<UnixMillis>,
}

impl Create {
    /// Returns the checked values, or an error for every field that breaks a rule.
    pub fn check(&self) -> Result<Checked, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut refuse = |field, message: String| errors.push(FieldError { field, message });
        let title = self.title.trim();
        if title.is_empty() || title.chars().count() > MAX_TITLE_CHARS {
            refuse("title", format!("must have 1 to {MAX_TITLE_CHARS} printable characters"));
        }
        if let Some(hidden) = first_hidden(title, &[]) {
            refuse("title", hidden_rule(hidden));
        }
        if self.description.chars().count() > MAX_DESCRIPTION_CHARS {
            refuse("description", format!("must have at most {MAX_DESCRIPTION_CHARS} characters"));
        }
        if let Some(hidden) = first_hidden(&self.description, LINES) {
            refuse("description", hidden_rule(hidden));
        }
        let target_duration_s = self.target_duration_s.unwrap_or(DEFAULT_TARGET_DURATION_S);
        if !TARGET_DURATION_S.contains(&target_duration_s) {
            let (low, high) = (TARGET_DURATION_S.start(), TARGET_DURATION_S.end());
            refuse("target_duration_s", format!("must be from {low} to {high} seconds"));
        }
        let reconnect_window_s = self.reconnect_window_s.unwrap_or(DEFAULT_RECONNECT_WINDOW_S);
        if reconnect_window_s > MAX_RECONNECT_WINDOW_S {
            refuse("reconnect_window_s", format!("must be at most {MAX_RECONNECT_WINDOW_S} seconds"));
        }
        let defaults = StreamSettings::default();
        let part_ms = self.part_ms.unwrap_or(defaults.part_ms);
        if !PART_MS.contains(&part_ms) {
            refuse("part_ms", format!("must be from {} to {} milliseconds", PART_MS.start(), PART_MS.end()));
        }
        let ladder = self.ladder.clone().map_or(Ok(Ladder::default()), serde_json::from_value);
        if let Some(rule) = broken_ladder_rule(ladder.as_ref().ok()) {
            refuse("ladder", rule.to_owned());
        }
        let scheduled_at = self.scheduled_at.map(|at| u64::try_from(at.as_millisecond()).map(UnixMillis));
        if matches!(scheduled_at, Some(Err(_))) {
            refuse("scheduled_at", "must not be before 1970".to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let scheduled_at = scheduled_at.and_then(Result::ok);
        let settings = StreamSettings {
            target_duration: target_duration_s,
            record: self.record,
            publish_playlist: self.publish_playlist,
            takeover: self.takeover,
            reconnect_window: reconnect_window_s,
            away: self.away,
            part_ms,
            ladder: ladder.unwrap_or_default(),
            ..defaults
        };
        Ok(Checked { settings, scheduled_at })
    }
}

/// Control characters of a text with several lines.
const LINES: &[char] = &['\n', '\r', '\t'];

/// Returns the rule that a text with the character `hidden` breaks.
fn hidden_rule(hidden: char) -> String {
    format!("must not have invisible or direction-changing characters: it has U+{:04X}", u32::from(hidden))
}

/// Returns the rule that the ladder breaks; `None` stands for a value that is no ladder at all.
fn broken_ladder_rule(ladder: Option<&Ladder>) -> Option<&'static str> {
    match ladder {
        Some(Ladder::Copy) => None,
        Some(encoded) => {
            Some(encoded.check().err().unwrap_or("must be \"copy\": encoded rungs are not available yet"))
        }
        None => Some("must be \"copy\", the name of a template, or a list of rungs with height and bitrate"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: Value) -> Result<StreamSettings, Vec<&'static str>> {
        let create: Create = serde_json::from_value(body).unwrap();
        let checked = create.check();
        checked
            .map(|checked| checked.settings)
            .map_err(|errors| errors.into_iter().map(|e| e.field).collect())
    }

    #[test]
    fn check_fills_in_defaults_for_a_title_alone() {
        let settings = check(json!({"title": "A"})).unwrap();
        assert_eq!((settings.target_duration, settings.reconnect_window), (2, 60));
        assert_eq!(settings.takeover, Takeover::Replace);
        assert!(!settings.record && !settings.publish_playlist);
    }

    #[test]
    fn check_names_every_field_that_breaks_a_rule() {
        let body = json!({
            "title": " ", "description": "x".repeat(5_001), "target_duration_s": 1,
            "reconnect_window_s": 86_401, "part_ms": 199, "ladder": [{"height": 720, "bitrate": 2_500_000}],
        });
        let fields = ["title", "description", "target_duration_s", "reconnect_window_s", "part_ms", "ladder"];
        assert_eq!(check(body), Err(fields.to_vec()));
    }

    #[test]
    fn check_refuses_titles_and_descriptions_of_hidden_characters_and_names_the_field() {
        for (body, field) in [
            (json!({"title": "Live \u{202e}4pm"}), "title"),
            (json!({"title": "\u{200b}"}), "title"),
            (json!({"title": "A\nB"}), "title"),
            (json!({"title": "A", "description": "one\n\u{2067}two"}), "description"),
        ] {
            assert_eq!(check(body.clone()), Err(vec![field]), "{body}");
        }
        assert!(check(json!({"title": "مباراة 👨‍👩‍👧", "description": "one\n\ttwo\r\n"})).is_ok());
        let create: Create = serde_json::from_value(json!({"title": "A\u{202e}B"})).unwrap();
        let message = FieldError::list(&create.check().unwrap_err());
        assert!(
            message.starts_with("title must not have invisible") && message.ends_with("U+202E"),
            "{message}"
        );
    }

    #[test]
    fn check_accepts_values_at_the_limits() {
        for duration in [2, 10] {
            assert!(check(json!({"title": "A", "target_duration_s": duration, "ladder": "copy"})).is_ok());
        }
        assert_eq!(check(json!({"title": "A", "target_duration_s": 11})), Err(vec!["target_duration_s"]));
        for part_ms in [200, 1_000] {
            assert_eq!(check(json!({"title": "A", "part_ms": part_ms})).unwrap().part_ms, part_ms);
        }
        assert_eq!(check(json!({"title": "A", "part_ms": 1_001})), Err(vec!["part_ms"]));
        for ladder in [json!("copies"), json!(["copy"]), json!({"copy": 1})] {
            assert_eq!(check(json!({"title": "A", "ladder": ladder})), Err(vec!["ladder"]));
        }
        assert!(check(json!({"title": "x".repeat(200)})).is_ok());
        assert_eq!(check(json!({"title": "x".repeat(201)})), Err(vec!["title"]));
    }

    #[test]
    fn parse_refuses_unknown_fields() {
        assert!(serde_json::from_value::<Create>(json!({"title": "A", "ladr": "copy"})).is_err());
    }
}
