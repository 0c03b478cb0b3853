//! The section `[ingest]` of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_outgoing::Target;
use millrace_runtime::{Secret, Section};
use serde::Deserialize;

use crate::key_check::{self, KeyCheckShape, WhenDown};
use crate::limits;
use crate::paths::Paths;

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
    /// RTMP applications that publishers may connect to, each with what its publishers present.
    pub paths: Paths,
    /// Chunk size announced to publishers, bytes.
    pub chunk_bytes: u32,
    /// Seconds between two pings to a publisher; 0 sends none.
    pub ping_interval_s: u32,
    /// Seconds without any byte of a publisher that is pinged, after which it is closed.
    pub ping_timeout_s: u32,
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
    /// Base URL of the service that decides on keys which are none of the cluster's own; without it such keys are refused.
    pub key_check_url: Option<String>,
    /// The form in which the service is asked.
    pub key_check_shape: KeyCheckShape,
    /// Bearer token sent to the service.
    pub key_check_secret: Secret<String>,
    /// Seconds the service has to answer.
    pub key_check_timeout_s: u32,
    /// Seconds for which a key that the service accepted is accepted again without asking.
    pub key_check_cache_s: u32,
    /// The policy while the service is down.
    pub key_check_when_down: WhenDown,
    /// Seconds for which a key counts as accepted lately, for the policy `accept_recent`.
    pub key_check_recent_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rtmp: SocketAddr::from(([0, 0, 0, 0], 1935)),
            rtmps: None,
            tls_cert: None,
            tls_key: None,
            stream_key_secret: Secret::default(),
            paths: Paths::default(),
            chunk_bytes: millrace_rtmp::limits::OUTBOUND_CHUNK_BYTES,
            ping_interval_s: 10,
            ping_timeout_s: 60,
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
            key_check_url: None,
            key_check_shape: KeyCheckShape::default(),
            key_check_secret: Secret::default(),
            key_check_timeout_s: 5,
            key_check_cache_s: 30,
            key_check_when_down: WhenDown::default(),
            key_check_recent_s: 3_600,
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
            ping: Duration::from_secs(u64::from(self.ping_interval_s)),
            ping_timeout: Duration::from_secs(u64::from(self.ping_timeout_s)),
            outbound_chunk: self.chunk_bytes,
            messages_per_second: self.max_message_rate,
            ..millrace_rtmp::Limits::default()
        }
    }

    /// Returns the settings of the key check, if there is one.
    pub(crate) fn key_check(&self) -> Option<key_check::Options> {
        let service = self.key_check_url.as_deref()?.parse().ok()?;
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        Some(key_check::Options {
            service,
            shape: self.key_check_shape,
            secret: self.key_check_secret.clone(),
            time_limit: seconds(self.key_check_timeout_s),
            gate: key_check::GateOptions {
                fresh: seconds(self.key_check_cache_s),
                recent: seconds(self.key_check_recent_s),
                when_down: self.key_check_when_down,
            },
        })
    }

    /// Returns the time that running publishers may go on after a drain began.
    pub(crate) fn drain_time(&self) -> Duration {
        Duration::from_secs(u64::from(self.drain_s))
    }
}

impl Section for Config {
    const NAME: &'static str = "ingest";
    const SECRETS: &'static [&'static str] = &["stream_key_secret", "key_check_secret"];

    fn check(&self) -> Result<(), (&'static str, String)> {
        let refuse = |key, why: &str| Err((key, why.to_owned()));
        if self.rtmps.is_some() && self.tls_cert.is_none() {
            return refuse("tls_cert", "rtmps needs a certificate");
        }
        if self.rtmps.is_some() && self.tls_key.is_none() {
            return refuse("tls_key", "rtmps needs a private key");
        }
        self.paths.check().map_err(|rule| ("paths", rule))?;
        if !(limits::MIN_CHUNK_BYTES..=limits::MAX_CHUNK_BYTES).contains(&self.chunk_bytes) {
            let (least, most) = (limits::MIN_CHUNK_BYTES, limits::MAX_CHUNK_BYTES);
            return Err(("chunk_bytes", format!("must be from {least} to {most}")));
        }
        if self.ping_interval_s > 0 && self.ping_timeout_s <= self.ping_interval_s {
            return refuse("ping_timeout_s", "must be longer than ping_interval_s");
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
            ("key_check_timeout_s", u64::from(self.key_check_timeout_s)),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return refuse(key, "must be at least 1");
        }
        if let Some(Err(error)) = self.key_check_url.as_deref().map(str::parse::<Target>) {
            return refuse("key_check_url", &error.to_string());
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
            ("[ingest.paths]\n'a/b' = 'key'", "ingest.paths"),
            ("[ingest]\npaths = {}", "ingest.paths"),
            ("[ingest.paths]\nlive = 'open'", "ingest.paths"),
            ("[ingest]\nchunk_bytes = 127", "ingest.chunk_bytes"),
            ("[ingest]\nping_timeout_s = 10", "ingest.ping_timeout_s"),
            ("[ingest]\nmax_bitrate = 0", "ingest.max_bitrate"),
            ("[ingest]\nring_bytes = 1", "ingest.ring_bytes"),
            ("[ingest]\nmax_keyframe_interval_s = 2", "ingest.max_keyframe_interval_s"),
            ("[ingest]\nkey_check_url = 'localhost:3000'", "ingest.key_check_url"),
            ("[ingest]\nkey_check_timeout_s = 0", "ingest.key_check_timeout_s"),
            ("[ingest]\nkey_check_shape = 'guess'", "ingest.key_check_shape"),
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
