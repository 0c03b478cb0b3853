//! `[control]` of the configuration.

use std::net::SocketAddr;

use millrace_runtime::{Secret, Section};
use serde::Deserialize;

/// A token shorter than this can be guessed.
pub const MIN_TOKEN_CHARS: usize = 16;

/// How control is reached and what it tells publishers and viewers to connect to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the API and the dashboard listen.
    pub listen: SocketAddr,
    /// Bearer token of the API.
    pub admin_token: Secret<String>,
    /// Secret for the hashes of stream keys: the same here and at every ingest node. Without it, the first
    /// control makes one and keeps it in the state store, where ingest nodes find it.
    pub stream_key_secret: Secret<String>,
    /// What publishers are told, e.g. `rtmp://ingest.example.com/live`. Without it: the host the API was
    /// asked at, with `rtmp_port`.
    pub rtmp_url: Option<String>,
    /// Base of playback URLs, e.g. `https://cdn.example.com`. Without it: the host the API was asked at,
    /// with `edge_port`.
    pub edge_url: Option<String>,
    /// RTMP port for URLs made from the API's host.
    pub rtmp_port: u16,
    /// Edge port for URLs made from the API's host.
    pub edge_port: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 8080).into(),
            admin_token: Secret::default(),
            stream_key_secret: Secret::default(),
            rtmp_url: None,
            edge_url: None,
            rtmp_port: 1935,
            edge_port: 8000,
        }
    }
}

impl Section for Config {
    const NAME: &'static str = "control";
    const SECRETS: &'static [&'static str] = &["admin_token", "stream_key_secret"];

    fn check(&self) -> Result<(), (&'static str, String)> {
        let token = self.admin_token.expose();
        // An absent token is checked at start: standalone makes one.
        if !token.is_empty() && token.chars().count() < MIN_TOKEN_CHARS {
            return Err(("admin_token", format!("must have at least {MIN_TOKEN_CHARS} characters")));
        }
        if token.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(("admin_token", "must be printable ASCII without spaces".to_owned()));
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
