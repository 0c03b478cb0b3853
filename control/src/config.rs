//! The section `[control]` of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use millrace_node::LadderTemplates;
use millrace_outgoing::Target;
use millrace_runtime::{Secret, Section, TrustedProxies};
use millrace_wire::message::control::LifecycleKind;
use serde::Deserialize;

use crate::domain::validate::MAX_RECONNECT_WINDOW_S;

/// Shortest admin token: a shorter one can be guessed.
pub const MIN_TOKEN_CHARS: usize = 16;

/// Shortest secret of HS256: as long as its hash (RFC 7518 §3.2).
const MIN_JWT_SECRET_BYTES: usize = 32;

/// Longest leeway: clocks that differ by more are to be repaired.
const MAX_LEEWAY_S: u64 = 300;

/// Bounds of the audit log: fewer entries than a busy hour has are of no use, and more are for a log collector.
const AUDIT_ENTRIES: std::ops::RangeInclusive<u64> = 100..=1_000_000;

/// The reconnect window of livestreams whose key a service outside the cluster accepted: with the second in which leases are looked
/// at, such a livestream ends within 10 s after its publisher left in order.
pub(crate) const CHECKED_RECONNECT_WINDOW_S: u32 = 8;

/// The addresses of control and the URLs that its API shows for publishers and viewers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address on which the API and the dashboard listen.
    pub listen: SocketAddr,
    /// The bearer token of the API.
    pub admin_token: Secret<String>,
    /// The condition under which viewers' endpoints answer: the list, the details and the status of livestreams.
    pub viewer_endpoints: ViewerEndpoints,
    /// Requests per second that one token may make of one control; 0 for any number.
    pub requests_per_token: u32,
    /// Requests per second that one address may make of one control; 0 for any number.
    pub requests_per_address: u32,
    /// Wrong tokens per minute that one address may present to one control; 0 for any number.
    pub failed_auth_per_minute: u32,
    /// Entries of the audit log that are kept.
    pub audit_entries: u64,
    /// The secret of the hashes of stream keys: the same here and at every ingest node. Without it, the first control draws
    /// one and stores it in the state store, where ingest nodes find it.
    pub stream_key_secret: Secret<String>,
    /// The URL shown for publishers, e.g. `rtmp://ingest.example.com/live`. Without it: the host of the API request, with
    /// `rtmp_port`.
    pub rtmp_url: Option<String>,
    /// The base of playback URLs, e.g. `https://cdn.example.com`. Without it: the host of the API request, with
    /// `edge_port`.
    pub edge_url: Option<String>,
    /// The RTMP port for URLs made from the host of the API request.
    pub rtmp_port: u16,
    /// The edge port for URLs made from the host of the API request.
    pub edge_port: u16,
    /// The URL of an operator's webhook, which gets the events of all livestreams.
    pub webhook_url: Option<String>,
    /// The secret that signs the deliveries to `webhook_url`.
    pub webhook_secret: Secret<String>,
    /// The types of events that `webhook_url` gets; all if empty.
    pub webhook_events: Vec<String>,
    /// The proxies in front of the API, as addresses or networks: `X-Forwarded-Host` and `X-Forwarded-For` are believed from
    /// them alone. Without any, the API believes neither.
    pub trusted_proxies: TrustedProxies,
    /// The reconnect window in seconds of livestreams whose key a service outside the cluster accepted.
    pub key_check_reconnect_window_s: u32,
    /// The one algorithm of the tokens of an outside issuer; without it they are not accepted.
    pub jwt_algorithm: Option<JwtAlgorithm>,
    /// The secret of tokens signed with HS256.
    pub jwt_secret: Secret<String>,
    /// The URL of the issuer's public keys (JWKS).
    pub jwt_jwks_url: Option<String>,
    /// A file with the issuer's public keys, instead of the URL.
    pub jwt_jwks_file: Option<PathBuf>,
    /// The claim `iss` that tokens must have.
    pub jwt_issuer: Option<String>,
    /// The claim `aud` that tokens must have, or have in its list.
    pub jwt_audience: Option<String>,
    /// The claim that holds the role, or a list with it; dots lead into objects.
    pub jwt_role_claim: String,
    /// Seconds by which the clocks of the issuer and of control may differ.
    pub jwt_leeway_s: u64,
}

