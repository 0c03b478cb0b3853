//! The records of livestreams, keys and claims in the state store. Every change of two records is one transaction, so
//! that several controls may serve at once.

mod audience;
mod audit;
mod broadcasts;
mod keys;
mod outbox;
mod segments;
mod tokens;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_node::{Sealer, key_secret};
use millrace_runtime::Secret;
use millrace_state::{Record, SharedState, StateError, StateStore, Tx, Version, scan_all};
use millrace_wire::catalog::PlaybackRecord;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{KeyHash, StreamId, StreamKey, UnixMillis};
use millrace_wire::message::control::LifecycleKind;
use millrace_wire::{WireError, state_keys, versioned};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use self::outbox::{OutboxEntry, Unrelayed};
pub(crate) use self::tokens::MAX_TOKENS;
pub(crate) use self::webhooks::{DeliveryRecord, DeliveryState, LastAttempt};
use crate::domain::claim::Claim;
use crate::domain::keys::TooManyKeys;
use crate::domain::purge::Purge;
use crate::domain::retention::Retention;
use crate::domain::stream::{InvalidTransition, Stream, Transition};
use crate::domain::validate::{Changes, FieldError, Unchanged};

/// A transaction that conflicts with another writer's is tried again this often; more conflicts than that are a bug.
pub(crate) const MAX_ATTEMPTS: usize = 16;

/// A revoked key is remembered this long, so that it is refused as revoked rather than as unknown.
const REVOKED_KEY_TTL: Duration = Duration::from_hours(30 * 24);

/// Records deleted in one transaction; below the state store's limit for a transaction.
const DELETE_BATCH: usize = 200;

/// The version of a record that carries none.
const UNVERSIONED: u64 = 1;
/// The version of records from before media messages carried durations; control's are the same.
const MEDIA_WITHOUT_DURATIONS: u64 = 2;

/// Repeats a read-decide-commit while its commit conflicts with another writer's. It is a macro, since an async
/// closure's future is not known to be `Send`.
macro_rules! retry {
    ($attempt:block) => {{
        let mut attempts = 0;
        loop {
            attempts += 1;
            let done: Result<_, $crate::repo::RepoError> = async { $attempt }.await;
            match done {
                Err($crate::repo::RepoError::State(millrace_state::StateError::Conflict { .. }))
                    if attempts < $crate::repo::MAX_ATTEMPTS =>
                {
                    tokio::time::sleep($crate::repo::pause_after_conflict(attempts)).await;
                }
                done => break done,
            }
        }
    }};
}
pub(crate) use retry;

/// Returns a random pause before another attempt, so that many writers of one record do not keep meeting: at most 1, 2, 4, … 32 ms.
pub(crate) fn pause_after_conflict(attempts: usize) -> Duration {
    let most_us = 1_000_u64 << attempts.saturating_sub(1).min(5);
    Duration::from_micros(rand::random_range(0..most_us))
}

/// The reason a change of the records was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RepoError {
    /// The livestream does not exist.
    #[error("there is no such livestream")]
    NotFound,
    /// The livestream's status does not allow the transition.
    #[error(transparent)]
    InvalidTransition(#[from] InvalidTransition),
    /// Fields of the livestream cannot change any more.
    #[error("invalid: {}", FieldError::list(.0))]
    Fields(Vec<FieldError>),
    /// The livestream has no such key.
    #[error("the livestream has no such key")]
    NoSuchKey,
    /// The livestream has as many keys as it may have.
    #[error(transparent)]
    TooManyKeys(#[from] TooManyKeys),
    /// The livestream is not as the request expects it (RFC 9110 §13.1.1).
    #[error("the livestream has changed since the version that If-Match names; read it again")]
    Changed,
    /// The state store failed, or another writer kept winning.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state store holds a record that this version cannot read.
    #[error("record {key} cannot be read: {error}")]
    Corrupt {
        /// The key of the record.
        key: String,
        /// The rule of the wire format that the record breaks.
        error: WireError,
    },
}

impl From<Unchanged> for RepoError {
    fn from(unchanged: Unchanged) -> Self {
        match unchanged {
            Unchanged::Over(refused) => Self::InvalidTransition(refused),
            Unchanged::Fields(errors) => Self::Fields(errors),
        }
    }
}

/// The record under the hash of a stream key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    /// The stream the key publishes, or published before it was revoked.
    pub(crate) stream: StreamId,
    /// True if the key was replaced or its stream deleted.
    pub(crate) revoked: bool,
}

