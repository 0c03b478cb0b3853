//! `[bus]`, `[state]` and `[store]`: a cluster's servers, and how a node reaches them.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use millrace_bus::{NatsBus, NatsConfig, SharedBus};
use millrace_runtime::{ConfigTree, Secret, Section};
use millrace_state::{RedisConfig, RedisState, SharedState};
#[cfg(feature = "store")]
use millrace_store::{S3Config, S3Store, SharedStore};
use serde::Deserialize;
use tracing::info;

/// `[bus]`: NATS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// `nats://host:port` or `tls://host:port`, one or more of the cluster.
    urls: Vec<String>,
    /// User and password, or a token.
    user: Option<String>,
    password: Secret<String>,
    token: Secret<String>,
    /// Only TLS connections.
    require_tls: bool,
    /// PEM file of certificates to trust instead of the system's.
    root_ca: Option<PathBuf>,
    /// Copies JetStream keeps: 1 for a single server, 3 for a cluster.
    replicas: usize,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".to_owned()],
            user: None,
            password: Secret::default(),
            token: Secret::default(),
            require_tls: false,
            root_ca: None,
            replicas: 1,
        }
    }
}

impl Section for BusConfig {
    const NAME: &'static str = "bus";
    const SECRETS: &'static [&'static str] = &["password", "token"];

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.urls.is_empty() {
            return Err(("urls", "must name at least one server".to_owned()));
        }
        if ![1, 3, 5].contains(&self.replicas) {
            return Err(("replicas", "must be 1, 3 or 5".to_owned()));
        }
        if self.user.is_some() && !self.token.expose().is_empty() {
            return Err(("token", "user is given too: give one of them".to_owned()));
        }
        Ok(())
    }
}

/// `[state]`: Redis.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateConfig {
    /// `redis://[user:password@]host:port[/db]`; secret because of the password.
    url: Secret<String>,
    /// Name under which everything is kept.
    namespace: String,
}

impl Default for StateConfig {
    fn default() -> Self {
        let url = "redis://127.0.0.1:6379".to_owned();
        Self { url: Secret::new(url), namespace: "millrace".to_owned() }
    }
}

impl Section for StateConfig {
    const NAME: &'static str = "state";
    const SECRETS: &'static [&'static str] = &["url"];

    fn check(&self) -> Result<(), (&'static str, String)> {
        let url = self.url.expose();
        if !["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(("url", "must begin with redis:// or rediss://".to_owned()));
        }
        Ok(())
    }
}

/// `[store]`: S3 or what speaks like it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `http://host:port` or `https://host`.
    endpoint: String,
    bucket: String,
    /// The region that signatures name; `us-east-1` when empty.
    region: String,
    access_key: Secret<String>,
    secret_key: Secret<String>,
}

impl Section for StoreConfig {
    const NAME: &'static str = "store";
    const SECRETS: &'static [&'static str] = &["access_key", "secret_key"];

    fn check(&self) -> Result<(), (&'static str, String)> {
        if !self.endpoint.is_empty() && !self.endpoint.starts_with("http") {
            return Err(("endpoint", "must begin with http:// or https://".to_owned()));
        }
        Ok(())
    }
}

/// The servers of a node that keeps state and objects. Cheap to clone.
#[cfg(feature = "store")]
#[derive(Clone)]
pub struct Backends {
    /// The bus.
    pub bus: SharedBus,
    /// The object store.
    pub store: SharedStore,
    /// The state store.
    pub state: SharedState,
}

#[cfg(feature = "store")]
impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backends").finish_non_exhaustive()
    }
}

#[cfg(feature = "store")]
impl crate::Connect for Backends {
    async fn connect(tree: &ConfigTree, role: &str) -> anyhow::Result<Self> {
        Ok(Self { bus: bus(tree, role).await?, store: store(tree)?, state: state(tree).await? })
    }
}

/// Connects a node's bus, as `[bus]` says; `name` shows in the server's monitoring.
pub async fn bus(tree: &ConfigTree, name: &str) -> anyhow::Result<SharedBus> {
    let config: BusConfig = tree.section()?;
    let token = config.token.expose().clone();
    let password = config.password.expose().clone();
    let nats = NatsConfig {
        name: format!("millrace-{name}"),
        user: config.user.map(|user| (user, password)),
        token: (!token.is_empty()).then_some(token),
        require_tls: config.require_tls,
        root_ca: config.root_ca,
        replicas: config.replicas,
        ..NatsConfig::new(config.urls)
    };
    let bus = NatsBus::connect(nats).await.context("bus: no NATS server could be reached")?;
    info!(version = bus.server_version(), "connected to NATS");
    Ok(Arc::new(bus))
}

/// Connects the state store, as `[state]` says.
pub async fn state(tree: &ConfigTree) -> anyhow::Result<SharedState> {
    let config: StateConfig = tree.section()?;
    let redis = RedisConfig { namespace: config.namespace, ..RedisConfig::new(config.url.expose()) };
    let state = RedisState::connect(&redis).await.context("state: Redis could not be reached")?;
    Ok(Arc::new(state))
}

/// A client of the object store, as `[store]` says. Nothing is sent: a node must start while the store is away.
#[cfg(feature = "store")]
pub fn store(tree: &ConfigTree) -> anyhow::Result<SharedStore> {
    let config: StoreConfig = tree.section()?;
    anyhow::ensure!(!config.endpoint.is_empty(), "store.endpoint is missing: the URL of the object store");
    anyhow::ensure!(!config.bucket.is_empty(), "store.bucket is missing");
    let (access, secret) = (config.access_key.expose(), config.secret_key.expose());
    let mut s3 = S3Config::new(config.endpoint, config.bucket, access, secret);
    if !config.region.is_empty() {
        s3.region = config.region;
    }
    Ok(Arc::new(S3Store::new(&s3)))
}
