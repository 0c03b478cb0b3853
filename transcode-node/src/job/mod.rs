//! One granted job: the task that drives the job's state machine, its rungs and its output.

mod inputs;
mod outputs;

use std::sync::Arc;
use std::time::Duration;

use millrace_bus::BusError;
use millrace_protocol::job::{Input, WorkerJob};
use millrace_protocol::{Machine, Millis};
use millrace_runtime::CoalescingTimer;
use millrace_wire::fact::StreamState;
use millrace_wire::fragment::FragmentError;
use millrace_wire::message::job::Grant;
use millrace_wire::message::media::MediaReader;
use tokio::sync::mpsc;

use self::inputs::Subscriptions;
use crate::context::NodeContext;
use crate::output::checkpoint::CheckpointPublisher;
use crate::output::objects::{Objects, UploadReport};
use crate::rungs::{RungFactory, RungSet};

/// Messages taken from a subscription at once.
const BATCH: usize = 64;
/// Replies that may wait for the job; what does not fit makes the request's task wait.
const REPLY_CAPACITY: usize = 128;
/// The longest time without a look at the machine: it bounds the effect of a missed timeout.
const LONGEST_SLEEP: Duration = Duration::from_millis(200);
/// The shortest time between two looks at a machine whose timeout has passed.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// An order of the node to a running job.
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

/// Runs the job of `grant` until its epoch is over or another author has it.
pub(crate) async fn run(
    context: NodeContext,
    rungs: Arc<dyn RungFactory>,
    grant: Grant,
    mut orders: mpsc::Receiver<Order>,
) -> Result<(), JobError> {
    let mut subscriptions = Subscriptions::open(&context.bus, &grant).await?;
    let mut job = Job::new(context, rungs, grant)?;
    let (mut live, mut repaired) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    job.execute_outputs()?;
    let mut timer = CoalescingTimer::default();
    while !job.machine.is_done() {
        timer.fire_within(job.until_timeout());
        tokio::select! {
            count = subscriptions.media.recv_many(&mut live, BATCH) => job.on_media(count, &mut live)?,
            count = subscriptions.repaired.recv_many(&mut repaired, BATCH) => {
                job.on_repaired_media(count, &mut repaired)?;
            }
            message = subscriptions.epoch.recv() => job.on_epoch(message)?,
            message = subscriptions.session.recv() => job.on_session(message)?,
            message = subscriptions.fact_repair.recv() => job.on_repair_request(message)?,
            message = subscriptions.snapshot.recv() => job.on_snapshot_request(message)?,
            Some(reply) = job.replies.1.recv() => job.handle(reply)?,
            (rung, packaged) = job.rungs.next(), if !job.machine.is_quiescing() => job.on_packaged(rung, packaged)?,
            Some(report) = job.uploads.recv() => job.on_upload(report)?,
            Some(order) = orders.recv() => job.on_order(order)?,
            () = timer.fired() => job.handle(Input::Tick)?,
        }
    }
    job.close().await;
    Ok(())
}

struct Job {
    context: NodeContext,
    machine: WorkerJob,
    rungs: RungSet,
    objects: Objects,
    checkpoint: CheckpointPublisher,
    /// Reassemblers of media messages: for those published as they come, and for those published again on request.
    readers: (MediaReader, MediaReader),
    /// The state that was announced last. A newer epoch's session builds on it, and may ask for it just after this job
    /// stopped announcing.
    last_state: Option<StreamState>,
    replies: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    uploads: mpsc::UnboundedReceiver<UploadReport>,
}

impl Job {
    fn new(context: NodeContext, factory: Arc<dyn RungFactory>, grant: Grant) -> Result<Self, JobError> {
        let now = Millis(context.clock.now_ms());
        let (objects, uploads) =
            Objects::new(context.uploader.clone(), grant.playback, grant.epoch, grant.generation);
        let rungs = RungSet::start(factory, &grant.settings, &grant.open, &grant.base);
        let checkpoint = CheckpointPublisher::new(&context, &grant);
        let (node, max_payload, seed) = (context.node.clone(), context.bus.max_payload(), rand::random());
        let machine = WorkerJob::new(now, grant, node, rungs.ids().collect(), max_payload, seed)?;
        Ok(Self {
            context,
            machine,
            rungs,
            objects,
            checkpoint,
            readers: Default::default(),
            last_state: None,
            replies: mpsc::channel(REPLY_CAPACITY),
            uploads,
        })
    }

    fn now(&self) -> Millis {
        Millis(self.context.clock.now_ms())
    }

    fn until_timeout(&self) -> Duration {
        let timeout = self.machine.next_timeout();
        let due = timeout.map_or(LONGEST_SLEEP, |at| Duration::from_millis(at - self.now()));
        due.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
    }

    /// Hands one input to the machine and carries out what follows from it.
    fn handle(&mut self, input: Input) -> Result<(), JobError> {
        self.machine.handle(self.now(), input)?;
        self.execute_outputs()
    }

    /// Waits until the last checkpoint and playlists are written.
    async fn close(self) {
        self.checkpoint.close().await;
    }
}
