//! The queue of objects that wait to be sent.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_buf::ByteChain;
use tokio::sync::{Notify, oneshot, watch};

use super::model::{Completed, GivenUp, StorageTrouble, UploadError, UploadStats, UploaderConfig};
use crate::{Meta, StoreError};

pub(super) struct Item {
    pub(super) key: String,
    pub(super) body: ByteChain,
    pub(super) meta: Meta,
    pub(super) attempts: u32,
    number: u64,
    essential: bool,
    since: Instant,
    answer: oneshot::Sender<Result<Completed, UploadError>>,
}

impl Item {
    pub(super) fn new(
        key: String,
        body: ByteChain,
        meta: Meta,
        essential: bool,
        answer: oneshot::Sender<Result<Completed, UploadError>>,
    ) -> Self {
        Self { key, body, meta, attempts: 0, number: 0, essential, since: Instant::now(), answer }
    }

    fn tell(self, result: Result<Completed, UploadError>) {
        // A caller that dropped its ticket does not need the result.
        let _ = self.answer.send(result);
    }
}

struct State {
    /// By age: the lowest number is the oldest.
    waiting: BTreeMap<u64, Item>,
    /// The keys that are being sent.
    busy: HashSet<String>,
    /// The time at which each object that waits or is being sent was submitted, by its number.
    held: BTreeMap<u64, Instant>,
    next_number: u64,
    stats: UploadStats,
    /// The first failed attempt since the last one that succeeded, and the newest error.
    failing: Option<(Instant, String)>,
    given_up: GivenUp,
}

impl State {
    fn note_failure(&mut self, error: &StoreError) {
        let since = self.failing.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        self.failing = Some((since, error.to_string()));
    }

    fn add(&mut self, item: &Item) {
        self.held.insert(item.number, item.since);
        self.stats.objects += 1;
        self.stats.bytes += item.body.len();
    }

    fn subtract(&mut self, item: &Item) {
        self.held.remove(&item.number);
        self.stats.objects -= 1;
        self.stats.bytes -= item.body.len();
    }
}

pub(super) struct Shared {
    config: UploaderConfig,
    state: Mutex<State>,
    stats: watch::Sender<UploadStats>,
    /// One permit a new object.
    more: Notify,
    /// The store took an object: who pauses because it was away need not.
    alive: Notify,
}

impl Shared {
    pub(super) fn new(config: UploaderConfig) -> Self {
        let state = State {
            waiting: BTreeMap::new(),
            busy: HashSet::new(),
            held: BTreeMap::new(),
            next_number: 0,
            stats: UploadStats::default(),
            failing: None,
            given_up: GivenUp::default(),
        };
        Self {
            config,
            state: Mutex::new(state),
            stats: watch::Sender::new(UploadStats::default()),
            more: Notify::new(),
            alive: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stats(&self) -> UploadStats {
        self.lock().stats
    }

    /// Returns the age of the oldest object that waits or is being sent; zero if there is none.
    pub(super) fn oldest(&self) -> Duration {
        self.lock().held.first_key_value().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    /// Returns the trouble of a store that takes no objects; `None` while it does.
    pub(super) fn trouble(&self) -> Option<StorageTrouble> {
        let state = self.lock();
        let (since, error) = state.failing.as_ref()?;
        Some(StorageTrouble { since: since.elapsed(), error: error.clone() })
    }

    /// Takes the objects that were given up since the last call.
    pub(super) fn take_given_up(&self) -> GivenUp {
        std::mem::take(&mut self.lock().given_up)
    }

    pub(super) fn watch(&self) -> watch::Receiver<UploadStats> {
        self.stats.subscribe()
    }

    /// Adds an object, dropping the oldest that may be dropped until it fits.
    pub(super) fn push(&self, mut item: Item) -> Result<(), UploadError> {
        let (bytes, mut dropped) = (item.body.len(), Vec::new());
        let fits = {
            let mut state = self.lock();
            loop {
                let fits = state.stats.bytes + bytes <= self.config.max_bytes
                    && state.stats.objects < self.config.max_objects;
                if fits {
                    break true;
                }
                let oldest = state.waiting.values().find(|item| !item.essential).map(|item| item.number);
                let Some(old) = oldest.and_then(|number| state.waiting.remove(&number)) else { break false };
                state.subtract(&old);
                state.stats.dropped += 1;
                state.given_up.add(old.key.clone());
                dropped.push(old);
            }
            .then(|| {
                item.number = state.next_number;
                state.next_number += 1;
                state.add(&item);
                state.waiting.insert(item.number, item);
            })
        };
        for old in dropped {
            tracing::debug!(key = %old.key, "upload dropped, the queue is full");
            old.tell(Err(UploadError::Dropped));
        }
        self.publish();
        self.more.notify_one();
        fits.ok_or(UploadError::Full)
    }

    fn publish(&self) {
        self.stats.send_replace(self.lock().stats);
    }

    /// The oldest object whose key is not being sent already.
    fn try_take(&self) -> Option<Item> {
        let mut state = self.lock();
        let number = state.waiting.values().find(|item| !state.busy.contains(&item.key))?.number;
        let item = state.waiting.remove(&number)?;
        state.busy.insert(item.key.clone());
        Some(item)
    }

    pub(super) async fn take(&self) -> Item {
        loop {
            let more = self.more.notified();
            if let Some(item) = self.try_take() {
                // A permit stands for one object at least, perhaps for several: pass it on.
                self.more.notify_one();
                return item;
            }
            more.await;
        }
    }

    /// Back to its place by age, to be tried again.
    pub(super) fn put_back(&self, item: Item, error: &StoreError) {
        let mut state = self.lock();
        state.note_failure(error);
        state.stats.failed_attempts += 1;
        state.busy.remove(&item.key);
        state.waiting.insert(item.number, item);
        drop(state);
        self.publish();
    }

    pub(super) fn finish(&self, item: Item, result: Result<(), StoreError>) {
        let mut state = self.lock();
        state.busy.remove(&item.key);
        state.subtract(&item);
        match &result {
            Ok(()) => {
                state.stats.stored += 1;
                state.failing = None;
            }
            Err(error) => {
                state.stats.refused += 1;
                state.note_failure(error);
                state.given_up.add(item.key.clone());
            }
        }
        drop(state);
        if result.is_ok() {
            self.alive.notify_waiters();
        }
        let done = Completed { attempts: item.attempts, took: item.since.elapsed() };
        item.tell(result.map(|()| done).map_err(UploadError::Refused));
        self.publish();
        self.more.notify_one();
    }

    /// Pauses, or until the store is seen alive.
    pub(super) async fn pause(&self, pause: Duration) {
        // Either way there is something to try.
        let _ = tokio::time::timeout(pause, self.alive.notified()).await;
    }
}
