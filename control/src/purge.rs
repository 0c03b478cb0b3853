//! Deleting the objects of deleted livestreams, behind the API's back. What is to be deleted is a record in the state
//! store, so neither a restart nor a store that is away leaves objects behind.

use std::sync::Arc;
use std::time::Duration;

use millrace_state::scan_all;
use millrace_store::{DELETE_BATCH, StoreError};
use millrace_wire::ids::{PlaybackId, StreamId, UnixMillis};
use millrace_wire::{object_names, state_keys};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::repo::{Repo, RepoError};
use crate::service::Core;

/// How often deleted streams are looked at; a deletion is looked at right away by the control it was asked of.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// A worker may still upload what a slow store kept waiting: a stream without objects is looked at again for this long.
const LATE_UPLOADS_MS: u64 = 10 * 60 * 1_000;

/// Deleted streams in one round.
const MAX_STREAMS: usize = 1_000;

/// Pages of objects deleted of one stream before it is the next one's turn.
const MAX_PAGES: usize = 20;

/// A stream whose record is gone and whose objects are to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Purge {
    /// The stream.
    pub(crate) stream: StreamId,
    /// Its public id, under which its objects are.
    pub(crate) playback: PlaybackId,
    /// When it was deleted.
    pub(crate) since: UnixMillis,
}

#[derive(Debug, thiserror::Error)]
enum PurgeError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks at deleted streams until told to stop: one after the other, a page at a time.
pub(crate) async fn run(core: Arc<Core>, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            done = round(&core) => if let Err(error) = done {
                warn!(%error, "deleted livestreams could not be looked at");
            },
            () = stop.cancelled() => return Ok(()),
        }
        tokio::select! {
            () = core.deleted.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

async fn round(core: &Core) -> Result<(), RepoError> {
    for purge in pending(&core.repo).await? {
        if let Err(error) = one(core, &purge).await {
            warn!(stream = %purge.stream, %error, "objects of a deleted livestream are left for the next round");
        }
    }
    Ok(())
}

async fn pending(repo: &Repo) -> Result<Vec<Purge>, RepoError> {
    let records = scan_all(repo.state(), state_keys::PURGES, MAX_STREAMS).await?;
    let read = |value: &[u8]| serde_json::from_slice(value).inspect_err(|error| warn!(%error, "unreadable"));
    Ok(records.iter().filter_map(|record| read(&record.value).ok()).collect())
}

async fn one(core: &Core, purge: &Purge) -> Result<(), PurgeError> {
    let prefix = object_names::stream_prefix(purge.playback);
    let mut after = None;
    for _ in 0..MAX_PAGES {
        let page = core.store.list(&prefix, after.as_deref(), DELETE_BATCH).await?;
        let keys: Vec<String> = page.entries.into_iter().map(|entry| entry.key).collect();
        let Some(last) = keys.last().cloned() else { break };
        core.store.delete_many(&keys).await?;
        core.objects_deleted.add(keys.len() as u64);
        debug!(stream = %purge.stream, objects = keys.len(), "objects of a deleted livestream deleted");
        if !page.more {
            break;
        }
        after = Some(last);
    }
    let now = crate::unix(&*core.clock);
    let settled = now.0.saturating_sub(purge.since.0) >= LATE_UPLOADS_MS;
    if settled && core.store.list(&prefix, None, 1).await?.entries.is_empty() {
        core.repo.purged(purge).await?;
        info!(stream = %purge.stream, "nothing is left of a deleted livestream");
    }
    Ok(())
}
