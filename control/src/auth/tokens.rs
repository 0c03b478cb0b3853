//! The commands of API tokens. Each leaves one entry in the audit.

use std::sync::Arc;

use millrace_wire::ids::TokenId;
use serde_json::{Value, json};

use crate::audit::{Audit, AuditEntry, AuditOutcome, Caller, Change, Command, Target};
use crate::context::Services;
use crate::domain::access::{NewToken, TokenHash, TokenRecord, TokenText};
use crate::domain::validate::FieldError;
use crate::repo::{MAX_TOKENS, RepoError};

/// The reason for which a command of a token was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// Fields of the request break rules.
    #[error("invalid: {}", FieldError::list(.0))]
    Invalid(Vec<FieldError>),
    /// There are as many tokens as are allowed.
    #[error("there are {MAX_TOKENS} tokens: revoke some, and they are forgotten 30 days later")]
    Full,
    /// The token does not exist, or it is not one of the caller's.
    #[error("there is no such token")]
    NotFound,
    /// The caller presented no token of the API.
    #[error("tokens are made by callers of the API")]
    NoCaller,
    /// The state store failed.
    #[error(transparent)]
    Repo(#[from] RepoError),
}

impl TokenError {
    fn outcome(&self) -> AuditOutcome {
        match self {
            Self::Repo(error) => AuditOutcome::Failed(error.to_string()),
            error => AuditOutcome::Refused(error.to_string()),
        }
    }
}

/// The commands of API tokens.
pub(crate) struct Tokens {
    services: Arc<Services>,
    audit: Arc<dyn Audit>,
}

impl Tokens {
    pub(crate) fn new(services: Arc<Services>, audit: Arc<dyn Audit>) -> Self {
        Self { services, audit }
    }

    /// Makes a token, whose text is returned here and never again.
    pub(crate) async fn create(
        &self,
        caller: &Caller,
        request: &NewToken,
    ) -> Result<(TokenRecord, TokenText), TokenError> {
        let created = self.try_create(caller, request).await;
        let record = created.as_ref().ok().map(|(record, _)| record);
        let change = Change::between(None, record.map(shown));
        self.record(caller, Command::CreateToken, record.map(|it| it.id), created.as_ref().err(), change);
        created
    }

    async fn try_create(
        &self,
        caller: &Caller,
        request: &NewToken,
    ) -> Result<(TokenRecord, TokenText), TokenError> {
        let maker = caller.identity().ok_or(TokenError::NoCaller)?;
        let now = self.services.wall_clock();
        let (id, text) = {
            let mut rng = rand::rng();
            let id = TokenId::generate(now, &mut rng);
            (id, TokenText::generate(id, &mut rng))
        };
        let record = request.check((id, TokenHash::of(text.reveal())), maker, now);
        let record = record.map_err(TokenError::Invalid)?;
        if self.services.repo.tokens().await?.len() >= MAX_TOKENS {
            return Err(TokenError::Full);
        }
        self.services.repo.create_token(&record).await?;
        Ok((record, text))
    }

    /// Revokes a token; every control refuses it from the next request on.
    pub(crate) async fn revoke(&self, caller: &Caller, id: TokenId) -> Result<(), TokenError> {
        let revoked = self.services.repo.revoke_token(id, self.services.wall_clock()).await;
        let revoked = revoked.map_err(TokenError::from).and_then(|found| found.ok_or(TokenError::NotFound));
        let change = revoked.as_ref().ok().map(|(before, after)| (Some(shown(before)), Some(shown(after))));
        let (before, after) = change.unwrap_or_default();
        let change = Change::between(before, after);
        self.record(caller, Command::RevokeToken, Some(id), revoked.as_ref().err(), change);
        revoked.map(drop)
    }

    /// Returns all tokens in the order of their creation.
    pub(crate) async fn list(&self) -> Result<Vec<TokenRecord>, TokenError> {
        Ok(self.services.repo.tokens().await?)
    }

    /// Returns a token.
    pub(crate) async fn get(&self, id: TokenId) -> Result<TokenRecord, TokenError> {
        Ok(self.services.repo.token(id).await?.ok_or(TokenError::NotFound)?.value)
    }

    fn record(
        &self,
        caller: &Caller,
        command: Command,
        token: Option<TokenId>,
        error: Option<&TokenError>,
        change: Change,
    ) {
        let outcome = error.map_or(AuditOutcome::Done, TokenError::outcome);
        let target = token.map(Target::Token);
        self.audit.record(&AuditEntry { caller, command, stream: None, target, outcome: &outcome, change });
    }
}

/// Returns the fields of a token that the audit shows.
fn shown(token: &TokenRecord) -> Value {
    json!({
        "name": token.name,
        "role": token.role,
        "scopes": token.scopes,
        "owner": token.owner,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    })
}
