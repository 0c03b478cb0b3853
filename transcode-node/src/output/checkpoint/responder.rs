//! The checkpoint responder answers snapshot requests for streams that have no author, from the state store.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use millrace_link::{Link, Request};
use millrace_protocol::state::checkpoint;
use millrace_runtime::ActorContext;
use millrace_state::SharedState;
use millrace_wire::fact::StreamState;
use millrace_wire::message::repair::SnapshotRequest;
use millrace_wire::{state_keys, topic, topics};
use tokio::sync::Semaphore;

/// Requests that may wait: one for each stream of a large cluster, asked for at the same moment.
const CAPACITY: usize = 4096;
/// Reads of the state store at the same time. Each is short; more would only queue at the store.
const PARALLEL_READS: usize = 64;
/// The longest time one answer may take: the requester waits no longer.
const READ_LIMIT: Duration = Duration::from_millis(300);

/// Answers requests until the actor is stopped. The queue group hands each request to one worker of the cluster.
pub(crate) async fn run(link: Link, state: SharedState, actor: ActorContext) -> anyhow::Result<()> {
    let mut requests = link
        .serve(&topics::all_snapshots(), topics::CHECKPOINT_QUEUE, CAPACITY)
        .await
        .context("snapshot requests")?;
    actor.ready.report();
    actor.status.set_state("answering");
    let reads = Arc::new(Semaphore::new(PARALLEL_READS));
    loop {
        tokio::select! {
            request = requests.recv() => {
                let request = request.context("the bus closed the snapshot requests")?;
                let Ok(permit) = reads.clone().acquire_owned().await else { return Ok(()) };
                let state = state.clone();
                tokio::spawn(async move {
                    // A requester without an answer asks again.
                    let _ = tokio::time::timeout(READ_LIMIT, answer(state, request)).await;
                    drop(permit);
                });
            }
            () = actor.stop.cancelled() => return Ok(()),
        }
    }
}

async fn answer(state: SharedState, request: Request<SnapshotRequest, StreamState>) {
    let Some(stream) = topics::snapshot_stream(request.subject()) else { return };
    let Ok(Some(record)) = state.get(&state_keys::snapshot(stream)).await else { return };
    if let Ok(stored) = topic::decode::<StreamState>(&record.value) {
        request.respond(&checkpoint::restored(stored));
    }
}
