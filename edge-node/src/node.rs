//! Starting and stopping an edge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use millrace_link::Link;
use millrace_node::{Backends, start_report};
use millrace_runtime::http::{self as observe, HttpHandle};
use millrace_runtime::{ActorId, Condition, Policy, Process, Restart, Supervisor};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::cache::ObjectCache;
use crate::config::Config;
use crate::feed::{self, FeedDeps};
use crate::fetch::Fetcher;
use crate::http::{self, App, Limits};
use crate::metrics::EdgeMetrics;
use crate::registry::Registry;
use crate::stream::LiveStream;
use crate::viewers::{Signer, Viewers};

/// How often readiness is looked at and idle feeds are dropped.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A hinted part comes within a part's time; 1 s is three of the longest.
const PART_HOLD: Duration = Duration::from_secs(1);

/// Everything an edge is started with.
pub type Deps = millrace_node::Deps<millrace_node::Backends>;

/// A running edge.
#[derive(Debug)]
pub struct Node {
    http: HttpHandle,
    observability: Option<HttpHandle>,
    supervisor: Supervisor,
    registry: Arc<Registry>,
    cache: Arc<ObjectCache>,
    stop: CancellationToken,
}

impl Node {
    /// Where viewers connect.
    pub fn addr(&self) -> SocketAddr {
        self.http.addr()
    }

    /// The followed streams.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The objects in memory.
    pub fn cache(&self) -> &ObjectCache {
        &self.cache
    }

    /// Releases waiting requests, finishes open answers, stops the feeds.
    pub async fn drain(self) {
        self.stop.cancel();
        self.http.stop().await;
        if let Some(observability) = self.observability {
            observability.stop().await;
        }
        self.supervisor.stop().await;
        info!("edge stopped");
    }
}

/// Starts an edge: returns once it serves.
pub async fn start(config: Config, deps: Deps) -> anyhow::Result<Node> {
    let identity = deps.identity("edge")?;
    let Deps { backends: Backends { bus, store, state }, process, .. } = deps;
    let Process { readiness, clock, .. } = &process;
    let metrics = EdgeMetrics::new(&process.metrics);
    readiness.follow("edge.bus", bus.connected(), "not connected to the bus");
    let feeds_ready = readiness.condition("edge.feeds", "not started yet");
    let stop = CancellationToken::new();
    let supervisor = Supervisor::start("edge", &process.metrics, &process.drain, &process.actors)?;
    let cache = ObjectCache::new(config.cache_bytes);
    let (registry, starts) = Registry::new(state.clone(), clock.clone(), config.max_feeds, metrics.clone());
    let feeds = FeedDeps {
        bus: bus.clone(),
        state: state.clone(),
        clock: clock.clone(),
        cache: cache.clone(),
        metrics: metrics.clone(),
        feed_bytes: config.feed_bytes,
    };
    tokio::spawn(feed_starter(
        supervisor.clone(),
        registry.clone(),
        starts,
        feeds,
        config.feed_idle(),
        stop.clone(),
    ));

    let viewers = Arc::new(Viewers::new(config.viewers_per_address, clock.clone()));
    tokio::spawn(viewers.clone().run(state, stop.clone()));
    let (lagging, probe_stop) = (metrics.clone(), stop.clone());
    supervisor
        .spawn(ActorId::new("probe", "edge"), Policy::vital(), move |context| {
            probe(lagging.clone(), feeds_ready.clone(), context.stop, probe_stop.clone())
        })
        .await?;

    let observability = process.observability();
    let (own, apart) = match config.metrics_listen {
        Some(listen) => (None, Some(observe::serve(listen, observability).context("edge: metrics")?)),
        None => (Some(observability), None),
    };
    let app = Arc::new(App {
        registry: registry.clone(),
        fetcher: Fetcher::new(store, cache.clone(), metrics.clone()),
        cache: cache.clone(),
        signer: Signer::new(&config.beacon_secret),
        viewers,
        waiters: Semaphore::new(config.max_waiters),
        limits: Limits { start_hold: config.start_hold(), part_hold: PART_HOLD },
        metrics,
        observability: own,
        stop: stop.clone(),
    });
    let link = Link::new(bus.clone(), &process.metrics.scope("edge"));
    start_report(&supervisor, &link, &process, identity).await?;
    let http = http::serve(config.listen, config.workers, app).context("edge: HTTP")?;
    info!(addr = %http.addr(), "edge serves viewers");
    Ok(Node { http, observability: apart, supervisor, registry, cache, stop })
}

/// Starts a supervised feed for each stream that the registry took in.
async fn feed_starter(
    supervisor: Supervisor,
    registry: Arc<Registry>,
    mut starts: mpsc::Receiver<Arc<LiveStream>>,
    deps: FeedDeps,
    idle: Duration,
    stop: CancellationToken,
) {
    loop {
        let stream = tokio::select! {
            stream = starts.recv() => stream,
            () = stop.cancelled() => None,
        };
        let Some(stream) = stream else { return };
        let policy = Policy { restart: Restart::OnFailure, ..Policy::once() };
        let (feeds, registry, followed) = (deps.clone(), registry.clone(), stream.clone());
        // A feed that nobody watched may still be on its way out under the same name.
        let spawned = supervisor.replace(ActorId::new("feed", stream.id), policy, move |context| {
            followed_while_watched(feeds.clone(), registry.clone(), followed.clone(), idle, context.stop)
        });
        if let Err(error) = spawned.await {
            tracing::error!(stream = %stream.id, %error, "feed could not be started");
        }
    }
}

/// Runs a feed until nobody asked for its stream for `idle`.
async fn followed_while_watched(
    deps: FeedDeps,
    registry: Arc<Registry>,
    stream: Arc<LiveStream>,
    idle: Duration,
    told: CancellationToken,
) -> anyhow::Result<()> {
    let feed = feed::run(deps, stream.clone(), told);
    tokio::pin!(feed);
    loop {
        tokio::select! {
            ended = &mut feed => return ended,
            () = tokio::time::sleep(LOOK_EVERY) => {
                if registry.leave(&stream, idle.as_millis() as u64) {
                    tracing::debug!(stream = %stream.id, "nobody watches: followed no longer");
                    return Ok(());
                }
            }
        }
    }
}

async fn probe(
    metrics: EdgeMetrics,
    feeds_ready: Condition,
    told: CancellationToken,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while !told.is_cancelled() && !stop.is_cancelled() {
        let lagging = metrics.feeds_lagging.get();
        feeds_ready.set(lagging == 0, "a feed is more than a second behind its author");
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = told.cancelled() => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}
