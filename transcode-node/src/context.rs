//! The handles a worker node is started with, and those that its worker and all of its jobs share.

use std::sync::Arc;

use millrace_link::Link;
use millrace_runtime::Clock;
use millrace_state::SharedState;
use millrace_store::{SharedStore, Uploader};
use millrace_wire::ids::NodeId;

use crate::metrics::Metrics;

/// Everything a worker node is started with. The object store makes one attempt per call: the upload queue retries.
pub type Deps = millrace_node::Deps<millrace_node::Backends>;

/// The handles that a running node's worker, jobs and responders share.
#[derive(Clone)]
pub(crate) struct NodeContext {
    pub(crate) node: NodeId,
    pub(crate) link: Link,
    pub(crate) store: SharedStore,
    pub(crate) state: SharedState,
    pub(crate) uploader: Arc<Uploader>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}
