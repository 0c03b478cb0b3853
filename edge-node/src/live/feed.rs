//! The feed of one stream: it hands messages of the bus to the stream reader, and executes the reader's outputs: bytes into
//! memory, playlists to requests, repair and snapshot requests to the log writer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use millrace_bus::BusError;
use millrace_link::driver::Driver;
use millrace_link::{Link, LogForm, LogReader, Request};
use millrace_protocol::Millis;
use millrace_protocol::reader::{Input, Media, MediaKind, Output, StreamReader};
use millrace_runtime::actors::Orders;
use millrace_runtime::{ActorContext, Clock, Order, StatusHandle};
use millrace_state::SharedState;
use millrace_wire::fact::{FactMessage, Origin, StreamState};
use millrace_wire::message::repair::{RepairRequest, SnapshotRequest};
use millrace_wire::topics;
use tokio::sync::mpsc;

use crate::live::checkpoint;
use crate::live::lag::{LagReport, LogId};
use crate::live::playlists::{Following, StreamPlaylists};
use crate::live::status::FeedStatus;
use crate::live::stream::LiveStream;
use crate::metrics::EdgeMetrics;
use crate::objects::cache::ObjectCache;
use crate::objects::live::LiveObjects;

/// Fragments that a subscription to a log holds: three seconds of 200 ms parts of eight renditions, each in as many fragments
/// as a 10 Mb/s part needs, several times over.
const LIVE_CAPACITY: usize = 2_048;
/// Announcements that a subscription holds; they come about once a second.
const ANNOUNCE_CAPACITY: usize = 64;
/// Fragments taken together before the playlists are replaced.
const BATCH: usize = 64;
/// The time in which replies to a snapshot request are gathered (ADR 1, rule 8).
const SNAPSHOT_WAIT: Duration = Duration::from_millis(300);
/// Replies to a snapshot request that are gathered: those of the worker, the session and two other followers.
const MAX_SNAPSHOTS: usize = 4;
/// Time between two snapshot requests for a stream without a log, after the first few: a new log writer announces itself.
const SNAPSHOT_BACKOFF: Duration = Duration::from_secs(2);
/// Snapshot requests for a stream without a log that are sent without waiting for [`SNAPSHOT_BACKOFF`].
const QUICK_SNAPSHOT_REQUESTS: u32 = 5;
/// Replies to this feed's requests that wait to be handed to the reader.
const REPLIES: usize = 64;
/// The error of a feed whose bus is closed, which ends with its process.
const BUS_CLOSED: &str = "the bus is closed";

/// The services that feeds share.
#[derive(Clone)]
pub(crate) struct FeedContext {
    pub(crate) link: Link,
    pub(crate) state: SharedState,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cache: Arc<ObjectCache>,
    pub(crate) metrics: EdgeMetrics,
    /// The bound of one feed's parts and segments in memory, in bytes.
    pub(crate) feed_bytes: usize,
}

struct FeedTask {
    context: FeedContext,
    stream: Arc<LiveStream>,
    reader: Driver<StreamReader>,
    objects: LiveObjects,
    log: Option<LogReader>,
    replies: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    /// Fragments that the log's subscriptions have dropped so far.
    dropped: u64,
    status: FeedStatus,
    lag: Option<LagReport>,
    /// The number and the last time of snapshot requests sent while there was no log.
    snapshot_backoff: (u32, Millis),
}

/// The reason why a feed no longer follows its stream.
enum End {
    Stopped,
    Kicked,
}

/// Follows a stream until the actor is stopped. A kick begins anew with nothing folded, while requests keep the playlists they
/// have. Fails when the bus is closed or refuses a subscription.
pub(crate) async fn run(
    context: FeedContext,
    stream: Arc<LiveStream>,
    actor: ActorContext,
) -> anyhow::Result<()> {
    let mut orders = actor.orders();
    loop {
        match follow(&context, &stream, &actor, &mut orders).await? {
            End::Stopped => return Ok(()),
            End::Kicked => tracing::warn!(stream = %stream.id, "feed was kicked; it follows the stream anew"),
        }
    }
}

