//! Admission of connections: their number per node and per address, and the growing delay of refused keys.
//!
//! Knows no clock and no socket: the caller passes the time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_runtime::address::network;

use crate::limits;

/// The largest numbers of connections a limiter admits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// Open connections of the node.
    pub(crate) total: usize,
    /// Open connections from one address (one /64 for IPv6).
    pub(crate) per_address: usize,
    /// Open connections that do not publish yet.
    pub(crate) pending: usize,
}

/// The limit that a connection would have exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitReached {
    /// The node has as many connections as it may.
    Total,
    /// The address has as many connections as it may.
    Address,
    /// Too many connections have not begun to publish.
    Pending,
}

impl LimitReached {
    /// Returns the label in metrics and log lines.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Total => "connections",
            Self::Address => "connections_per_address",
            Self::Pending => "pending_connections",
        }
    }
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    pending: usize,
    open: HashMap<IpAddr, usize>,
    refused: HashMap<IpAddr, Refusals>,
}

/// The refusals of one address that have not expired.
#[derive(Debug, Clone, Copy)]
struct Refusals {
    count: u32,
    last: Duration,
}

/// Admits connections within the limits; shared by all listeners of a node.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimiter {
    limits: ConnectionLimits,
    state: Arc<Mutex<State>>,
}

/// The permit of one admitted connection; dropping it lets another one in.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    limiter: ConnectionLimiter,
    address: IpAddr,
    pending: bool,
}

impl ConnectionLimiter {
    /// Creates a limiter that has admitted nothing.
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self { limits, state: Arc::default() }
    }

    /// Admits a connection from `address`, or returns the limit that forbids it.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<ConnectionPermit, LimitReached> {
        let address = network(address);
        let mut state = self.lock();
        if state.total >= self.limits.total {
            return Err(LimitReached::Total);
        }
        if state.pending >= self.limits.pending {
            return Err(LimitReached::Pending);
        }
        let open = state.open.entry(address).or_default();
        if *open >= self.limits.per_address {
            return Err(LimitReached::Address);
        }
        *open += 1;
        state.total += 1;
        state.pending += 1;
        Ok(ConnectionPermit { limiter: self.clone(), address, pending: true })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Moves the connection out of the pending ones while it publishes, and back among them afterwards.
    pub(crate) fn set_publishing(&mut self, publishing: bool) {
        if self.pending == publishing {
            let mut state = self.limiter.lock();
            self.pending = !publishing;
            if publishing {
                state.pending -= 1;
            } else {
                state.pending += 1;
            }
        }
    }

    /// Records a refused key at `now` and returns the time to hold its answer back.
    ///
    /// An accepted key does not reset the delay: one valid key would let its owner guess others at full speed.
    pub(crate) fn refusal_delay(&self, now: Duration) -> Duration {
        let mut state = self.limiter.lock();
        if state.refused.len() >= limits::REFUSAL_ADDRESSES && !state.refused.contains_key(&self.address) {
            evict(&mut state.refused, now);
        }
        let entry = state.refused.entry(self.address).or_insert(Refusals { count: 0, last: now });
        if now.saturating_sub(entry.last) > limits::REFUSAL_FORGET {
            entry.count = 0;
        }
        let delay = limits::REFUSAL_DELAY_FIRST.saturating_mul(1 << entry.count.min(16));
        *entry = Refusals { count: entry.count.saturating_add(1), last: now };
        delay.min(limits::REFUSAL_DELAY_MAX)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        state.total -= 1;
        state.pending -= usize::from(self.pending);
        if let Some(open) = state.open.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                state.open.remove(&self.address);
            }
        }
    }
}

/// Removes expired refusals; if none has expired, the oldest one.
fn evict(refused: &mut HashMap<IpAddr, Refusals>, now: Duration) {
    refused.retain(|_, entry| now.saturating_sub(entry.last) <= limits::REFUSAL_FORGET);
    if refused.len() >= limits::REFUSAL_ADDRESSES {
        let oldest = refused.iter().min_by_key(|(_, entry)| entry.last).map(|(address, _)| *address);
        oldest.and_then(|address| refused.remove(&address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> ConnectionLimiter {
        ConnectionLimiter::new(ConnectionLimits { total: 4, per_address: 2, pending: 3 })
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn limiter_holds_each_of_its_three_limits() {
        let limiter = limiter();
        let mut first = limiter.admit(v4(1)).unwrap();
        let mut second = limiter.admit(v4(1)).unwrap();
        assert_eq!(limiter.admit(v4(1)).unwrap_err(), LimitReached::Address);
        let _third = limiter.admit(v4(2)).unwrap();
        assert_eq!(limiter.admit(v4(3)).unwrap_err(), LimitReached::Pending);
        first.set_publishing(true);
        first.set_publishing(true);
        second.set_publishing(true);
        let _fourth = limiter.admit(v4(3)).unwrap();
        assert_eq!(limiter.admit(v4(4)).unwrap_err(), LimitReached::Total);
        second.set_publishing(false);
        drop(first);
        drop(second);
        let _fifth = limiter.admit(v4(1)).unwrap();
        let state = limiter.lock();
        assert_eq!((state.total, state.pending, state.open.len()), (3, 3, 3));
    }

    #[test]
    fn limiter_counts_one_ipv6_network_as_one_address() {
        let limiter = limiter();
        let _first = limiter.admit("2001:db8::1".parse().unwrap()).unwrap();
        let _second = limiter.admit("2001:db8::2".parse().unwrap()).unwrap();
        assert_eq!(limiter.admit("2001:db8::3".parse().unwrap()).unwrap_err(), LimitReached::Address);
        assert!(limiter.admit("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn refusal_delay_doubles_to_its_limit_and_expires() {
        let limiter = limiter();
        let (permit, other) = (limiter.admit(v4(1)).unwrap(), limiter.admit(v4(2)).unwrap());
        let now = Duration::from_secs(1_000);
        let delays: Vec<u64> = (0..6).map(|_| permit.refusal_delay(now).as_millis() as u64).collect();
        assert_eq!(delays, [250, 500, 1_000, 2_000, 4_000, 4_000]);
        assert_eq!(other.refusal_delay(now), limits::REFUSAL_DELAY_FIRST);
        assert_eq!(permit.refusal_delay(now + limits::REFUSAL_FORGET * 2), limits::REFUSAL_DELAY_FIRST);
    }

    #[test]
    fn refusals_are_kept_for_a_bounded_number_of_addresses() {
        let limiter = ConnectionLimiter::new(ConnectionLimits { total: 1, per_address: 1, pending: 1 });
        for n in 0..limits::REFUSAL_ADDRESSES as u32 + 50 {
            let permit = limiter.admit(IpAddr::from(n.to_be_bytes())).unwrap();
            permit.refusal_delay(Duration::from_millis(u64::from(n)));
        }
        assert!(limiter.lock().refused.len() <= limits::REFUSAL_ADDRESSES);
    }
}
