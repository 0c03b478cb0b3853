//! The form of every JSON message and of every record that nodes exchange: one object whose first member is the version
//! of the wire format, `{"v":3,…}`.
//!
//! A node refuses another version by name ([`WireError::Version`]) instead of reading half of it: in a rolling upgrade the
//! two halves of a cluster must not act on numbers that mean something else to the other half (ADR 5). Builds before
//! version 2 wrote most messages without a version and a few with none of their members at all; both count as version 1.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::fragment::FragmentError;
use crate::version::WIRE_VERSION;

/// The first bytes of every encoded object. The version is written out because `concat!` takes literals only; a test holds
/// it to [`WIRE_VERSION`].
const PREFIX: &[u8] = b"{\"v\":3";

/// The version that an object without a version has, and an empty message.
const UNVERSIONED: u64 = 1;

/// A message or record that cannot be written or read.
#[derive(Debug, Error)]
pub enum WireError {
    /// The sender speaks another version of the wire format.
    #[error("message of wire version {found}, this node speaks version {WIRE_VERSION}")]
    Version {
        /// The version that the sender speaks.
        found: u64,
    },
    /// The message is longer than its kind allows.
    #[error("message of {len} bytes, at most {limit} are accepted")]
    TooLong {
        /// Length of the message in bytes.
        len: usize,
        /// Longest accepted length in bytes.
        limit: usize,
    },
    /// The JSON is broken, or is not the expected object.
    #[error("malformed message: {0}")]
    Json(#[from] serde_json::Error),
    /// The JSON is as expected, but its values break a rule of the protocol.
    #[error("invalid message: {0}")]
    Invalid(&'static str),
    /// The bytes are no fragment of a binary message, or its body is broken.
    #[error("malformed message: {0}")]
    Fragment(FragmentError),
}

impl WireError {
    /// Returns the value of the `reason` label under which refused messages are counted.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Version { .. } => "version",
            Self::TooLong { .. } => "too_long",
            Self::Json(_) | Self::Fragment(_) => "malformed",
            Self::Invalid(_) => "invalid",
        }
    }
}

impl From<FragmentError> for WireError {
    fn from(error: FragmentError) -> Self {
        match error {
            FragmentError::Version(found) => Self::Version { found: u64::from(found) },
            other => Self::Fragment(other),
        }
    }
}

/// Encodes `body`, which must serialise to a JSON object, with the version as the object's first member.
pub fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(PREFIX);
    serde_json::to_writer(&mut out, body)?;
    match &out[PREFIX.len()..] {
        b"{}" => {
            out.remove(PREFIX.len());
        }
        // The object's own opening brace becomes the comma behind the version.
        [b'{', ..] => out[PREFIX.len()] = b',',
        _ => return Err(WireError::Invalid("only a JSON object can carry a version")),
    }
    Ok(out)
}

/// Decodes what [`encode`] wrote. The version is compared before anything else is read, so that an object of another
/// version is refused as such and not as malformed.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if !has_our_prefix(bytes) {
        let found = version_of(bytes)?;
        if found != u64::from(WIRE_VERSION) {
            return Err(WireError::Version { found });
        }
    }
    // The types ignore members they do not know, `v` among them.
    Ok(serde_json::from_slice(bytes)?)
}

fn has_our_prefix(bytes: &[u8]) -> bool {
    bytes.strip_prefix(PREFIX).is_some_and(|rest| matches!(rest, [b',' | b'}', ..]))
}

/// Reads the version of an object that does not begin as this build writes it.
fn version_of(bytes: &[u8]) -> Result<u64, WireError> {
    #[derive(serde::Deserialize)]
    struct VersionOnly {
        v: Option<u64>,
    }
    if bytes.is_empty() {
        return Ok(UNVERSIONED);
    }
    Ok(serde_json::from_slice::<VersionOnly>(bytes)?.v.unwrap_or(UNVERSIONED))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Empty {}

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Tagged {
        Unit,
        Struct { text: String },
    }

    #[test]
    fn encode_puts_the_version_first() {
        assert_eq!(encode(&Empty {}).unwrap(), format!("{{\"v\":{WIRE_VERSION}}}").into_bytes());
        let tagged = Tagged::Struct { text: "}".into() };
        assert_eq!(encode(&tagged).unwrap(), br#"{"v":3,"kind":"struct","text":"}"}"#);
        assert_eq!(encode(&Tagged::Unit).unwrap(), br#"{"v":3,"kind":"unit"}"#);
    }

    #[test]
    fn encode_refuses_what_is_not_an_object() {
        assert!(matches!(encode(&7), Err(WireError::Invalid(_))));
        assert!(matches!(encode(&"text"), Err(WireError::Invalid(_))));
        assert!(matches!(encode(&[1, 2]), Err(WireError::Invalid(_))));
    }

    #[test]
    fn decode_names_the_version_of_other_builds() {
        let found = |bytes: &[u8]| match decode::<Empty>(bytes) {
            Err(WireError::Version { found }) => found,
            other => panic!("{other:?}"),
        };
        assert_eq!(found(b""), 1);
        assert_eq!(found(b"{}"), 1);
        assert_eq!(found(br#"{"v":1,"stream":"x"}"#), 1);
        assert_eq!(found(br#"{"stream":"x"}"#), 1);
        assert_eq!(found(br#"{"v":2}"#), 2);
        assert_eq!(found(br#"{"v":4}"#), 4);
        assert_eq!(found(br#"{"v":30,"stream":"x"}"#), 30);
    }

    #[test]
    fn decode_accepts_the_version_in_another_place_or_spacing() {
        assert_eq!(decode::<Tagged>(br#" { "kind": "unit", "v": 3 }"#).unwrap(), Tagged::Unit);
    }

    proptest! {
        #[test]
        fn objects_round_trip(text in "\\PC{0,40}") {
            let body = Tagged::Struct { text };
            prop_assert_eq!(decode::<Tagged>(&encode(&body).unwrap()).unwrap(), body);
        }

        #[test]
        fn decode_refuses_garbage(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            if let Ok(read) = decode::<Tagged>(&bytes) {
                prop_assert!(version_of(&bytes).unwrap() == 2, "{:?}", read);
            }
        }
    }
}
