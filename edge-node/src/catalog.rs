//! The catalogue: it finds the record of the livestream that a playback id names, with its access policy, and
//! starts no feed.
//!
//! Records come from the state store and are cached. A record older than [`FRESH_MS`] is still served while one request
//! reads it again in the background, so cached records are served while the state store is away. Ids
//! that do not exist are refused from memory for [`UNKNOWN_MS`], so that polling one costs the state store nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use millrace_runtime::{Clock, LogLimit};
use millrace_state::SharedState;
use millrace_wire::catalog::{PlaybackPolicy, PlaybackRecord};
use millrace_wire::ids::{PlaybackId, StreamId};
use millrace_wire::state_keys;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::Semaphore;

use crate::metrics::EdgeMetrics;
use crate::objects::single_flight::SingleFlight;

/// Age in milliseconds from which a record is read again: the first request after it is answered from the old record, later ones
/// from the new one.
const FRESH_MS: u64 = 10_000;
/// Time in milliseconds for which an unknown playback id is refused from memory.
const UNKNOWN_MS: u64 = 2_000;
/// Time after which a record that could not be read again is tried again: the state store is not asked with every request.
const RETRY_MS: u64 = 2_000;
/// Cached records; the half read from the state store longest ago is removed when they are more. A record takes about 150 bytes and its title.
const MAX_KNOWN: usize = 65_536;
/// Remembered unknown ids; all are forgotten when they are more, so inventing ids costs a fixed amount of memory.
const MAX_UNKNOWN: usize = 16_384;
/// The longest wait for the state store in a look-up; a player gives up after about 10 s.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// Concurrent look-ups in the state store; a request beyond them is answered with 503.
const MAX_READS: usize = 64;

/// The reason why an edge serves nothing for a playback id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotServed {
    /// No livestream has this playback id: 404.
    Unknown,
    /// The state store does not answer, the record is malformed, or the edge is at a limit: 503, the client comes again.
    Busy,
    /// The livestream's record has a policy that this release does not know: 403.
    Forbidden,
}

type Found = Result<Arc<PlaybackRecord>, NotServed>;

#[derive(Debug)]
struct Known {
    found: Found,
    /// Milliseconds of the process's monotonic clock.
    read_again_ms: AtomicU64,
}

enum Cached {
    Fresh(Found),
    /// The record has expired, and this request is the one that is to read it again.
    Expired(Found),
    Unknown,
    Absent,
}

/// A playback record that is well-formed but for its policy, which a later release may have written.
#[derive(Deserialize)]
struct OtherPolicy {
    #[serde(rename = "stream")]
    _stream: StreamId,
    #[serde(rename = "policy")]
    _policy: IgnoredAny,
}

/// The cache of playback records.
pub struct Catalog {
    state: SharedState,
    clock: Arc<dyn Clock>,
    metrics: EdgeMetrics,
    known: RwLock<HashMap<PlaybackId, Known>>,
    unknown: Mutex<HashMap<PlaybackId, u64>>,
    flights: Arc<SingleFlight<PlaybackId, Found>>,
    reads: Semaphore,
    failures: LogLimit,
    refusals: LogLimit,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("known", &self.known_len()).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Creates an empty catalogue over the state store.
    pub fn new(state: SharedState, clock: Arc<dyn Clock>, metrics: EdgeMetrics) -> Arc<Self> {
        Arc::new(Self {
            state,
            clock,
            metrics,
            known: RwLock::default(),
            unknown: Mutex::default(),
            flights: Arc::default(),
            reads: Semaphore::new(MAX_READS),
            failures: LogLimit::default(),
            refusals: LogLimit::default(),
        })
    }

    /// Returns the record of a livestream that may be served. Reads the state store when the id is not cached.
    pub async fn find(self: &Arc<Self>, playback: PlaybackId) -> Found {
        let record = match self.cached(playback) {
            Cached::Fresh(found) => found,
            Cached::Expired(found) => {
                let catalog = self.clone();
                tokio::spawn(async move { catalog.read(playback).await });
                found
            }
            Cached::Unknown => {
                self.metrics.unknown_remembered.inc();
                Err(NotServed::Unknown)
            }
            Cached::Absent => self.find_in_store(playback).await,
        }?;
        match record.policy {
            PlaybackPolicy::Public => Ok(record),
        }
    }

    async fn find_in_store(self: &Arc<Self>, playback: PlaybackId) -> Found {
        let known = || match self.cached(playback) {
            Cached::Fresh(found) | Cached::Expired(found) => Some(found),
            Cached::Unknown => Some(Err(NotServed::Unknown)),
            Cached::Absent => None,
        };
        let start = || {
            let catalog = self.clone();
            async move { catalog.read(playback).await }
        };
        self.flights.run(&playback, known, start).await.value.unwrap_or(Err(NotServed::Busy))
    }

