//! The status of a feed's actor, which operators see in the list of actors.

use std::sync::Arc;
use std::time::Duration;

use millrace_runtime::{Clock, StatusHandle};

use crate::live::lag::{LagReport, LogId};
use crate::live::playlists::Following;

/// Shows in the actor's status how a feed follows its log. The text is made only when it changes.
#[derive(Debug)]
pub(crate) struct FeedStatus {
    handle: StatusHandle,
    clock: Arc<dyn Clock>,
    shown: Option<(Following, Option<LogId>, bool)>,
    /// Milliseconds of the process's monotonic clock.
    waiting_since_ms: Option<u64>,
}

impl FeedStatus {
    /// Creates the status of a feed from the status handle of its actor.
    pub(crate) fn new(handle: StatusHandle, clock: Arc<dyn Clock>) -> Self {
        Self { handle, clock, shown: None, waiting_since_ms: None }
    }

    /// Shows the relation to the log.
    pub(crate) fn follows(&mut self, following: Following, log: Option<LogId>, lag: Option<&LagReport>) {
        let next = Some((following, log, lag.is_some()));
        if self.shown == next {
            return;
        }
        self.shown = next;
        self.handle.set_state(match (log, lag) {
            (None, _) => "no log adopted".to_owned(),
            (Some((epoch, generation)), None) => format!("following epoch {epoch} generation {generation}"),
            (Some((epoch, generation)), Some(lag)) => {
                let since = lag.since_unix_ms();
                format!("lagging behind epoch {epoch} generation {generation} since unix time {since} ms")
            }
        });
    }

    /// Shows the number of fragments that wait, and the time since which some have been waiting.
    pub(crate) fn queue(&mut self, waiting: usize) {
        if waiting == 0 {
            if self.waiting_since_ms.take().is_some() {
                self.handle.set_queue(0, Duration::ZERO);
            }
            return;
        }
        let now_ms = self.clock.now_ms();
        let since_ms = *self.waiting_since_ms.get_or_insert(now_ms);
        self.handle.set_queue(waiting, Duration::from_millis(now_ms - since_ms));
    }
}
