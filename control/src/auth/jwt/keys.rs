//! The keys of the issuer: a shared secret, or a set of public keys (JWKS, RFC 7517) from a URL or a file, which the issuer
//! changes while control runs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use millrace_outgoing::{Client, Destinations, Limits, Request, Target};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::error::JwtError;
use super::signatures::Key;
use crate::config::{Config, JwtAlgorithm};

/// Keys are read again when they are older than this, so that a key that the issuer withdrew is refused after that time.
const MAX_AGE_MS: u64 = 10 * 60 * 1_000;

/// Keys that cannot be read again are used for this long: an issuer that is away stops no operator.
const MAX_STALE_MS: u64 = 24 * 60 * 60 * 1_000;

/// Shortest time between two readings: tokens with made-up key ids must not make control flood the issuer.
const MIN_PAUSE_MS: u64 = 5 * 1_000;

/// Limits of a request to the issuer. Callers wait for it, so it is short.
const LIMITS: Limits =
    Limits { connect: Duration::from_secs(2), total: Duration::from_secs(5), answer_bytes: MAX_SET_BYTES };

/// Largest key set: a key has about 500 bytes.
const MAX_SET_BYTES: usize = 256 * 1024;

/// Most keys of a set that are kept.
const MAX_KEYS: usize = 100;

/// The place of the issuer's keys.
enum Source {
    Url(Client, Target),
    File(PathBuf),
}

/// The keys that tokens are checked with.
pub(super) enum KeySource {
    Secret(Key),
    Set(Box<KeySet>),
}

pub(super) struct KeySet {
    source: Source,
    algorithm: JwtAlgorithm,
    /// The keys as they were read last. The lock is held while they are read again, so that one request reads for all that wait.
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<String, Key>,
    /// The key of a set with one key, for tokens that name none.
    only: Option<Key>,
    read_at_ms: Option<u64>,
    tried_at_ms: Option<u64>,
    /// The failure of the last reading.
    error: Option<String>,
}

impl KeySource {
    pub(super) fn new(config: &Config, algorithm: JwtAlgorithm) -> Result<Self, JwtError> {
        if algorithm == JwtAlgorithm::Hs256 {
            return Ok(Self::Secret(Key::secret(config.jwt_secret.expose().as_bytes())));
        }
        let unusable = |error: String| JwtError::NoKeys(error);
        let source = match (&config.jwt_jwks_url, &config.jwt_jwks_file) {
            (Some(url), _) => {
                // An operator names it, and the issuer is often a private host.
                let client =
                    Client::new(LIMITS, Destinations::Any).map_err(|error| unusable(error.to_string()))?;
                Source::Url(client, url.parse().map_err(|error| unusable(format!("jwt_jwks_url: {error}")))?)
            }
            (None, Some(path)) => Source::File(path.clone()),
            (None, None) => return Err(unusable("neither jwt_jwks_url nor jwt_jwks_file is set".to_owned())),
        };
        Ok(Self::Set(Box::new(KeySet { source, algorithm, keys: Mutex::default() })))
    }

    /// Returns the key that a token names by `kid`. An unknown one makes the keys be read again, once in a while.
    pub(super) async fn get(&self, kid: Option<&str>, now_ms: u64) -> Result<Key, JwtError> {
        match self {
            Self::Secret(key) => Ok(key.clone()),
            Self::Set(set) => set.get(kid, now_ms).await,
        }
    }
}

impl KeySet {
    async fn get(&self, kid: Option<&str>, now_ms: u64) -> Result<Key, JwtError> {
        let mut keys = self.keys.lock().await;
        let age = |at: Option<u64>| at.map(|at| now_ms.saturating_sub(at));
        let is_old = age(keys.read_at_ms).is_none_or(|age| age > MAX_AGE_MS);
        let may_read = age(keys.tried_at_ms).is_none_or(|pause| pause >= MIN_PAUSE_MS);
        if may_read && (is_old || keys.find(kid).is_none()) {
            self.read(&mut keys, now_ms).await;
        }
        let is_usable = age(keys.read_at_ms).is_some_and(|age| age <= MAX_STALE_MS);
        match (is_usable, keys.find(kid), &keys.error) {
            (true, Some(key), _) => Ok(key.clone()),
            (_, _, Some(error)) => Err(JwtError::NoKeys(error.clone())),
            _ if kid.is_none() => {
                Err(JwtError::Refused("it names no key, and the issuer has several".to_owned()))
            }
            _ => Err(JwtError::Refused("the issuer has no such key".to_owned())),
        }
    }

