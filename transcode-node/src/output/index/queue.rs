//! The bounded queue of index entries that wait for the state store.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
#[cfg(test)]
use millrace_wire::ids::Msn;
use millrace_wire::ids::PlaybackId;
use millrace_wire::message::announce::IndexFact;
use tokio::sync::watch;
use tokio::time::Instant;

use super::rebuild::{SegmentRange, entry_key};

/// Entries in one transaction: a store runs it at once and blocks others meanwhile, and it names at most 256 keys.
pub(super) const MAX_BATCH_ENTRIES: usize = 128;
/// Bytes of keys and values in one transaction, far below the 4 MiB that the state store takes.
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// Ranges of dropped entries that are remembered: with one for each rendition of an epoch, four renditions of a thousand
/// streams. Entries of further ranges are lost from the index.
const MAX_DROPPED_RANGES: usize = 4096;

/// The bounds of a queue of index entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueLimits {
    /// The number of entries that may wait.
    pub(crate) entries: usize,
    /// Bytes of keys and values that may wait.
    pub(crate) bytes: usize,
}

impl Default for QueueLimits {
    /// 16 384 entries or 16 MiB: two renditions of 200 streams with segments of 2 s over more than a minute, or of
    /// twenty streams over a quarter of an hour.
    fn default() -> Self {
        Self { entries: 16_384, bytes: 16 * 1024 * 1024 }
    }
}

/// One entry that waits to be written.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Bytes,
    range: SegmentRange,
    since: Instant,
    number: u64,
}

impl Entry {
    pub(super) fn new(playback: PlaybackId, fact: &IndexFact, value: Bytes) -> Self {
        let range = SegmentRange::of_segment(playback, fact);
        Self { key: entry_key(fact), value, range, since: Instant::now(), number: 0 }
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    bytes: usize,
    next_number: u64,
    /// The segments of dropped entries, in the order in which each range began.
    dropped: VecDeque<SegmentRange>,
    /// Entries dropped since the queue was empty last, and those of them that no range remembers.
    dropped_entries: u64,
    forgotten_entries: u64,
}

impl Waiting {
    fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.dropped.is_empty()
    }

    /// Drops the oldest entry and remembers its segment.
    fn drop_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.bytes -= entry.bytes();
        self.dropped_entries += 1;
        if let Some(range) = self.dropped.iter_mut().find(|range| range.is_beside(&entry.range)) {
            range.extend(&entry.range);
        } else if self.dropped.len() < MAX_DROPPED_RANGES {
            self.dropped.push_back(entry.range);
        } else {
            self.forgotten_entries += 1;
        }
    }
}

/// The entries of all jobs that wait for the state store, oldest first.
#[derive(Debug)]
pub(super) struct EntryQueue {
    limits: QueueLimits,
    waiting: Mutex<Waiting>,
    /// True while an entry waits or a dropped range is to be rebuilt.
    busy: watch::Sender<bool>,
}

impl EntryQueue {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self { limits, waiting: Mutex::default(), busy: watch::Sender::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry, and drops the oldest ones beyond the bounds. Returns how many were dropped.
    pub(super) fn push(&self, mut entry: Entry) -> u64 {
        let mut waiting = self.lock();
        entry.number = waiting.next_number;
        waiting.next_number += 1;
        waiting.bytes += entry.bytes();
        waiting.entries.push_back(entry);
        let mut dropped = 0;
        while waiting.entries.len() > self.limits.entries || waiting.bytes > self.limits.bytes {
            waiting.drop_oldest();
            dropped += 1;
        }
        if dropped > 0 && waiting.dropped_entries == dropped {
            let entries = waiting.entries.len();
            tracing::warn!(
                entries,
                "index queue full; the oldest entries are dropped and rebuilt from their objects later"
            );
        }
        // Under the lock, so that it cannot be undone by an update that saw the queue without this entry.
        self.busy.send_if_modified(|busy| !std::mem::replace(busy, true));
        dropped
    }

    /// Waits until an entry waits or a dropped range is to be rebuilt. Cancel safe.
    pub(super) async fn work_available(&self) {
        // The sender is a field of this queue, so that the channel cannot be closed.
        let _ = self.busy.subscribe().wait_for(|busy| *busy).await;
    }

    /// Waits until no entry waits and no dropped range is to be rebuilt. Cancel safe.
    pub(super) async fn drained(&self) {
        let _ = self.busy.subscribe().wait_for(|busy| !*busy).await;
    }

    /// Returns the oldest entries that fit into one transaction; each key once, with its newest value. They stay in the
    /// queue until [`EntryQueue::complete`].
    pub(super) fn next_batch(&self) -> Vec<Entry> {
        let waiting = self.lock();
        let mut bytes = 0;
        let fitting = waiting.entries.iter().take(MAX_BATCH_ENTRIES).take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.bytes();
            first || bytes <= MAX_BATCH_BYTES
        });
        let mut batch: Vec<Entry> = fitting.cloned().collect();
        let mut newer_keys = HashSet::new();
        batch.reverse();
        batch.retain(|entry| newer_keys.insert(entry.key.clone()));
        batch.reverse();
        batch
    }

    /// Removes the entries of a batch, and those that its newer ones replaced.
    pub(super) fn complete(&self, batch: &[Entry]) {
        let Some(last) = batch.last().map(|entry| entry.number) else { return };
        let mut waiting = self.lock();
        while let Some(entry) = waiting.entries.pop_front_if(|entry| entry.number <= last) {
            waiting.bytes -= entry.bytes();
        }
        self.update(&mut waiting);
    }

    /// Returns the range of dropped entries that waits longest to be rebuilt.
    pub(super) fn next_dropped(&self) -> Option<SegmentRange> {
        self.lock().dropped.front().cloned()
    }

    /// Forgets a range of dropped entries whose entries have been rebuilt. What was added to it meanwhile stays.
    pub(super) fn complete_rebuild(&self, range: &SegmentRange) {
        let mut waiting = self.lock();
        waiting.dropped.retain(|waiting| waiting != range);
        self.update(&mut waiting);
    }

    fn update(&self, waiting: &mut Waiting) {
        if !waiting.is_idle() {
            return;
        }
        let dropped = std::mem::take(&mut waiting.dropped_entries);
        let forgotten = std::mem::take(&mut waiting.forgotten_entries);
        if dropped > 0 {
            tracing::warn!(
                dropped,
                not_rebuilt = forgotten,
                "index queue is empty again; dropped entries were rebuilt"
            );
        }
        self.busy.send_if_modified(|busy| std::mem::replace(busy, false));
    }

    /// Returns the number of entries that wait and the age of the oldest.
    pub(super) fn waiting(&self) -> (usize, Duration) {
        let waiting = self.lock();
        let age = waiting.entries.front().map_or(Duration::ZERO, |entry| entry.since.elapsed());
        (waiting.entries.len(), age)
    }

    /// Returns the numbers of the first and the last segment of each dropped range.
    #[cfg(test)]
    pub(super) fn dropped(&self) -> Vec<(Msn, Msn)> {
        self.lock().dropped.iter().map(|range| (range.first, range.last)).collect()
    }
}
