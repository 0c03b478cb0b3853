//! Speaks for streams whose author is gone: answers snapshot requests from the state store, and notes the end of a
//! broadcast that nobody is left to end.

use std::time::Duration;

use anyhow::Context;
use millrace_bus::{Message, SharedBus};
use millrace_cluster::at_rest;
use millrace_runtime::Ready;
use millrace_state::{SharedState, StateError, Tx};
use millrace_wire::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::fact::Snapshot;
use millrace_wire::{keys, subjects};
use tokio_util::sync::CancellationToken;

/// Requests and announcements that may wait: a burst of every stream of a large cluster.
const CAPACITY: usize = 4096;
/// Whoever asked waits no longer.
const READ_LIMIT: Duration = Duration::from_millis(300);
/// Writers of one stream's state who may come in between.
const ATTEMPTS: u32 = 8;

/// Answers and notes until told to stop. One node of the cluster takes each message.
pub(crate) async fn run(
    bus: SharedBus,
    state: SharedState,
    stop: CancellationToken,
    ready: Ready,
) -> anyhow::Result<()> {
    let group = subjects::ARCHIVE_QUEUE;
    let mut asked = bus.queue_subscribe(subjects::SNAP_ALL, group, CAPACITY).await.context("requests")?;
    let mut epochs = bus.queue_subscribe(subjects::EPOCH_ALL, group, CAPACITY).await.context("epochs")?;
    ready.tell();
    loop {
        tokio::select! {
            message = asked.recv() => {
                let (message, bus, state) = (message.context("requests ended")?, bus.clone(), state.clone());
                tokio::spawn(tokio::time::timeout(READ_LIMIT, answer(bus, state, message)));
            }
            message = epochs.recv() => note_end(&state, &message.context("epochs ended")?).await,
            () = stop.cancelled() => return Ok(()),
        }
    }
}

async fn answer(bus: SharedBus, state: SharedState, message: Message) {
    let (Some(stream), Some(reply)) = (subjects::snap_stream(&message.subject), message.reply) else {
        return;
    };
    let Ok(Some(record)) = state.get(&keys::snapshot(stream)).await else { return };
    let Ok(stored) = serde_json::from_slice::<Snapshot>(&record.value) else { return };
    if let Ok(body) = serde_json::to_vec(&at_rest::base(stored)) {
        // Whoever asked asks again.
        let _ = bus.respond(&reply, body.into());
    }
}

/// A living author writes its end itself; control says that it ends the broadcast in a dead one's place by naming no
/// session, and repeats it for a minute.
async fn note_end(state: &SharedState, message: &Message) {
    let Ok(told) = serde_json::from_slice::<EpochAnnouncement>(&message.payload) else { return };
    if told.phase != EpochPhase::Ended || told.session.is_some() {
        return;
    }
    for _ in 0..ATTEMPTS {
        match end(state, &told).await {
            Err(StateError::Conflict { .. }) => {}
            Err(error) => return tracing::debug!(stream = %told.stream, %error, "end not noted yet"),
            Ok(()) => return,
        }
    }
}

async fn end(state: &SharedState, told: &EpochAnnouncement) -> Result<(), StateError> {
    let key = keys::snapshot(told.stream);
    let Some(record) = state.get(&key).await? else { return Ok(()) };
    let Ok(stored) = serde_json::from_slice::<Snapshot>(&record.value) else { return Ok(()) };
    if stored.ended || stored.broadcast != told.broadcast || stored.epoch > told.epoch {
        return Ok(());
    }
    let Ok(value) = serde_json::to_vec(&at_rest::ended(stored)) else { return Ok(()) };
    state.commit(Tx::new().check(key.clone(), Some(record.version)).put(key, value)).await.map(drop)
}
