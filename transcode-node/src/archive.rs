//! Speaks for streams whose author is gone: answers snapshot requests from the state store.

use std::time::Duration;

use anyhow::Context;
use millrace_bus::{Message, SharedBus};
use millrace_protocol::state::checkpoint;
use millrace_runtime::Ready;
use millrace_state::SharedState;
use millrace_wire::fact::StreamState;
use millrace_wire::{state_keys, subjects};
use tokio_util::sync::CancellationToken;

/// Requests that may wait: a burst of every stream of a large cluster.
const CAPACITY: usize = 4096;
/// Whoever asked waits no longer.
const READ_LIMIT: Duration = Duration::from_millis(300);

/// Answers until told to stop. One node of the cluster takes each request.
pub(crate) async fn run(
    bus: SharedBus,
    state: SharedState,
    stop: CancellationToken,
    ready: Ready,
) -> anyhow::Result<()> {
    let group = subjects::ARCHIVE_QUEUE;
    let mut asked = bus.queue_subscribe(subjects::SNAP_ALL, group, CAPACITY).await.context("requests")?;
    ready.tell();
    loop {
        tokio::select! {
            message = asked.recv() => {
                let (message, bus, state) = (message.context("requests ended")?, bus.clone(), state.clone());
                tokio::spawn(tokio::time::timeout(READ_LIMIT, answer(bus, state, message)));
            }
            () = stop.cancelled() => return Ok(()),
        }
    }
}

async fn answer(bus: SharedBus, state: SharedState, message: Message) {
    let (Some(stream), Some(reply)) = (subjects::snap_stream(&message.subject), message.reply) else {
        return;
    };
    let Ok(Some(record)) = state.get(&state_keys::snapshot(stream)).await else { return };
    let Ok(stored) = serde_json::from_slice::<StreamState>(&record.value) else { return };
    if let Ok(body) = serde_json::to_vec(&checkpoint::base(stored)) {
        // Whoever asked asks again.
        let _ = bus.respond(&reply, body.into());
    }
}
