//! Pictures of a stream in the bucket, for pages: the newest one under a fixed name, which readers ask for again.

use std::time::Duration;

use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_store::{Meta, SharedStore};
use millrace_wire::ids::PlaybackId;
use millrace_wire::object_names;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The media type of a picture.
const CONTENT_TYPE: &str = "image/jpeg";
/// A new picture comes every ten seconds; an older one is still one of the stream.
const CACHE_CONTROL: &str = "public, max-age=10";
/// The longest time one attempt may take. The next picture comes instead of another attempt.
const PUT_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a picture at most: one of 640 pixels' width has a tenth of it.
const MAX_BYTES: usize = 1 << 20;

/// The task that puts one stream's newest picture, one at a time. A picture that comes while the store is slow replaces the
/// one that waits; no picture is tried twice.
pub(crate) struct PictureWriter {
    store: SharedStore,
    playback: PlaybackId,
    task: Option<(watch::Sender<Bytes>, JoinHandle<()>)>,
}

impl PictureWriter {
    /// Creates the writer; its task starts with the first picture.
    pub(crate) fn new(store: SharedStore, playback: PlaybackId) -> Self {
        Self { store, playback, task: None }
    }

    /// Hands the newest picture to the task and returns at once.
    pub(crate) fn put(&mut self, jpeg: Bytes) {
        if jpeg.is_empty() || jpeg.len() > MAX_BYTES {
            tracing::debug!(bytes = jpeg.len(), "picture of the stream is not a usual one; it is left out");
            return;
        }
        if let Some((latest, _)) = &self.task {
            latest.send_replace(jpeg);
            return;
        }
        let (latest, reader) = watch::channel(jpeg);
        let task = tokio::spawn(run(self.store.clone(), self.playback, reader));
        self.task = Some((latest, task));
    }

    /// Puts no further picture: another worker has the stream.
    pub(crate) fn stop(&mut self) {
        if let Some((_, task)) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for PictureWriter {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn run(store: SharedStore, playback: PlaybackId, mut latest: watch::Receiver<Bytes>) {
    let key = object_names::thumbnail(playback);
    loop {
        let jpeg = latest.borrow_and_update().clone();
        let meta = Meta::of_type(CONTENT_TYPE).cache(CACHE_CONTROL);
        match tokio::time::timeout(PUT_LIMIT, store.put(&key, ByteChain::from(jpeg), meta)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(key, %error, "picture not stored; the next one follows"),
            Err(_) => tracing::debug!(key, "picture not stored in time; the next one follows"),
        }
        if latest.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millrace_store::{DirStore, ObjectStore, SyncPolicy};

    use super::*;

    #[tokio::test]
    async fn picture_writer_replaces_the_picture_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(DirStore::open(dir.path(), SyncPolicy::default()).await.unwrap());
        let playback = "00112233445566778899aabbccddeeff".parse().unwrap();
        let mut writer = PictureWriter::new(store.clone(), playback);
        let key = object_names::thumbnail(playback);
        writer.put(vec![0; MAX_BYTES + 1].into());
        for picture in ["one", "two"] {
            writer.put(Bytes::from_static(picture.as_bytes()));
            let stored = async {
                loop {
                    match store.get(&key, None).await {
                        Ok(object) if object.body == picture.as_bytes() => return object.info.meta,
                        _ => tokio::task::yield_now().await,
                    }
                }
            };
            let meta = tokio::time::timeout(Duration::from_secs(10), stored).await.unwrap();
            assert_eq!(meta.content_type.as_deref(), Some("image/jpeg"));
        }
    }
}
