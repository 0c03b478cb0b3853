//! One granted job: the shell around the author's state machine and the packager.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{BusError, JournalWriter, Message, SharedBus, Subscription};
use millrace_media::packager::PartSetup;
use millrace_protocol::job::{Input, Output, Packaged, WorkerJob};
use millrace_protocol::log::writer::EncodedMessage;
use millrace_protocol::{Machine, Millis};
use millrace_runtime::{Alarm, Clock};
use millrace_state::SharedState;
use millrace_store::{SharedStore, Uploader};
use millrace_wire::fact::StreamState;
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{NodeId, Rendition};
use millrace_wire::message::control;
use millrace_wire::message::job::Grant;
use millrace_wire::message::media::MediaReader;
use millrace_wire::message::repair::{RepairReply, RepairRequest};
use millrace_wire::subjects;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::index::Index;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::rest::Rest;
use crate::storage::{Storage, Stored};

/// Media messages that may wait for the packager: four seconds of 60 frames a second and their audio. What is beyond
/// is repaired from the ring.
const MEDIA_CAPACITY: usize = 1024;
/// Announcements, repair and snapshot requests that may wait.
const SMALL_CAPACITY: usize = 128;
/// Messages taken at once.
const BATCH: usize = 64;
/// The session answers from memory: slower means that it is away.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// Control writes to its store before it answers.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest sleep: bounds the effect of a missed timeout.
const LOOK: Duration = Duration::from_millis(200);

/// What a job stands on.
#[derive(Clone)]
pub(crate) struct Deps {
    pub(crate) node: NodeId,
    pub(crate) bus: SharedBus,
    pub(crate) store: SharedStore,
    pub(crate) state: SharedState,
    pub(crate) uploader: Arc<Uploader>,
    pub(crate) facts: Arc<JournalWriter>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What the node tells a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The grant was revoked.
    Revoke,
    /// The node drains.
    Leave,
    /// A successor is at hand.
    Yield,
}

/// Why a job ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// The bus is closed or refused a subscription.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A fact could not be encoded.
    #[error(transparent)]
    Frame(#[from] FragmentError),
    /// The bus ended a subscription.
    #[error("the bus closed a subscription")]
    Closed,
}

/// Runs the job to its end.
pub(crate) async fn run(deps: Deps, grant: Grant, mut orders: mpsc::Receiver<Order>) -> Result<(), JobError> {
    let mut subscriptions = Subscriptions::open(&deps, &grant).await?;
    let mut job = Job::new(deps, grant)?;
    let (mut live, mut repaired) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    job.outputs()?;
    let mut alarm = Alarm::default();
    while !job.machine.is_done() {
        alarm.within(job.until_timeout());
        tokio::select! {
            got = subscriptions.media.recv_many(&mut live, BATCH) => job.media(got, &mut live, false)?,
            got = subscriptions.repaired.recv_many(&mut repaired, BATCH) => {
                job.media(got, &mut repaired, true)?;
            },
            message = subscriptions.epoch.recv() => {
                job.keep_farewell();
                job.announced(message, Input::Epoch)?;
            }
            message = subscriptions.session.recv() => job.announced(message, Input::Session)?,
            message = subscriptions.ring.recv() => job.repair(&message.ok_or(JobError::Closed)?)?,
            message = subscriptions.snap.recv() => job.snapshot(&message.ok_or(JobError::Closed)?),
            Some(reply) = job.replies.1.recv() => job.input(reply)?,
            Some(stored) = job.stored.recv() => job.on_stored(stored)?,
            Some(order) = orders.recv() => job.order(order)?,
            () = alarm.ring() => job.input(Input::Tick)?,
        }
    }
    job.close().await;
    Ok(())
}

struct Subscriptions {
    media: Subscription,
    repaired: Subscription,
    epoch: Subscription,
    session: Subscription,
    ring: Subscription,
    snap: Subscription,
}

impl Subscriptions {
    async fn open(deps: &Deps, grant: &Grant) -> Result<Self, BusError> {
        let (stream, epoch, generation) = (grant.stream, grant.epoch, grant.generation);
        let bus = &deps.bus;
        Ok(Self {
            media: bus.subscribe(&subjects::media(stream, epoch), MEDIA_CAPACITY).await?,
            repaired: bus.subscribe(&subjects::repair_media(stream, epoch), MEDIA_CAPACITY).await?,
            epoch: bus.subscribe(&subjects::epoch(stream), SMALL_CAPACITY).await?,
            session: bus.subscribe(&subjects::session(stream), SMALL_CAPACITY).await?,
            ring: bus.subscribe(&subjects::ring_live(stream, epoch, generation), SMALL_CAPACITY).await?,
            snap: bus.subscribe(&subjects::snap(stream), SMALL_CAPACITY).await?,
        })
    }
}

struct Job {
    deps: Deps,
    machine: WorkerJob,
    pipeline: Pipeline,
    storage: Storage,
    index: Index,
    rest: Rest,
    readers: (MediaReader, MediaReader),
    /// The last state announced: a newer epoch's session builds on it, and may ask just after this author fell silent.
    farewell: Option<StreamState>,
    replies: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    stored: mpsc::UnboundedReceiver<Stored>,
}

