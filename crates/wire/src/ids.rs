//! Typed ids and numbers. Each is its own type so that a media sequence number cannot be passed as an epoch.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use ulid::Ulid;

use crate::text::serde_as_text;

pub use crate::secret_ids::{KeyHash, PlaybackId, StreamKey};

/// Text that is not a valid id of the named type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a valid {0}")]
pub struct BadId(pub &'static str);

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// A new id whose first 48 bits are `unix_ms`, so ids sort by creation.
            pub fn generate(unix_ms: UnixMillis, rng: &mut impl rand::RngCore) -> Self {
                let random = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
                Self(Ulid::from_parts(unix_ms.0, random))
            }
            /// The id with these 128 bits.
            pub const fn from_u128(bits: u128) -> Self {
                Self(Ulid(bits))
            }
            /// Returns the 128 bits of the id.
            pub const fn to_u128(self) -> u128 {
                self.0.0
            }
            fn wire_text(self) -> String {
                self.0.to_string()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let id = Ulid::from_string(text).map_err(|_| BadId(stringify!($name)))?;
                // One spelling per id: lower case and overflowing digits decode too, but would make two subjects.
                if id.to_string() == text { Ok(Self(id)) } else { Err(BadId(stringify!($name))) }
            }
        }
        serde_as_text!($name);
    };
}

ulid_id!(
    /// A livestream: internal, never in a viewer's URL.
    StreamId
);
ulid_id!(
    /// One airing of a stream; it ends with ENDLIST.
    BroadcastId
);
ulid_id!(
    /// One publisher connection at one ingest node.
    SessionId
);
ulid_id!(
    /// One API token, without its secret.
    TokenId
);
ulid_id!(
    /// One of the stream keys of a livestream. It is not secret: it names the key in the API.
    KeyId
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// The number after this one; stays at the maximum.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
            /// This number plus `n`; stays at the maximum.
            #[must_use]
            pub const fn plus(self, n: $int) -> Self {
                Self(self.0.saturating_add(n))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = BadId(stringify!($name));
                // One spelling per number: `+1` and `01` would name the same object twice.
                let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
                if canonical { text.parse().map(Self).map_err(|_| bad) } else { Err(bad) }
            }
        }
    };
}

number!(
    /// One publisher session of a broadcast; issued by control: max(last + 1, unix milliseconds).
    Epoch(u64)
);
number!(
    /// One grant of an epoch's authorship to one worker; issued by the publisher's session, from 1.
    Generation(u64)
);
number!(
    /// Number of a broadcast among those of its livestream, from 0.
    Airing(u32)
);
number!(
    /// Media sequence number of a segment; a stream's first is the unix time in seconds.
    Msn(u64)
);
number!(
    /// Index of a part in its segment, from 0.
    PartIndex(u32)
);
number!(
    /// Number of an initialisation section within an epoch, from 0.
    InitVersion(u32)
);
number!(
    /// Number of a media message within its epoch, from 0.
    MediaSeq(u64)
);
number!(
    /// Number of a fact within its (epoch, generation), from 0.
    FactSeq(u64)
);
number!(
    /// Absolute discontinuity sequence number of a segment.
    DiscontinuitySeq(u64)
);
number!(
    /// Wall clock: milliseconds since the unix epoch.
    UnixMillis(u64)
);

impl UnixMillis {
    /// Whole seconds since the unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }
}

/// Longest node name and rendition name, in bytes: they are part of subjects and object keys.
pub const MAX_NAME: usize = 64;

fn is_token(text: &str, upper: bool) -> bool {
    let ok = |b: u8| {
        b.is_ascii_lowercase()
            || b.is_ascii_digit()
            || matches!(b, b'-' | b'_')
            || (upper && b.is_ascii_uppercase())
    };
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(ok)
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $upper:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
            fn wire_text(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                if is_token(text, $upper) { Ok(Self(text.into())) } else { Err(BadId(stringify!($name))) }
            }
        }
        serde_as_text!($name);
    };
}

token!(
    /// A running node process: letters, digits, `-`, `_`; unique per start, so a restarted node is another one.
    NodeId, true
);
token!(
    /// A rendition's short name: lower-case letters, digits, `-`, `_`. The copy rung has `video` and `audio`.
    Rendition, false
);

token!(
    /// The name of a rung of a stream's ladder: lower-case letters, digits, `-`, `_`. A rung makes one or more renditions.
    RungId, false
);

impl RungId {
    /// Returns the id of the rung that packages the publisher's bits without encoding.
    pub fn copy() -> Self {
        Self("copy".into())
    }
}

impl Rendition {
    /// The copy rung's video track.
    pub fn video() -> Self {
        Self("video".into())
    }
    /// The copy rung's audio track; one audio group serves all rungs.
    pub fn audio() -> Self {
        Self("audio".into())
    }
}

impl NodeId {
    /// A fresh node id: `role` (a short lower-case word) and 64 random bits.
    pub fn generate(role: &str, rng: &mut impl rand::RngCore) -> Result<Self, BadId> {
        format!("{role}-{:016x}", rng.next_u64()).parse()
    }
}

impl Airing {
    /// The livestream's first broadcast.
    pub const FIRST: Self = Self(0);

    /// Returns true for the livestream's first broadcast.
    pub const fn is_first(&self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ulids_have_one_spelling(bits: u128) {
            let id = StreamId::from_u128(bits);
            let text = id.to_string();
            prop_assert_eq!(text.parse::<StreamId>(), Ok(id));
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<StreamId>(&json).unwrap(), id);
        }

        #[test]
        fn any_text_is_refused_or_comes_back_unchanged(text in ".{0,40}") {
            if let Ok(id) = text.parse::<StreamId>() { prop_assert_eq!(id.to_string(), text.clone()); }
            if let Ok(id) = text.parse::<Epoch>() { prop_assert_eq!(id.to_string(), text.clone()); }
            if let Ok(id) = text.parse::<NodeId>() { prop_assert_eq!(id.to_string(), text.clone()); }
            if let Ok(id) = text.parse::<Rendition>() { prop_assert_eq!(id.to_string(), text); }
        }

        #[test]
        fn numbers_round_trip(n: u64) {
            prop_assert_eq!(n.to_string().parse::<Msn>(), Ok(Msn(n)));
        }
    }

    #[test]
    fn numbers_have_one_spelling() {
        for bad in ["", "+1", "01", "-1", " 1", "1 ", "18446744073709551616", "1.0"] {
            assert!(bad.parse::<Epoch>().is_err(), "{bad:?}");
        }
        assert_eq!("0".parse::<Epoch>(), Ok(Epoch(0)));
    }

    #[test]
    fn names_cannot_break_a_subject_or_a_path() {
        for bad in ["", "a.b", "a/b", "*", ">", "a b", "..", "Ä", "VIDEO"] {
            assert!(bad.parse::<Rendition>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(MAX_NAME + 1).parse::<NodeId>().is_err());
    }
}
