//! The limit of viewers that are counted for one address. It reads no clock: the caller passes the time.
//!
//! A session takes one of its address's places from its first counted heartbeat until it leaves or expires, so an address
//! that invents sessions is counted for no more viewers than the limit at any time. A viewer over the limit watches
//! uncounted; no request is refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_runtime::address::network;

/// Sessions remembered: more viewers than an edge is sized for, some ten megabytes. Beyond them a new session is not counted
/// until others have expired.
const MAX_SESSIONS: usize = 200_000;

/// The sessions of one address, each with the time in milliseconds at which it expires.
type Sessions = HashMap<u128, u64>;

#[derive(Debug, Default)]
struct Counted {
    addresses: HashMap<IpAddr, Sessions>,
    sessions: usize,
}

/// The sessions that are counted, by address.
#[derive(Debug)]
pub(crate) struct PerAddressLimit {
    per_address: usize,
    ttl_ms: u64,
    counted: Mutex<Counted>,
}

impl PerAddressLimit {
    /// Counts at most `per_address` sessions of one address (an IPv6 /64 counts as one) at a time; 0 stands for any number.
    /// A session expires `ttl` after its last heartbeat.
    pub(crate) fn new(per_address: u32, ttl: Duration) -> Self {
        Self { per_address: per_address as usize, ttl_ms: ttl.as_millis() as u64, counted: Mutex::default() }
    }

    /// Returns true if a heartbeat of `session` from `address` counts.
    pub(crate) fn admit(&self, address: IpAddr, session: u128, now_ms: u64) -> bool {
        if self.per_address == 0 {
            return true;
        }
        let mut guard = self.lock();
        let Counted { addresses, sessions } = &mut *guard;
        let own = addresses.entry(network(address)).or_default();
        let expires_ms = now_ms + self.ttl_ms;
        if let Some(known) = own.get_mut(&session) {
            *known = expires_ms;
            return true;
        }
        if own.len() >= self.per_address {
            let before = own.len();
            own.retain(|_, expires_ms| *expires_ms > now_ms);
            *sessions -= before - own.len();
        }
        let admitted = own.len() < self.per_address && *sessions < MAX_SESSIONS;
        if admitted {
            own.insert(session, expires_ms);
            *sessions += 1;
        } else if own.is_empty() {
            addresses.remove(&network(address));
        }
        admitted
    }

    /// Gives back the place of a session that leaves; true if it had one.
    pub(crate) fn leave(&self, address: IpAddr, session: u128) -> bool {
        if self.per_address == 0 {
            return true;
        }
        let mut guard = self.lock();
        let Counted { addresses, sessions } = &mut *guard;
        let Some(own) = addresses.get_mut(&network(address)) else { return false };
        let left = own.remove(&session).is_some();
        *sessions -= usize::from(left);
        if own.is_empty() {
            addresses.remove(&network(address));
        }
        left
    }

    /// Forgets the sessions that have expired.
    pub(crate) fn evict_expired(&self, now_ms: u64) {
        let mut guard = self.lock();
        let mut left = 0;
        guard.addresses.retain(|_, sessions| {
            sessions.retain(|_, expires_ms| *expires_ms > now_ms);
            left += sessions.len();
            !sessions.is_empty()
        });
        guard.sessions = left;
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(25);

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn per_address_limit_holds_over_the_life_of_sessions() {
        let limit = PerAddressLimit::new(1_000, TTL);
        // 2 778 sessions of one address in 24 seconds, two heartbeats each.
        let admitted: Vec<bool> =
            (0..2_778_u128).map(|n| limit.admit(v4(1), n, n as u64 * 24_000 / 2_778)).collect();
        assert_eq!(admitted.iter().filter(|admitted| **admitted).count(), 1_000);
        assert!(limit.admit(v4(1), 0, 24_000), "a counted session goes on");
        assert!(!limit.admit(v4(1), 2_777, 24_000));
        assert!(limit.admit(v4(2), 1, 24_000), "each address has its own places");
        assert!(limit.admit(v4(1), 2_777, 26_000), "expired sessions give their places back");
    }

    #[test]
    fn per_address_limit_gives_the_place_of_a_leaving_session_to_the_next() {
        let limit = PerAddressLimit::new(1, TTL);
        assert!(limit.admit(v4(1), 1, 0));
        assert!(!limit.admit(v4(1), 2, 0));
        assert!(!limit.leave(v4(1), 2), "it had no place");
        assert!(limit.leave(v4(1), 1));
        assert!(limit.lock().addresses.is_empty());
        assert!(limit.admit(v4(1), 2, 0));
    }

    #[test]
    fn per_address_limit_of_zero_admits_any_number_and_remembers_no_session() {
        let limit = PerAddressLimit::new(0, TTL);
        assert!((0..100_000).all(|n| limit.admit(v4(1), n, 0)));
        assert_eq!(limit.lock().sessions, 0);
    }

    #[test]
    fn per_address_limit_remembers_a_bounded_number_of_sessions_and_forgets_expired_ones() {
        let limit = PerAddressLimit::new(2, TTL);
        let count = MAX_SESSIONS as u32 + 50;
        let admitted = (0..count).filter(|n| limit.admit(IpAddr::from(n.to_be_bytes()), 7, 0)).count();
        assert_eq!((admitted, limit.lock().sessions), (MAX_SESSIONS, MAX_SESSIONS));
        assert_eq!(limit.lock().addresses.len(), MAX_SESSIONS);
        limit.evict_expired(25_000);
        assert_eq!(limit.lock().sessions, 0);
        assert!(limit.lock().addresses.is_empty());
        assert!(limit.admit(v4(9), 7, 25_000));
    }
}
