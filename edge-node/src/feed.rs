//! A feed's shell: bus messages into the fold, and what the fold says into memory, playlists and requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{BusError, SharedBus, Subscription};
use millrace_protocol::reader::{Input, MediaKind, Output, StreamReader};
use millrace_protocol::state::checkpoint;
use millrace_protocol::{Machine, Millis};
use millrace_runtime::{Alarm, Clock};
use millrace_state::SharedState;
use millrace_wire::fact::{FactReader, StreamState};
use millrace_wire::ids::{Epoch, Generation, PartIndex, StreamId};
use millrace_wire::message::announce::{EpochAnnouncement, SessionAnnouncement};
use millrace_wire::message::repair::{RepairReply, RepairRequest, SnapshotRequest};
use millrace_wire::{state_keys, subjects, topic};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cache::ObjectCache;
use crate::hot::Hot;
use crate::metrics::EdgeMetrics;
use crate::stream::LiveStream;
use crate::view::View;

/// Messages a subscription to an author holds: three seconds of 200 ms parts of eight renditions, each in as many
/// fragments as a 10 Mb/s part needs, several times over.
const LIVE_CAPACITY: usize = 2_048;
/// Announcements come about once a second.
const ANNOUNCE_CAPACITY: usize = 64;
/// Messages taken together before the playlists are rendered again.
const BATCH: usize = 64;
/// Snapshots are waited for this long (the protocol's rule 8).
const SNAPSHOT_WAIT: Duration = Duration::from_millis(300);
/// Worker, session and two other followers.
const MAX_SNAPSHOTS: usize = 4;
/// A stream that nobody follows is asked about this often, after the first few times: a new author announces itself.
const COLD_ASK: Duration = Duration::from_secs(2);
const QUICK_ASKS: u32 = 5;
/// The state store's time to say how a stream stood.
const STORED_WAIT: Duration = Duration::from_secs(3);
/// An author's time to answer a repair request.
const REPAIR_WAIT: Duration = Duration::from_millis(500);
/// Answers under way from spawned requests.
const REPLIES: usize = 64;
/// A feed without anything to do looks at its lag this often.
const LOOK: Duration = Duration::from_millis(500);

/// What a feed works with.
#[derive(Clone)]
pub(crate) struct FeedDeps {
    pub(crate) bus: SharedBus,
    pub(crate) state: SharedState,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cache: Arc<ObjectCache>,
    pub(crate) metrics: EdgeMetrics,
    pub(crate) feed_bytes: usize,
}

struct Shell {
    deps: FeedDeps,
    stream: Arc<LiveStream>,
    feed: StreamReader,
    hot: Hot,
    /// Facts and repaired facts of the adopted author.
    live: Option<(Subscription, Subscription)>,
    readers: (FactReader, FactReader),
    replies: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    dropped: u64,
    lagging: bool,
    /// How often, and when last, a stream without an author was asked about.
    asked_cold: (u32, Millis),
}

/// Follows a stream until told to stop.
pub(crate) async fn run(
    deps: FeedDeps,
    stream: Arc<LiveStream>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut epochs = deps.bus.subscribe(&subjects::epoch(stream.id), ANNOUNCE_CAPACITY).await?;
    let mut sessions = deps.bus.subscribe(&subjects::session(stream.id), ANNOUNCE_CAPACITY).await?;
    let mut snaps = deps.bus.subscribe(&subjects::snap(stream.id), ANNOUNCE_CAPACITY).await?;
    let now = Millis(deps.clock.now_ms());
    let hot = Hot::new(stream.playback, deps.cache.clone(), deps.metrics.clone(), deps.feed_bytes);
    let mut shell = Shell {
        feed: StreamReader::new(now, rand::random()),
        hot,
        live: None,
        readers: Default::default(),
        replies: mpsc::channel(REPLIES),
        dropped: 0,
        lagging: false,
        asked_cold: (0, now),
        deps,
        stream,
    };
    let mut batch = Vec::with_capacity(BATCH);
    let mut alarm = Alarm::default();
    shell.turn(Input::Tick).await?;
    loop {
        alarm.within(shell.until_timeout());
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            (got, repaired) = receive(&mut shell.live, &mut batch) => shell.facts(got, &mut batch, repaired).await?,
            message = epochs.recv() => match message {
                Some(m) => shell.announcement::<EpochAnnouncement>(&m.payload, Input::Epoch).await?,
                None => anyhow::bail!("the bus is closed"),
            },
            message = sessions.recv() => match message {
                Some(m) => shell.announcement::<SessionAnnouncement>(&m.payload, Input::Session).await?,
                None => anyhow::bail!("the bus is closed"),
            },
            message = snaps.recv() => match message {
                Some(m) => shell.answer_snapshot(m.reply.as_deref()),
                None => anyhow::bail!("the bus is closed"),
            },
            Some(input) = shell.replies.1.recv() => shell.turn(input).await?,
            () = alarm.ring() => shell.turn(Input::Tick).await?,
        }
    }
}

