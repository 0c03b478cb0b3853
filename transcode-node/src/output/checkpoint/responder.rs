//! The checkpoint responder answers snapshot requests for streams that have no author, from the state store.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use millrace_bus::{Message, SharedBus};
use millrace_protocol::state::checkpoint;
use millrace_runtime::Ready;
use millrace_state::SharedState;
use millrace_wire::fact::StreamState;
use millrace_wire::{state_keys, subjects, topic};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Requests that may wait: one for each stream of a large cluster, asked for at the same moment.
const CAPACITY: usize = 4096;
/// Reads of the state store at the same time. Each is short; more would only queue at the store.
const PARALLEL_READS: usize = 64;
/// The longest time one answer may take: the requester waits no longer.
const READ_LIMIT: Duration = Duration::from_millis(300);

/// Answers requests until `stop` is cancelled. The queue group hands each request to one worker of the cluster.
pub(crate) async fn run(
    bus: SharedBus,
    state: SharedState,
    stop: CancellationToken,
    ready: Ready,
) -> anyhow::Result<()> {
    let group = subjects::CHECKPOINT_QUEUE;
    let mut requests =
        bus.queue_subscribe(subjects::SNAP_ALL, group, CAPACITY).await.context("snapshot requests")?;
    ready.report();
    let reads = Arc::new(Semaphore::new(PARALLEL_READS));
    loop {
        tokio::select! {
            message = requests.recv() => {
                let message = message.context("the bus closed the snapshot requests")?;
                let Ok(permit) = reads.clone().acquire_owned().await else { return Ok(()) };
                let (bus, state) = (bus.clone(), state.clone());
                tokio::spawn(async move {
                    // A requester without an answer asks again.
                    let _ = tokio::time::timeout(READ_LIMIT, answer(bus, state, message)).await;
                    drop(permit);
                });
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
    let Ok(stored) = topic::decode::<StreamState>(&record.value) else { return };
    if let Ok(body) = topic::encode(&checkpoint::base(stored)) {
        // An answer that the bus drops is asked for again.
        let _ = bus.respond(&reply, body);
    }
}
