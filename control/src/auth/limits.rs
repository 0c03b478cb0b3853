//! Limits of requests per token and per address: token buckets in memory of limited size. Each control counts for itself.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_runtime::Clock;
use millrace_runtime::address::network;

use crate::config::Config;

/// A bucket holds as many requests as this many seconds fill: a dashboard or a tool that begins asks much at once.
const BURST_S: u64 = 5;

/// Buckets in memory; 48 bytes each. Beyond it, full buckets are forgotten, and if none is full, newcomers share one.
const MAX_BUCKETS: usize = 65_536;

/// Time between two rounds that forget full buckets.
const SWEEP_EVERY_MS: u64 = 1_000;

/// The answer to a caller that asks too much: the time after which it may ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) retry_after: Duration,
}

/// The limits of one control.
pub(crate) struct RateLimits {
    clock: Arc<dyn Clock>,
    addresses: Option<Limiter<IpAddr>>,
    tokens: Option<Limiter<u64>>,
    failures: Option<Limiter<IpAddr>>,
    hasher: RandomState,
}

impl RateLimits {
    pub(crate) fn new(config: &Config, clock: Arc<dyn Clock>) -> Self {
        let per_second =
            |rate: u32| (rate > 0).then(|| Rate::new(u64::from(rate), 1_000, u64::from(rate) * BURST_S));
        let per_minute = |rate: u32| (rate > 0).then(|| Rate::new(u64::from(rate), 60_000, u64::from(rate)));
        Self {
            clock,
            addresses: per_second(config.requests_per_address).map(Limiter::new),
            tokens: per_second(config.requests_per_token).map(Limiter::new),
            failures: per_minute(config.failed_auth_per_minute).map(Limiter::new),
            hasher: RandomState::new(),
        }
    }

    /// Counts a request from an address.
    pub(crate) fn of_address(&self, address: Option<IpAddr>) -> Result<(), TooMany> {
        let (Some(limiter), Some(address)) = (&self.addresses, address) else { return Ok(()) };
        limiter.take(network(address), self.clock.now_ms())
    }

    /// Counts a request of a caller. The bucket's name is a keyed hash, since a caller chooses its own.
    pub(crate) fn of_actor(&self, actor: &str) -> Result<(), TooMany> {
        let Some(limiter) = &self.tokens else { return Ok(()) };
        limiter.take(self.hasher.hash_one(actor), self.clock.now_ms())
    }

    /// Returns an error if the address presented too many wrong tokens: then no token is looked at.
    pub(crate) fn may_authenticate(&self, address: Option<IpAddr>) -> Result<(), TooMany> {
        let (Some(limiter), Some(address)) = (&self.failures, address) else { return Ok(()) };
        limiter.look(network(address), self.clock.now_ms())
    }

    /// Counts a wrong token from an address.
    pub(crate) fn failed(&self, address: Option<IpAddr>) {
        if let (Some(limiter), Some(address)) = (&self.failures, address) {
            // The answer to this request is settled.
            let _ = limiter.take(network(address), self.clock.now_ms());
        }
    }
}

/// The rate of a bucket in microseconds for each request, and the time that a full one stands for.
#[derive(Debug, Clone, Copy)]
struct Rate {
    each_us: u64,
    burst_us: u64,
}

impl Rate {
    fn new(count: u64, per_ms: u64, burst: u64) -> Self {
        let each_us = (per_ms * 1_000 / count).max(1);
        Self { each_us, burst_us: each_us * burst.max(1) }
    }
}

/// Buckets by key. A bucket is the time at which it is full again (the generic cell rate algorithm), so one that is full needs no
/// memory.
struct Limiter<K> {
    rate: Rate,
    buckets: Mutex<Buckets<K>>,
}

struct Buckets<K> {
    full_at_us: HashMap<K, u64>,
    /// The bucket that callers share for whom there is no memory.
    shared_us: u64,
    swept_at_ms: u64,
}

impl<K: std::hash::Hash + Eq + Copy> Limiter<K> {
    fn new(rate: Rate) -> Self {
        let buckets = Buckets { full_at_us: HashMap::new(), shared_us: 0, swept_at_ms: 0 };
        Self { rate, buckets: Mutex::new(buckets) }
    }

