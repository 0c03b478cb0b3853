//! Checkpoints in the state store: the state of a stream that its newest log writer has stored.

use std::time::Duration;

use millrace_protocol::state::checkpoint;
use millrace_state::{SharedState, StateError};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::{Airing, StreamId};
use millrace_wire::{state_keys, topic};

/// The longest wait for the state store when a feed that has found no log reads a checkpoint.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// The longest wait for the state store when it is read to find out whether a broadcast has ended. The stream may be live, so its
/// first viewer does not wait longer before a feed is started.
const ENDED_LIMIT: Duration = Duration::from_millis(500);

/// Reads the checkpoint of a stream and restores the state that playlists are rendered from. `None` if there is none or it is
/// malformed, and if the state store fails or does not answer in time.
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

/// Reads the checkpoint of a stream whose broadcast has ended and that no publisher has claimed since. A claim is the record that
/// names the publisher session of a stream; control keeps it for a minute after the end of the broadcast. `None` for any other
/// stream, which is followed by a feed, and also if the state store fails or does not answer in time: during an outage of the
/// state store each ended broadcast that viewers ask for gets a feed, which closes as any other when its viewers leave.
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

/// Reads the checkpoint of an earlier broadcast; the inner value is `None` if there is none any more. `None` if the state store
/// fails or does not answer in time.
pub(super) async fn read_past(
    state: &SharedState,
    stream: StreamId,
    airing: Airing,
) -> Option<Option<StreamState>> {
    match tokio::time::timeout(
        READ_LIMIT,
        get_from(state, stream, &state_keys::past_snapshot(stream, airing)),
    )
    .await
    {
        Ok(Ok(found)) => Some(found.filter(|found| found.airing == airing)),
        Ok(Err(error)) => {
            tracing::warn!(%stream, %error, "checkpoint of an earlier broadcast could not be read; its playlist is answered with 404");
            None
        }
        Err(_) => None,
    }
}

async fn get(state: &SharedState, stream: StreamId) -> Result<Option<StreamState>, StateError> {
    // Checkpoints are stored under the key named `snapshot`.
    get_from(state, stream, &state_keys::snapshot(stream)).await
}

async fn get_from(
    state: &SharedState,
    stream: StreamId,
    key: &str,
) -> Result<Option<StreamState>, StateError> {
    let record = state.get(key).await?;
    let Some(record) = record else { return Ok(None) };
    match topic::decode(&record.value) {
        Ok(found) => Ok(Some(checkpoint::restored(found))),
        Err(error) => {
            tracing::warn!(%stream, %error, "malformed checkpoint refused; the stream is followed as one without a checkpoint");
            Ok(None)
        }
    }
}
