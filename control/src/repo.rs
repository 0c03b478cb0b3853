//! Livestreams, keys and claims in the state store: every change of two records is one transaction, so that
//! several controls may serve at once.

use std::time::Duration;

use bytes::Bytes;
use millrace_node::key_secret;
use millrace_protocol::state::checkpoint::may_replace;
use millrace_runtime::Secret;
use millrace_state::{Record, SCAN_PAGE, SharedState, StateError, StateStore, Tx, Version, scan_all};
use millrace_wire::fact::StreamState;
use millrace_wire::ids::{KeyHash, PlaybackId, StreamId, StreamKey};
use millrace_wire::message::announce::IndexFact;
use millrace_wire::state_keys;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::domain::claim::Claim;
use crate::domain::stream::{IllegalMove, Move, Stream};
use crate::purge::Purge;

/// Writers that meet at one record try again; so many times only meet a bug.
pub(crate) const MAX_ATTEMPTS: usize = 16;

/// A replaced key is remembered this long, to be refused as revoked rather than as unknown.
const REVOKED_KEY_TTL: Duration = Duration::from_hours(30 * 24);

/// Keys deleted in one transaction when a stream's index goes; below the store's limit.
const DELETE_BATCH: usize = 200;

/// Runs a read-decide-commit until nobody came in between. A macro, since an async closure's future is not
/// known to be `Send`.
macro_rules! retry {
    ($attempt:block) => {{
        let mut attempts = 0;
        loop {
            attempts += 1;
            let done: Result<_, $crate::repo::RepoError> = async { $attempt }.await;
            match done {
                Err($crate::repo::RepoError::State(millrace_state::StateError::Conflict { .. }))
                    if attempts < $crate::repo::MAX_ATTEMPTS => {}
                done => break done,
            }
        }
    }};
}
pub(crate) use retry;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// There is no such livestream.
    #[error("there is no such livestream")]
    NotFound,
    /// The state does not allow it.
    #[error(transparent)]
    Illegal(#[from] IllegalMove),
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store holds a record this version cannot read.
    #[error("record {key} cannot be read: {error}")]
    Corrupt {
        /// The record.
        key: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

/// What a key hash leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    /// The stream it opens, or opened.
    pub(crate) stream: StreamId,
    /// It was replaced, or its stream deleted.
    pub(crate) revoked: bool,
}

/// A record with the version to check when it is changed.
#[derive(Debug, Clone)]
pub(crate) struct Loaded<T> {
    pub(crate) value: T,
    pub(crate) version: Version,
}

/// A stream and its claim, as one change left them.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    pub(crate) stream: Stream,
    pub(crate) claim: Option<Claim>,
}

/// Access to the records; cheap to clone.
#[derive(Clone)]
pub struct Repo {
    state: SharedState,
    hash_secret: Secret<Vec<u8>>,
}

impl std::fmt::Debug for Repo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repo").finish_non_exhaustive()
    }
}

impl Repo {
    /// Opens the records; without a configured secret for key hashes it is the one kept in the store.
    pub async fn open(state: SharedState, configured: &Secret<String>) -> Result<Self, RepoError> {
        let hash_secret = key_secret(configured, &*state).await?;
        Ok(Self { state, hash_secret })
    }

    /// The store itself.
    pub fn state(&self) -> &dyn StateStore {
        &*self.state
    }

    pub(crate) fn hash(&self, key: &StreamKey) -> KeyHash {
        KeyHash::of(self.hash_secret.expose(), key)
    }

    pub(crate) async fn load<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Loaded<T>>, RepoError> {
        let Some(found) = self.state.get(key).await? else { return Ok(None) };
        Ok(Some(Loaded { value: read(key, &found.value)?, version: found.version }))
    }

    pub(crate) async fn stream(&self, id: StreamId) -> Result<Loaded<Stream>, RepoError> {
        self.load(&state_keys::stream(id)).await?.ok_or(RepoError::NotFound)
    }

    pub(crate) async fn claim(&self, id: StreamId) -> Result<Option<Loaded<Claim>>, RepoError> {
        self.load(&state_keys::claim(id)).await
    }

