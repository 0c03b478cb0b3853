//! The limit of viewers that are counted for one address. It reads no clock: the caller passes the time.
//!
//! A viewer sends one heartbeat per interval, so an address whose heartbeats are limited to so many per interval is counted for
//! as many viewers, and one that invents sessions is not counted beyond. A viewer over the limit watches uncounted; no
//! request is refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_runtime::address::network;

/// Addresses remembered: ten times the viewers that an edge is sized for, a few megabytes. Beyond them a new address is not
/// counted until others have sent no heartbeat for an interval.
const MAX_ADDRESSES: usize = 65_536;

/// A leaky bucket for each address, held as one number: the time in microseconds at which the heartbeats so far are used up.
#[derive(Debug)]
pub(crate) struct PerAddressLimit {
    interval_us: u64,
    /// The time that one heartbeat uses up; `None` without a limit.
    step_us: Option<u64>,
    used_until: Mutex<HashMap<IpAddr, u64>>,
}

impl PerAddressLimit {
    /// Admits `per_address` heartbeats of one address (an IPv6 /64 counts as one) in each `interval`; 0 stands for any number.
    pub(crate) fn new(per_address: u32, interval: Duration) -> Self {
        let interval_us = interval.as_micros() as u64;
        let step_us = (per_address > 0).then(|| (interval_us / u64::from(per_address)).max(1));
        Self { interval_us, step_us, used_until: Mutex::default() }
    }

    /// Returns true if a heartbeat from `address` counts.
    pub(crate) fn admit(&self, address: IpAddr, now_ms: u64) -> bool {
        let Some(step_us) = self.step_us else { return true };
        let (address, now_us) = (network(address), now_ms.saturating_mul(1_000));
        let mut used_until = self.lock();
        if used_until.len() >= MAX_ADDRESSES && !used_until.contains_key(&address) {
            return false;
        }
        let until_us = used_until.entry(address).or_insert(now_us);
        let next_us = (*until_us).max(now_us) + step_us;
        let admitted = next_us <= now_us + self.interval_us;
        if admitted {
            *until_us = next_us;
        }
        admitted
    }

    /// Drops the addresses that have their whole allowance again.
    pub(crate) fn evict_idle(&self, now_ms: u64) {
        let now_us = now_ms.saturating_mul(1_000);
        self.lock().retain(|_, until_us| *until_us > now_us);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u64>> {
        self.used_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn per_address_limit_admits_so_many_heartbeats_of_an_address_in_each_interval() {
        let limit = PerAddressLimit::new(3, INTERVAL);
        let admitted = |now_ms, address| (0..10).filter(|_| limit.admit(address, now_ms)).count();
        assert_eq!((admitted(0, v4(1)), admitted(0, v4(2))), (3, 3), "each address has its own allowance");
        assert_eq!(admitted(3_000, v4(1)), 0);
        assert_eq!(admitted(7_000, v4(1)), 2, "the allowance comes back in thirds of the interval");
        assert_eq!(admitted(60_000, v4(1)), 3, "an allowance that was not used is not saved up");
        // An address with exactly as many viewers as the limit always counts all of them.
        for interval in 10..100 {
            assert_eq!((0..3).filter(|_| limit.admit(v4(3), interval * 10_000)).count(), 3);
        }
    }

    #[test]
    fn per_address_limit_of_zero_admits_any_number_and_remembers_no_address() {
        let limit = PerAddressLimit::new(0, INTERVAL);
        assert!((0..100_000).all(|_| limit.admit(v4(1), 0)));
        assert!(limit.lock().is_empty());
    }

    #[test]
    fn per_address_limit_remembers_a_bounded_number_of_addresses_and_evicts_idle_ones() {
        let limit = PerAddressLimit::new(2, INTERVAL);
        let count = MAX_ADDRESSES as u32 + 50;
        let admitted = (0..count).filter(|n| limit.admit(IpAddr::from(n.to_be_bytes()), 0)).count();
        assert_eq!((admitted, limit.lock().len()), (MAX_ADDRESSES, MAX_ADDRESSES));
        assert!(limit.admit(IpAddr::from([0, 0, 0, 1]), 0), "a remembered address is still counted");
        limit.evict_idle(5_000);
        assert_eq!(limit.lock().len(), 1);
        assert!(limit.admit(v4(9), 5_000));
    }
}
