//! The callers of commands, and the entry that each command leaves in the audit.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use millrace_wire::ids::{Epoch, Generation, NodeId, SessionId, StreamId, TokenId};
use serde_json::Value;
use tracing::{debug, info, warn};

use crate::domain::access::{Identity, Owner};
use crate::domain::webhook::WebhookId;

/// The party that asks for a command, and the address it asks from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) who: Principal,
    /// The address of the HTTP client or of the publisher; `None` for the cluster's own parts.
    pub(crate) from: Option<IpAddr>,
}

impl Caller {
    /// Returns one of the cluster's own parts as a caller.
    pub(crate) fn internal(who: Principal) -> Self {
        Self { who, from: None }
    }

    /// Returns the identity of a caller of the API that presented a token.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match &self.who {
            Principal::Api(identity) => Some(identity),
            _ => None,
        }
    }

    /// Returns true if the caller may see and change everything of a livestream that `owner` owns. The cluster's own parts may.
    pub(crate) fn owns(&self, owner: Option<&Owner>) -> bool {
        match &self.who {
            Principal::Api(identity) => identity.owns(owner),
            Principal::Anonymous => false,
            _ => true,
        }
    }
}

/// The identity under which a command is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// A caller of the API with a token.
    Api(Arc<Identity>),
    /// A caller of the API without a token, which viewers' endpoints answer.
    Anonymous,
    /// An ingest node, for a publisher that presents a stream key.
    Ingest(NodeId, SessionId),
    /// An ingest node that refused a publisher on its own.
    Refuser(NodeId),
    /// A publisher session that holds or held a claim.
    Session(SessionId),
    /// The writer of a stream's log.
    LogWriter(Epoch, Generation),
    /// The control that holds the leader's lease.
    Reconciler(NodeId),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(identity) => f.write_str(&identity.actor),
            Self::Anonymous => f.write_str("anonymous"),
            Self::Ingest(node, session) => write!(f, "ingest {node} session {session}"),
            Self::Refuser(node) => write!(f, "ingest {node}"),
            Self::Session(session) => write!(f, "session {session}"),
            Self::LogWriter(epoch, generation) => write!(f, "log writer {epoch}.{generation}"),
            Self::Reconciler(node) => write!(f, "reconciler {node}"),
        }
    }
}

/// The commands that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Command {
    Create,
    Update,
    Start,
    Stop,
    Reopen,
    Cancel,
    Archive,
    RotateKey,
    AddKey,
    RevokeKey,
    Delete,
    Claim,
    Renew,
    Release,
    Refused,
    Sealed,
    CreateToken,
    RevokeToken,
    CreateWebhook,
    UpdateWebhook,
    RotateWebhookSecret,
    DeleteWebhook,
    TestWebhook,
    ReplayDelivery,
}

impl Command {
    /// Returns the name used in the audit record.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reopen => "reopen",
            Self::Cancel => "cancel",
            Self::Archive => "archive",
            Self::RotateKey => "rotate_key",
            Self::AddKey => "add_key",
            Self::RevokeKey => "revoke_key",
            Self::Delete => "delete",
            Self::Claim => "claim",
            Self::Renew => "renew",
            Self::Release => "release",
            Self::Refused => "refused",
            Self::Sealed => "sealed",
            Self::CreateToken => "create_token",
            Self::RevokeToken => "revoke_token",
            Self::CreateWebhook => "create_webhook",
            Self::UpdateWebhook => "update_webhook",
            Self::RotateWebhookSecret => "rotate_webhook_secret",
            Self::DeleteWebhook => "delete_webhook",
            Self::TestWebhook => "test_webhook",
            Self::ReplayDelivery => "replay_delivery",
        }
    }
}

/// The result of a command, as the audit record names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuditOutcome {
    /// The command was carried out.
    Done,
    /// A rule forbade the command; nothing was changed.
    Refused(String),
    /// The state store failed; the change may or may not have been made, and the caller asks again.
    Failed(String),
}

