//! Index entries made again from the metadata of stored segments.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use millrace_state::{StateError, StateStore};
use millrace_store::{LIST_PAGE, ObjectStore, StoreError};
use millrace_wire::ids::{BroadcastId, Epoch, Generation, Msn, PlaybackId, Rendition, StreamId};
use millrace_wire::message::announce::IndexFact;
use millrace_wire::object_names::{self, ObjectKind, ObjectName};
use millrace_wire::{state_keys, topic};

use crate::output::segment_metadata;

/// The longest time one request to a store may take; a store slower than this counts as away.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Segments of one rendition in one epoch, from one media sequence number to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentRange {
    stream: StreamId,
    broadcast: BroadcastId,
    playback: PlaybackId,
    rendition: Rendition,
    epoch: Epoch,
    pub(super) first: Msn,
    pub(super) last: Msn,
}

impl SegmentRange {
    /// Returns the range of one segment.
    pub(super) fn of_segment(playback: PlaybackId, fact: &IndexFact) -> Self {
        let IndexFact { stream, broadcast, epoch, ref segment, .. } = *fact;
        let rendition = segment.rendition.clone();
        Self { stream, broadcast, playback, rendition, epoch, first: segment.msn, last: segment.msn }
    }

    /// Returns true if both ranges are of the same rendition and epoch.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.stream == other.stream && self.rendition == other.rendition
    }

    /// Extends this range so that it includes the other.
    pub(super) fn extend(&mut self, other: &Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

impl fmt::Display for SegmentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, rendition, epoch, first, last, .. } = self;
        write!(f, "{stream}/{rendition}/{epoch} segments {first} to {last}")
    }
}

/// The error that keeps a range from being rebuilt for now.
#[derive(Debug, thiserror::Error)]
pub(super) enum RebuildError {
    /// The object store could not be listed or read.
    #[error("object store: {0}")]
    Store(#[from] StoreError),
    /// The state store could not be read.
    #[error("state store: {0}")]
    State(#[from] StateError),
    /// A store did not answer.
    #[error("no answer within {} s", REQUEST_LIMIT.as_secs())]
    TimedOut,
}

/// Returns the keys and values of the entries that the index lacks for stored segments of `range`.
pub(super) async fn missing_entries(
    store: &dyn ObjectStore,
    state: &dyn StateStore,
    range: &SegmentRange,
) -> Result<Vec<(String, Bytes)>, RebuildError> {
    let mut entries = Vec::new();
    for (msn, generation) in stored_segments(store, range).await? {
        let kind = ObjectKind::Segment(msn, generation);
        let SegmentRange { stream, broadcast, playback, epoch, .. } = *range;
        let name = ObjectName { playback, rendition: range.rendition.clone(), epoch, kind };
        let info = match in_time(store.head(&name.key())).await? {
            Ok(info) => info,
            // Retention may delete the segment meanwhile.
            Err(StoreError::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let Some(segment) = segment_metadata::read(&range.rendition, msn, &info) else {
            tracing::warn!(key = %name, "segment has no metadata to rebuild its index entry from");
            continue;
        };
        let fact = IndexFact { stream, broadcast, epoch, generation, segment };
        let key = entry_key(&fact);
        if in_time(state.get(&key)).await??.is_none()
            && let Ok(value) = topic::encode(&fact)
        {
            entries.push((key, value));
        }
    }
    Ok(entries)
}

/// Returns the segments of `range` that are in the store, each with its newest generation.
async fn stored_segments(
    store: &dyn ObjectStore,
    range: &SegmentRange,
) -> Result<BTreeMap<Msn, Generation>, RebuildError> {
    let prefix = object_names::epoch_prefix(range.playback, &range.rendition, range.epoch);
    let mut stored = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = in_time(store.list(&prefix, after.as_deref(), LIST_PAGE)).await??;
        for entry in &page.entries {
            if let Ok(ObjectName { kind: ObjectKind::Segment(msn, generation), .. }) = entry.key.parse()
                && (range.first..=range.last).contains(&msn)
            {
                let newest: &mut Generation = stored.entry(msn).or_default();
                *newest = generation.max(*newest);
            }
        }
        after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more || after.is_none() {
            return Ok(stored);
        }
    }
}

async fn in_time<T>(request: impl Future<Output = T>) -> Result<T, RebuildError> {
    tokio::time::timeout(REQUEST_LIMIT, request).await.map_err(|_| RebuildError::TimedOut)
}

/// Returns the key of a segment's index entry.
pub(super) fn entry_key(fact: &IndexFact) -> String {
    state_keys::segment(fact.stream, &fact.segment.rendition, fact.epoch, fact.segment.msn)
}
