//! Ids drawn at random: the public playback id, the secret stream key and the key's hash.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::ids::BadId;
use crate::text::{from_hex, serde_as_text, to_hex};

/// Public id in playback URLs: 128 random bits as 32 hex digits, unrelated to the key and to the stream id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaybackId([u8; 16]);

impl PlaybackId {
    /// A new id from `rng`.
    pub fn generate(rng: &mut impl rand::RngCore) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }
    fn wire_text(self) -> String {
        to_hex(&self.0)
    }
}

impl fmt::Display for PlaybackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wire_text())
    }
}

impl fmt::Debug for PlaybackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wire_text())
    }
}

impl FromStr for PlaybackId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        from_hex(text).map(Self).ok_or(BadId("PlaybackId"))
    }
}

serde_as_text!(PlaybackId);

/// The publisher's secret: 128 random bits, 32 lower-case hex digits. It has no serde form and is masked in
/// `Debug`; it leaves the process only where [`StreamKey::reveal`] is called.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamKey([u8; 16]);

impl StreamKey {
    /// A new key from `rng`, which must be cryptographically strong.
    pub fn generate(rng: &mut impl rand::CryptoRng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }
    /// The key in clear, to be shown once to its owner.
    pub fn reveal(&self) -> String {
        to_hex(&self.0)
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamKey(****)")
    }
}

impl FromStr for StreamKey {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        from_hex(text).map(Self).ok_or(BadId("StreamKey"))
    }
}

/// HMAC-SHA256 of a stream key under the cluster's secret, 64 hex digits: what is stored and sent to control.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Length of a generated secret in bytes: that of the hash (RFC 2104 §3).
    pub const SECRET_BYTES: usize = 32;

    /// Generates a secret for [`KeyHash::of`] from `rng`, which must be cryptographically strong.
    pub fn generate_secret(rng: &mut impl rand::CryptoRng) -> [u8; Self::SECRET_BYTES] {
        let mut bytes = [0; Self::SECRET_BYTES];
        rng.fill_bytes(&mut bytes);
        bytes
    }

    /// The hash of `key` under `secret` (any length).
    pub fn of(secret: &[u8], key: &StreamKey) -> Self {
        // HMAC takes a key of any length: RFC 2104 §2 hashes the long ones.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return Self([0; 32]) };
        mac.update(b"millrace stream key\0");
        mac.update(&key.0);
        Self(mac.finalize().into_bytes().into())
    }

    /// The hash of a key as a publisher presents it: of a [`StreamKey`] if the text is one, else of the text itself, since
    /// keys that a service outside the cluster hands out may have any form. `None` for a text that is empty, longer than
    /// [`KeyHash::MAX_TEXT_BYTES`], or holds spaces or control characters.
    pub fn of_text(secret: &[u8], text: &str) -> Option<Self> {
        if let Ok(key) = text.parse() {
            return Some(Self::of(secret, &key));
        }
        let is_key = !text.is_empty()
            && text.len() <= Self::MAX_TEXT_BYTES
            && !text.chars().any(|char| char.is_whitespace() || char.is_control());
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok().filter(|_| is_key)?;
        mac.update(b"millrace key of another service\0");
        mac.update(text.as_bytes());
        Some(Self(mac.finalize().into_bytes().into()))
    }

    /// Longest key of another service in bytes: signed tokens in place of keys stay below it.
    pub const MAX_TEXT_BYTES: usize = 512;

    fn wire_text(self) -> String {
        to_hex(&self.0)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wire_text())
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({}…)", &self.wire_text()[..8])
    }
}

impl FromStr for KeyHash {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        from_hex(text).map(Self).ok_or(BadId("KeyHash"))
    }
}

serde_as_text!(KeyHash);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_never_shown_by_debug() {
        let key: StreamKey = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        assert!(!format!("{key:?}").contains("0102"));
        assert_eq!(key.reveal(), "000102030405060708090a0b0c0d0e0f");
    }

    #[test]
    fn the_hash_depends_on_key_and_secret() {
        let a: StreamKey = "00000000000000000000000000000000".parse().unwrap();
        let b: StreamKey = "00000000000000000000000000000001".parse().unwrap();
        assert_ne!(KeyHash::of(b"s", &a), KeyHash::of(b"s", &b));
        assert_ne!(KeyHash::of(b"s", &a), KeyHash::of(b"t", &a));
        assert_ne!(KeyHash::of(b"", &a), KeyHash([0; 32]));
    }

    #[test]
    fn of_text_hashes_a_stream_key_as_such_and_any_other_key_as_text() {
        let text = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(KeyHash::of_text(b"s", text), Some(KeyHash::of(b"s", &text.parse().unwrap())));
        let other = KeyHash::of_text(b"s", "artist-7_live").unwrap();
        assert_ne!(KeyHash::of_text(b"s", "artist-7_livE"), Some(other));
        assert_ne!(KeyHash::of_text(b"t", "artist-7_live"), Some(other));
        let long = "k".repeat(KeyHash::MAX_TEXT_BYTES + 1);
        for refused in ["", "a b", "a\nb", "\u{7f}", &long] {
            assert_eq!(KeyHash::of_text(b"s", refused), None, "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn text_is_refused_or_comes_back_unchanged(text in "[0-9a-fA-F]{30,66}") {
            if let Ok(id) = text.parse::<PlaybackId>() { prop_assert_eq!(id.to_string(), text.clone()); }
            if let Ok(id) = text.parse::<StreamKey>() { prop_assert_eq!(id.reveal(), text.clone()); }
            if let Ok(id) = text.parse::<KeyHash>() { prop_assert_eq!(id.to_string(), text); }
        }
    }
}
