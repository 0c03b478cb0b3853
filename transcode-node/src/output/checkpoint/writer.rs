//! Writes a stream's newest checkpoint into the state store. Edges that start without a log show it, and a returning
//! publisher's session builds on it, when no node that followed the log is running any more.

use std::time::Duration;

use millrace_protocol::state::checkpoint::{MAX_CHECKPOINT_SLOTS, limit_slots, may_write};
use millrace_runtime::Backoff;
use millrace_state::{SharedState, StateError, Tx, Version};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::StreamId;
use millrace_wire::{state_keys, topic};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The pause before a write. Renditions close their segments within moments of each other, so one write serves all. It
/// is no longer than that: a segment that is stored but not yet in the checkpoint is listed as missing after a crash.
const COALESCE: Duration = Duration::from_millis(100);
/// Shortest and longest pause between attempts while the state store is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The longest time a job that ends waits for its last checkpoint to be written.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The task that writes one stream's newest checkpoint, one write at a time.
pub(crate) struct CheckpointWriter {
    latest: watch::Sender<Option<StreamState>>,
    closing: CancellationToken,
    task: JoinHandle<()>,
}

impl CheckpointWriter {
    pub(crate) fn start(state: SharedState, stream: StreamId) -> Self {
        let (latest, reader) = watch::channel(None);
        let closing = CancellationToken::new();
        let task = tokio::spawn(run(state, state_keys::snapshot(stream), reader, closing.clone()));
        Self { latest, closing, task }
    }

    /// Hands `checkpoint` to the task and returns at once. It replaces an older one that still waits.
    pub(crate) fn write(&self, checkpoint: StreamState) {
        self.latest.send_replace(Some(limit_slots(checkpoint, MAX_CHECKPOINT_SLOTS)));
    }

    /// Waits until the newest checkpoint is written, at most [`CLOSE_LIMIT`].
    pub(crate) async fn close(self) {
        drop(self.latest);
        self.closing.cancel();
        if tokio::time::timeout(CLOSE_LIMIT, self.task).await.is_err() {
            tracing::warn!(
                "last checkpoint not written in time; an edge that starts now shows an older state"
            );
        }
    }
}

async fn run(
    state: SharedState,
    key: String,
    mut latest: watch::Receiver<Option<StreamState>>,
    closing: CancellationToken,
) {
    let mut pause = Backoff::new(RETRY.0, RETRY.1);
    let mut own = None;
    while latest.changed().await.is_ok() {
        let _ = closing.run_until_cancelled(tokio::time::sleep(COALESCE)).await;
        loop {
            let Some(newest) = latest.borrow_and_update().clone() else { break };
            match put_newer(&state, &key, &newest, &mut own).await {
                Ok(()) => break,
                Err(StateError::Conflict { .. }) => {}
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "state store takes no checkpoint; it is written later");
                    pause.wait().await;
                }
                Err(error) => {
                    tracing::error!(%error, "state store refused the checkpoint; the next one is tried");
                    break;
                }
            }
        }
        pause.reset();
    }
}

/// Writes `new` unless the record holds a newer author's checkpoint. `own` is the version of this author's last write:
/// while it is current nothing needs to be read first.
async fn put_newer(
    state: &SharedState,
    key: &str,
    new: &StreamState,
    own: &mut Option<Version>,
) -> Result<(), StateError> {
    let Ok(value) = topic::encode(new) else { return Ok(()) };
    let mut version = own.take();
    if version.is_none() {
        let old = state.get(key).await?;
        if !may_write(new, old.as_ref().map(|old| &old.value[..])) {
            return Ok(());
        }
        version = old.map(|old| old.version);
    }
    *own = Some(state.commit(Tx::new().check(key, version).put(key, value)).await?);
    Ok(())
}
