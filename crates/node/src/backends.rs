//! `[bus]`, `[state]` and `[store]`: the servers of a cluster, and the connections of a node to them.

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

/// `[bus]`: the NATS servers and how to authenticate there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// `nats://host:port` or `tls://host:port`, one or more of the cluster.
    urls: Vec<String>,
    /// The user name, with `password`; or a `token`.
    user: Option<String>,
    password: Secret<String>,
    token: Secret<String>,
    /// Refuse servers that do not offer TLS.
    require_tls: bool,
    /// The PEM file of certificates to trust instead of the system's.
    root_ca: Option<PathBuf>,
    /// The number of copies JetStream keeps: 1 for a single server, 3 for a cluster.
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

/// `[state]`: the Redis server and the namespace in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateConfig {
    /// `redis://[user:password@]host:port[/db]`; secret because of the password.
    url: Secret<String>,
    /// The name that all keys of this cluster begin with.
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

/// `[store]`: the S3 service, or one with its API, and the bucket.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// The URL of the service: `http://host:port` or `https://host`.
    endpoint: String,
    bucket: String,
    /// The region that request signatures name; `us-east-1` when empty.
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
    /// The bus that nodes exchange messages over.
    pub bus: SharedBus,
    /// The object store that holds segments and playlists.
    pub store: SharedStore,
    /// The state store that holds records and leases.
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

/// Connects to the bus of `[bus]`; `name` appears in the monitoring of the server.
///
/// # Errors
/// When no server can be reached.
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

/// Connects to the state store of `[state]`.
///
/// # Errors
/// When the server cannot be reached.
pub async fn state(tree: &ConfigTree) -> anyhow::Result<SharedState> {
    let config: StateConfig = tree.section()?;
    let redis = RedisConfig { namespace: config.namespace, ..RedisConfig::new(config.url.expose()) };
    let state = RedisState::connect(&redis).await.context("state: Redis could not be reached")?;
    Ok(Arc::new(state))
}

/// Makes a client of the object store of `[store]`. It sends nothing yet: a node must start while the store is away.
///
/// # Errors
/// When the endpoint or the bucket is not configured.
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
