//! The connections that a process holds: shares of its file descriptors for each of its ports, and a limit per address.
//!
//! Each connection costs a descriptor, and a process that has none left accepts on no port and opens no file. The ports of
//! a process therefore share a budget below its limit of descriptors, and each has a share of it that the others cannot
//! take.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::LogLimit;
use crate::address::network;

/// The part of the descriptors that is kept for files, for connections to bus, state and store, and for sockets that are
/// accepted and about to be refused: an eighth.
const RESERVE_DIVISOR: u64 = 8;
/// The smallest reserve: 16 uploads, as many reads, the connections to the servers of a cluster, and the files of the
/// embedded backends, twice.
const MIN_RESERVE: u64 = 64;
/// The largest reserve: far above what a node opens beside connections.
const MAX_RESERVE: u64 = 4_096;
/// The part of the process's connections that one address may have at most, whatever the limit of the port: a quarter. A
/// process with few descriptors must not be filled from one address.
const ADDRESS_DIVISOR: usize = 4;
/// More descriptors than this are not counted on: some systems report no limit at all.
const MAX_DESCRIPTORS: u64 = 1 << 20;

/// The connections of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Connections of all ports together.
    budget: usize,
    ports: Mutex<Vec<PortState>>,
    log: LogLimit,
}

#[derive(Debug)]
struct PortState {
    weight: usize,
    open: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The limit that a connection would have exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionLimit {
    /// The process has no descriptor to spare for the port.
    Descriptors,
    /// The address has as many connections to the port as it may.
    Address,
}

impl ConnectionLimit {
    /// Returns the label in metrics and log lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Address => "connections_per_address",
        }
    }
}

/// The settings of one port.
#[derive(Clone)]
pub struct PortOptions {
    /// The name of the port in log lines.
    pub name: &'static str,
    /// The weight of the port's guaranteed share beside those of the other ports.
    pub weight: usize,
    /// Connections from one address (one /64 for IPv6), and at most a quarter of the process's; 0 stands for any number.
    pub per_address: usize,
    /// True for addresses whose connections are not counted: proxies that hide their clients.
    pub exempt: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl PortOptions {
    /// Makes the settings of a port that no address is exempt at.
    pub fn new(name: &'static str, weight: usize, per_address: usize) -> Self {
        Self { name, weight, per_address, exempt: Arc::new(|_| false) }
    }
}

impl fmt::Debug for PortOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortOptions").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One listening port of the process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Port {
    connections: Connections,
    index: usize,
    options: PortOptions,
}

/// The place of one admitted connection; dropping it lets another one in.
#[derive(Debug)]
pub struct Place {
    port: Port,
    address: Option<IpAddr>,
}

impl Connections {
    /// Raises the process's soft limit of descriptors to the hard one, and makes the budget of what it may open then.
    pub fn of_process() -> Self {
        let limit = raise_descriptor_limit();
        Self::with_descriptors(limit)
    }

    /// Makes the budget of a process that may open `limit` descriptors.
    pub fn with_descriptors(limit: u64) -> Self {
        let limit = limit.min(MAX_DESCRIPTORS);
        let reserve = (limit / RESERVE_DIVISOR).clamp(MIN_RESERVE, MAX_RESERVE);
        // With next to no descriptors one connection is admitted, so that the port tells its client of the trouble.
        let budget = limit.saturating_sub(reserve).max(1) as usize;
        Self(Arc::new(Shared { budget, ports: Mutex::default(), log: LogLimit::default() }))
    }

    /// Returns the connections that the process admits on all ports together.
    pub fn budget(&self) -> usize {
        self.0.budget
    }

