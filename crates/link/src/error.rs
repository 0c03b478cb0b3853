//! The reasons an exchange over the bus failed.

use millrace_bus::BusError;
use millrace_wire::WireError;
use thiserror::Error;

/// A message was not exchanged.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The bus did not take the message, or no answer came.
    #[error("{topic}: {source}")]
    Bus {
        /// Name of the topic, without ids.
        topic: &'static str,
        /// The error that the bus returned.
        source: BusError,
    },
    /// The message could not be encoded, or the answer was refused.
    #[error("{topic}: {source}")]
    Wire {
        /// Name of the topic, without ids.
        topic: &'static str,
        /// The rule of the wire format that is broken.
        source: WireError,
    },
}

impl LinkError {
    /// True if the same call may succeed later without any change by the caller: the bus or the answering node is away.
    /// A refused answer is final: its sender runs another release.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Bus { source, .. } => source.is_retryable(),
            Self::Wire { .. } => false,
        }
    }

    /// Returns a label with a bounded set of values for a metric of failed publishes.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Bus { source, .. } => bus_error_label(source),
            Self::Wire { .. } => "encoding",
        }
    }
}

/// Returns a label with a bounded set of values for an error of the bus.
pub(crate) fn bus_error_label(error: &BusError) -> &'static str {
    match error {
        BusError::Disconnected => "disconnected",
        BusError::Overflow => "overflow",
        BusError::TooLarge { .. } => "too_large",
        BusError::Closed => "closed",
        _ => "other",
    }
}
