//! The end of a connection that its peer has not asked for.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use millrace_wire::close_reason::CloseReason;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Ends one publisher's connection, with the first reason given. The node's cutoff ends them all: it is draining.
#[derive(Debug, Clone)]
pub(crate) struct Closing {
    token: CancellationToken,
    reason: Arc<OnceLock<CloseReason>>,
}

/// Resolves when the connection is to end. Polled with every read, so it is one future for all that may end it.
pub(crate) type Closed = Pin<Box<WaitForCancellationFutureOwned>>;

impl Closing {
    pub(crate) fn new(cutoff: &CancellationToken) -> Self {
        Self { token: cutoff.child_token(), reason: Arc::default() }
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        // One came before: it is closing already.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    pub(crate) fn reason(&self) -> CloseReason {
        self.reason.get().copied().unwrap_or(CloseReason::Draining)
    }

    pub(crate) fn closed(&self) -> Closed {
        Box::pin(self.token.clone().cancelled_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_counts() {
        let closing = Closing::new(&CancellationToken::new());
        closing.close(CloseReason::TakenOver);
        closing.close(CloseReason::Internal);
        closing.closed().await;
        assert_eq!(closing.reason(), CloseReason::TakenOver);
    }

    #[tokio::test]
    async fn the_nodes_cutoff_ends_it_as_well() {
        let cutoff = CancellationToken::new();
        let closing = Closing::new(&cutoff);
        cutoff.cancel();
        closing.closed().await;
        assert_eq!(closing.reason(), CloseReason::Draining);
    }
}
