//! The backends of a cluster for tests, and what most tests do with an edge on them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{MemBus, SharedBus};
use millrace_edge::{Config, Deps, Node, start};
use millrace_node::Backends;
use millrace_runtime::Process;
use millrace_state::{FaultyState, RedbState, StateStore, Tx};
use millrace_store::{DirStore, SharedStore, SyncPolicy};
use millrace_wire::catalog::PlaybackRecord;
use millrace_wire::fact::MediaDuration;
use millrace_wire::ids::{PlaybackId, Rendition, StreamId};
use millrace_wire::ladder::LadderPlan;
use millrace_wire::state_keys;

use crate::client::{Answer, request};
use crate::log_writer::{LogWriter, audio_info, video_info};

/// Parts of a complete segment.
pub(crate) const PARTS: u32 = 10;
/// The duration of a part in milliseconds.
pub(crate) const PART_MS: u64 = 200;

/// The backends of a cluster with one known stream.
pub(crate) struct World {
    pub(crate) bus: MemBus,
    pub(crate) state: FaultyState,
    pub(crate) store: SharedStore,
    pub(crate) stream: StreamId,
    pub(crate) playback: PlaybackId,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = RedbState::open(dir.path().join("state.redb")).await.unwrap();
        let (stream, playback) =
            (StreamId::from_u128(9), "00112233445566778899aabbccddeeff".parse().unwrap());
        state
            .commit(
                Tx::new()
                    .put(state_keys::playback(playback), PlaybackRecord::public(stream).encode().unwrap()),
            )
            .await
            .unwrap();
        let store = DirStore::open(dir.path().join("store"), SyncPolicy::default()).await.unwrap();
        Self {
            bus: MemBus::new(),
            state: FaultyState::new(Arc::new(state), 1),
            store: Arc::new(store),
            stream,
            playback,
            _dir: dir,
        }
    }

    pub(crate) fn shared_bus(&self) -> SharedBus {
        Arc::new(self.bus.clone())
    }

    pub(crate) async fn edge(&self) -> Node {
        self.edge_holding(5).await
    }

    pub(crate) async fn edge_holding(&self, start_hold_s: u64) -> Node {
        let listen = ([127, 0, 0, 1], 0).into();
        let config = Config { listen, workers: 1, start_hold_s, ..Config::default() };
        self.edge_of(config, Process::default()).await
    }

    pub(crate) async fn edge_of(&self, config: Config, process: Process) -> Node {
        let (bus, store, state) = (self.shared_bus(), self.store.clone(), Arc::new(self.state.clone()));
        start(config, Deps::new(Backends { bus, store, state }, process)).await.unwrap()
    }

    /// Starts the log writer of the stream and opens its epoch.
    pub(crate) async fn writer(&self) -> LogWriter {
        self.writer_of(LadderPlan::default()).await
    }

    /// As [`World::writer`], for a stream with a ladder, of which the source's own renditions are there.
    pub(crate) async fn writer_of(&self, plan: LadderPlan) -> LogWriter {
        let writer = LogWriter::new(self.shared_bus(), self.stream, self.playback).await;
        writer.announce();
        let video = (video_info(640, 360, "avc1.64001e"), Bytes::from_static(b"video init"));
        writer.open_with(
            plan,
            video,
            (audio_info(), Bytes::from_static(b"audio init")),
            MediaDuration::from_millis(220),
        );
        writer
    }

    pub(crate) fn path(&self, tail: &str) -> String {
        format!("/live/{}/{tail}", self.playback)
    }
}

pub(crate) fn part_bytes(rendition: &Rendition, msn: u64, part: u32) -> Bytes {
    let text = format!("<{rendition} {msn} {part}>");
    Bytes::from(text.repeat(40))
}

/// Appends a part of each rendition.
pub(crate) fn append_part(writer: &LogWriter, msn: u64, part: u32) {
    for rendition in [Rendition::video(), Rendition::audio()] {
        let bytes = part_bytes(&rendition, msn, part);
        writer.part(rendition, (msn, part), PART_MS, part == 0, bytes);
    }
}

/// Completes a segment of each rendition.
pub(crate) fn complete(writer: &LogWriter, msn: u64) {
    for rendition in [Rendition::video(), Rendition::audio()] {
        let size = segment_bytes(&rendition, msn).len() as u64;
        writer.segment(rendition, msn, PARTS, u64::from(PARTS) * PART_MS, true, size);
    }
}

pub(crate) fn segment_bytes(rendition: &Rendition, msn: u64) -> Bytes {
    (0..PARTS).flat_map(|part| part_bytes(rendition, msn, part)).collect()
}

pub(crate) fn append_segment(writer: &LogWriter, msn: u64) {
    (0..PARTS).for_each(|part| append_part(writer, msn, part));
    complete(writer, msn);
}

pub(crate) async fn get(node: &Node, path: &str) -> Answer {
    request(node.addr(), "GET", path, &[], b"").await
}

/// Repeats a request until the answer satisfies `ok`.
pub(crate) async fn until(node: &Node, path: &str, ok: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let answer = get(node, path).await;
        if ok(&answer) {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "{path}: {} {}", answer.status, answer.text());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn uri(world: &World, writer: &LogWriter, rendition: &str, file: &str) -> String {
    world.path(&format!("{rendition}/{}/{file}", writer.epoch))
}

/// Returns the value of a metric, named with its labels.
pub(crate) async fn metric(node: &Node, name: &str) -> Option<String> {
    let text = get(node, "/metrics").await.text();
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned()))
}
