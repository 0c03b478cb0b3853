//! Lifecycle events: what happens to a livestream, as the journal keeps it.

use serde::{Deserialize, Serialize};

use crate::ids::{BroadcastId, PlaybackId, StreamId, UnixMillis};
use crate::message::announce::Degraded;
use crate::message::ladder_health::MediaCondition;
use crate::topic::Message;

impl Message for LifecycleEvent {}
impl Message for WebhookNotice {}

/// On `control.webhooks`: deliveries of a webhook wait that the control which delivers may not know. A lost notice costs time
/// alone: deliveries are looked for from time to time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookNotice {
    /// The id of the webhook.
    pub webhook: String,
}

/// A lifecycle event, kept on `events.{stream}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleEvent {
    /// The livestream that this is about.
    pub stream: StreamId,
    /// The event's place among the events of its livestream, from 1 without holes. It is 0 in events of builds that did not
    /// count them.
    #[serde(default)]
    pub sequence: u64,
    /// The wall clock at the event.
    pub at: UnixMillis,
    /// The livestream's id in viewers' URLs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playback: Option<PlaybackId>,
    /// The broadcast during which the event happened; `None` before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<BroadcastId>,
    /// The owner of the livestream; `None` for a livestream of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The kind of event, with its details.
    pub kind: LifecycleKind,
}

/// The kind of a lifecycle event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LifecycleKind {
    /// The livestream was created.
    Created,
    /// Fields of the livestream changed.
    Updated {
        /// The names of the changed fields, as the API spells them.
        fields: Vec<String>,
    },
    /// An operator or the owner declared the livestream ready to go live.
    Readied,
    /// The stream key was replaced.
    KeyRotated,
    /// The livestream was cancelled before it began.
    Cancelled,
    /// The livestream was archived.
    Archived,
    /// The livestream was deleted.
    Deleted,
    /// The livestream was ended before any broadcast of it began.
    Stopped,
    /// A publisher was refused, or its publish ended before any usable media came.
    PublishRefused {
        /// The code of the close reason.
        code: String,
        /// The reason in words, as the publisher was told.
        text: String,
        /// The protocol of the publisher.
        protocol: String,
    },
    /// A publisher went live in a new broadcast.
    Started {
        /// The broadcast that the epoch belongs to.
        broadcast: BroadcastId,
    },
    /// The publisher is away; its return is awaited.
    Interrupted,
    /// The publisher is back in the same broadcast.
    Resumed,
    /// The stream runs with less than it should.
    Degraded {
        /// The reason.
        reason: Degraded,
    },
    /// The reason for which the stream was degraded is gone.
    Recovered,
    /// A condition of the decoded media lasts.
    ConditionBegan {
        /// The condition.
        condition: MediaCondition,
    },
    /// The condition is over.
    ConditionEnded {
        /// The condition.
        condition: MediaCondition,
    },
    /// The number of rungs that are missing against the livestream's ladder has changed.
    RungsLeftOut {
        /// The missing rungs; 0 when all are encoded again.
        rungs: u8,
    },
    /// The broadcast is over for good.
    Ended {
        /// The broadcast that the epoch belongs to.
        broadcast: BroadcastId,
    },
}

impl LifecycleKind {
    /// Every type of event, as the API, webhooks and `docs/events.md` spell it.
    pub const TYPES: [&'static str; 17] = [
        "stream.created",
        "stream.updated",
        "stream.ready",
        "stream.key_rotated",
        "stream.cancelled",
        "stream.archived",
        "stream.deleted",
        "stream.stopped",
        "publish.refused",
        "stream.started",
        "stream.interrupted",
        "stream.resumed",
        "stream.degraded",
        "stream.recovered",
        "stream.condition",
        "stream.rungs",
        "stream.ended",
    ];

    /// Returns the type of the event, one of [`LifecycleKind::TYPES`].
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Created => "stream.created",
            Self::Updated { .. } => "stream.updated",
            Self::Readied => "stream.ready",
            Self::KeyRotated => "stream.key_rotated",
            Self::Cancelled => "stream.cancelled",
            Self::Archived => "stream.archived",
            Self::Deleted => "stream.deleted",
            Self::Stopped => "stream.stopped",
            Self::PublishRefused { .. } => "publish.refused",
            Self::Started { .. } => "stream.started",
            Self::Interrupted => "stream.interrupted",
            Self::Resumed => "stream.resumed",
            Self::Degraded { .. } => "stream.degraded",
            Self::Recovered => "stream.recovered",
            Self::ConditionBegan { .. } | Self::ConditionEnded { .. } => "stream.condition",
            Self::RungsLeftOut { .. } => "stream.rungs",
            Self::Ended { .. } => "stream.ended",
        }
    }
}

impl LifecycleEvent {
    /// Returns an id that no other event has: an event that is kept or delivered twice is recognised by it.
    pub fn id(&self) -> String {
        format!("{}-{}", self.stream, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{decode, encode};

    #[test]
    fn lifecycle_event_round_trips_and_one_of_a_build_without_sequence_is_read() {
        let event = LifecycleEvent {
            stream: StreamId::from_u128(1),
            sequence: 7,
            at: UnixMillis(5),
            playback: None,
            broadcast: Some(BroadcastId::from_u128(2)),
            owner: Some("anna".to_owned()),
            kind: LifecycleKind::Updated { fields: vec!["title".to_owned()] },
        };
        assert_eq!(event.id(), format!("{}-7", event.stream));
        assert_eq!(decode::<LifecycleEvent>(&encode(&event).unwrap()).unwrap(), event);
        let older = r#"{"v":3,"stream":"01JDN7PK2XFT7S04HMASW9NF6Y","at":1,"kind":{"event":"resumed"}}"#;
        let older = decode::<LifecycleEvent>(older.as_bytes()).unwrap();
        assert_eq!((older.sequence, older.kind), (0, LifecycleKind::Resumed));
    }
}
