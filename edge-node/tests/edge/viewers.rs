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
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{KeepAlive, request};
use crate::log_writer::FIRST;
use crate::world::{append_segment, until, uri};

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

/// Waits until the edge counts this many viewers of the world's stream.
async fn until_counted(world: &crate::world::World, node: &Node, viewers: u64) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let answer = request(node.addr(), "POST", &world.path("beacon"), &[], b"").await;
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        if answer["viewers"] == viewers {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{answer} instead of {viewers}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_that_announce_nothing_count_from_their_first_media_and_caches_count_for_none() {
    let world = crate::world::World::new().await;
    let (node, writer) = (world.edge().await, world.writer().await);
    append_segment(&writer, FIRST);
    let playlist = world.path("video/index.m3u8");
    until(&node, &playlist, |answer| answer.status == 200).await;
    let segment = uri(&world, &writer, "video", &format!("{FIRST}.1.m4s"));
    until(&node, &segment, |answer| answer.status == 200).await;
    // The client of these requests has counted since; a playlist, a HEAD request and a cache add none.
    for (method, path, headers) in [
        ("GET", &playlist, [("user-agent", "a probe"), ("accept", "*/*")]),
        ("HEAD", &segment, [("user-agent", "a monitor"), ("accept", "*/*")]),
        ("GET", &segment, [("user-agent", "a cache"), ("cdn-loop", "cdn.example")]),
    ] {
        assert_eq!(request(node.addr(), method, path, &headers, b"").await.status, 200);
    }
    until_counted(&world, &node, 1).await;
    for (agent, viewers) in [("VLC/3.0.18", 2), ("VLC/3.0.18", 2), ("AppleCoreMedia/1.0", 3)] {
        assert_eq!(request(node.addr(), "GET", &segment, &[("user-agent", agent)], b"").await.status, 200);
        until_counted(&world, &node, viewers).await;
    }
    let with_cmcd = format!("{segment}?CMCD=bl%3D21300%2Csid%3D%22a%22");
    for path in [&with_cmcd, &segment] {
        let headers = [("user-agent", "hls.js"), ("cmcd-session", "sid=\"a\"")];
        request(node.addr(), "GET", path, &headers[..=usize::from(path == &segment)], b"").await;
    }
    until_counted(&world, &node, 4).await;
    node.drain().await;
}

/// A client's frame of text.
fn masked(text: &str) -> Vec<u8> {
    let mask = [7_u8, 1, 9, 2];
    let mut frame = vec![0x81, 0x80 | text.len() as u8];
    frame.extend_from_slice(&mask);
    frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Opens a WebSocket and reads until `wanted` has come.
async fn socket(node: &Node, message: &str, wanted: &str) -> tokio::net::TcpStream {
    let mut socket = tokio::net::TcpStream::connect(node.addr()).await.unwrap();
    let head = "GET /ws HTTP/1.1\r\nhost: edge\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&masked(message)).await.unwrap();
    let mut got = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&got).contains(wanted) {
            assert!(
                socket.read_buf(&mut got).await.unwrap() > 0,
                "closed after {}",
                String::from_utf8_lossy(&got)
            );
        }
    };
    tokio::time::timeout(Duration::from_secs(15), read).await.expect(wanted);
    let text = String::from_utf8_lossy(&got).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 101") && text.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{text}");
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_that_watches_by_a_websocket_counts_until_it_closes() {
    let world = crate::world::World::new().await;
    let node = world.edge().await;
    let watch = |viewer: &str| {
        let (playback, of) = (world.playback, viewer.to_owned());
        format!("{{\"type\":\"watch\",\"videoId\":\"{playback}\",\"viewerId\":\"{of}\"}}")
    };
    let one = socket(&node, &watch("a"), "\"viewers\":1").await;
    let again = socket(&node, &watch("a").replace("type", "event"), "\"viewers\":1").await;
    let other = socket(&node, &watch("b"), "\"viewers\":2").await;
    drop(other);
    until_counted(&world, &node, 1).await;
    drop((one, again));
    until_counted(&world, &node, 0).await;
    let unknown = watch("c").replace(&world.playback.to_string(), "ffffffffffffffffffffffffffffffff");
    drop(socket(&node, &unknown, "unknown video").await);
    assert_eq!(request(node.addr(), "GET", "/ws", &[], b"").await.status, 400);
    node.drain().await;
}