/// An algorithm of tokens of an outside issuer (RFC 7518 §3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256 and a shared secret.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA with SHA-256, PKCS #1 v1.5.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// The condition under which viewers' endpoints answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewerEndpoints {
    /// Everybody may ask, without a token.
    #[default]
    Public,
    /// A token with the scope `streams:read` is needed.
    Token,
}

impl JwtAlgorithm {
    /// Returns the name that tokens carry in `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Everything of the configuration that control is started with.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Control's own section.
    pub control: Config,
    /// The templates of ladders, from the section of the transcode nodes.
    pub templates: LadderTemplates,
}

impl From<Config> for Settings {
    fn from(control: Config) -> Self {
        Self { control, templates: LadderTemplates::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 8080).into(),
            admin_token: Secret::default(),
            viewer_endpoints: ViewerEndpoints::default(),
            requests_per_token: 200,
            requests_per_address: 200,
            failed_auth_per_minute: 60,
            audit_entries: 20_000,
            stream_key_secret: Secret::default(),
            rtmp_url: None,
            edge_url: None,
            rtmp_port: 1935,
            edge_port: 8000,
            webhook_url: None,
            webhook_secret: Secret::default(),
            webhook_events: Vec::new(),
            trusted_proxies: TrustedProxies::default(),
            key_check_reconnect_window_s: CHECKED_RECONNECT_WINDOW_S,
            jwt_algorithm: None,
            jwt_secret: Secret::default(),
            jwt_jwks_url: None,
            jwt_jwks_file: None,
            jwt_issuer: None,
            jwt_audience: None,
            jwt_role_claim: "role".to_owned(),
            jwt_leeway_s: 30,
        }
    }
}

impl Config {
    /// Checks that the settings of an outside issuer fit together: one place of keys for its algorithm, and whom its tokens are for.
    fn check_jwt(&self) -> Result<(), (&'static str, String)> {
        let secret_bytes = self.jwt_secret.expose().len();
        let sets = usize::from(self.jwt_jwks_url.is_some()) + usize::from(self.jwt_jwks_file.is_some());
        if self.jwt_leeway_s > MAX_LEEWAY_S {
            return Err(("jwt_leeway_s", format!("must be at most {MAX_LEEWAY_S} seconds")));
        }
        let Some(algorithm) = self.jwt_algorithm else {
            let is_unused = secret_bytes == 0 && sets == 0;
            let rule = "must be set with the keys of an issuer: HS256, RS256, ES256 or EdDSA";
            return if is_unused { Ok(()) } else { Err(("jwt_algorithm", rule.to_owned())) };
        };
        if self.jwt_issuer.as_ref().is_none_or(String::is_empty) {
            return Err(("jwt_issuer", "must be set: tokens of any issuer are nobody's".to_owned()));
        }
        if self.jwt_audience.as_ref().is_none_or(String::is_empty) {
            let rule = "must be set, so that tokens for other services are refused here";
            return Err(("jwt_audience", rule.to_owned()));
        }
        match (algorithm, secret_bytes, sets) {
            (JwtAlgorithm::Hs256, MIN_JWT_SECRET_BYTES.., 0) => Ok(()),
            (JwtAlgorithm::Hs256, ..) => {
                let rule =
                    format!("must have at least {MIN_JWT_SECRET_BYTES} bytes for HS256, without key sets");
                Err(("jwt_secret", rule))
            }
            (_, 0, 1) => Ok(()),
            _ => {
                let rule = "must be set for this algorithm, or jwt_jwks_file, and no jwt_secret";
                Err(("jwt_jwks_url", rule.to_owned()))
            }
        }
    }
}

