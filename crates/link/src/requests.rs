//! The answering side of request topics.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use millrace_bus::{Message as BusMessage, SharedBus, Subscription};
use millrace_wire::topic::{self, Message};

use crate::refusals::Refusals;

/// One received request of type `Q`, to be answered with an `A`.
pub struct Request<Q, A> {
    /// The request as it was received.
    pub message: Q,
    bus: SharedBus,
    topic: &'static str,
    subject: Arc<str>,
    reply: Option<Arc<str>>,
    answer: PhantomData<fn(&A)>,
}

impl<Q, A: Message> Request<Q, A> {
    /// Returns the subject that the request was published on; where the subscription has a pattern, the
    /// subject identifies the stream.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Sends the answer. Never waits: an answer that is lost is asked for again by every asker of this system.
    pub fn respond(&self, answer: &A) {
        let Some(reply) = &self.reply else { return };
        let payload = match topic::encode(answer) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(topic = self.topic, %error, "answer not encoded; the request stays unanswered");
                return;
            }
        };
        if let Err(error) = self.bus.respond(reply, payload) {
            tracing::debug!(topic = self.topic, %error, "answer not sent; the asker repeats its request");
        }
    }
}

impl<Q: std::fmt::Debug, A> std::fmt::Debug for Request<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("subject", &self.subject)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// The requests of one topic. Dropping it unsubscribes.
pub struct RequestSubscription<Q, A> {
    bus: SharedBus,
    refusals: Arc<Refusals>,
    topic: &'static str,
    inner: Subscription,
    exchange: PhantomData<fn(Q) -> A>,
}

impl<Q: Message, A: Message> RequestSubscription<Q, A> {
    pub(crate) fn new(
        bus: SharedBus,
        refusals: Arc<Refusals>,
        topic: &'static str,
        inner: Subscription,
    ) -> Self {
        Self { bus, refusals, topic, inner, exchange: PhantomData }
    }

    /// Waits for the next request; `None` once the bus is closed. Cancel safe.
    pub async fn recv(&mut self) -> Option<Request<Q, A>> {
        loop {
            let message = self.inner.recv().await?;
            if let Some(request) = self.read(message) {
                return Some(request);
            }
        }
    }

    fn read(&self, BusMessage { payload, subject, reply, .. }: BusMessage) -> Option<Request<Q, A>> {
        let message = self.refusals.accept(self.topic, topic::decode(&payload))?;
        Some(Request {
            message,
            bus: self.bus.clone(),
            topic: self.topic,
            subject,
            reply,
            answer: PhantomData,
        })
    }
}

/// Yields the same requests as [`RequestSubscription::recv`], for a task that merges many subscriptions.
impl<Q: Message, A: Message> Stream for RequestSubscription<Q, A> {
    type Item = Request<Q, A>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Request<Q, A>>> {
        loop {
            let Some(message) = ready!(Pin::new(&mut self.inner).poll_next(context)) else {
                return Poll::Ready(None);
            };
            if let Some(request) = self.read(message) {
                return Poll::Ready(Some(request));
            }
        }
    }
}

impl<Q, A> std::fmt::Debug for RequestSubscription<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestSubscription")
            .field("topic", &self.topic)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
