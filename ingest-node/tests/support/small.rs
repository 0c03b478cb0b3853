//! The in-process bus with a small `max_payload`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millrace_bus::{Bus, BusError, BusStats, Job, MemBus, QueueConfig, QueueDepth, SharedBus, Subscription};
use tokio::sync::watch;

pub struct SmallBus {
    inner: MemBus,
    limit: usize,
}

impl SmallBus {
    pub fn shared(limit: usize) -> SharedBus {
        Arc::new(Self { inner: MemBus::new(), limit })
    }
}

#[async_trait]
impl Bus for SmallBus {
    fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        if payload.len() > self.limit {
            return Err(BusError::TooLarge { size: payload.len(), limit: self.limit });
        }
        self.inner.publish(subject, payload)
    }
    fn publish_with_reply(&self, subject: &str, reply: &str, payload: Bytes) -> Result<(), BusError> {
        self.inner.publish_with_reply(subject, reply, payload)
    }
    async fn subscribe(&self, pattern: &str, capacity: usize) -> Result<Subscription, BusError> {
        self.inner.subscribe(pattern, capacity).await
    }
    async fn queue_subscribe(
        &self,
        pattern: &str,
        group: &str,
        capacity: usize,
    ) -> Result<Subscription, BusError> {
        self.inner.queue_subscribe(pattern, group, capacity).await
    }
    async fn request(&self, subject: &str, payload: Bytes, timeout: Duration) -> Result<Bytes, BusError> {
        self.inner.request(subject, payload, timeout).await
    }
    fn new_inbox(&self) -> String {
        self.inner.new_inbox()
    }
    async fn queue_declare(&self, config: &QueueConfig) -> Result<(), BusError> {
        self.inner.queue_declare(config).await
    }
    async fn queue_push(&self, queue: &str, id: &str, payload: Bytes) -> Result<bool, BusError> {
        self.inner.queue_push(queue, id, payload).await
    }
    async fn queue_pull(&self, queue: &str, wait: Duration) -> Result<Option<Job>, BusError> {
        self.inner.queue_pull(queue, wait).await
    }
    async fn queue_depth(&self, queue: &str) -> Result<QueueDepth, BusError> {
        self.inner.queue_depth(queue).await
    }
    fn max_payload(&self) -> usize {
        self.limit
    }
    fn connected(&self) -> watch::Receiver<bool> {
        self.inner.connected()
    }
    async fn loopback(&self, timeout: Duration) -> Result<Duration, BusError> {
        self.inner.loopback(timeout).await
    }
    fn stats(&self) -> BusStats {
        self.inner.stats()
    }
}