    fn cached(&self, playback: PlaybackId) -> Cached {
        let now_ms = self.clock.now_ms();
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&playback) {
            let due_ms = known.read_again_ms.load(Ordering::Relaxed);
            let claim = |due_ms| {
                let retry_ms = now_ms + RETRY_MS;
                let order = Ordering::Relaxed;
                known.read_again_ms.compare_exchange(due_ms, retry_ms, order, order).is_ok()
            };
            let found = known.found.clone();
            return if due_ms <= now_ms && claim(due_ms) {
                Cached::Expired(found)
            } else {
                Cached::Fresh(found)
            };
        }
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        match unknown.get(&playback) {
            Some(until_ms) if now_ms < *until_ms => Cached::Unknown,
            _ => Cached::Absent,
        }
    }

    /// Reads a record from the state store and caches the answer. A failure leaves the cache as it is.
    async fn read(&self, playback: PlaybackId) -> Found {
        let Ok(_permit) = self.reads.try_acquire() else { return Err(NotServed::Busy) };
        self.metrics.catalog_reads.inc();
        let key = state_keys::playback(playback);
        let value = match tokio::time::timeout(READ_LIMIT, self.state.get(&key)).await {
            Ok(Ok(record)) => record.map(|record| record.value),
            Ok(Err(error)) => {
                if let Some(suppressed) = self.failures.due() {
                    tracing::warn!(%playback, %error, suppressed, "playback record could not be read; cached records are served, other ids are answered with 503");
                }
                return Err(NotServed::Busy);
            }
            Err(_) => {
                let limit_s = READ_LIMIT.as_secs();
                if let Some(suppressed) = self.failures.due() {
                    tracing::warn!(%playback, limit_s, suppressed, "playback record read timed out; cached records are served, other ids are answered with 503");
                }
                return Err(NotServed::Busy);
            }
        };
        let Some(value) = value else {
            self.forget(playback);
            return Err(NotServed::Unknown);
        };
        let found = match PlaybackRecord::parse(&value) {
            Ok(record) => Ok(Arc::new(record)),
            Err(error) if serde_json::from_slice::<OtherPolicy>(&value).is_ok() => {
                if let Some(suppressed) = self.refusals.due() {
                    tracing::warn!(%playback, %error, suppressed, "access policy not known to this release; the stream is answered with 403");
                }
                Err(NotServed::Forbidden)
            }
            Err(error) => {
                if let Some(suppressed) = self.failures.due() {
                    tracing::warn!(%playback, %error, suppressed, "malformed playback record; a cached one is served, otherwise the stream is answered with 503");
                }
                return Err(NotServed::Busy);
            }
        };
        self.remember(playback, found.clone());
        found
    }

    fn remember(&self, playback: PlaybackId, found: Found) {
        let read_again_ms = AtomicU64::new(self.clock.now_ms() + FRESH_MS);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN && !known.contains_key(&playback) {
            evict_older_half(&mut known);
        }
        known.insert(playback, Known { found, read_again_ms });
        self.metrics.catalog_records.set(known.len() as i64);
    }

    fn forget(&self, playback: PlaybackId) {
        {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.remove(&playback);
            self.metrics.catalog_records.set(known.len() as i64);
        }
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= MAX_UNKNOWN {
            unknown.clear();
        }
        unknown.insert(playback, self.clock.now_ms() + UNKNOWN_MS);
    }

    /// Returns the number of cached records.
    pub fn known_len(&self) -> usize {
        self.known.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Returns the number of remembered unknown ids.
    pub fn unknown_len(&self) -> usize {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Removes the half of the records that are to be read again first. One walk frees half, so walks are rare.
fn evict_older_half(known: &mut HashMap<PlaybackId, Known>) {
    let mut due: Vec<u64> = known.values().map(|entry| entry.read_again_ms.load(Ordering::Relaxed)).collect();
    let middle = due.len() / 2;
    let (_, median, _) = due.select_nth_unstable(middle);
    let median = *median;
    let mut surplus = middle;
    known.retain(|_, entry| {
        let old = entry.read_again_ms.load(Ordering::Relaxed) <= median && surplus > 0;
        surplus -= usize::from(old);
        !old
    });
}

#[cfg(test)]
mod tests {
    use millrace_runtime::{ManualClock, Metrics};
    use millrace_state::{FaultyState, RedbState, StateFaults, StateStore, Tx};

    use super::*;

    const STREAM: StreamId = StreamId::from_u128(9);

    struct World {
        clock: ManualClock,
        state: FaultyState,
        metrics: EdgeMetrics,
        catalog: Arc<Catalog>,
        _dir: tempfile::TempDir,
    }

    async fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let redb = RedbState::open(dir.path().join("state.redb")).await.unwrap();
        let state = FaultyState::new(Arc::new(redb), 1);
        let (clock, metrics) =
            (ManualClock::at_unix_ms(1_790_000_000_000), EdgeMetrics::new(&Metrics::new()));
        let catalog = Catalog::new(Arc::new(state.clone()), Arc::new(clock.clone()), metrics.clone());
        World { clock, state, metrics, catalog, _dir: dir }
    }

    fn playback(number: u128) -> PlaybackId {
        format!("{number:032x}").parse().unwrap()
    }

    async fn until(world: &World, reads: u64) {
        while world.metrics.catalog_reads.get() < reads {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn catalog_serves_known_ids_while_the_state_store_is_away_and_refuses_others_as_busy() {
        let world = world().await;
        let record = PlaybackRecord::public(STREAM).encode().unwrap();
        world.state.commit(Tx::new().put(state_keys::playback(playback(1)), record)).await.unwrap();
        assert_eq!(world.catalog.find(playback(1)).await.unwrap().stream, STREAM);
        world.state.set(StateFaults { away: true, ..StateFaults::default() });
        world.clock.advance_ms(FRESH_MS + 1);
        for _ in 0..100 {
            assert_eq!(world.catalog.find(playback(1)).await.unwrap().stream, STREAM);
        }
        until(&world, 2).await;
        assert_eq!(world.metrics.catalog_reads.get(), 2, "an expired record is read again once");
        assert_eq!(world.catalog.find(playback(2)).await, Err(NotServed::Busy));
        assert_eq!(world.catalog.unknown_len(), 0, "a failed read is not remembered");
    }

    #[tokio::test]
    async fn catalog_remembers_unknown_ids_for_a_time_and_forgets_deleted_records() {
        let world = world().await;
        assert_eq!(world.catalog.find(playback(1)).await, Err(NotServed::Unknown));
        assert_eq!(world.catalog.find(playback(1)).await, Err(NotServed::Unknown));
        assert_eq!(world.metrics.catalog_reads.get(), 1);
        world.clock.advance_ms(UNKNOWN_MS);
        let key = state_keys::playback(playback(1));
        let record = PlaybackRecord::public(STREAM).encode().unwrap();
        world.state.commit(Tx::new().put(key.clone(), record)).await.unwrap();
        assert!(world.catalog.find(playback(1)).await.is_ok());
        world.state.commit(Tx::new().delete(key)).await.unwrap();
        world.clock.advance_ms(FRESH_MS);
        assert!(world.catalog.find(playback(1)).await.is_ok(), "the expired record is served once more");
        while world.catalog.known_len() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.catalog.find(playback(1)).await, Err(NotServed::Unknown));
    }

    #[tokio::test]
    async fn catalog_refuses_a_policy_of_a_later_release() {
        let world = world().await;
        let record = format!("{{\"stream\":\"{STREAM}\",\"policy\":\"token\"}}");
        world.state.commit(Tx::new().put(state_keys::playback(playback(1)), record)).await.unwrap();
        assert_eq!(world.catalog.find(playback(1)).await, Err(NotServed::Forbidden));
    }

    #[tokio::test]
    async fn catalog_refuses_a_malformed_record_as_busy_and_reads_it_again() {
        let world = world().await;
        let key = state_keys::playback(playback(1));
        world.state.commit(Tx::new().put(key.clone(), "{broken")).await.unwrap();
        assert_eq!(world.catalog.find(playback(1)).await, Err(NotServed::Busy));
        let record = PlaybackRecord::public(STREAM).encode().unwrap();
        world.state.commit(Tx::new().put(key, record)).await.unwrap();
        assert!(world.catalog.find(playback(1)).await.is_ok());
    }

    #[tokio::test]
    async fn catalog_holds_a_bounded_number_of_records_and_evicts_those_read_longest_ago() {
        let world = world().await;
        for number in 0..=MAX_KNOWN as u128 {
            world.clock.advance_ms(1);
            world.catalog.remember(playback(number), Ok(Arc::new(PlaybackRecord::public(STREAM))));
        }
        assert_eq!(world.catalog.known_len(), MAX_KNOWN / 2 + 1);
        assert!(matches!(world.catalog.cached(playback(0)), Cached::Absent));
        assert!(matches!(world.catalog.cached(playback(MAX_KNOWN as u128)), Cached::Fresh(_)));
        for number in 0..=MAX_UNKNOWN as u128 {
            world.catalog.forget(playback(number));
        }
        assert_eq!(world.catalog.unknown_len(), 1);
    }
}
