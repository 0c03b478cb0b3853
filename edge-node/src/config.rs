//! The `[edge]` section of the configuration.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_runtime::{ForwardedHeader, Secret, Section, TrustedProxies, text_list};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// Settings of an edge node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address at which viewers connect; with port 0 the system chooses the port.
    pub listen: SocketAddr,
    /// The address of `/metrics`, `/healthz` and `/readyz`; without it they are served on `listen` too.
    pub metrics_listen: Option<SocketAddr>,
    /// HTTP worker threads; 0 stands for one per core.
    pub workers: usize,
    /// The bound of media objects read back from the object store, in bytes.
    pub cache_bytes: usize,
    /// The bound of media that has left the cache and that unfinished answers still hold, in bytes. Beyond it the connections
    /// of the oldest such answers are closed.
    pub held_bytes: usize,
    /// The bound of the parts and segments that one feed holds, in bytes.
    pub feed_bytes: usize,
    /// Streams open at once; a request for another one is answered with 503.
    pub max_feeds: usize,
    /// Seconds without a request after which a stream is closed.
    pub feed_idle_s: u64,
    /// Requests that may wait at once for a playlist or a part, over all streams; as many heartbeats may wait beside them.
    pub max_waiters: usize,
    /// Seconds for which a playlist request is held while its stream is starting or lags behind its log.
    pub start_hold_s: u64,
    /// Open connections from one address (one /64 for IPv6); 0 stands for any number.
    pub max_connections_per_address: usize,
    /// Viewers that are counted for one address (one /64 for IPv6); 0 stands for any number.
    pub viewers_per_address: u32,
    /// The origins of pages whose scripts may read playlists and media.
    pub allow_origin: AllowOrigin,
    /// True to count players that announce nothing, by their requests. Behind a CDN that answers for the edge they are few of
    /// many, and heartbeats and CMCD alone may tell more.
    pub count_requests: bool,
    /// The proxies and CDNs whose header names the viewer's address. Without them all viewers behind a proxy share its address.
    pub trusted_proxies: TrustedProxies,
    /// The header in which these proxies name it. The other one is the viewer's own word.
    pub forwarded_header: ForwardedHeader,
    /// The secret that signs viewer sessions. It is the same on all edges, or a viewer who moves to another edge counts twice
    /// until the first count expires. An empty one is replaced by a random one at start.
    pub beacon_secret: Secret<String>,
    /// True to take a stream key in place of the playback id in the URL of the multivariant playlist.
    pub key_alias: bool,
    /// The secret of the hashes of stream keys, for `key_alias`: the same at every node.
    pub stream_key_secret: Secret<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 8000).into(),
            metrics_listen: None,
            workers: 0,
            cache_bytes: 256 << 20,
            // A hundred segments of 2 s at 2.5 Mb/s: objects leave the cache while an answer sends them when its client is slow.
            held_bytes: 64 << 20,
            feed_bytes: 64 << 20,
            max_feeds: 10_000,
            feed_idle_s: 300,
            max_waiters: 50_000,
            start_hold_s: 5,
            // Two connections of each of those viewers.
            max_connections_per_address: 2_000,
            // The viewers behind the gateway of a campus or a mobile network.
            viewers_per_address: 1_000,
            allow_origin: AllowOrigin::default(),
            count_requests: true,
            trusted_proxies: TrustedProxies::default(),
            forwarded_header: ForwardedHeader::default(),
            beacon_secret: Secret::default(),
            key_alias: false,
            stream_key_secret: Secret::default(),
        }
    }
}

impl Section for Config {
    const NAME: &'static str = "edge";
    const SECRETS: &'static [&'static str] = &["beacon_secret", "stream_key_secret"];

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

/// The origins of pages whose scripts may read answers (CORS).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowOrigin(Vec<String>);

impl AllowOrigin {
    /// Returns true if scripts of any origin may.
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if scripts of `origin` may.
    pub fn allows(&self, origin: &str) -> bool {
        self.is_any() || self.0.iter().any(|allowed| allowed == origin)
    }
}

/// Reads `*`, one origin, several separated by commas as environment variables give them, or a list of origins.
impl<'de> Deserialize<'de> for AllowOrigin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let origins = text_list(deserializer)?;
        if origins.iter().any(|origin| origin == "*") {
            return Ok(Self::default());
        }
        // A list that allows none would read as one that allows any.
        if origins.is_empty() {
            return Err(D::Error::custom("name an origin, or * for any"));
        }
        // Browsers send scheme, host and a port that is not the scheme's own, in lower case (RFC 6454 §6.2).
        let is_origin = |text: &str| {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            host.is_some_and(|host| {
                !host.is_empty() && !host.contains('/') && host == host.to_ascii_lowercase()
            })
        };
        match origins.iter().find(|origin| !is_origin(origin)) {
            Some(bad) => Err(D::Error::custom(format!("{bad:?} is no origin such as https://site.example"))),
            None => Ok(Self(origins)),
        }
    }
}

/// The least bound of a feed: a 10 s segment at 3 Mb/s.
const MIN_FEED_BYTES: usize = 4 << 20;
/// The longest hold: hls.js waits 10 s for the first byte of a playlist.
const MAX_START_HOLD_S: u64 = 9;

impl Config {
    pub(crate) fn feed_idle(&self) -> Duration {
        Duration::from_secs(self.feed_idle_s)
    }

    pub(crate) fn start_hold(&self) -> Duration {
        Duration::from_secs(self.start_hold_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_origin_reads_any_one_or_several_and_refuses_what_no_browser_sends() {
        let read = |json: &str| serde_json::from_str::<AllowOrigin>(json);
        assert!(read("\"*\"").unwrap().is_any() && read("[\"*\"]").unwrap().is_any());
        let two = read("\"https://a.example, http://b.example:8080\"").unwrap();
        assert_eq!(two, read("[\"https://a.example\", \"http://b.example:8080\"]").unwrap());
        assert!(two.allows("http://b.example:8080") && !two.allows("http://b.example") && !two.is_any());
        for bad in ["\"\"", "[]", "\"a.example\"", "\"https://a.example/\"", "\"https://A.example\"", "7"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
