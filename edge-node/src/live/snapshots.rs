//! Snapshots of a stream, gathered from whoever follows its log, or its checkpoint.

use std::time::Duration;

use millrace_link::Link;
use millrace_state::SharedState;
use millrace_wire::fact::{Origin, StreamState};
use millrace_wire::ids::StreamId;
use millrace_wire::message::repair::SnapshotRequest;
use millrace_wire::topics;

use crate::live::checkpoint;

/// The time in which replies to a snapshot request are gathered (ADR 1, rule 8: the newest state among those that
/// answer in this time counts).
const WAIT: Duration = Duration::from_millis(300);
/// The time in which the replies to a feed's first request are gathered. A running stream's worker and session reply within
/// some milliseconds, and a first viewer waits for it. Without the fold of a log among the replies the request is sent again
/// and gathered for [`WAIT`]. A newer log than the one found is adopted when its session announces it, once a second.
const QUICK_WAIT: Duration = Duration::from_millis(50);
/// Replies that are gathered: those of the worker, the session and two followers. The asking feed may be one of them once it
/// has folded a log; its own reply changes nothing.
const MAX_REPLIES: usize = 4;

/// Returns the snapshots that followers of the stream's log reply with, and its checkpoint if no reply lists any segment.
/// `is_first` is true for the first request of a feed.
pub(super) async fn request(
    link: &Link,
    state: &SharedState,
    stream: StreamId,
    is_first: bool,
) -> Vec<StreamState> {
    let mut found = if is_first { gather(link, stream, QUICK_WAIT).await } else { Vec::new() };
    if !found.iter().any(|state| state.origin == Origin::Log && !state.slots.is_empty()) {
        found = gather(link, stream, WAIT).await;
    }
    if found.iter().all(|state| state.slots.is_empty()) {
        found.extend(checkpoint::read(state, stream).await);
    } else if found.iter().any(|state| state.origin == Origin::Log) {
        // The fold of a log (`Origin::Log`) is newer than a checkpoint that a worker has answered with.
        found.retain(|state| state.origin == Origin::Log);
    }
    found
}

async fn gather(link: &Link, stream: StreamId, wait: Duration) -> Vec<StreamState> {
    let topic = topics::snapshot(stream);
    let gathered = link.gather(&topic, &SnapshotRequest {}, wait, MAX_REPLIES).await;
    gathered.unwrap_or_else(|error| {
        tracing::debug!(%stream, %error, "snapshot request failed; the checkpoint is read instead");
        Vec::new()
    })
}
