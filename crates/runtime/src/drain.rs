//! Drain: after a first signal nodes take no new work and finish the work they hold; a second signal ends the process at
//! once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{info, warn};

/// Exit status after a second signal: the one a shell reports for a process that SIGINT ended.
const SECOND_SIGNAL_EXIT_CODE: i32 = 130;

/// The drain of a process or of one node: its parts take no more work once it has begun, and it waits for the work they hold.
/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    token: CancellationToken,
    held: TaskTracker,
    reason: Arc<OnceLock<String>>,
}

/// Marks held work: the drain waits until every guard is dropped or its time limit passes.
#[derive(Debug)]
pub struct DrainGuard {
    _token: TaskTrackerToken,
}

impl Drain {
    /// Makes a drain that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the drain. The first reason is kept; later calls change nothing.
    pub fn start(&self, reason: &str) {
        if self.reason.set(reason.to_owned()).is_ok() {
            info!(reason, "drain begins: no new work is taken, held work is finished");
        }
        self.token.cancel();
    }

    /// Returns true once the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns the reason of the drain once it has begun.
    pub fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Waits until the drain begins.
    pub async fn draining(&self) {
        self.token.cancelled().await;
    }

    /// Returns the token that is cancelled when the drain begins, for child tokens.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Makes the drain of one node among several in a process: it begins on its own or with this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), held: TaskTracker::new(), reason: Arc::default() }
    }

    /// Marks work as held until the guard is dropped.
    pub fn guard(&self) -> DrainGuard {
        DrainGuard { _token: self.held.token() }
    }

    /// Waits until all held work is finished. Returns `false` when `limit` passed first.
    pub async fn finished(&self, limit: Duration) -> bool {
        self.held.close();
        tokio::time::timeout(limit, self.held.wait()).await.is_ok()
    }

    /// Makes the first SIGTERM or SIGINT begin the drain, and the second end the process.
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
                    warn!(signal = name, "second signal: the process exits at once, held work is lost");
                    std::process::exit(SECOND_SIGNAL_EXIT_CODE);
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
    async fn drain_waits_for_held_work_until_its_limit() {
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
    async fn child_drain_begins_with_its_parent_and_never_begins_it() {
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
