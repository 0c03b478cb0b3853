//! Reads from the object store: concurrent requests for one object make one read, and the object read is cached.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_runtime::LogLimit;
use millrace_store::{SharedStore, StoreError};
use tokio::sync::Semaphore;

use crate::metrics::EdgeMetrics;
use crate::objects::cache::{Object, ObjectCache};
use crate::objects::single_flight::SingleFlight;

/// The time a read may take: a player waits about this long for a segment before it asks again.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Concurrent reads: bounds the load on the store. It bounds the memory of reads under way only as far as objects are bounded:
/// a segment is as large as its stream's bit rate and segment duration make it.
const MAX_READS: usize = 256;

/// The result of a read.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The store has the object.
    Found(Object),
    /// The store has no object of this name.
    Missing,
    /// The store failed, or did not answer in time.
    Failed,
}

/// The result of a read that leaves nothing in the cache.
#[derive(Debug, Clone)]
pub enum Stored {
    /// The bytes of the object.
    Found(Bytes),
    /// The store has no object of this name.
    Missing,
    /// The store failed, or did not answer in time.
    Failed,
}

/// Reads objects through the cache.
#[derive(Debug)]
pub struct Fetcher {
    store: StoreRef,
    cache: Arc<ObjectCache>,
    flights: Arc<SingleFlight<String, Outcome>>,
    newest: Arc<SingleFlight<String, Stored>>,
    reads: Semaphore,
    failures: LogLimit,
    metrics: EdgeMetrics,
}

/// The object store, which has no `Debug` of its own.
struct StoreRef(SharedStore);

impl std::fmt::Debug for StoreRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObjectStore")
    }
}

impl Fetcher {
    /// Creates a fetcher that reads from `store` and leaves what it read in `cache`.
    pub fn new(store: SharedStore, cache: Arc<ObjectCache>, metrics: EdgeMetrics) -> Arc<Self> {
        let (flights, newest, reads) = (Arc::default(), Arc::default(), Semaphore::new(MAX_READS));
        Arc::new(Self {
            store: StoreRef(store),
            cache,
            flights,
            newest,
            reads,
            failures: LogLimit::default(),
            metrics,
        })
    }

    /// Reads the object under `key`. Objects that the store does not have are not remembered: they may be uploaded any
    /// moment.
    pub async fn get(self: &Arc<Self>, key: &str) -> Outcome {
        let known = || self.cache.get(key).map(Outcome::Found);
        let outcome = self
            .flights
            .run(key, known, || {
                let (fetcher, key) = (self.clone(), key.to_owned());
                async move {
                    match fetcher.read(&key).await {
                        Stored::Found(bytes) => {
                            let object = Object::new(&key, bytes);
                            fetcher.cache.insert_cached(&key, object.clone());
                            Outcome::Found(object)
                        }
                        Stored::Missing => Outcome::Missing,
                        Stored::Failed => Outcome::Failed,
                    }
                }
            })
            .await;
        self.metrics.coalesced.add(u64::from(outcome.shared));
        outcome.value.unwrap_or(Outcome::Failed)
    }

    /// Reads the object under `key` as it is now, past the cache. Concurrent requests make one read.
    pub async fn read_newest(self: &Arc<Self>, key: &str) -> Stored {
        let start = || {
            let (fetcher, key) = (self.clone(), key.to_owned());
            async move { fetcher.read(&key).await }
        };
        self.newest.run(key, || None, start).await.value.unwrap_or(Stored::Failed)
    }

    async fn read(&self, key: &str) -> Stored {
        let read = async {
            let _permit = self.reads.acquire().await;
            self.metrics.store_reads.inc();
            self.store.0.get(key, None).await
        };
        match tokio::time::timeout(READ_LIMIT, read).await {
            Ok(Ok(object)) => {
                self.metrics.store_read_bytes.add(object.body.len() as u64);
                Stored::Found(object.body)
            }
            Ok(Err(StoreError::NotFound { .. })) => Stored::Missing,
            Ok(Err(error)) => {
                self.metrics.store_errors.inc();
                if let Some(suppressed) = self.failures.due() {
                    tracing::warn!(key, %error, suppressed, "object store read failed; requests for objects that are not in memory are answered with 503 or 404");
                }
                Stored::Failed
            }
            Err(_) => {
                self.metrics.store_errors.inc();
                let limit_s = READ_LIMIT.as_secs();
                if let Some(suppressed) = self.failures.due() {
                    tracing::warn!(
                        key,
                        limit_s,
                        suppressed,
                        "object store read timed out; requests for objects that are not in memory are answered with 503 or 404"
                    );
                }
                Stored::Failed
            }
        }
    }
}
