//! The segment index in the state store: one entry for each stored segment, written after its object is in the store.
//!
//! One writer per node takes the entries of all jobs from a bounded queue and writes them in order, many in one
//! transaction. While the state store is away it retries with back-off and the entries wait. Beyond the queue's bounds
//! the oldest entries are dropped: the writer remembers which segments they were of, and when the queue is empty again it
//! lists their objects and writes the entries anew, from the objects' metadata.

mod queue;
mod rebuild;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use millrace_bus::JournalWriter;
use millrace_runtime::{ActorContext, Backoff, StatusHandle};
use millrace_state::{SharedState, StateError, Tx};
use millrace_store::SharedStore;
use millrace_wire::ids::PlaybackId;
use millrace_wire::message::announce::IndexFact;
use millrace_wire::{topic, topics};

use self::queue::{Entry, EntryQueue};
use self::rebuild::SegmentRange;
use crate::metrics::Metrics;

pub(crate) use self::queue::QueueLimits;

/// Shortest and longest pause between attempts while a store is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The longest time one transaction may take; a state store slower than this counts as away.
const COMMIT_LIMIT: Duration = Duration::from_secs(10);

/// The handle through which jobs hand their index entries to the node's writer.
pub(crate) struct IndexWriter {
    queue: EntryQueue,
    state: SharedState,
    store: SharedStore,
    journal: Arc<JournalWriter>,
    metrics: Arc<Metrics>,
}

impl IndexWriter {
    pub(crate) fn new(
        limits: QueueLimits,
        state: SharedState,
        store: SharedStore,
        journal: Arc<JournalWriter>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { queue: EntryQueue::new(limits), state, store, journal, metrics }
    }

    /// Takes the entry of a stored segment, and returns at once. The entry is appended to the index journal too; the two
    /// are in different stores, and neither waits for the other.
    pub(crate) fn add(&self, playback: PlaybackId, fact: &IndexFact) {
        let Ok(value) = topic::encode(fact) else { return };
        self.journal.append(topics::index(fact.stream).into_subject(), fact.id(), value.clone());
        let dropped = self.queue.push(Entry::new(playback, fact, value));
        self.metrics.index_entries.with(&["dropped"]).add(dropped);
        self.update_gauge();
    }

    /// Waits until every entry is written, or rebuilt if it was dropped, at most `limit`. Returns false if some are not.
    pub(crate) async fn flush(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.queue.drained()).await.is_ok()
    }

    /// Returns the number of entries that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.waiting().0
    }

    /// Writes entries until the actor is stopped. An entry leaves the queue only when it is written, so that the next run
    /// goes on where this one stopped.
    pub(crate) async fn run(self: Arc<Self>, actor: ActorContext) -> anyhow::Result<()> {
        let _ = actor.stop.run_until_cancelled(self.write(&actor.status)).await;
        Ok(())
    }

    async fn write(&self, status: &StatusHandle) {
        let mut pause = Backoff::new(RETRY.0, RETRY.1);
        loop {
            self.show(status, "waiting for entries");
            self.queue.work_available().await;
            let done = match self.queue.next_batch() {
                batch if !batch.is_empty() => self.write_batch(&batch).await,
                _ => match self.queue.next_dropped() {
                    Some(range) => self.rebuild(&range).await,
                    None => true,
                },
            };
            if done {
                pause.reset();
            } else {
                self.show(status, "waiting for the stores");
                pause.wait().await;
            }
        }
    }

    /// Writes a batch in one transaction. Returns false if the state store is away.
    async fn write_batch(&self, batch: &[Entry]) -> bool {
        let tx = batch.iter().fold(Tx::new(), |tx, entry| tx.put(entry.key.clone(), entry.value.clone()));
        match self.commit(tx).await {
            Ok(()) => {
                self.queue.complete(batch);
                self.metrics.index_entries.with(&["written"]).add(batch.len() as u64);
                true
            }
            Err(error) if error.is_retryable() => {
                let entries = self.waiting();
                tracing::debug!(%error, entries, "state store takes no index entries; they wait");
                false
            }
            Err(error) => {
                self.queue.complete(batch);
                self.metrics.index_entries.with(&["refused"]).add(batch.len() as u64);
                let (entries, first) = (batch.len(), batch.first().map(|entry| entry.key.as_str()));
                tracing::error!(%error, entries, first, "state store refused index entries; they are not in the index");
                true
            }
        }
    }

    /// Writes the missing entries of a range of segments. Returns false if a store is away.
    async fn rebuild(&self, range: &SegmentRange) -> bool {
        match rebuild::missing_entries(&*self.store, &*self.state, range).await {
            Ok(entries) => {
                let (found, range_text) = (entries.len(), range.to_string());
                for chunk in entries.chunks(queue::MAX_BATCH_ENTRIES) {
                    let tx =
                        chunk.iter().fold(Tx::new(), |tx, (key, value)| tx.put(key.clone(), value.clone()));
                    if let Err(error) = self.commit(tx).await {
                        tracing::debug!(%error, range = range_text, "index entries not rebuilt yet; will retry");
                        return false;
                    }
                }
                self.queue.complete_rebuild(range);
                self.metrics.index_entries.with(&["rebuilt"]).add(found as u64);
                tracing::info!(
                    range = range_text,
                    entries = found,
                    "index entries rebuilt from the objects' metadata"
                );
                true
            }
            Err(error) => {
                tracing::debug!(%error, %range, "index entries not rebuilt yet; will retry");
                false
            }
        }
    }

    async fn commit(&self, tx: Tx) -> Result<(), StateError> {
        let Ok(result) = tokio::time::timeout(COMMIT_LIMIT, self.state.commit(tx)).await else {
            let reason = format!("no answer within {} s", COMMIT_LIMIT.as_secs());
            return Err(StateError::Unavailable { reason });
        };
        result.map(|_| ())
    }

    fn show(&self, status: &StatusHandle, state: &'static str) {
        let (waiting, oldest) = self.queue.waiting();
        status.set_state(state);
        status.set_queue(waiting, oldest);
        self.update_gauge();
    }

    fn update_gauge(&self) {
        self.metrics.index_waiting.set(self.waiting() as i64);
    }
}
