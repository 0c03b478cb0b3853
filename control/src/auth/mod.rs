//! Authentication of callers: the configured admin token, API tokens of the state store and their commands, tokens of an outside
//! issuer; limits of requests.

mod jwt;
mod limits;
mod tokens;

use std::sync::Arc;

use millrace_runtime::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub(crate) use self::jwt::{Jwt, JwtError};
pub(crate) use self::limits::{RateLimits, TooMany};
pub(crate) use self::tokens::{TokenError, Tokens};
use crate::config::{Config, ViewerEndpoints};
use crate::context::Services;
use crate::domain::access::{BadToken, Identity, TokenText};
use crate::repo::RepoError;

/// The reason for which a caller is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// The token is not accepted.
    #[error(transparent)]
    Token(#[from] BadToken),
    /// The token of the outside issuer is not accepted, or its keys cannot be fetched.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// The state store did not answer, so that the token could not be looked up.
    #[error(transparent)]
    Repo(#[from] RepoError),
}

/// The checks of tokens, as the configuration wants them.
pub(crate) struct Authenticator {
    admin: AdminToken,
    jwt: Option<Jwt>,
    services: Arc<Services>,
    pub(crate) limits: RateLimits,
    /// True if viewers' endpoints answer without a token.
    pub(crate) viewers_are_public: bool,
}

impl Authenticator {
    /// Creates the checks.
    ///
    /// # Errors
    /// When the keys of the configured issuer have no usable place.
    pub(crate) fn new(config: &Config, services: Arc<Services>) -> Result<Self, JwtError> {
        Ok(Self {
            admin: AdminToken::new(&config.admin_token),
            jwt: Jwt::new(config)?,
            limits: RateLimits::new(config, services.clock.clone()),
            viewers_are_public: config.viewer_endpoints == ViewerEndpoints::Public,
            services,
        })
    }

    /// Returns the services the checks work with.
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// Returns the identity of the holder of a bearer token. An API token is read from the state store each time, so that every
    /// control refuses a revoked one at once.
    pub(crate) async fn identify(&self, bearer: &str) -> Result<Identity, AuthError> {
        if self.admin.matches(bearer) {
            return Ok(Identity::bootstrap_admin());
        }
        if let Some(jwt) = self.jwt.as_ref().filter(|_| Jwt::has_form(bearer)) {
            return Ok(jwt
                .identify(bearer, self.services.clock.now_ms(), self.services.wall_clock())
                .await?);
        }
        let Some(id) = TokenText::id_of(bearer) else { return Err(BadToken::Wrong.into()) };
        let Some(found) = self.services.repo.token(id).await? else { return Err(BadToken::Wrong.into()) };
        Ok(found.value.verify(bearer, self.services.wall_clock())?)
    }
}

/// The digest of the configured admin token. Digests have equal lengths, so comparing them takes the same time for any guess.
struct AdminToken([u8; 32]);

impl AdminToken {
    fn new(token: &Secret<String>) -> Self {
        Self(Sha256::digest(token.expose()).into())
    }

    fn matches(&self, given: &str) -> bool {
        Sha256::digest(given).as_slice().ct_eq(&self.0).into()
    }
}
