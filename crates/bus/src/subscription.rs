//! A subscription: the bounded queue of messages that one subscriber receives from.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;

/// One message as a subscriber receives it.
#[derive(Debug, Clone)]
pub struct Message {
    /// The subject it was published on.
    pub subject: Arc<str>,
    /// Its payload, shared with every other subscriber in this process.
    pub payload: Bytes,
    /// The subject on which an answer is awaited; [`crate::Bus::respond`] takes it.
    pub reply: Option<Arc<str>>,
    /// True for the server's notice that a request's subject has no subscriber; ordinary subscribers never
    /// receive one.
    pub(crate) no_responders: bool,
}

impl Message {
    pub(crate) fn new(subject: Arc<str>, payload: Bytes, reply: Option<Arc<str>>) -> Self {
        Self { subject, payload, reply, no_responders: false }
    }
}

/// Runs when the subscription is dropped.
pub(crate) type OnDrop = Box<dyn FnOnce() + Send + Sync>;

/// A bounded stream of messages; dropping it unsubscribes.
pub struct Subscription {
    receiver: mpsc::Receiver<Message>,
    dropped: Arc<AtomicU64>,
    on_drop: Option<OnDrop>,
}

impl Subscription {
    pub(crate) fn new(receiver: mpsc::Receiver<Message>, dropped: Arc<AtomicU64>, on_drop: OnDrop) -> Self {
        Self { receiver, dropped, on_drop: Some(on_drop) }
    }

    /// The next message; `None` once the bus is closed. Cancel safe.
    pub async fn recv(&mut self) -> Option<Message> {
        self.receiver.recv().await
    }

    /// The next message if one is waiting.
    pub fn try_recv(&mut self) -> Option<Message> {
        self.receiver.try_recv().ok()
    }

    /// Waits for at least one message and appends up to `limit` to `out`; 0 once the bus is closed.
    pub async fn recv_many(&mut self, out: &mut Vec<Message>, limit: usize) -> usize {
        self.receiver.recv_many(out, limit).await
    }

    /// Returns how many messages were lost because this subscription was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Returns how many messages wait to be received.
    pub fn waiting(&self) -> usize {
        self.receiver.len()
    }
}

/// The same messages as [`Subscription::recv`], for those who listen to many subscriptions at once.
impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.receiver.poll_recv(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(on_drop) = self.on_drop.take() {
            on_drop();
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("waiting", &self.receiver.len())
            .field("dropped", &self.dropped())
            .finish_non_exhaustive()
    }
}

/// The sending side of a [`Subscription`]: full means drop and count.
#[derive(Clone)]
pub(crate) struct Sink {
    sender: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
}

/// The outcome of handing a message to a [`Sink`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Taken,
    Full,
    Gone,
}

impl Sink {
    /// A sink and what its subscription is made of.
    pub(crate) fn channel(capacity: usize) -> (Self, mpsc::Receiver<Message>, Arc<AtomicU64>) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let dropped = Arc::new(AtomicU64::new(0));
        (Self { sender, dropped: dropped.clone() }, receiver, dropped)
    }

    pub(crate) fn deliver(&self, message: Message) -> Delivery {
        match self.sender.try_send(message) {
            Ok(()) => Delivery::Taken,
            Err(mpsc::error::TrySendError::Closed(_)) => Delivery::Gone,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                Delivery::Full
            }
        }
    }
}
