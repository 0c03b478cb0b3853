//! The section `[control]` of the configuration.

use std::net::SocketAddr;

use millrace_node::LadderTemplates;
use millrace_runtime::{Secret, Section, TrustedProxies};
use serde::Deserialize;

/// Shortest admin token: a shorter one can be guessed.
pub const MIN_TOKEN_CHARS: usize = 16;

/// Bounds of the audit log: fewer entries than a busy hour has are of no use, and more are for a log collector.
const AUDIT_ENTRIES: std::ops::RangeInclusive<u64> = 100..=1_000_000;

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
    /// The proxies in front of the API, as addresses or networks: `X-Forwarded-Host` and `X-Forwarded-For` are believed from
    /// them alone. Without any, the API believes neither.
    pub trusted_proxies: TrustedProxies,
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
            trusted_proxies: TrustedProxies::default(),
        }
    }
}

impl Section for Config {
    const NAME: &'static str = "control";
    const SECRETS: &'static [&'static str] = &["admin_token", "stream_key_secret"];

    fn check(&self) -> Result<(), (&'static str, String)> {
        let token = self.admin_token.expose();
        // An absent token is refused at start: standalone draws one.
        if !token.is_empty() && token.chars().count() < MIN_TOKEN_CHARS {
            return Err(("admin_token", format!("must have at least {MIN_TOKEN_CHARS} characters")));
        }
        if token.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(("admin_token", "must be printable ASCII without spaces".to_owned()));
        }
        if !AUDIT_ENTRIES.contains(&self.audit_entries) {
            let (low, high) = (AUDIT_ENTRIES.start(), AUDIT_ENTRIES.end());
            return Err(("audit_entries", format!("must be from {low} to {high}")));
        }
        for (key, url, schemes) in [
            ("rtmp_url", &self.rtmp_url, ["rtmp://", "rtmps://"]),
            ("edge_url", &self.edge_url, ["http://", "https://"]),
        ] {
            if url.as_ref().is_some_and(|url| !schemes.iter().any(|scheme| url.starts_with(scheme))) {
                return Err((key, format!("must begin with {} or {}", schemes[0], schemes[1])));
            }
        }
        Ok(())
    }
}
