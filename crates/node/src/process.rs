//! What all nodes of a process share, and `[node]`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use millrace_runtime::http::{HttpHandle, Observability, serve};
use millrace_runtime::{Clock, ConfigTree, Drain, Metrics, Readiness, Section, SystemClock};
use serde::Deserialize;

/// `[node]`: settings of any role.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Where `/metrics`, `/healthz` and `/readyz` are served by roles without an HTTP server of their own.
    pub metrics_listen: Option<SocketAddr>,
}

impl Section for NodeConfig {
    const NAME: &'static str = "node";
}

/// Metrics, readiness, time and drain of the process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Everything measured.
    pub metrics: Metrics,
    /// Whether it may take work.
    pub readiness: Readiness,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Begins with a signal.
    pub drain: Drain,
}

impl Process {
    /// Signals begin the drain from here on.
    pub fn new() -> std::io::Result<Self> {
        let drain = Drain::new();
        drain.on_signals()?;
        Ok(Self { metrics: Metrics::new(), readiness: Readiness::new(), clock: SystemClock::shared(), drain })
    }

    /// Serves metrics and health for a node without an HTTP server of its own: at `own`, the node's setting, else where
    /// `[node]` says, else nowhere.
    pub fn observe(&self, tree: &ConfigTree, own: Option<SocketAddr>) -> anyhow::Result<Option<HttpHandle>> {
        let node: NodeConfig = tree.section()?;
        let observability = Observability {
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
            drain: self.drain.clone(),
        };
        let serve = |listen| serve(listen, observability).context("metrics_listen");
        own.or(node.metrics_listen).map(serve).transpose()
    }
}
