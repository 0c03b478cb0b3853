//! API tokens: their text, their stored record and the rules of a new one.

use std::fmt;

use millrace_wire::ids::{TokenId, UnixMillis};
use millrace_wire::to_hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Identity, Owner, Role, ScopeSet};
use crate::domain::validate::FieldError;
use crate::domain::visible_text::first_hidden;

/// Beginning of every API token, by which people and scanners of leaked secrets recognise one.
pub const TOKEN_PREFIX: &str = "mrt_";

/// Longest name of a token.
pub const MAX_TOKEN_NAME_CHARS: usize = 100;

/// Longest life of a token that expires, ten years: a longer one is meant to never expire.
pub const MAX_TOKEN_LIFE_S: u64 = 10 * 366 * 86_400;

/// Bytes of a token's secret. With 256 random bits no guess hits, so that a plain hash protects the stored form: a slow hash would
/// only protect secrets that people choose.
const SECRET_BYTES: usize = 32;

/// The text of an API token: `mrt_`, its id, `_` and 64 hexadecimal digits. It is shown once, and masked in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(String);

impl TokenText {
    /// Draws the secret of the token `id`. The generator must be cryptographically strong.
    pub fn generate(id: TokenId, rng: &mut impl rand::CryptoRng) -> Self {
        let mut secret = [0_u8; SECRET_BYTES];
        rng.fill_bytes(&mut secret);
        Self(format!("{TOKEN_PREFIX}{id}_{}", to_hex(&secret)))
    }

