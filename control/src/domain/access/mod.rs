//! Who may do what: roles, scopes, owners, and the identity of a caller of the API.

mod identity;
mod owner;
mod role;
mod scope;

pub use self::identity::{Access, Denied, Identity};
pub use self::owner::{BadOwner, MAX_OWNER_CHARS, Owner};
pub use self::role::Role;
pub use self::scope::{Scope, ScopeSet};

/// A text that names no role or no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}: use one of {known}")]
pub struct UnknownName {
    kind: &'static str,
    text: String,
    known: String,
}
