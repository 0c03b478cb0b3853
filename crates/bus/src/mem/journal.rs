//! A journal in memory, with the semantics of a JetStream stream with limits and durable pull consumers.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hold::Hold;
use crate::queue::JobControl;
use crate::subject::matches;
use crate::{BusError, JournalConfig, JournalEntry, JournalRecord, ReaderConfig};

/// The bytes kept whatever the configuration allows: who reads lives in this process and is not away for
/// long, and a process that runs for weeks must not grow.
const MAX_KEPT_BYTES: u64 = 4 * 1024 * 1024;

struct Kept {
    subject: String,
    payload: Bytes,
    at: Instant,
}

impl Kept {
    fn size(&self) -> u64 {
        (self.subject.len() + self.payload.len()) as u64
    }
}

/// A fact out with a reader, or held back until `due`.
struct Held {
    attempt: u64,
    hold: Hold,
}

struct Reader {
    config: ReaderConfig,
    next: u64,
    held: BTreeMap<u64, Held>,
}

struct State {
    config: JournalConfig,
    kept: VecDeque<Kept>,
    /// Number of the oldest that is kept.
    first: u64,
    bytes: u64,
    ids: HashSet<Arc<str>>,
    said: VecDeque<(Instant, Arc<str>)>,
    readers: HashMap<String, Reader>,
}

/// A journal in this process's memory.
pub(super) struct MemJournal {
    state: Mutex<State>,
    changed: Notify,
}

enum Taken {
    Entry(Box<(u64, String, Bytes, u64)>),
    /// Nothing now; look again at this time, or when something changes.
    Wait(Option<Instant>),
}

impl State {
    fn append(&mut self, now: Instant, subject: &str, id: &str, payload: Bytes) -> bool {
        let window = self.config.dedup_window;
        while let Some((_, id)) = self.said.pop_front_if(|(at, _)| now.duration_since(*at) >= window) {
            self.ids.remove(&id);
        }
        let id: Arc<str> = id.into();
        if !self.ids.insert(id.clone()) {
            return false;
        }
        self.said.push_back((now, id));
        let kept = Kept { subject: subject.to_owned(), payload, at: now };
        self.bytes += kept.size();
        self.kept.push_back(kept);
        self.trim(now);
        true
    }

    fn trim(&mut self, now: Instant) {
        let JournalConfig { max_age, max_bytes, max_messages, .. } = self.config;
        let max_bytes = max_bytes.min(MAX_KEPT_BYTES);
        while let Some(oldest) = self.kept.front() {
            let over = self.kept.len() as u64 > max_messages || self.bytes > max_bytes;
            if !over && now.duration_since(oldest.at) < max_age {
                break;
            }
            self.bytes -= oldest.size();
            self.kept.pop_front();
            self.first += 1;
        }
    }

    fn take(&mut self, now: Instant, reader: &str) -> Option<Taken> {
        self.trim(now);
        let (first, kept) = (self.first, &self.kept);
        let reader = self.readers.get_mut(reader)?;
        reader.held = reader.held.split_off(&first);
        let due = reader.held.iter_mut().find(|(_, held)| held.hold.due <= now);
        let number = if let Some((number, _)) = due {
            *number
        } else {
            let out = reader.held.values().filter(|held| held.hold.out).count();
            let from = reader.next.max(first);
            let mut later = kept.iter().enumerate().skip((from - first) as usize);
            let found = later.find(|(_, kept)| matches(&reader.config.filter, &kept.subject));
            let room = out < reader.config.max_in_flight as usize;
            match found.filter(|_| room) {
                Some((at, _)) => first + at as u64,
                None => return Some(Taken::Wait(reader.held.values().map(|held| held.hold.due).min())),
            }
        };
        reader.next = reader.next.max(number + 1);
        let attempt = reader.held.get(&number).map_or(0, |held| held.attempt) + 1;
        let hold = Hold::delivered(now, reader.config.ack_wait);
        reader.held.insert(number, Held { attempt, hold });
        let found = kept.get((number - first) as usize)?;
        Some(Taken::Entry(Box::new((number, found.subject.clone(), found.payload.clone(), attempt))))
    }
}

