//! The error of a state operation.

/// The reason why a state operation failed. It carries no type of a client library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A check did not hold because the record changed meanwhile. The transaction changed nothing.
    #[error("conflict on {key}")]
    Conflict {
        /// The first record whose check failed.
        key: String,
    },
    /// The store is away or slow. A commit may or may not have been made.
    #[error("state store unavailable: {reason}")]
    Unavailable {
        /// The observed failure, for the operator.
        reason: String,
    },
    /// The store answers reads and takes no changes: its disk is full or read-only, or its memory is used up. The transaction
    /// changed nothing that a reader sees.
    #[error("state store takes no changes: {reason}")]
    NotWritable {
        /// The observed failure, for the operator.
        reason: String,
    },
    /// The request makes no sense: a bad key, too large a transaction.
    #[error("invalid state request: {reason}")]
    Invalid {
        /// The part of the request that is invalid.
        reason: String,
    },
    /// The store holds something this version can't read.
    #[error("corrupt state: {reason}")]
    Corrupt {
        /// The content that was found in its place.
        reason: String,
    },
}

impl StateError {
    /// True if the same call may succeed later; a conflict needs a fresh read first.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::NotWritable { .. })
    }

    pub(crate) fn unavailable(reason: impl std::fmt::Display) -> Self {
        Self::Unavailable { reason: format!("{reason}") }
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    pub(crate) fn corrupt(reason: impl std::fmt::Display) -> Self {
        Self::Corrupt { reason: format!("{reason}") }
    }
}
