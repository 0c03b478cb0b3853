//! The bus inside one process.

mod hold;
mod journal;
mod queue;
mod router;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::subject::{check_name, check_pattern, check_subject};
use crate::subscription::{Message, Sink, Subscription};
use crate::{
    Bus, BusError, BusStats, Job, JournalConfig, JournalEntry, JournalRecord, QueueConfig, QueueDepth,
    ReaderConfig,
};
use journal::MemJournal;
use queue::MemQueue;
use router::Router;

/// The largest payload [`MemBus`] takes by default, in bytes: no server stands between, so only a runaway sender is
/// stopped; a 4K intra frame is under 8 MiB.
pub const MEM_MAX_PAYLOAD: usize = 16 * 1024 * 1024;

#[derive(Default)]
struct Counters {
    published: AtomicU64,
    slow_consumer: AtomicU64,
}

struct Inner {
    router: RwLock<Router>,
    queues: Mutex<HashMap<String, Arc<MemQueue>>>,
    journals: Mutex<HashMap<String, Arc<MemJournal>>>,
    counters: Counters,
    next_inbox: AtomicU64,
    max_payload: usize,
    connected: watch::Sender<bool>,
}

/// The bus inside one process: exact subjects by one hash look-up, payloads handed on by reference.
///
/// Its work queues and journals live in memory: the workers that would take the jobs, and the sessions and recordings
/// they belong to, live in the same process and die with it; at its start control offers unfinished work anew.
#[derive(Clone)]
pub struct MemBus {
    inner: Arc<Inner>,
}

impl Default for MemBus {
    fn default() -> Self {
        Self::new()
    }
}

impl MemBus {
    /// Returns a bus without subscriptions, queues or journals.
    pub fn new() -> Self {
        Self::with_max_payload(MEM_MAX_PAYLOAD)
    }

