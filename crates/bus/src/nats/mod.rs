//! The bus over a NATS server or cluster.

mod config;
mod jetstream;
mod journal;
mod link;
mod outbox;
mod pull;
mod work;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::subject::{check_name, check_pattern, check_subject};
use crate::subscription::Subscription;
use crate::{
    Bus, BusError, BusStats, Job, JournalConfig, JournalEntry, JournalRecord, QueueConfig, QueueDepth,
    ReaderConfig,
};
pub use config::NatsConfig;
use link::Link;

/// The interval at which the connections' state is polled, besides the client's events, which may get lost.
const STATE_POLL: Duration = Duration::from_millis(250);

struct Inner {
    /// Requests, answers, work queues, heartbeats: never behind media.
    control: Link,
    /// Subjects whose first token is one of `media_tokens`.
    media: Link,
    media_tokens: Vec<String>,
    replicas: usize,
    queues: Mutex<HashMap<String, QueueConfig>>,
    journals: Mutex<HashMap<String, JournalConfig>>,
    /// Journal and name of each reader declared here.
    readers: Mutex<HashSet<(String, String)>>,
    connected: watch::Sender<bool>,
}

impl Inner {
    fn link(&self, subject: &str) -> &Link {
        let first = subject.split('.').next().unwrap_or(subject);
        if self.media_tokens.iter().any(|token| token == first) { &self.media } else { &self.control }
    }

    fn queue(&self, name: &str) -> Result<QueueConfig, BusError> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.get(name).cloned().ok_or_else(|| BusError::UnknownQueue { queue: name.to_owned() })
    }

    fn journal(&self, name: &str) -> Result<JournalConfig, BusError> {
        let journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals.get(name).cloned().ok_or_else(|| BusError::UnknownJournal { name: name.to_owned() })
    }
}

/// The bus over NATS: two connections, one for media and one for everything else.
///
/// Core subjects for media and requests, JetStream for work queues and journals. Works with nats-server 2.9 and newer.
/// While a server is away the client reconnects without delay, publishes are dropped and counted, and
/// subscriptions come back by themselves.
#[derive(Clone)]
pub struct NatsBus {
    inner: Arc<Inner>,
}

impl NatsBus {
    /// Connects, waiting up to [`NatsConfig::start_timeout`] for a server.
    pub async fn connect(config: NatsConfig) -> Result<Self, BusError> {
        let changed = Arc::new(tokio::sync::Notify::new());
        let (control, media) = tokio::try_join!(
            Link::connect(&config, "control", config.control_capacity, changed.clone()),
            Link::connect(&config, "media", config.media_capacity, changed.clone()),
        )?;
        let found = control.server();
        tracing::info!(
            version = %found.version, server = %found.name, jetstream = found.jetstream,
            max_payload = control.max_payload(), "connected to NATS"
        );
        let inner = Arc::new(Inner {
            control,
            media,
            media_tokens: config.media_tokens,
            replicas: config.replicas,
            queues: Mutex::default(),
            journals: Mutex::default(),
            readers: Mutex::default(),
            connected: watch::Sender::new(true),
        });
        let watched = Arc::downgrade(&inner);
        tokio::spawn(async move {
            loop {
                // Either way the state is read afresh.
                let _ = tokio::time::timeout(STATE_POLL, changed.notified()).await;
                let Some(inner) = watched.upgrade() else { break };
                let up = inner.control.is_connected() && inner.media.is_connected();
                inner.connected.send_if_modified(|known| std::mem::replace(known, up) != up);
            }
        });
        Ok(Self { inner })
    }

    /// Returns the version that the server of the control connection reports.
    pub fn server_version(&self) -> String {
        self.inner.control.server().version
    }

    /// Sends what is still buffered.
    pub async fn flush(&self, timeout: Duration) -> Result<(), BusError> {
        tokio::try_join!(self.inner.control.flush(timeout), self.inner.media.flush(timeout)).map(drop)
    }
}

