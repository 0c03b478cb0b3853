//! Counting viewers by their players' beacons.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/client.rs"]
mod client;

use std::sync::Arc;
use std::time::Duration;

use client::{KeepAlive, request};
use millrace_bus::{MemBus, SharedBus};
use millrace_edge::viewers::BEAT_S;
use millrace_edge::{Config, Deps, Node, start};
use millrace_node::Backends;
use millrace_runtime::{ManualClock, Metrics, Process};
use millrace_state::{RedbState, SharedState, StateStore, Tx};
use millrace_store::{DirStore, SharedStore, SyncPolicy};
use millrace_wire::ids::{PlaybackId, StreamId};
use millrace_wire::state_keys;
use serde_json::{Value, json};

const HERE: [u8; 4] = [127, 0, 0, 1];
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];
const UNKNOWN: &str = "/live/ffffffffffffffffffffffffffffffff/beacon";

/// One state store, as edges share it, and one known stream; time stands still unless it is told.
struct World {
    bus: SharedBus,
    state: SharedState,
    store: SharedStore,
    clock: ManualClock,
    path: String,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = RedbState::open(dir.path().join("state.redb")).await.unwrap();
        let playback: PlaybackId = "00112233445566778899aabbccddeeff".parse().unwrap();
        let stream = StreamId::from_u128(9).to_string();
        state.commit(Tx::new().put(state_keys::playback(playback), stream)).await.unwrap();
        let store = DirStore::open(dir.path().join("store"), SyncPolicy::default()).await.unwrap();
        Self {
            bus: Arc::new(MemBus::new()),
            state: Arc::new(state),
            store: Arc::new(store),
            clock: ManualClock::at_unix_ms(1_790_000_000_000),
            path: format!("/live/{playback}/beacon"),
            _dir: dir,
        }
    }

    async fn edge(&self, viewers_per_address: u32) -> (Node, Metrics) {
        let listen = ([127, 0, 0, 1], 0).into();
        let beacon_secret = millrace_runtime::Secret::new("the same on all edges".to_owned());
        let config = Config { listen, workers: 1, viewers_per_address, beacon_secret, ..Config::default() };
        let process = Process::new(Arc::new(self.clock.clone()));
        let metrics = process.metrics.clone();
        let backends =
            Backends { bus: self.bus.clone(), store: self.store.clone(), state: self.state.clone() };
        let deps = Deps::new(backends, process);
        (start(config, deps).await.unwrap(), metrics)
    }

    /// A beat from this address; what the edge answers.
    async fn beat(&self, node: &Node, from: [u8; 4], body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = KeepAlive::connect_from(from, node.addr()).await.post(&self.path, body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// A new viewer, who has not yet beaten for the second time.
    async fn viewer(&self, node: &Node) -> Value {
        let told = self.beat(node, HERE, &Value::Null).await;
        assert_eq!(told["interval_s"], BEAT_S);
        json!({ "session": told["session"] })
    }

    /// Asks until the edge counts this many; nobody beats meanwhile.
    async fn counted(&self, node: &Node, viewers: u64) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let told = self.beat(node, HERE, &Value::Null).await;
            if told["viewers"] == viewers {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{told} instead of {viewers}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_are_counted_once_over_two_edges() {
    let world = World::new().await;
    let ((a, _), (b, _)) = (world.edge(0).await, world.edge(0).await);
    let told = world.beat(&a, HERE, &Value::Null).await;
    assert_eq!((told["phase"].as_str(), told["viewers"].as_u64()), (Some("waiting"), Some(0)));
    let (one, other) = (world.viewer(&a).await, world.viewer(&b).await);
    // The first moves to another edge; the second shows that its count is over both.
    world.beat(&a, HERE, &one).await;
    world.counted(&a, 1).await;
    world.beat(&b, HERE, &one).await;
    world.beat(&b, HERE, &other).await;
    world.counted(&b, 2).await;
    world.beat(&a, HERE, &json!({ "session": one["session"], "leaving": true })).await;
    world.counted(&a, 1).await;
    for (path, body, status) in [
        (world.path.as_str(), &b"not json"[..], 400),
        (UNKNOWN, b"", 404),
        (&world.path, &[b' '; 2_000], 413),
    ] {
        let answer = request(b.addr(), "POST", path, &[], body).await;
        assert_eq!(answer.status, status, "{path}");
    }
    a.drain().await;
    b.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_counted_for_so_many_viewers() {
    let world = World::new().await;
    let (node, metrics) = world.edge(3).await;
    let mut viewers = Vec::new();
    for _ in 0..6 {
        viewers.push(world.viewer(&node).await);
    }
    let (elsewhere, here) = viewers.split_last().unwrap();
    for viewer in here {
        let told = world.beat(&node, HERE, viewer).await;
        assert_eq!(told["session"], viewer["session"], "nobody is refused");
    }
    // Written with the others: were those beyond the limit counted, there would be six.
    world.beat(&node, ELSEWHERE, elsewhere).await;
    world.counted(&node, 4).await;
    let uncounted = || {
        let text = metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix("millrace_edge_beats_uncounted_total "));
        line.unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(uncounted(), 2);
    // Made-up sessions take nobody's place.
    world.clock.advance_ms(BEAT_S * 1_000);
    world.beat(&node, HERE, &json!({ "session": "00112233445566778899aabbccddeeff.0011223344556677" })).await;
    for viewer in &here[2..] {
        world.beat(&node, HERE, viewer).await;
    }
    world.counted(&node, 6).await;
    assert_eq!(uncounted(), 2);
    node.drain().await;
}
