//! Why a bus operation failed.

/// Why a bus operation failed. Carries no client library's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The server is away; the client keeps reconnecting.
    #[error("bus is disconnected")]
    Disconnected,
    /// Nothing answered within the time limit.
    #[error("no answer from {what} within the time limit")]
    Timeout {
        /// The subject or queue.
        what: String,
    },
    /// Nobody subscribes to the request's subject.
    #[error("nobody listens on {subject}")]
    NoResponders {
        /// The request's subject.
        subject: String,
    },
    /// The payload does not fit one message.
    #[error("payload of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// The payload's size in bytes.
        size: usize,
        /// The transport's limit in bytes.
        limit: usize,
    },
    /// Not a valid subject, pattern, group or queue name.
    #[error("invalid subject or name {subject:?}")]
    InvalidSubject {
        /// What was given.
        subject: String,
    },
    /// The outgoing buffer is full; the message was dropped.
    #[error("outgoing buffer is full")]
    Overflow,
    /// The queue was not declared.
    #[error("unknown queue {queue}")]
    UnknownQueue {
        /// The queue's name.
        queue: String,
    },
    /// The journal, or its reader, was not declared.
    #[error("unknown journal or reader {name}")]
    UnknownJournal {
        /// The name of the journal or its reader.
        name: String,
    },
    /// The queue holds as many jobs as it may.
    #[error("queue {queue} is full")]
    QueueFull {
        /// The queue's name.
        queue: String,
    },
    /// The bus was shut down.
    #[error("bus is closed")]
    Closed,
    /// Something else the server or client said.
    #[error("bus: {0}")]
    Other(String),
}

impl BusError {
    /// Whether the same call may succeed later without any change by the caller.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Disconnected
                | Self::Timeout { .. }
                | Self::NoResponders { .. }
                | Self::Overflow
                | Self::QueueFull { .. }
                | Self::Other(_)
        )
    }
}
