//! The settings of a connection to NATS.

use std::path::PathBuf;
use std::time::Duration;

/// The settings of a connection to NATS. `new` gives settings that notice a dead server within 1.5 s and a
/// closed one at once.
#[derive(Clone)]
pub struct NatsConfig {
    /// Servers, as `nats://host:port` or `tls://host:port`.
    pub urls: Vec<String>,
    /// This client's name in the server's monitoring.
    pub name: String,
    /// The user name and password, if the server asks for them.
    pub user: Option<(String, String)>,
    /// Token, instead of a user.
    pub token: Option<String>,
    /// True if only TLS connections are accepted.
    pub require_tls: bool,
    /// Trust these certificates (PEM) instead of the system's.
    pub root_ca: Option<PathBuf>,
    /// Between pings; three without an answer are a dead connection.
    pub ping_interval: Duration,
    /// For one attempt to connect to one address.
    pub connect_timeout: Duration,
    /// The time for which [`crate::NatsBus::connect`] waits for a first server.
    pub start_timeout: Duration,
    /// Messages that may wait in the control connection, each way, each subscription.
    pub control_capacity: usize,
    /// Messages that may wait in the media connection, each way, each subscription.
    pub media_capacity: usize,
    /// First tokens of the subjects that travel on the media connection.
    pub media_tokens: Vec<String>,
    /// Copies JetStream keeps of a work queue: 1 for a single server, 3 for a cluster.
    pub replicas: usize,
}

impl NatsConfig {
    /// Returns the default settings for these servers.
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            name: "millrace".into(),
            user: None,
            token: None,
            require_tls: false,
            root_ca: None,
            ping_interval: Duration::from_millis(500),
            connect_timeout: Duration::from_millis(500),
            start_timeout: Duration::from_secs(10),
            control_capacity: 1024,
            media_capacity: 1024,
            media_tokens: ["media", "live", "repair"].map(String::from).into(),
            replicas: 1,
        }
    }
}

/// A URL without the user and password that may stand in it.
fn without_secret(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}***{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

impl std::fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let urls: Vec<String> = self.urls.iter().map(|url| without_secret(url)).collect();
        f.debug_struct("NatsConfig")
            .field("urls", &urls)
            .field("name", &self.name)
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("require_tls", &self.require_tls)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let mut config = NatsConfig::new(["nats://me:hunter2@host:4222", "host:4222"]);
        config.user = Some(("me".into(), "hunter2".into()));
        config.token = Some("hunter2".into());
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("nats://***@host:4222"), "{shown}");
    }
}
