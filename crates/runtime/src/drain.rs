//! Leaving in good order: a signal starts the drain, nodes finish what they hold, a second signal ends
//! the process at once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{info, warn};

/// Exit status after a second signal: what a shell reports for a process ended by SIGINT.
const IMPATIENT_EXIT_CODE: i32 = 130;

/// Shared by everything in a process: says that the node takes no new work, and counts the work that
/// is still held.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    token: CancellationToken,
    held: TaskTracker,
    reason: Arc<OnceLock<String>>,
}

/// Held work: the drain waits until every guard is dropped (or its time limit passes).
#[derive(Debug)]
pub struct DrainGuard {
    _token: TaskTrackerToken,
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain. The first reason stays; later calls change nothing.
    pub fn start(&self, reason: &str) {
        if self.reason.set(reason.to_owned()).is_ok() {
            info!(reason, "draining: no new work is taken, held work is finished");
        }
        self.token.cancel();
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Why it began.
    pub fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Resolves when the drain begins.
    pub async fn draining(&self) {
        self.token.cancelled().await;
    }

    /// The token behind it, for `select!` and child tokens.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// A drain of its own that also begins when this one does: for one node among several in a process.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), held: TaskTracker::new(), reason: Arc::default() }
    }

    /// Marks work as held until the guard is dropped.
    pub fn guard(&self) -> DrainGuard {
        DrainGuard { _token: self.held.token() }
    }

    /// Waits until all held work is finished; `false` when `limit` passed first.
    pub async fn finished(&self, limit: Duration) -> bool {
        self.held.close();
        tokio::time::timeout(limit, self.held.wait()).await.is_ok()
    }

    /// SIGTERM or SIGINT begins the drain, the second one ends the process.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let drain = self.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = term.recv() => "SIGTERM",
                    _ = int.recv() => "SIGINT",
                };
                if drain.reason().is_some() {
                    warn!(signal = name, "second signal: leaving at once");
                    std::process::exit(IMPATIENT_EXIT_CODE);
                }
                drain.start(name);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_held_work_and_says_when_it_gave_up() {
        let drain = Drain::new();
        let guard = drain.guard();
        drain.start("test");
        drain.draining().await;
        assert_eq!(drain.reason(), Some("test"));
        assert!(!drain.finished(Duration::from_millis(5)).await);
        drop(guard);
        assert!(drain.finished(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn a_child_follows_its_parent_but_not_the_other_way() {
        let parent = Drain::new();
        let child = parent.child();
        child.start("node fault");
        assert!(!parent.is_draining());
        let other = parent.child();
        parent.start("stop");
        other.draining().await;
        assert!(other.is_draining());
    }
}
