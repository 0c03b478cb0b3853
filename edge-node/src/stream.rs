//! One followed stream: the newest view of it, and who waits for the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_wire::ids::{PlaybackId, StreamId};
use tokio::sync::watch;

use crate::view::View;

/// A followed stream.
#[derive(Debug)]
pub struct LiveStream {
    /// Its internal id.
    pub id: StreamId,
    /// Its public id.
    pub playback: PlaybackId,
    view: watch::Sender<Arc<View>>,
    used_ms: AtomicU64,
    viewers: AtomicU64,
}

impl LiveStream {
    /// A stream nothing is known of.
    pub fn new(id: StreamId, playback: PlaybackId, now_ms: u64) -> Self {
        let (view, used_ms) = (watch::Sender::default(), AtomicU64::new(now_ms));
        Self { id, playback, view, used_ms, viewers: AtomicU64::new(0) }
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Told of each change.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Replaces the view and wakes the waiters.
    pub fn publish(&self, view: View) {
        self.view.send_replace(Arc::new(view));
    }

    /// Wakes the waiters without a change: bytes they wait for may have come.
    pub fn wake(&self) {
        self.view.send_modify(|_| {});
    }

    /// Notes whether the feed follows its author.
    pub fn set_current(&self, current: bool) {
        self.view.send_if_modified(|view| {
            let changed = view.current != current;
            if changed {
                *view = Arc::new(view.with_current(current));
            }
            changed
        });
    }

    /// Notes a request.
    pub fn touch(&self, now_ms: u64) {
        self.used_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// When it was last asked for.
    pub fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// How many viewers were counted last, over all edges.
    pub fn viewers(&self) -> u64 {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Notes the count.
    pub fn set_viewers(&self, count: u64) {
        self.viewers.store(count, Ordering::Relaxed);
    }

    /// How many requests wait.
    pub fn waiters(&self) -> usize {
        self.view.receiver_count()
    }
}
