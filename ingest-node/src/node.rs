//! The node: what it is made of, its start and its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_bus::SharedBus;
use millrace_runtime::supervisor::Policy;
use millrace_runtime::{Clock, Drain, Metrics, Readiness, Secret, Supervisor};
use millrace_wire::ids::NodeId;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::gate::{Gate, GateLimits};
use crate::listener::Listener;
use crate::metrics::IngestMetrics;
use crate::tls;

/// How long the sessions of a drained node may take to see their media stored.
const SESSIONS_LIMIT: Duration = Duration::from_secs(5);

/// What the node stands on.
pub struct Deps {
    /// Bus for media and repairs, control's requests, jobs and heartbeats.
    pub bus: SharedBus,
    /// The cluster's secret for key hashes as control stores it; `[ingest] stream_key_secret` goes over it.
    pub key_secret: Option<Secret<Vec<u8>>>,
    /// This process; generated when `None`.
    pub node: Option<NodeId>,
    /// Where metrics go.
    pub metrics: Metrics,
    /// Where the node says whether it may take publishers.
    pub readiness: Readiness,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Begins when the process is to leave.
    pub drain: Drain,
}

/// Shared by everything in the node.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) bus: SharedBus,
    pub(crate) key_secret: Secret<Vec<u8>>,
    pub(crate) node: NodeId,
    pub(crate) metrics: IngestMetrics,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) drain: Drain,
    /// Cancelled when a drain's time for running publishers is over.
    pub(crate) cutoff: CancellationToken,
    pub(crate) gate: Gate,
    pub(crate) supervisor: Supervisor,
}

impl Shared {
    /// Time since some origin, monotonic.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_millis(self.clock.now_ms())
    }
}

/// A running ingest node.
pub struct Node {
    shared: Arc<Shared>,
    rtmp: SocketAddr,
    rtmps: Option<SocketAddr>,
}

/// Starts the node: it accepts publishers when this returns.
pub async fn start(config: Config, deps: Deps) -> Result<Node> {
    let shared = share(config, deps.key_secret, |config, key_secret| {
        let metrics = IngestMetrics::register(&deps.metrics);
        let supervisor = Supervisor::start("ingest", &deps.metrics, &deps.drain)?;
        let node = match deps.node {
            Some(node) => node,
            None => NodeId::generate("ingest", &mut rand::rng())?,
        };
        let gate = Gate::new(GateLimits {
            total: config.max_connections,
            per_address: config.max_connections_per_address,
            pending: config.max_pending,
        });
        Ok(Shared {
            config,
            bus: deps.bus,
            key_secret,
            node,
            metrics,
            clock: deps.clock,
            drain: deps.drain.child(),
            cutoff: CancellationToken::new(),
            gate,
            supervisor,
        })
    })?;
    let rtmp = listen(&shared, shared.config.rtmp, None).await?;
    let rtmps = match (shared.config.rtmps, &shared.config.tls_cert, &shared.config.tls_key) {
        (Some(addr), Some(cert), Some(key)) => {
            Some(listen(&shared, addr, Some(tls::acceptor(cert, key)?)).await?)
        }
        _ => None,
    };
    deps.readiness.follow("ingest.bus", shared.bus.connected(), "not connected to the bus");
    cut_off_when_drained(&shared);
    let rtmps_text = rtmps.map(|addr| addr.to_string());
    tracing::info!(node = %shared.node, %rtmp, rtmps = rtmps_text, "ingest node accepts publishers");
    Ok(Node { shared, rtmp, rtmps })
}

fn share(
    config: Config,
    stored: Option<Secret<Vec<u8>>>,
    make: impl FnOnce(Config, Secret<Vec<u8>>) -> Result<Shared>,
) -> Result<Arc<Shared>> {
    let configured = config.stream_key_secret.expose().as_bytes().to_vec();
    let secret = if configured.is_empty() { stored } else { Some(Secret::new(configured)) };
    let secret = secret.context("ingest.stream_key_secret is not set: it must be the one control has")?;
    ensure!(!secret.expose().is_empty(), "the secret for key hashes is empty");
    make(config, secret).map(Arc::new)
}

async fn listen(
    shared: &Arc<Shared>,
    addr: SocketAddr,
    tls: Option<tokio_rustls::TlsAcceptor>,
) -> Result<SocketAddr> {
    let kind = if tls.is_some() { "rtmps_listener" } else { "rtmp_listener" };
    let listener = Arc::new(Listener::bind(addr, tls)?);
    let addr = listener.addr();
    let (policy, shared_by_task) = (Policy::vital(), shared.clone());
    let policy = Policy { restart: millrace_runtime::Restart::OnFailure, ..policy };
    shared
        .supervisor
        .spawn(kind, policy, move |stop| listener.clone().run(shared_by_task.clone(), stop))
        .await?;
    Ok(addr)
}

fn cut_off_when_drained(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        shared.drain.draining().await;
        tokio::time::sleep(Duration::from_secs(u64::from(shared.config.drain_s))).await;
        shared.cutoff.cancel();
    });
}

impl Node {
    /// Where RTMP is accepted.
    pub fn rtmp_addr(&self) -> SocketAddr {
        self.rtmp
    }

    /// Where RTMPS is accepted.
    pub fn rtmps_addr(&self) -> Option<SocketAddr> {
        self.rtmps
    }

    /// The name this process goes by in the cluster.
    pub fn id(&self) -> &NodeId {
        &self.shared.node
    }

    /// Takes no new publishers, lets running ones go on for the configured time, and returns when all are gone and
    /// their sessions are over (or have had their time).
    pub async fn drain(&self) {
        self.shared.drain.start("node is drained");
        let publishers = Duration::from_secs(u64::from(self.shared.config.drain_s));
        if !self.shared.drain.finished(publishers + SESSIONS_LIMIT).await {
            tracing::warn!("sessions were still open at the end of the drain");
        }
        self.shared.cutoff.cancel();
        if !self.shared.supervisor.stop().await {
            tracing::warn!("tasks were still running at the end of the drain");
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rtmp, rtmps, .. } = self;
        f.debug_struct("Node").field("rtmp", rtmp).field("rtmps", rtmps).finish_non_exhaustive()
    }
}
