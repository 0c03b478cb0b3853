//! The services that all nodes of one process share.

use std::sync::Arc;

use crate::http::Observability;
use crate::{ActorRegistry, Clock, Connections, Drain, Metrics, Readiness, SystemClock};

/// Metrics, readiness, time, drain and actors of a process. A process runs one node, or all four in `standalone`. Cheap
/// to clone.
#[derive(Debug, Clone)]
pub struct Process {
    /// Everything measured in the process.
    pub metrics: Metrics,
    /// The conditions under which the process may take work.
    pub readiness: Readiness,
    /// The clock of the nodes.
    pub clock: Arc<dyn Clock>,
    /// Begins when the process is to leave.
    pub drain: Drain,
    /// Every actor of the process.
    pub actors: ActorRegistry,
    /// The connections that the ports of the process hold.
    pub connections: Connections,
}

impl Process {
    /// Makes the services of a process with the given clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let metrics = Metrics::new();
        let actors = ActorRegistry::new(&metrics);
        let connections = Connections::of_process();
        Self { metrics, readiness: Readiness::new(), clock, drain: Drain::new(), actors, connections }
    }

    /// Returns what the operations routes show of the process.
    pub fn observability(&self) -> Observability {
        Observability {
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
            drain: self.drain.clone(),
            actors: self.actors.clone(),
            connections: self.connections.clone(),
        }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new(SystemClock::shared())
    }
}
