//! The audit: a record of every command with its caller and its outcome.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use millrace_wire::ids::{Epoch, Generation, NodeId, SessionId, StreamId};
use tracing::{debug, info, warn};

use crate::domain::access::{Identity, Owner};

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

/// The commands that change a livestream or its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Command {
    Create,
    Update,
    Start,
    Stop,
    Cancel,
    Archive,
    RotateKey,
    Delete,
    Claim,
    Renew,
    Release,
    Refused,
    Sealed,
}

impl Command {
    /// Returns the name used in the audit record.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Cancel => "cancel",
            Self::Archive => "archive",
            Self::RotateKey => "rotate_key",
            Self::Delete => "delete",
            Self::Claim => "claim",
            Self::Renew => "renew",
            Self::Release => "release",
            Self::Refused => "refused",
            Self::Sealed => "sealed",
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
    pub(crate) outcome: &'a AuditOutcome,
}

/// Receives one entry for each command, after it was carried out, refused or failed.
pub(crate) trait Audit: Send + Sync + 'static {
    /// Records the entry without waiting.
    fn record(&self, entry: &AuditEntry<'_>);
}

/// Writes the audit to the log.
pub(crate) struct LogAudit;

impl Audit for LogAudit {
    fn record(&self, entry: &AuditEntry<'_>) {
        let AuditEntry { caller, command, stream, outcome } = entry;
        let (who, command) = (&caller.who, command.as_str());
        let from = caller.from.map(tracing::field::display);
        let stream = stream.map(tracing::field::display);
        match outcome {
            // Every session renews each second, and refused encoders come again: a line for each would bury the others.
            AuditOutcome::Done if matches!(entry.command, Command::Renew | Command::Refused) => {
                debug!(%who, from, command, stream, "command carried out");
            }
            AuditOutcome::Done => info!(%who, from, command, stream, "command carried out"),
            AuditOutcome::Refused(reason) => {
                info!(%who, from, command, stream, %reason, "command refused; nothing changed");
            }
            AuditOutcome::Failed(error) => {
                warn!(%who, from, command, stream, %error, "command failed; the caller has to ask again");
            }
        }
    }
}
