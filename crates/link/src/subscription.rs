//! Subscriptions that yield typed messages. A message that is refused never leaves a subscription.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use millrace_bus::{Message as BusMessage, Subscription};
use millrace_wire::fragment::{FragmentReader, Fragmented};
use millrace_wire::topic::{self, Message};

use crate::refusals::Refusals;

/// The JSON messages of one topic, in the order of each publisher. Dropping it unsubscribes.
pub struct TypedSubscription<T> {
    refusals: Arc<Refusals>,
    topic: &'static str,
    inner: Subscription,
    message: PhantomData<fn() -> T>,
}

impl<T: Message> TypedSubscription<T> {
    pub(crate) fn new(refusals: Arc<Refusals>, topic: &'static str, inner: Subscription) -> Self {
        Self { refusals, topic, inner, message: PhantomData }
    }

    /// Waits for the next message; `None` once the bus is closed. Cancel safe.
    pub async fn recv(&mut self) -> Option<T> {
        loop {
            let message = self.inner.recv().await?;
            if let Some(read) = self.refusals.accept(self.topic, topic::decode(&message.payload)) {
                return Some(read);
            }
        }
    }

    /// Returns the number of messages lost because this subscription was full.
    pub fn dropped(&self) -> u64 {
        self.inner.dropped()
    }
}

/// Yields the same messages as [`TypedSubscription::recv`], for a task that merges many subscriptions.
impl<T: Message> Stream for TypedSubscription<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            let Some(message) = ready!(Pin::new(&mut self.inner).poll_next(context)) else {
                return Poll::Ready(None);
            };
            if let Some(read) = self.refusals.accept(self.topic, topic::decode(&message.payload)) {
                return Poll::Ready(Some(read));
            }
        }
    }
}

impl<T> std::fmt::Debug for TypedSubscription<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TypedSubscription")
            .field("topic", &self.topic)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

/// The media messages or facts of one topic, reassembled from their fragments. Dropping it unsubscribes.
pub struct FragmentSubscription<T> {
    refusals: Arc<Refusals>,
    topic: &'static str,
    inner: Subscription,
    reader: FragmentReader<T>,
    /// Received fragments that are not decoded yet; empty between calls, kept for its memory.
    batch: Vec<BusMessage>,
}

impl<T: Fragmented> FragmentSubscription<T> {
    pub(crate) fn new(refusals: Arc<Refusals>, topic: &'static str, inner: Subscription) -> Self {
        Self { refusals, topic, inner, reader: FragmentReader::default(), batch: Vec::new() }
    }

    /// Waits for at least one fragment, takes up to `limit` of them at once and appends the messages they complete to
    /// `out`. Returns the number of fragments taken; 0 once the bus is closed. Cancel safe.
    pub async fn recv_many(&mut self, out: &mut Vec<T>, limit: usize) -> usize {
        let taken = self.inner.recv_many(&mut self.batch, limit).await;
        for message in self.batch.drain(..) {
            let read = self.reader.push(message.payload).map_err(Into::into);
            out.extend(self.refusals.accept(self.topic, read).flatten());
        }
        taken
    }

    /// Returns the number of fragments lost because this subscription was full.
    pub fn dropped(&self) -> u64 {
        self.inner.dropped()
    }

    /// Returns the number of fragments that wait to be taken.
    pub fn waiting(&self) -> usize {
        self.inner.waiting()
    }
}

impl<T> std::fmt::Debug for FragmentSubscription<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FragmentSubscription")
            .field("topic", &self.topic)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
