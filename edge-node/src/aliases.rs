//! Stream keys in viewers' URLs, for players that a site sends there: each stands for the public id of its livestream.
//!
//! The edge knows no keys. It hashes the one in the URL and asks control which livestream the hash belongs to. Answers are
//! remembered for a moment. An address that asks for keys which do not exist has a bounded number of tries, because a right
//! guess could publish.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_link::Link;
use millrace_runtime::address::network;
use millrace_runtime::{Clock, LogLimit, Secret};
use millrace_wire::ids::{KeyHash, PlaybackId};
use millrace_wire::message::alias::AliasRequest;
use millrace_wire::topics;
use tokio::sync::Semaphore;

use crate::catalog::NotServed;

/// Time in milliseconds for which the livestream of a key is remembered.
const KNOWN_MS: u64 = 10_000;
/// Time in milliseconds for which a key is refused from memory that control does not know.
const UNKNOWN_MS: u64 = 2_000;
/// Remembered answers; all are forgotten when they are more, so inventing keys costs a fixed amount of memory.
const MAX_REMEMBERED: usize = 16_384;
/// Questions to control at once; a request beyond them is answered with 503.
const MAX_QUESTIONS: usize = 16;
/// The longest wait for control; a player gives up after about 10 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Unknown keys that one address may ask for within [`TRIES_MS`]: a page that waits for its stream asks every two or three
/// seconds, and a handful of viewers share an address.
const MAX_TRIES: u32 = 120;
/// The time in milliseconds over which tries are counted.
const TRIES_MS: u64 = 60_000;
/// Addresses whose tries are counted; all are forgotten when they are more.
const MAX_ADDRESSES: usize = 16_384;

/// A map with a bound: it is emptied when it is full.
#[derive(Debug)]
struct Bounded<K, V> {
    entries: HashMap<K, V>,
    most: usize,
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), most }
    }

    fn insert(&mut self, key: K, value: V) {
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            self.entries.clear();
        }
        self.entries.insert(key, value);
    }
}

#[derive(Debug)]
struct Memory {
    /// The answers of control, each until the time in milliseconds.
    answers: Bounded<KeyHash, (Option<PlaybackId>, u64)>,
    /// The tries of addresses since the time in milliseconds.
    tries: Bounded<IpAddr, (u32, u64)>,
}

/// Finds the livestreams behind keys.
pub(crate) struct Aliases {
    link: Link,
    secret: Secret<Vec<u8>>,
    clock: Arc<dyn Clock>,
    memory: Mutex<Memory>,
    questions: Semaphore,
    failures: LogLimit,
}

impl Aliases {
    /// Creates an empty memory. `secret` is the cluster's secret for key hashes.
    pub(crate) fn new(link: Link, secret: Secret<Vec<u8>>, clock: Arc<dyn Clock>) -> Self {
        let memory = Memory { answers: Bounded::new(MAX_REMEMBERED), tries: Bounded::new(MAX_ADDRESSES) };
        Self {
            link,
            secret,
            clock,
            memory: Mutex::new(memory),
            questions: Semaphore::new(MAX_QUESTIONS),
            failures: LogLimit::default(),
        }
    }

    /// Returns the public id behind a key that `address` asks for.
    pub(crate) async fn find(&self, key: &str, address: Option<IpAddr>) -> Result<PlaybackId, NotServed> {
        let Some(key_hash) = KeyHash::of_text(self.secret.expose(), key) else {
            return Err(NotServed::Unknown);
        };
        let now_ms = self.clock.now_ms();
        let remembered = {
            let memory = self.lock();
            let answer = memory.answers.entries.get(&key_hash).filter(|(_, until_ms)| now_ms < *until_ms);
            answer.map(|(playback, _)| *playback)
        };
        if let Some(Some(playback)) = remembered {
            return Ok(playback);
        }
        if !self.may_try(address, now_ms) {
            return Err(NotServed::Busy);
        }
        let found = match remembered {
            Some(found) => found,
            None => self.ask(key_hash).await?,
        };
        let mut memory = self.lock();
        if remembered.is_none() {
            let lasts_ms = if found.is_some() { KNOWN_MS } else { UNKNOWN_MS };
            memory.answers.insert(key_hash, (found, now_ms + lasts_ms));
        }
        found.ok_or_else(|| {
            if let Some(address) = address.map(network) {
                let (tries, since_ms) = memory.tries.entries.get(&address).copied().unwrap_or((0, now_ms));
                let begins_anew = now_ms >= since_ms + TRIES_MS;
                let counted = if begins_anew { (1, now_ms) } else { (tries + 1, since_ms) };
                memory.tries.insert(address, counted);
            }
            NotServed::Unknown
        })
    }

    /// Returns true unless the address has asked for too many keys that do not exist.
    fn may_try(&self, address: Option<IpAddr>, now_ms: u64) -> bool {
        let Some(address) = address.map(network) else { return true };
        let memory = self.lock();
        let tries = memory.tries.entries.get(&address);
        tries.is_none_or(|(tries, since_ms)| *tries < MAX_TRIES || now_ms >= since_ms + TRIES_MS)
    }

    async fn ask(&self, key_hash: KeyHash) -> Result<Option<PlaybackId>, NotServed> {
        let Ok(_permit) = self.questions.try_acquire() else { return Err(NotServed::Busy) };
        let asked = self.link.request(&topics::alias(), &AliasRequest { key_hash }, ANSWER_LIMIT).await;
        asked.map(|reply| reply.playback).map_err(|error| {
            if let Some(suppressed) = self.failures.due() {
                tracing::warn!(%error, suppressed, "control did not say which livestream a stream key belongs to; the viewer is answered with 503");
            }
            NotServed::Busy
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
