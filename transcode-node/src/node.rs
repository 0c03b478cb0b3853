//! Starts and drains a worker node.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use millrace_bus::{JournalConfig, JournalWriter, Outcome};
use millrace_link::Link;
use millrace_node::{Backends, start_report};
use millrace_runtime::supervisor::{Policy, Supervisor};
use millrace_runtime::{ActorId, Drain, Process, Readiness};
use millrace_store::Uploader;
use millrace_wire::ids::NodeId;
use millrace_wire::topics;

use crate::calibration;
use crate::config::Config;
use crate::context::{Deps, NodeContext};
use crate::encoders::{ChildSettings, ProcessEncoders};
use crate::job::JobContext;
use crate::metrics::Metrics;
use crate::output::checkpoint::responder;
use crate::output::index::{IndexWriter, QueueLimits};
use crate::output::uploads;
use crate::pictures::PictureService;
use crate::rungs::{BuiltInRungs, RungFactory};
use crate::worker::Worker;

/// The longest time that objects which wait for the store have after the jobs have moved to other workers.
const UPLOAD_LIMIT: Duration = Duration::from_secs(30);

/// The longest time that index entries which wait for the state store have after the uploads.
const INDEX_LIMIT: Duration = Duration::from_secs(5);

/// The longest time that index facts which wait for the journal have after that.
const JOURNAL_LIMIT: Duration = Duration::from_secs(5);

