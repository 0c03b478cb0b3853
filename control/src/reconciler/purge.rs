//! Deletes the objects of deleted livestreams in the background. Each deleted livestream leaves a purge record in the
//! state store, so neither a restart nor an unavailable object store leaves objects behind.

use std::sync::Arc;
use std::time::Duration;

use millrace_runtime::{ActorContext, StatusHandle};
use millrace_state::{Record, scan_all};
use millrace_store::{DELETE_BATCH, StoreError};
use millrace_wire::{object_names, state_keys};
use tracing::{debug, info, warn};

use crate::context::Services;
use crate::domain::purge::Purge;
use crate::repo::{Repo, RepoError, read};

/// Pause between two rounds. The control that deletes a livestream starts a round at once.
const ROUND_EVERY: Duration = Duration::from_secs(30);

/// A worker may still upload objects that a slow store kept waiting, so a purge record stays at least this long.
const LATE_UPLOADS_MS: u64 = 10 * 60 * 1_000;

/// Purge records handled in one round; the others wait for the next.
const MAX_STREAMS: usize = 1_000;

/// Pages of objects deleted of one livestream in one round, so that a long recording does not hold up the others.
const MAX_PAGES: usize = 20;

#[derive(Debug, thiserror::Error)]
enum PurgeError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs rounds until the actor is stopped: one livestream after the other, a page of objects at a time.
pub(crate) async fn run(services: Arc<Services>, actor: ActorContext) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            done = run_once(&services, &actor.status) => if let Err(error) = done {
                warn!(%error, "failed to read purge records; will retry");
            },
            () = actor.stop.cancelled() => return Ok(()),
        }
        tokio::select! {
            () = services.deleted.notified() => {}
            () = tokio::time::sleep(ROUND_EVERY) => {}
            () = actor.stop.cancelled() => return Ok(()),
        }
    }
}

async fn run_once(services: &Services, status: &StatusHandle) -> Result<(), RepoError> {
    let pending = pending(&services.repo).await?;
    let now = services.wall_clock();
    let oldest = pending.iter().map(|purge| now.0.saturating_sub(purge.since.0)).max().unwrap_or(0);
    status.set_queue(pending.len(), Duration::from_millis(oldest));
    for purge in pending {
        if let Err(error) = purge_stream(services, &purge).await {
            warn!(stream = %purge.stream, %error, "failed to delete objects of a deleted livestream; will retry in the next round");
        }
    }
    Ok(())
}

async fn pending(repo: &Repo) -> Result<Vec<Purge>, RepoError> {
    let records = scan_all(repo.state(), state_keys::PURGES, MAX_STREAMS).await?;
    let read = |record: &Record| {
        let purge = read(&record.key, &record.value);
        purge.inspect_err(|error| warn!(%error, "purge record cannot be read; record skipped")).ok()
    };
    Ok(records.iter().filter_map(read).collect())
}

async fn purge_stream(services: &Services, purge: &Purge) -> Result<(), PurgeError> {
    let prefix = object_names::stream_prefix(purge.playback);
    let mut after = None;
    for _ in 0..MAX_PAGES {
        let page = services.store.list(&prefix, after.as_deref(), DELETE_BATCH).await?;
        let keys: Vec<String> = page.entries.into_iter().map(|entry| entry.key).collect();
        let Some(last) = keys.last().cloned() else { break };
        services.store.delete_many(&keys).await?;
        services.metrics.objects_deleted.add(keys.len() as u64);
        debug!(stream = %purge.stream, objects = keys.len(), "objects of a deleted livestream deleted");
        if !page.more {
            break;
        }
        after = Some(last);
    }
    let now = services.wall_clock();
    let settled = now.0.saturating_sub(purge.since.0) >= LATE_UPLOADS_MS;
    if settled && services.store.list(&prefix, None, 1).await?.entries.is_empty() {
        services.repo.purged(purge).await?;
        info!(stream = %purge.stream, "purge complete");
    }
    Ok(())
}
