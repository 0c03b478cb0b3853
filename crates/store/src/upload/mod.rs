//! The bounded spill between the live path and the store.

mod queue;

use std::sync::Arc;
use std::time::Duration;

use millrace_buf::ByteChain;
use tokio::sync::{oneshot, watch};

use crate::key::check_key;
use crate::{Meta, RetryPolicy, SharedStore, StoreError};
use queue::{Item, Shared};

/// Bounds and pace of an [`Uploader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploaderConfig {
    /// Bytes that may wait, those being sent included.
    pub max_bytes: usize,
    /// Objects that may wait, those being sent included.
    pub max_objects: usize,
    /// Objects sent at the same time.
    pub parallel: usize,
    /// For one attempt; a store slower than this is away.
    pub attempt_timeout: Duration,
    /// Pauses between attempts. `attempts` bounds those that the store denies; an absent store is tried for as
    /// long as the object may wait.
    pub retry: RetryPolicy,
}

impl Default for UploaderConfig {
    /// 256 MiB or 20 000 objects: 10 min of a 2.5 Mb/s stream, or half a minute of twenty; 16 at a time.
    fn default() -> Self {
        Self {
            max_bytes: 256 * 1024 * 1024,
            max_objects: 20_000,
            parallel: 16,
            attempt_timeout: Duration::from_secs(20),
            retry: RetryPolicy::default(),
        }
    }
}

/// Why an object did not get into the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// Dropped to make room for newer objects while the store was away.
    #[error("dropped from the full upload queue")]
    Dropped,
    /// No room: it is larger than the queue, or everything that waits is essential.
    #[error("upload queue is full")]
    Full,
    /// The store will not take it.
    #[error(transparent)]
    Refused(#[from] StoreError),
    /// The uploader was dropped.
    #[error("uploader is closed")]
    Closed,
}

/// An object that is in the store now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    /// Attempts it took.
    pub attempts: u32,
    /// From submission to the store's answer.
    pub took: Duration,
}

/// Tells when one object is in the store. Dropping it does not stop the upload.
#[derive(Debug)]
pub struct UploadTicket(oneshot::Receiver<Result<Completed, UploadError>>);

impl UploadTicket {
    /// Waits until the object is in the store, or never will be.
    pub async fn done(self) -> Result<Completed, UploadError> {
        self.0.await.unwrap_or(Err(UploadError::Closed))
    }
}

/// What an uploader holds, and has done since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UploadStats {
    /// Objects waiting or being sent.
    pub objects: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Objects stored.
    pub stored: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
    /// Objects dropped for want of room.
    pub dropped: u64,
    /// Objects the store would not take.
    pub refused: u64,
}

/// Puts objects into the store behind the live path's back.
///
/// [`Uploader::submit`] never waits. Objects are sent oldest first, several at a time, those of one key in order.
/// While the store is away they wait, within bounds, and every one is sent when it is back. Beyond the bounds the
/// oldest object that is not essential is dropped: the newest are what players and restarted edges ask for, and
/// the ticket of the dropped one tells whoever keeps the index.
pub struct Uploader {
    shared: Arc<Shared>,
    workers: Vec<tokio::task::AbortHandle>,
}

impl Uploader {
    /// Starts the workers on the current runtime. `store` should make one attempt per call.
    pub fn start(store: &SharedStore, config: UploaderConfig) -> Self {
        let shared = Arc::new(Shared::new(config));
        let workers = (0..config.parallel.max(1))
            .map(|_| tokio::spawn(work(shared.clone(), store.clone(), config)).abort_handle())
            .collect();
        Self { shared, workers }
    }

    /// Takes an object. `essential` ones (init sections) are never dropped for room.
    pub fn submit(
        &self,
        key: impl Into<String>,
        body: ByteChain,
        meta: Meta,
        essential: bool,
    ) -> Result<UploadTicket, UploadError> {
        let key = key.into();
        check_key(&key)?;
        let (answer, answered) = oneshot::channel();
        self.shared.push(Item::new(key, body, meta, essential, answer))?;
        Ok(UploadTicket(answered))
    }

    /// What it holds and has done.
    pub fn stats(&self) -> UploadStats {
        self.shared.stats()
    }

    /// Changes whenever the stats do.
    pub fn watch(&self) -> watch::Receiver<UploadStats> {
        self.shared.watch()
    }

    /// Waits until nothing is left to send, or `timeout`; whether nothing is left.
    pub async fn drain(&self, timeout: Duration) -> bool {
        let mut stats = self.watch();
        let empty = stats.wait_for(|stats| stats.objects == 0);
        matches!(tokio::time::timeout(timeout, empty).await, Ok(Ok(_)))
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.workers.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

/// One worker: the oldest object, again and again.
async fn work(shared: Arc<Shared>, store: SharedStore, config: UploaderConfig) {
    loop {
        let mut item = shared.take().await;
        item.attempts += 1;
        let put = store.put(&item.key, item.body.clone(), item.meta.clone());
        let result = match tokio::time::timeout(config.attempt_timeout, put).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::unavailable("no answer within the time limit")),
        };
        match result {
            Ok(()) => shared.finish(item, Ok(())),
            Err(error) => {
                // Denied may be a key being rotated: tried again, but not for ever.
                let denied = matches!(error, StoreError::Denied { .. });
                let again = error.is_retryable() || (denied && item.attempts < config.retry.attempts);
                if again {
                    let pause = config.retry.delay(item.attempts);
                    tracing::debug!(key = %item.key, attempts = item.attempts, %error, "upload failed");
                    shared.put_back(item);
                    shared.pause(pause).await;
                } else {
                    tracing::warn!(key = %item.key, %error, "upload refused");
                    shared.finish(item, Err(error));
                }
            }
        }
    }
}
