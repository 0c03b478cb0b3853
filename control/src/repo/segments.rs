//! The records of stored segments: the checkpoint, the segment index, and the streams whose segments are not kept.

use std::time::Duration;

use millrace_protocol::state::checkpoint::may_write;
use millrace_state::{Record, SCAN_PAGE, Tx};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::{Rendition, StreamId};
use millrace_wire::message::announce::IndexFact;
use millrace_wire::state_keys;
use tracing::warn;

use super::{Repo, RepoError, json, read, retry};
use crate::domain::claim::Claim;
use crate::domain::retention::Retention;

/// Time for which the checkpoint of an earlier broadcast is kept: the longest pause of a player that may go on.
const PAST_CHECKPOINT_TTL: Duration = Duration::from_hours(24);

/// A page of a rendition's segment index.
pub(crate) struct IndexPage {
    pub(crate) entries: Vec<IndexFact>,
    /// The key after which the next page begins; `None` on the last one.
    pub(crate) next: Option<String>,
}

impl Repo {
    /// Passes every readable entry of a stream's segment index to `each`, page by page in the order of the keys.
    pub(crate) async fn index(&self, id: StreamId, mut each: impl FnMut(IndexFact)) -> Result<(), RepoError> {
        let (prefix, mut after) = (state_keys::all_segments(id), None::<String>);
        loop {
            let page = self.state.scan(&prefix, after.as_deref(), SCAN_PAGE).await?;
            let last = page.len() < SCAN_PAGE;
            for record in &page {
                match read(&record.key, &record.value) {
                    Ok(fact) => each(fact),
                    Err(error) => warn!(%error, "segment index entry left out of the rebuilt state"),
                }
            }
            after = page.into_iter().next_back().map(|record| record.key);
            if last {
                return Ok(());
            }
        }
    }

    /// Returns up to `limit` retention records after the key `after`, with their keys; a record that cannot be read holds
    /// its error.
    pub(crate) async fn retentions(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Result<Retention, RepoError>)>, RepoError> {
        let records = self.state.scan(state_keys::RETENTIONS, after, limit).await?;
        let read = |record: Record| {
            let retention = read(&record.key, &record.value);
            (record.key, retention)
        };
        Ok(records.into_iter().map(read).collect())
    }

    /// Returns the checkpoint of a stream.
    pub(crate) async fn checkpoint(&self, id: StreamId) -> Result<Option<StreamState>, RepoError> {
        Ok(self.load(&state_keys::snapshot(id)).await?.map(|checkpoint| checkpoint.value))
    }

    /// Returns the rendition of the first index entry of a stream after the key `after`.
    pub(crate) async fn next_rendition(
        &self,
        id: StreamId,
        after: Option<&str>,
    ) -> Result<Option<Rendition>, RepoError> {
        let records = self.state.scan(&state_keys::all_segments(id), after, 1).await?;
        let Some(record) = records.first() else { return Ok(None) };
        let fact: IndexFact = read(&record.key, &record.value)?;
        Ok(Some(fact.segment.rendition))
    }

    /// Returns up to `limit` entries of a rendition's segment index after the key `after`, oldest first. An entry that
    /// cannot be read is left out.
    pub(crate) async fn index_page(
        &self,
        id: StreamId,
        rendition: &Rendition,
        after: Option<&str>,
        limit: usize,
    ) -> Result<IndexPage, RepoError> {
        let records = self.state.scan(&state_keys::segments(id, rendition), after, limit).await?;
        let next = records.last().filter(|_| records.len() == limit).map(|record| record.key.clone());
        let mut entries = Vec::with_capacity(records.len());
        for record in &records {
            match read(&record.key, &record.value) {
                Ok(fact) => entries.push(fact),
                Err(error) => warn!(%error, "segment index entry cannot be read; its object is kept"),
            }
        }
        Ok(IndexPage { entries, next })
    }

    /// Writes a stream's checkpoint, unless the stored one is of a newer log position.
    pub(crate) async fn put_checkpoint(
        &self,
        id: StreamId,
        checkpoint: &StreamState,
    ) -> Result<(), RepoError> {
        let key = state_keys::snapshot(id);
        retry!({
            let old = self.state.get(&key).await?;
            if !may_write(checkpoint, old.as_ref().map(|old| &old.value[..])) {
                return Ok(());
            }
            let version = old.map(|old| old.version);
            let tx = Tx::new().check(key.clone(), version).put(key.clone(), json(checkpoint));
            self.state.commit(tx).await?;
            Ok(())
        })
    }

    /// Keeps the checkpoint of the broadcast before the claim's for players that still ask for its playlists. The end is certain:
    /// no other broadcast is granted before.
    pub(crate) async fn keep_past_checkpoint(&self, next: &Claim) -> Result<(), RepoError> {
        let Some(last) = self.checkpoint(next.stream).await? else { return Ok(()) };
        if last.airing >= next.airing {
            return Ok(());
        }
        let key = state_keys::past_snapshot(next.stream, last.airing);
        let ended = StreamState { ended: true, ..last };
        self.state.commit(Tx::new().put_ttl(key, json(&ended), PAST_CHECKPOINT_TTL)).await?;
        Ok(())
    }
}
