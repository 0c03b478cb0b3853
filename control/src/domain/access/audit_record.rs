//! The stored form of an entry of the audit log.

use std::net::IpAddr;

use millrace_wire::ids::{StreamId, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Role;

/// A change and the party that made it. It holds no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// The number of the entry; newer ones have higher numbers.
    pub number: u64,
    /// The time of the change.
    pub at: UnixMillis,
    /// The caller: `admin`, `token:ID`, `jwt:SUBJECT`, or a part of the cluster in words.
    pub actor: String,
    /// The role of a caller of the API.
    pub role: Option<Role>,
    /// The address of the HTTP client or of the publisher.
    pub from: Option<IpAddr>,
    /// The command by its name.
    pub command: String,
    /// The livestream that the command changed.
    pub stream: Option<StreamId>,
    /// The thing that the command changed, where it is no livestream, e.g. `token:ID`.
    pub target: Option<String>,
    /// The fault of the state store, after which the change may or may not have been made.
    pub error: Option<String>,
    /// The changed fields as they were.
    pub before: Option<Value>,
    /// The changed fields as they are.
    pub after: Option<Value>,
}

/// The entries that a reader of the audit log asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of this livestream alone.
    pub stream: Option<StreamId>,
    /// Of this caller alone.
    pub actor: Option<String>,
    /// Of this command alone.
    pub command: Option<String>,
    /// At or after this time.
    pub since: Option<UnixMillis>,
    /// Before this time.
    pub until: Option<UnixMillis>,
}

impl AuditFilter {
    /// Returns true if the entry is asked for.
    pub fn wants(&self, record: &AuditRecord) -> bool {
        self.stream.is_none_or(|stream| record.stream == Some(stream))
            && self.actor.as_ref().is_none_or(|actor| record.actor == *actor)
            && self.command.as_ref().is_none_or(|command| record.command == *command)
            && self.since.is_none_or(|since| record.at >= since)
            && self.until.is_none_or(|until| record.at < until)
    }
}
