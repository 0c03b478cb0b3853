//! The bus: publish/subscribe, request/reply, work queues and journals behind one trait.
//!
//! Three implementations share one conformance suite:
//! * [`NatsBus`]: a NATS cluster (nats-server 2.9 and newer), core subjects for media, JetStream for work and facts;
//! * [`MemBus`]: the same semantics inside one process, payloads shared by reference;
//! * [`FaultyBus`]: a wrapper that loses, delays, doubles and reorders by seed, for tests.
//!
//! What every implementation promises:
//! * [`Bus::publish`] never waits. What can't be handed over now is dropped and counted: the producers of
//!   media keep a ring and consumers repair gaps from it, so waiting would only stall the encoder.
//! * A subscription holds at most the caller's `capacity` messages. A consumer that falls further behind
//!   loses the newest messages, counted in [`Subscription::dropped`]; neither the publisher nor any other
//!   subscription notices.
//! * Messages of one publisher on one subject arrive in order, each at most once.
//! * When [`Bus::subscribe`] has returned, messages published afterwards reach the subscription.
//! * A work queue delivers at least once: a job that is neither acknowledged nor kept alive within its
//!   `ack_wait` is delivered again.
//! * A journal keeps what it has acknowledged, within its limits, and delivers it to each reader at least once.
#![forbid(unsafe_code)]

mod error;
mod faulty;
mod journal;
mod mem;
mod nats;
mod queue;
mod subject;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

pub use error::BusError;
pub use faulty::{FaultPlan, FaultyBus};
pub use journal::{
    DEDUP_WINDOW, JournalConfig, JournalEntry, JournalRecord, JournalWriter, MAX_AGE, MAX_BYTES,
    MAX_MESSAGES, Outcome, ReaderConfig,
};
pub use mem::{MEM_MAX_PAYLOAD, MemBus};
pub use nats::{NatsBus, NatsConfig};
pub use queue::{Job, JobControl, QueueConfig, QueueDepth};
pub use subscription::{Message, Subscription};

/// A bus shared by the parts of a node.
pub type SharedBus = Arc<dyn Bus>;

/// Counters since the bus was made; all only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BusStats {
    /// Messages handed to the transport.
    pub published: u64,
    /// Publishes dropped because the transport was away.
    pub dropped_disconnected: u64,
    /// Publishes dropped because the transport's outgoing buffer was full.
    pub dropped_overflow: u64,
    /// Received messages dropped because their subscription was full.
    pub slow_consumer: u64,
    /// Times a lost connection was made again.
    pub reconnects: u64,
}

/// Publish/subscribe, request/reply, work queues and journals.
///
/// Subjects are NATS subjects: tokens separated by `.`; in patterns `*` matches one token and a last `>`
/// matches one or more.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Sends `payload` to every subscription that matches `subject`, and to one member of each queue group.
    ///
    /// Never waits: an error means that the message was dropped (and counted), not that it may arrive later.
    fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError>;

    /// As [`Bus::publish`], naming a subject on which answers are awaited (see [`Bus::new_inbox`]).
    fn publish_with_reply(&self, subject: &str, reply: &str, payload: Bytes) -> Result<(), BusError>;

    /// Receives what is published on subjects that match `pattern`, holding at most `capacity` messages.
    async fn subscribe(&self, pattern: &str, capacity: usize) -> Result<Subscription, BusError>;

    /// As [`Bus::subscribe`], but each message goes to one member of `group` only.
    async fn queue_subscribe(
        &self,
        pattern: &str,
        group: &str,
        capacity: usize,
    ) -> Result<Subscription, BusError>;

    /// Sends `payload` and waits for the first answer; fails at once with [`BusError::NoResponders`] if the
    /// subject has no subscriber.
    async fn request(&self, subject: &str, payload: Bytes, timeout: Duration) -> Result<Bytes, BusError>;

    /// Answers a request: `reply` is [`Message::reply`]. Never waits.
    fn respond(&self, reply: &str, payload: Bytes) -> Result<(), BusError> {
        self.publish(reply, payload)
    }

    /// Sends `payload` and collects answers until `wait` is over or there are `max` of them.
    ///
    /// No answer is an empty list, not an error.
    async fn gather(
        &self,
        subject: &str,
        payload: Bytes,
        wait: Duration,
        max: usize,
    ) -> Result<Vec<Bytes>, BusError> {
        let inbox = self.new_inbox();
        let mut replies = self.subscribe(&inbox, max.max(1)).await?;
        let deadline = tokio::time::Instant::now() + wait;
        self.publish_with_reply(subject, &inbox, payload)?;
        let mut out = Vec::new();
        while out.len() < max {
            match tokio::time::timeout_at(deadline, replies.recv()).await {
                Ok(Some(message)) if message.no_responders => break,
                Ok(Some(message)) => out.push(message.payload),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(out)
    }

    /// A fresh subject for answers to this process.
    fn new_inbox(&self) -> String;

    /// Makes sure the work queue exists with these settings. Calling it again is harmless.
    async fn queue_declare(&self, config: &QueueConfig) -> Result<(), BusError>;

    /// Appends a job durably. `false`: a job with this `id` was accepted within the queue's dedup window.
    async fn queue_push(&self, queue: &str, id: &str, payload: Bytes) -> Result<bool, BusError>;

    /// Takes the next job, waiting up to `wait` for one. Survives a lost connection while waiting.
    async fn queue_pull(&self, queue: &str, wait: Duration) -> Result<Option<Job>, BusError>;

    /// Returns how many jobs wait, and how many are out with a worker.
    async fn queue_depth(&self, queue: &str) -> Result<QueueDepth, BusError>;

    /// Makes sure the journal exists with these settings. Calling it again is harmless.
    async fn journal_declare(&self, config: &JournalConfig) -> Result<(), BusError>;

    /// Publishes a fact to the subscribers of `subject` and appends it to the journal; returns when the
    /// journal has acknowledged it, or an attempt of a few seconds has failed: the fact may be kept all the
    /// same, and saying it again with the same `id` does no harm. `false`: a fact with this `id` was kept
    /// within the journal's dedup window.
    async fn journal_append(
        &self,
        journal: &str,
        subject: &str,
        id: &str,
        payload: Bytes,
    ) -> Result<bool, BusError>;

    /// Makes sure the journal has this reader; a new one begins with the oldest fact kept.
    async fn journal_reader(&self, journal: &str, reader: &ReaderConfig) -> Result<(), BusError>;

    /// The reader's next fact, waiting up to `wait` for one. Survives a lost connection while waiting.
    async fn journal_next(
        &self,
        journal: &str,
        reader: &str,
        wait: Duration,
    ) -> Result<Option<JournalEntry>, BusError>;

    /// Returns the first fact at `from` or behind it whose subject matches `filter`, without a reader; `None` if there is none
    /// yet. Positions grow with each fact, and begin anew with a new journal.
    async fn journal_read(
        &self,
        journal: &str,
        filter: &str,
        from: u64,
    ) -> Result<Option<JournalRecord>, BusError>;

    /// Returns the position of the newest fact; 0 before the first one.
    async fn journal_end(&self, journal: &str) -> Result<u64, BusError>;

    /// The largest payload, in bytes, of one message.
    fn max_payload(&self) -> usize;

    /// Returns whether the transport is up, now and on every change.
    fn connected(&self) -> watch::Receiver<bool>;

    /// Sends a message to itself through the server; the time it took, in one round trip.
    async fn loopback(&self, timeout: Duration) -> Result<Duration, BusError>;

    /// Returns the counters of what was published, dropped and reconnected so far.
    fn stats(&self) -> BusStats;
}
