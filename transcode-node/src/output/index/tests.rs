#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use millrace_bus::{JournalConfig, JournalWriter, MemBus};
use millrace_runtime::{ActorId, ActorRegistry, Policy, Process, Supervisor};
use millrace_state::{FaultyState, RedbState, SharedState, StateFaults, scan_all};
use millrace_store::{DirStore, Meta, SharedStore, SyncPolicy};
use millrace_wire::fact::{MediaDuration, Segment};
use millrace_wire::ids::{
    BroadcastId, DiscontinuitySeq, Epoch, Generation, InitVersion, Msn, PlaybackId, Rendition, StreamId,
    UnixMillis,
};
use millrace_wire::message::announce::IndexFact;
use millrace_wire::object_names::{ObjectKind, ObjectName};
use millrace_wire::{state_keys, topic, topics};

use super::*;
use crate::output::segment_metadata;

/// The longest time anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

struct World {
    faulty: FaultyState,
    state: SharedState,
    store: SharedStore,
    writer: Arc<IndexWriter>,
    actors: ActorRegistry,
    _supervisor: Supervisor,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new(limits: QueueLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state: SharedState = Arc::new(RedbState::open(dir.path().join("state.redb")).await.unwrap());
        let store = DirStore::open(dir.path().join("store"), SyncPolicy::default()).await.unwrap();
        let store: SharedStore = Arc::new(store);
        let faulty = FaultyState::new(state.clone(), 1);
        let journal = JournalConfig::new(topics::INDEX_STREAM, topics::INDEX_SUBJECTS);
        let journal = Arc::new(JournalWriter::start(Arc::new(MemBus::new()), journal, |_| ()));
        let Process { metrics: registry, drain, actors, .. } = Process::default();
        let metrics = Arc::new(Metrics::new(&registry));
        let shared: SharedState = Arc::new(faulty.clone());
        let writer = Arc::new(IndexWriter::new(limits, shared, store.clone(), journal, metrics));
        let supervisor = Supervisor::start("transcode", &registry, &drain, &actors).unwrap();
        let run = writer.clone();
        let id = ActorId::new("index_writer", "test");
        supervisor.spawn(id, Policy::vital(), move |actor| run.clone().run(actor)).await.unwrap();
        Self { faulty, state, store, writer, actors, _supervisor: supervisor, _dir: dir }
    }

    fn set_away(&self, away: bool) {
        self.faulty.set(StateFaults { away, ..StateFaults::default() });
    }

    /// Stores the segment's object as a job does, and hands its entry to the writer.
    async fn add(&self, fact: &IndexFact) {
        let IndexFact { epoch, generation, ref segment, .. } = *fact;
        let kind = ObjectKind::Segment(segment.msn, generation);
        let name = ObjectName { playback: playback(), rendition: segment.rendition.clone(), epoch, kind };
        let meta = segment_metadata::write(Meta::default(), segment);
        self.store.put(&name.key(), vec![0; segment.bytes as usize].into(), meta).await.unwrap();
        self.writer.add(playback(), fact);
    }

    async fn index(&self) -> Vec<IndexFact> {
        let records = scan_all(&*self.state, &state_keys::all_segments(stream()), 1000).await.unwrap();
        records.iter().map(|record| topic::decode(&record.value).unwrap()).collect()
    }
}

async fn wait_until(condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn stream() -> StreamId {
    StreamId::from_u128(9)
}

fn playback() -> PlaybackId {
    "00112233445566778899aabbccddeeff".parse().unwrap()
}

fn fact(msn: u64, generation: u64) -> IndexFact {
    let segment = Segment {
        rendition: Rendition::video(),
        msn: Msn(msn),
        parts: 6,
        duration: MediaDuration { ticks: 180_000, timescale: 90_000 },
        independent: true,
        bytes: 100 + msn % 100,
        discontinuity_sequence: DiscontinuitySeq(1),
        program_date_time: UnixMillis(1_700_000_000_000 + msn * 2000),
        init_version: InitVersion(0),
    };
    let broadcast = BroadcastId::from_u128(1);
    IndexFact { stream: stream(), broadcast, epoch: Epoch(1), generation: Generation(generation), segment }
}

#[tokio::test]
async fn index_writer_writes_all_entries_within_its_bound_after_the_state_store_was_away() {
    let world = World::new(QueueLimits { entries: 100, ..QueueLimits::default() }).await;
    world.set_away(true);
    let facts: Vec<IndexFact> = (0..100).map(|msn| fact(msn, 1)).collect();
    for fact in &facts {
        world.add(fact).await;
    }
    assert_eq!(world.writer.waiting(), 100, "nothing is dropped within the bound");
    assert!(world.index().await.is_empty());
    wait_until(async || {
        let status = world.actors.status("index_writer", "test").await.unwrap();
        status.state == "waiting for the stores" && status.queue == 100
    })
    .await;
    world.set_away(false);
    assert!(world.writer.flush(LIMIT).await);
    assert_eq!(world.index().await, facts);
    assert_eq!(world.writer.waiting(), 0);
}

#[tokio::test]
async fn index_writer_rebuilds_dropped_entries_from_object_metadata() {
    let world = World::new(QueueLimits { entries: 10, ..QueueLimits::default() }).await;
    world.set_away(true);
    let facts: Vec<IndexFact> = (0..50).map(|msn| fact(msn, 1)).collect();
    for fact in &facts {
        world.add(fact).await;
        assert!(world.writer.waiting() <= 10, "the queue stays within its bound");
    }
    assert_eq!(world.writer.queue.dropped(), [(Msn(0), Msn(39))], "one range remembers what was dropped");
    world.set_away(false);
    assert!(world.writer.flush(LIMIT).await);
    assert_eq!(world.index().await, facts, "rebuilt entries equal the dropped ones");
}

#[tokio::test]
async fn index_writer_keeps_the_newest_generation_of_a_segment() {
    let world = World::new(QueueLimits::default()).await;
    world.set_away(true);
    for generation in [1, 2] {
        for msn in 0..3 {
            world.add(&fact(msn, generation)).await;
        }
    }
    world.set_away(false);
    assert!(world.writer.flush(LIMIT).await);
    let facts: Vec<IndexFact> = (0..3).map(|msn| fact(msn, 2)).collect();
    assert_eq!(world.index().await, facts);
}

#[tokio::test]
async fn index_writer_does_not_rebuild_entries_of_deleted_objects() {
    let world = World::new(QueueLimits { entries: 1, ..QueueLimits::default() }).await;
    world.set_away(true);
    for msn in 0..3 {
        world.add(&fact(msn, 1)).await;
    }
    let kind = ObjectKind::Segment(Msn(0), Generation(1));
    let name = ObjectName { playback: playback(), rendition: Rendition::video(), epoch: Epoch(1), kind };
    world.store.delete(&name.key()).await.unwrap();
    world.set_away(false);
    assert!(world.writer.flush(LIMIT).await);
    assert_eq!(world.index().await, [fact(1, 1), fact(2, 1)]);
}
