//! A publisher's session, a control and a reader for the node under test.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test helper fails its test by panicking")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millrace_buf::Arena;
use millrace_bus::{MemBus, ReaderConfig, SharedBus};
use millrace_node::Backends;
use millrace_protocol::state::apply;
use millrace_runtime::{Metrics, Process};
use millrace_state::{FaultyState, RedbState, SharedState, StateFaults, Tx, scan_all};
use millrace_store::{DirStore, FaultyStore, SharedStore, StoreFaults, SyncPolicy};
use millrace_transcode::rungs::{BuiltInRungs, RungFactory};
use millrace_transcode::{Config, Deps, Node, start_with_rungs};
use millrace_wire::fact::{Fact, FactMessage, FactReader, StreamState};
use millrace_wire::ids::{
    Epoch, Generation, MediaSeq, Msn, NodeId, PlaybackId, Rendition, SessionId, StreamId,
};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase, IndexFact, SessionAnnouncement};
use millrace_wire::message::control::{LeaseReply, StreamSettings};
use millrace_wire::message::job::{Bid, COPY_COST, Grant, GrantOrder, Heartbeat, Offer};
use millrace_wire::message::media::MediaMessage;
use millrace_wire::message::repair::{RepairReply, RepairRequest};
use millrace_wire::object_names::{ObjectKind, ObjectName};
use millrace_wire::topic::Topic;
use millrace_wire::{state_keys, topic, topics};

use super::audio::open;

/// The longest anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
const EPOCH: Epoch = Epoch(1);

pub(crate) fn stream() -> StreamId {
    StreamId::from_u128(9)
}

pub(crate) fn session() -> SessionId {
    SessionId::from_u128(5)
}

pub(crate) fn playback() -> PlaybackId {
    "00112233445566778899aabbccddeeff".parse().unwrap()
}

/// Waits until `found` gives something.
pub(crate) async fn eventually<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[derive(Default)]
struct Received {
    bids: Vec<Bid>,
    heartbeats: Vec<Heartbeat>,
    facts: Vec<FactMessage>,
    media: Vec<MediaMessage>,
}

