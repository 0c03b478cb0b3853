//! One granted job: the task that drives the job's state machine, its rungs and its output.

mod inputs;
mod outputs;

use std::sync::Arc;

use millrace_bus::BusError;
use millrace_link::driver::Driver;
use millrace_link::{LogServer, MediaReader, TypedSubscription};
use millrace_node::RepairReport;
use millrace_protocol::Millis;
use millrace_protocol::job::{Input, WorkerJob};
use millrace_runtime::{ActorContext, StatusHandle};
use millrace_wire::fact::StreamState;
use millrace_wire::fragment::FragmentError;
use millrace_wire::message::announce::{EpochAnnouncement, SessionAnnouncement};
use millrace_wire::message::job::{Grant, Heartbeat};
use millrace_wire::topic::Topic;
use millrace_wire::topics;
use tokio::sync::mpsc;

use crate::context::NodeContext;
use crate::output::checkpoint::CheckpointPublisher;
use crate::output::index::IndexWriter;
use crate::output::objects::{Objects, UploadReport};
use crate::output::pictures::PictureWriter;
use crate::output::storyboard::StoryboardWriter;
use crate::pictures::{PictureService, PictureSlot, Sampler};
use crate::rungs::{RungFactory, RungSet};

/// Media fragments taken from a subscription at once.
const BATCH: usize = 64;
/// Media fragments that may wait for the rungs: four seconds of 60 pictures a second with their audio. Fragments beyond
/// that are lost here and repaired from the session's replay buffer.
const MEDIA_CAPACITY: usize = 1024;
/// Announcements, repair requests and snapshot requests that may wait, each. They are repeated when they are lost.
const REQUEST_CAPACITY: usize = 128;
/// Replies that may wait for the job; what does not fit makes the request's task wait.
const REPLY_CAPACITY: usize = 128;

/// The handles that all jobs of a node share.
#[derive(Clone)]
pub(crate) struct JobContext {
    pub(crate) node: NodeContext,
    pub(crate) index: Arc<IndexWriter>,
    pub(crate) rungs: Arc<dyn RungFactory>,
    /// Makes the pictures of copied streams; `None` if the node has nothing to decode with.
    pub(crate) pictures: Option<PictureService>,
}

/// An order of the publisher's session or of the node to a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The session revoked the grant: announce nothing more and finish the uploads.
    Revoke,
    /// The node drains: ask the session for a successor.
    Leave,
    /// A successor is ready: announce nothing more until it has taken over.
    Quiesce,
}

