//! One stream that viewers ask for: its newest playlists, and the requests that wait for the next ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millrace_wire::ids::{PlaybackId, StreamId};
use tokio::sync::watch;

use crate::audience::viewer_count::ViewerCount;
use crate::live::past::PastBroadcasts;
use crate::live::playlists::{Following, Presence, Status, StreamPlaylists};

/// A stream in the registry. A feed keeps its playlists current, or they come from the checkpoint of a broadcast that has
/// ended.
#[derive(Debug)]
pub struct LiveStream {
    /// The internal id, which names subjects and state keys.
    pub id: StreamId,
    /// The public id, which names URLs and objects.
    pub playback: PlaybackId,
    playlists: watch::Sender<Arc<StreamPlaylists>>,
    /// Changes far less often than the playlists: players wait for it with a request of its own.
    status: watch::Sender<Status>,
    /// Milliseconds of the process's monotonic clock, as every `_ms` here.
    used_ms: AtomicU64,
    viewers: Arc<ViewerCount>,
    past: PastBroadcasts,
    has_feed: AtomicBool,
    checkpoint_due_ms: AtomicU64,
}

impl LiveStream {
    /// Creates a stream of which nothing is known, and which has no feed.
    pub fn new(id: StreamId, playback: PlaybackId, now_ms: u64) -> Self {
        Self {
            id,
            playback,
            playlists: watch::Sender::default(),
            status: watch::Sender::default(),
            used_ms: AtomicU64::new(now_ms),
            viewers: Arc::default(),
            past: PastBroadcasts::default(),
            has_feed: AtomicBool::new(false),
            checkpoint_due_ms: AtomicU64::new(u64::MAX),
        }
    }

    /// Returns the newest playlists of the stream.
    pub fn playlists(&self) -> Arc<StreamPlaylists> {
        self.playlists.borrow().clone()
    }

    /// Returns a receiver that is woken by each change.
    pub fn watch(&self) -> watch::Receiver<Arc<StreamPlaylists>> {
        self.playlists.subscribe()
    }

    /// Returns a receiver that is woken by each change of the stream's status.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Replaces the playlists and wakes the waiting requests.
    pub fn publish(&self, playlists: StreamPlaylists) {
        let status = playlists.status();
        let on_air = playlists.state().filter(|state| !state.ended).map(|state| state.broadcast);
        self.viewers.set_broadcast(on_air);
        let airing = playlists.state().map(|state| state.airing);
        // Kept before the next broadcast is shown: a request that sees that one asks for this one at once.
        let before = self.playlists();
        if let Some(state) = before.state()
            && airing.is_some_and(|airing| airing > state.airing)
            && state.ended
        {
            self.past.keep(state.airing, before.clone());
        }
        self.playlists.send_replace(Arc::new(playlists));
        self.set_status(status);
    }

    /// Wakes the waiting requests without a change of the playlists: a part they wait for may be in memory now.
    pub fn wake(&self) {
        self.playlists.send_modify(|_| {});
    }

    /// Notes the relation of the playlists to the stream's log and the publisher's presence; a change wakes the waiting
    /// requests.
    pub fn set_following(&self, following: Following, presence: Presence) {
        let mut status = None;
        self.playlists.send_if_modified(|playlists| {
            let changed = (playlists.following, playlists.presence) != (following, presence);
            if changed {
                *playlists = Arc::new(playlists.with_following(following, presence));
                status = Some(playlists.status());
            }
            changed
        });
        if let Some(status) = status {
            self.set_status(status);
        }
    }

    fn set_status(&self, status: Status) {
        self.status.send_if_modified(|known| std::mem::replace(known, status) != status);
    }

    /// Returns the earlier broadcasts of the stream.
    pub(super) fn past(&self) -> &PastBroadcasts {
        &self.past
    }

    /// Notes a request, which keeps the stream in the registry.
    pub fn touch(&self, now_ms: u64) {
        self.used_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// Returns the time of the last request.
    pub fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// Returns the number of viewers over all edges, as it was last counted.
    pub fn viewers(&self) -> &Arc<ViewerCount> {
        &self.viewers
    }

    /// Returns the number of requests that wait for a change.
    pub fn waiters(&self) -> usize {
        self.playlists.receiver_count() + self.status.receiver_count()
    }

    /// Marks the stream as followed by a feed; false if it was already.
    pub(super) fn take_feed(&self) -> bool {
        !self.has_feed.swap(true, Ordering::AcqRel)
    }

    /// Sets the time from which the checkpoint of a stream without a feed is read again.
    pub(super) fn set_checkpoint_due(&self, at_ms: u64) {
        self.checkpoint_due_ms.store(at_ms, Ordering::Relaxed);
    }

    /// Returns true for one caller once the checkpoint of a stream without a feed is due, and moves the time to `next_ms`.
    pub(super) fn claim_checkpoint(&self, now_ms: u64, next_ms: u64) -> bool {
        let due_ms = self.checkpoint_due_ms.load(Ordering::Relaxed);
        let order = Ordering::Relaxed;
        now_ms >= due_ms
            && !self.has_feed.load(order)
            && self.checkpoint_due_ms.compare_exchange(due_ms, next_ms, order, order).is_ok()
    }
}