async fn follow(
    context: &FeedContext,
    stream: &Arc<LiveStream>,
    actor: &ActorContext,
    orders: &mut Orders,
) -> anyhow::Result<End> {
    let link = &context.link;
    let mut epochs = link.subscribe(&topics::epoch(stream.id), ANNOUNCE_CAPACITY).await?;
    let mut sessions = link.subscribe(&topics::session(stream.id), ANNOUNCE_CAPACITY).await?;
    let mut snapshot_requests = link.respond(&topics::snapshot(stream.id), ANNOUNCE_CAPACITY).await?;
    let mut feed = FeedTask::new(context.clone(), stream.clone(), actor.status.clone());
    let mut facts = Vec::with_capacity(BATCH);
    feed.step(Input::Tick).await?;
    loop {
        tokio::select! {
            () = actor.stop.cancelled() => return Ok(End::Stopped),
            taken = receive(&mut feed.log, &mut facts) => {
                anyhow::ensure!(taken > 0, BUS_CLOSED);
                feed.fold(&mut facts).await?;
            }
            epoch = epochs.recv() => feed.step(Input::Epoch(epoch.context(BUS_CLOSED)?)).await?,
            session = sessions.recv() => feed.step(Input::Session(session.context(BUS_CLOSED)?)).await?,
            request = snapshot_requests.recv() => feed.answer_snapshot(&request.context(BUS_CLOSED)?),
            Some(reply) = feed.replies.1.recv() => feed.step(reply).await?,
            () = feed.reader.wait_timeout() => feed.step(Input::Tick).await?,
            // An order that is not a kick is answered as not supported when it is dropped.
            order = orders.recv() => if matches!(order.order(), Order::Kick { .. }) {
                order.accept();
                return Ok(End::Kicked);
            },
        }
    }
}

/// Receives the next facts of the log and returns the number of fragments taken. Never resolves without a log.
async fn receive(log: &mut Option<LogReader>, facts: &mut Vec<FactMessage>) -> usize {
    match log {
        Some(log) => log.recv_many(facts, BATCH).await,
        None => std::future::pending().await,
    }
}

impl FeedTask {
    fn new(context: FeedContext, stream: Arc<LiveStream>, status: StatusHandle) -> Self {
        let now = Millis(context.clock.now_ms());
        context.metrics.feeds.add(1);
        let FeedContext { cache, metrics, feed_bytes, .. } = &context;
        Self {
            reader: Driver::new(StreamReader::new(now, rand::random()), context.clock.clone()),
            objects: LiveObjects::new(stream.playback, cache.clone(), metrics.clone(), *feed_bytes),
            log: None,
            replies: mpsc::channel(REPLIES),
            dropped: 0,
            status: FeedStatus::new(status, context.clock.clone()),
            lag: None,
            snapshot_backoff: (0, now),
            context,
            stream,
        }
    }

    async fn fold(&mut self, facts: &mut Vec<FactMessage>) -> anyhow::Result<()> {
        for fact in facts.drain(..) {
            let Ok(()) = self.reader.handle(Input::Fact(fact));
        }
        self.execute_outputs().await
    }

    async fn step(&mut self, input: Input) -> anyhow::Result<()> {
        let Ok(()) = self.reader.handle(input);
        self.execute_outputs().await
    }

    async fn execute_outputs(&mut self) -> anyhow::Result<()> {
        let (mut changed, mut has_bytes) = (false, false);
        while let Some(output) = self.reader.poll_output() {
            match output {
                Output::Follow(epoch, generation) => self.adopt((epoch, generation)).await?,
                Output::AskSnapshot => self.request_snapshot(),
                Output::Repair(epoch, generation, request) => {
                    self.request_repair((epoch, generation), request);
                }
                Output::Bytes(media) => {
                    self.hold(media);
                    has_bytes = true;
                }
                Output::Changed => changed = true,
            }
        }
        let following = self.report();
        if (changed || has_bytes)
            && let Some(shown) = self.reader.machine().shown()
        {
            self.objects.assemble_complete(shown);
            if changed {
                self.objects.evict(shown);
                self.stream.publish(StreamPlaylists::new(shown.clone(), following));
            } else {
                self.stream.wake();
            }
        }
        // After the playlists: a request that waits for the end of a lag must not find the ones from before it.
        self.stream.set_following(following);
        Ok(())
    }