impl Section for Config {
    const NAME: &'static str = "control";
    const SECRETS: &'static [&'static str] =
        &["admin_token", "stream_key_secret", "webhook_secret", "jwt_secret"];

    fn check(&self) -> Result<(), (&'static str, String)> {
        let token = self.admin_token.expose();
        // An absent token is refused at start: standalone draws one.
        if !token.is_empty() && token.chars().count() < MIN_TOKEN_CHARS {
            return Err(("admin_token", format!("must have at least {MIN_TOKEN_CHARS} characters")));
        }
        if token.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(("admin_token", "must be printable ASCII without spaces".to_owned()));
        }
        self.check_jwt()?;
        if !AUDIT_ENTRIES.contains(&self.audit_entries) {
            let (low, high) = (AUDIT_ENTRIES.start(), AUDIT_ENTRIES.end());
            return Err(("audit_entries", format!("must be from {low} to {high}")));
        }
        if self.key_check_reconnect_window_s > MAX_RECONNECT_WINDOW_S {
            return Err((
                "key_check_reconnect_window_s",
                format!("must be at most {MAX_RECONNECT_WINDOW_S}"),
            ));
        }
        for (key, url, schemes) in [
            ("rtmp_url", &self.rtmp_url, ["rtmp://", "rtmps://"]),
            ("edge_url", &self.edge_url, ["http://", "https://"]),
        ] {
            if url.as_ref().is_some_and(|url| !schemes.iter().any(|scheme| url.starts_with(scheme))) {
                return Err((key, format!("must begin with {} or {}", schemes[0], schemes[1])));
            }
        }
        self.check_webhook()
    }
}

impl Config {
    fn check_webhook(&self) -> Result<(), (&'static str, String)> {
        let Some(url) = &self.webhook_url else { return Ok(()) };
        url.parse::<Target>().map_err(|error| ("webhook_url", error.to_string()))?;
        if self.webhook_secret.expose().chars().count() < MIN_TOKEN_CHARS {
            return Err(("webhook_secret", format!("must have at least {MIN_TOKEN_CHARS} characters")));
        }
        let unknown = |kind: &&String| !LifecycleKind::TYPES.contains(&kind.as_str());
        match self.webhook_events.iter().find(unknown) {
            Some(unknown) => Err(("webhook_events", format!("{unknown:?} is no type of event"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_refuses_settings_of_an_issuer_that_do_not_fit_together() {
        let issuer = || Config {
            jwt_issuer: Some("https://id.example".to_owned()),
            jwt_audience: Some("millrace".to_owned()),
            ..Config::default()
        };
        let secret = || Secret::new("s".repeat(MIN_JWT_SECRET_BYTES));
        let url = || Some("https://id.example/keys".to_owned());
        let hs256 = || Config { jwt_algorithm: Some(JwtAlgorithm::Hs256), jwt_secret: secret(), ..issuer() };
        let es256 = || Config { jwt_algorithm: Some(JwtAlgorithm::Es256), jwt_jwks_url: url(), ..issuer() };
        for (config, key) in [
            (Config::default(), None),
            (hs256(), None),
            (es256(), None),
            (Config { jwt_secret: secret(), ..issuer() }, Some("jwt_algorithm")),
            (Config { jwt_secret: Secret::new("short".to_owned()), ..hs256() }, Some("jwt_secret")),
            (Config { jwt_jwks_url: url(), ..hs256() }, Some("jwt_secret")),
            (Config { jwt_secret: secret(), ..es256() }, Some("jwt_jwks_url")),
            (Config { jwt_jwks_file: Some("keys".into()), ..es256() }, Some("jwt_jwks_url")),
            (Config { jwt_jwks_url: None, ..es256() }, Some("jwt_jwks_url")),
            (Config { jwt_issuer: None, ..es256() }, Some("jwt_issuer")),
            (Config { jwt_audience: None, ..es256() }, Some("jwt_audience")),
            (Config { jwt_leeway_s: 301, ..es256() }, Some("jwt_leeway_s")),
            (Config { audit_entries: 1, ..Config::default() }, Some("audit_entries")),
        ] {
            assert_eq!(config.check().err().map(|(key, _)| key), key, "{config:?}");
        }
    }
}
