//! The segment index: what is in the store, written once the object is there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use millrace_bus::JournalWriter;
use millrace_runtime::Backoff;
use millrace_state::{SharedState, StateError, Tx};
use millrace_wire::message::announce::IndexFact;
use millrace_wire::{state_keys, subjects, topic};
use tokio::sync::Mutex;

use super::objects::ObjectRemover;

/// How long segments stay beyond the window: players and edges behind by a window still find them.
const KEEP_WINDOWS: u32 = 2;
/// Shortest time a segment is kept.
const KEEP_AT_LEAST: Duration = Duration::from_mins(1);
/// Pauses between attempts while the state store is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Attempts before an entry is given up: half an hour. The object's metadata still tells it.
const ATTEMPTS: u32 = 360;

/// Writes index entries and deletes what is past its time.
pub(crate) struct Index {
    state: SharedState,
    facts: Arc<JournalWriter>,
    remover: ObjectRemover,
    record: bool,
    kept: Arc<Mutex<VecDeque<IndexFact>>>,
}

impl Index {
    pub(crate) fn new(
        state: SharedState,
        facts: Arc<JournalWriter>,
        remover: ObjectRemover,
        record: bool,
    ) -> Self {
        Self { state, facts, remover, record, kept: Arc::default() }
    }

    /// Has the fact kept, writes the entry, and deletes what has left the window, all behind the caller's back.
    pub(crate) fn add(&self, fact: IndexFact, window: Duration) {
        let Ok(value) = topic::encode(&fact) else { return };
        // Whatever becomes of the entry: the two are in different places, and neither waits for the other's.
        self.facts.append(subjects::index(fact.stream), fact.id(), value.clone());
        let (state, remover) = (self.state.clone(), self.remover.clone());
        let (kept, record) = (self.kept.clone(), self.record);
        tokio::spawn(async move {
            let key = state_keys::segment(fact.stream, &fact.segment.rendition, fact.epoch, fact.segment.msn);
            let put = Tx::new().put(key, value);
            if let Err(error) = commit(&state, put).await {
                tracing::error!(%error, msn = %fact.segment.msn, "index entry given up");
                return;
            }
            if !record {
                sweep(&state, &remover, &mut *kept.lock().await, fact, window).await;
            }
        });
    }
}

async fn sweep(
    state: &SharedState,
    remover: &ObjectRemover,
    kept: &mut VecDeque<IndexFact>,
    newest: IndexFact,
    window: Duration,
) {
    let keep = (window * KEEP_WINDOWS).max(KEEP_AT_LEAST).as_millis() as u64;
    let oldest = newest.segment.program_date_time.0.saturating_sub(keep);
    kept.push_back(newest);
    while let Some(fact) = kept.pop_front_if(|fact| fact.segment.program_date_time.0 < oldest) {
        let IndexFact { stream, epoch, generation, segment, .. } = fact;
        let key = state_keys::segment(stream, &segment.rendition, epoch, segment.msn);
        // The entry goes first: an index never names what is not there.
        if commit(state, Tx::new().delete(key)).await.is_ok() {
            remover.delete(&segment.rendition, epoch, segment.msn, generation);
        }
    }
}

async fn commit(state: &SharedState, tx: Tx) -> Result<(), StateError> {
    let mut pause = Backoff::new(RETRY.0, RETRY.1);
    loop {
        match state.commit(tx.clone()).await {
            Ok(_) => return Ok(()),
            Err(error @ StateError::Unavailable { .. }) if pause.attempts() < ATTEMPTS => {
                tracing::debug!(%error, "state store away, trying again");
                pause.wait().await;
            }
            Err(error) => return Err(error),
        }
    }
}
