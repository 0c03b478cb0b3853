//! Publishing, asking and subscribing by topic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{BusError, SharedBus};
use millrace_runtime::Metrics;
use millrace_wire::fragment::Fragmented;
use millrace_wire::topic::{self, Message, RequestTopic, Topic};

use crate::error::LinkError;
use crate::refusals::Refusals;
use crate::requests::RequestSubscription;
use crate::subscription::{FragmentSubscription, TypedSubscription};

/// A node's typed access to the bus. Cheap to clone; all clones share one counter of refused messages.
#[derive(Clone)]
pub struct Link {
    bus: SharedBus,
    refusals: Arc<Refusals>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    /// Wraps `bus` and registers the metric `link_refused_messages` in `metrics`. A node makes one link, with its own scope
    /// of the process's metrics, and clones it.
    pub fn new(bus: SharedBus, metrics: &Metrics) -> Self {
        Self { bus, refusals: Arc::new(Refusals::register(metrics)) }
    }

    /// Returns the bus below, for work queues, journals and what has no topic.
    pub fn bus(&self) -> &SharedBus {
        &self.bus
    }

    /// Returns the largest payload, in bytes, of one message on the bus.
    pub fn max_payload(&self) -> usize {
        self.bus.max_payload()
    }

    /// Publishes one message. Never waits: an error means that the message was dropped.
    pub fn publish<T: Message>(&self, topic: &Topic<T>, message: &T) -> Result<(), LinkError> {
        let name = topic.name();
        let payload = topic.encode(message).map_err(|source| LinkError::Wire { topic: name, source })?;
        self.bus.publish(topic.subject(), payload).map_err(|source| LinkError::Bus { topic: name, source })
    }

    /// Publishes one fragment of an encoded media message or fact. Never waits: an error means that the fragment was
    /// dropped, and readers repair it from the producer's replay buffer.
    pub fn publish_fragment<T: Fragmented>(&self, topic: &Topic<T>, fragment: Bytes) -> Result<(), BusError> {
        self.bus.publish(topic.subject(), fragment)
    }

    /// Sends a request and waits for the first answer. Fails at once if no node subscribes to the topic.
    pub async fn request<Q: Message, A: Message>(
        &self,
        topic: &RequestTopic<Q, A>,
        request: &Q,
        timeout: Duration,
    ) -> Result<A, LinkError> {
        let name = topic.name();
        let payload = topic::encode(request).map_err(|source| LinkError::Wire { topic: name, source })?;
        let answer = self.bus.request(topic.subject(), payload, timeout).await;
        let answer = answer.map_err(|source| LinkError::Bus { topic: name, source })?;
        topic::decode(&answer).map_err(|source| {
            self.refusals.refuse(name, &source);
            LinkError::Wire { topic: name, source }
        })
    }

    /// Sends a request and collects answers until `wait` is over or there are `max` of them. No answer gives an empty list;
    /// refused answers are left out.
    pub async fn gather<Q: Message, A: Message>(
        &self,
        topic: &RequestTopic<Q, A>,
        request: &Q,
        wait: Duration,
        max: usize,
    ) -> Result<Vec<A>, LinkError> {
        let name = topic.name();
        let payload = topic::encode(request).map_err(|source| LinkError::Wire { topic: name, source })?;
        let answers = self.bus.gather(topic.subject(), payload, wait, max).await;
        let answers = answers.map_err(|source| LinkError::Bus { topic: name, source })?;
        Ok(answers.iter().filter_map(|answer| self.refusals.accept(name, topic::decode(answer))).collect())
    }

    /// Subscribes to the JSON messages of a topic; at most `capacity` of them wait.
    pub async fn subscribe<T: Message>(
        &self,
        topic: &Topic<T>,
        capacity: usize,
    ) -> Result<TypedSubscription<T>, BusError> {
        let subscription = self.bus.subscribe(topic.subject(), capacity).await?;
        Ok(TypedSubscription::new(self.refusals.clone(), topic.name(), subscription))
    }

    /// Subscribes to media messages or facts; at most `capacity` fragments wait.
    pub async fn subscribe_fragments<T: Fragmented>(
        &self,
        topic: &Topic<T>,
        capacity: usize,
    ) -> Result<FragmentSubscription<T>, BusError> {
        let subscription = self.bus.subscribe(topic.subject(), capacity).await?;
        Ok(FragmentSubscription::new(self.refusals.clone(), topic.name(), subscription))
    }

    /// Subscribes to the requests of a topic. Every subscriber gets each request; the asker takes the first answer, or
    /// gathers several.
    pub async fn respond<Q: Message, A: Message>(
        &self,
        topic: &RequestTopic<Q, A>,
        capacity: usize,
    ) -> Result<RequestSubscription<Q, A>, BusError> {
        let subscription = self.bus.subscribe(topic.subject(), capacity).await?;
        Ok(RequestSubscription::new(self.bus.clone(), self.refusals.clone(), topic.name(), subscription))
    }

    /// Subscribes to the requests of a topic as a member of the queue group `group`: each request goes to one member.
    pub async fn serve<Q: Message, A: Message>(
        &self,
        topic: &RequestTopic<Q, A>,
        group: &str,
        capacity: usize,
    ) -> Result<RequestSubscription<Q, A>, BusError> {
        let subscription = self.bus.queue_subscribe(topic.subject(), group, capacity).await?;
        Ok(RequestSubscription::new(self.bus.clone(), self.refusals.clone(), topic.name(), subscription))
    }

    /// Decodes a message of `topic` that came another way than through a subscription (a work queue, a journal). A message
    /// that is refused is counted and logged like any other, and gives `None`.
    pub fn decode<T: Message>(&self, topic: &Topic<T>, bytes: &[u8]) -> Option<T> {
        self.refusals.accept(topic.name(), topic.decode(bytes))
    }
}
