//! The policy by which a child is supervised, and the ways it can end.

use std::fmt;
use std::time::Duration;

/// The ends of a child's loop after which it is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// The loop is never restarted: a session or a job ends with its failure.
    Never,
    /// The loop is restarted after an error or a panic.
    OnFailure,
    /// The loop is restarted after any end but a requested stop.
    Always,
}

/// The consequence of a child that has spent its budget of restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escalation {
    /// The child stays down; the failure is logged and counted.
    GiveUp,
    /// The node drains, because it cannot do its work without the child.
    Drain,
}

/// The policy by which a child is supervised.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The ends after which the child is restarted.
    pub restart: Restart,
    /// The longest wait before the first restart.
    pub backoff_first: Duration,
    /// The longest wait before any restart.
    pub backoff_max: Duration,
    /// The number of restarts allowed in `within`; one more escalates.
    pub budget: u32,
    /// The time over which restarts are counted.
    pub within: Duration,
    /// The consequence of a spent budget.
    pub escalation: Escalation,
}

impl Policy {
    /// The policy of an actor the node cannot do without: it is restarted after any end, and the node drains when it
    /// fails more than ten times in a minute.
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

    /// The policy of a session or job, which is never restarted.
    pub fn once() -> Self {
        Self { restart: Restart::Never, escalation: Escalation::GiveUp, ..Self::vital() }
    }
}

/// The way a child's loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The loop returned without an error: its work was done or its stop was requested.
    Finished,
    /// The loop returned this error.
    Failed(String),
    /// The loop panicked with this message.
    Panicked(String),
}

impl Exit {
    /// Returns the text of the error or panic.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Finished => None,
            Self::Failed(text) | Self::Panicked(text) => Some(text),
        }
    }
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
