//! Counting viewers by their players' heartbeats.

use std::sync::Arc;
use std::time::Duration;

use millrace_bus::{MemBus, SharedBus};
use millrace_edge::audience::counting::HEARTBEAT_S;
use millrace_edge::{Config, Deps, Node, start};
use millrace_node::Backends;
use millrace_runtime::{ManualClock, Metrics, Process, TrustedProxies};
use millrace_state::{RedbState, SharedState, StateStore, Tx};
use millrace_store::{DirStore, SharedStore, SyncPolicy};
use millrace_wire::ids::{PlaybackId, StreamId};
use millrace_wire::state_keys;
use serde_json::{Value, json};

use crate::client::{KeepAlive, request};

const HERE: [u8; 4] = [127, 0, 0, 1];
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];
const UNKNOWN: &str = "/live/ffffffffffffffffffffffffffffffff/beacon";

/// The state store that edges share, with one known stream. Time moves only when a test advances it.
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
        // The bare id that earlier releases stored is still read.
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

    fn config(viewers_per_address: u32) -> Config {
        let listen = ([127, 0, 0, 1], 0).into();
        let beacon_secret = millrace_runtime::Secret::new("the same on all edges".to_owned());
        Config { listen, workers: 1, viewers_per_address, beacon_secret, ..Config::default() }
    }

    async fn edge(&self, viewers_per_address: u32) -> (Node, Metrics) {
        self.edge_of(Self::config(viewers_per_address)).await
    }

    async fn edge_of(&self, config: Config) -> (Node, Metrics) {
        let process = Process::new(Arc::new(self.clock.clone()));
        let metrics = process.metrics.clone();
        let (bus, store, state) = (self.bus.clone(), self.store.clone(), self.state.clone());
        let deps = Deps::new(Backends { bus, store, state }, process);
        (start(config, deps).await.unwrap(), metrics)
    }

    /// Sends a heartbeat from a local address and returns the answer.
    async fn heartbeat(&self, node: &Node, from: [u8; 4], body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = KeepAlive::connect_from(from, node.addr()).await.post(&self.path, body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Returns the session of a new viewer, who has sent one heartbeat and is not counted yet.
    async fn viewer(&self, node: &Node) -> Value {
        let answer = self.heartbeat(node, HERE, &Value::Null).await;
        assert_eq!(answer["interval_s"], HEARTBEAT_S);
        json!({ "session": answer["session"] })
    }

    /// Waits until the edge counts this many viewers. The requests for it carry no session, so they count for none.
    async fn counted(&self, node: &Node, viewers: u64) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self.heartbeat(node, HERE, &Value::Null).await;
            if answer["viewers"] == viewers {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{answer} instead of {viewers}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewer_who_moves_between_edges_is_counted_once() {
    let world = World::new().await;
    let ((a, _), (b, _)) = (world.edge(0).await, world.edge(0).await);
    let answer = world.heartbeat(&a, HERE, &Value::Null).await;
    assert_eq!((answer["phase"].as_str(), answer["viewers"].as_u64()), (Some("waiting"), Some(0)));
    let (one, other) = (world.viewer(&a).await, world.viewer(&b).await);
    // The first viewer moves to the other edge; the second shows that the count goes over both.
    world.heartbeat(&a, HERE, &one).await;
    world.counted(&a, 1).await;
    world.heartbeat(&b, HERE, &one).await;
    world.heartbeat(&b, HERE, &other).await;
    world.counted(&b, 2).await;
    world.heartbeat(&a, HERE, &json!({ "session": one["session"], "leaving": true })).await;
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
async fn viewers_of_one_address_are_counted_up_to_the_limit() {
    let world = World::new().await;
    let (node, metrics) = world.edge(3).await;
    let mut viewers = Vec::new();
    for _ in 0..6 {
        viewers.push(world.viewer(&node).await);
    }
    let (elsewhere, here) = viewers.split_last().unwrap();
    for viewer in here {
        let answer = world.heartbeat(&node, HERE, viewer).await;
        assert_eq!(answer["session"], viewer["session"], "a viewer over the limit is not refused");
    }
    // This heartbeat is written with the others: were those beyond the limit counted, there would be six.
    world.heartbeat(&node, ELSEWHERE, elsewhere).await;
    world.counted(&node, 4).await;
    let uncounted = || {
        let text = metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix("millrace_edge_viewers_uncounted_total "));
        line.unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(uncounted(), 2);
    // The next heartbeats are of the same sessions: waiting gains none a place, and an invented session takes none.
    world.clock.advance_ms(HEARTBEAT_S * 1_000);
    world
        .heartbeat(&node, HERE, &json!({ "session": "00112233445566778899aabbccddeeff.0011223344556677" }))
        .await;
    for viewer in here {
        world.heartbeat(&node, HERE, viewer).await;
    }
    assert_eq!(uncounted(), 4);
    // A viewer who leaves makes place for one of them.
    let leaving = json!({ "session": here[0]["session"], "leaving": true });
    world.heartbeat(&node, HERE, &leaving).await;
    world.counted(&node, 3).await;
    world.heartbeat(&node, HERE, &here[3]).await;
    world.counted(&node, 4).await;
    assert_eq!(uncounted(), 4);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_behind_a_trusted_proxy_are_counted_by_their_own_addresses() {
    let world = World::new().await;
    let trusted_proxies = TrustedProxies::new(vec!["127.0.0.1".parse().unwrap()]);
    let (node, metrics) = world.edge_of(Config { trusted_proxies, ..World::config(1) }).await;
    for (from, viewer) in [("192.0.2.1", 1), ("192.0.2.1", 1), ("192.0.2.2", 2), ("6.6.6.6, 192.0.2.2", 2)] {
        let session = world.viewer(&node).await.to_string();
        let headers = [("x-forwarded-for", from)];
        request(node.addr(), "POST", &world.path, &headers, session.as_bytes()).await;
        world.counted(&node, viewer).await;
    }
    // The header is not believed of another peer: all its viewers have one address.
    for viewer in [3, 3] {
        let session = world.viewer(&node).await.to_string();
        let headers = [("x-forwarded-for", format!("192.0.2.{}", 10 + viewer))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        KeepAlive::connect_from(ELSEWHERE, node.addr())
            .await
            .post_with(&world.path, &headers, session.as_bytes())
            .await;
        world.counted(&node, viewer).await;
    }
    assert!(metrics.render().contains("millrace_edge_viewers_uncounted_total 3\n"));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeat_whose_body_does_not_come_is_answered_408_and_closed() {
    let world = World::new().await;
    let (node, _) = world.edge(0).await;
    let path = &world.path;
    let head = format!("POST {path} HTTP/1.1\r\nhost: edge\r\ncontent-length: 100\r\n\r\n{{\"session\"");
    let (status, rest) = KeepAlive::connect(node.addr()).await.raw(head.as_bytes()).await;
    assert_eq!(status, 408);
    assert!(rest.contains("access-control-allow-origin: *") && rest.contains("connection: close"), "{rest}");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeat_of_a_malformed_playback_id_is_not_found() {
    let world = crate::world::World::new().await;
    let node = world.edge().await;
    assert_eq!(request(node.addr(), "POST", "/live/x/beacon", &[], b"").await.status, 404);
    assert_eq!(request(node.addr(), "POST", &world.path("other"), &[], b"").await.status, 405);
    node.drain().await;
}