/// A record with the version that a change of it has to check.
#[derive(Debug, Clone)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    pub(crate) version: Version,
}

/// A stream and its claim as a command left them.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    pub(crate) stream: Stream,
    pub(crate) claim: Option<Claim>,
}

/// Reads and writes control's records; cheap to clone.
#[derive(Clone)]
pub(crate) struct Repo {
    state: SharedState,
    hash_secret: Secret<Vec<u8>>,
    unrelayed: Arc<Unrelayed>,
}

impl std::fmt::Debug for Repo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repo").finish_non_exhaustive()
    }
}

impl Repo {
    /// Opens the records. Without a configured secret for key hashes, the secret kept in the state store is used.
    pub(crate) async fn open(state: SharedState, configured: &Secret<String>) -> Result<Self, RepoError> {
        let hash_secret = key_secret(configured, &*state).await?;
        Ok(Self { state, hash_secret, unrelayed: Arc::default() })
    }

    /// Returns the state store itself.
    pub(crate) fn state(&self) -> &dyn StateStore {
        &*self.state
    }

    /// Returns what seals secrets that the state store keeps, by the secret of key hashes.
    pub(crate) fn sealer(&self) -> anyhow::Result<Sealer> {
        Sealer::new(&self.hash_secret)
    }

    pub(crate) fn hash(&self, key: &StreamKey) -> KeyHash {
        KeyHash::of(self.hash_secret.expose(), key)
    }

    pub(crate) async fn load<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<Versioned<T>>, RepoError> {
        let Some(found) = self.state.get(key).await? else { return Ok(None) };
        Ok(Some(Versioned { value: read(key, &found.value)?, version: found.version }))
    }

    pub(crate) async fn stream(&self, id: StreamId) -> Result<Versioned<Stream>, RepoError> {
        self.load(&state_keys::stream(id)).await?.ok_or(RepoError::NotFound)
    }

    pub(crate) async fn claim(&self, id: StreamId) -> Result<Option<Versioned<Claim>>, RepoError> {
        self.load(&state_keys::claim(id)).await
    }

    /// Stores a new livestream with its records by key hash and by playback id.
    pub(crate) async fn create(&self, stream: &Stream) -> Result<(), RepoError> {
        let (key, playback) =
            (state_keys::key_hash(&stream.key_hash), state_keys::playback(stream.playback_id));
        let tx = Tx::new()
            .check(key.clone(), None)
            .check(playback.clone(), None)
            .put(state_keys::stream(stream.id), json(stream))
            .put(key, json(&KeyRecord { stream: stream.id, revoked: false }))
            .put(playback, json(&PlaybackRecord::public(stream.id).titled(&stream.title)));
        self.commit_with(tx, stream, stream.created_at, &[LifecycleKind::Created]).await
    }

    /// Returns up to `limit` livestreams created after `after`, in the order of their creation.
    pub(crate) async fn page(&self, after: Option<StreamId>, limit: usize) -> Result<Vec<Stream>, RepoError> {
        let after = after.map(state_keys::stream);
        let records = self.state.scan(state_keys::STREAMS, after.as_deref(), limit).await?;
        records.iter().map(|record| read(&record.key, &record.value)).collect()
    }

    /// Returns all claims, at most `limit`.
    pub(crate) async fn claims(&self, limit: usize) -> Result<Vec<Versioned<Claim>>, RepoError> {
        let records = scan_all(&*self.state, state_keys::CLAIMS, limit).await?;
        let load =
            |Record { key, value, version }: Record| Ok(Versioned { value: read(&key, &value)?, version });
        records.into_iter().map(load).collect()
    }