    /// Stores a new livestream with its two indexes.
    pub(crate) async fn create(&self, stream: &Stream) -> Result<(), RepoError> {
        let (key, playback) =
            (state_keys::key_hash(&stream.key_hash), state_keys::playback(stream.playback_id));
        let tx = Tx::new()
            .check(key.clone(), None)
            .check(playback.clone(), None)
            .put(state_keys::stream(stream.id), json(stream))
            .put(key, json(&KeyRecord { stream: stream.id, revoked: false }))
            .put(playback, stream.id.to_string());
        self.state.commit(tx).await?;
        Ok(())
    }

    /// A page of livestreams in the order of their creation.
    pub(crate) async fn page(&self, after: Option<StreamId>, limit: usize) -> Result<Vec<Stream>, RepoError> {
        let after = after.map(state_keys::stream);
        let records = self.state.scan(state_keys::STREAMS, after.as_deref(), limit).await?;
        records.iter().map(|record| read(&record.key, &record.value)).collect()
    }

    /// All claims, at most `limit`.
    pub(crate) async fn claims(&self, limit: usize) -> Result<Vec<Loaded<Claim>>, RepoError> {
        let records = scan_all(&*self.state, state_keys::CLAIMS, limit).await?;
        let load =
            |Record { key, value, version }: Record| Ok(Loaded { value: read(&key, &value)?, version });
        records.into_iter().map(load).collect()
    }

    /// Moves a livestream; a stop also ends its claim, in the same transaction.
    pub(crate) async fn apply(
        &self,
        id: StreamId,
        asked: Move,
        clock: &dyn millrace_runtime::Clock,
    ) -> Result<Changed, RepoError> {
        retry!({
            let now = crate::unix(clock);
            let Loaded { value: mut stream, version } = self.stream(id).await?;
            let claim = self.claim(id).await?;
            stream.apply(asked, now)?;
            let mut tx = Tx::new()
                .check(state_keys::stream(id), Some(version))
                .put(state_keys::stream(id), json(&stream));
            let mut changed = None;
            if let (Move::Stop, Some(claim)) = (asked, claim) {
                let ended = claim.value.ended(now);
                tx = tx
                    .check(state_keys::claim(id), Some(claim.version))
                    .put(state_keys::claim(id), json(&ended));
                changed = Some(ended);
            }
            self.state.commit(tx).await?;
            Ok(Changed { stream, claim: changed })
        })
    }

    /// Gives a livestream a new key; the old one is refused from now on.
    pub(crate) async fn rotate(&self, id: StreamId, hash: KeyHash) -> Result<Changed, RepoError> {
        retry!({
            let Loaded { value: mut stream, version } = self.stream(id).await?;
            let old = std::mem::replace(&mut stream.key_hash, hash);
            let tx = Tx::new()
                .check(state_keys::stream(id), Some(version))
                .check(state_keys::key_hash(&hash), None)
                .put(state_keys::stream(id), json(&stream))
                .put(state_keys::key_hash(&hash), json(&KeyRecord { stream: id, revoked: false }))
                .put_ttl(
                    state_keys::key_hash(&old),
                    json(&KeyRecord { stream: id, revoked: true }),
                    REVOKED_KEY_TTL,
                );
            self.state.commit(tx).await?;
            Ok(Changed { stream, claim: self.claim(id).await?.map(|claim| claim.value) })
        })
    }

    /// Removes a livestream, its indexes and its segment index; leaves word that its objects are to go.
    pub(crate) async fn delete(
        &self,
        id: StreamId,
        clock: &dyn millrace_runtime::Clock,
    ) -> Result<Stream, RepoError> {
        let stream: Stream = retry!({
            let Loaded { value: mut stream, version } = self.stream(id).await?;
            let now = crate::unix(clock);
            stream.apply(Move::Delete, now)?;
            let purge = Purge { stream: id, playback: stream.playback_id, since: now };
            let revoked = json(&KeyRecord { stream: id, revoked: true });
            let tx = Tx::new()
                .check(state_keys::stream(id), Some(version))
                .delete(state_keys::stream(id))
                .delete(state_keys::claim(id))
                .delete(state_keys::playback(stream.playback_id))
                .put(state_keys::purge(stream.playback_id), json(&purge))
                .delete(state_keys::snapshot(id))
                .put_ttl(state_keys::key_hash(&stream.key_hash), revoked, REVOKED_KEY_TTL);
            self.state.commit(tx).await?;
            Ok(stream)
        })?;
        for prefix in [state_keys::all_segments(id), state_keys::broadcasts(id)] {
            self.delete_prefix(&prefix).await?;
        }
        Ok(stream)
    }

