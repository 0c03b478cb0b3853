//! The ingest node from its start to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millrace_bus::SharedBus;
use millrace_link::Link;
use millrace_link::publisher_session::SessionMetrics;
use millrace_node::start_report;
use millrace_runtime::supervisor::Policy;
use millrace_runtime::{ActorId, Connections, Process, Restart, Secret, Supervisor};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::NodeId;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admission::{ConnectionLimiter, ConnectionLimits};
use crate::config::Config;
use crate::context::Context;
use crate::key_check::KeyCheck;
use crate::limits;
use crate::metrics::IngestMetrics;
use crate::session::publish;
use crate::session::source::{PublishEnd, Source};
use crate::source::rtmp::{Certificate, Listener};

/// The longest that sessions of a drained node may take to see their media stored: workers store a segment within
/// two or three seconds.
const SESSIONS_LIMIT: Duration = Duration::from_secs(5);

/// The servers an ingest node works with.
#[derive(Clone)]
pub struct Backends {
    /// Bus for media and repairs, control's requests, jobs and heartbeats.
    pub bus: SharedBus,
    /// The cluster's secret for key hashes as control stores it; `[ingest] stream_key_secret` takes precedence.
    pub key_secret: Option<Secret<Vec<u8>>>,
}

/// Everything an ingest node is started with.
pub type Deps = millrace_node::Deps<Backends>;

/// A running ingest node; its listeners accept publishers until it drains.
pub struct Node {
    context: Arc<Context>,
    rtmp: SocketAddr,
    rtmps: Option<SocketAddr>,
}

/// Starts the node: it accepts publishers when this returns.
pub async fn start(config: Config, deps: Deps) -> Result<Node> {
    let identity = deps.identity("ingest")?;
    let Backends { bus, key_secret: stored } = deps.backends;
    // A node that spends a budget of restarts ends its process; a drain of the node alone does not.
    let process_drain = deps.process.drain.clone();
    let process = Process { drain: process_drain.child(), ..deps.process };
    let Process { metrics, readiness, clock, drain, actors, connections } = process.clone();
    let key_secret = key_secret(&config, stored)?;
    let limiter = ConnectionLimiter::new(ConnectionLimits {
        total: config.max_connections,
        per_address: config.max_connections_per_address,
        pending: config.max_pending,
    });
    let scope = metrics.scope("ingest");
    let key_check = config.key_check().map(KeyCheck::new).transpose()?;
    if let Some(check) = &key_check {
        tracing::info!(service = %check.service(), "keys that are none of the cluster's own are checked at a service outside");
    }
    let context = Arc::new(Context {
        config,
        link: Link::new(bus, &scope),
        key_secret,
        node: identity.node.clone(),
        metrics: IngestMetrics::register(&scope),
        session_metrics: SessionMetrics::register(&scope),
        clock,
        drain,
        cutoff: CancellationToken::new(),
        limiter,
        supervisor: Supervisor::start("ingest", &metrics, &process_drain, &actors)?,
        key_check,
        refusal_reports: Arc::new(Semaphore::new(limits::MAX_REFUSAL_REPORTS)),
    });
    start_report(&context.supervisor, &context.link, &process, identity).await?;
    let rtmp = listen(&context, &connections, context.config.rtmp, None).await?;
    let rtmps = match (context.config.rtmps, &context.config.tls_cert, &context.config.tls_key) {
        (Some(addr), Some(cert), Some(key)) => {
            let certificate = Arc::new(Certificate::load(cert, key)?);
            watch_certificate(&context, &certificate).await?;
            Some(listen(&context, &connections, addr, Some(certificate)).await?)
        }
        _ => None,
    };
    readiness.follow("ingest.bus", context.link.bus().connected(), "not connected to the bus");
    cut_off_when_drained(&context);
    let rtmps_text = rtmps.map(|addr| addr.to_string());
    tracing::info!(node = %context.node, %rtmp, rtmps = rtmps_text, "ingest node accepts publishers");
    Ok(Node { context, rtmp, rtmps })
}

