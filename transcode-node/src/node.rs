//! Starting and draining a worker node.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use millrace_bus::{JournalConfig, JournalWriter, Outcome, SharedBus};
use millrace_runtime::supervisor::{Policy, Supervisor};
use millrace_runtime::{Clock, Drain, Metrics, Readiness};
use millrace_state::SharedState;
use millrace_store::{SharedStore, Uploader};
use millrace_wire::ids::NodeId;
use millrace_wire::subjects;

use crate::archive;
use crate::config::Config;
use crate::job;
use crate::worker::Worker;

/// After the jobs have moved on, what waits for the store has this long.
const SPILL_LIMIT: Duration = Duration::from_secs(30);

/// And the index facts of what was stored have this long to be kept.
const FACTS_LIMIT: Duration = Duration::from_secs(5);

/// What a worker node stands on.
pub struct Deps {
    /// Bus for media, offers, grants, heartbeats and repairs.
    pub bus: SharedBus,
    /// Where segments go. One attempt per call: the upload queue retries.
    pub store: SharedStore,
    /// Where the segment index is kept.
    pub state: SharedState,
    /// This process; generated when `None`.
    pub node: Option<NodeId>,
    /// Where metrics go.
    pub metrics: Metrics,
    /// Where the node says whether it may take jobs.
    pub readiness: Readiness,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Begins when the process is to leave.
    pub drain: Drain,
}

/// A running worker node.
pub struct Node {
    id: NodeId,
    config: Arc<Config>,
    worker: Worker,
    uploader: Arc<Uploader>,
    facts: Arc<JournalWriter>,
    supervisor: Supervisor,
    drain: Drain,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Starts the node: when this returns it bids for jobs and answers for streams whose author is gone.
///
/// # Errors
/// When the actor system or the name of the node cannot be had.
pub async fn start(config: Config, deps: Deps) -> Result<Node> {
    let config = Arc::new(config);
    let id = match deps.node {
        Some(node) => node,
        None => NodeId::generate("transcode", &mut rand::rng())?,
    };
    let drain = deps.drain.child();
    let supervisor = Supervisor::start("transcode", &deps.metrics, &drain)?;
    let uploader = Arc::new(Uploader::start(&deps.store, config.uploads()));
    let metrics = Arc::new(crate::metrics::Metrics::new(&deps.metrics));
    deps.readiness.follow("transcode.bus", deps.bus.connected(), "not connected to the bus");
    watch_spill(&uploader, &metrics);
    let journal = JournalConfig::new(subjects::INDEX_STREAM, subjects::INDEX_SUBJECTS);
    let counted = metrics.clone();
    let told = move |outcome: Outcome| counted.index_facts.with(&[outcome.name()]).inc();
    let facts = Arc::new(JournalWriter::start(deps.bus.clone(), journal, told));
    let archived = (deps.bus.clone(), deps.state.clone());
    let job_deps = job::Deps {
        node: id.clone(),
        bus: deps.bus,
        store: deps.store,
        state: deps.state,
        uploader: uploader.clone(),
        facts: facts.clone(),
        clock: deps.clock,
        metrics,
    };
    let worker = Worker::new(&config, job_deps, drain.clone(), supervisor.clone());
    let bidding = worker.clone();
    supervisor
        .spawn_ready("worker", Policy::vital(), move |stop, ready| bidding.clone().run(stop, ready))
        .await?;
    let backlog = worker.clone();
    supervisor.spawn("backlog", Policy::vital(), move |stop| backlog.clone().serve_backlog(stop)).await?;
    let (bus, state) = archived;
    supervisor
        .spawn_ready("archive", Policy::vital(), move |stop, ready| {
            archive::run(bus.clone(), state.clone(), stop, ready)
        })
        .await?;
    leave_when_drained(&worker, &drain);
    tracing::info!(node = %id, limits = ?config.admission(), "transcode node bids for jobs");
    Ok(Node { id, config, worker, uploader, facts, supervisor, drain })
}

fn watch_spill(uploader: &Uploader, metrics: &Arc<crate::metrics::Metrics>) {
    let (mut stats, metrics) = (uploader.watch(), metrics.clone());
    tokio::spawn(async move {
        while stats.changed().await.is_ok() {
            metrics.spill.set(stats.borrow_and_update().bytes as i64);
        }
    });
}

fn leave_when_drained(worker: &Worker, drain: &Drain) {
    let (worker, drain) = (worker.clone(), drain.clone());
    tokio::spawn(async move {
        drain.draining().await;
        worker.leave();
    });
}

impl Node {
    /// The name this process goes by in the cluster.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Takes no new jobs, hands the running ones to other workers, and returns when everything is stored (or the
    /// configured time is over).
    pub async fn drain(&self) {
        self.drain.start("node is drained");
        self.worker.leave();
        if !self.drain.finished(self.config.drain()).await {
            tracing::warn!("jobs were still running at the end of the drain");
        }
        if !self.uploader.drain(SPILL_LIMIT).await {
            tracing::warn!(objects = self.uploader.stats().objects, "objects were not stored before leaving");
        }
        self.supervisor.stop().await;
        if !self.facts.flush(FACTS_LIMIT).await {
            tracing::warn!("index facts were not kept before leaving");
        }
    }
}
