//! Starting and stopping an edge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use millrace_bus::SharedBus;
use millrace_runtime::http::{self as observe, HttpHandle, Observability};
use millrace_runtime::{Clock, Condition, Drain, Metrics, Policy, Readiness, Restart, Supervisor};
use millrace_state::SharedState;
use millrace_store::SharedStore;
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

/// What an edge works with.
#[derive(Clone)]
pub struct Deps {
    /// Facts and parts arrive here.
    pub bus: SharedBus,
    /// Where segments are kept.
    pub store: SharedStore,
    /// Which streams there are; viewer counts.
    pub state: SharedState,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The process's readiness conditions.
    pub readiness: Readiness,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The process's drain.
    pub drain: Drain,
}

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
    let metrics = EdgeMetrics::new(&deps.metrics);
    deps.readiness.follow("edge.bus", deps.bus.connected(), "not connected to the bus");
    let feeds_ready = deps.readiness.condition("edge.feeds", "not started yet");
    let stop = CancellationToken::new();
    let supervisor = Supervisor::start("edge", &deps.metrics, &deps.drain)?;
    let cache = ObjectCache::new(config.cache_bytes);
    let (registry, starts) =
        Registry::new(deps.state.clone(), deps.clock.clone(), config.max_feeds, metrics.clone());
    let feeds = FeedDeps {
        bus: deps.bus.clone(),
        state: deps.state.clone(),
        clock: deps.clock.clone(),
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

    let viewers = Arc::new(Viewers::new(config.viewers_per_address, deps.clock.clone()));
    tokio::spawn(viewers.clone().run(deps.state.clone(), stop.clone()));
    let (lagging, probe_stop) = (metrics.clone(), stop.clone());
    supervisor
        .spawn("probe", Policy::vital(), move |told| {
            probe(lagging.clone(), feeds_ready.clone(), told, probe_stop.clone())
        })
        .await?;

    let observability = Observability { metrics: deps.metrics, readiness: deps.readiness, drain: deps.drain };
    let (own, apart) = match config.metrics_listen {
        Some(listen) => (None, Some(observe::serve(listen, observability).context("edge: metrics")?)),
        None => (Some(observability), None),
    };
    let app = Arc::new(App {
        registry: registry.clone(),
        fetcher: Fetcher::new(deps.store, cache.clone(), metrics.clone()),
        cache: cache.clone(),
        signer: Signer::new(&config.beacon_secret),
        viewers,
        waiters: Semaphore::new(config.max_waiters),
        limits: Limits { start_hold: config.start_hold(), part_hold: PART_HOLD },
        metrics,
        observability: own,
        stop: stop.clone(),
    });
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
        let spawned = supervisor.spawn("feed", policy, move |told| {
            followed_while_watched(feeds.clone(), registry.clone(), followed.clone(), idle, told)
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