#[async_trait]
impl Bus for NatsBus {
    fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        check_subject(subject)?;
        self.inner.link(subject).publish(subject, None, payload)
    }

    fn publish_with_reply(&self, subject: &str, reply: &str, payload: Bytes) -> Result<(), BusError> {
        check_subject(subject)?;
        check_subject(reply)?;
        // On the connection of the inbox: the server knows the subscription before it sees the request.
        self.inner.control.publish(subject, Some(reply), payload)
    }

    async fn subscribe(&self, pattern: &str, capacity: usize) -> Result<Subscription, BusError> {
        check_pattern(pattern)?;
        self.inner.link(pattern).subscribe(pattern, None, capacity).await
    }

    async fn queue_subscribe(
        &self,
        pattern: &str,
        group: &str,
        capacity: usize,
    ) -> Result<Subscription, BusError> {
        check_pattern(pattern)?;
        check_name(group)?;
        self.inner.link(pattern).subscribe(pattern, Some(group), capacity).await
    }

    async fn request(&self, subject: &str, payload: Bytes, timeout: Duration) -> Result<Bytes, BusError> {
        check_subject(subject)?;
        self.inner.control.request(subject, None, payload, timeout).await
    }

    fn new_inbox(&self) -> String {
        self.inner.control.new_inbox()
    }

    async fn queue_declare(&self, config: &QueueConfig) -> Result<(), BusError> {
        check_name(&config.name)?;
        check_subject(&config.subject_prefix)?;
        work::declare(&self.inner.control, config, self.inner.replicas).await?;
        let mut queues = self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.insert(config.name.clone(), config.clone());
        Ok(())
    }

    async fn queue_push(&self, queue: &str, id: &str, payload: Bytes) -> Result<bool, BusError> {
        check_name(id)?;
        let config = self.inner.queue(queue)?;
        work::push(&self.inner.control, &config, id, payload).await
    }

    async fn queue_pull(&self, queue: &str, wait: Duration) -> Result<Option<Job>, BusError> {
        let config = self.inner.queue(queue)?;
        work::pull(&self.inner.control, &config, wait).await
    }

    async fn queue_depth(&self, queue: &str) -> Result<QueueDepth, BusError> {
        let config = self.inner.queue(queue)?;
        work::depth(&self.inner.control, &config).await
    }

    async fn journal_declare(&self, config: &JournalConfig) -> Result<(), BusError> {
        config.check()?;
        journal::declare(&self.inner.control, config, self.inner.replicas).await?;
        let mut journals = self.inner.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals.insert(config.name.clone(), config.clone());
        Ok(())
    }

    async fn journal_append(
        &self,
        journal: &str,
        subject: &str,
        id: &str,
        payload: Bytes,
    ) -> Result<bool, BusError> {
        check_subject(subject)?;
        check_name(id)?;
        let config = self.inner.journal(journal)?;
        config.takes(subject)?;
        jetstream::publish(&self.inner.control, &config.name, subject, id, payload).await
    }

    async fn journal_reader(&self, journal: &str, reader: &ReaderConfig) -> Result<(), BusError> {
        reader.check()?;
        let config = self.inner.journal(journal)?;
        journal::add_reader(&self.inner.control, &config, reader).await?;
        let mut readers = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.insert((config.name, reader.name.clone()));
        Ok(())
    }

    async fn journal_next(
        &self,
        journal: &str,
        reader: &str,
        wait: Duration,
    ) -> Result<Option<JournalEntry>, BusError> {
        let config = self.inner.journal(journal)?;
        let known = (config.name.clone(), reader.to_owned());
        if !self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner).contains(&known) {
            return Err(BusError::UnknownJournal { name: known.1 });
        }
        journal::next(&self.inner.control, &config, reader, wait).await
    }

    async fn journal_read(
        &self,
        journal: &str,
        filter: &str,
        from: u64,
    ) -> Result<Option<JournalRecord>, BusError> {
        let config = self.inner.journal(journal)?;
        journal::read(&self.inner.control, &config, filter, from).await
    }

    async fn journal_end(&self, journal: &str) -> Result<u64, BusError> {
        let config = self.inner.journal(journal)?;
        journal::end(&self.inner.control, &config).await
    }

    fn max_payload(&self) -> usize {
        self.inner.media.max_payload().min(self.inner.control.max_payload())
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.inner.connected.subscribe()
    }

    async fn loopback(&self, timeout: Duration) -> Result<Duration, BusError> {
        let (control, media) =
            tokio::try_join!(self.inner.control.echo(timeout), self.inner.media.echo(timeout))?;
        Ok(control.max(media))
    }

    fn stats(&self) -> BusStats {
        let (mut sum, media) = (self.inner.control.stats(), self.inner.media.stats());
        sum.published += media.published;
        sum.dropped_disconnected += media.dropped_disconnected;
        sum.dropped_overflow += media.dropped_overflow;
        sum.slow_consumer += media.slow_consumer;
        sum.reconnects += media.reconnects;
        sum
    }
}
