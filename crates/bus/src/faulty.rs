//! A bus that goes wrong on purpose.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use crate::subscription::{Delivery, Message, Sink};
use crate::{
    Bus, BusError, BusStats, Job, JournalConfig, JournalEntry, JournalRecord, QueueConfig, QueueDepth,
    ReaderConfig, SharedBus, Subscription,
};

/// The faults a wrapped bus injects, each with a probability from 0 to 1 per message. Losses, doubles, delays
/// and reorderings strike each subscription by itself, as they do in a network.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FaultPlan {
    /// Only subjects that begin so; empty: all.
    pub subject_prefix: String,
    /// A received message is lost; of a journal, the acknowledgement.
    pub lose: f64,
    /// A received message comes twice.
    pub double: f64,
    /// A received message changes places with the next one.
    pub swap: f64,
    /// A received message, and all after it, are held up…
    pub delay: f64,
    /// …for a random time up to this.
    pub max_delay: Duration,
    /// A publish, request, queue or journal operation fails.
    pub fail: f64,
    /// Nothing gets through: publishes and requests fail as if disconnected, nothing is received.
    pub away: bool,
}

struct Inner {
    bus: SharedBus,
    plan: Mutex<FaultPlan>,
    dice: Mutex<StdRng>,
    seed: u64,
    subscriptions: AtomicU64,
    slow_consumer: AtomicU64,
    connected: watch::Sender<bool>,
}

/// Wraps a bus and harms what passes, by seed: the same calls in the same order meet the same faults.
#[derive(Clone)]
pub struct FaultyBus {
    inner: Arc<Inner>,
}

/// The number of messages that wait between the wrapped subscription and the injection of faults.
const RAW_CAPACITY: usize = 4096;
/// The interval at which a held-back message checks whether its wait for a successor is over.
const SWAP_WAIT: Duration = Duration::from_millis(20);

impl Inner {
    fn plan(&self) -> MutexGuard<'_, FaultPlan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hit(&self, chance: f64) -> bool {
        chance > 0.0 && self.dice.lock().unwrap_or_else(PoisonError::into_inner).random_bool(chance)
    }

    fn check(&self, subject: &str) -> Result<(), BusError> {
        let plan = self.plan();
        if plan.away {
            return Err(BusError::Disconnected);
        }
        if subject.starts_with(&plan.subject_prefix) && self.hit(plan.fail) {
            return Err(BusError::Other("injected fault".into()));
        }
        Ok(())
    }

    /// True if the answer to an operation on `subject` is lost on its way back.
    fn loses_answer(&self, subject: &str) -> bool {
        let plan = self.plan();
        plan.away || subject.starts_with(&plan.subject_prefix) && self.hit(plan.lose)
    }
}

