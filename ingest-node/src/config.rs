//! The section `[ingest]` of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_runtime::{Secret, Section};
use serde::Deserialize;

use crate::limits;

/// Addresses of the listeners and limits of publishers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address that accepts RTMP; port 0 lets the system choose.
    pub rtmp: SocketAddr,
    /// Address that accepts RTMPS; needs `tls_cert` and `tls_key`.
    pub rtmps: Option<SocketAddr>,
    /// PEM file with the certificate chain, leaf first.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key.
    pub tls_key: Option<PathBuf>,
    /// The cluster's secret for key hashes: the same at ingest and control.
    pub stream_key_secret: Secret<String>,
    /// RTMP application that publishers connect to.
    pub app: String,
    /// Open connections of the node, publishing or not.
    pub max_connections: usize,
    /// Open connections from one address (one /64 for IPv6).
    pub max_connections_per_address: usize,
    /// Connections at once that have not begun to publish.
    pub max_pending: usize,
    /// Seconds a publisher has for the RTMP (and TLS) handshake.
    pub handshake_timeout_s: u32,
    /// Seconds a publisher has from the handshake to `publish`, and control has to answer the claim.
    pub publish_timeout_s: u32,
    /// Seconds without media after which a publisher is closed.
    pub idle_timeout_s: u32,
    /// Bits per second a publisher may send, averaged over ten seconds; a stream's own limit may be lower.
    pub max_bitrate: u64,
    /// Messages per second a publisher may send, averaged over ten seconds.
    pub max_message_rate: u32,
    /// Seconds between keyframes beyond which a publisher is closed.
    pub max_keyframe_interval_s: u32,
    /// Bytes of media the replay buffer of one publisher may keep, for repairs and for a worker's successor.
    pub ring_bytes: usize,
    /// Seconds of media the replay buffer keeps after they are stored.
    pub ring_s: u32,
    /// Seconds running publishers may go on after a drain began.
    pub drain_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rtmp: SocketAddr::from(([0, 0, 0, 0], 1935)),
            rtmps: None,
            tls_cert: None,
            tls_key: None,
            stream_key_secret: Secret::default(),
            app: "live".to_owned(),
            max_connections: limits::MAX_CONNECTIONS,
            max_connections_per_address: limits::MAX_CONNECTIONS_PER_ADDRESS,
            max_pending: limits::MAX_PENDING,
            handshake_timeout_s: 5,
            publish_timeout_s: 10,
            idle_timeout_s: 15,
            max_bitrate: limits::MAX_BITRATE,
            max_message_rate: millrace_rtmp::limits::MAX_MESSAGES_PER_SECOND,
            max_keyframe_interval_s: limits::MAX_KEYFRAME_INTERVAL_S,
            ring_bytes: limits::RING_BYTES,
            ring_s: limits::RING_S,
            drain_s: limits::DRAIN_S,
        }
    }
}

impl Config {
    /// Returns the limits of one RTMP connection.
    pub(crate) fn rtmp_limits(&self) -> millrace_rtmp::Limits {
        millrace_rtmp::Limits {
            handshake: Duration::from_secs(u64::from(self.handshake_timeout_s)),
            publish: Duration::from_secs(u64::from(self.publish_timeout_s)),
            idle: Duration::from_secs(u64::from(self.idle_timeout_s)),
            messages_per_second: self.max_message_rate,
            ..millrace_rtmp::Limits::default()
        }
    }

    /// Returns the time that running publishers may go on after a drain began.
    pub(crate) fn drain_time(&self) -> Duration {
        Duration::from_secs(u64::from(self.drain_s))
    }
}

impl Section for Config {
    const NAME: &'static str = "ingest";
    const SECRETS: &'static [&'static str] = &["stream_key_secret"];

    fn check(&self) -> Result<(), (&'static str, String)> {
        let refuse = |key, why: &str| Err((key, why.to_owned()));
        if self.rtmps.is_some() && self.tls_cert.is_none() {
            return refuse("tls_cert", "rtmps needs a certificate");
        }
        if self.rtmps.is_some() && self.tls_key.is_none() {
            return refuse("tls_key", "rtmps needs a private key");
        }
        if self.app.is_empty() || self.app.contains(['/', '?']) {
            return refuse("app", "must be one path element");
        }
        let positive = [
            ("max_connections", self.max_connections as u64),
            ("max_connections_per_address", self.max_connections_per_address as u64),
            ("max_pending", self.max_pending as u64),
            ("handshake_timeout_s", u64::from(self.handshake_timeout_s)),
            ("publish_timeout_s", u64::from(self.publish_timeout_s)),
            ("idle_timeout_s", u64::from(self.idle_timeout_s)),
            ("max_bitrate", self.max_bitrate),
            ("max_message_rate", u64::from(self.max_message_rate)),
            ("ring_s", u64::from(self.ring_s)),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return refuse(key, "must be at least 1");
        }
        if self.ring_bytes < limits::MIN_RING_BYTES {
            return Err(("ring_bytes", format!("must be at least {}", limits::MIN_RING_BYTES)));
        }
        if self.max_keyframe_interval_s < 10 {
            return refuse("max_keyframe_interval_s", "must be at least 10, the longest target duration");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use millrace_runtime::Loader;

    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let loader = Loader::new().text(text, Path::new("m.toml")).map_err(|error| error.to_string())?;
        loader.load().section::<Config>().map_err(|error| error.to_string())
    }

    #[test]
    fn default_config_is_valid() {
        let config = load("").unwrap();
        assert_eq!(config.rtmp.port(), 1935);
        assert_eq!(config.rtmp_limits().handshake, Duration::from_secs(5));
    }

    #[test]
    fn config_error_names_the_key_at_fault() {
        for (text, key) in [
            ("[ingest]\nrtmps = '0.0.0.0:1936'", "ingest.tls_cert"),
            ("[ingest]\nrtmps = '0.0.0.0:1936'\ntls_cert = 'c'", "ingest.tls_key"),
            ("[ingest]\napp = 'a/b'", "ingest.app"),
            ("[ingest]\nmax_bitrate = 0", "ingest.max_bitrate"),
            ("[ingest]\nring_bytes = 1", "ingest.ring_bytes"),
            ("[ingest]\nmax_keyframe_interval_s = 2", "ingest.max_keyframe_interval_s"),
            ("[ingest]\nrtpm = 'x'", "ingest.rtpm"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
    }

    #[test]
    fn config_debug_output_masks_the_secret() {
        let config = load("[ingest]\nstream_key_secret = 'hush'").unwrap();
        assert_eq!(config.stream_key_secret.expose(), "hush");
        assert!(!format!("{config:?}").contains("hush"));
    }
}
