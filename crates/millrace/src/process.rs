//! What all nodes of a process share.

use std::net::SocketAddr;
use std::sync::Arc;

use millrace_runtime::http::Observability;
use millrace_runtime::{Clock, Drain, Metrics, Readiness, Section, SystemClock};
use serde::Deserialize;

/// `[node]`: settings of any role.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NodeConfig {
    /// Where `/metrics`, `/healthz` and `/readyz` are served by roles without an HTTP server of their own.
    pub(crate) metrics_listen: Option<SocketAddr>,
}

impl Section for NodeConfig {
    const NAME: &'static str = "node";
}

/// Metrics, readiness, time and drain of the process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) drain: Drain,
}

impl Process {
    /// Signals begin the drain from here on.
    pub(crate) fn new() -> std::io::Result<Self> {
        let drain = Drain::new();
        drain.on_signals()?;
        Ok(Self { metrics: Metrics::new(), readiness: Readiness::new(), clock: SystemClock::shared(), drain })
    }

    pub(crate) fn observability(&self) -> Observability {
        Observability {
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
            drain: self.drain.clone(),
        }
    }
}
