//! The error of a bus operation.

/// The reason why a bus operation failed. It carries no type of a client library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The server is away; the client keeps reconnecting.
    #[error("bus is disconnected")]
    Disconnected,
    /// Nothing answered within the time limit.
    #[error("no answer from {what} within the time limit")]
    Timeout {
        /// The subject or queue that was used.
        what: String,
    },
    /// The request's subject has no subscriber.
    #[error("{subject} has no subscriber")]
    NoResponders {
        /// The subject of the request.
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
        /// The invalid subject or name as given.
        subject: String,
    },
    /// The outgoing buffer is full; the message was dropped.
    #[error("outgoing buffer is full")]
    Overflow,
    /// The queue was not declared.
    #[error("unknown queue {queue}")]
    UnknownQueue {
        /// The name of the queue.
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
        /// The name of the queue.
        queue: String,
    },
    /// The bus was shut down.
    #[error("bus is closed")]
    Closed,
    /// Another error of the server or the client library, in its own words.
    #[error("bus: {0}")]
    Other(String),
}

impl BusError {
    /// True if the same call may succeed later without any change by the caller.
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
