//! Who may do what: roles, scopes, owners, API tokens, the identity of a caller of the API, and the record of what callers did.

mod audit_record;
mod identity;
mod owner;
mod role;
mod scope;
mod token;

pub use self::audit_record::{AuditFilter, AuditRecord};
pub use self::identity::{Access, Denied, Identity};
pub use self::owner::{BadOwner, MAX_OWNER_CHARS, Owner};
pub use self::role::Role;
pub use self::scope::{Scope, ScopeSet};
pub use self::token::{
    BadToken, MAX_TOKEN_LIFE_S, MAX_TOKEN_NAME_CHARS, NewToken, TOKEN_PREFIX, TokenHash, TokenRecord,
    TokenText,
};

/// A text that names no role or no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}: use one of {known}")]
pub struct UnknownName {
    kind: &'static str,
    text: String,
    known: String,
}

impl UnknownName {
    /// Returns the one of `all` whose name `text` is, or this error, which names them all.
    fn find<T: Copy>(
        kind: &'static str,
        all: &[T],
        name: impl Fn(T) -> &'static str,
        text: &str,
    ) -> Result<T, Self> {
        all.iter().copied().find(|one| name(*one) == text).ok_or_else(|| {
            let known = all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ");
            Self { kind, text: text.to_owned(), known }
        })
    }
}
