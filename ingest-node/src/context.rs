//! Everything the parts of a node share: its settings, its connections and its counters.

use std::sync::Arc;
use std::time::Duration;

use millrace_link::Link;
use millrace_link::publisher_session::SessionMetrics;
use millrace_runtime::{Clock, Drain, Secret, Supervisor};
use millrace_wire::ids::NodeId;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admission::ConnectionLimiter;
use crate::config::Config;
use crate::key_check::KeyCheck;
use crate::metrics::IngestMetrics;

/// The shared surroundings of listeners, connections and sessions of one node.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) link: Link,
    /// The secret that stream keys are hashed with, the same as control's.
    pub(crate) key_secret: Secret<Vec<u8>>,
    /// The identity of this process in claims and job offers.
    pub(crate) node: NodeId,
    pub(crate) metrics: IngestMetrics,
    pub(crate) session_metrics: SessionMetrics,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) drain: Drain,
    /// Cancelled when the time that a drain leaves running publishers is over.
    pub(crate) cutoff: CancellationToken,
    pub(crate) limiter: ConnectionLimiter,
    pub(crate) supervisor: Supervisor,
    /// Bounds the reports of refusals that are on their way to control.
    pub(crate) refusal_reports: Arc<Semaphore>,
    /// The check of keys that are none of the cluster's own, if a service for it is configured.
    pub(crate) key_check: Option<KeyCheck>,
}

impl Context {
    /// Returns the monotonic time since an arbitrary origin.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_millis(self.clock.now_ms())
    }
}
