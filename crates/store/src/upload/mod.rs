//! The bounded spill between the live path and the store.

mod model;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use millrace_buf::ByteChain;
use tokio::sync::{oneshot, watch};

pub use self::model::{Completed, GivenUp, StorageTrouble, UploadError, UploadStats, UploaderConfig};
use self::queue::{Item, Shared};
use crate::key::check_key;
use crate::{Meta, SharedStore, StoreError};

/// Resolves when one object is in the store. Dropping the ticket does not stop the upload.
#[derive(Debug)]
pub struct UploadTicket(oneshot::Receiver<Result<Completed, UploadError>>);

impl UploadTicket {
    /// Waits until the object is in the store, or never will be.
    pub async fn done(self) -> Result<Completed, UploadError> {
        self.0.await.unwrap_or(Err(UploadError::Closed))
    }
}

/// Puts objects into the store while the live path goes on.
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

    /// Returns the objects it holds now and its counts since it started.
    pub fn stats(&self) -> UploadStats {
        self.shared.stats()
    }

    /// Returns the trouble of a store that takes no objects; `None` while it does.
    pub fn trouble(&self) -> Option<StorageTrouble> {
        self.shared.trouble()
    }

    /// Takes the objects that were given up since the last call: dropped from the full queue, or refused by the store.
    pub fn take_given_up(&self) -> GivenUp {
        self.shared.take_given_up()
    }

    /// Returns the age of the oldest object that waits or is being sent; zero if there is none.
    pub fn oldest(&self) -> Duration {
        self.shared.oldest()
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
                // A store denies while its key is replaced, or, as MinIO does, while its disk is read-only: the operator can
                // mend that, and until then the object waits within the queue's bounds.
                if error.is_retryable() || matches!(error, StoreError::Denied { .. }) {
                    let pause = config.retry.delay(item.attempts);
                    tracing::debug!(key = %item.key, attempts = item.attempts, %error, "upload failed");
                    shared.put_back(item, &error);
                    shared.pause(pause).await;
                } else {
                    tracing::debug!(key = %item.key, %error, "upload refused");
                    shared.finish(item, Err(error));
                }
            }
        }
    }
}
