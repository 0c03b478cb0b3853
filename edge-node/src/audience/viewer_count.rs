//! The number of viewers of a stream, which counting writes and playlists and reports read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use millrace_wire::ids::BroadcastId;

/// The number of viewers of one stream over all edges, as it was last counted, and the broadcast that they watch.
#[derive(Debug, Default)]
pub struct ViewerCount {
    viewers: AtomicU64,
    broadcast: Mutex<Option<BroadcastId>>,
}

impl ViewerCount {
    /// Returns the number of viewers.
    pub fn get(&self) -> u64 {
        self.viewers.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, viewers: u64) {
        self.viewers.store(viewers, Ordering::Relaxed);
    }

    /// Sets the broadcast that viewers watch; `None` while there is none or it has ended.
    pub fn set_broadcast(&self, broadcast: Option<BroadcastId>) {
        *self.broadcast.lock().unwrap_or_else(PoisonError::into_inner) = broadcast;
    }

    pub(super) fn broadcast(&self) -> Option<BroadcastId> {
        *self.broadcast.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
