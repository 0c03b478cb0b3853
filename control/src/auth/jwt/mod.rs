//! Bearer tokens of an outside issuer: JSON Web Tokens (RFC 7519) in their compact form (RFC 7515 §7.1), with a shared secret
//! (HS256) or with the issuer's public keys.
//!
//! The configuration names the one algorithm that is accepted. A token's own `alg` chooses nothing: it is compared with the
//! configured one, so that neither `none` nor a public key used as a secret gets through (RFC 8725 §3.1).

mod claims;
mod error;
mod keys;
mod signatures;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use millrace_wire::ids::UnixMillis;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use self::claims::Rules;
pub(crate) use self::error::JwtError;
use self::keys::KeySource;
use crate::config::{Config, JwtAlgorithm};
use crate::domain::access::Identity;

/// Longest token that is looked at: tokens with many groups have 4 KB.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The checks of an issuer's tokens.
pub(crate) struct Jwt {
    algorithm: JwtAlgorithm,
    rules: Rules,
    keys: KeySource,
}

/// The header of a token, as far as it matters (RFC 7515 §4.1).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<Value>,
}

impl Jwt {
    /// Returns the checks that the configuration asks for; `None` if it names no algorithm.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, JwtError> {
        let Some(algorithm) = config.jwt_algorithm else { return Ok(None) };
        let keys = KeySource::new(config, algorithm)?;
        Ok(Some(Self { algorithm, rules: Rules::new(config), keys }))
    }

    /// Returns true if the text has the form of a JWT: three parts.
    pub(crate) fn has_form(text: &str) -> bool {
        text.len() <= MAX_TOKEN_BYTES && text.split('.').count() == 3
    }

    /// Returns the identity that a token's claims name. `now_ms` is the monotonic clock, `now` the time of day.
    pub(crate) async fn identify(
        &self,
        token: &str,
        now_ms: u64,
        now: UnixMillis,
    ) -> Result<Identity, JwtError> {
        let malformed = || JwtError::refused("it is malformed");
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
        let header: Header = parse(header).ok_or_else(malformed)?;
        if header.alg != self.algorithm.as_str() {
            return Err(JwtError::refused("its algorithm is not the configured one"));
        }
        if header.crit.is_some() {
            return Err(JwtError::refused("it asks for an extension that is not known"));
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed())?;
        let key = self.keys.get(header.kid.as_deref(), now_ms).await?;
        if !key.has_signed(signed.as_bytes(), &signature) {
            return Err(JwtError::refused("its signature is wrong"));
        }
        let claims: Map<String, Value> = parse(payload).ok_or_else(malformed)?;
        self.rules.identity(&claims, now)
    }
}

/// Parses the JSON in a part of a token.
fn parse<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
