//! One followed stream as requests see it: the newest playlists and how far each has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_wire::ids::{PlaybackId, Rendition, StreamId};
use tokio::sync::watch;

use crate::text::Text;

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Known, and nothing playable yet.
    #[default]
    Waiting,
    /// Playlists grow.
    Live,
    /// Playlists end with ENDLIST.
    Ended,
}

/// How far a media playlist has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// Media sequence number of the open segment: the one after the last complete one.
    pub open_msn: u64,
    /// Parts of the open segment.
    pub open_parts: u32,
    /// Parts of the segment before it.
    pub previous_parts: u32,
    /// No more will come.
    pub ended: bool,
}

/// What a blocking reload may be answered with (RFC 8216bis §6.2.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The playlist has it.
    Now,
    /// It will come.
    Later,
    /// Beyond what a client may ask for: 400.
    TooFar,
}

/// A client may ask for segments this far above the last complete one (RFC 8216bis §6.2.5.2).
const MAX_MSN_AHEAD: u64 = 2;
/// Parts a client may ask for beyond the newest: three is what the RFC names for short parts, and a client
/// that lost a second of parts may skip some.
const MAX_PARTS_AHEAD: u32 = 8;

impl Head {
    /// Whether the playlist holds segment `msn`, or its part `part`.
    pub fn reach(&self, msn: u64, part: Option<u32>) -> Reach {
        if self.ended {
            return Reach::Now;
        }
        let Some(part) = part else {
            return match msn {
                m if m < self.open_msn => Reach::Now,
                m if m < self.open_msn.saturating_add(MAX_MSN_AHEAD) => Reach::Later,
                _ => Reach::TooFar,
            };
        };
        // A part beyond the last one of its segment means the first of the next segment.
        let (msn, part) = match msn {
            m if m.saturating_add(1) == self.open_msn && part >= self.previous_parts => (self.open_msn, 0),
            m => (m, part),
        };
        if msn < self.open_msn || (msn == self.open_msn && part < self.open_parts) {
            Reach::Now
        } else if msn == self.open_msn && part >= self.open_parts + MAX_PARTS_AHEAD
            || msn >= self.open_msn + MAX_MSN_AHEAD
        {
            Reach::TooFar
        } else {
            Reach::Later
        }
    }
}

/// One rendition's playlist.
#[derive(Debug, Clone)]
pub struct MediaView {
    /// Which rendition.
    pub rendition: Rendition,
    /// The playlist.
    pub playlist: Arc<Text>,
    /// How far it has come.
    pub head: Head,
}

/// Everything a request needs, replaced as a whole by the feed at every change.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Where the stream stands.
    pub phase: Phase,
    /// Whether the feed follows its author without a gap.
    pub current: bool,
    /// The multivariant playlist, once it lists a rendition.
    pub multivariant: Option<Arc<Text>>,
    /// The media playlists; few, so a walk is the fastest look-up.
    pub media: Vec<MediaView>,
    /// TARGETDURATION in seconds, bounds how long a reload waits; 0 while unknown.
    pub target_duration_s: u64,
}

impl View {
    /// One rendition's playlist.
    pub fn rendition(&self, name: &str) -> Option<&MediaView> {
        self.media.iter().find(|m| m.rendition.as_str() == name)
    }
}

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
                *view = Arc::new(View { current, ..View::clone(view) });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_may_ask_for() {
        let head = Head { open_msn: 10, open_parts: 3, previous_parts: 5, ended: false };
        for (msn, part, reach) in [
            (9, None, Reach::Now),
            (10, None, Reach::Later),
            (11, None, Reach::Later),
            (12, None, Reach::TooFar),
            (u64::MAX, None, Reach::TooFar),
            (10, Some(2), Reach::Now),
            (10, Some(3), Reach::Later),
            (10, Some(11), Reach::TooFar),
            (11, Some(0), Reach::Later),
            (12, Some(0), Reach::TooFar),
            (9, Some(4), Reach::Now),
            (9, Some(5), Reach::Now),
            (2, Some(500), Reach::Now),
        ] {
            assert_eq!(head.reach(msn, part), reach, "{msn} {part:?}");
        }
        let fresh = Head { open_parts: 0, ..head };
        assert_eq!(fresh.reach(9, Some(5)), Reach::Later, "means the first part of segment 10");
        assert_eq!(fresh.reach(9, Some(4)), Reach::Now);
        assert_eq!(Head { ended: true, ..head }.reach(500, Some(1)), Reach::Now);
    }
}
