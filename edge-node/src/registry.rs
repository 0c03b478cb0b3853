//! Which streams are followed: one feed for each stream that somebody asks for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use millrace_runtime::Clock;
use millrace_state::SharedState;
use millrace_wire::catalog::PlaybackRecord;
use millrace_wire::ids::{PlaybackId, StreamId};
use millrace_wire::state_keys;
use tokio::sync::mpsc;

use crate::metrics::EdgeMetrics;
use crate::stream::LiveStream;

/// How long an unknown playback id is refused without asking the state store.
const UNKNOWN_MS: u64 = 2_000;
/// Unknown ids remembered; beyond them all are forgotten, so inventing ids costs a fixed amount of memory.
const MAX_UNKNOWN: usize = 16_384;
/// The state store's time to say which stream a playback id names.
const RESOLVE_LIMIT: Duration = Duration::from_secs(3);
/// Look-ups in the state store at once, for ids nobody watches yet.
const MAX_RESOLVING: usize = 64;
/// Streams waiting for their feed to be started.
const START_QUEUE: usize = 1_024;

/// Why a playback id has no stream here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoStream {
    /// There is no such stream.
    Unknown,
    /// Not now: the state store is away, or all feeds are taken.
    Busy,
}

/// The followed streams.
pub struct Registry {
    streams: RwLock<HashMap<PlaybackId, Arc<LiveStream>>>,
    unknown: Mutex<HashMap<PlaybackId, u64>>,
    resolving: tokio::sync::Semaphore,
    state: SharedState,
    clock: Arc<dyn Clock>,
    start: mpsc::Sender<Arc<LiveStream>>,
    max_feeds: usize,
    metrics: EdgeMetrics,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("streams", &self.len()).finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty registry, and where the streams to be followed come out.
    pub fn new(
        state: SharedState,
        clock: Arc<dyn Clock>,
        max_feeds: usize,
        metrics: EdgeMetrics,
    ) -> (Arc<Self>, mpsc::Receiver<Arc<LiveStream>>) {
        let (start, starts) = mpsc::channel(START_QUEUE);
        let resolving = tokio::sync::Semaphore::new(MAX_RESOLVING);
        let (streams, unknown) = (RwLock::default(), Mutex::default());
        (Arc::new(Self { streams, unknown, resolving, state, clock, start, max_feeds, metrics }), starts)
    }

    /// The stream, if it is followed already.
    pub fn followed(&self, playback: PlaybackId) -> Option<Arc<LiveStream>> {
        let stream = self.streams.read().unwrap_or_else(PoisonError::into_inner).get(&playback).cloned()?;
        stream.touch(self.clock.now_ms());
        Some(stream)
    }

    /// The stream, followed from now on if it was not.
    pub async fn follow(&self, playback: PlaybackId) -> Result<Arc<LiveStream>, NoStream> {
        if let Some(stream) = self.followed(playback) {
            return Ok(stream);
        }
        if self.is_unknown(playback) {
            self.metrics.unknown_remembered.inc();
            return Err(NoStream::Unknown);
        }
        let Ok(_permit) = self.resolving.try_acquire() else { return Err(NoStream::Busy) };
        let key = state_keys::playback(playback);
        let record = match tokio::time::timeout(RESOLVE_LIMIT, self.state.get(&key)).await {
            Ok(Ok(record)) => record,
            Ok(Err(error)) => {
                tracing::warn!(%playback, %error, "playback id could not be looked up");
                return Err(NoStream::Busy);
            }
            Err(_) => return Err(NoStream::Busy),
        };
        let Some(id) = record.and_then(|r| stream_id(&r.value)) else {
            self.remember_unknown(playback);
            return Err(NoStream::Unknown);
        };
        self.insert(id, playback)
    }

    fn insert(&self, id: StreamId, playback: PlaybackId) -> Result<Arc<LiveStream>, NoStream> {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = streams.get(&playback) {
            return Ok(stream.clone());
        }
        if streams.len() >= self.max_feeds {
            return Err(NoStream::Busy);
        }
        let stream = Arc::new(LiveStream::new(id, playback, self.clock.now_ms()));
        // The supervisor of feeds takes them out at once; a full queue means that it is down.
        self.start.try_send(stream.clone()).map_err(|_| NoStream::Busy)?;
        streams.insert(playback, stream.clone());
        self.metrics.feeds.set(streams.len() as i64);
        Ok(stream)
    }

    /// Follows the stream no longer. `idle_ms`: only if nobody asked for it or waits for that long.
    pub fn leave(&self, stream: &LiveStream, idle_ms: u64) -> bool {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so nobody takes it between the question and the removal.
        let idle = self.clock.now_ms().saturating_sub(stream.used_ms()) >= idle_ms && stream.waiters() == 0;
        if idle {
            streams.remove(&stream.playback);
            self.metrics.feeds.set(streams.len() as i64);
        }
        idle
    }

    fn is_unknown(&self, playback: PlaybackId) -> bool {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.get(&playback).is_some_and(|until| self.clock.now_ms() < *until)
    }

    fn remember_unknown(&self, playback: PlaybackId) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= MAX_UNKNOWN {
            unknown.clear();
        }
        unknown.insert(playback, self.clock.now_ms() + UNKNOWN_MS);
    }

    /// How many streams are followed.
    pub fn len(&self) -> usize {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no stream is followed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many unknown ids are remembered.
    pub fn unknown_len(&self) -> usize {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The followed streams.
    pub fn all(&self) -> Vec<Arc<LiveStream>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Returns the stream of the record under a playback id; `None` if the record cannot be read.
fn stream_id(value: &[u8]) -> Option<StreamId> {
    PlaybackRecord::parse(value).ok().map(|record| record.stream)
}
