//! The identity under which the API is called, and the checks of what it may do.

use std::fmt;

use serde::Serialize;

use super::{Owner, Role, Scope, ScopeSet};

/// The identity of a caller that presented a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name in the audit log and in rate limits: `admin`, `token ID (NAME)` or `jwt SUBJECT`.
    pub actor: String,
    /// The role of the token.
    pub role: Role,
    /// The scopes that the token may use, never more than those of its role.
    pub scopes: ScopeSet,
    /// The owner that a publisher acts for. Operators and admins may have one: livestreams that they create get it.
    pub owner: Option<Owner>,
}

impl Identity {
    /// Returns the identity of the holder of the configured admin token.
    pub fn bootstrap_admin() -> Self {
        Self { actor: "admin".to_owned(), role: Role::Admin, scopes: Role::Admin.scopes(), owner: None }
    }

    /// Returns true if the caller may see and change everything of a livestream that `owner` owns: operators and admins
    /// all of them, publishers their own.
    pub fn owns(&self, owner: Option<&Owner>) -> bool {
        match self.role {
            Role::Admin | Role::Operator => true,
            Role::Publisher => self.owner.is_some() && self.owner.as_ref() == owner,
            Role::Viewer => false,
        }
    }
}

/// The condition under which a route of the API is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody; a token is not looked at.
    Open,
    /// Viewers' endpoints: without a token, unless they are closed by the configuration; then with the scope `streams:read`.
    Viewers,
    /// Any valid token.
    Token,
    /// A token with the scope.
    Needs(Scope),
}

/// The reason for which a valid token may not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denied {
    /// The scope that is missing.
    #[serde(rename = "missing_scope")]
    pub scope: Scope,
    /// The role of the token.
    pub role: Role,
}

impl Access {
    /// Checks that the identity may use a route of this access.
    ///
    /// # Errors
    /// When the scope is missing.
    pub fn check(self, identity: &Identity) -> Result<(), Denied> {
        let scope = match self {
            Self::Open | Self::Token => return Ok(()),
            Self::Viewers => Scope::StreamsRead,
            Self::Needs(scope) => scope,
        };
        if identity.scopes.has(scope) { Ok(()) } else { Err(Denied { scope, role: identity.role }) }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, role } = self;
        if role.scopes().has(*scope) {
            write!(f, "the token is narrowed and lacks the scope {scope}")
        } else {
            write!(
                f,
                "the role {role} lacks the scope {scope}, which takes the role {} or a higher one",
                Role::lowest_with(*scope)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(role: Role, owner: Option<&str>) -> Identity {
        let owner = owner.map(|name| name.parse().unwrap());
        Identity { actor: "test".to_owned(), role, scopes: role.scopes(), owner }
    }

    #[test]
    fn owns_is_true_for_operators_and_for_the_publisher_of_the_same_owner() {
        let alice: Owner = "alice".parse().unwrap();
        for (role, own, of_alice, of_none) in [
            (Role::Admin, None, true, true),
            (Role::Operator, Some("bob"), true, true),
            (Role::Publisher, Some("alice"), true, false),
            (Role::Publisher, Some("bob"), false, false),
            (Role::Publisher, None, false, false),
            (Role::Viewer, Some("alice"), false, false),
        ] {
            let identity = identity(role, own);
            assert_eq!(
                (identity.owns(Some(&alice)), identity.owns(None)),
                (of_alice, of_none),
                "{role} {own:?}"
            );
        }
    }

    #[test]
    fn check_names_the_missing_scope_and_the_role_that_has_it() {
        let publisher = identity(Role::Publisher, Some("alice"));
        assert_eq!(Access::Needs(Scope::StreamsWrite).check(&publisher), Ok(()));
        let denied = Access::Needs(Scope::NodesRead).check(&publisher).unwrap_err();
        let text =
            "the role publisher lacks the scope nodes:read, which takes the role operator or a higher one";
        assert_eq!(denied.to_string(), text);
        let narrowed = Identity { scopes: ScopeSet::of(&[Scope::StreamsRead]), ..publisher };
        let denied = Access::Needs(Scope::StreamsWrite).check(&narrowed).unwrap_err();
        assert_eq!(denied.to_string(), "the token is narrowed and lacks the scope streams:write");
        assert_eq!(Access::Token.check(&Identity { scopes: ScopeSet::NONE, ..narrowed }), Ok(()));
    }
}
