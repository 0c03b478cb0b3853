//! The records of broadcasts: one for each airing of a livestream, a bounded number of them.

use millrace_state::{Tx, Version};
use millrace_wire::ids::{BroadcastId, StreamId};
use millrace_wire::state_keys;

use super::{DELETE_BATCH, Repo, RepoError, Versioned, json, read};
use crate::domain::airings::Broadcast;
use crate::domain::claim::Claim;
use crate::domain::stream::{Stream, Transition};

/// Broadcasts of one livestream whose records are kept, the newest ones: more than a year of daily shows.
pub(crate) const MAX_BROADCASTS: usize = 500;

/// The code of the reason for the end of a broadcast that an operator stopped.
const STOPPED: &str = "stopped";

impl Repo {
    /// Writes a livestream whose broadcast begins, its claim, and the record of the broadcast, in one transaction. Records of the
    /// oldest broadcasts beyond the limit are deleted after it.
    pub(crate) async fn begin(
        &self,
        (stream, stream_version): (&Stream, Version),
        (claim, claim_version): (&Claim, Version),
        broadcast: &Broadcast,
    ) -> Result<(), RepoError> {
        let key = state_keys::broadcast(stream.id, broadcast.id);
        let with = Tx::new().put(key, json(broadcast));
        self.put_both_and(with, (stream, stream_version), (claim, Some(claim_version)), broadcast.started_at)
            .await?;
        self.drop_oldest_broadcasts(stream.id).await
    }

    async fn drop_oldest_broadcasts(&self, id: StreamId) -> Result<(), RepoError> {
        // Ids sort by time.
        let records =
            self.state.scan(&state_keys::broadcasts(id), None, MAX_BROADCASTS + DELETE_BATCH).await?;
        let surplus = records.len().saturating_sub(MAX_BROADCASTS);
        let keys: Vec<String> = records.into_iter().take(surplus).map(|record| record.key).collect();
        self.delete_records(&keys).await
    }

    /// Adds the end of a broadcast to a transaction.
    pub(super) async fn end_broadcast(
        &self,
        tx: Tx,
        stream: &Stream,
        id: BroadcastId,
        transition: Transition,
    ) -> Result<Tx, RepoError> {
        let key = state_keys::broadcast(stream.id, id);
        // A broadcast that began under an earlier version has no record.
        let Some(Versioned { value, version }) = self.load::<Broadcast>(&key).await? else { return Ok(tx) };
        let reason = match (transition, &stream.last_disconnect) {
            (Transition::End, Some(last)) if !last.refused => last.code.clone(),
            (Transition::End, _) => "connection_lost".to_owned(),
            _ => STOPPED.to_owned(),
        };
        let ended = Broadcast { ended_at: stream.ended_at, reason: Some(reason), ..value };
        Ok(tx.check(key.clone(), Some(version)).put(key, json(&ended)))
    }

    /// Returns up to `limit` recorded broadcasts of a livestream, the newest first, that began before `before`; and true if there
    /// are older ones.
    pub(crate) async fn broadcasts(
        &self,
        id: StreamId,
        before: Option<BroadcastId>,
        limit: usize,
    ) -> Result<(Vec<Broadcast>, bool), RepoError> {
        let records =
            self.state.scan(&state_keys::broadcasts(id), None, MAX_BROADCASTS + DELETE_BATCH).await?;
        let all: Result<Vec<Broadcast>, RepoError> =
            records.iter().rev().map(|record| read(&record.key, &record.value)).collect();
        let mut older: Vec<Broadcast> =
            all?.into_iter().filter(|it| before.is_none_or(|before| it.id < before)).collect();
        let has_more = older.len() > limit;
        older.truncate(limit);
        Ok((older, has_more))
    }
}
