//! The streams that viewers ask for. A stream that may be live gets a feed; a broadcast that has ended is shown from its
//! checkpoint.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use millrace_runtime::Clock;
use millrace_state::SharedState;
use millrace_wire::ids::{Airing, PlaybackId, StreamId};
use tokio::sync::mpsc;

use crate::live::checkpoint;
use crate::live::playlists::{Following, Presence, StreamPlaylists};
use crate::live::stream::LiveStream;
use crate::metrics::EdgeMetrics;
use crate::objects::single_flight::SingleFlight;

/// Streams waiting for their feed to be started, beyond those that the actor `registry` is starting; a full queue means that it
/// is stuck or down.
const START_QUEUE: usize = 1_024;
/// Time between two checks of the checkpoint of an ended broadcast that viewers ask for, in milliseconds: control announces a
/// stream that goes live again once a second, so a shorter time would not show it sooner.
const CHECKPOINT_CHECK_MS: u64 = 1_000;

/// A stream could not be opened: as many are open as may be, or feeds are not started at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryFull;

type Opened = Result<Arc<LiveStream>, RegistryFull>;

/// The open streams, by playback id.
pub struct Registry {
    streams: RwLock<HashMap<PlaybackId, Arc<LiveStream>>>,
    opening: Arc<SingleFlight<PlaybackId, Opened>>,
    state: SharedState,
    clock: Arc<dyn Clock>,
    start: mpsc::Sender<Arc<LiveStream>>,
    max_streams: usize,
    metrics: EdgeMetrics,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("streams", &self.len()).finish_non_exhaustive()
    }
}

impl Registry {
    /// Creates an empty registry, and the queue of streams that are to be followed by a feed.
    pub fn new(
        state: SharedState,
        clock: Arc<dyn Clock>,
        max_streams: usize,
        metrics: EdgeMetrics,
    ) -> (Arc<Self>, mpsc::Receiver<Arc<LiveStream>>) {
        let (start, starts) = mpsc::channel(START_QUEUE);
        let (streams, opening) = (RwLock::default(), Arc::default());
        let registry = Self { streams, opening, state, clock, start, max_streams, metrics };
        (Arc::new(registry), starts)
    }

    /// Returns the stream if it is open, and notes the request.
    pub fn get(self: &Arc<Self>, playback: PlaybackId) -> Option<Arc<LiveStream>> {
        let stream = self.streams.read().unwrap_or_else(PoisonError::into_inner).get(&playback).cloned()?;
        let now_ms = self.clock.now_ms();
        stream.touch(now_ms);
        if stream.claim_checkpoint(now_ms, now_ms + CHECKPOINT_CHECK_MS) {
            let (registry, stream) = (self.clone(), stream.clone());
            tokio::spawn(async move { registry.check_checkpoint(&stream).await });
        }
        Some(stream)
    }

    /// Opens the stream that `playback` names, unless it is open already. The caller has looked both up in the catalogue.
    pub async fn open(self: &Arc<Self>, playback: PlaybackId, id: StreamId) -> Opened {
        let known = || self.get(playback).map(Ok);
        let start = || {
            let registry = self.clone();
            async move { registry.open_new(playback, id).await }
        };
        self.opening.run(&playback, known, start).await.value.unwrap_or(Err(RegistryFull))
    }

    async fn open_new(&self, playback: PlaybackId, id: StreamId) -> Opened {
        let ended = checkpoint::read_ended(&self.state, id).await;
        let now_ms = self.clock.now_ms();
        let stream = Arc::new(LiveStream::new(id, playback, now_ms));
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if streams.len() >= self.max_streams {
            return Err(RegistryFull);
        }
        if let Some(ended) = ended {
            stream.publish(StreamPlaylists::new(Arc::new(ended), Following::NoLog, Presence::NoPublisher));
            stream.set_checkpoint_due(now_ms + CHECKPOINT_CHECK_MS);
        } else {
            self.start_feed(&stream)?;
        }
        streams.insert(playback, stream.clone());
        self.count(&streams);
        Ok(stream)
    }

    /// Returns the playlists of an earlier broadcast of a stream; `None` if they are gone.
    pub async fn past(&self, stream: &LiveStream, airing: Airing) -> Option<Arc<StreamPlaylists>> {
        stream.past().get(&self.state, stream.id, airing).await
    }

    fn start_feed(&self, stream: &Arc<LiveStream>) -> Result<(), RegistryFull> {
        let slot = self.start.try_reserve().map_err(|_| RegistryFull)?;
        if stream.take_feed() {
            slot.send(stream.clone());
        }
        Ok(())
    }

    /// Shows a newer checkpoint of an ended broadcast, or starts a feed when the stream may be live again.
    async fn check_checkpoint(&self, stream: &Arc<LiveStream>) {
        match checkpoint::read_ended(&self.state, stream.id).await {
            Some(ended) if stream.playlists().shows(&ended) => {}
            Some(ended) => {
                stream.publish(StreamPlaylists::new(
                    Arc::new(ended),
                    Following::NoLog,
                    Presence::NoPublisher,
                ));
            }
            None => {
                if self.start_feed(stream).is_err() {
                    tracing::warn!(stream = %stream.id, "feed queue full; the ended broadcast is shown until the next check");
                }
            }
        }
    }

    /// Closes the stream if no request has come for `idle_ms` and none waits; true if it was closed.
    pub fn close_idle(&self, stream: &Arc<LiveStream>, idle_ms: u64) -> bool {
        // Most streams are in use: they are passed over without the lock, which would hold up requests.
        if !self.is_idle(stream, idle_ms) {
            return false;
        }
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        // Decided under the lock, so that no request takes the stream between the decision and the removal.
        let idle = self.is_idle(stream, idle_ms);
        if idle {
            self.remove(&mut streams, stream);
        }
        idle
    }

    fn is_idle(&self, stream: &LiveStream, idle_ms: u64) -> bool {
        let unused_ms = self.clock.now_ms().saturating_sub(stream.used_ms());
        unused_ms >= idle_ms && stream.waiters() == 0
    }

    /// Closes a stream whose feed has ended for good, so that the next request opens it anew.
    pub fn close(&self, stream: &Arc<LiveStream>) {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        self.remove(&mut streams, stream);
    }

    fn remove(&self, streams: &mut HashMap<PlaybackId, Arc<LiveStream>>, stream: &Arc<LiveStream>) {
        // A stream of the same id may have been opened since.
        if streams.get(&stream.playback).is_some_and(|open| Arc::ptr_eq(open, stream)) {
            streams.remove(&stream.playback);
            self.count(streams);
        }
    }

    /// Returns true if this very stream is open.
    pub fn holds(&self, stream: &Arc<LiveStream>) -> bool {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        streams.get(&stream.playback).is_some_and(|open| Arc::ptr_eq(open, stream))
    }

    fn count(&self, streams: &HashMap<PlaybackId, Arc<LiveStream>>) {
        self.metrics.streams.set(streams.len() as i64);
    }

    /// Returns the number of open streams.
    pub fn len(&self) -> usize {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Returns true if no stream is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all streams that are open at this moment.
    pub fn all(&self) -> Vec<Arc<LiveStream>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
