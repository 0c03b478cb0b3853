//! How a child is supervised, and how it may end.

use std::fmt;
use std::time::Duration;

/// When a child is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Never: a session or a job whose failure is its own end.
    Never,
    /// After an error or a panic.
    OnFailure,
    /// Whenever it ends without being told to.
    Always,
}

/// What happens when a child spent its budget of restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escalation {
    /// It stays down; the failure is logged and counted.
    GiveUp,
    /// The node drains: it cannot do its work.
    Drain,
}

/// How a child is supervised.
#[derive(Debug, Clone)]
pub struct Policy {
    /// When it is started again.
    pub restart: Restart,
    /// The longest first wait before a restart.
    pub backoff_first: Duration,
    /// The longest wait of all.
    pub backoff_max: Duration,
    /// So many restarts…
    pub budget: u32,
    /// …in this time; one more escalates.
    pub within: Duration,
    /// What one more does.
    pub escalation: Escalation,
}

impl Policy {
    /// For a part the node cannot do without: restarted on any end, and the node drains when it fails
    /// ten times in a minute.
    pub fn vital() -> Self {
        Self {
            restart: Restart::Always,
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            budget: 10,
            within: Duration::from_mins(1),
            escalation: Escalation::Drain,
        }
    }

    /// For a session or job: its end is its end.
    pub fn once() -> Self {
        Self { restart: Restart::Never, escalation: Escalation::GiveUp, ..Self::vital() }
    }
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Its work was done, or it was told to stop.
    Finished,
    /// It returned an error.
    Failed(String),
    /// It panicked.
    Panicked(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::Failed(error) => f.write_str(error),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
        }
    }
}
