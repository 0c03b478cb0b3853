//! The scopes of the API: what a caller may do, by kind of resource.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::UnknownName;

/// A permission for one kind of resource. A role has some of them, and a token may have fewer than its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Livestreams, their status and the templates are read.
    StreamsRead,
    /// Livestreams are created, changed, started, stopped and deleted.
    StreamsWrite,
    /// Nodes and their actors are read.
    NodesRead,
    /// The events of livestreams are read.
    EventsRead,
    /// Webhooks and their deliveries are read.
    WebhooksRead,
    /// Webhooks are created, changed, tested and deleted, and their deliveries repeated.
    WebhooksWrite,
    /// The audit log is read.
    AuditRead,
    /// Tokens are listed.
    TokensRead,
    /// Tokens are made and revoked.
    TokensWrite,
}

impl Scope {
    /// All scopes, in the order in which they are listed.
    pub const ALL: [Self; 9] = [
        Self::StreamsRead,
        Self::StreamsWrite,
        Self::NodesRead,
        Self::EventsRead,
        Self::WebhooksRead,
        Self::WebhooksWrite,
        Self::AuditRead,
        Self::TokensRead,
        Self::TokensWrite,
    ];

    /// Returns the name that the API uses, `resource:verb`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StreamsRead => "streams:read",
            Self::StreamsWrite => "streams:write",
            Self::NodesRead => "nodes:read",
            Self::EventsRead => "events:read",
            Self::WebhooksRead => "webhooks:read",
            Self::WebhooksWrite => "webhooks:write",
            Self::AuditRead => "audit:read",
            Self::TokensRead => "tokens:read",
            Self::TokensWrite => "tokens:write",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        UnknownName::find("scope", &Self::ALL, Self::as_str, text)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A set of scopes; a list of their names in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ScopeSet(u16);

impl ScopeSet {
    /// The set without scopes.
    pub const NONE: Self = Self(0);

    /// Returns the set of these scopes.
    pub const fn of(scopes: &[Scope]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < scopes.len() {
            bits |= scopes[at].bit();
            at += 1;
        }
        Self(bits)
    }

    /// Returns true if the scope is in the set.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Returns the scopes that are in both sets.
    #[must_use]
    pub const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the scopes of this set that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns true if no scope is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the scopes in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl Serialize for ScopeSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for ScopeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Scope>::deserialize(deserializer).map(Self::from_iter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_set_holds_each_scope_on_its_own_and_is_a_list_of_names_in_json() {
        for scope in Scope::ALL {
            let set = ScopeSet::of(&[scope]);
            assert_eq!(set.iter().collect::<Vec<_>>(), [scope]);
            assert_eq!(scope.as_str().parse(), Ok(scope));
            assert!(Scope::ALL.into_iter().all(|other| set.has(other) == (other == scope)));
        }
        let all: ScopeSet = Scope::ALL.into_iter().collect();
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<ScopeSet>(&json).unwrap(), all);
        assert_eq!(all.without(ScopeSet::of(&Scope::ALL[1..])).iter().collect::<Vec<_>>(), [Scope::ALL[0]]);
        let error = serde_json::from_str::<ScopeSet>("[\"streams:all\"]").unwrap_err().to_string();
        assert!(error.contains("\"streams:all\" is no scope: use one of streams:read"), "{error}");
    }
}
