//! `[node]`, and the operations routes of a process.

use std::net::SocketAddr;

use anyhow::Context;
use millrace_runtime::http::{HttpHandle, serve};
use millrace_runtime::{ConfigTree, Pacing, Process, Section};
use serde::Deserialize;

/// `[node]`: settings of any role.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// The address of the operations routes (`/metrics`, `/healthz`, `/readyz`, `/actors`) for roles without an HTTP
    /// server of their own.
    pub metrics_listen: Option<SocketAddr>,
    /// Busy threads of the process batch their wake-ups, which costs up to 10 ms and saves CPU (ADR 4). The role decides
    /// when it is not set.
    pub pacing: Option<bool>,
}

impl NodeConfig {
    /// Returns the pacing of the process, given the default of its role.
    pub fn pacing(&self, role: Pacing) -> Pacing {
        self.pacing.map_or(role, Pacing::from)
    }
}

impl Section for NodeConfig {
    const NAME: &'static str = "node";
}

/// Makes the services of this process. From here on SIGTERM and SIGINT begin its drain.
pub fn process() -> std::io::Result<Process> {
    let process = Process::default();
    process.drain.on_signals()?;
    Ok(process)
}

/// Serves the operations routes for a node without an HTTP server of its own: at `own`, the address in the node's
/// section, else at `[node] metrics_listen`, else not at all.
pub(crate) fn serve_operations(
    process: &Process,
    tree: &ConfigTree,
    own: Option<SocketAddr>,
) -> anyhow::Result<Option<HttpHandle>> {
    let node: NodeConfig = tree.section()?;
    let serve = |listen| serve(listen, process.observability()).context("metrics_listen");
    own.or(node.metrics_listen).map(serve).transpose()
}
