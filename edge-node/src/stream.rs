//! One followed stream as requests see it: the newest playlists and how far each has come.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use millrace_cluster::render::media_with_reports;
pub use millrace_cluster::render::{Head, Reach};
use millrace_wire::fact::Snapshot;
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

/// One rendition's playlist.
#[derive(Debug, Clone)]
pub struct MediaView {
    /// Which rendition.
    pub rendition: Rendition,
    /// How far it has come.
    pub head: Head,
    playlist: Arc<Playlist>,
}

#[derive(Debug)]
struct Playlist {
    snapshot: Arc<Snapshot>,
    text: OnceLock<Arc<Text>>,
}

impl MediaView {
    /// The playlist of `rendition` as `snapshot` has it.
    pub fn new(snapshot: Arc<Snapshot>, rendition: Rendition, head: Head) -> Self {
        Self { rendition, head, playlist: Arc::new(Playlist { snapshot, text: OnceLock::new() }) }
    }

    /// The playlist: rendered at the first request for it, and once. What nobody asks for costs nothing.
    pub fn playlist(&self) -> Arc<Text> {
        let Playlist { snapshot, text } = &*self.playlist;
        let render = || {
            let playlist = media_with_reports(snapshot, &self.rendition);
            Arc::new(Text::new(playlist.map(|playlist| playlist.render()).unwrap_or_default()))
        };
        text.get_or_init(render).clone()
    }
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
