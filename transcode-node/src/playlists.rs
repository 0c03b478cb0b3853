//! Playlists in the bucket, for players and CDNs that read it without an edge: plain HLS with relative URLs, listing only
//! what is in the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millrace_protocol::playlist;
use millrace_runtime::Backoff;
use millrace_store::{Meta, PutBody, SharedStore};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::PlaybackId;
use millrace_wire::object_names;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// RFC 8216 §4.
const TYPE: &str = "application/vnd.apple.mpegurl";
/// A player reloads about every two seconds; older than that is stale.
const CACHE: &str = "public, max-age=1";
/// For one attempt; a store slower than this is away.
const PUT_LIMIT: Duration = Duration::from_secs(10);
/// Pauses between attempts; what became of the playlist meanwhile is put instead.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A job that ends waits this long for its last playlists.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Playlists by key, in the order they are put: media playlists before the one that names them.
type Texts = Vec<(String, Bytes)>;

/// Puts the newest playlists, one object at a time, behind the caller's back.
pub(crate) struct Playlists {
    playback: PlaybackId,
    latest: watch::Sender<Texts>,
    fresh: Arc<AtomicBool>,
    writer: JoinHandle<()>,
}

impl Playlists {
    pub(crate) fn start(store: SharedStore, playback: PlaybackId) -> Self {
        let (latest, reader) = watch::channel(Texts::new());
        let fresh = Arc::new(AtomicBool::new(true));
        let writer = tokio::spawn(write(store, reader, fresh.clone()));
        Self { playback, latest, fresh, writer }
    }

    /// Has the playlists of `rest`, a state at rest, put; older ones still waiting are not.
    pub(crate) fn publish(&self, rest: &StreamState) {
        let texts = texts(self.playback, rest);
        if !texts.is_empty() {
            self.latest.send_replace(texts);
        }
    }

    /// Another author has the stream: nothing more is put.
    pub(crate) fn stop(&self) {
        self.fresh.store(false, Ordering::Release);
    }

    /// Returns when the newest playlists are put, or not in time.
    pub(crate) async fn close(self) {
        drop(self.latest);
        if tokio::time::timeout(CLOSE_LIMIT, self.writer).await.is_err() {
            tracing::warn!("the stream's last playlists are not in the store yet");
        }
    }
}

fn texts(playback: PlaybackId, rest: &StreamState) -> Texts {
    let media = playlist::plain_media(rest);
    let mut listed = rest.clone();
    listed.renditions.retain(|r, _| media.iter().any(|(name, _)| name == r));
    let mut texts: Texts = media
        .iter()
        .map(|(r, playlist)| (object_names::media_playlist(playback, r), playlist.render().into()))
        .collect();
    if let Some(multivariant) = playlist::multivariant(&listed).filter(|_| !media.is_empty()) {
        texts.push((object_names::multivariant(playback), multivariant.render().into()));
    }
    texts
}

async fn write(store: SharedStore, mut latest: watch::Receiver<Texts>, fresh: Arc<AtomicBool>) {
    let mut written: HashMap<String, Bytes> = HashMap::new();
    let mut pause = Backoff::new(RETRY.0, RETRY.1);
    while latest.changed().await.is_ok() {
        loop {
            let texts = latest.borrow_and_update().clone();
            if put_changed(&store, &texts, &mut written, &fresh).await {
                break;
            }
            pause.wait().await;
        }
        pause.reset();
    }
}

/// Puts what differs from what was put before; `false` when the store did not take it.
async fn put_changed(
    store: &SharedStore,
    texts: &Texts,
    written: &mut HashMap<String, Bytes>,
    fresh: &AtomicBool,
) -> bool {
    for (key, text) in texts {
        if !fresh.load(Ordering::Acquire) {
            return true;
        }
        if written.get(key) == Some(text) {
            continue;
        }
        let put = store.put(key, PutBody(vec![text.clone()]), Meta::of_type(TYPE).cache(CACHE));
        let error = match tokio::time::timeout(PUT_LIMIT, put).await {
            Ok(Ok(())) => {
                written.insert(key.clone(), text.clone());
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(key, error, "playlist not put");
        return false;
    }
    true
}