    /// Returns the text itself, for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the id in the text of a token, if it has the form of one.
    pub fn id_of(text: &str) -> Option<TokenId> {
        let (id, secret) = text.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
        let is_secret =
            secret.len() == 2 * SECRET_BYTES && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_secret { id.parse().ok() } else { None }
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The SHA-256 of a token's whole text, as hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(String);

impl TokenHash {
    /// Returns the hash of a token's text.
    pub fn of(text: &str) -> Self {
        Self(to_hex(&Sha256::digest(text)))
    }

    /// Returns true if `text` is the token; the time it takes does not depend on where they differ.
    pub fn is_of(&self, text: &str) -> bool {
        Self::of(text).0.as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The stored record of an API token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The id; ids sort by creation.
    pub id: TokenId,
    /// The name that tells people what the token is for.
    pub name: String,
    /// The role.
    pub role: Role,
    /// The scopes, none that the role lacks.
    pub scopes: ScopeSet,
    /// The owner that the token acts for.
    pub owner: Option<Owner>,
    /// The hash of the token.
    pub hash: TokenHash,
    /// The time at which the token was made.
    pub created_at: UnixMillis,
    /// The caller that made it.
    pub created_by: String,
    /// The time from which the token is refused; `None` for never.
    pub expires_at: Option<UnixMillis>,
    /// The time at which the token was revoked.
    pub revoked_at: Option<UnixMillis>,
}

/// The reason for which a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// No token has this text.
    #[error("the token is wrong")]
    Wrong,
    /// The token's time is over.
    #[error("the token has expired")]
    Expired,
    /// The token was revoked.
    #[error("the token was revoked")]
    Revoked,
}

impl TokenRecord {
    /// Returns the identity of the holder of `text`, or the reason for which it is not accepted.
    pub fn verify(&self, text: &str, now: UnixMillis) -> Result<Identity, BadToken> {
        if !self.hash.is_of(text) {
            return Err(BadToken::Wrong);
        }
        if self.revoked_at.is_some() {
            return Err(BadToken::Revoked);
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(BadToken::Expired);
        }
        Ok(Identity {
            actor: format!("token:{}", self.id),
            role: self.role,
            // A later version may take scopes from a role.
            scopes: self.scopes.both(self.role.scopes()),
            owner: self.owner.clone(),
        })
    }
}

/// The body of `POST /api/v1/tokens`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The name that tells people what the token is for.
    pub name: String,
    /// The role.
    pub role: Role,
    /// The scopes; without them all of the role.
    pub scopes: Option<ScopeSet>,
    /// The owner that the token acts for; a publisher needs one.
    pub owner: Option<String>,
    /// Seconds until the token expires; without it, it never does.
    pub expires_in_s: Option<u64>,
}

impl NewToken {
    /// Returns the record of the token that `maker` makes now, or an error for every field that breaks a rule. Nobody gives more
    /// than it has: neither a higher role nor a scope that the maker's own token lacks.
    pub fn check(
        &self,
        (id, hash): (TokenId, TokenHash),
        maker: &Identity,
        now: UnixMillis,
    ) -> Result<TokenRecord, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut refuse = |field: &str, message: String| errors.push(FieldError::new(field, message));
        let name = self.name.trim();
        if name.is_empty() || name.chars().count() > MAX_TOKEN_NAME_CHARS || first_hidden(name, &[]).is_some()
        {
            refuse("name", format!("must have 1 to {MAX_TOKEN_NAME_CHARS} visible characters"));
        }
        if self.role > maker.role {
            refuse("role", format!("must not be higher than your own, {}", maker.role));
        }
        let scopes = self.scopes.unwrap_or_else(|| self.role.scopes());
        let beyond_role = scopes.without(self.role.scopes());
        if !beyond_role.is_empty() {
            refuse(
                "scopes",
                format!("must be scopes of the role {}: {} are not", self.role, names(beyond_role)),
            );
        } else if !scopes.without(maker.scopes).is_empty() {
            refuse(
                "scopes",
                format!("must be scopes of your own token: {} are not", names(scopes.without(maker.scopes))),
            );
        } else if scopes.is_empty() {
            refuse("scopes", "must have at least one scope".to_owned());
        }
        let owner = self.owner.as_deref().map(str::parse::<Owner>).transpose();
        match &owner {
            Err(rule) => refuse("owner", rule.to_string()),
            Ok(None) if self.role == Role::Publisher => {
                refuse("owner", "must be given: a publisher owns livestreams".to_owned());
            }
            Ok(_) => {}
        }
        if self.expires_in_s.is_some_and(|life| !(1..=MAX_TOKEN_LIFE_S).contains(&life)) {
            refuse("expires_in_s", format!("must be from 1 to {MAX_TOKEN_LIFE_S} seconds"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(TokenRecord {
            id,
            name: name.to_owned(),
            role: self.role,
            scopes,
            owner: owner.ok().flatten(),
            hash,
            created_at: now,
            created_by: maker.actor.clone(),
            expires_at: self.expires_in_s.map(|life| UnixMillis(now.0.saturating_add(life * 1_000))),
            revoked_at: None,
        })
    }
}

fn names(scopes: ScopeSet) -> String {
    scopes.iter().map(super::Scope::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::access::Scope;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn check(body: serde_json::Value, maker: &Identity) -> Result<TokenRecord, Vec<String>> {
        let body: NewToken = serde_json::from_value(body).unwrap();
        let hash = TokenHash::of("text");
        let checked = body.check((TokenId::from_u128(7), hash), maker, NOW);
        checked.map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn generated_token_has_its_id_and_is_verified_by_its_hash_alone() {
        let id = TokenId::from_u128(7);
        let (token, other) =
            (TokenText::generate(id, &mut rand::rng()), TokenText::generate(id, &mut rand::rng()));
        assert_eq!(TokenText::id_of(token.reveal()), Some(id));
        assert_eq!(token.reveal().len(), 4 + 26 + 1 + 64);
        assert_eq!(format!("{token:?} {:?}", TokenHash::of(token.reveal())), "*** ***");
        for text in ["", "mrt_", "mrt_x_y", &token.reveal()[..80], &token.reveal().replace("mrt_", "mrs_")] {
            assert_eq!(TokenText::id_of(text), None, "{text}");
        }
        let body = json!({"name": "CI", "role": "publisher", "owner": "alice", "expires_in_s": 60});
        let record = check(body, &Identity::bootstrap_admin()).unwrap();
        let record = TokenRecord { hash: TokenHash::of(token.reveal()), ..record };
        let identity = record.verify(token.reveal(), NOW).unwrap();
        assert_eq!((identity.role, identity.owner.unwrap().as_str()), (Role::Publisher, "alice"));
        assert_eq!(record.verify(other.reveal(), NOW), Err(BadToken::Wrong));
        assert_eq!(record.verify(token.reveal(), UnixMillis(NOW.0 + 60_000)), Err(BadToken::Expired));
        let revoked = TokenRecord { revoked_at: Some(NOW), ..record };
        assert_eq!(revoked.verify(token.reveal(), NOW), Err(BadToken::Revoked));
        assert_eq!(revoked.verify(other.reveal(), NOW), Err(BadToken::Wrong));
    }

    #[test]
    fn check_names_every_field_that_breaks_a_rule() {
        let admin = Identity::bootstrap_admin();
        let narrowed =
            Identity { scopes: ScopeSet::of(&[Scope::TokensWrite, Scope::StreamsRead]), ..admin.clone() };
        let operator = Identity { role: Role::Operator, ..admin.clone() };
        for (maker, body, fields) in [
            (&admin, json!({"name": " ", "role": "viewer"}), vec!["name"]),
            (&admin, json!({"name": "a\u{202e}b", "role": "viewer"}), vec!["name"]),
            (&admin, json!({"name": "P", "role": "publisher"}), vec!["owner"]),
            (&admin, json!({"name": "P", "role": "publisher", "owner": " "}), vec!["owner"]),
            (&admin, json!({"name": "V", "role": "viewer", "scopes": ["streams:write"]}), vec!["scopes"]),
            (&admin, json!({"name": "V", "role": "viewer", "scopes": []}), vec!["scopes"]),
            (&admin, json!({"name": "V", "role": "viewer", "expires_in_s": 0}), vec!["expires_in_s"]),
            (&narrowed, json!({"name": "A", "role": "admin"}), vec!["scopes"]),
            (&operator, json!({"name": "A", "role": "admin"}), vec!["role"]),
        ] {
            assert_eq!(
                check(body.clone(), maker),
                Err(fields.into_iter().map(str::to_owned).collect()),
                "{body}"
            );
        }
        let own = json!({"name": "A", "role": "admin", "scopes": ["streams:read"]});
        assert_eq!(check(own, &narrowed).unwrap().scopes, ScopeSet::of(&[Scope::StreamsRead]));
        assert_eq!(check(json!({"name": "A", "role": "admin"}), &admin).unwrap().expires_at, None);
    }
}
