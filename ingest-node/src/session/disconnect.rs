//! The signal that ends a publish for another reason than its publisher's will.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use millrace_wire::close_reason::CloseReason;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Disconnects one publisher, with the first reason given. The node's cutoff disconnects every publisher of a node that
/// drains.
#[derive(Debug, Clone)]
pub(crate) struct DisconnectSignal {
    token: CancellationToken,
    reason: Arc<OnceLock<CloseReason>>,
}

/// Resolves when the publisher is to be disconnected. It is polled beside every read, so one future stands for all
/// causes.
pub(crate) type Disconnected = Pin<Box<WaitForCancellationFutureOwned>>;

impl DisconnectSignal {
    /// Creates a signal that also fires when `cutoff` is cancelled.
    pub(crate) fn new(cutoff: &CancellationToken) -> Self {
        Self { token: cutoff.child_token(), reason: Arc::default() }
    }

    /// Disconnects the publisher; a second reason changes nothing.
    pub(crate) fn close(&self, reason: CloseReason) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Returns the reason given, or [`CloseReason::Draining`] if the cutoff fired.
    pub(crate) fn reason(&self) -> CloseReason {
        self.reason.get().copied().unwrap_or(CloseReason::Draining)
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
        signal.close(CloseReason::TakenOver);
        signal.close(CloseReason::Internal);
        signal.fired().await;
        assert_eq!(signal.reason(), CloseReason::TakenOver);
    }

    #[tokio::test]
    async fn disconnect_signal_fires_with_draining_at_the_nodes_cutoff() {
        let cutoff = CancellationToken::new();
        let signal = DisconnectSignal::new(&cutoff);
        cutoff.cancel();
        signal.fired().await;
        assert_eq!(signal.reason(), CloseReason::Draining);
    }
}