    /// Adds a port. From now on it has its share.
    pub fn port(&self, options: PortOptions) -> Port {
        let mut ports = self.lock();
        ports.push(PortState { weight: options.weight, open: 0, by_address: HashMap::new() });
        Port { connections: self.clone(), index: ports.len() - 1, options }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PortState>> {
        self.0.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Half the budget is guaranteed, shared by weight; the other half goes to whichever port needs it.
fn guaranteed(budget: usize, weight: usize, weights: usize) -> usize {
    budget / 2 * weight / weights.max(1)
}

/// True if a port may open one more connection: all that are open, and what the other ports are guaranteed beyond theirs,
/// stay within the budget.
fn has_room(budget: usize, ports: &[PortState], index: usize) -> bool {
    let weights = ports.iter().map(|port| port.weight).sum();
    let mut needed = 1;
    for (other, port) in ports.iter().enumerate() {
        needed += port.open;
        if other != index {
            needed += guaranteed(budget, port.weight, weights).saturating_sub(port.open);
        }
    }
    needed <= budget || ports[index].open < guaranteed(budget, ports[index].weight, weights)
}

impl Port {
    /// Admits a connection from `address`, or returns the limit that forbids it. A port that is full is logged.
    pub fn admit(&self, address: IpAddr) -> Result<Place, ConnectionLimit> {
        let counted = self.options.per_address > 0 && !(self.options.exempt)(address);
        let address = counted.then(|| network(address));
        let per_address = self.options.per_address.min((self.connections.0.budget / ADDRESS_DIVISOR).max(1));
        let mut ports = self.connections.lock();
        if !has_room(self.connections.0.budget, &ports, self.index) {
            let open = ports[self.index].open;
            drop(ports);
            self.log_full(open);
            return Err(ConnectionLimit::Descriptors);
        }
        let port = &mut ports[self.index];
        if let Some(address) = address {
            let open = port.by_address.entry(address).or_default();
            if *open >= per_address {
                return Err(ConnectionLimit::Address);
            }
            *open += 1;
        }
        port.open += 1;
        Ok(Place { port: self.clone(), address })
    }

    /// Returns the connections that each of `workers` threads may hold (0: one thread per core): `most`, or less if the
    /// process has not as many descriptors. It bounds the sockets that are accepted and not yet admitted, too.
    pub fn per_worker(&self, workers: usize, most: usize) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = if workers > 0 { workers } else { cores() };
        most.min((self.connections.0.budget / threads).max(1))
    }

    fn log_full(&self, open: usize) {
        if let Some(suppressed) = self.connections.0.log.due() {
            tracing::warn!(
                port = self.options.name,
                open,
                budget = self.connections.0.budget,
                suppressed,
                "no descriptor to spare; connections of this port are closed unread until others end (raise the limit of open files)"
            );
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut ports = self.port.connections.lock();
        let port = &mut ports[self.port.index];
        port.open -= 1;
        if let Some(address) = self.address
            && let Some(open) = port.by_address.get_mut(&address)
        {
            *open -= 1;
            if *open == 0 {
                port.by_address.remove(&address);
            }
        }
    }
}

/// Raises the soft limit of descriptors to the hard one; returns the limit that holds then.
fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn fill(port: &Port, address: IpAddr) -> Vec<Place> {
        std::iter::from_fn(|| port.admit(address).ok()).collect()
    }

    #[test]
    fn a_full_port_leaves_the_others_their_shares_and_the_process_its_reserve() {
        let connections = Connections::with_descriptors(1_024);
        assert_eq!(connections.budget(), 896);
        let [viewers, publishers, api] = [("edge", 4), ("rtmp", 4), ("control", 1)]
            .map(|(name, weight)| connections.port(PortOptions::new(name, weight, 0)));
        let held = fill(&viewers, v4(1));
        // 448 are guaranteed: 199 to each of the large ports, 49 to the small one.
        assert_eq!(held.len(), 896 - 199 - 49);
        assert_eq!(viewers.admit(v4(2)).unwrap_err(), ConnectionLimit::Descriptors);
        let published = fill(&publishers, v4(1));
        assert_eq!((published.len(), fill(&api, v4(1)).len()), (199, 49));
        drop(held);
        assert_eq!(fill(&publishers, v4(1)).len() + published.len(), 896 - 199 - 49);
    }

    #[test]
    fn an_address_is_limited_at_each_port_unless_it_is_exempt() {
        let connections = Connections::with_descriptors(1_024);
        let exempt: Arc<dyn Fn(IpAddr) -> bool + Send + Sync> = Arc::new(|address| address == v4(9));
        let first = connections.port(PortOptions { exempt, ..PortOptions::new("first", 1, 2) });
        let second = connections.port(PortOptions::new("second", 1, 2));
        let held = fill(&first, v4(1));
        assert_eq!((held.len(), fill(&second, v4(1)).len(), fill(&first, v4(2)).len()), (2, 2, 2));
        assert_eq!(first.admit(v4(1)).unwrap_err(), ConnectionLimit::Address);
        assert!(fill(&first, v4(9)).len() > 100);
        let many = connections.port(PortOptions::new("many", 1, 10_000));
        assert_eq!(fill(&many, v4(1)).len(), 896 / 4);
        drop(held);
        assert_eq!(fill(&first, v4(1)).len(), 2);
        assert!(connections.lock().iter().all(|port| port.open == 0 && port.by_address.is_empty()));
    }

    #[test]
    fn soft_limit_is_raised_to_the_hard_one() {
        let limit = raise_descriptor_limit();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!((current, limit), (maximum, maximum.unwrap_or(u64::MAX)));
    }
}
