//! The reasons for which a token of an outside issuer is not accepted.

/// The reason for which a JWT is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JwtError {
    /// The token breaks a rule.
    #[error("the token of the issuer is not accepted: {0}")]
    Refused(String),
    /// The issuer's keys are not known and cannot be fetched.
    #[error("the keys of the issuer cannot be fetched: {0}")]
    NoKeys(String),
}

impl JwtError {
    pub(super) fn refused(text: &str) -> Self {
        Self::Refused(text.to_owned())
    }
}