impl Job {
    fn new(deps: Deps, grant: Grant) -> Result<Self, JobError> {
        let now = Millis(deps.clock.now_ms());
        let (storage, stored) = Storage::new(
            deps.store.clone(),
            deps.uploader.clone(),
            grant.playback,
            grant.epoch,
            grant.generation,
        );
        let pipeline = Pipeline::new(&grant.open, part_setup(&grant.base));
        let index =
            Index::new(deps.state.clone(), deps.facts.clone(), storage.clone(), grant.settings.record);
        let rest = Rest::new(&deps, &grant);
        let seed = rand::random();
        let machine = WorkerJob::new(now, grant, deps.node.clone(), deps.bus.max_payload(), seed)?;
        let replies = mpsc::channel(SMALL_CAPACITY);
        let readers = Default::default();
        Ok(Self { deps, machine, pipeline, storage, index, rest, readers, farewell: None, replies, stored })
    }

    fn until_timeout(&self) -> Duration {
        let now = Millis(self.deps.clock.now_ms());
        let due = self.machine.next_timeout().map_or(LOOK, |at| Duration::from_millis(at - now));
        due.clamp(Duration::from_millis(1), LOOK)
    }

    fn input(&mut self, input: Input) -> Result<(), JobError> {
        self.machine.handle(Millis(self.deps.clock.now_ms()), input)?;
        self.outputs()
    }