/// The error that ended a job before its stream's epoch was over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// The bus is closed or refused a subscription.
    #[error("bus: {0}")]
    Bus(#[from] BusError),
    /// A fact could not be encoded for the bus.
    #[error("fact not encoded: {0}")]
    Fact(#[from] FragmentError),
    /// The bus ended a subscription.
    #[error("the bus closed the subscription to {0}")]
    Closed(&'static str),
}

/// Runs the job of `grant` until its epoch is over, another author has it, or an operator ends it.
pub(crate) async fn run(
    actor: ActorContext,
    context: JobContext,
    grant: Grant,
    mut orders: mpsc::Receiver<Order>,
) -> Result<(), JobError> {
    let mut operator = actor.orders();
    let subscriptions = Subscriptions::open(&context.node, &grant).await?;
    let mut job = Job::new(context, grant, subscriptions, actor.status)?;
    let mut media = Vec::with_capacity(BATCH);
    job.execute_outputs()?;
    while !job.driver.is_done() && !job.kicked {
        tokio::select! {
            fragments = job.subscriptions.media.recv_many(&mut media, BATCH) => {
                job.on_media(fragments, &mut media)?;
            }
            announcement = job.subscriptions.epochs.recv() => job.on_epoch(announcement)?,
            announcement = job.subscriptions.sessions.recv() => job.on_session(announcement)?,
            request = job.subscriptions.log.recv() => job.on_log_request(request)?,
            Some(reply) = job.replies.1.recv() => job.handle(reply)?,
            (rung, packaged) = job.rungs.next(), if !job.driver.machine().is_quiescing() => {
                job.on_packaged(rung, packaged)?;
            }
            Some(report) = job.uploads.recv() => job.on_upload(report)?,
            Some(order) = orders.recv() => job.on_order(order)?,
            order = operator.recv() => job.on_operator_order(order)?,
            () = job.driver.wait_timeout() => job.on_timeout()?,
        }
    }
    job.close().await;
    Ok(())
}

/// A job's subscriptions, and its log on the bus.
struct Subscriptions {
    media: MediaReader,
    epochs: TypedSubscription<EpochAnnouncement>,
    sessions: TypedSubscription<SessionAnnouncement>,
    log: LogServer,
}

impl Subscriptions {
    async fn open(context: &NodeContext, grant: &Grant) -> Result<Self, BusError> {
        let (link, stream, epoch) = (&context.link, grant.stream, grant.epoch);
        Ok(Self {
            media: MediaReader::follow(link, stream, epoch, MEDIA_CAPACITY).await?,
            epochs: link.subscribe(&topics::epoch(stream), REQUEST_CAPACITY).await?,
            sessions: link.subscribe(&topics::session(stream), REQUEST_CAPACITY).await?,
            log: LogServer::open(link, stream, (epoch, grant.generation), REQUEST_CAPACITY).await?,
        })
    }
}

struct Job {
    context: NodeContext,
    subscriptions: Subscriptions,
    heartbeats: Topic<Heartbeat>,
    status: StatusHandle,
    /// The state that the actor's status shows.
    shown: &'static str,
    driver: Driver<WorkerJob>,
    rungs: RungSet,
    repairs: RepairReport,
    objects: Objects,
    index: Arc<IndexWriter>,
    checkpoint: CheckpointPublisher,
    pictures: PictureWriter,
    picture_service: Option<PictureService>,
    sampler: Sampler,
    picture_slot: PictureSlot,
    /// Begun with the first sheet.
    storyboard: Option<StoryboardWriter>,
    /// The state that was announced last. A newer epoch's session builds on it, and may ask for it just after this job
    /// stopped announcing.
    last_state: Option<StreamState>,
    replies: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    uploads: mpsc::UnboundedReceiver<UploadReport>,
    leaving: bool,
    superseded: bool,
    kicked: bool,
}

impl Job {
    fn new(
        context: JobContext,
        grant: Grant,
        subscriptions: Subscriptions,
        status: StatusHandle,
    ) -> Result<Self, JobError> {
        let JobContext { node: context, index, rungs: factory, pictures: picture_service } = context;
        let now = Millis(context.clock.now_ms());
        let (objects, uploads) =
            Objects::new(context.uploader.clone(), grant.playback, grant.epoch, grant.generation);
        let rungs = RungSet::start(factory, &grant.settings, &grant.open, &grant.base);
        let checkpoint = CheckpointPublisher::new(&context, &grant);
        let pictures = PictureWriter::new(context.store.clone(), grant.playback);
        let repairs = RepairReport::new(&context.metrics.repairs);
        let (node, max_payload, seed) = (context.node.clone(), context.link.max_payload(), rand::random());
        let heartbeats = topics::heartbeat(grant.stream, grant.epoch);
        let machine = WorkerJob::new(now, grant, node, rungs.ids().collect(), max_payload, seed)?;
        let driver = Driver::new(machine, context.clock.clone());
        Ok(Self {
            context,
            subscriptions,
            heartbeats,
            status,
            shown: "",
            driver,
            rungs,
            repairs,
            objects,
            index,
            checkpoint,
            pictures,
            picture_service,
            sampler: Sampler::default(),
            picture_slot: PictureSlot::default(),
            storyboard: None,
            last_state: None,
            replies: mpsc::channel(REPLY_CAPACITY),
            uploads,
            leaving: false,
            superseded: false,
            kicked: false,
        })
    }

    /// Hands one input to the machine and carries out what follows from it.
    fn handle(&mut self, input: Input) -> Result<(), JobError> {
        self.driver.handle(input)?;
        self.execute_outputs()
    }

    /// Lets the machine act on the passing of time and carries out what follows from it.
    fn on_timeout(&mut self) -> Result<(), JobError> {
        self.driver.handle_timeout()?;
        self.execute_outputs()
    }

    /// Shows the job's state to operators when it has changed.
    fn show_state(&mut self) {
        let state = match self.driver.machine().snapshot() {
            _ if self.superseded => "superseded, finishing uploads",
            _ if self.driver.machine().is_quiescing() => "handing over to its successor",
            Some(state) if state.ended => "ended, finishing uploads",
            Some(state) if state.sealed => "sealed, waiting for the publisher",
            Some(_) if self.leaving => "packaging, waiting for a successor",
            Some(_) => "packaging",
            None => "packaging, not announced yet",
        };
        if self.shown != state {
            self.shown = state;
            self.status.set_state(state);
        }
    }

    /// Shows the number and the age of the uploads that have not ended.
    fn show_uploads(&self) {
        let (waiting, oldest) = self.objects.waiting();
        self.status.set_queue(waiting, oldest);
    }

    /// Waits until the last checkpoint and playlists are written.
    async fn close(mut self) {
        self.repairs.report(&self.rungs.repairs());
        self.checkpoint.close().await;
    }
}
