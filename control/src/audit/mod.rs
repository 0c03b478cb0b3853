//! The audit: an entry for every command with its caller, its outcome and what it changed; in the log, and the changes in the
//! state store, where all controls share them.

mod entry;
mod writer;

pub(crate) use self::entry::{Audit, AuditEntry, AuditOutcome, Caller, Change, Command, Principal, Target};
pub(crate) use self::writer::{AuditLog, AuditWriter};