impl MemJournal {
    pub(super) fn new(config: JournalConfig) -> Self {
        let state = State {
            config,
            kept: VecDeque::new(),
            first: 0,
            bytes: 0,
            ids: HashSet::new(),
            said: VecDeque::new(),
            readers: HashMap::new(),
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn configure(&self, config: JournalConfig) {
        self.lock().config = config;
    }

    /// Appends a fact; returns `false` if its id is known already.
    pub(super) fn append(&self, subject: &str, id: &str, payload: Bytes) -> Result<bool, BusError> {
        let mut state = self.lock();
        state.config.takes(subject)?;
        let new = state.append(Instant::now(), subject, id, payload);
        drop(state);
        self.changed.notify_waiters();
        Ok(new)
    }

    pub(super) fn add_reader(&self, config: &ReaderConfig) {
        let mut state = self.lock();
        let new = || Reader { config: config.clone(), next: 0, held: BTreeMap::new() };
        state.readers.entry(config.name.clone()).or_insert_with(new).config.clone_from(config);
    }

    /// Returns the first fact at the position `from` or behind it that matches; positions are numbers counted from 1.
    pub(super) fn read(&self, filter: &str, from: u64) -> Option<JournalRecord> {
        let mut state = self.lock();
        state.trim(Instant::now());
        let first = state.first;
        let skipped = from.saturating_sub(first + 1) as usize;
        let mut later = state.kept.iter().enumerate().skip(skipped);
        let (at, kept) = later.find(|(_, kept)| matches(filter, &kept.subject))?;
        let (subject, payload) = (kept.subject.clone(), kept.payload.clone());
        Some(JournalRecord { position: first + at as u64 + 1, subject, payload })
    }

    /// Returns the position of the newest fact.
    pub(super) fn end(&self) -> u64 {
        let state = self.lock();
        state.first + state.kept.len() as u64
    }

    /// `Err`: there is no such reader.
    pub(super) async fn next(
        self: Arc<Self>,
        reader: &str,
        wait: Duration,
    ) -> Result<Option<JournalEntry>, BusError> {
        let deadline = Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Instant::now();
            let taken = self.lock().take(now, reader);
            let again = match taken {
                None => return Err(BusError::UnknownJournal { name: reader.to_owned() }),
                Some(Taken::Entry(entry)) => {
                    let (number, subject, payload, attempt) = *entry;
                    let control = MemEntry { journal: self.clone(), reader: reader.to_owned(), number };
                    return Ok(Some(JournalEntry::new(subject, payload, attempt, Box::new(control))));
                }
                Some(Taken::Wait(again)) => again.map_or(deadline, |at| at.min(deadline)),
            };
            if now >= deadline {
                return Ok(None);
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(again) => {}
            }
        }
    }
}

/// A reader's hold on a fact.
struct MemEntry {
    journal: Arc<MemJournal>,
    reader: String,
    number: u64,
}

impl MemEntry {
    fn with(&self, change: impl FnOnce(&mut Reader, u64)) {
        if let Some(reader) = self.journal.lock().readers.get_mut(&self.reader) {
            change(reader, self.number);
        }
        self.journal.changed.notify_waiters();
    }
}

#[async_trait]
impl JobControl for MemEntry {
    async fn ack(&self) -> Result<(), BusError> {
        self.with(|reader, number| {
            reader.held.remove(&number);
        });
        Ok(())
    }

    async fn nak(&self, delay: Duration) -> Result<(), BusError> {
        self.with(|reader, number| {
            if let Some(held) = reader.held.get_mut(&number) {
                held.hold.put_back(delay);
            }
        });
        Ok(())
    }

    async fn in_progress(&self) -> Result<(), BusError> {
        self.with(|reader, number| {
            if let Some(held) = reader.held.get_mut(&number) {
                held.hold.extend(reader.config.ack_wait);
            }
        });
        Ok(())
    }

    async fn term(&self) -> Result<(), BusError> {
        self.ack().await
    }
}
