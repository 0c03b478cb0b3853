//! Playlists in the bucket, for players and CDNs that read it without an edge: HLS without low-latency tags and with
//! relative URLs, which lists only segments that are in the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millrace_protocol::playlist;
use millrace_runtime::Backoff;
use millrace_store::{Meta, SharedStore};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::PlaybackId;
use millrace_wire::object_names;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The media type of a playlist (RFC 8216 §4).
const CONTENT_TYPE: &str = "application/vnd.apple.mpegurl";
/// A player reloads about every two seconds; a cached playlist older than a second is stale.
const CACHE_CONTROL: &str = "public, max-age=1";
/// The longest time one attempt may take; a store slower than this counts as away.
const PUT_LIMIT: Duration = Duration::from_secs(10);
/// Shortest and longest pause between attempts; the next attempt puts the playlist as it is by then.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The longest time a job that ends waits for its last playlists.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Rendered playlists by key in the order they are put: media playlists before the multivariant one that names them.
type RenderedPlaylists = Vec<(String, Bytes)>;

/// The task that puts one stream's newest playlists, one object at a time.
pub(crate) struct PlaylistWriter {
    playback: PlaybackId,
    latest: watch::Sender<RenderedPlaylists>,
    current: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl PlaylistWriter {
    pub(crate) fn start(store: SharedStore, playback: PlaybackId) -> Self {
        let (latest, reader) = watch::channel(RenderedPlaylists::new());
        let current = Arc::new(AtomicBool::new(true));
        let task = tokio::spawn(run(store, reader, current.clone()));
        Self { playback, latest, current, task }
    }

    /// Renders the playlists of `checkpoint`, hands them to the task and returns at once. They replace older ones that
    /// still wait.
    pub(crate) fn publish(&self, checkpoint: &StreamState) {
        let playlists = render(self.playback, checkpoint);
        if !playlists.is_empty() {
            self.latest.send_replace(playlists);
        }
    }

    /// Puts no further playlist: another author has the stream.
    pub(crate) fn stop(&self) {
        self.current.store(false, Ordering::Release);
    }

    /// Waits until the newest playlists are put, at most [`CLOSE_LIMIT`].
    pub(crate) async fn close(self) {
        drop(self.latest);
        if tokio::time::timeout(CLOSE_LIMIT, self.task).await.is_err() {
            tracing::warn!("last playlists not put in time; the bucket keeps older ones");
        }
    }
}

fn render(playback: PlaybackId, checkpoint: &StreamState) -> RenderedPlaylists {
    let media = playlist::plain_media(checkpoint);
    let mut listed = checkpoint.clone();
    listed.renditions.retain(|rendition, _| media.iter().any(|(name, _)| name == rendition));
    let mut playlists: RenderedPlaylists = media
        .iter()
        .map(|(rendition, playlist)| {
            (
                object_names::airing_media_playlist(playback, rendition, checkpoint.airing),
                playlist.render().into(),
            )
        })
        .collect();
    if let Some(multivariant) = playlist::multivariant(&listed).filter(|_| !media.is_empty()) {
        playlists.push((object_names::multivariant(playback), multivariant.render().into()));
    }
    playlists
}

async fn run(store: SharedStore, mut latest: watch::Receiver<RenderedPlaylists>, current: Arc<AtomicBool>) {
    let mut written: HashMap<String, Bytes> = HashMap::new();
    let mut pause = Backoff::new(RETRY.0, RETRY.1);
    while latest.changed().await.is_ok() {
        loop {
            let playlists = latest.borrow_and_update().clone();
            if put_changed(&store, &playlists, &mut written, &current).await {
                break;
            }
            pause.wait().await;
        }
        pause.reset();
    }
}

/// Puts the playlists that differ from those put before. Returns false if the store did not take one.
async fn put_changed(
    store: &SharedStore,
    playlists: &RenderedPlaylists,
    written: &mut HashMap<String, Bytes>,
    current: &AtomicBool,
) -> bool {
    for (key, text) in playlists {
        if !current.load(Ordering::Acquire) {
            return true;
        }
        if written.get(key) == Some(text) {
            continue;
        }
        let meta = Meta::of_type(CONTENT_TYPE).cache(CACHE_CONTROL);
        let put = store.put(key, text.clone().into(), meta);
        let error = match tokio::time::timeout(PUT_LIMIT, put).await {
            Ok(Ok(())) => {
                written.insert(key.clone(), text.clone());
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", PUT_LIMIT.as_secs()),
        };
        tracing::warn!(key, error, "failed to put playlist; will retry");
        return false;
    }
    true
}