    /// Makes a transition of a livestream; a stop also ends its claim, and a cancellation deletes the claim of a publisher
    /// whose media have not come, in the same transaction.
    pub(crate) async fn apply(
        &self,
        id: StreamId,
        transition: Transition,
        clock: &dyn millrace_runtime::Clock,
    ) -> Result<Changed, RepoError> {
        retry!({
            let now = UnixMillis(clock.unix_ms());
            let Versioned { value: mut stream, version } = self.stream(id).await?;
            let claim = self.claim(id).await?;
            stream.apply(transition, now)?;
            let publishing = claim.as_ref().filter(|claim| claim.value.is_held(now));
            if let (Transition::Stop, Some(claim)) = (transition, publishing) {
                stream.last_disconnect = Some(claim.value.disconnect(now, CloseReason::Stopped, ""));
            }
            let ends = matches!(transition, Transition::Stop | Transition::End);
            if let (Transition::Cancel, Some(claim)) = (transition, &claim) {
                stream.airings.note(claim.value.numbers(now));
            }
            let mut tx = Tx::new()
                .check(state_keys::stream(id), Some(version))
                .put(state_keys::stream(id), json(&stream));
            let mut changed = None;
            let mut events = match transition {
                Transition::Start if stream.ready_at == Some(now) => vec![LifecycleKind::Readied],
                Transition::Reopen => vec![LifecycleKind::Updated { fields: vec!["status".to_owned()] }],
                Transition::Cancel => vec![LifecycleKind::Cancelled],
                Transition::Archive => vec![LifecycleKind::Archived],
                Transition::Stop if claim.is_none() => vec![LifecycleKind::Stopped],
                _ => Vec::new(),
            };
            if let (true, Some(claim)) = (ends, &claim) {
                let mut ended = claim.value.ended(now);
                events.append(&mut ended.events);
                tx = tx
                    .check(state_keys::claim(id), Some(claim.version))
                    .put(state_keys::claim(id), json(&ended));
                changed = Some(ended);
            }
            if let (true, Some(broadcast)) = (ends, stream.broadcast) {
                tx = self.end_broadcast(tx, &stream, broadcast, transition).await?;
            }
            if let (Transition::Cancel, Some(claim)) = (transition, claim) {
                // Its broadcast has not begun.
                tx = tx.check(state_keys::claim(id), Some(claim.version)).delete(state_keys::claim(id));
                changed = Some(claim.value);
            }
            self.commit_with(tx, &stream, now, &events).await?;
            Ok(Changed { stream, claim: changed })
        })
    }

    /// Changes fields of a livestream, and its title where readers find it by its playback id, in one transaction.
    /// Nothing changes unless the livestream is as `expected`.
    pub(crate) async fn change(
        &self,
        id: StreamId,
        changes: &Changes,
        now: UnixMillis,
        expected: impl Fn(&Stream) -> bool,
    ) -> Result<Changed, RepoError> {
        retry!({
            let Versioned { value: mut stream, version } = self.stream(id).await?;
            let claim = self.claim(id).await?.map(|claim| claim.value);
            if !expected(&stream) {
                return Err(RepoError::Changed);
            }
            let title = stream.title.clone();
            changes.apply(&mut stream)?;
            let mut tx = Tx::new()
                .check(state_keys::stream(id), Some(version))
                .put(state_keys::stream(id), json(&stream));
            let key = state_keys::playback(stream.playback_id);
            if title != stream.title
                && let Some(found) = self.state.get(&key).await?
            {
                // A record of a policy that this version does not know keeps its title.
                if let Ok(record) = PlaybackRecord::parse(&found.value) {
                    let record = json(&record.titled(&stream.title));
                    tx = tx.check(key.clone(), Some(found.version)).put(key, record);
                }
            }
            let fields = changes.takes_effect().into_keys().map(str::to_owned).collect();
            self.commit_with(tx, &stream, now, &[LifecycleKind::Updated { fields }]).await?;
            Ok(Changed { stream, claim })
        })
    }

    /// Gives a livestream another first key and revokes the old one. The claim is returned if its publisher used the old one.
    pub(crate) async fn rotate(
        &self,
        id: StreamId,
        hash: KeyHash,
        now: UnixMillis,
    ) -> Result<Changed, RepoError> {
        retry!({
            let Versioned { value: mut stream, version } = self.stream(id).await?;
            let rotated = stream.rotate_key(hash, now);
            let old = rotated.as_ref().map_or(hash, |key| key.hash);
            let uses = |claim: &Claim| claim.key.is_none() || claim.key == rotated.as_ref().map(|key| key.id);
            let claim = self.claim(id).await?.map(|claim| claim.value).filter(uses);
            if let Some(claim) = claim.as_ref().filter(|claim| claim.is_held(now)) {
                stream.last_disconnect = Some(claim.disconnect(now, CloseReason::KeyRotated, ""));
            }
            // The new key is one of the cluster's own.
            stream.outside_key = stream.outside_key.filter(|key| *key != old);
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
            self.commit_with(tx, &stream, now, &[LifecycleKind::KeyRotated]).await?;
            Ok(Changed { stream, claim })
        })
    }

