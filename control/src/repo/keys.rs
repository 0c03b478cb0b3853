//! The stream keys of a livestream: each change of them is one transaction with the records by which claims find them.

use millrace_state::Tx;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{KeyId, StreamId, UnixMillis};
use millrace_wire::message::control::LifecycleKind;
use millrace_wire::state_keys;

use super::{Changed, KeyRecord, REVOKED_KEY_TTL, Repo, RepoError, Versioned, json, retry};
use crate::domain::keys::Key;
use crate::domain::stream::Transition;

/// Returns the event of a change of the keys.
fn keys_changed() -> [LifecycleKind; 1] {
    [LifecycleKind::Updated { fields: vec!["keys".to_owned()] }]
}

impl Repo {
    /// Adds a key to a livestream that can change.
    pub(crate) async fn add_key(&self, id: StreamId, key: &Key) -> Result<Changed, RepoError> {
        retry!({
            let Versioned { value: mut stream, version } = self.stream(id).await?;
            stream.apply(Transition::Change, key.created_at)?;
            stream.add_key(key.clone())?;
            let record = state_keys::key_hash(&key.hash);
            let tx = Tx::new()
                .check(state_keys::stream(id), Some(version))
                .check(record.clone(), None)
                .put(state_keys::stream(id), json(&stream))
                .put(record, json(&KeyRecord { stream: id, revoked: false }));
            self.commit_with(tx, &stream, key.created_at, &keys_changed()).await?;
            Ok(Changed { stream, claim: None })
        })
    }

    /// Revokes a key. The claim is returned if its publisher used the key.
    pub(crate) async fn revoke_key(
        &self,
        id: StreamId,
        key: KeyId,
        now: UnixMillis,
    ) -> Result<Changed, RepoError> {
        retry!({
            let Versioned { value: mut stream, version } = self.stream(id).await?;
            let is_first = stream.all_keys().first().is_some_and(|first| first.id == key);
            let revoked = stream.revoke_key(key, now).ok_or(RepoError::NoSuchKey)?;
            let claim = self.claim(id).await?.map(|claim| claim.value);
            // A claim of an earlier version has no key: its publisher used the first one.
            let claim = claim.filter(|claim| claim.key == Some(key) || (claim.key.is_none() && is_first));
            if let Some(claim) = claim.as_ref().filter(|claim| claim.is_held(now)) {
                stream.last_disconnect = Some(claim.disconnect(now, CloseReason::RevokedKey, ""));
            }
            let record = json(&KeyRecord { stream: id, revoked: true });
            let tx = Tx::new()
                .check(state_keys::stream(id), Some(version))
                .put(state_keys::stream(id), json(&stream))
                .put_ttl(state_keys::key_hash(&revoked.hash), record, REVOKED_KEY_TTL);
            self.commit_with(tx, &stream, now, &keys_changed()).await?;
            Ok(Changed { stream, claim })
        })
    }
}
