//! The error of a store operation.

/// The reason why a store operation failed. It carries no type of a client library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store has no object under this key.
    #[error("no object {key}")]
    NotFound {
        /// The key of the object.
        key: String,
    },
    /// The store is away, slow or overloaded: the same call may succeed later.
    #[error("object store unavailable: {reason}")]
    Unavailable {
        /// The observed failure, for the operator.
        reason: String,
    },
    /// The store refuses these credentials, or does not let them do this.
    #[error("object store denied access: {reason}")]
    Denied {
        /// The store's refusal in its own words.
        reason: String,
    },
    /// The request makes no sense: a bad key, a range outside the object, too large a body.
    #[error("invalid store request: {reason}")]
    Invalid {
        /// The part of the request that is invalid.
        reason: String,
    },
}

impl StoreError {
    /// True if the same call may succeed later without any change by the caller.
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
