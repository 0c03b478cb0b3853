//! A work queue in memory, with the semantics of a JetStream work queue and one pull consumer.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hold::Hold;
use crate::queue::JobControl;
use crate::{BusError, Job, QueueConfig, QueueDepth};

struct Entry {
    id: String,
    payload: Bytes,
    attempt: u64,
}

/// A job out with a worker, or held back until `due`.
struct Held {
    entry: Entry,
    hold: Hold,
}

struct State {
    config: QueueConfig,
    ready: VecDeque<Entry>,
    held: HashMap<u64, Held>,
    seen: HashMap<String, Instant>,
    next_ticket: u64,
}

/// A work queue in memory.
pub(super) struct MemQueue {
    state: Mutex<State>,
    changed: Notify,
}

enum Taken {
    Job(Entry, u64),
    /// Nothing now; look again at this time, or when something changes.
    Wait(Option<Instant>),
}

impl State {
    /// Puts back what is due, giving up what was tried too often.
    fn requeue(&mut self, now: Instant) {
        let mut due: Vec<u64> =
            self.held.iter().filter(|(_, held)| held.hold.due <= now).map(|(ticket, _)| *ticket).collect();
        due.sort_unstable();
        for ticket in due {
            let Some(Held { entry, .. }) = self.held.remove(&ticket) else { continue };
            let limit = u64::from(self.config.max_deliver);
            if limit != 0 && entry.attempt >= limit {
                tracing::warn!(queue = %self.config.name, job = %entry.id, "job given up after its last delivery");
            } else {
                self.ready.push_back(entry);
            }
        }
    }

    fn take(&mut self, now: Instant) -> Taken {
        self.requeue(now);
        let out = self.held.values().filter(|held| held.hold.out).count();
        let room = out < self.config.max_in_flight as usize;
        if room && let Some(mut entry) = self.ready.pop_front() {
            entry.attempt += 1;
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            let held = Held {
                entry: Entry { id: entry.id.clone(), payload: entry.payload.clone(), attempt: entry.attempt },
                hold: Hold::delivered(now, self.config.ack_wait),
            };
            self.held.insert(ticket, held);
            return Taken::Job(entry, ticket);
        }
        Taken::Wait(self.held.values().map(|held| held.hold.due).min())
    }
}

impl MemQueue {
    pub(super) fn new(config: QueueConfig) -> Self {
        let state = State {
            config,
            ready: VecDeque::new(),
            held: HashMap::new(),
            seen: HashMap::new(),
            next_ticket: 0,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn configure(&self, config: QueueConfig) {
        self.lock().config = config;
        self.changed.notify_waiters();
    }

    pub(super) fn push(&self, id: &str, payload: Bytes) -> Result<bool, BusError> {
        let now = Instant::now();
        let mut state = self.lock();
        let window = state.config.dedup_window;
        state.seen.retain(|_, at| now.duration_since(*at) < window);
        if state.seen.contains_key(id) {
            return Ok(false);
        }
        if state.ready.len() + state.held.len() >= state.config.max_jobs as usize {
            return Err(BusError::QueueFull { queue: state.config.name.clone() });
        }
        state.seen.insert(id.to_owned(), now);
        state.ready.push_back(Entry { id: id.to_owned(), payload, attempt: 0 });
        drop(state);
        self.changed.notify_waiters();
        Ok(true)
    }

    pub(super) async fn pull(self: Arc<Self>, wait: Duration) -> Option<Job> {
        let deadline = Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Instant::now();
            let again = match self.lock().take(now) {
                Taken::Job(entry, ticket) => {
                    let control = MemJob { queue: self.clone(), ticket };
                    return Some(Job::new(entry.id, entry.payload, entry.attempt, Box::new(control)));
                }
                Taken::Wait(again) => again.map_or(deadline, |at| at.min(deadline)),
            };
            if now >= deadline {
                return None;
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(again) => {}
            }
        }
    }

    pub(super) fn depth(&self) -> QueueDepth {
        let mut state = self.lock();
        state.requeue(Instant::now());
        let in_flight = state.held.values().filter(|held| held.hold.out).count();
        let waiting = state.ready.len() + state.held.len() - in_flight;
        QueueDepth { waiting: waiting as u64, in_flight: in_flight as u64 }
    }
}

/// A worker's hold on a job; void once the job was delivered again, as in JetStream.
struct MemJob {
    queue: Arc<MemQueue>,
    ticket: u64,
}

impl MemJob {
    fn with(&self, change: impl FnOnce(&mut State, u64)) {
        change(&mut self.queue.lock(), self.ticket);
        self.queue.changed.notify_waiters();
    }
}

#[async_trait]
impl JobControl for MemJob {
    async fn ack(&self) -> Result<(), BusError> {
        self.with(|state, ticket| drop(state.held.remove(&ticket)));
        Ok(())
    }

    async fn nak(&self, delay: Duration) -> Result<(), BusError> {
        self.with(|state, ticket| {
            if let Some(held) = state.held.get_mut(&ticket) {
                held.hold.put_back(delay);
            }
        });
        Ok(())
    }

    async fn in_progress(&self) -> Result<(), BusError> {
        self.with(|state, ticket| {
            let ack_wait = state.config.ack_wait;
            if let Some(held) = state.held.get_mut(&ticket) {
                held.hold.extend(ack_wait);
            }
        });
        Ok(())
    }

    async fn term(&self) -> Result<(), BusError> {
        self.ack().await
    }
}
