//! The roles of callers, and the scopes that each of them may have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::UnknownName;
use super::scope::{Scope, ScopeSet};

/// The role of a caller of the API, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads livestreams as viewers see them, also where viewers' endpoints are closed.
    Viewer,
    /// Owns livestreams: creates them, reads and changes its own, and gets their events.
    Publisher,
    /// Runs the platform: all livestreams, nodes, webhooks, events and the audit log.
    Operator,
    /// Everything, tokens included.
    Admin,
}

impl Role {
    /// All roles, from the least to the most.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Publisher, Self::Operator, Self::Admin];

    /// Returns the name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Returns the most that a caller of this role may do.
    pub const fn scopes(self) -> ScopeSet {
        use Scope::{
            AuditRead, EventsRead, NodesRead, StreamsRead, StreamsWrite, WebhooksRead, WebhooksWrite,
        };
        match self {
            Self::Viewer => ScopeSet::of(&[StreamsRead]),
            Self::Publisher => {
                ScopeSet::of(&[StreamsRead, StreamsWrite, EventsRead, WebhooksRead, WebhooksWrite])
            }
            Self::Operator => ScopeSet::of(&[
                StreamsRead,
                StreamsWrite,
                NodesRead,
                EventsRead,
                WebhooksRead,
                WebhooksWrite,
                AuditRead,
            ]),
            Self::Admin => ScopeSet::of(&Scope::ALL),
        }
    }

    /// Returns the lowest role that has the scope.
    pub fn lowest_with(scope: Scope) -> Self {
        Self::ALL.into_iter().find(|role| role.scopes().has(scope)).unwrap_or(Self::Admin)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        UnknownName::find("role", &Self::ALL, Self::as_str, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_every_scope_of_the_roles_below_it() {
        for pair in Role::ALL.windows(2) {
            assert!(pair[0].scopes().without(pair[1].scopes()).is_empty(), "{pair:?}");
            assert!(!pair[1].scopes().without(pair[0].scopes()).is_empty(), "{pair:?}");
        }
        assert_eq!(Role::Admin.scopes(), Scope::ALL.into_iter().collect());
        assert_eq!(Role::lowest_with(Scope::StreamsWrite), Role::Publisher);
        assert_eq!(Role::lowest_with(Scope::TokensWrite), Role::Admin);
        assert!("root".parse::<Role>().unwrap_err().to_string().starts_with("\"root\" is no role"));
    }
}
