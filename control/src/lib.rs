//! The control node: the REST API and dashboard, key claims over the bus, the state of livestreams, and the
//! reconciler that ends what nobody came back for. Several may run; they meet in the state store.
#![forbid(unsafe_code)]

mod actors;
mod closing;
mod config;
pub mod domain;
mod http;
mod purge;
mod repo;
mod role;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use millrace_bus::SharedBus;
use millrace_runtime::http::{HttpHandle, Observability};
use millrace_runtime::{Clock, Condition, Drain, Metrics, Policy, Readiness, Supervisor};
use millrace_state::SharedState;
use millrace_store::SharedStore;
use millrace_wire::ids::{NodeId, UnixMillis};
use millrace_wire::subjects;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use config::{Config, MIN_TOKEN_CHARS};
pub use repo::{Repo, RepoError};
pub use role::Control;

/// How often readiness looks at the state store.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// How long a leaving control waits for its last lifecycle events to be kept.
const EVENTS_LIMIT: Duration = Duration::from_secs(5);

/// A store that does not answer in this time is not ready.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// What a control works with.
#[derive(Clone)]
pub struct Deps {
    /// Requests of ingest nodes arrive here.
    pub bus: SharedBus,
    /// Where everything is kept.
    pub state: SharedState,
    /// Where media objects are: read to end a broadcast without an author, emptied of deleted streams.
    pub store: SharedStore,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The process's readiness conditions.
    pub readiness: Readiness,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The process's drain.
    pub drain: Drain,
}

/// A running control.
pub struct Node {
    http: HttpHandle,
    supervisor: Supervisor,
    core: Arc<service::Core>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Node {
    /// Where the API listens.
    pub fn addr(&self) -> SocketAddr {
        self.http.addr()
    }

    /// Answers what is open, stops the services and hands the lead over.
    pub async fn drain(self) {
        self.http.stop().await;
        self.supervisor.stop().await;
        if !self.core.events.flush(EVENTS_LIMIT).await {
            warn!("lifecycle events were not kept before leaving");
        }
        info!("control stopped");
    }
}

/// Starts a control: returns once it answers on the bus and over HTTP.
pub async fn start(config: Config, deps: Deps) -> anyhow::Result<Node> {
    anyhow::ensure!(
        !config.admin_token.expose().is_empty(),
        "control.admin_token is missing: set it, or admin_token_file, or MILLRACE_CONTROL_ADMIN_TOKEN"
    );
    let metrics = deps.metrics.scope("control");
    deps.readiness.follow("control.bus", deps.bus.connected(), "not connected to the bus");
    let state_ready = deps.readiness.condition("control.state", "not reached yet");
    let repo = Repo::open(deps.state.clone(), &config.stream_key_secret)
        .await
        .context("control: opening the state")?;
    state_ready.hold();
    let core = Arc::new(service::Core::new(repo, &deps, &metrics));

    let supervisor = Supervisor::start("control", &deps.metrics, &deps.drain)?;
    for subject in [
        subjects::CONTROL_CLAIM,
        subjects::CONTROL_RENEW,
        subjects::CONTROL_RELEASE,
        subjects::CONTROL_SEALED,
    ] {
        let core = core.clone();
        supervisor
            .spawn_ready("bus_service", Policy::vital(), move |stop, ready| {
                core.clone().serve(subject, ready, stop)
            })
            .await?;
    }
    let node = NodeId::generate("control", &mut rand::rng())?;
    let leader = core.clone();
    supervisor
        .spawn("reconciler", Policy::vital(), move |stop| {
            actors::Reconciler::new(leader.clone(), node.clone()).run(stop)
        })
        .await?;
    let purger = core.clone();
    supervisor.spawn("purge", Policy::vital(), move |stop| purge::run(purger.clone(), stop)).await?;
    let state = deps.state.clone();
    supervisor
        .spawn("probe", Policy::vital(), move |stop| probe(state.clone(), state_ready.clone(), stop))
        .await?;
    let observability = Observability { metrics: deps.metrics, readiness: deps.readiness, drain: deps.drain };
    let http = http::serve(&config, core.clone(), observability).context("control: HTTP")?;
    info!(addr = %http.addr(), "control serves the API and the dashboard");
    Ok(Node { http, supervisor, core })
}

async fn probe(state: SharedState, state_ready: Condition, stop: CancellationToken) -> anyhow::Result<()> {
    while !stop.is_cancelled() {
        match tokio::time::timeout(PROBE_LIMIT, state.ready()).await {
            Ok(Ok(())) => state_ready.hold(),
            Ok(Err(error)) => state_ready.fail(&error.to_string()),
            Err(_) => state_ready.fail("does not answer"),
        }
        tokio::select! {
            () = tokio::time::sleep(PROBE_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

/// Wall clock in the wire's type.
pub(crate) fn unix(clock: &dyn Clock) -> UnixMillis {
    UnixMillis(clock.unix_ms())
}