    /// Deletes a livestream, the records that lead to it and its segment index; leaves a purge record, by which its
    /// objects are deleted.
    pub(crate) async fn delete(&self, id: StreamId, now: UnixMillis) -> Result<Changed, RepoError> {
        let changed: Changed = retry!({
            let Versioned { value: mut stream, version } = self.stream(id).await?;
            let claim = self.claim(id).await?.map(|claim| claim.value);
            stream.apply(Transition::Delete, now)?;
            let purge = Purge { stream: id, playback: stream.playback_id, since: now };
            let revoked = json(&KeyRecord { stream: id, revoked: true });
            let keys = stream.all_keys();
            let tx = keys.iter().fold(Tx::new(), |tx, key| {
                let record = state_keys::key_hash(&key.hash);
                // A key of another service may publish again when that service accepts it.
                if stream.outside_key == Some(key.hash) {
                    tx.delete(record)
                } else {
                    tx.put_ttl(record, revoked.clone(), REVOKED_KEY_TTL)
                }
            });
            let tx = tx
                .check(state_keys::stream(id), Some(version))
                .delete(state_keys::stream(id))
                .delete(state_keys::claim(id))
                .delete(state_keys::retention(id))
                .delete(state_keys::playback(stream.playback_id))
                .put(state_keys::purge(stream.playback_id), json(&purge))
                .delete(state_keys::snapshot(id));
            self.commit_with(tx, &stream, now, &[LifecycleKind::Deleted]).await?;
            Ok(Changed { stream, claim })
        })?;
        for prefix in [
            state_keys::all_segments(id),
            state_keys::broadcasts(id),
            state_keys::past_snapshots(id),
            state_keys::audiences(id),
        ] {
            self.delete_prefix(&prefix).await?;
        }
        Ok(changed)
    }

    /// Deletes the purge record of a livestream, and records that a late worker wrote after the livestream was deleted.
    pub(crate) async fn purged(&self, purge: &Purge) -> Result<(), RepoError> {
        self.delete_prefix(&state_keys::all_segments(purge.stream)).await?;
        let tx =
            Tx::new().delete(state_keys::snapshot(purge.stream)).delete(state_keys::purge(purge.playback));
        self.state.commit(tx).await?;
        Ok(())
    }

    /// Writes a claim over the version it was made from, with the claim's events.
    pub(crate) async fn put_claim(
        &self,
        claim: &Claim,
        over: Version,
        now: UnixMillis,
    ) -> Result<(), RepoError> {
        let key = state_keys::claim(claim.stream);
        let tx = Tx::new().check(key.clone(), Some(over)).put(key, json(claim));
        self.commit_with(tx, claim, now, &claim.events).await
    }

    /// Writes a stream over the version it was made from, with the events of its change.
    pub(crate) async fn put_stream(
        &self,
        stream: &Stream,
        over: Version,
        now: UnixMillis,
        events: &[LifecycleKind],
    ) -> Result<(), RepoError> {
        let key = state_keys::stream(stream.id);
        let tx = Tx::new().check(key.clone(), Some(over)).put(key, json(stream));
        self.commit_with(tx, stream, now, events).await
    }

    /// Writes a stream and deletes its claim, of which no media came, over the versions they were read at.
    pub(crate) async fn withdraw_claim(
        &self,
        (stream, stream_version): (&Stream, Version),
        claim_version: Version,
        now: UnixMillis,
        events: &[LifecycleKind],
    ) -> Result<(), RepoError> {
        let tx = Tx::new()
            .check(state_keys::stream(stream.id), Some(stream_version))
            .check(state_keys::claim(stream.id), Some(claim_version))
            .put(state_keys::stream(stream.id), json(stream))
            .delete(state_keys::claim(stream.id));
        self.commit_with(tx, stream, now, events).await
    }

