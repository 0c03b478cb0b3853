//! The records of API tokens.

use std::time::Duration;

use millrace_state::{Tx, scan_all};
use millrace_wire::ids::{TokenId, UnixMillis};
use millrace_wire::state_keys;

use super::{Repo, RepoError, Versioned, json, read, retry};
use crate::domain::access::TokenRecord;

/// Tokens at most: more than people and services need. Who needs one for each user brings the tokens of an own issuer.
pub(crate) const MAX_TOKENS: usize = 1_000;

/// A token that expired or was revoked is remembered this long, so that it is refused as that rather than as wrong.
const REMEMBERED: Duration = Duration::from_hours(30 * 24);

impl Repo {
    /// Returns the record of a token.
    pub(crate) async fn token(&self, id: TokenId) -> Result<Option<Versioned<TokenRecord>>, RepoError> {
        self.load(&state_keys::token(id)).await
    }

    /// Returns all tokens in the order of their creation.
    pub(crate) async fn tokens(&self) -> Result<Vec<TokenRecord>, RepoError> {
        let records = scan_all(self.state(), state_keys::TOKENS, MAX_TOKENS).await?;
        records.iter().map(|record| read(&record.key, &record.value)).collect()
    }

    /// Stores a new token. One that expires is forgotten a while after that.
    pub(crate) async fn create_token(&self, token: &TokenRecord) -> Result<(), RepoError> {
        let key = state_keys::token(token.id);
        let tx = Tx::new().check(key.clone(), None);
        let life = token.expires_at.map(|at| Duration::from_millis(at.0.saturating_sub(token.created_at.0)));
        let tx = match life {
            Some(life) => tx.put_ttl(key, json(token), life + REMEMBERED),
            None => tx.put(key, json(token)),
        };
        self.state().commit(tx).await?;
        Ok(())
    }

    /// Revokes a token; returns its record before and after, the same ones if it was revoked already.
    pub(crate) async fn revoke_token(
        &self,
        id: TokenId,
        now: UnixMillis,
    ) -> Result<Option<(TokenRecord, TokenRecord)>, RepoError> {
        retry!({
            let Some(Versioned { value: before, version }) = self.token(id).await? else { return Ok(None) };
            if before.revoked_at.is_some() {
                return Ok(Some((before.clone(), before)));
            }
            let after = TokenRecord { revoked_at: Some(now), ..before.clone() };
            let key = state_keys::token(id);
            let tx = Tx::new().check(key.clone(), Some(version)).put_ttl(key, json(&after), REMEMBERED);
            self.state().commit(tx).await?;
            Ok(Some((before, after)))
        })
    }
}
