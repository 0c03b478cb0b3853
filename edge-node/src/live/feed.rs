//! The feed of one stream: it hands messages of the bus to the stream reader, and executes the reader's outputs: bytes into
//! memory, playlists to requests, repair and snapshot requests to the log writer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use millrace_bus::BusError;
use millrace_link::driver::Driver;
use millrace_link::{Link, LogForm, LogReader, Request};
use millrace_protocol::Millis;
use millrace_protocol::reader::{CURRENT_MS, Input, Media, MediaKind, Output, StreamReader};
use millrace_runtime::actors::Orders;
use millrace_runtime::{ActorContext, Clock, Order, StatusHandle};
use millrace_state::SharedState;
use millrace_wire::fact::{FactMessage, StreamState};
use millrace_wire::message::repair::{RepairRequest, SnapshotRequest};
use millrace_wire::topics;
use tokio::sync::mpsc;

use crate::live::arrivals::Arrivals;
use crate::live::lag::{LagReport, LogId};
use crate::live::playlists::{Following, Presence, StreamPlaylists};
use crate::live::snapshots;
use crate::live::status::FeedStatus;
use crate::live::stream::LiveStream;
use crate::metrics::EdgeMetrics;
use crate::objects::cache::ObjectCache;
use crate::objects::live::LiveObjects;

/// Fragments that a subscription to a log holds. With the bus's usual limit of 1 MiB a part is one fragment, so eight renditions
/// with five parts a second fill 40 a second and this holds 50 s of them; with fragments of 64 KiB a 250 kB part (200 ms at
/// 10 Mb/s) is four, and it holds 12 s.
const LIVE_CAPACITY: usize = 2_048;
/// Announcements that a subscription holds; they come about once a second.
const ANNOUNCE_CAPACITY: usize = 64;
/// Fragments taken together before the playlists are replaced.
const BATCH: usize = 64;
/// Time between two snapshot requests for a stream without a log, after the first few. A new log writer announces itself, so
/// requests are for one whose announcement was lost, and each costs every follower a reply.
const SNAPSHOT_BACKOFF: Duration = Duration::from_secs(2);
/// Snapshot requests for a stream without a log that are sent without waiting for [`SNAPSHOT_BACKOFF`].
const QUICK_SNAPSHOT_REQUESTS: u32 = 5;
/// Replies to this feed's snapshot and repair requests that wait for the reader; a task with a reply waits for room.
const REPLIES: usize = 64;
/// The error of a feed whose bus is closed: the bus closes when the process ends.
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

/// The objects of one feed, which outlive a kick and a restart: open playlists list them.
pub(crate) type SharedObjects = Arc<Mutex<LiveObjects>>;

/// Creates the empty set of objects of the feed of `stream`.
pub(crate) fn objects(context: &FeedContext, stream: &LiveStream) -> SharedObjects {
    let FeedContext { cache, metrics, feed_bytes, .. } = context;
    Arc::new(Mutex::new(LiveObjects::new(stream.playback, cache.clone(), metrics.clone(), *feed_bytes)))
}

struct FeedTask {
    context: FeedContext,
    stream: Arc<LiveStream>,
    reader: Driver<StreamReader>,
    objects: SharedObjects,
    /// True until the reader knows as much as the playlists that an earlier run of this feed has published.
    catching_up: bool,
    log: Option<LogReader>,
    replies: (mpsc::Sender<Reply>, mpsc::Receiver<Reply>),
    /// Fragments that the log's subscriptions have dropped so far.
    dropped: u64,
    status: FeedStatus,
    lag: Option<LagReport>,
    /// The number and the last time of snapshot requests sent while there was no log.
    snapshot_backoff: (u32, Millis),
    /// True once a snapshot request has ended, with or without a reply.
    has_looked: bool,
    arrivals: Arrivals,
    /// False from the publisher's absence until a part comes.
    is_present: bool,
}

/// A message of this feed's own tasks.
enum Reply {
    Input(Input),
    /// All replies to a snapshot request have been handed over.
    Looked,
}

/// The reason why a feed no longer follows its stream.
enum End {
    Stopped,
    Kicked,
}

/// Follows a stream until the actor is stopped. A kick, an operator's order, begins anew with nothing folded; so does a restart
/// after a failure. Meanwhile requests are answered with the last playlists and the objects in memory; a playlist is replaced
/// once the new reader knows at least as much. Fails when the bus is closed or refuses a subscription.
pub(crate) async fn run(
    context: FeedContext,
    stream: Arc<LiveStream>,
    objects: SharedObjects,
    actor: ActorContext,
) -> anyhow::Result<()> {
    let mut orders = actor.orders();
    loop {
        match follow(&context, &stream, &objects, &actor, &mut orders).await? {
            End::Stopped => return Ok(()),
            End::Kicked => tracing::warn!(stream = %stream.id, "feed was kicked; it follows the stream anew"),
        }
    }
}

