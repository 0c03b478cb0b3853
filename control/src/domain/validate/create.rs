//! The fields of a new livestream.

use millrace_node::LadderTemplates;
use millrace_wire::ids::UnixMillis;
use millrace_wire::message::control::{AwayPolicy, Ladder, StreamSettings, Takeover};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    DEFAULT_RECONNECT_WINDOW_S, DEFAULT_TARGET_DURATION_S, FieldError, LIST_SEGMENTS, MAX_RECONNECT_WINDOW_S,
    PART_MS, TARGET_DURATION_S, broken_description_rule, broken_title_rule, ladder,
};
use crate::domain::access::Owner;

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
    /// True if the keys begin another broadcast after one has ended.
    #[serde(default)]
    pub reusable: bool,
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
    /// The number of segments that live playlists list; without it they list a minute.
    pub list_segments: Option<u32>,
    /// The ladder of renditions: a template's name, or a list of rungs.
    pub ladder: Option<Value>,
    /// The owner, named by operators. Without it: the owner that the caller's token names.
    pub owner: Option<String>,
}

/// The checked values of a [`Create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The livestream's settings, defaults filled in.
    pub settings: StreamSettings,
    /// The time the livestream is planned to begin at.
    pub scheduled_at: Option<UnixMillis>,
    /// The owner that the request names.
    pub owner: Option<Owner>,
    /// True if the livestream airs again after a broadcast has ended.
    pub reusable: bool,
}

impl Create {
    /// Returns the checked values, or an error for every field that breaks a rule. A ladder names one of `templates`.
    pub fn check(&self, templates: &LadderTemplates) -> Result<Checked, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut refuse = |field: &str, message: String| errors.push(FieldError::new(field, message));
        if let Some(rule) = broken_title_rule(&self.title) {
            refuse("title", rule);
        }
        if let Some(rule) = broken_description_rule(&self.description) {
            refuse("description", rule);
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
        if self.list_segments.is_some_and(|segments| !LIST_SEGMENTS.contains(&segments)) {
            let (low, high) = (LIST_SEGMENTS.start(), LIST_SEGMENTS.end());
            refuse("list_segments", format!("must be from {low} to {high} segments"));
        }
        let scheduled_at = self.scheduled_at.map(|at| u64::try_from(at.as_millisecond()).map(UnixMillis));
        if matches!(scheduled_at, Some(Err(_))) {
            refuse("scheduled_at", "must not be before 1970".to_owned());
        }
        let owner = self.owner.as_deref().map(str::parse::<Owner>).transpose();
        if let Err(rule) = &owner {
            refuse("owner", rule.to_string());
        }
        let ladder = ladder::parse(self.ladder.as_ref(), templates).unwrap_or_else(|faults| {
            errors.extend(faults);
            Ladder::Copy
        });
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
            list_segments: self.list_segments,
            ladder,
            ..defaults
        };
        Ok(Checked { settings, scheduled_at, owner: owner.ok().flatten(), reusable: self.reusable })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: Value) -> Result<StreamSettings, Vec<String>> {
        let create: Create = serde_json::from_value(body).unwrap();
        let checked = create.check(&LadderTemplates::default());
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
            "reconnect_window_s": 86_401, "part_ms": 199, "list_segments": 2, "ladder": [{"height": 721, "bitrate": 2_500_000}],
        });
        let fields = [
            "title",
            "description",
            "target_duration_s",
            "reconnect_window_s",
            "part_ms",
            "list_segments",
            "ladder[0].height",
        ];
        assert_eq!(check(body), Err(fields.map(str::to_owned).to_vec()));
    }

    #[test]
    fn check_refuses_titles_and_descriptions_of_hidden_characters_and_names_the_field() {
        for (body, field) in [
            (json!({"title": "Live \u{202e}4pm"}), "title"),
            (json!({"title": "\u{200b}"}), "title"),
            (json!({"title": "A\nB"}), "title"),
            (json!({"title": "A", "description": "one\n\u{2067}two"}), "description"),
        ] {
            assert_eq!(check(body.clone()), Err(vec![field.to_owned()]), "{body}");
        }
        assert!(check(json!({"title": "مباراة 👨‍👩‍👧", "description": "one\n\ttwo\r\n"})).is_ok());
        let create: Create = serde_json::from_value(json!({"title": "A\u{202e}B"})).unwrap();
        let message = FieldError::list(&create.check(&LadderTemplates::default()).unwrap_err());
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
        assert_eq!(
            check(json!({"title": "A", "target_duration_s": 11})),
            Err(vec!["target_duration_s".to_owned()])
        );
        for part_ms in [200, 1_000] {
            assert_eq!(check(json!({"title": "A", "part_ms": part_ms})).unwrap().part_ms, part_ms);
        }
        assert_eq!(check(json!({"title": "A", "part_ms": 1_001})), Err(vec!["part_ms".to_owned()]));
        assert!(check(json!({"title": "x".repeat(200)})).is_ok());
        assert_eq!(check(json!({"title": "x".repeat(201)})), Err(vec!["title".to_owned()]));
    }

    #[test]
    fn parse_refuses_unknown_fields() {
        assert!(serde_json::from_value::<Create>(json!({"title": "A", "ladr": "copy"})).is_err());
    }
}
