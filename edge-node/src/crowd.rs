//! How many viewers one address may be counted for. Knows no clock.
//!
//! A viewer beats once per [`BEAT_S`], so an address with room for as many beats in that time is as many viewers; one that
//! invents sessions is not counted beyond. Nobody is refused anything: a viewer over the limit watches uncounted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use millrace_runtime::address::network;

use crate::viewers::BEAT_S;

/// Addresses remembered: ten times the viewers an edge has in mind, a few megabytes. Beyond them newcomers are not counted
/// until others have been silent for a beat.
const MAX_ADDRESSES: usize = 65_536;
/// Microseconds of a beat.
const BEAT_US: u64 = BEAT_S * 1_000_000;

/// See the module. For each address the time, in microseconds, at which its beats so far would be used up (a leaky
/// bucket as one number).
#[derive(Debug)]
pub(crate) struct Crowd {
    /// What one beat takes.
    step_us: Option<u64>,
    used_until: Mutex<HashMap<IpAddr, u64>>,
}

impl Crowd {
    /// `per_address` viewers of one address (an IPv6 /64 is one); 0: any number.
    pub(crate) fn new(per_address: u32) -> Self {
        let step_us = (per_address > 0).then(|| (BEAT_US / u64::from(per_address)).max(1));
        Self { step_us, used_until: Mutex::default() }
    }

    /// Whether a beat from `address` counts.
    pub(crate) fn admit(&self, address: IpAddr, now_ms: u64) -> bool {
        let Some(step) = self.step_us else { return true };
        let (address, now) = (network(address), now_ms.saturating_mul(1_000));
        let mut used_until = self.lock();
        if used_until.len() >= MAX_ADDRESSES && !used_until.contains_key(&address) {
            return false;
        }
        let until = used_until.entry(address).or_insert(now);
        let next = (*until).max(now) + step;
        let admitted = next <= now + BEAT_US;
        if admitted {
            *until = next;
        }
        admitted
    }

    /// Drops addresses that have all their beats again.
    pub(crate) fn forget(&self, now_ms: u64) {
        let now = now_ms.saturating_mul(1_000);
        self.lock().retain(|_, until| *until > now);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u64>> {
        self.used_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_address_has_so_many_viewers_a_beat() {
        let crowd = Crowd::new(3);
        let beats = |now_ms, address| (0..10).filter(|_| crowd.admit(address, now_ms)).count();
        assert_eq!((beats(0, v4(1)), beats(0, v4(2))), (3, 3), "each address for itself");
        assert_eq!(beats(3_000, v4(1)), 0);
        assert_eq!(beats(7_000, v4(1)), 2, "a third of a beat, a third of the viewers");
        assert_eq!(beats(60_000, v4(1)), 3, "time away is not saved up");
        // As many viewers as there may be are always counted.
        for beat in 10..100 {
            assert_eq!((0..3).filter(|_| crowd.admit(v4(3), beat * 10_000)).count(), 3);
        }
    }

    #[test]
    fn none_is_no_limit() {
        let crowd = Crowd::new(0);
        assert!((0..100_000).all(|_| crowd.admit(v4(1), 0)));
        assert!(crowd.lock().is_empty());
    }

    #[test]
    fn remembers_a_bounded_number_of_addresses_and_forgets_them() {
        let crowd = Crowd::new(2);
        let count = MAX_ADDRESSES as u32 + 50;
        let counted = (0..count).filter(|n| crowd.admit(IpAddr::from(n.to_be_bytes()), 0)).count();
        assert_eq!((counted, crowd.lock().len()), (MAX_ADDRESSES, MAX_ADDRESSES));
        assert!(crowd.admit(IpAddr::from([0, 0, 0, 1]), 0), "those known are still counted");
        crowd.forget(5_000);
        assert_eq!(crowd.lock().len(), 1);
        assert!(crowd.admit(v4(9), 5_000));
    }
}
