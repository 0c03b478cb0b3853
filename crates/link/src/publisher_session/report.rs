//! The condition of a publisher session.

/// The condition of a session, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionReport {
    /// True while no worker has capacity for the packaging job.
    pub lacks_worker: bool,
    /// Outputs of the session machine (orders, renewals, requests) that the task is executing.
    pub executing: usize,
}