/// The next messages of the author, and whether they are repaired ones; never resolves without an author.
async fn receive(
    from: &mut Option<(Subscription, Subscription)>,
    batch: &mut Vec<millrace_bus::Message>,
) -> (usize, bool) {
    let Some((live, repair)) = from else { return std::future::pending().await };
    let mut repaired = Vec::new();
    let (got, late) = tokio::select! {
        got = live.recv_many(batch, BATCH) => (got, false),
        got = repair.recv_many(&mut repaired, BATCH) => (got, true),
    };
    batch.append(&mut repaired);
    (got, late)
}

impl Shell {
    fn until_timeout(&self) -> Duration {
        let now = Millis(self.deps.clock.now_ms());
        let due = self.feed.next_timeout().map_or(LOOK, |at| Duration::from_millis(at - now));
        due.clamp(Duration::from_millis(1), LOOK)
    }

    async fn announcement<T: topic::Message>(
        &mut self,
        payload: &Bytes,
        input: impl FnOnce(T) -> Input,
    ) -> anyhow::Result<()> {
        match topic::decode::<T>(payload) {
            Ok(announcement) => self.turn(input(announcement)).await,
            Err(error) => {
                tracing::warn!(stream = %self.stream.id, %error, "announcement could not be read");
                Ok(())
            }
        }
    }

