//! The stream's last state in the state store: what a cold edge shows and a returning publisher's session builds on when
//! nobody who folded the log is there any more.

use std::time::Duration;

use millrace_protocol::state::checkpoint::{MAX_SLOTS_AT_REST, may_replace, newest};
use millrace_runtime::Backoff;
use millrace_state::{SharedState, StateError, Tx, Version};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::StreamId;
use millrace_wire::state_keys;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Renditions close their segments within moments of each other: one write is enough for all. What is stored and not yet
/// written here is listed as missing after a crash, so it is not longer.
const KEEP_AFTER: Duration = Duration::from_millis(100);
/// Pauses between attempts while the state store is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A job that ends waits this long for its last state to be written.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Writes the newest state, one write at a time, behind the caller's back.
pub(crate) struct Keeper {
    latest: watch::Sender<Option<StreamState>>,
    closing: CancellationToken,
    writer: JoinHandle<()>,
}

impl Keeper {
    pub(crate) fn start(state: SharedState, stream: StreamId) -> Self {
        let (latest, reader) = watch::channel(None);
        let closing = CancellationToken::new();
        let writer = tokio::spawn(write(state, state_keys::snapshot(stream), reader, closing.clone()));
        Self { latest, closing, writer }
    }

    /// Has `rest` written; an older one still waiting is not.
    pub(crate) fn keep(&self, rest: StreamState) {
        self.latest.send_replace(Some(newest(rest, MAX_SLOTS_AT_REST)));
    }

    /// Returns when the newest state is written, or not in time.
    pub(crate) async fn close(self) {
        drop(self.latest);
        self.closing.cancel();
        if tokio::time::timeout(CLOSE_LIMIT, self.writer).await.is_err() {
            tracing::warn!("the stream's last state is not written yet");
        }
    }
}

async fn write(
    state: SharedState,
    key: String,
    mut latest: watch::Receiver<Option<StreamState>>,
    closing: CancellationToken,
) {
    let mut pause = Backoff::new(RETRY.0, RETRY.1);
    let mut own = None;
    while latest.changed().await.is_ok() {
        let _ = closing.run_until_cancelled(tokio::time::sleep(KEEP_AFTER)).await;
        loop {
            let Some(newest) = latest.borrow_and_update().clone() else { break };
            match put_newer(&state, &key, &newest, &mut own).await {
                Ok(()) => break,
                Err(StateError::Conflict { .. }) => {}
                Err(error @ StateError::Unavailable { .. }) => {
                    tracing::debug!(%error, "state store away, the last state is written later");
                    pause.wait().await;
                }
                Err(error) => {
                    tracing::error!(%error, "the stream's last state cannot be written");
                    break;
                }
            }
        }
        pause.reset();
    }
}

/// Writes `new` unless a newer author's state is there. `own` is the version of this author's last write: nothing is read
/// as long as nobody else writes.
async fn put_newer(
    state: &SharedState,
    key: &str,
    new: &StreamState,
    own: &mut Option<Version>,
) -> Result<(), StateError> {
    let Ok(value) = serde_json::to_vec(new) else { return Ok(()) };
    let mut version = own.take();
    if version.is_none() {
        let old = state.get(key).await?;
        let newer = |value: &[u8]| serde_json::from_slice(value).map_or(true, |old| may_replace(new, &old));
        if old.as_ref().is_some_and(|old| !newer(&old.value)) {
            return Ok(());
        }
        version = old.map(|old| old.version);
    }
    *own = Some(state.commit(Tx::new().check(key, version).put(key, value)).await?);
    Ok(())
}