    /// One that takes payloads up to `max_payload` bytes, as a server does.
    pub fn with_max_payload(max_payload: usize) -> Self {
        let inner = Inner {
            router: RwLock::default(),
            queues: Mutex::default(),
            journals: Mutex::default(),
            counters: Counters::default(),
            next_inbox: AtomicU64::new(0),
            max_payload,
            connected: watch::Sender::new(true),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the number of open subscriptions, queue-group members among them.
    pub fn subscriptions(&self) -> usize {
        self.inner.router.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn route(&self, subject: &str, reply: Option<&str>, payload: Bytes) -> Result<usize, BusError> {
        check_subject(subject)?;
        let (size, limit) = (payload.len(), self.inner.max_payload);
        if size > limit {
            return Err(BusError::TooLarge { size, limit });
        }
        let routed = {
            let router = self.inner.router.read().unwrap_or_else(PoisonError::into_inner);
            router.publish(subject, reply, payload)
        };
        self.inner.counters.published.fetch_add(1, Ordering::Relaxed);
        self.inner.counters.slow_consumer.fetch_add(routed.dropped, Ordering::Relaxed);
        Ok(routed.matched)
    }

    fn attach(&self, pattern: &str, group: Option<&str>, capacity: usize) -> Result<Subscription, BusError> {
        check_pattern(pattern)?;
        let (sink, receiver, dropped) = Sink::channel(capacity);
        let id = {
            let mut router = self.inner.router.write().unwrap_or_else(PoisonError::into_inner);
            router.add(pattern, group, sink)
        };
        let inner = Arc::downgrade(&self.inner);
        let pattern = pattern.to_owned();
        let detach = Box::new(move || {
            if let Some(inner) = inner.upgrade() {
                inner.router.write().unwrap_or_else(PoisonError::into_inner).remove(&pattern, id);
            }
        });
        Ok(Subscription::new(receiver, dropped, detach))
    }

    fn journal(&self, name: &str) -> Result<Arc<MemJournal>, BusError> {
        let journals = self.inner.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals.get(name).cloned().ok_or_else(|| BusError::UnknownJournal { name: name.to_owned() })
    }

    fn queue(&self, name: &str) -> Result<Arc<MemQueue>, BusError> {
        let queues = self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.get(name).cloned().ok_or_else(|| BusError::UnknownQueue { queue: name.to_owned() })
    }
}

#[async_trait]
impl Bus for MemBus {
    fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        self.route(subject, None, payload).map(drop)
    }

    fn publish_with_reply(&self, subject: &str, reply: &str, payload: Bytes) -> Result<(), BusError> {
        check_subject(reply)?;
        self.route(subject, Some(reply), payload).map(drop)
    }

    async fn subscribe(&self, pattern: &str, capacity: usize) -> Result<Subscription, BusError> {
        self.attach(pattern, None, capacity)
    }

    async fn queue_subscribe(
        &self,
        pattern: &str,
        group: &str,
        capacity: usize,
    ) -> Result<Subscription, BusError> {
        check_name(group)?;
        self.attach(pattern, Some(group), capacity)
    }

    async fn request(&self, subject: &str, payload: Bytes, timeout: Duration) -> Result<Bytes, BusError> {
        let inbox = self.new_inbox();
        let mut replies = self.attach(&inbox, None, 1)?;
        if self.route(subject, Some(&inbox), payload)? == 0 {
            return Err(BusError::NoResponders { subject: subject.to_owned() });
        }
        match tokio::time::timeout(timeout, replies.recv()).await {
            Ok(Some(Message { payload, .. })) => Ok(payload),
            Ok(None) => Err(BusError::Closed),
            Err(_) => Err(BusError::Timeout { what: subject.to_owned() }),
        }
    }

    fn new_inbox(&self) -> String {
        format!("_INBOX.{}", self.inner.next_inbox.fetch_add(1, Ordering::Relaxed))
    }

    async fn queue_declare(&self, config: &QueueConfig) -> Result<(), BusError> {
        check_name(&config.name)?;
        check_subject(&config.subject_prefix)?;
        let mut queues = self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues
            .entry(config.name.clone())
            .and_modify(|queue| queue.configure(config.clone()))
            .or_insert_with(|| Arc::new(MemQueue::new(config.clone())));
        Ok(())
    }

    async fn queue_push(&self, queue: &str, id: &str, payload: Bytes) -> Result<bool, BusError> {
        check_name(id)?;
        self.queue(queue)?.push(id, payload)
    }

    async fn queue_pull(&self, queue: &str, wait: Duration) -> Result<Option<Job>, BusError> {
        Ok(self.queue(queue)?.pull(wait).await)
    }

    async fn queue_depth(&self, queue: &str) -> Result<QueueDepth, BusError> {
        Ok(self.queue(queue)?.depth())
    }

    async fn journal_declare(&self, config: &JournalConfig) -> Result<(), BusError> {
        config.check()?;
        let mut journals = self.inner.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals
            .entry(config.name.clone())
            .and_modify(|journal| journal.configure(config.clone()))
            .or_insert_with(|| Arc::new(MemJournal::new(config.clone())));
        Ok(())
    }

    async fn journal_append(
        &self,
        journal: &str,
        subject: &str,
        id: &str,
        payload: Bytes,
    ) -> Result<bool, BusError> {
        check_name(id)?;
        let journal = self.journal(journal)?;
        let new = journal.append(subject, id, payload.clone())?;
        self.route(subject, None, payload)?;
        Ok(new)
    }

    async fn journal_reader(&self, journal: &str, reader: &ReaderConfig) -> Result<(), BusError> {
        reader.check()?;
        self.journal(journal)?.add_reader(reader);
        Ok(())
    }

    async fn journal_next(
        &self,
        journal: &str,
        reader: &str,
        wait: Duration,
    ) -> Result<Option<JournalEntry>, BusError> {
        self.journal(journal)?.next(reader, wait).await
    }

    async fn journal_read(
        &self,
        journal: &str,
        filter: &str,
        from: u64,
    ) -> Result<Option<JournalRecord>, BusError> {
        Ok(self.journal(journal)?.read(filter, from))
    }

    async fn journal_end(&self, journal: &str) -> Result<u64, BusError> {
        Ok(self.journal(journal)?.end())
    }

    fn max_payload(&self) -> usize {
        self.inner.max_payload
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.inner.connected.subscribe()
    }

    async fn loopback(&self, _timeout: Duration) -> Result<Duration, BusError> {
        Ok(Duration::ZERO)
    }

    fn stats(&self) -> BusStats {
        BusStats {
            published: self.inner.counters.published.load(Ordering::Relaxed),
            slow_consumer: self.inner.counters.slow_consumer.load(Ordering::Relaxed),
            ..BusStats::default()
        }
    }
}
