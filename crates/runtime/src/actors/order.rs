//! The orders that an actor's loop carries out, and the queue in which they reach it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Orders that wait for one loop. Operators give them one at a time; a loop that has not taken this many is stuck, and
/// the next order is refused as busy.
pub(super) const ORDERS_CAPACITY: usize = 8;

/// A loop must accept or refuse a kick or a reload within this time: both take effect at its next turn.
const ORDER_LIMIT: Duration = Duration::from_secs(2);

/// A loop must accept a drain within this time. It accepts when it begins to drain, not when it has finished.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// An order to an actor; its loop carries it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Closes the connection, session or job now, as an operator's decision.
    Kick {
        /// The reason, shown to the peer and in the log.
        reason: String,
    },
    /// Finishes the work it holds, takes no more of it, and ends.
    Drain,
    /// Reads settings or keys again.
    Reload,
}

impl Order {
    /// Returns the name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kick { .. } => "kick",
            Self::Drain => "drain",
            Self::Reload => "reload",
        }
    }

    /// Returns the time within which the loop has to accept or refuse the order.
    pub fn limit(&self) -> Duration {
        match self {
            Self::Kick { .. } | Self::Reload => ORDER_LIMIT,
            Self::Drain => DRAIN_LIMIT,
        }
    }
}

/// The reason why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No actor of that kind and id is registered.
    #[error("no actor {kind}/{id}")]
    NotFound {
        /// The kind that was asked for.
        kind: String,
        /// The id that was asked for.
        id: String,
    },
    /// The actor's loop does not take this order.
    #[error("the actor does not support this order")]
    NotSupported,
    /// The loop refused the order.
    #[error("refused: {0}")]
    Refused(String),
    /// The loop has failed and waits for its restart.
    #[error("the actor is waiting for its restart")]
    Restarting,
    /// Too many orders wait for the loop already.
    #[error("too many orders wait for the actor")]
    Busy,
    /// The loop neither accepted nor refused in time. It may still carry the order out.
    #[error("the actor did not answer in time; the order may still be carried out")]
    TimedOut,
    /// The actor ended before it answered.
    #[error("the actor ended before it answered")]
    Ended,
}

/// The orders that reach one loop, in the order of their arrival.
#[derive(Debug)]
pub struct Orders(mpsc::Receiver<Delivery>);

impl Orders {
    pub(super) fn channel() -> (mpsc::Sender<Delivery>, Self) {
        let (sender, receiver) = mpsc::channel(ORDERS_CAPACITY);
        (sender, Self(receiver))
    }

    /// Waits for the next order. Cancel safe. Pends for ever once the actor is replaced or gone, so that a `select!`
    /// need not handle it.
    pub async fn recv(&mut self) -> ReceivedOrder {
        match self.0.recv().await {
            Some(Delivery { order, reply }) => ReceivedOrder { order, reply: Some(reply) },
            None => std::future::pending().await,
        }
    }
}

/// An order on its way to a loop. Dropped there unread, it answers [`OrderError::Ended`].
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) order: Order,
    pub(super) reply: oneshot::Sender<Result<(), OrderError>>,
}

/// An order that a loop has taken. Dropping it without an answer answers [`OrderError::NotSupported`].
#[derive(Debug)]
pub struct ReceivedOrder {
    order: Order,
    reply: Option<oneshot::Sender<Result<(), OrderError>>>,
}

impl ReceivedOrder {
    /// Returns the order that was received.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Answers that the order is accepted and being carried out.
    pub fn accept(mut self) {
        self.answer(Ok(()));
    }

    /// Answers that the order is refused, with the reason.
    pub fn refuse(mut self, reason: impl Into<String>) {
        self.answer(Err(OrderError::Refused(reason.into())));
    }

    fn answer(&mut self, result: Result<(), OrderError>) {
        if let Some(reply) = self.reply.take() {
            // The asker may have given up waiting.
            let _ = reply.send(result);
        }
    }
}

impl Drop for ReceivedOrder {
    fn drop(&mut self) {
        self.answer(Err(OrderError::NotSupported));
    }
}
