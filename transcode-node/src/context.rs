//! The handles a worker node is started with, and those that its worker and all of its jobs share.

use std::sync::Arc;

use millrace_bus::{JournalWriter, SharedBus};
use millrace_runtime::{Clock, Drain, Readiness};
use millrace_state::SharedState;
use millrace_store::{SharedStore, Uploader};
use millrace_wire::ids::NodeId;

use crate::metrics::Metrics;

/// The handles a worker node is started with.
pub struct Deps {
    /// The bus carries media, offers, grants, facts, heartbeats and repairs.
    pub bus: SharedBus,
    /// The object store takes segments. It makes one attempt per call: the upload queue retries.
    pub store: SharedStore,
    /// The state store keeps the segment index and the streams' checkpoints.
    pub state: SharedState,
    /// This process's name in the cluster; a name is generated when it is `None`.
    pub node: Option<NodeId>,
    /// The registry that the node's metrics are added to.
    pub metrics: millrace_runtime::Metrics,
    /// The registry of conditions that must hold for the node to be ready.
    pub readiness: Readiness,
    /// The clock of the node's jobs.
    pub clock: Arc<dyn Clock>,
    /// The drain that begins when the process is asked to leave.
    pub drain: Drain,
}

/// The handles that a running node's worker, jobs and responders share.
#[derive(Clone)]
pub(crate) struct NodeContext {
    pub(crate) node: NodeId,
    pub(crate) bus: SharedBus,
    pub(crate) store: SharedStore,
    pub(crate) state: SharedState,
    pub(crate) uploader: Arc<Uploader>,
    pub(crate) index_journal: Arc<JournalWriter>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}