    /// Forgets a deleted livestream for good, with what a late worker still wrote about it.
    pub(crate) async fn purged(&self, purge: &Purge) -> Result<(), RepoError> {
        self.delete_prefix(&state_keys::all_segments(purge.stream)).await?;
        let tx =
            Tx::new().delete(state_keys::snapshot(purge.stream)).delete(state_keys::purge(purge.playback));
        self.state.commit(tx).await?;
        Ok(())
    }

    /// Writes a claim over the version it was made from.
    pub(crate) async fn put_claim(&self, claim: &Claim, over: Version) -> Result<(), RepoError> {
        let key = state_keys::claim(claim.stream);
        self.state.commit(Tx::new().check(key.clone(), Some(over)).put(key, json(claim))).await?;
        Ok(())
    }

    /// Writes a stream's state at rest, unless a newer author's is there.
    pub(crate) async fn put_rest(&self, id: StreamId, rest: &StreamState) -> Result<(), RepoError> {
        let key = state_keys::snapshot(id);
        retry!({
            let old = self.state.get(&key).await?;
            let newer =
                |value: &[u8]| serde_json::from_slice(value).map_or(true, |old| may_replace(rest, &old));
            if old.as_ref().is_some_and(|old| !newer(&old.value)) {
                return Ok(());
            }
            let version = old.map(|old| old.version);
            self.state.commit(Tx::new().check(key.clone(), version).put(key.clone(), json(rest))).await?;
            Ok(())
        })
    }

    /// Writes a granted claim and its stream over the versions they were decided on.
    pub(crate) async fn put_grant(
        &self,
        (stream, stream_version): (&Stream, Version),
        (claim, claim_version): (&Claim, Option<Version>),
    ) -> Result<(), RepoError> {
        let tx = Tx::new()
            .check(state_keys::stream(stream.id), Some(stream_version))
            .check(state_keys::claim(stream.id), claim_version)
            .put(state_keys::stream(stream.id), json(stream))
            .put(state_keys::claim(stream.id), json(claim));
        self.state.commit(tx).await?;
        Ok(())
    }

    /// Removes the claim of a broadcast whose end is known.
    pub(crate) async fn forget_claim(&self, id: StreamId, version: Version) -> Result<(), RepoError> {
        let key = state_keys::claim(id);
        self.state.commit(Tx::new().check(key.clone(), Some(version)).delete(key)).await?;
        Ok(())
    }

    /// Every readable entry of a stream's segment index, page by page.
    pub(crate) async fn index(&self, id: StreamId, mut each: impl FnMut(IndexFact)) -> Result<(), RepoError> {
        let (prefix, mut after) = (state_keys::all_segments(id), None::<String>);
        loop {
            let page = self.state.scan(&prefix, after.as_deref(), SCAN_PAGE).await?;
            let last = page.len() < SCAN_PAGE;
            for record in &page {
                match read(&record.key, &record.value) {
                    Ok(fact) => each(fact),
                    Err(error) => warn!(%error, "an index entry is left out"),
                }
            }
            after = page.into_iter().next_back().map(|record| record.key);
            if last {
                return Ok(());
            }
        }
    }

    async fn delete_prefix(&self, prefix: &str) -> Result<(), RepoError> {
        loop {
            let records = self.state.scan(prefix, None, DELETE_BATCH).await?;
            if records.is_empty() {
                return Ok(());
            }
            let tx = records.into_iter().fold(Tx::new(), |tx, record| tx.delete(record.key));
            self.state.commit(tx).await?;
        }
    }

    /// How many viewers a stream has.
    pub(crate) async fn viewers(&self, id: StreamId) -> Result<u64, RepoError> {
        Ok(self.state.set_count(&state_keys::viewers(id)).await?)
    }

    /// The stream behind a public id.
    pub async fn by_playback(&self, id: PlaybackId) -> Result<Option<StreamId>, RepoError> {
        let found = self.state.get(&state_keys::playback(id)).await?;
        Ok(found.and_then(|record| std::str::from_utf8(&record.value).ok()?.parse().ok()))
    }
}

fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, RepoError> {
    serde_json::from_slice(value).map_err(|error| RepoError::Corrupt { key: key.to_owned(), error })
}

/// Our own records have no maps with non-text keys and no failing serializers.
fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}