    fn media(&mut self, got: usize, batch: &mut Vec<Message>, repaired: bool) -> Result<(), JobError> {
        if got == 0 {
            return Err(JobError::Closed);
        }
        let now = Millis(self.deps.clock.now_ms());
        for message in batch.drain(..) {
            let reader = if repaired { &mut self.readers.1 } else { &mut self.readers.0 };
            match reader.push(message.payload) {
                Ok(Some(message)) => self.machine.handle(now, Input::Media(message))?,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "media message could not be read"),
            }
        }
        self.outputs()
    }

    fn announced<T: DeserializeOwned>(
        &mut self,
        message: Option<Message>,
        input: impl FnOnce(T) -> Input,
    ) -> Result<(), JobError> {
        let message = message.ok_or(JobError::Closed)?;
        match serde_json::from_slice(&message.payload) {
            Ok(announcement) => self.input(input(announcement)),
            Err(error) => {
                tracing::warn!(%error, subject = %message.subject, "announcement could not be read");
                Ok(())
            }
        }
    }

    fn repair(&mut self, message: &Message) -> Result<(), JobError> {
        let (Some(request), Some(reply)) = (RepairRequest::parse(&message.payload), &message.reply) else {
            return Ok(());
        };
        let answer = self.machine.repair(Millis(self.deps.clock.now_ms()), &request);
        self.deps.metrics.repair_requests.inc();
        self.answer(reply, &answer);
        self.outputs()
    }

    fn keep_farewell(&mut self) {
        if let Some(snapshot) = self.machine.snapshot() {
            self.farewell = Some(snapshot.clone());
        }
    }

    fn snapshot(&self, message: &Message) {
        let snapshot = self.machine.snapshot().or(self.farewell.as_ref());
        if let (Some(snapshot), Some(reply)) = (snapshot, &message.reply) {
            self.answer(reply, snapshot);
        }
    }

    /// An answer that cannot leave now is asked for again.
    fn answer(&self, reply: &str, answer: &impl serde::Serialize) {
        if let Ok(answer) = serde_json::to_vec(answer)
            && let Err(error) = self.deps.bus.respond(reply, answer.into())
        {
            tracing::debug!(%error, "answer not sent");
        }
    }

    fn on_stored(&mut self, stored: Stored) -> Result<(), JobError> {
        let Some(segment) = stored.segment else {
            self.rest.init_stored(stored.result.is_ok());
            self.rest.note(&self.machine);
            return Ok(());
        };
        if stored.result.is_err() {
            self.rest.lost(segment.rendition, segment.msn);
            // Without its object the segment is served from memory while hot and missing from the recording.
            self.deps.metrics.segments_lost.inc();
            return Ok(());
        }
        self.input(Input::Stored(segment.rendition, segment.msn))
    }

    fn order(&mut self, order: Order) -> Result<(), JobError> {
        self.input(match order {
            Order::Revoke => Input::Revoked,
            Order::Leave => Input::Leave,
            Order::Yield => Input::Yield,
        })
    }

    fn outputs(&mut self) -> Result<(), JobError> {
        while let Some(output) = self.machine.poll_output() {
            self.output(output)?;
        }
        self.rest.note(&self.machine);
        Ok(())
    }

    /// The last state and playlists are written before the job is forgotten.
    async fn close(self) {
        self.rest.close().await;
    }

    fn output(&mut self, output: Output) -> Result<(), JobError> {
        match output {
            Output::Publish(frames) => self.publish(frames),
            Output::Package(message) => {
                self.pipeline.push(message);
                self.packaged()?;
            }
            Output::ResetPackager => {
                let base = self.machine.snapshot().map_or(PartSetup::Measure, part_setup);
                self.pipeline = Pipeline::new(&self.machine.grant().open, base);
            }
            Output::Flush => {
                self.pipeline.finish();
                self.packaged()?;
                self.machine.handle(Millis(self.deps.clock.now_ms()), Input::Packaged(Packaged::Flushed))?;
            }
            Output::AskMedia(request) => self.ask_media(&request),
            Output::Heartbeat(heartbeat) => {
                let grant = self.machine.grant();
                self.send(&subjects::job_heartbeat(grant.stream, grant.epoch), &heartbeat);
            }
            Output::UploadInit(rendition, version, bytes) => {
                self.rest.init_waits();
                self.storage.init(&rendition, version, bytes);
            }
            Output::Upload(segment, pieces) => self.storage.segment(segment, pieces),
            Output::Index(fact) => {
                self.deps.metrics.segments_stored.inc();
                self.rest.stored();
                let window = Duration::from_secs(u64::from(self.machine.grant().settings.window));
                self.index.add(fact, window);
            }
            Output::Report(report) => self.report(&report),
            Output::Superseded => tracing::info!("another author has taken over; finishing uploads"),
            Output::Done => {}
        }
        Ok(())
    }

    fn publish(&self, frames: EncodedMessage) {
        let grant = self.machine.grant();
        let (stream, epoch, generation) = (grant.stream, grant.epoch, grant.generation);
        let (subject, frames) = match frames {
            EncodedMessage::Live(frames) => (subjects::live(stream, epoch, generation), frames),
            EncodedMessage::Digest(frames) => (subjects::digest(stream, epoch, generation), frames),
            EncodedMessage::Retransmit(frames) => (subjects::repair_live(stream, epoch, generation), frames),
        };
        for frame in frames {
            // What is dropped here is repaired from the author's ring.
            if self.deps.bus.publish(&subject, frame).is_err() {
                self.deps.metrics.facts_dropped.inc();
            }
        }
    }

    fn packaged(&mut self) -> Result<(), JobError> {
        let now = Millis(self.deps.clock.now_ms());
        while let Some(packaged) = self.pipeline.poll() {
            if matches!(packaged, Packaged::Part(..)) {
                self.deps.metrics.parts.inc();
            }
            self.machine.handle(now, Input::Packaged(packaged))?;
        }
        Ok(())
    }

    fn ask_media(&self, request: &RepairRequest) {
        let grant = self.machine.grant();
        let subject = subjects::ring_media(grant.stream, grant.epoch);
        self.ask(subject, request, ASK_TIMEOUT, |reply: RepairReply| Input::MediaReply(reply));
    }

    /// Asks and hands the answer in; without one the machine asks again in its own time.
    fn ask<T: DeserializeOwned + Send>(
        &self,
        subject: String,
        request: &impl serde::Serialize,
        timeout: Duration,
        input: impl FnOnce(T) -> Input + Send + 'static,
    ) {
        let Ok(request) = serde_json::to_vec(request) else { return };
        let (bus, replies) = (self.deps.bus.clone(), self.replies.0.clone());
        tokio::spawn(async move {
            match bus.request(&subject, Bytes::from(request), timeout).await {
                Ok(reply) => {
                    if let Ok(reply) = serde_json::from_slice(&reply) {
                        let _ = replies.send(input(reply)).await;
                    }
                }
                Err(error) => tracing::debug!(%subject, %error, "no answer"),
            }
        });
    }

    fn report(&self, report: &control::SealReport) {
        let Ok(request) = control::encode(report) else { return };
        let (bus, replies) = (self.deps.bus.clone(), self.replies.0.clone());
        tokio::spawn(async move {
            let answer = bus.request(subjects::CONTROL_SEALED, request.into(), REPORT_TIMEOUT).await;
            match answer.map(|answer| control::decode::<control::LeaseReply>(&answer)) {
                // Superseded: a newer epoch is open, and this one's end is recorded by its claim.
                Ok(Ok(_)) => drop(replies.send(Input::Reported).await),
                Ok(Err(error)) => tracing::warn!(%error, "answer to a seal report could not be read"),
                Err(error) => tracing::debug!(%error, "seal report not answered"),
            }
        });
    }

    fn send(&self, subject: &str, body: &impl serde::Serialize) {
        if let Ok(body) = serde_json::to_vec(body)
            && let Err(error) = self.deps.bus.publish(subject, body.into())
        {
            tracing::debug!(subject, %error, "not sent");
        }
    }
}

/// A running stream's PART-TARGET stays; a new stream's is measured.
fn part_setup(base: &StreamState) -> PartSetup {
    let target = [Rendition::video(), Rendition::audio()]
        .iter()
        .find_map(|rendition| base.renditions.get(rendition)?.part_target);
    target.map_or(PartSetup::Measure, |target| PartSetup::Frozen {
        part_target: (target.ticks * 90_000 / u64::from(target.timescale.max(1))) as u32,
    })
}