/// The cluster around one worker node.
pub(crate) struct World {
    pub(crate) bus: SharedBus,
    pub(crate) store: SharedStore,
    pub(crate) state: SharedState,
    faulty_state: FaultyState,
    faulty_store: FaultyStore,
    received: Arc<Mutex<Received>>,
    round: AtomicU64,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = RedbState::open(dir.path().join("state.redb")).await.unwrap();
        let store = DirStore::open(dir.path().join("store"), SyncPolicy::default()).await.unwrap();
        let bus: SharedBus = Arc::new(MemBus::new());
        let state: SharedState = Arc::new(state);
        let store: SharedStore = Arc::new(store);
        let world = Self {
            bus,
            faulty_store: FaultyStore::new(store.clone(), 1),
            store,
            faulty_state: FaultyState::new(state.clone(), 1),
            state,
            received: Arc::default(),
            round: AtomicU64::new(1),
            _dir: dir,
        };
        world.serve().await;
        world
    }

    pub(crate) async fn node(&self, name: &str) -> (Node, Metrics) {
        self.node_with(name, Config::default()).await
    }

    pub(crate) async fn node_with(&self, name: &str, config: Config) -> (Node, Metrics) {
        let (node, process) = self.node_in_process(name, config).await;
        (node, process.metrics)
    }

    /// As [`World::node_with`], with all services of the node's process.
    pub(crate) async fn node_in_process(&self, name: &str, config: Config) -> (Node, Process) {
        self.node_with_rungs(name, config, Arc::new(BuiltInRungs::default())).await
    }

    /// As [`World::node_in_process`], with jobs whose rungs `rungs` starts.
    pub(crate) async fn node_with_rungs(
        &self,
        name: &str,
        config: Config,
        rungs: Arc<dyn RungFactory>,
    ) -> (Node, Process) {
        let process = Process::default();
        let state = Arc::new(self.faulty_state.clone());
        let store = Arc::new(self.faulty_store.clone());
        let backends = Backends { bus: self.bus.clone(), store, state };
        let deps = Deps { backends, process: process.clone(), node: Some(name.parse().unwrap()) };
        (start_with_rungs(config, deps, rungs).await.unwrap(), process)
    }

    /// Makes the state store fail every call of the node, or answer again.
    pub(crate) fn set_state_away(&self, away: bool) {
        self.faulty_state.set(StateFaults { away, ..StateFaults::default() });
    }

    /// Makes the object store fail every call of the node, or answer again.
    pub(crate) fn set_store_away(&self, away: bool) {
        self.faulty_store.set(StoreFaults { away, ..StoreFaults::default() });
    }

    /// Answers repair requests as a session does and seal reports as control does, and records bids and heartbeats.
    async fn serve(&self) {
        let bus = self.bus.clone();
        let mut bids = bus.subscribe(topics::bid(session()).subject(), 64).await.unwrap();
        let heartbeats = topics::heartbeat(stream(), EPOCH);
        let mut beats = bus.subscribe(heartbeats.subject(), 1024).await.unwrap();
        let mut ring = bus.subscribe(topics::ring_media(stream(), EPOCH).subject(), 64).await.unwrap();
        let mut sealed = bus.subscribe(topics::sealed().subject(), 64).await.unwrap();
        let received = self.received.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(bid) = bids.recv() => {
                        received.lock().unwrap().bids.push(topic::decode(&bid.payload).unwrap());
                    }
                    Some(beat) = beats.recv() => {
                        received.lock().unwrap().heartbeats.push(topic::decode(&beat.payload).unwrap());
                    }
                    Some(request) = ring.recv() => {
                        let media = received.lock().unwrap().media.clone();
                        let oldest = media.first().map(|m| m.seq.0);
                        let reply = RepairReply { oldest, next: media.len() as u64 };
                        let reply = topic::encode(&reply).unwrap();
                        bus.respond(request.reply.as_ref().unwrap(), reply).unwrap();
                        for (from, to) in topic::decode::<RepairRequest>(&request.payload).unwrap().ranges {
                            for message in media.iter().filter(|m| (from..=to).contains(&m.seq.0)) {
                                send(&bus, &topics::repair_media(stream(), EPOCH), message);
                            }
                        }
                    }
                    Some(report) = sealed.recv() => {
                        let reply = topic::encode(&LeaseReply::Ok).unwrap();
                        bus.respond(report.reply.as_ref().unwrap(), reply).unwrap();
                    }
                    else => return,
                }
            }
        });
    }

    /// Records the facts that the author of `generation` publishes from now on.
    pub(crate) async fn follow(&self, generation: Generation) {
        let live = topics::live(stream(), EPOCH, generation);
        let mut live = self.bus.subscribe(live.subject(), 4096).await.unwrap();
        let received = self.received.clone();
        tokio::spawn(async move {
            let mut reader = FactReader::default();
            while let Some(message) = live.recv().await {
                if let Some(fact) = reader.push(message.payload).unwrap() {
                    received.lock().unwrap().facts.push(fact);
                }
            }
        });
    }

    fn send_message<T: topic::Message>(&self, topic: &Topic<T>, message: &T) {
        self.bus.publish(topic.subject(), topic.encode(message).unwrap()).unwrap();
    }

    /// Offers the job until `node` bids for it.
    pub(crate) async fn offer(&self, node: &str) -> Bid {
        self.offer_of(node, COPY_COST).await
    }

    /// As [`World::offer`], for a job of this cost.
    pub(crate) async fn offer_of(&self, node: &str, cost: u64) -> Bid {
        let round = self.round.fetch_add(1, Ordering::Relaxed);
        let offer = Offer { stream: stream(), epoch: EPOCH, session: session(), round, cost };
        eventually("a bid", async || {
            // Repeated like a session does: the node may not listen yet.
            self.send_message(&topics::offer(), &offer);
            self.received
                .lock()
                .unwrap()
                .bids
                .iter()
                .find(|b| b.round == round && b.node.as_str() == node)
                .cloned()
        })
        .await
    }

    /// Offers a job of this cost once; the offer's number.
    pub(crate) fn offer_once(&self, cost: u64) -> u64 {
        let round = self.round.fetch_add(1, Ordering::Relaxed);
        let offer = Offer { stream: stream(), epoch: EPOCH, session: session(), round, cost };
        self.send_message(&topics::offer(), &offer);
        round
    }

    pub(crate) fn bids(&self) -> Vec<Bid> {
        self.received.lock().unwrap().bids.clone()
    }

    pub(crate) fn grant(&self, node: &str, generation: u64, base: StreamState, settings: StreamSettings) {
        let grant = Grant {
            stream: stream(),
            playback: playback(),
            session: session(),
            epoch: EPOCH,
            generation: Generation(generation),
            open: open(),
            cost: COPY_COST,
            base,
            resume_from: MediaSeq(0),
            pre_roll_from: None,
            settings,
        };
        let node: NodeId = node.parse().unwrap();
        self.send_message(&topics::grant(&node), &GrantOrder::Grant(Box::new(grant)));
    }

    pub(crate) fn revoke(&self, node: &str, generation: u64) {
        let node: NodeId = node.parse().unwrap();
        let (stream, generation) = (stream(), Generation(generation));
        let revoke = GrantOrder::Revoke { stream, epoch: EPOCH, generation };
        self.send_message(&topics::grant(&node), &revoke);
    }

    pub(crate) fn first_base() -> StreamState {
        apply::empty(open().broadcast)
    }

    /// Media of the session: kept for repair, and published.
    pub(crate) fn publish(&self, messages: &[MediaMessage]) {
        self.received.lock().unwrap().media.extend_from_slice(messages);
        for message in messages {
            send(&self.bus, &topics::media(stream(), EPOCH), message);
        }
    }

    pub(crate) fn announce_generation(&self, generation: u64, worker: &str) {
        let generation = Some(Generation(generation));
        let (stream, session, worker) = (stream(), session(), worker.parse().ok());
        let announcement =
            SessionAnnouncement { stream, epoch: EPOCH, session, generation, worker, degraded: None };
        self.send_message(&topics::session(stream), &announcement);
    }

    pub(crate) fn announce_end(&self) {
        let announcement = EpochAnnouncement {
            stream: stream(),
            playback: playback(),
            broadcast: open().broadcast,
            epoch: EPOCH,
            session: Some(session()),
            phase: EpochPhase::Ended,
        };
        self.send_message(&topics::epoch(stream()), &announcement);
    }

    pub(crate) fn facts(&self) -> Vec<FactMessage> {
        self.received.lock().unwrap().facts.clone()
    }

    pub(crate) fn heartbeats(&self) -> Vec<Heartbeat> {
        self.received.lock().unwrap().heartbeats.clone()
    }

    /// Waits for a fact that `wanted` accepts.
    pub(crate) async fn fact(&self, what: &str, wanted: impl Fn(&FactMessage) -> bool) -> FactMessage {
        eventually(what, async || self.facts().into_iter().find(|f| wanted(f))).await
    }

    /// Returns the segments that a generation has announced as stored.
    pub(crate) fn stored(&self, generation: u64) -> Vec<u64> {
        let msn = |f: &FactMessage| match &f.fact {
            Fact::Stored { msn, .. } if f.generation.0 == generation => Some(msn.0),
            _ => None,
        };
        self.facts().iter().filter_map(msn).collect()
    }

    /// A segment's parts as announced, joined.
    pub(crate) fn joined(&self, generation: u64, msn: u64) -> Bytes {
        let mut joined = BytesMut::new();
        for fact in self.facts() {
            if let Fact::Part(part) = &fact.fact
                && (fact.generation.0, part.msn.0) == (generation, msn)
            {
                joined.extend_from_slice(&fact.payload);
            }
        }
        joined.freeze()
    }

    pub(crate) async fn object(&self, kind: ObjectKind) -> Option<Bytes> {
        let name = ObjectName { playback: playback(), rendition: Rendition::audio(), epoch: EPOCH, kind };
        self.text(&name.key()).await
    }

    pub(crate) async fn segment(&self, msn: u64, generation: u64) -> Option<Bytes> {
        self.object(ObjectKind::Segment(Msn(msn), Generation(generation))).await
    }

    pub(crate) async fn text(&self, key: &str) -> Option<Bytes> {
        self.store.get(key, None).await.ok().map(|object| object.body)
    }

    pub(crate) async fn index(&self) -> Vec<IndexFact> {
        let records = scan_all(&*self.state, &state_keys::all_segments(stream()), 1000).await.unwrap();
        records.iter().map(|r| topic::decode(&r.value).unwrap()).collect()
    }

    /// The next index fact of the journal.
    pub(crate) async fn index_fact(&self) -> IndexFact {
        let reader = ReaderConfig::new("test", topics::index(stream()).subject());
        self.bus.journal_reader(topics::INDEX_STREAM, &reader).await.unwrap();
        let fact = self.bus.journal_next(topics::INDEX_STREAM, "test", LIMIT).await.unwrap().expect("a fact");
        fact.ack().await.unwrap();
        topic::decode(&fact.payload).unwrap()
    }

    /// Returns the checkpoint that is in the state store.
    pub(crate) async fn checkpoint(&self) -> Option<StreamState> {
        let record = self.state.get(&state_keys::snapshot(stream())).await.unwrap()?;
        Some(topic::decode(&record.value).unwrap())
    }

    /// Deletes the checkpoint from the state store.
    pub(crate) async fn delete_checkpoint(&self) {
        self.state.commit(Tx::new().delete(state_keys::snapshot(stream()))).await.unwrap();
    }
}

fn send(bus: &SharedBus, topic: &Topic<MediaMessage>, message: &MediaMessage) {
    for fragment in message.encode(bus.max_payload(), &mut Arena::default()).unwrap() {
        bus.publish(topic.subject(), fragment).unwrap();
    }
}