/// Returns the configured secret for key hashes, else the stored one.
fn key_secret(config: &Config, stored: Option<Secret<Vec<u8>>>) -> Result<Secret<Vec<u8>>> {
    let configured = config.stream_key_secret.expose().as_bytes().to_vec();
    let secret = if configured.is_empty() { stored } else { Some(Secret::new(configured)) };
    let secret = secret.context("ingest.stream_key_secret is not set: it must be the one control has")?;
    ensure!(!secret.expose().is_empty(), "the secret for key hashes is empty");
    Ok(secret)
}

/// Binds a listener and starts it as an actor; returns the bound address.
async fn listen(
    context: &Arc<Context>,
    connections: &Connections,
    addr: SocketAddr,
    certificate: Option<Arc<Certificate>>,
) -> Result<SocketAddr> {
    let listener = Arc::new(Listener::bind(addr, certificate, connections)?);
    let (addr, id) = (listener.addr(), ActorId::new("listener", listener.protocol()));
    let task_context = context.clone();
    let accept = move |actor| listener.clone().run(task_context.clone(), actor);
    context.supervisor.spawn(id, restarted_on_failure(), accept).await?;
    Ok(addr)
}

/// Starts the actor that reads the certificate again when it changes.
async fn watch_certificate(context: &Context, certificate: &Arc<Certificate>) -> Result<()> {
    let (id, certificate) = (ActorId::new("certificate", "rtmps"), certificate.clone());
    let watch = move |actor| certificate.clone().watch(actor);
    context.supervisor.spawn(id, restarted_on_failure(), watch).await?;
    Ok(())
}

/// The node needs these actors, and may end them: an orderly end is final.
fn restarted_on_failure() -> Policy {
    Policy { restart: Restart::OnFailure, ..Policy::vital() }
}

/// Ends the publishers that are still there when the configured time after a drain's start is over.
fn cut_off_when_drained(context: &Arc<Context>) {
    let context = context.clone();
    tokio::spawn(async move {
        context.drain.draining().await;
        tokio::time::sleep(context.config.drain_time()).await;
        context.cutoff.cancel();
    });
}

impl Node {
    /// Returns the address that accepts RTMP, with the port the system chose for port 0.
    pub fn rtmp_addr(&self) -> SocketAddr {
        self.rtmp
    }

    /// Returns the address that accepts RTMPS, if it is configured.
    pub fn rtmps_addr(&self) -> Option<SocketAddr> {
        self.rtmps
    }

    /// Returns the identity of this process in the cluster.
    pub fn id(&self) -> &NodeId {
        &self.context.node
    }

    /// Publishes from a source that runs in this process, and returns how the publish ended. The source counts towards the
    /// connection limits of its address.
    pub async fn publish<S: Source>(&self, source: &mut S) -> PublishEnd {
        match self.context.limiter.admit(source.identity().address) {
            Ok(mut permit) => publish(&self.context, source, &mut permit).await,
            Err(limit) => {
                self.context.metrics.turned_away.with(&[limit.as_str()]).inc();
                let end = CloseReason::TooManyConnections.into();
                source.close(&end).await;
                end
            }
        }
    }

    /// Takes no new publishers, leaves running ones the configured time, and returns when all publishers are gone and
    /// their sessions are over, or the time for that has passed.
    pub async fn drain(&self) {
        self.context.drain.start("node is drained");
        let limit = self.context.config.drain_time() + SESSIONS_LIMIT;
        if !self.context.drain.finished(limit).await {
            tracing::warn!(?limit, "sessions are still open at the end of the drain; they are ended now");
        }
        self.context.cutoff.cancel();
        if !self.context.supervisor.stop().await {
            tracing::warn!("tasks are still running at the end of the drain; the process ends without them");
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rtmp, rtmps, .. } = self;
        f.debug_struct("Node").field("rtmp", rtmp).field("rtmps", rtmps).finish_non_exhaustive()
    }
}