    async fn facts(
        &mut self,
        got: usize,
        batch: &mut Vec<millrace_bus::Message>,
        repaired: bool,
    ) -> anyhow::Result<()> {
        if got == 0 {
            anyhow::bail!("the bus is closed");
        }
        let now = Millis(self.deps.clock.now_ms());
        for message in batch.drain(..) {
            let reader = if repaired { &mut self.readers.1 } else { &mut self.readers.0 };
            match reader.push(message.payload) {
                Ok(Some(fact)) => {
                    let Ok(()) = self.feed.handle(now, Input::Fact(fact));
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(stream = %self.stream.id, %error, "fact could not be read"),
            }
        }
        self.outputs().await
    }

    async fn turn(&mut self, input: Input) -> anyhow::Result<()> {
        let Ok(()) = self.feed.handle(Millis(self.deps.clock.now_ms()), input);
        self.outputs().await
    }

    async fn outputs(&mut self) -> anyhow::Result<()> {
        let (mut changed, mut bytes) = (false, false);
        while let Some(output) = self.feed.poll_output() {
            match output {
                Output::Follow(epoch, generation) => self.follow(epoch, generation).await?,
                Output::AskSnapshot => self.ask_snapshot(),
                Output::Repair(epoch, generation, request) => self.repair(epoch, generation, &request),
                Output::Bytes(media) => {
                    let (r, e, g) = (&media.rendition, media.epoch, media.generation);
                    match media.what {
                        MediaKind::Init(version) => self.hot.init(r, e, version, media.bytes),
                        MediaKind::Part(msn, part) => self.hot.part(r, e, msn, (g, part), media.bytes),
                        MediaKind::Segment(msn) => self.hot.whole(r, e, msn, g, media.bytes),
                    }
                    bytes = true;
                }
                Output::Changed => changed = true,
            }
        }
        self.note_lag();
        let current = self.feed.is_current(Millis(self.deps.clock.now_ms()));
        if (changed || bytes)
            && let Some(shown) = self.feed.shown()
        {
            join_complete(&mut self.hot, shown);
            if changed {
                self.hot.retain(shown);
                self.stream.publish(View::new(shown.clone(), current));
            } else {
                self.stream.wake();
            }
        }
        Ok(())
    }

    async fn follow(&mut self, epoch: Epoch, generation: Generation) -> Result<(), BusError> {
        let stream = self.stream.id;
        tracing::debug!(%stream, %epoch, %generation, "following a new author");
        let live = self.deps.bus.subscribe(&subjects::live(stream, epoch, generation), LIVE_CAPACITY).await?;
        let repair = subjects::repair_live(stream, epoch, generation);
        let repair = self.deps.bus.subscribe(&repair, LIVE_CAPACITY).await?;
        self.live = Some((live, repair));
        self.readers = Default::default();
        self.dropped = 0;
        Ok(())
    }

    fn ask_snapshot(&mut self) {
        let now = Millis(self.deps.clock.now_ms());
        if self.feed.log().is_none() {
            let (asked, last) = self.asked_cold;
            if asked >= QUICK_ASKS && now - last < COLD_ASK.as_millis() as u64 {
                return;
            }
            self.asked_cold = (asked + 1, now);
        }
        let (deps, sender, stream) = (self.deps.clone(), self.replies.0.clone(), self.stream.id);
        tokio::spawn(async move {
            let subject = subjects::snap(stream);
            let Ok(ask) = topic::encode(&SnapshotRequest {}) else { return };
            let gathered = deps.bus.gather(&subject, ask, SNAPSHOT_WAIT, MAX_SNAPSHOTS).await;
            let read = |reply: Bytes| topic::decode::<StreamState>(&reply).ok();
            let mut found: Vec<_> = gathered.unwrap_or_default().into_iter().filter_map(read).collect();
            if found.iter().all(|s| s.slots.is_empty()) {
                found.extend(stored(&deps.state, stream).await);
            } else if found.iter().any(|s| s.generation > Generation(0)) {
                // Those who follow know more than what was stored.
                found.retain(|s| s.generation > Generation(0));
            }
            for snapshot in found {
                let _ = sender.send(Input::Snapshot(Box::new(snapshot))).await;
            }
        });
    }

    /// What this feed has folded is worth having for a session whose stream's last author is gone.
    fn answer_snapshot(&self, reply: Option<&str>) {
        let (Some(snapshot), Some(reply)) = (self.feed.snapshot(), reply) else { return };
        if let Ok(snapshot) = topic::encode(snapshot)
            && let Err(error) = self.deps.bus.respond(reply, snapshot)
        {
            tracing::debug!(stream = %self.stream.id, %error, "snapshot not sent");
        }
    }

    fn repair(&self, epoch: Epoch, generation: Generation, request: &RepairRequest) {
        let Ok(request) = topic::encode(request) else { return };
        let (bus, sender) = (self.deps.bus.clone(), self.replies.0.clone());
        let subject = subjects::ring_live(self.stream.id, epoch, generation);
        tokio::spawn(async move {
            let Ok(reply) = bus.request(&subject, request, REPAIR_WAIT).await else { return };
            if let Ok(reply) = topic::decode::<RepairReply>(&reply) {
                let _ = sender.send(Input::RepairReply(epoch, generation, reply)).await;
            }
        });
    }

    fn note_lag(&mut self) {
        let now = Millis(self.deps.clock.now_ms());
        let lagging = self.feed.log().is_some() && !self.feed.is_current(now);
        if lagging != self.lagging {
            self.lagging = lagging;
            self.deps.metrics.feeds_lagging.add(if lagging { 1 } else { -1 });
            self.stream.set_current(!lagging);
        }
        if let Some((live, repair)) = &self.live {
            let dropped = live.dropped() + repair.dropped();
            self.deps.metrics.feed_dropped.add(dropped.saturating_sub(self.dropped));
            self.dropped = dropped;
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if self.lagging {
            self.deps.metrics.feeds_lagging.add(-1);
        }
    }
}

/// The state that the stream's last author left.
async fn stored(state: &SharedState, stream: StreamId) -> Option<StreamState> {
    let key = state_keys::snapshot(stream);
    match tokio::time::timeout(STORED_WAIT, state.get(&key)).await {
        Ok(Ok(record)) => topic::decode(&record?.value).ok().map(checkpoint::base),
        Ok(Err(error)) => {
            tracing::warn!(%stream, %error, "the stored state could not be read");
            None
        }
        Err(_) => None,
    }
}

/// Joins the segments that have all their parts and no bytes of their own yet.
fn join_complete(hot: &mut Hot, shown: &StreamState) {
    for slot in &shown.slots {
        for (rendition, track) in &slot.tracks {
            let Some(segment) = &track.segment else { continue };
            if track.parts.len() == segment.parts as usize
                && !hot.has_whole(rendition, slot.epoch, slot.msn, segment.generation)
            {
                let parts: Vec<_> =
                    track.parts.iter().zip(0..).map(|(p, i)| (p.generation, PartIndex(i))).collect();
                hot.join(rendition, slot.epoch, slot.msn, segment.generation, &parts);
            }
        }
    }
}
