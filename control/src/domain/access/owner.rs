//! The owner of livestreams.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::domain::visible_text::first_hidden;

/// Longest name of an owner: the subject of a token of an outside issuer is at most this long (OpenID Connect Core §2, `sub`).
pub const MAX_OWNER_CHARS: usize = 255;

/// The owner of livestreams: a name that a token carries, or the subject (`sub`) of a token of an outside issuer. Names are
/// compared as they are written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner(String);

/// A text that cannot name an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {MAX_OWNER_CHARS} visible characters, and no space at its ends")]
pub struct BadOwner;

impl Owner {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Owner {
    type Error = BadOwner;

    fn try_from(name: String) -> Result<Self, BadOwner> {
        let is_sized = !name.is_empty() && name.chars().count() <= MAX_OWNER_CHARS;
        if is_sized && name.trim() == name && first_hidden(&name, &[]).is_none() {
            Ok(Self(name))
        } else {
            Err(BadOwner)
        }
    }
}

impl FromStr for Owner {
    type Err = BadOwner;

    fn from_str(text: &str) -> Result<Self, BadOwner> {
        text.to_owned().try_into()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_a_visible_name_of_limited_length() {
        for name in ["alice", "auth0|5f7c8ec7c33c6c004bbafe82", "Ann Other", "日本", &"x".repeat(255)] {
            assert_eq!(name.parse::<Owner>().unwrap().as_str(), name);
        }
        for name in ["", " ", " alice", "alice ", "a\nb", "a\u{202e}b", "a\0", &"x".repeat(256)] {
            assert_eq!(name.parse::<Owner>(), Err(BadOwner), "{name:?}");
        }
    }
}
