//! Lifecycle events as webhooks and the event stream show them: `docs/events.md`.

use jiff::Timestamp;
use millrace_wire::ids::{BroadcastId, PlaybackId, StreamId, UnixMillis};
use millrace_wire::message::control::{LifecycleEvent, LifecycleKind};
use serde::Serialize;
use serde_json::{Value, json};

/// The version of the schema. Fields and types may be added within it; a change that breaks readers raises it.
pub const SCHEMA_VERSION: u32 = 1;

/// The type of the event that the test of a webhook sends. It is not in the journal.
pub const TEST_TYPE: &str = "webhook.test";

/// An event in the form of its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublicEvent {
    version: u32,
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    time: Option<Timestamp>,
    stream: Option<StreamId>,
    sequence: Option<u64>,
    playback_id: Option<PlaybackId>,
    broadcast: Option<BroadcastId>,
    owner: Option<String>,
    data: Value,
}

/// Returns a time in the form of RFC 3339; `None` for one beyond the year 9999.
pub fn timestamp(time: UnixMillis) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(time.0).ok()?).ok()
}

impl PublicEvent {
    /// Returns the event in the form of its schema.
    pub fn new(event: &LifecycleEvent) -> Self {
        Self {
            version: SCHEMA_VERSION,
            id: event.id(),
            kind: event.kind.type_name(),
            time: timestamp(event.at),
            stream: Some(event.stream),
            sequence: Some(event.sequence),
            playback_id: event.playback,
            broadcast: event.broadcast,
            owner: event.owner.clone(),
            data: data(&event.kind),
        }
    }

    /// Returns the event that a test of the webhook `webhook` sends.
    pub fn test(id: String, now: UnixMillis, webhook: &str) -> Self {
        Self {
            version: SCHEMA_VERSION,
            id,
            kind: TEST_TYPE,
            time: timestamp(now),
            stream: None,
            sequence: None,
            playback_id: None,
            broadcast: None,
            owner: None,
            data: json!({ "webhook": webhook }),
        }
    }

    /// Returns the id of the event.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the type of the event.
    pub const fn type_name(&self) -> &'static str {
        self.kind
    }

    /// Returns the event as JSON. Its fields are texts, numbers and maps with text keys, which always encode.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn data(kind: &LifecycleKind) -> Value {
    match kind {
        LifecycleKind::Updated { fields } => json!({ "fields": fields }),
        LifecycleKind::PublishRefused { code, text, protocol } => {
            json!({ "code": code, "text": text, "protocol": protocol })
        }
        LifecycleKind::Degraded { reason } => json!({ "reason": reason, "text": reason.text() }),
        LifecycleKind::ConditionBegan { condition } => json!({ "condition": condition, "lasts": true }),
        LifecycleKind::ConditionEnded { condition } => json!({ "condition": condition, "lasts": false }),
        LifecycleKind::RungsLeftOut { rungs } => json!({ "left_out": rungs }),
        LifecycleKind::Created
        | LifecycleKind::Readied
        | LifecycleKind::KeyRotated
        | LifecycleKind::Cancelled
        | LifecycleKind::Archived
        | LifecycleKind::Deleted
        | LifecycleKind::Stopped
        | LifecycleKind::Started { .. }
        | LifecycleKind::Interrupted
        | LifecycleKind::Resumed
        | LifecycleKind::Recovered
        | LifecycleKind::Ended { .. } => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use millrace_wire::message::ladder_health::MediaCondition;

    use super::*;

    #[test]
    fn event_has_the_fields_of_its_schema() {
        let event = LifecycleEvent {
            stream: StreamId::from_u128(1),
            sequence: 4,
            at: UnixMillis(1_700_000_000_123),
            playback: None,
            broadcast: Some(BroadcastId::from_u128(2)),
            owner: Some("anna".to_owned()),
            kind: LifecycleKind::ConditionBegan { condition: MediaCondition::Black },
        };
        let shown: Value = serde_json::from_str(&PublicEvent::new(&event).to_json()).unwrap();
        let expected = json!({
            "version": 1, "id": "00000000000000000000000001-4", "type": "stream.condition",
            "time": "2023-11-14T22:13:20.123Z", "stream": "00000000000000000000000001", "sequence": 4,
            "playback_id": null, "broadcast": "00000000000000000000000002", "owner": "anna",
            "data": { "condition": "black", "lasts": true },
        });
        assert_eq!(shown, expected);
        let test = PublicEvent::test("test-1".to_owned(), UnixMillis(0), "w");
        assert_eq!((test.type_name(), test.id()), (TEST_TYPE, "test-1"));
    }
}
