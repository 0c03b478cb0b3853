//! The fields of a change of a livestream.

use std::collections::BTreeMap;

use millrace_node::LadderTemplates;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::FieldError;
use super::create::{Checked, Create};
use crate::domain::stream::{InvalidTransition, Status, Stream, Transition};

/// The body of `PATCH /api/v1/livestreams/{id}`: a merge patch (RFC 7396). Fields that are left out stay as they are, and null
/// gives a field its default.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Update(Map<String, Value>);

/// The time at which the change of a field takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TakesEffect {
    /// At once.
    Now,
    /// When a publisher connects next. One that is connected goes on as before.
    NextPublish,
}

/// A field of a livestream that can change.
struct Field {
    name: &'static str,
    takes_effect: TakesEffect,
    /// True if the field cannot change any more once the broadcast has begun.
    before_begin: bool,
    apply: fn(&mut Stream, &Values),
}

/// The values that the fields take.
#[derive(Debug, Clone)]
struct Values {
    title: String,
    description: String,
    checked: Checked,
}

const fn field(name: &'static str, takes_effect: TakesEffect, apply: fn(&mut Stream, &Values)) -> Field {
    Field { name, takes_effect, before_begin: false, apply }
}

/// A field that playlists or objects of a whole broadcast depend on.
const fn frozen(name: &'static str, takes_effect: TakesEffect, apply: fn(&mut Stream, &Values)) -> Field {
    Field { name, takes_effect, before_begin: true, apply }
}

/// The fields that can change.
static FIELDS: [Field; 14] = [
    field("title", TakesEffect::Now, |stream, new| stream.title.clone_from(&new.title)),
    field("description", TakesEffect::Now, |stream, new| stream.description.clone_from(&new.description)),
    field("owner", TakesEffect::Now, |stream, new| stream.owner.clone_from(&new.checked.owner)),
    field("reusable", TakesEffect::Now, |stream, new| stream.airings.reusable = new.checked.reusable),
    field("takeover", TakesEffect::Now, |stream, new| {
        stream.settings.takeover = new.checked.settings.takeover;
    }),
    field("ladder", TakesEffect::NextPublish, |stream, new| {
        stream.settings.ladder.clone_from(&new.checked.settings.ladder);
    }),
    field("away", TakesEffect::NextPublish, |stream, new| stream.settings.away = new.checked.settings.away),
    field("reconnect_window_s", TakesEffect::NextPublish, |stream, new| {
        stream.settings.reconnect_window = new.checked.settings.reconnect_window;
    }),
    frozen("scheduled_at", TakesEffect::Now, |stream, new| stream.scheduled_at = new.checked.scheduled_at),
    frozen("record", TakesEffect::NextPublish, |stream, new| {
        stream.settings.record = new.checked.settings.record;
    }),
    frozen("publish_playlist", TakesEffect::NextPublish, |stream, new| {
        stream.settings.publish_playlist = new.checked.settings.publish_playlist;
    }),
    frozen("target_duration_s", TakesEffect::NextPublish, |stream, new| {
        stream.settings.target_duration = new.checked.settings.target_duration;
    }),
    frozen("part_ms", TakesEffect::NextPublish, |stream, new| {
        stream.settings.part_ms = new.checked.settings.part_ms;
    }),
    frozen("list_segments", TakesEffect::NextPublish, |stream, new| {
        stream.settings.list_segments = new.checked.settings.list_segments;
    }),
];

/// The fields of a livestream that a request cannot change.
const FIXED: [&str; 11] = [
    "id",
    "playback_id",
    "status",
    "created_at",
    "started_at",
    "ended_at",
    "rtmp_url",
    "hls_url",
    "watch_url",
    "thumbnail_url",
    "stream_key",
];

/// The checked changes of an [`Update`].
#[derive(Clone)]
pub struct Changes {
    fields: Vec<&'static Field>,
    values: Values,
}

/// The reason why a livestream was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unchanged {
    /// The livestream is over.
    Over(InvalidTransition),
    /// Fields cannot change any more.
    Fields(Vec<FieldError>),
}

