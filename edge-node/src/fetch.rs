//! Reads from the object store: concurrent requests for one object make one read, and what was read is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_store::{SharedStore, StoreError};
use tokio::sync::{Semaphore, watch};

use crate::cache::{Object, ObjectCache};
use crate::metrics::EdgeMetrics;

/// A viewer's player gives a segment about this long before it asks again.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Reads at once: bounds the memory in flight and the load on the store.
const MAX_READS: usize = 256;

/// How a read ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The object.
    Found(Object),
    /// The store has no such object.
    Missing,
    /// The store did not answer: 503.
    Failed,
}

type Flight = watch::Receiver<Option<Outcome>>;

/// Reads through the cache.
#[derive(Debug)]
pub struct Fetcher {
    store: StoreRef,
    cache: Arc<ObjectCache>,
    flights: Mutex<HashMap<Box<str>, Flight>>,
    reads: Semaphore,
    metrics: EdgeMetrics,
}

/// A store has no `Debug`.
struct StoreRef(SharedStore);

impl std::fmt::Debug for StoreRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObjectStore")
    }
}

impl Fetcher {
    /// A fetcher over a store.
    pub fn new(store: SharedStore, cache: Arc<ObjectCache>, metrics: EdgeMetrics) -> Arc<Self> {
        let (flights, reads) = (Mutex::default(), Semaphore::new(MAX_READS));
        Arc::new(Self { store: StoreRef(store), cache, flights, reads, metrics })
    }

    /// The object under `key`. Objects not found are not remembered: they may be uploaded any moment.
    pub async fn get(self: &Arc<Self>, key: &str) -> Outcome {
        let mut flight = self.join(key);
        let done = flight.wait_for(Option::is_some).await;
        done.ok().and_then(|outcome| outcome.clone()).unwrap_or(Outcome::Failed)
    }

    fn join(self: &Arc<Self>, key: &str) -> Flight {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            self.metrics.coalesced.inc();
            return flight.clone();
        }
        // A read that landed since the caller looked has left its object there before it left the flights.
        if let Some(object) = self.cache.get(key) {
            return watch::channel(Some(Outcome::Found(object))).1;
        }
        let (sender, flight) = watch::channel(None);
        flights.insert(key.into(), flight.clone());
        let (this, key) = (self.clone(), key.to_owned());
        // A task of its own: the reader that asked first may leave, the others still wait.
        tokio::spawn(async move {
            let _landed = Landing { fetcher: &this, key: &key };
            let outcome = this.read(&key).await;
            if let Outcome::Found(object) = &outcome {
                this.cache.insert_cached(&key, object.clone());
            }
            sender.send_replace(Some(outcome));
        });
        flight
    }

    async fn read(&self, key: &str) -> Outcome {
        let read = async {
            let _permit = self.reads.acquire().await;
            self.metrics.store_reads.inc();
            self.store.0.get(key, None).await
        };
        match tokio::time::timeout(READ_LIMIT, read).await {
            Ok(Ok(object)) => {
                self.metrics.store_read_bytes.add(object.body.len() as u64);
                Outcome::Found(Object::new(key, object.body))
            }
            Ok(Err(StoreError::NotFound { .. })) => Outcome::Missing,
            Ok(Err(error)) => {
                self.metrics.store_errors.inc();
                tracing::warn!(key, %error, "object could not be read");
                Outcome::Failed
            }
            Err(_) => {
                self.metrics.store_errors.inc();
                tracing::warn!(key, limit_s = READ_LIMIT.as_secs(), "the store did not answer in time");
                Outcome::Failed
            }
        }
    }
}

/// Ends a flight even when its read panics.
struct Landing<'a> {
    fetcher: &'a Fetcher,
    key: &'a str,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.fetcher.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(self.key);
    }
}