impl FaultyBus {
    /// Wraps `bus`; nothing goes wrong until a plan is set.
    pub fn new(bus: SharedBus, seed: u64) -> Self {
        let connected = watch::Sender::new(*bus.connected().borrow());
        let inner = Inner {
            bus,
            plan: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            seed,
            subscriptions: AtomicU64::new(0),
            slow_consumer: AtomicU64::new(0),
            connected,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Replaces the faults that are injected from now on.
    pub fn set(&self, plan: FaultPlan) {
        self.inner.connected.send_replace(!plan.away);
        *self.inner.plan() = plan;
    }

    fn harm(&self, mut raw: Subscription, capacity: usize) -> Subscription {
        let (sink, receiver, dropped) = Sink::channel(capacity);
        let number = self.inner.subscriptions.fetch_add(1, Ordering::Relaxed);
        let mut dice = StdRng::seed_from_u64(self.inner.seed ^ number.wrapping_add(1).rotate_left(32));
        let inner = self.inner.clone();
        let deliver = move |inner: &Inner, message| {
            let delivery = sink.deliver(message);
            if delivery == Delivery::Full {
                inner.slow_consumer.fetch_add(1, Ordering::Relaxed);
            }
            delivery != Delivery::Gone
        };
        let task = tokio::spawn(async move {
            let mut held: Option<Message> = None;
            loop {
                let message = match held.take() {
                    None => raw.recv().await,
                    Some(first) => {
                        if let Ok(Some(second)) = tokio::time::timeout(SWAP_WAIT, raw.recv()).await {
                            deliver(&inner, second);
                        }
                        Some(first)
                    }
                };
                let Some(message) = message else { break };
                let plan = inner.plan().clone();
                let Some(passed) = step(&plan, &mut dice, message, &mut held).await else { continue };
                if passed.twice && !deliver(&inner, passed.message.clone()) {
                    break;
                }
                if !deliver(&inner, passed.message) {
                    break;
                }
            }
        });
        let task = task.abort_handle();
        Subscription::new(receiver, dropped, Box::new(move || task.abort()))
    }
}

/// A message that got through.
struct Passed {
    message: Message,
    twice: bool,
}

/// Decides the fate of one message; `None` if it is lost or held back.
async fn step(
    plan: &FaultPlan,
    dice: &mut StdRng,
    message: Message,
    held: &mut Option<Message>,
) -> Option<Passed> {
    // Always the same number of throws, so that one fault does not change where the next strikes.
    let mut hit = |chance: f64| dice.random::<f64>() < chance;
    let (lose, double, swap, delay) = (hit(plan.lose), hit(plan.double), hit(plan.swap), hit(plan.delay));
    let share: f64 = dice.random();
    if plan.away {
        return None;
    }
    if !message.subject.starts_with(&plan.subject_prefix) {
        return Some(Passed { message, twice: false });
    }
    if lose {
        return None;
    }
    if delay {
        tokio::time::sleep(plan.max_delay.mul_f64(share)).await;
    }
    if swap {
        *held = Some(message);
        return None;
    }
    Some(Passed { message, twice: double })
}

#[async_trait]
impl Bus for FaultyBus {
    fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        self.inner.check(subject)?;
        self.inner.bus.publish(subject, payload)
    }

    fn publish_with_reply(&self, subject: &str, reply: &str, payload: Bytes) -> Result<(), BusError> {
        self.inner.check(subject)?;
        self.inner.bus.publish_with_reply(subject, reply, payload)
    }

    async fn subscribe(&self, pattern: &str, capacity: usize) -> Result<Subscription, BusError> {
        let raw = self.inner.bus.subscribe(pattern, capacity.max(RAW_CAPACITY)).await?;
        Ok(self.harm(raw, capacity))
    }

    async fn queue_subscribe(
        &self,
        pattern: &str,
        group: &str,
        capacity: usize,
    ) -> Result<Subscription, BusError> {
        let raw = self.inner.bus.queue_subscribe(pattern, group, capacity.max(RAW_CAPACITY)).await?;
        Ok(self.harm(raw, capacity))
    }

    async fn request(&self, subject: &str, payload: Bytes, timeout: Duration) -> Result<Bytes, BusError> {
        self.inner.check(subject)?;
        self.inner.bus.request(subject, payload, timeout).await
    }

    fn new_inbox(&self) -> String {
        self.inner.bus.new_inbox()
    }

    async fn queue_declare(&self, config: &QueueConfig) -> Result<(), BusError> {
        self.inner.check(&config.name)?;
        self.inner.bus.queue_declare(config).await
    }

    async fn queue_push(&self, queue: &str, id: &str, payload: Bytes) -> Result<bool, BusError> {
        self.inner.check(queue)?;
        self.inner.bus.queue_push(queue, id, payload).await
    }

    async fn queue_pull(&self, queue: &str, wait: Duration) -> Result<Option<Job>, BusError> {
        self.inner.check(queue)?;
        self.inner.bus.queue_pull(queue, wait).await
    }

    async fn queue_depth(&self, queue: &str) -> Result<QueueDepth, BusError> {
        self.inner.check(queue)?;
        self.inner.bus.queue_depth(queue).await
    }

    async fn journal_declare(&self, config: &JournalConfig) -> Result<(), BusError> {
        self.inner.check(&config.name)?;
        self.inner.bus.journal_declare(config).await
    }

    async fn journal_append(
        &self,
        journal: &str,
        subject: &str,
        id: &str,
        payload: Bytes,
    ) -> Result<bool, BusError> {
        self.inner.check(subject)?;
        let new = self.inner.bus.journal_append(journal, subject, id, payload).await?;
        if self.inner.loses_answer(subject) {
            return Err(BusError::Timeout { what: subject.to_owned() });
        }
        Ok(new)
    }

    async fn journal_reader(&self, journal: &str, reader: &ReaderConfig) -> Result<(), BusError> {
        self.inner.check(journal)?;
        self.inner.bus.journal_reader(journal, reader).await
    }

    async fn journal_next(
        &self,
        journal: &str,
        reader: &str,
        wait: Duration,
    ) -> Result<Option<JournalEntry>, BusError> {
        self.inner.check(journal)?;
        self.inner.bus.journal_next(journal, reader, wait).await
    }

    async fn journal_read(
        &self,
        journal: &str,
        filter: &str,
        from: u64,
    ) -> Result<Option<JournalRecord>, BusError> {
        self.inner.check(journal)?;
        self.inner.bus.journal_read(journal, filter, from).await
    }

    async fn journal_end(&self, journal: &str) -> Result<u64, BusError> {
        self.inner.check(journal)?;
        self.inner.bus.journal_end(journal).await
    }

    fn max_payload(&self) -> usize {
        self.inner.bus.max_payload()
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.inner.connected.subscribe()
    }

    async fn loopback(&self, timeout: Duration) -> Result<Duration, BusError> {
        self.inner.check("")?;
        self.inner.bus.loopback(timeout).await
    }

    fn stats(&self) -> BusStats {
        let mut stats = self.inner.bus.stats();
        stats.slow_consumer += self.inner.slow_consumer.load(Ordering::Relaxed);
        stats
    }
}