async fn follow(
    context: &FeedContext,
    stream: &Arc<LiveStream>,
    objects: &SharedObjects,
    actor: &ActorContext,
    orders: &mut Orders,
) -> anyhow::Result<End> {
    let link = &context.link;
    let mut epochs = link.subscribe(&topics::epoch(stream.id), ANNOUNCE_CAPACITY).await?;
    let mut sessions = link.subscribe(&topics::session(stream.id), ANNOUNCE_CAPACITY).await?;
    let mut snapshot_requests = link.respond(&topics::snapshot(stream.id), ANNOUNCE_CAPACITY).await?;
    let mut feed = FeedTask::new(context.clone(), stream.clone(), objects.clone(), actor.status.clone());
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
            Some(reply) = feed.replies.1.recv() => feed.take_reply(reply).await?,
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
    fn new(
        context: FeedContext,
        stream: Arc<LiveStream>,
        objects: SharedObjects,
        status: StatusHandle,
    ) -> Self {
        let now = Millis(context.clock.now_ms());
        context.metrics.feeds.add(1);
        Self {
            reader: Driver::new(StreamReader::new(now, rand::random()), context.clock.clone()),
            objects,
            catching_up: true,
            log: None,
            replies: mpsc::channel(REPLIES),
            dropped: 0,
            status: FeedStatus::new(status, context.clock.clone()),
            lag: None,
            snapshot_backoff: (0, now),
            has_looked: false,
            arrivals: Arrivals::new(now),
            is_present: true,
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

    async fn take_reply(&mut self, reply: Reply) -> anyhow::Result<()> {
        match reply {
            Reply::Input(input) => self.step(input).await,
            Reply::Looked => {
                self.has_looked = true;
                self.step(Input::Tick).await
            }
        }
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
                    if matches!(media.what, MediaKind::Part(..)) {
                        self.arrivals.part(self.reader.now());
                        self.is_present = true;
                    }
                    self.hold(media);
                    has_bytes = true;
                }
                Output::Changed => changed = true,
            }
        }
        let (following, presence) = (self.report(), self.presence());
        if (changed || has_bytes)
            && let Some(shown) = self.reader.machine().shown()
        {
            self.catching_up = self.catching_up && self.stream.playlists().is_beyond(shown);
            let mut objects = lock(&self.objects);
            objects.assemble_complete(shown);
            if changed && !self.catching_up {
                objects.evict(shown);
                self.stream.publish(StreamPlaylists::new(shown.clone(), following, presence));
            } else {
                self.stream.wake();
            }
        }
        // After the playlists: a request that waits for the end of a lag must not find the ones from before it.
        self.stream.set_following(following, presence);
        Ok(())
    }

    fn hold(&self, media: Media) {
        let mut objects = lock(&self.objects);
        let Media { rendition, epoch, generation, what, bytes } = media;
        match what {
            MediaKind::Init(version) => objects.init(&rendition, epoch, version, bytes),
            MediaKind::Part(msn, part) => {
                objects.part(&rendition, epoch, msn, (generation, part), bytes);
            }
            MediaKind::Segment(msn) => objects.segment(&rendition, epoch, msn, generation, bytes),
        }
    }

    async fn adopt(&mut self, log: LogId) -> Result<(), BusError> {
        let (link, stream) = (&self.context.link, self.stream.id);
        tracing::debug!(%stream, epoch = %log.0, generation = %log.1, "feed follows a new log");
        self.log = Some(LogReader::follow(link, stream, log, LogForm::Live, LIVE_CAPACITY).await?);
        self.dropped = 0;
        self.snapshot_backoff.0 = 0;
        self.arrivals = Arrivals::new(self.reader.now());
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
        let is_first = !self.has_looked;
        tokio::spawn(async move {
            let found = snapshots::request(&context.link, &context.state, stream, is_first).await;
            for snapshot in found {
                let _ = replies.send(Reply::Input(Input::Snapshot(Box::new(snapshot)))).await;
            }
            let _ = replies.send(Reply::Looked).await;
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
                let _ = replies.send(Reply::Input(Input::RepairReply(epoch, generation, reply))).await;
            }
        });
    }

    /// Reports how the log is followed: in metrics, in log lines and in the actor's status.
    fn report(&mut self) -> Following {
        let (following, id) = (self.following(), self.reader.machine().log());
        let lagging_ms = self.reader.machine().lagging_ms(self.reader.now());
        match (following, id) {
            // A log that was adopted a moment ago is not behind: its first facts are on their way.
            (Following::Lagging, Some(log)) if lagging_ms >= CURRENT_MS => {
                let Self { context, stream, lag, .. } = self;
                // A new log is a new lag: the report names the log that is behind.
                if lag.as_ref().is_some_and(|report| report.log() != log) {
                    *lag = None;
                }
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

    /// Returns the publisher's presence. Once away, a publisher is present again with its first part.
    fn presence(&mut self) -> Presence {
        let reader = self.reader.machine();
        let is_still = reader.log().is_some() && self.arrivals.is_still(self.reader.now());
        if reader.is_away() || is_still {
            self.is_present = false;
        }
        match (reader.has_broadcast(), self.has_looked) {
            (true, _) if self.is_present => Presence::Publishing,
            (true, _) => Presence::Away,
            (false, true) => Presence::NoPublisher,
            (false, false) => Presence::Unknown,
        }
    }

    fn following(&self) -> Following {
        let reader = self.reader.machine();
        let ended = reader.shown().is_some_and(|shown| shown.ended);
        match reader.log() {
            None => Following::NoLog,
            // A playlist with ENDLIST does not change any more, so facts that are still missing cannot make it older.
            Some(_) if ended || reader.is_current(self.reader.now()) => Following::Current,
            Some(_) => Following::Lagging,
        }
    }
}

fn lock(objects: &SharedObjects) -> MutexGuard<'_, LiveObjects> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for FeedTask {
    fn drop(&mut self) {
        self.context.metrics.feeds.add(-1);
    }
}