/// A worker node that has been started.
pub struct Node {
    id: NodeId,
    config: Arc<Config>,
    worker: Worker,
    uploader: Arc<Uploader>,
    index: Arc<IndexWriter>,
    index_journal: Arc<JournalWriter>,
    supervisor: Supervisor,
    drain: Drain,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Starts the node. When this returns, the node bids for jobs and answers snapshot requests for streams that have no
/// author.
///
/// # Errors
/// Fails if the actor system does not start, a subscription is refused, or no node name can be made.
pub async fn start(config: Config, deps: Deps) -> Result<Node> {
    calibration::check_licence(config.codec_policy)?;
    let metrics = Arc::new(Metrics::new(&deps.process.metrics));
    let encoders = Arc::new(ProcessEncoders::new(ChildSettings::of(&config), metrics.clone()));
    let rungs = Arc::new(BuiltInRungs::new(encoders.clone()));
    let node = start_node(config, deps, rungs, metrics.clone()).await?;
    tokio::spawn(calibration::run(node.config.clone(), encoders, metrics, node.worker.clone()));
    Ok(node)
}

/// As [`start`], with jobs whose rungs `rungs` starts.
///
/// # Errors
/// As [`start`].
pub async fn start_with_rungs(config: Config, deps: Deps, rungs: Arc<dyn RungFactory>) -> Result<Node> {
    let metrics = Arc::new(Metrics::new(&deps.process.metrics));
    start_node(config, deps, rungs, metrics).await
}

async fn start_node(
    config: Config,
    deps: Deps,
    rungs: Arc<dyn RungFactory>,
    metrics: Arc<Metrics>,
) -> Result<Node> {
    let config = Arc::new(config);
    let identity = deps.identity("transcode")?;
    let Backends { bus, store, state } = deps.backends;
    // A node that spends a budget of restarts ends its process; a drain of the node alone does not.
    let process_drain = deps.process.drain.clone();
    let process = Process { drain: process_drain.child(), ..deps.process };
    let Process { metrics: registry, readiness, clock, drain, actors, .. } = process.clone();
    let supervisor = Supervisor::start("transcode", &registry, &process_drain, &actors)?;
    let uploader = Arc::new(Uploader::start(&store, config.uploads()));
    readiness.follow("transcode.bus", bus.connected(), "not connected to the bus");
    let journal = JournalConfig::new(topics::INDEX_STREAM, topics::INDEX_SUBJECTS);
    let counted = metrics.clone();
    let on_outcome = move |outcome: Outcome| counted.index_facts.with(&[outcome.name()]).inc();
    let index_journal = Arc::new(JournalWriter::start(bus.clone(), journal, on_outcome));
    let limits = QueueLimits::default();
    let index =
        IndexWriter::new(limits, state.clone(), store.clone(), index_journal.clone(), metrics.clone());
    let index = Arc::new(index);
    let link = Link::new(bus, &registry.scope("transcode"));
    let context = NodeContext {
        node: identity.node.clone(),
        link: link.clone(),
        store,
        state,
        uploader: uploader.clone(),
        clock,
        metrics,
    };
    let pictures = rungs.encoders().map(|encoders| PictureService::new(encoders, context.metrics.clone()));
    if let Some(service) = pictures.clone() {
        let id = ActorId::new("pictures", "transcode");
        supervisor.spawn(id, Policy::vital(), move |actor| service.clone().run(actor)).await?;
    }
    let jobs = JobContext { node: context.clone(), index: index.clone(), rungs, pictures };
    let worker =
        Worker::new(config.admission(calibration::usual_capacity()), jobs, drain.clone(), supervisor.clone());
    spawn_services(&supervisor, &worker, &index, context, readiness).await?;
    let id = identity.node.clone();
    start_report(&supervisor, &link, &process, identity).await?;
    leave_when_drained(&worker, &drain);
    tracing::info!(node = %id, "transcode node started; bidding for jobs");
    Ok(Node { id, config, worker, uploader, index, index_journal, supervisor, drain })
}

async fn spawn_services(
    supervisor: &Supervisor,
    worker: &Worker,
    index: &Arc<IndexWriter>,
    context: NodeContext,
    readiness: Readiness,
) -> Result<()> {
    let bidding = worker.clone();
    supervisor
        .spawn_ready(ActorId::new("worker", "transcode"), Policy::vital(), move |actor| {
            bidding.clone().run(actor)
        })
        .await?;
    let backlog = worker.clone();
    let id = ActorId::new("backlog", "live");
    supervisor.spawn(id, Policy::vital(), move |actor| backlog.clone().serve_backlog(actor)).await?;
    let (uploader, metrics) = (context.uploader.clone(), context.metrics.clone());
    let id = ActorId::new("uploader", "transcode");
    supervisor
        .spawn(id, Policy::vital(), move |actor| {
            uploads::run(uploader.clone(), metrics.clone(), readiness.clone(), actor)
        })
        .await?;
    let index = index.clone();
    let id = ActorId::new("index_writer", "transcode");
    supervisor.spawn(id, Policy::vital(), move |actor| index.clone().run(actor)).await?;
    supervisor
        .spawn_ready(ActorId::new("checkpoint_responder", "transcode"), Policy::vital(), move |actor| {
            responder::run(context.link.clone(), context.state.clone(), actor)
        })
        .await?;
    Ok(())
}

fn leave_when_drained(worker: &Worker, drain: &Drain) {
    let (worker, drain) = (worker.clone(), drain.clone());
    tokio::spawn(async move {
        drain.draining().await;
        worker.leave();
    });
}

impl Node {
    /// Returns this process's name in the cluster.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Takes no new jobs and hands the running ones to other workers. Returns when everything is stored, or when the
    /// configured time is over.
    pub async fn drain(&self) {
        self.drain.start("node is drained");
        self.worker.leave();
        if !self.drain.finished(self.config.drain()).await {
            tracing::warn!("drain time is over with jobs still running; their sessions grant them anew");
        }
        if !self.uploader.drain(UPLOAD_LIMIT).await {
            let objects = self.uploader.stats().objects;
            tracing::warn!(objects, "objects not stored before the node left");
        }
        if !self.index.flush(INDEX_LIMIT).await {
            let entries = self.index.waiting();
            tracing::warn!(entries, "index entries not written before the node left");
        }
        self.supervisor.stop().await;
        if !self.index_journal.flush(JOURNAL_LIMIT).await {
            tracing::warn!("index facts not written to the journal before the node left");
        }
    }
}
