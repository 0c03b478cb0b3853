//! Checkpoints in the state store: the state that a stream's newest log writer left there.

use std::time::Duration;

use millrace_protocol::state::checkpoint;
use millrace_state::{SharedState, StateError};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::StreamId;
use millrace_wire::{state_keys, topic};

/// The state store's time to give a checkpoint to a feed that has found no log.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// The state store's time to show that a broadcast has ended. A stream may be live, so its first viewer does not wait longer
/// before a feed is started.
const ENDED_LIMIT: Duration = Duration::from_millis(500);

/// Reads the checkpoint of a stream, as readers show it. `None` without one, and when the state store does not answer in time.
pub(super) async fn read(state: &SharedState, stream: StreamId) -> Option<StreamState> {
    match tokio::time::timeout(READ_LIMIT, get(state, stream)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(%stream, %error, "checkpoint could not be read; the feed asks again");
            None
        }
        Err(_) => {
            let limit_s = READ_LIMIT.as_secs();
            tracing::warn!(%stream, limit_s, "checkpoint read timed out; the feed asks again");
            None
        }
    }
}

/// Reads the checkpoint of a stream whose broadcast has ended and that no publisher has claimed since: control keeps the claim
/// of a broadcast until its end has been announced for a minute. `None` for any other stream, which takes a feed to be shown.
pub(super) async fn read_ended(state: &SharedState, stream: StreamId) -> Option<StreamState> {
    let ended = async {
        if state.get(&state_keys::claim(stream)).await?.is_some() {
            return Ok(None);
        }
        get(state, stream).await
    };
    match tokio::time::timeout(ENDED_LIMIT, ended).await {
        Ok(Ok(found)) => found.filter(|found| found.ended && !found.slots.is_empty()),
        Ok(Err(error)) => {
            tracing::debug!(%stream, %error, "checkpoint could not be read; the stream is followed by a feed");
            None
        }
        Err(_) => None,
    }
}

async fn get(state: &SharedState, stream: StreamId) -> Result<Option<StreamState>, StateError> {
    let record = state.get(&state_keys::snapshot(stream)).await?;
    Ok(record.and_then(|record| topic::decode(&record.value).ok()).map(checkpoint::restored))
}
