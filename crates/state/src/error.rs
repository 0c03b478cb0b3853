//! Why a state operation failed.

/// Why a state operation failed. Carries no client library's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A check did not hold: somebody else changed this record. Nothing was changed.
    #[error("conflict on {key}")]
    Conflict {
        /// The first record whose check failed.
        key: String,
    },
    /// The store is away or slow. A commit may or may not have been made.
    #[error("state store unavailable: {reason}")]
    Unavailable {
        /// What was seen.
        reason: String,
    },
    /// The request makes no sense: a bad key, too large a transaction.
    #[error("invalid state request: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The store holds something this version can't read.
    #[error("corrupt state: {reason}")]
    Corrupt {
        /// What was found.
        reason: String,
    },
}

impl StateError {
    /// Whether the same call may succeed later; a conflict needs a fresh read first.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
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
