//! The signal of a publish's end.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use millrace_wire::close_reason::CloseReason;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::source::PublishEnd;

/// Ends one publish, with the first reason given; the publisher's own end sets it, too. The node's cutoff ends every publish
/// of a node that drains.
#[derive(Debug, Clone)]
pub(crate) struct DisconnectSignal {
    token: CancellationToken,
    end: Arc<OnceLock<PublishEnd>>,
}

/// Resolves when the publish ends. It is polled beside every read, so one future stands for all causes.
pub(crate) type Disconnected = Pin<Box<WaitForCancellationFutureOwned>>;

impl DisconnectSignal {
    /// Creates a signal that also fires when `cutoff` is cancelled.
    pub(crate) fn new(cutoff: &CancellationToken) -> Self {
        Self { token: cutoff.child_token(), end: Arc::default() }
    }

    /// Ends the publish, or returns false if it has ended already.
    pub(crate) fn close(&self, end: impl Into<PublishEnd>) -> bool {
        let first = self.end.set(end.into()).is_ok();
        self.token.cancel();
        first
    }

    /// Returns the end given, or [`CloseReason::Draining`] if the cutoff fired.
    pub(crate) fn end(&self) -> PublishEnd {
        self.end.get().cloned().unwrap_or_else(|| CloseReason::Draining.into())
    }

    /// Returns true once the publish has ended.
    pub(crate) fn has_fired(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns a future that resolves when the signal fires.
    pub(crate) fn fired(&self) -> Disconnected {
        Box::pin(self.token.clone().cancelled_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn disconnect_signal_keeps_the_first_of_two_reasons() {
        let signal = DisconnectSignal::new(&CancellationToken::new());
        assert!(signal.close(CloseReason::TakenOver));
        assert!(!signal.close(CloseReason::Internal));
        signal.fired().await;
        assert_eq!(signal.end(), CloseReason::TakenOver.into());
    }

    #[tokio::test]
    async fn disconnect_signal_fires_with_draining_at_the_nodes_cutoff() {
        let cutoff = CancellationToken::new();
        let signal = DisconnectSignal::new(&cutoff);
        cutoff.cancel();
        signal.fired().await;
        assert_eq!(signal.end(), CloseReason::Draining.into());
    }
}