/// One record of the audit: a command, its caller and its result. It holds no key and no token.
#[derive(Debug, Clone)]
pub(crate) struct AuditEntry<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) command: Command,
    /// `None` where the command named no livestream that exists: a refused create, a claim with an unknown key.
    pub(crate) stream: Option<StreamId>,
    /// The thing that is changed, where it is no livestream.
    pub(crate) target: Option<Target>,
    pub(crate) outcome: &'a AuditOutcome,
    /// The fields that the command changed, as they were and as they are, without secrets.
    pub(crate) change: Change,
}

/// A thing other than a livestream that a command changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An API token.
    Token(TokenId),
    /// A webhook.
    Webhook(WebhookId),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token:{id}"),
            Self::Webhook(id) => write!(f, "webhook:{id}"),
        }
    }
}

/// The state of a thing before and after a command, as far as they differ. It holds no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

/// Longest text of a field in an audit entry, in characters: enough to recognise it. A longer one is cut.
const MAX_TEXT_CHARS: usize = 200;

impl Change {
    /// Returns the fields that differ between two JSON objects; a side that is absent is `None`.
    pub(crate) fn between(before: Option<Value>, after: Option<Value>) -> Self {
        let (mut before, mut after) = (before.map(cut), after.map(cut));
        if let (Some(Value::Object(old)), Some(Value::Object(new))) = (&mut before, &mut after) {
            let same = |name: &String| old.get(name) == new.get(name);
            let same: Vec<String> = old.keys().filter(|name| same(name)).cloned().collect();
            for name in same {
                old.remove(&name);
                new.remove(&name);
            }
        }
        Self { before, after }
    }
}

/// Returns the value with its texts cut to [`MAX_TEXT_CHARS`].
fn cut(value: Value) -> Value {
    match value {
        Value::String(text) if text.chars().count() > MAX_TEXT_CHARS => {
            Value::String(text.chars().take(MAX_TEXT_CHARS).chain(['…']).collect())
        }
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, cut(value))).collect(),
        Value::Array(values) => values.into_iter().map(cut).collect(),
        value => value,
    }
}

/// Receives one entry for each command, after it was carried out, refused or failed.
pub(crate) trait Audit: Send + Sync + 'static {
    /// Records the entry without waiting.
    fn record(&self, entry: &AuditEntry<'_>);
}

/// Writes an entry to the log.
pub(super) fn log(entry: &AuditEntry<'_>) {
    let AuditEntry { caller, command, stream, target, outcome, change } = entry;
    let (who, command) = (&caller.who, command.as_str());
    let from = caller.from.map(tracing::field::display);
    let stream = stream.map(tracing::field::display);
    let target = target.as_ref().map(tracing::field::display);
    let (before, after) = (change.before.as_ref(), change.after.as_ref());
    let (before, after) = (before.map(tracing::field::display), after.map(tracing::field::display));
    match outcome {
        // Every session renews each second, and refused encoders come again: a line for each would bury the others.
        AuditOutcome::Done if matches!(entry.command, Command::Renew | Command::Refused) => {
            debug!(%who, from, command, stream, "command carried out");
        }
        AuditOutcome::Done => {
            info!(%who, from, command, stream, target, before, after, "command carried out");
        }
        AuditOutcome::Refused(reason) => {
            info!(%who, from, command, stream, target, %reason, "command refused; nothing changed");
        }
        AuditOutcome::Failed(error) => {
            warn!(%who, from, command, stream, target, %error, "command failed; the caller has to ask again");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn change_holds_the_fields_that_differ_and_cuts_long_texts() {
        let before = json!({"title": "A", "status": "live", "description": "x".repeat(300)});
        let after = json!({"title": "B", "status": "live", "description": ""});
        let change = Change::between(Some(before), Some(after.clone()));
        let cut = format!("{}…", "x".repeat(MAX_TEXT_CHARS));
        assert_eq!(change.before, Some(json!({"title": "A", "description": cut})));
        assert_eq!(change.after, Some(json!({"title": "B", "description": ""})));
        let made = Change::between(None, Some(after.clone()));
        assert_eq!((made.before, made.after), (None, Some(after)));
    }
}