    /// Writes a claim and its stream over the versions they were decided on. A stream that is not recorded also gets a
    /// retention record once its broadcast begins, by which its segments past the window are deleted.
    pub(crate) async fn put_both(
        &self,
        stream: (&Stream, Version),
        claim: (&Claim, Option<Version>),
        now: UnixMillis,
    ) -> Result<(), RepoError> {
        self.put_both_and(Tx::new(), stream, claim, now).await
    }

    /// Does the same as [`Self::put_both`], with the changes of `with` in the same transaction.
    async fn put_both_and(
        &self,
        with: Tx,
        (stream, stream_version): (&Stream, Version),
        (claim, claim_version): (&Claim, Option<Version>),
        now: UnixMillis,
    ) -> Result<(), RepoError> {
        let mut tx = with
            .check(state_keys::stream(stream.id), Some(stream_version))
            .check(state_keys::claim(stream.id), claim_version)
            .put(state_keys::stream(stream.id), json(stream))
            .put(state_keys::claim(stream.id), json(claim));
        if claim.begun && !stream.settings.record {
            let retention = Retention { stream: stream.id };
            tx = tx.put(state_keys::retention(stream.id), json(&retention));
        }
        self.commit_with(tx, claim, now, &claim.events).await
    }

    /// Deletes the claim of a broadcast whose end every reader knows, and keeps its numbers in the livestream's record.
    pub(crate) async fn forget_claim(
        &self,
        claim: &Claim,
        over: Version,
        now: UnixMillis,
    ) -> Result<(), RepoError> {
        let key = state_keys::claim(claim.stream);
        let mut tx = Tx::new().check(key.clone(), Some(over)).delete(key);
        match self.stream(claim.stream).await {
            Ok(Versioned { value: mut stream, version }) => {
                stream.airings.note(claim.numbers(now));
                let key = state_keys::stream(claim.stream);
                tx = tx.check(key.clone(), Some(version)).put(key, json(&stream));
            }
            // The livestream is deleted.
            Err(RepoError::NotFound) => {}
            Err(error) => return Err(error),
        }
        self.state.commit(tx).await?;
        Ok(())
    }

    /// Deletes the records under `keys`, in bounded transactions; those that are absent are no error.
    pub(crate) async fn delete_records(&self, keys: &[String]) -> Result<(), RepoError> {
        for batch in keys.chunks(DELETE_BATCH) {
            let tx = batch.iter().fold(Tx::new(), |tx, key| tx.delete(key.clone()));
            self.state.commit(tx).await?;
        }
        Ok(())
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
}

/// Parses the value of the record under `key`. A record of version 2, or without a version, is read as well: builds before
/// version 3 of the wire format wrote control's records in the same form, and livestreams outlive an upgrade.
pub(crate) fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, RepoError> {
    let parsed = match versioned::decode(value) {
        Err(WireError::Version { found: UNVERSIONED | MEDIA_WITHOUT_DURATIONS }) => {
            serde_json::from_slice(value).map_err(WireError::from)
        }
        parsed => parsed,
    };
    parsed.map_err(|error| RepoError::Corrupt { key: key.to_owned(), error })
}

/// Encodes a record. Control's records have no maps with non-text keys and no failing serializers.
fn json<T: Serialize>(value: &T) -> Bytes {
    versioned::encode(value).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_accepts_records_of_earlier_versions_and_refuses_a_newer_one() {
        let record = KeyRecord { stream: StreamId::from_u128(7), revoked: true };
        let bare = serde_json::to_vec(&record).unwrap();
        assert_eq!(read::<KeyRecord>("key", &bare).unwrap(), record);
        assert_eq!(read::<KeyRecord>("key", &json(&record)).unwrap(), record);
        let of_version = |version: u8| {
            String::from_utf8(bare.clone()).unwrap().replacen('{', &format!("{{\"v\":{version},"), 1)
        };
        assert_eq!(read::<KeyRecord>("key", of_version(2).as_bytes()).unwrap(), record);
        let refused = read::<KeyRecord>("key", of_version(4).as_bytes());
        assert!(matches!(refused, Err(RepoError::Corrupt { error: WireError::Version { found: 4 }, .. })));
    }
}