    fn hold(&mut self, media: Media) {
        let Media { rendition, epoch, generation, what, bytes } = media;
        match what {
            MediaKind::Init(version) => self.objects.init(&rendition, epoch, version, bytes),
            MediaKind::Part(msn, part) => {
                self.objects.part(&rendition, epoch, msn, (generation, part), bytes);
            }
            MediaKind::Segment(msn) => self.objects.segment(&rendition, epoch, msn, generation, bytes),
        }
    }

    async fn adopt(&mut self, log: LogId) -> Result<(), BusError> {
        let (link, stream) = (&self.context.link, self.stream.id);
        tracing::debug!(%stream, epoch = %log.0, generation = %log.1, "feed follows a new log");
        self.log = Some(LogReader::follow(link, stream, log, LogForm::Live, LIVE_CAPACITY).await?);
        self.dropped = 0;
        Ok(())
    }

    /// Requests snapshots of the stream in a task of its own, which hands the replies to the reader.
    fn request_snapshot(&mut self) {
        let now = self.reader.now();
        if self.reader.machine().log().is_none() {
            let (sent, last) = self.snapshot_backoff;
            if sent >= QUICK_SNAPSHOT_REQUESTS && now - last < SNAPSHOT_BACKOFF.as_millis() as u64 {
                return;
            }
            self.snapshot_backoff = (sent + 1, now);
        }
        let (context, stream, replies) = (self.context.clone(), self.stream.id, self.replies.0.clone());
        tokio::spawn(async move {
            let topic = topics::snapshot(stream);
            let gathered =
                context.link.gather(&topic, &SnapshotRequest {}, SNAPSHOT_WAIT, MAX_SNAPSHOTS).await;
            let mut found = gathered.unwrap_or_default();
            if found.iter().all(|state| state.slots.is_empty()) {
                found.extend(checkpoint::read(&context.state, stream).await);
            } else if found.iter().any(|state| state.origin == Origin::Log) {
                // Nodes that follow the log know more of it than the checkpoint.
                found.retain(|state| state.origin == Origin::Log);
            }
            for snapshot in found {
                let _ = replies.send(Input::Snapshot(Box::new(snapshot))).await;
            }
        });
    }

    /// Answers a snapshot request with the state folded here: a session whose log writer has died continues from it.
    fn answer_snapshot(&self, request: &Request<SnapshotRequest, StreamState>) {
        if let Some(snapshot) = self.reader.machine().snapshot() {
            request.respond(snapshot);
        }
    }

    /// Requests facts of the adopted log again in a task of its own, which hands the reply to the reader.
    fn request_repair(&self, (epoch, generation): LogId, request: RepairRequest) {
        // The reader asks the log it has adopted last, which is the one followed here.
        let Some(log) = &self.log else { return };
        let (answered, replies) = (log.ask_repair(request), self.replies.0.clone());
        tokio::spawn(async move {
            if let Some(reply) = answered.await {
                let _ = replies.send(Input::RepairReply(epoch, generation, reply)).await;
            }
        });
    }

    /// Reports how the log is followed: in metrics, in log lines and in the actor's status.
    fn report(&mut self) -> Following {
        let (following, id) = (self.following(), self.reader.machine().log());
        match (following, id) {
            (Following::Lagging, Some(log)) => {
                let Self { context, stream, lag, .. } = self;
                let begin =
                    || LagReport::begin(context.metrics.clone(), context.clock.clone(), stream.id, log);
                lag.get_or_insert_with(begin);
            }
            _ => self.lag = None,
        }
        self.status.follows(following, id, self.lag.as_ref());
        if let Some(log) = &self.log {
            let dropped = log.dropped();
            self.context.metrics.feed_dropped.add(dropped.saturating_sub(self.dropped));
            self.dropped = dropped;
            self.status.queue(log.waiting());
        }
        following
    }

    fn following(&self) -> Following {
        let reader = self.reader.machine();
        let ended = reader.shown().is_some_and(|shown| shown.ended);
        match reader.log() {
            None => Following::NoLog,
            // Viewers see nothing after an ENDLIST, so facts that are missing after it hold no answer back.
            Some(_) if ended || reader.is_current(self.reader.now()) => Following::Current,
            Some(_) => Following::Lagging,
        }
    }
}

impl Drop for FeedTask {
    fn drop(&mut self) {
        self.context.metrics.feeds.add(-1);
    }
}
