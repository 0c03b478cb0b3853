//! A stream key of a livestream: its name, priority, expiry and revocation. Only the hashes of keys are known here.

use millrace_wire::ids::{KeyHash, KeyId, UnixMillis};
use serde::{Deserialize, Serialize};

/// The priority of a key that is given none: that of the key a livestream is created with.
pub const DEFAULT_PRIORITY: u8 = 50;

/// The highest priority of a key.
pub const MAX_PRIORITY: u8 = 100;

/// Keys of one livestream, revoked ones included: an encoder and its backup for each of several crews. The record of the
/// livestream holds them all, and each publish reads it.
pub const MAX_KEYS: usize = 16;

/// One stream key, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The id by which the API names the key.
    pub id: KeyId,
    /// The name that operators gave it.
    pub name: String,
    /// The keyed hash of the key; the key itself is not stored.
    pub hash: KeyHash,
    /// The rank of its publishers: one of a higher rank takes over from one of a lower rank.
    pub priority: u8,
    /// The time it was made.
    pub created_at: UnixMillis,
    /// The time from which it begins no publish any more.
    pub expires_at: Option<UnixMillis>,
    /// The time it was revoked.
    pub revoked_at: Option<UnixMillis>,
}

/// The state of a key at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// The key may publish.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl Key {
    /// Returns the state of the key at `now`.
    pub fn state(&self, now: UnixMillis) -> KeyState {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => KeyState::Revoked,
            (None, Some(at)) if at <= now => KeyState::Expired,
            _ => KeyState::Active,
        }
    }
}

/// The reason a key was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the livestream has {MAX_KEYS} keys already; revoke one of them first")]
pub struct TooManyKeys;

#[cfg(test)]
mod tests {
    use millrace_wire::close_reason::CloseReason;

    use super::super::stream::tests::sample;
    use super::*;

    fn hash(number: u128) -> KeyHash {
        KeyHash::of(b"s", &format!("{number:032x}").parse().unwrap())
    }

    fn key(number: u128) -> Key {
        Key {
            id: KeyId::from_u128(number),
            name: format!("key {number}"),
            hash: hash(number),
            priority: 10,
            created_at: UnixMillis(5),
            expires_at: None,
            revoked_at: None,
        }
    }

    #[test]
    fn usable_key_refuses_unknown_revoked_and_expired_keys_each_with_its_reason() {
        let (mut stream, now) = (sample(), UnixMillis(100));
        let first = stream.usable_key(&stream.key_hash, now).unwrap();
        assert_eq!((first.name.as_str(), first.priority), ("main", DEFAULT_PRIORITY));
        stream.add_key(key(7)).unwrap();
        stream.add_key(Key { expires_at: Some(UnixMillis(101)), ..key(8) }).unwrap();
        assert_eq!(stream.usable_key(&hash(7), now), Ok(key(7)));
        assert!(stream.usable_key(&hash(8), now).is_ok(), "until it expires");
        assert_eq!(stream.usable_key(&hash(8), UnixMillis(101)), Err(CloseReason::ExpiredKey));
        assert_eq!(stream.revoke_key(KeyId::from_u128(7), now).unwrap().revoked_at, Some(now));
        assert_eq!(stream.revoke_key(KeyId::from_u128(7), UnixMillis(200)).unwrap().revoked_at, Some(now));
        assert_eq!(stream.usable_key(&hash(7), now), Err(CloseReason::RevokedKey));
        assert_eq!(stream.usable_key(&hash(9), now), Err(CloseReason::RevokedKey), "not of this livestream");
        assert_eq!(stream.revoke_key(KeyId::from_u128(9), now), None);
        assert!(stream.usable_key(&stream.key_hash, now).is_ok(), "the first key stays");
    }

    #[test]
    fn livestream_whose_every_key_is_revoked_accepts_none_until_its_first_key_is_rotated() {
        let (mut stream, now) = (sample(), UnixMillis(100));
        let first = stream.all_keys()[0].id;
        stream.revoke_key(first, now).unwrap();
        assert_eq!(stream.usable_key(&stream.key_hash, now), Err(CloseReason::RevokedKey));
        let old = stream.rotate_key(hash(3), now).unwrap();
        assert_eq!((old.id, old.hash), (first, sample().key_hash));
        assert_eq!(stream.usable_key(&hash(3), now).unwrap().id, first);
        assert_eq!(stream.usable_key(&old.hash, now), Err(CloseReason::RevokedKey));
    }

    #[test]
    fn add_key_drops_the_key_that_was_revoked_first_and_refuses_more_valid_ones_than_it_holds() {
        let mut stream = sample();
        for number in 1..MAX_KEYS as u128 {
            stream.add_key(key(number)).unwrap();
        }
        assert_eq!(stream.add_key(key(99)), Err(TooManyKeys));
        stream.revoke_key(KeyId::from_u128(4), UnixMillis(10)).unwrap();
        stream.revoke_key(KeyId::from_u128(2), UnixMillis(9)).unwrap();
        stream.add_key(key(99)).unwrap();
        let ids: Vec<_> = stream.all_keys().into_iter().map(|key| key.id).collect();
        assert_eq!(ids.len(), MAX_KEYS);
        assert!(!ids.contains(&KeyId::from_u128(2)) && ids.contains(&KeyId::from_u128(4)));
    }
}
