//! Starting and stopping an edge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use millrace_link::Link;
use millrace_node::{Backends, key_secret, start_report};
use millrace_runtime::http::{self as observe, HttpHandle};
use millrace_runtime::{ActorId, Clock, Policy, PortOptions, Supervisor};
use millrace_state::SharedState;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::aliases::Aliases;
use crate::audience::counting::Counting;
use crate::audience::signer::Signer;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::context::Deps;
use crate::http;
use crate::http::app::{App, Limits};
use crate::live::feed::FeedContext;
use crate::live::feeds::Feeds;
use crate::live::registry::Registry;
use crate::metrics::EdgeMetrics;
use crate::objects::answers::Answers;
use crate::objects::cache::ObjectCache;
use crate::objects::fetch::Fetcher;
use crate::objects::fresh::FreshObjects;

/// The weight of the viewers' share of the process's descriptors; each RTMP port has as much, the API a quarter of it.
const PORT_WEIGHT: usize = 4;

/// The time a request for a hinted part is held. The part follows within the duration of a part, which is 200 ms by default and
/// 1 s at most.
const PART_HOLD: Duration = Duration::from_secs(1);

/// An edge node that serves viewers.
#[derive(Debug)]
pub struct Node {
    http: HttpHandle,
    operations: Option<HttpHandle>,
    supervisor: Supervisor,
    catalog: Arc<Catalog>,
    registry: Arc<Registry>,
    cache: Arc<ObjectCache>,
    answers: Arc<Answers>,
    stop: CancellationToken,
}

impl Node {
    /// Returns the address of the operations routes, where it is another than that of viewers.
    pub fn operations_addr(&self) -> Option<SocketAddr> {
        self.operations.as_ref().map(HttpHandle::addr)
    }

    /// Returns the address at which viewers connect.
    pub fn addr(&self) -> SocketAddr {
        self.http.addr()
    }

    /// Returns the catalogue of playback records.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Returns the registry of open streams.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the objects in memory.
    pub fn cache(&self) -> &ObjectCache {
        &self.cache
    }

    /// Returns the answers under way that hold media.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Releases waiting requests, lets open answers finish and stops the feeds.
    pub async fn drain(self) {
        self.stop.cancel();
        self.http.stop().await;
        if let Some(operations) = self.operations {
            operations.stop().await;
        }
        self.supervisor.stop().await;
        info!("edge stopped");
    }
}

/// Starts an edge; returns once it serves. Readiness is about the node alone, never about a stream: it is the connection to the
/// bus.
pub async fn start(config: Config, deps: Deps) -> anyhow::Result<Node> {
    // The name under which this node reports itself to control.
    let identity = deps.identity("edge")?;
    let Deps { backends: Backends { bus, store, state }, process, .. } = deps;
    let clock = process.clock.clone();
    let metrics = EdgeMetrics::new(&process.metrics);
    process.readiness.follow("edge.bus", bus.connected(), "not connected to the bus");
    let link = Link::new(bus, &process.metrics.scope("edge"));
    let stop = CancellationToken::new();
    let supervisor = Supervisor::start("edge", &process.metrics, &process.drain, &process.actors)?;
    let cache = ObjectCache::new(config.cache_bytes, metrics.held_bytes.clone());
    let answers = Answers::new(metrics.held_bytes.clone(), config.held_bytes);
    let catalog = Catalog::new(state.clone(), clock.clone(), metrics.clone());
    let aliases = aliases(&config, &link, &state, &clock).await?;
    let (registry, starts) = Registry::new(state.clone(), clock.clone(), config.max_feeds, metrics.clone());
    let context = FeedContext {
        link: link.clone(),
        state: state.clone(),
        clock: clock.clone(),
        cache: cache.clone(),
        metrics: metrics.clone(),
        feed_bytes: config.feed_bytes,
    };
    // Both actors are vital: they are restarted after any end, and the node drains when one keeps failing.
    // `max_feeds` bounds all open streams, those shown from a checkpoint without a feed included.
    let feeds =
        Arc::new(Feeds::new(supervisor.clone(), registry.clone(), context, config.feed_idle(), starts));
    // The actor `registry` starts and stops the feeds of the streams in the registry.
    let id = ActorId::new("registry", "edge");
    supervisor.spawn(id, Policy::vital(), move |actor| feeds.clone().run(actor)).await?;
    let counting = Counting::new(config.viewers_per_address, clock, metrics.clone());
    let counting = count_viewers(counting, state, &supervisor).await?;

    let bounding = answers.clone();
    let id = ActorId::new("answers", "edge");
    supervisor.spawn(id, Policy::vital(), move |actor| bounding.clone().run(actor)).await?;

    let routes = process.observability();
    let (with_viewers, operations) = match config.metrics_listen {
        Some(listen) => (None, Some(observe::serve(listen, routes).context("edge: metrics")?)),
        None => (Some(routes), None),
    };
    let fetcher = Fetcher::new(store, cache.clone(), metrics.clone());
    let app = Arc::new(App {
        catalog: catalog.clone(),
        registry: registry.clone(),
        aliases,
        fresh: FreshObjects::new(fetcher.clone()),
        fetcher,
        cache: cache.clone(),
        answers: answers.clone(),
        signer: Signer::new(&config.beacon_secret),
        allow_origin: config.allow_origin.clone(),
        counting,
        counts_requests: config.count_requests,
        trusted_proxies: config.trusted_proxies.clone(),
        forwarded_header: config.forwarded_header,
        waiters: Semaphore::new(config.max_waiters),
        sockets: Arc::new(Semaphore::new(config.max_waiters)),
        held_beacons: Semaphore::new(config.max_waiters),
        limits: Limits { start_hold: config.start_hold(), part_hold: PART_HOLD },
        metrics,
        operations: with_viewers,
        stop: stop.clone(),
    });
    // From here on the node is listed by `GET /api/v1/nodes`.
    start_report(&supervisor, &link, &process, identity).await?;
    let port = process.connections.port(port_options(&config));
    let http =
        http::serve(config.listen, config.workers, app, &process.metrics, port).context("edge: HTTP")?;
    info!(addr = %http.addr(), "edge serves viewers");
    Ok(Node { http, operations, supervisor, catalog, registry, cache, answers, stop })
}

/// Returns the memory of the livestreams behind stream keys, if viewers may name a livestream by its key.
async fn aliases(
    config: &Config,
    link: &Link,
    state: &SharedState,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Option<Aliases>> {
    if !config.key_alias {
        return Ok(None);
    }
    let secret = key_secret(&config.stream_key_secret, &**state).await;
    let secret = secret.context("edge: the secret of stream keys, for key_alias")?;
    Ok(Some(Aliases::new(link.clone(), secret, clock.clone())))
}

/// Starts the actor `viewers`, which writes the viewers that requests have shown.
async fn count_viewers(
    counting: Counting,
    state: SharedState,
    supervisor: &Supervisor,
) -> anyhow::Result<Arc<Counting>> {
    let counting = Arc::new(counting);
    counting.prepare(&*state).await;
    let viewers = counting.clone();
    let id = ActorId::new("viewers", "edge");
    supervisor.spawn(id, Policy::vital(), move |actor| viewers.clone().run(state.clone(), actor)).await?;
    Ok(counting)
}

/// Returns the limits of the viewers' port. Trusted proxies may open any number of connections from one address.
fn port_options(config: &Config) -> PortOptions {
    let proxies = config.trusted_proxies.clone();
    PortOptions {
        exempt: Arc::new(move |address| proxies.trusts(address)),
        ..PortOptions::new("edge", PORT_WEIGHT, config.max_connections_per_address)
    }
}
