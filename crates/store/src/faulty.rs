//! A store that goes wrong on purpose.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use millrace_buf::ByteChain;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::{ByteRange, ListPage, Meta, Object, ObjectInfo, ObjectStore, SharedStore, StoreError};

/// The faults that a wrapped store injects.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoreFaults {
    /// True if every call fails.
    pub away: bool,
    /// A call fails, with this probability.
    pub fail: f64,
    /// A failing put may have stored the object all the same (its answer was lost), with this probability.
    pub lost_answer: f64,
    /// The first so many calls for each key fail.
    pub fail_first: u32,
    /// Every call takes this long more.
    pub delay: Duration,
    /// Only these keys suffer, those that begin so; empty: all.
    pub prefix: String,
}

struct Inner {
    store: SharedStore,
    faults: Mutex<StoreFaults>,
    dice: Mutex<StdRng>,
    tries: Mutex<std::collections::HashMap<String, u32>>,
    calls: AtomicU64,
}

/// Wraps a store and harms calls, by seed.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Verdict {
    Pass,
    Fail,
    FailAfter,
}

impl FaultyStore {
    /// Wraps `store`; nothing goes wrong until faults are set.
    pub fn new(store: SharedStore, seed: u64) -> Self {
        let inner = Inner {
            store,
            faults: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            tries: Mutex::default(),
            calls: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Replaces the faults from now on, for calls under way too once they have waited.
    pub fn set(&self, faults: StoreFaults) {
        *lock(&self.inner.faults) = faults;
        lock(&self.inner.tries).clear();
    }

    /// Returns how many calls were made.
    pub fn calls(&self) -> u64 {
        self.inner.calls.load(Ordering::Relaxed)
    }

    async fn verdict(&self, key: &str) -> Verdict {
        self.inner.calls.fetch_add(1, Ordering::Relaxed);
        let delay = lock(&self.inner.faults).delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let faults = lock(&self.inner.faults).clone();
        if !key.starts_with(&faults.prefix) {
            return Verdict::Pass;
        }
        let mut tries = lock(&self.inner.tries);
        let tried = tries.entry(key.to_owned()).or_default();
        *tried += 1;
        let mut dice = lock(&self.inner.dice);
        let (fail, lost) = (dice.random::<f64>() < faults.fail, dice.random::<f64>() < faults.lost_answer);
        match (faults.away || *tried <= faults.fail_first, fail) {
            (false, false) => Verdict::Pass,
            (false, true) if lost => Verdict::FailAfter,
            _ => Verdict::Fail,
        }
    }

    async fn check(&self, key: &str) -> Result<(), StoreError> {
        match self.verdict(key).await {
            Verdict::Pass => Ok(()),
            Verdict::Fail | Verdict::FailAfter => Err(injected()),
        }
    }
}

fn injected() -> StoreError {
    StoreError::unavailable("injected fault")
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put(&self, key: &str, body: ByteChain, meta: Meta) -> Result<(), StoreError> {
        match self.verdict(key).await {
            Verdict::Pass => self.inner.store.put(key, body, meta).await,
            Verdict::Fail => Err(injected()),
            Verdict::FailAfter => self.inner.store.put(key, body, meta).await.and(Err(injected())),
        }
    }

    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<Object, StoreError> {
        self.check(key).await?;
        self.inner.store.get(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        self.check(key).await?;
        self.inner.store.head(key).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.check(key).await?;
        self.inner.store.delete(key).await
    }

    async fn delete_many(&self, keys: &[String]) -> Result<(), StoreError> {
        self.check(keys.first().map_or("", String::as_str)).await?;
        self.inner.store.delete_many(keys).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        self.check(prefix).await?;
        self.inner.store.list(prefix, after, limit).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.check("").await?;
        self.inner.store.ready().await
    }
}
