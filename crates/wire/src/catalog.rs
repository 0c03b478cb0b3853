//! The record that leads from a playback id to a livestream: control writes it, edges read it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::StreamId;

/// The record stored under the key [`crate::state_keys::playback`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaybackRecord {
    /// The livestream that the playback id names.
    pub stream: StreamId,
    /// The rule by which an edge decides who may watch.
    #[serde(default)]
    pub policy: PlaybackPolicy,
    /// The livestream's title, which the watch page shows; records of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// The rule by which an edge decides who may watch. A record with a policy that this version does not know cannot be
/// read, so that an edge of an older version refuses viewers instead of letting everyone in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum PlaybackPolicy {
    /// Everyone who knows the playback id may watch.
    #[default]
    Public,
}

/// A playback record that cannot be read.
#[derive(Debug, Error)]
pub enum PlaybackRecordError {
    /// The value is neither JSON of this version nor a bare stream id.
    #[error("malformed playback record: {0}")]
    Json(#[from] serde_json::Error),
}

impl PlaybackRecord {
    /// Returns the record of a livestream that everyone may watch.
    pub fn public(stream: StreamId) -> Self {
        Self { stream, policy: PlaybackPolicy::Public, title: None }
    }

    /// Returns the record with the title of its livestream.
    #[must_use]
    pub fn titled(self, title: &str) -> Self {
        Self { title: Some(title.to_owned()), ..self }
    }

    /// Encodes the record as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, PlaybackRecordError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Parses a record: JSON, or a stream id alone (as text or as a JSON string) as earlier versions wrote it.
    pub fn parse(value: &[u8]) -> Result<Self, PlaybackRecordError> {
        let text = std::str::from_utf8(value).ok();
        let bare = text.and_then(|text| text.trim().trim_matches('"').parse().ok());
        match bare {
            Some(stream) => Ok(Self::public(stream)),
            None => Ok(serde_json::from_slice(value)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn playback_record_round_trips_and_is_read_in_its_bare_form() {
        let record = PlaybackRecord::public(StreamId::from_u128(7));
        assert_eq!(PlaybackRecord::parse(&record.encode().unwrap()).unwrap(), record);
        for bare in [record.stream.to_string(), format!("\"{}\"", record.stream)] {
            assert_eq!(PlaybackRecord::parse(bare.as_bytes()).unwrap(), record);
        }
        let titled = record.titled("An \"evening\"");
        assert_eq!(PlaybackRecord::parse(&titled.encode().unwrap()).unwrap(), titled);
    }

    #[test]
    fn playback_record_of_an_unknown_policy_is_refused() {
        let text = format!("{{\"stream\":\"{}\",\"policy\":\"signed\"}}", StreamId::from_u128(7));
        assert!(PlaybackRecord::parse(text.as_bytes()).is_err());
        assert!(PlaybackRecord::parse(b"").is_err());
    }
}
