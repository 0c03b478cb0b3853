//! What a request to create a livestream may say.

use millrace_wire::message::control::{AwayPolicy, StreamSettings, Takeover};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A title fits one line of any player.
pub const MAX_TITLE_CHARS: usize = 200;
/// A description is a text, not a document.
pub const MAX_DESCRIPTION_CHARS: usize = 5_000;
/// A day: longer absences are another broadcast.
pub const MAX_RECONNECT_WINDOW_S: u32 = 86_400;
/// Long enough for an encoder to be restarted by hand.
pub const DEFAULT_RECONNECT_WINDOW_S: u32 = 60;
/// TARGETDURATION bounds: below 2 s segments outgrow it at once, above 10 s joining takes too long.
pub const TARGET_DURATION_S: std::ops::RangeInclusive<u32> = 2..=10;
/// Segments aim at 2 s; twice that leaves room for irregular keyframes.
pub const DEFAULT_TARGET_DURATION_S: u32 = 4;

/// Body of `POST /api/v1/livestreams`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Shown to viewers.
    pub title: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// RFC 3339.
    pub scheduled_at: Option<jiff::Timestamp>,
    /// Keep all segments.
    #[serde(default)]
    pub record: bool,
    /// Publish playlists into the bucket.
    #[serde(default)]
    pub publish_playlist: bool,
    /// What a second publisher gets.
    #[serde(default)]
    pub takeover: Takeover,
    /// What viewers get while the publisher is away.
    #[serde(default)]
    pub away: AwayPolicy,
    /// Seconds.
    pub reconnect_window_s: Option<u32>,
    /// Seconds.
    pub target_duration_s: Option<u32>,
    /// `"copy"`.
    pub ladder: Option<Value>,
}

/// A field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl Create {
    /// The settings it asks for, or everything that is wrong with it.
    pub fn settings(&self) -> Result<StreamSettings, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut refuse = |field, message: String| errors.push(FieldError { field, message });
        let title = self.title.trim();
        if title.is_empty() || title.chars().count() > MAX_TITLE_CHARS || title.chars().any(char::is_control)
        {
            refuse("title", format!("must have 1 to {MAX_TITLE_CHARS} printable characters"));
        }
        if self.description.chars().count() > MAX_DESCRIPTION_CHARS {
            refuse("description", format!("must have at most {MAX_DESCRIPTION_CHARS} characters"));
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
        if self.ladder.as_ref().is_some_and(|ladder| ladder.as_str() != Some("copy")) {
            let message = "must be \"copy\": streams are delivered as they are pushed, encoded ladders are not available";
            refuse("ladder", message.to_owned());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(StreamSettings {
            target_duration: target_duration_s,
            record: self.record,
            publish_playlist: self.publish_playlist,
            takeover: self.takeover,
            reconnect_window: reconnect_window_s,
            away: self.away,
            ..StreamSettings::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: Value) -> Result<StreamSettings, Vec<&'static str>> {
        let create: Create = serde_json::from_value(body).unwrap();
        create.settings().map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn a_title_is_enough() {
        let settings = check(json!({"title": "A"})).unwrap();
        assert_eq!((settings.target_duration, settings.reconnect_window), (4, 60));
        assert_eq!(settings.takeover, Takeover::Replace);
        assert!(!settings.record && !settings.publish_playlist);
    }

    #[test]
    fn every_broken_rule_is_named() {
        let body = json!({
            "title": " ", "description": "x".repeat(5_001), "target_duration_s": 1,
            "reconnect_window_s": 86_401, "ladder": [{"height": 720, "bitrate": 2_500_000}],
        });
        let fields = ["title", "description", "target_duration_s", "reconnect_window_s", "ladder"];
        assert_eq!(check(body), Err(fields.to_vec()));
    }

    #[test]
    fn limits_are_inclusive() {
        for duration in [2, 10] {
            assert!(check(json!({"title": "A", "target_duration_s": duration, "ladder": "copy"})).is_ok());
        }
        assert_eq!(check(json!({"title": "A", "target_duration_s": 11})), Err(vec!["target_duration_s"]));
        assert!(check(json!({"title": "x".repeat(200)})).is_ok());
        assert_eq!(check(json!({"title": "x".repeat(201)})), Err(vec!["title"]));
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(serde_json::from_value::<Create>(json!({"title": "A", "ladr": "copy"})).is_err());
    }
}
