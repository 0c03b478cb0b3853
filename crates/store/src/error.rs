//! Why a store operation failed.

/// Why a store operation failed. Carries no client library's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No such object.
    #[error("no object {key}")]
    NotFound {
        /// The object's key.
        key: String,
    },
    /// The store is away, slow or overloaded: the same call may succeed later.
    #[error("object store unavailable: {reason}")]
    Unavailable {
        /// What was seen.
        reason: String,
    },
    /// The store refuses these credentials, or does not let them do this.
    #[error("object store denied access: {reason}")]
    Denied {
        /// What the store said.
        reason: String,
    },
    /// The request makes no sense: a bad key, a range outside the object, too large a body.
    #[error("invalid store request: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without any change by the caller.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }

    pub(crate) fn not_found(key: &str) -> Self {
        Self::NotFound { key: key.to_owned() }
    }
}
