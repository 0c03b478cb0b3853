//! The audiences of broadcasts: a record for each, a bounded number of them.

use millrace_state::Tx;
use millrace_wire::ids::{BroadcastId, StreamId};
use millrace_wire::state_keys;

use super::{DELETE_BATCH, Repo, RepoError, json, read};
use crate::domain::audience::BroadcastAudience;

/// Broadcasts of one livestream whose audience is kept, the newest ones: a record takes up to 10 KiB.
pub(crate) const MAX_AUDIENCES: usize = 100;

impl Repo {
    /// Returns the number of viewers of a stream.
    pub(crate) async fn viewers(&self, id: StreamId) -> Result<u64, RepoError> {
        Ok(self.state.audience_count(&state_keys::viewers(id)).await?)
    }

    /// Returns the estimated number of different viewers of a broadcast.
    pub(crate) async fn unique_viewers(
        &self,
        id: StreamId,
        broadcast: BroadcastId,
    ) -> Result<u64, RepoError> {
        Ok(self.state.audience_uniques(&state_keys::unique_viewers(id, broadcast)).await?)
    }

    /// Returns the audience of a broadcast; `None` if none was recorded.
    pub(crate) async fn audience(
        &self,
        id: StreamId,
        broadcast: BroadcastId,
    ) -> Result<Option<BroadcastAudience>, RepoError> {
        let found = self.load(&state_keys::audience(id, broadcast)).await?;
        Ok(found.map(|found| found.value))
    }

    /// Returns the audiences of up to `limit` broadcasts of a livestream, the newest first.
    pub(crate) async fn audiences(
        &self,
        id: StreamId,
        limit: usize,
    ) -> Result<Vec<BroadcastAudience>, RepoError> {
        let records = self.state.scan(&state_keys::audiences(id), None, MAX_AUDIENCES + DELETE_BATCH).await?;
        // Ids sort by time.
        let newest = records.iter().rev().take(limit);
        newest.map(|record| read(&record.key, &record.value)).collect()
    }

    /// Writes the audience of a broadcast. One control at a time samples it, and the newest figures count.
    pub(crate) async fn put_audience(
        &self,
        id: StreamId,
        audience: &BroadcastAudience,
    ) -> Result<(), RepoError> {
        let key = state_keys::audience(id, audience.broadcast);
        self.state.commit(Tx::new().put(key, json(audience))).await?;
        Ok(())
    }

    /// Deletes the audiences of the oldest broadcasts beyond the limit.
    pub(crate) async fn drop_oldest_audiences(&self, id: StreamId) -> Result<(), RepoError> {
        let records = self.state.scan(&state_keys::audiences(id), None, MAX_AUDIENCES + DELETE_BATCH).await?;
        let surplus = records.len().saturating_sub(MAX_AUDIENCES);
        let keys: Vec<String> = records.into_iter().take(surplus).map(|record| record.key).collect();
        self.delete_records(&keys).await
    }
}