    /// Takes one from the bucket of `key`.
    fn take(&self, key: K, now_ms: u64) -> Result<(), TooMany> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.bucket(key, now_ms);
        let next = (*bucket).max(now_ms * 1_000) + self.rate.each_us;
        self.check(next, now_ms)?;
        *bucket = next;
        Ok(())
    }

    /// Returns whether one could be taken, without taking it.
    fn look(&self, key: K, now_ms: u64) -> Result<(), TooMany> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = buckets.full_at_us.get(&key).copied();
        let full_at =
            full_at.unwrap_or(if buckets.full_at_us.len() < MAX_BUCKETS { 0 } else { buckets.shared_us });
        self.check(full_at.max(now_ms * 1_000) + self.rate.each_us, now_ms)
    }

    fn check(&self, full_at_us: u64, now_ms: u64) -> Result<(), TooMany> {
        let over_us = full_at_us.saturating_sub(now_ms * 1_000 + self.rate.burst_us);
        if over_us == 0 { Ok(()) } else { Err(TooMany { retry_after: Duration::from_micros(over_us) }) }
    }
}

impl<K: std::hash::Hash + Eq + Copy> Buckets<K> {
    fn bucket(&mut self, key: K, now_ms: u64) -> &mut u64 {
        let is_crowded = self.full_at_us.len() >= MAX_BUCKETS;
        if is_crowded && now_ms.saturating_sub(self.swept_at_ms) >= SWEEP_EVERY_MS {
            self.swept_at_ms = now_ms;
            self.full_at_us.retain(|_, full_at| *full_at > now_ms * 1_000);
        }
        if self.full_at_us.len() >= MAX_BUCKETS && !self.full_at_us.contains_key(&key) {
            return &mut self.shared_us;
        }
        self.full_at_us.entry(key).or_insert(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(limiter: &Limiter<u32>, key: u32, now_ms: u64) -> usize {
        (0..1_000).take_while(|_| limiter.take(key, now_ms).is_ok()).count()
    }

    #[test]
    fn limiter_lets_a_burst_and_then_the_rate_through_and_says_when_to_come_again() {
        let limiter = Limiter::new(Rate::new(10, 1_000, 50));
        assert_eq!(taken(&limiter, 1, 10_000), 50);
        let again = limiter.take(1, 10_000).unwrap_err().retry_after;
        assert_eq!(again, Duration::from_millis(100));
        assert_eq!(taken(&limiter, 1, 10_100), 1);
        assert_eq!(taken(&limiter, 1, 11_100), 10);
        assert_eq!(taken(&limiter, 2, 11_100), 50, "another caller has a bucket of its own");
        assert_eq!(taken(&limiter, 1, 60_000), 50, "a bucket never holds more than a burst");
    }

    #[test]
    fn look_takes_nothing_and_is_refused_once_the_bucket_is_empty() {
        let limiter = Limiter::new(Rate::new(60, 60_000, 60));
        assert!((0..100).all(|_| limiter.look(1, 10_000).is_ok()));
        assert_eq!(taken(&limiter, 1, 10_000), 60);
        assert_eq!(limiter.look(1, 10_000), Err(TooMany { retry_after: Duration::from_secs(1) }));
        assert!(limiter.look(1, 11_000).is_ok() && limiter.look(2, 10_000).is_ok());
    }

    #[test]
    fn crowded_limiter_forgets_full_buckets_and_lets_the_others_share_one() {
        let limiter = Limiter::new(Rate::new(1, 1_000, 5));
        for key in 0..MAX_BUCKETS as u32 {
            limiter.take(key, 10_000).unwrap();
        }
        let (late, later) = (MAX_BUCKETS as u32, MAX_BUCKETS as u32 + 1);
        assert_eq!(taken(&limiter, late, 10_000), 5);
        assert_eq!(taken(&limiter, later, 10_000), 0, "newcomers share a bucket");
        assert_eq!(limiter.buckets.lock().unwrap().full_at_us.len(), MAX_BUCKETS);
        assert_eq!(taken(&limiter, later, 12_000), 5);
        assert_eq!(limiter.buckets.lock().unwrap().full_at_us.len(), 1, "full buckets are forgotten");
    }
}
