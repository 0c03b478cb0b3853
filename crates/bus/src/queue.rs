//! Work queues: settings and the job a worker holds.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::BusError;

/// A work queue's settings. `new` gives defaults that fit jobs of minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// The queue's name: one token. For NATS, the JetStream stream's name.
    pub name: String,
    /// The subject a job is stored under is `{subject_prefix}.{id}`. For NATS, the stream takes `prefix.>`.
    pub subject_prefix: String,
    /// A job not acknowledged, nor kept alive, for this long is delivered again.
    pub ack_wait: Duration,
    /// A job delivered this often without success is given up; 0: never.
    pub max_deliver: u32,
    /// At most this many jobs are out with workers at a time.
    pub max_in_flight: u32,
    /// At most this many jobs wait; a push beyond is refused.
    pub max_jobs: u32,
    /// A second push of the same id within this time is a duplicate.
    pub dedup_window: Duration,
}

impl QueueConfig {
    /// Defaults: `ack_wait` 30 s, `max_deliver` 10, 1000 in flight, 100 000 jobs, dedup window 2 min.
    pub fn new(name: impl Into<String>, subject_prefix: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            subject_prefix: subject_prefix.into(),
            ack_wait: Duration::from_secs(30),
            max_deliver: 10,
            max_in_flight: 1000,
            max_jobs: 100_000,
            dedup_window: Duration::from_mins(2),
        }
    }
}

/// The number of jobs in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Jobs not yet delivered, or waiting to be delivered again.
    pub waiting: u64,
    /// Jobs delivered and not yet acknowledged.
    pub in_flight: u64,
}

/// The answers a worker gives for its job; each implementation has its own.
#[async_trait]
pub trait JobControl: Send + Sync {
    /// Done: the queue forgets the job. Returns when the queue has confirmed it.
    async fn ack(&self) -> Result<(), BusError>;
    /// Not done: deliver it again after `delay`.
    async fn nak(&self, delay: Duration) -> Result<(), BusError>;
    /// Still at it: `ack_wait` starts anew.
    async fn in_progress(&self) -> Result<(), BusError>;
    /// Give it up: never deliver it again.
    async fn term(&self) -> Result<(), BusError>;
}

/// A job taken from a queue. Dropped without a word it comes back after the queue's `ack_wait`.
pub struct Job {
    /// The id it was pushed with.
    pub id: String,
    /// The payload of the job as it was pushed.
    pub payload: Bytes,
    /// The delivery's number, from 1.
    pub attempt: u64,
    control: Box<dyn JobControl>,
}

impl Job {
    pub(crate) fn new(id: String, payload: Bytes, attempt: u64, control: Box<dyn JobControl>) -> Self {
        Self { id, payload, attempt, control }
    }

    /// Done: the queue forgets the job. Returns when the queue has confirmed it.
    pub async fn ack(&self) -> Result<(), BusError> {
        self.control.ack().await
    }

    /// Not done: deliver it again after `delay`.
    pub async fn nak(&self, delay: Duration) -> Result<(), BusError> {
        self.control.nak(delay).await
    }

    /// Still at it: `ack_wait` starts anew.
    pub async fn in_progress(&self) -> Result<(), BusError> {
        self.control.in_progress().await
    }

    /// Give it up: never deliver it again.
    pub async fn term(&self) -> Result<(), BusError> {
        self.control.term().await
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("attempt", &self.attempt)
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
