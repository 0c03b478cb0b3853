//! The outbox: lifecycle events that are written in the transaction of the change they report, so that neither the death of a
//! control nor the absence of the bus loses one. The events of a livestream are numbered in the order of its changes.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use millrace_state::{SCAN_PAGE, Tx};
use millrace_wire::ids::{BroadcastId, PlaybackId, StreamId, UnixMillis};
use millrace_wire::message::control::{LifecycleEvent, LifecycleKind};
use millrace_wire::state_keys;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{Repo, RepoError, Versioned, json, read};
use crate::domain::access::Owner;
use crate::domain::claim::Claim;
use crate::domain::stream::Stream;

/// The record of the number of a livestream's newest event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct EventCounter {
    last: u64,
    /// The owner of the livestream, whom its events name.
    #[serde(default)]
    owner: Option<Owner>,
}

/// An event in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutboxEntry {
    pub(crate) event: LifecycleEvent,
}

/// The subject of lifecycle events.
#[derive(Debug, Clone)]
pub(super) struct About {
    stream: StreamId,
    playback: PlaybackId,
    broadcast: Option<BroadcastId>,
    owner: KnownOwner,
}

/// The owner of the subject, as far as the change has read it.
#[derive(Debug, Clone)]
enum KnownOwner {
    /// The change read the livestream's record, which may name none.
    Read(Option<Owner>),
    /// The change did not read the livestream's record.
    Unread,
}

impl From<&Stream> for About {
    fn from(stream: &Stream) -> Self {
        let owner = KnownOwner::Read(stream.owner.clone());
        Self { stream: stream.id, playback: stream.playback_id, broadcast: stream.broadcast, owner }
    }
}

impl From<&Claim> for About {
    fn from(claim: &Claim) -> Self {
        let broadcast = Some(claim.broadcast);
        Self { stream: claim.stream, playback: claim.playback, broadcast, owner: KnownOwner::Unread }
    }
}

/// The livestreams with events that this control has put into the outbox and not relayed yet.
#[derive(Debug, Default)]
pub(crate) struct Unrelayed {
    streams: Mutex<BTreeSet<StreamId>>,
    changed: Notify,
}

impl Unrelayed {
    /// Adds a livestream.
    pub(crate) fn add(&self, stream: StreamId) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).insert(stream);
        self.changed.notify_one();
    }

    /// Returns all livestreams, and forgets them.
    pub(crate) fn take(&self) -> BTreeSet<StreamId> {
        std::mem::take(&mut *self.streams.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// True if there is no livestream to relay events of.
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Waits until a livestream is added.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Repo {
    /// Returns the livestreams with events that wait to be relayed.
    pub(crate) fn unrelayed(&self) -> &Unrelayed {
        &self.unrelayed
    }

    /// Commits `tx` together with `events`. The transaction conflicts when another control commits an event of the same
    /// livestream meanwhile, so that numbers follow the order of the changes.
    pub(super) async fn commit_with(
        &self,
        tx: Tx,
        about: impl Into<About> + Send,
        at: UnixMillis,
        events: &[LifecycleKind],
    ) -> Result<(), RepoError> {
        if events.is_empty() {
            self.state.commit(tx).await?;
            return Ok(());
        }
        let about = about.into();
        let key = state_keys::event_counter(about.stream);
        let found: Option<Versioned<EventCounter>> = self.load(&key).await?;
        let version = found.as_ref().map(|found| found.version);
        let counted = found.is_some();
        let mut counter = found.map(|found| found.value).unwrap_or_default();
        match about.owner {
            KnownOwner::Read(owner) => counter.owner = owner,
            KnownOwner::Unread if !counted => counter.owner = self.stream(about.stream).await?.value.owner,
            KnownOwner::Unread => {}
        }
        let mut tx = tx.check(key.clone(), version);
        for kind in events {
            counter.last += 1;
            let event = LifecycleEvent {
                stream: about.stream,
                sequence: counter.last,
                at,
                playback: Some(about.playback),
                broadcast: about.broadcast,
                owner: counter.owner.as_ref().map(|owner| owner.as_str().to_owned()),
                kind: kind.clone(),
            };
            let key = state_keys::outbox_event(about.stream, counter.last);
            tx = tx.put(key, json(&OutboxEntry { event }));
        }
        // No event follows the deletion of its livestream.
        let tx = match events.last() {
            Some(LifecycleKind::Deleted) => tx.delete(key),
            _ => tx.put(key, json(&counter)),
        };
        self.state.commit(tx).await?;
        self.unrelayed.add(about.stream);
        Ok(())
    }

    /// Returns the livestream's events in the outbox, in order. They are of one moment, so that none before the last is missing.
    pub(crate) async fn outbox_of(&self, stream: StreamId) -> Result<Vec<Versioned<OutboxEntry>>, RepoError> {
        let records = self.state.scan(&state_keys::outbox(stream), None, SCAN_PAGE).await?;
        let load = |record: millrace_state::Record| {
            Ok(Versioned { value: read(&record.key, &record.value)?, version: record.version })
        };
        records.into_iter().map(load).collect()
    }

    /// Returns the livestreams whose oldest event in the outbox was written before `before`, as far as one page shows.
    pub(crate) async fn streams_in_outbox(
        &self,
        before: UnixMillis,
    ) -> Result<BTreeSet<StreamId>, RepoError> {
        let records = self.state.scan(state_keys::OUTBOX, None, SCAN_PAGE).await?;
        let mut streams = BTreeSet::new();
        for record in records {
            let OutboxEntry { event, .. } = read(&record.key, &record.value)?;
            if event.at < before {
                streams.insert(event.stream);
            }
        }
        Ok(streams)
    }
}
