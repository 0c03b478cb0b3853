//! The parameters of a publisher session.

use std::sync::Arc;

use millrace_protocol::log::replay_buffer::ReplayLimits;
use millrace_runtime::Clock;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::SessionId;
use millrace_wire::message::control::ClaimGrant;

use super::metrics::SessionMetrics;

/// The parameters of one publisher session.
pub struct SessionSetup {
    /// The grant with which control answered the claim.
    pub grant: ClaimGrant,
    /// The session that the grant was given to.
    pub session: SessionId,
    /// Cost units of the packaging job.
    pub job_cost: u64,
    /// Bounds of the media replay buffer.
    pub replay: ReplayLimits,
    /// The clock that the session machine runs on.
    pub clock: Arc<dyn Clock>,
    /// The metrics that all sessions of the node share.
    pub metrics: SessionMetrics,
    /// Called with the reason when the session must end though its publisher has not: a kick, a superseded lease. It must
    /// not block.
    pub on_close: Box<dyn Fn(CloseReason) + Send + Sync>,
}
