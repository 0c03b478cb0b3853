//! Who may come in: connection counts and the growing delay of refusals, per address.
//!
//! Knows no clock and no socket: the caller passes the time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_runtime::address::network;

use crate::limits;

/// Bounds of the gate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GateLimits {
    pub(crate) total: usize,
    pub(crate) per_address: usize,
    pub(crate) pending: usize,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The node has as many connections as it may.
    Total,
    /// The address has.
    Address,
    /// Too many connections have not begun to publish.
    Pending,
}

impl Full {
    /// Label in metrics and log lines.
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

#[derive(Debug, Clone, Copy)]
struct Refusals {
    count: u32,
    last: Duration,
}

/// Shared by all listeners of a node.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    limits: GateLimits,
    state: Arc<Mutex<State>>,
}

/// One admitted connection; dropping it frees its place.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Gate,
    address: IpAddr,
    pending: bool,
}

impl Gate {
    pub(crate) fn new(limits: GateLimits) -> Self {
        Self { limits, state: Arc::default() }
    }

    /// Takes a place for a connection from `address`.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, Full> {
        let address = network(address);
        let mut state = self.lock();
        if state.total >= self.limits.total {
            return Err(Full::Total);
        }
        if state.pending >= self.limits.pending {
            return Err(Full::Pending);
        }
        let open = state.open.entry(address).or_default();
        if *open >= self.limits.per_address {
            return Err(Full::Address);
        }
        *open += 1;
        state.total += 1;
        state.pending += 1;
        Ok(Place { gate: self.clone(), address, pending: true })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The connection publishes: it counts as pending no more (or again).
    pub(crate) fn set_publishing(&mut self, publishing: bool) {
        if self.pending == publishing {
            let mut state = self.gate.lock();
            self.pending = !publishing;
            if publishing {
                state.pending -= 1;
            } else {
                state.pending += 1;
            }
        }
    }

    /// Records a refusal at `now`; how long its answer is to be held back.
    ///
    /// A success does not clear it: one valid key would let its owner guess others without delay.
    pub(crate) fn refused(&self, now: Duration) -> Duration {
        let mut state = self.gate.lock();
        if state.refused.len() >= limits::REFUSAL_ADDRESSES && !state.refused.contains_key(&self.address) {
            forget(&mut state.refused, now);
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

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
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

/// Drops what is old; if nothing is, the oldest.
fn forget(refused: &mut HashMap<IpAddr, Refusals>, now: Duration) {
    refused.retain(|_, entry| now.saturating_sub(entry.last) <= limits::REFUSAL_FORGET);
    if refused.len() >= limits::REFUSAL_ADDRESSES {
        let oldest = refused.iter().min_by_key(|(_, entry)| entry.last).map(|(address, _)| *address);
        oldest.and_then(|address| refused.remove(&address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(GateLimits { total: 4, per_address: 2, pending: 3 })
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn counts_total_address_and_pending() {
        let gate = gate();
        let mut a = gate.enter(v4(1)).unwrap();
        let mut b = gate.enter(v4(1)).unwrap();
        assert_eq!(gate.enter(v4(1)).unwrap_err(), Full::Address);
        let _c = gate.enter(v4(2)).unwrap();
        assert_eq!(gate.enter(v4(3)).unwrap_err(), Full::Pending);
        a.set_publishing(true);
        a.set_publishing(true);
        b.set_publishing(true);
        let _d = gate.enter(v4(3)).unwrap();
        assert_eq!(gate.enter(v4(4)).unwrap_err(), Full::Total);
        b.set_publishing(false);
        drop(a);
        drop(b);
        let _e = gate.enter(v4(1)).unwrap();
        let state = gate.lock();
        assert_eq!((state.total, state.pending, state.open.len()), (3, 3, 3));
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let gate = gate();
        let _a = gate.enter("2001:db8::1".parse().unwrap()).unwrap();
        let _b = gate.enter("2001:db8::2".parse().unwrap()).unwrap();
        assert_eq!(gate.enter("2001:db8::3".parse().unwrap()).unwrap_err(), Full::Address);
        assert!(gate.enter("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn the_delay_grows_to_its_limit_and_is_forgotten() {
        let gate = gate();
        let (place, other) = (gate.enter(v4(1)).unwrap(), gate.enter(v4(2)).unwrap());
        let now = Duration::from_secs(1_000);
        let delays: Vec<u64> = (0..6).map(|_| place.refused(now).as_millis() as u64).collect();
        assert_eq!(delays, [250, 500, 1_000, 2_000, 4_000, 4_000]);
        assert_eq!(other.refused(now), limits::REFUSAL_DELAY_FIRST);
        assert_eq!(place.refused(now + limits::REFUSAL_FORGET * 2), limits::REFUSAL_DELAY_FIRST);
    }

    #[test]
    fn remembers_a_bounded_number_of_addresses() {
        let gate = Gate::new(GateLimits { total: 1, per_address: 1, pending: 1 });
        for n in 0..limits::REFUSAL_ADDRESSES as u32 + 50 {
            let place = gate.enter(IpAddr::from(n.to_be_bytes())).unwrap();
            place.refused(Duration::from_millis(u64::from(n)));
        }
        assert!(gate.lock().refused.len() <= limits::REFUSAL_ADDRESSES);
    }
}