impl Update {
    /// Returns true if the request names the field.
    pub fn names(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// Returns the checked changes, or an error for every field that is unknown, cannot change or breaks a rule.
    pub fn check(&self, templates: &LadderTemplates) -> Result<Changes, Vec<FieldError>> {
        let mut errors: Vec<FieldError> = Vec::new();
        let mut fields = Vec::new();
        // The other fields take their defaults, which keep every rule.
        let mut body = Map::from_iter([("title".to_owned(), json!("unchanged"))]);
        for (name, value) in &self.0 {
            let Some(field) = FIELDS.iter().find(|field| field.name == name) else {
                errors.push(FieldError::new(name, refusal(name)));
                continue;
            };
            if name == "title" && value.is_null() {
                errors.push(FieldError::new(name, "must be a text: a livestream has a title"));
                continue;
            }
            match with_field(name, value) {
                Ok(()) if value.is_null() => fields.push(field),
                Ok(()) => {
                    body.insert(name.clone(), value.clone());
                    fields.push(field);
                }
                Err(rule) => errors.push(FieldError::new(name, rule)),
            }
        }
        let create: Create = match serde_json::from_value(Value::Object(body)) {
            Ok(create) => create,
            Err(error) => {
                errors.push(FieldError::new("body", error.to_string()));
                return Err(errors);
            }
        };
        match create.check(templates) {
            Ok(checked) if errors.is_empty() => {
                let title = create.title.trim().to_owned();
                Ok(Changes { fields, values: Values { title, description: create.description, checked } })
            }
            Ok(_) => Err(errors),
            Err(broken) => {
                errors.extend(broken);
                Err(errors)
            }
        }
    }
}

/// Checks the type of one field's value; `Err` is the rule that it breaks.
fn with_field(name: &str, value: &Value) -> Result<(), String> {
    let mut body = json!({ "title": "unchanged" });
    if !value.is_null() {
        body[name] = value.clone();
    }
    serde_json::from_value::<Create>(body).map(drop).map_err(|error| format!("has the wrong type: {error}"))
}

/// Returns the rule that a change of a field without change breaks.
fn refusal(name: &str) -> String {
    match name {
        "status" => "cannot be changed here: use start, stop, cancel or archive".to_owned(),
        "stream_key" => "cannot be changed here: use rotate-key".to_owned(),
        name if FIXED.contains(&name) => "cannot be changed".to_owned(),
        _ => {
            let names: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
            format!("is not a field that can be changed: these can: {}", names.join(", "))
        }
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.fields.iter().map(|field| field.name);
        f.debug_list().entries(names).finish()
    }
}

impl Changes {
    /// Applies the changes to a livestream that is scheduled or live.
    pub fn apply(&self, stream: &mut Stream) -> Result<(), Unchanged> {
        stream.apply(Transition::Change, stream.created_at).map_err(Unchanged::Over)?;
        let begun = stream.status == Status::Live || stream.current_broadcast().is_some();
        let frozen = self.fields.iter().filter(|field| begun && field.before_begin);
        let errors: Vec<FieldError> = frozen
            .map(|field| FieldError::new(field.name, "cannot be changed: the livestream has begun"))
            .collect();
        if !errors.is_empty() {
            return Err(Unchanged::Fields(errors));
        }
        for field in &self.fields {
            (field.apply)(stream, &self.values);
        }
        Ok(())
    }

    /// Returns the changed fields and the times at which their changes take effect.
    pub fn takes_effect(&self) -> BTreeMap<&'static str, TakesEffect> {
        self.fields.iter().map(|field| (field.name, field.takes_effect)).collect()
    }
}

#[cfg(test)]
mod tests {
    use millrace_wire::ids::BroadcastId;
    use millrace_wire::message::control::Ladder;

    use super::*;
    use crate::domain::stream::tests::sample;

    fn check(body: Value) -> Result<Changes, Vec<String>> {
        let update: Update = serde_json::from_value(body).unwrap();
        let checked = update.check(&LadderTemplates::default());
        checked.map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn apply_changes_each_field_and_leaves_the_others() {
        let all = json!({
            "title": " B ", "description": "new", "scheduled_at": "2030-01-01T10:00:00Z", "takeover": "refuse",
            "ladder": "standard", "away": "hold", "reconnect_window_s": 5, "record": true,
            "publish_playlist": true, "target_duration_s": 6, "part_ms": 500, "owner": "alice", "reusable": true,
            "list_segments": 5,
        });
        assert_eq!(all.as_object().unwrap().len(), FIELDS.len());
        for (name, value) in all.as_object().unwrap() {
            let changes = check(json!({ name: value })).unwrap();
            let mut stream = sample();
            changes.apply(&mut stream).unwrap();
            assert_ne!(stream, sample(), "{name} changes");
            assert_eq!(changes.takes_effect().into_keys().collect::<Vec<_>>(), [name]);
        }
        let mut stream = sample();
        check(json!({"title": " B "})).unwrap().apply(&mut stream).unwrap();
        assert_eq!(stream, Stream { title: "B".to_owned(), ..sample() });
        check(json!({"ladder": "standard"})).unwrap().apply(&mut stream).unwrap();
        check(json!({"ladder": null})).unwrap().apply(&mut stream).unwrap();
        assert_eq!(stream.settings.ladder, Ladder::Copy, "null gives the default");
    }

    #[test]
    fn check_names_unknown_fixed_and_wrong_fields() {
        for (body, fields) in [
            (json!({"titel": "B"}), vec!["titel"]),
            (json!({"status": "live", "id": "x"}), vec!["id", "status"]),
            (json!({"title": ""}), vec!["title"]),
            (json!({"title": null}), vec!["title"]),
            (json!({"reconnect_window_s": "x", "part_ms": 1}), vec!["reconnect_window_s", "part_ms"]),
            (json!({"ladder": [{"height": 7, "bitrate": 800_000}]}), vec!["ladder[0].height"]),
        ] {
            assert_eq!(check(body.clone()).unwrap_err(), fields, "{body}");
        }
    }

    #[test]
    fn apply_refuses_livestreams_that_are_over_and_fields_of_a_broadcast_that_has_begun() {
        let live = Stream { status: Status::Live, broadcast: Some(BroadcastId::from_u128(1)), ..sample() };
        let mut stream = live.clone();
        let changes = check(json!({"target_duration_s": 6, "title": "B", "record": true})).unwrap();
        let Err(Unchanged::Fields(errors)) = changes.apply(&mut stream) else { panic!("fields are frozen") };
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["record", "target_duration_s"]);
        assert_eq!(stream, live, "nothing changed");
        check(json!({"ladder": "standard"})).unwrap().apply(&mut stream).unwrap();
        for status in [Status::Ended, Status::Archived, Status::Cancelled] {
            let mut over = Stream { status, ..sample() };
            let refused = check(json!({"title": "B"})).unwrap().apply(&mut over);
            assert!(matches!(refused, Err(Unchanged::Over(_))), "{status:?}");
        }
    }
}
