//! The `[edge]` section of the configuration.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_runtime::{Secret, Section};
use serde::Deserialize;

/// Settings of an edge node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where viewers connect. Port 0: the system chooses.
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; on `listen` itself when absent.
    pub metrics_listen: Option<SocketAddr>,
    /// HTTP worker threads; 0: one for each core.
    pub workers: usize,
    /// Memory for media objects read back from the store, in bytes.
    pub cache_bytes: usize,
    /// Memory one feed may hold for its hot parts and segments, in bytes.
    pub feed_bytes: usize,
    /// Streams followed at once; a stream beyond them answers 503.
    pub max_feeds: usize,
    /// Seconds without a request after which a stream is no longer followed.
    pub feed_idle_s: u64,
    /// Requests waiting for a playlist or a part at once, all streams together.
    pub max_waiters: usize,
    /// Seconds the first playlist request of a starting stream is held.
    pub start_hold_s: u64,
    /// Viewers counted of one address (one /64 for IPv6); 0: any number.
    pub viewers_per_address: u32,
    /// Signs viewer sessions; the same on all edges, or a viewer moved to another edge counts twice until
    /// the first count expires. Drawn at random when empty.
    pub beacon_secret: Secret<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 8000).into(),
            metrics_listen: None,
            workers: 0,
            cache_bytes: 256 << 20,
            feed_bytes: 64 << 20,
            max_feeds: 10_000,
            feed_idle_s: 300,
            max_waiters: 50_000,
            start_hold_s: 5,
            // A campus or a mobile network's gateway.
            viewers_per_address: 1_000,
            beacon_secret: Secret::default(),
        }
    }
}

impl Section for Config {
    const NAME: &'static str = "edge";
    const SECRETS: &'static [&'static str] = &["beacon_secret"];

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.max_feeds == 0 {
            return Err(("max_feeds", "at least one stream must be followed".to_owned()));
        }
        if self.feed_bytes < MIN_FEED_BYTES {
            return Err(("feed_bytes", format!("at least {MIN_FEED_BYTES} bytes: one segment must fit")));
        }
        if self.start_hold_s > MAX_START_HOLD_S {
            return Err((
                "start_hold_s",
                format!("at most {MAX_START_HOLD_S}: players give up after about 10 s"),
            ));
        }
        Ok(())
    }
}

/// A 10 s segment at 20 Mb/s is 25 MB; half of that is the least that makes sense.
const MIN_FEED_BYTES: usize = 4 << 20;
/// hls.js gives a manifest 10 s to its first byte.
const MAX_START_HOLD_S: u64 = 9;

impl Config {
    pub(crate) fn feed_idle(&self) -> Duration {
        Duration::from_secs(self.feed_idle_s)
    }
    pub(crate) fn start_hold(&self) -> Duration {
        Duration::from_secs(self.start_hold_s)
    }
}
