//! A store wrapper that repeats calls that failed for a while.

use std::time::Duration;

use async_trait::async_trait;
use millrace_buf::ByteChain;

use crate::{ByteRange, ListPage, Meta, Object, ObjectInfo, ObjectStore, SharedStore, StoreError};

/// The number and the pace of repeated attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// Before the second attempt; doubles from attempt to attempt.
    pub first_delay: Duration,
    /// The longest pause between two attempts.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    /// 4 attempts, 100 ms doubling up to 2 s.
    fn default() -> Self {
        Self { attempts: 4, first_delay: Duration::from_millis(100), max_delay: Duration::from_secs(2) }
    }
}

impl RetryPolicy {
    /// The pause after so many failed attempts: half of it fixed, half by chance, lest all come back at once.
    pub fn delay(&self, failed: u32) -> Duration {
        let doubled = self.first_delay.saturating_mul(1 << failed.saturating_sub(1).min(16));
        let full = doubled.min(self.max_delay);
        full.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    async fn run<T, F>(&self, mut call: impl FnMut() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let mut failed = 0;
        loop {
            match call().await {
                Err(error) if error.is_retryable() && failed + 1 < self.attempts => {
                    failed += 1;
                    tracing::debug!(%error, failed, "store call failed, trying again");
                    tokio::time::sleep(self.delay(failed)).await;
                }
                result => return result,
            }
        }
    }
}

/// A store that tries again what failed for a passing reason.
#[derive(Clone)]
pub struct RetryStore {
    store: SharedStore,
    policy: RetryPolicy,
}

impl RetryStore {
    /// Wraps `store` with this policy.
    pub fn new(store: SharedStore, policy: RetryPolicy) -> Self {
        Self { store, policy }
    }
}

#[async_trait]
impl ObjectStore for RetryStore {
    async fn put(&self, key: &str, body: ByteChain, meta: Meta) -> Result<(), StoreError> {
        self.policy.run(|| self.store.put(key, body.clone(), meta.clone())).await
    }

    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<Object, StoreError> {
        self.policy.run(|| self.store.get(key, range)).await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        self.policy.run(|| self.store.head(key)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.policy.run(|| self.store.delete(key)).await
    }

    async fn delete_many(&self, keys: &[String]) -> Result<(), StoreError> {
        self.policy.run(|| self.store.delete_many(keys)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        self.policy.run(|| self.store.list(prefix, after, limit)).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.store.ready().await
    }
}