    async fn read(&self, keys: &mut Keys, now_ms: u64) {
        keys.tried_at_ms = Some(now_ms);
        let set = match &self.source {
            Source::Url(client, target) => fetch(client, target.clone()).await,
            Source::File(path) => match tokio::fs::read(path).await {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(format!("{}: {error}", path.display())),
            },
        };
        match set.and_then(|bytes| parse(&bytes, self.algorithm)) {
            Ok(found) => {
                info!(keys = found.len(), "keys of the issuer of tokens read");
                keys.only = if found.len() == 1 { found.first().map(|(_, key)| key.clone()) } else { None };
                keys.by_id = found.into_iter().filter_map(|(id, key)| Some((id?, key))).collect();
                (keys.read_at_ms, keys.error) = (Some(now_ms), None);
            }
            Err(error) => {
                warn!(error, "keys of the issuer of tokens not read; the old ones stay for a while");
                keys.error = Some(error);
            }
        }
    }
}

impl Keys {
    fn find(&self, kid: Option<&str>) -> Option<&Key> {
        match kid {
            Some(kid) => self.by_id.get(kid),
            None => self.only.as_ref(),
        }
    }
}

async fn fetch(client: &Client, target: Target) -> Result<bytes::Bytes, String> {
    let origin = target.origin();
    let answer = client.send(Request::get(target)).await.map_err(|error| error.to_string())?;
    if answer.is_success() { Ok(answer.body) } else { Err(format!("{origin} answered {}", answer.status)) }
}

/// A key of a set, as far as it matters (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Returns the keys of a set that are for signatures of the algorithm, with their ids. Others are no errors: a set may hold keys of
/// several kinds.
fn parse(bytes: &[u8], algorithm: JwtAlgorithm) -> Result<Vec<(Option<String>, Key)>, String> {
    #[derive(Deserialize)]
    struct AnySet {
        keys: Vec<Value>,
    }
    let set: AnySet = serde_json::from_slice(bytes).map_err(|error| format!("not a key set: {error}"))?;
    let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let usable = keys.filter_map(|key| Some((key.kid.clone(), key.for_algorithm(algorithm)?)));
    let found: Vec<_> = usable.take(MAX_KEYS).collect();
    if found.is_empty() { Err(format!("the set has no key for {}", algorithm.as_str())) } else { Ok(found) }
}

impl Jwk {
    /// Returns the key, if it is for signatures of the algorithm.
    fn for_algorithm(&self, algorithm: JwtAlgorithm) -> Option<Key> {
        let is_named = self.alg.as_ref().is_none_or(|alg| alg == algorithm.as_str());
        let is_for_signatures = self.usage.as_ref().is_none_or(|usage| usage == "sig");
        if !is_named || !is_for_signatures {
            return None;
        }
        match (algorithm, self.kty.as_str(), self.crv.as_deref()) {
            (JwtAlgorithm::Rs256, "RSA", _) => {
                Some(Key::Rsa { modulus: decode(self.n.as_deref())?, exponent: decode(self.e.as_deref())? })
            }
            (JwtAlgorithm::Es256, "EC", Some("P-256")) => {
                // SEC 1 §2.3.3: 4 stands for an uncompressed point.
                Some(Key::P256([vec![4], decode(self.x.as_deref())?, decode(self.y.as_deref())?].concat()))
            }
            (JwtAlgorithm::EdDsa, "OKP", Some("Ed25519")) => Some(Key::Ed25519(decode(self.x.as_deref())?)),
            // A secret is configured and never fetched.
            _ => None,
        }
    }
}

fn decode(text: Option<&str>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok()
}
