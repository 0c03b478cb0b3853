//! The edge over HTTP: an author says facts on an in-process bus, a raw client reads what viewers get.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/author.rs"]
mod author;
#[path = "common/client.rs"]
mod client;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use author::{FIRST, LogWriter, audio_info, video_info};
use bytes::Bytes;
use client::{Answer, request};
use millrace_bus::{MemBus, SharedBus};
use millrace_edge::{Config, Deps, Node, start};
use millrace_media::hls::MediaPlaylist;
use millrace_media::hls::checker::Checker;
use millrace_node::Backends;
use millrace_protocol::state::checkpoint;
use millrace_runtime::Process;
use millrace_state::{RedbState, SharedState, StateStore, Tx};
use millrace_store::{DirStore, Meta, SharedStore, SyncPolicy};
use millrace_wire::fact::MediaDuration;
use millrace_wire::ids::{PlaybackId, Rendition, StreamId};
use millrace_wire::{state_keys, topic};

const PARTS: u32 = 10;
const PART_MS: u64 = 200;

/// A cluster's backends with one known stream.
struct World {
    bus: SharedBus,
    state: SharedState,
    store: SharedStore,
    stream: StreamId,
    playback: PlaybackId,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = RedbState::open(dir.path().join("state.redb")).await.unwrap();
        let (stream, playback) =
            (StreamId::from_u128(9), "00112233445566778899aabbccddeeff".parse().unwrap());
        state.commit(Tx::new().put(state_keys::playback(playback), stream.to_string())).await.unwrap();
        let store = DirStore::open(dir.path().join("store"), SyncPolicy::default()).await.unwrap();
        Self {
            bus: Arc::new(MemBus::new()),
            state: Arc::new(state),
            store: Arc::new(store),
            stream,
            playback,
            _dir: dir,
        }
    }

    async fn edge(&self) -> Node {
        self.edge_holding(5).await
    }

    async fn edge_holding(&self, start_hold_s: u64) -> Node {
        let listen = ([127, 0, 0, 1], 0).into();
        let config = Config { listen, workers: 1, start_hold_s, ..Config::default() };
        let backends =
            Backends { bus: self.bus.clone(), store: self.store.clone(), state: self.state.clone() };
        let deps = Deps::new(backends, Process::default());
        start(config, deps).await.unwrap()
    }

    /// An author whose epoch is open.
    async fn author(&self) -> LogWriter {
        let author = LogWriter::new(self.bus.clone(), self.stream, self.playback).await;
        author.announce();
        let video = (video_info(640, 360, "avc1.64001e"), Bytes::from_static(b"video init"));
        author.open(
            video,
            (audio_info(), Bytes::from_static(b"audio init")),
            MediaDuration::from_millis(220),
        );
        author
    }

    fn path(&self, tail: &str) -> String {
        format!("/live/{}/{tail}", self.playback)
    }
}

fn part_bytes(rendition: &Rendition, msn: u64, part: u32) -> Bytes {
    let word = format!("<{rendition} {msn} {part}>");
    Bytes::from(word.repeat(40))
}

fn say_part(author: &LogWriter, msn: u64, part: u32) {
    for rendition in [Rendition::video(), Rendition::audio()] {
        let bytes = part_bytes(&rendition, msn, part);
        author.part(rendition, (msn, part), PART_MS, part == 0, bytes);
    }
}

fn close(author: &LogWriter, msn: u64) {
    for rendition in [Rendition::video(), Rendition::audio()] {
        let size = segment_bytes(&rendition, msn).len() as u64;
        author.segment(rendition, msn, PARTS, u64::from(PARTS) * PART_MS, true, size);
    }
}

fn segment_bytes(rendition: &Rendition, msn: u64) -> Bytes {
    (0..PARTS).flat_map(|p| part_bytes(rendition, msn, p)).collect()
}

fn say_segment(author: &LogWriter, msn: u64) {
    (0..PARTS).for_each(|part| say_part(author, msn, part));
    close(author, msn);
}

async fn get(node: &Node, path: &str) -> Answer {
    request(node.addr(), "GET", path, &[], b"").await
}

/// Asks until the answer satisfies `ok`.
async fn until(node: &Node, path: &str, ok: impl Fn(&Answer) -> bool) -> Answer {
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

fn uri(world: &World, author: &LogWriter, rendition: &str, file: &str) -> String {
    world.path(&format!("{rendition}/{}/{file}", author.epoch))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_request_of_a_starting_stream_is_held_and_playlists_never_go_back() {
    let world = World::new().await;
    let node = world.edge().await;
    let path = world.path("video/index.m3u8");
    let held = tokio::spawn({
        let (addr, path) = (node.addr(), path.clone());
        async move { request(addr, "GET", &path, &[], b"").await }
    });
    let author = world.author().await;
    say_part(&author, FIRST, 0);
    let first = held.await.unwrap();
    assert_eq!(first.status, 200);
    let mut checker = Checker::new();
    assert_eq!(checker.check(&first.text()), []);
    let playlist = MediaPlaylist::parse(&first.text()).unwrap();
    assert!(playlist.segments[0].gap && !playlist.segments[0].parts.is_empty(), "{}", first.text());
    assert_eq!(playlist.next_msn(), FIRST);

    for msn in FIRST..FIRST + 8 {
        for part in 0..PARTS {
            if (msn, part) > (FIRST, 0) {
                say_part(&author, msn, part);
            }
            let answer = get(&node, &format!("{path}?_HLS_msn={msn}&_HLS_part={part}")).await;
            assert_eq!(answer.status, 200, "{msn} {part}");
            assert_eq!(checker.check(&answer.text()), [], "{}", answer.text());
        }
        close(&author, msn);
        if msn > FIRST + 5 {
            author.trim(msn - 5);
        }
    }
    let multivariant = get(&node, &world.path("index.m3u8")).await.text();
    assert!(multivariant.contains("avc1.64001e,mp4a.40.2") && multivariant.contains("audio/index.m3u8"));
    author.end();
    let last = until(&node, &path, |a| a.text().contains("#EXT-X-ENDLIST")).await;
    assert_eq!(checker.check(&last.text()), []);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_block_until_the_part_exists_and_refuse_what_is_too_far() {
    let world = World::new().await;
    let (node, author) = (world.edge().await, world.author().await);
    let path = world.path("video/index.m3u8");
    say_part(&author, FIRST, 0);
    until(&node, &path, |a| a.status == 200).await;
    let blocked = tokio::spawn({
        let (addr, path) = (node.addr(), format!("{path}?_HLS_msn={FIRST}&_HLS_part=1"));
        async move { request(addr, "GET", &path, &[], b"").await }
    });
    // The hinted part is held as well.
    let name = uri(&world, &author, "video", &format!("{FIRST}.1.1.m4s"));
    let hinted = tokio::spawn({
        let (addr, name) = (node.addr(), name.clone());
        async move { request(addr, "GET", &name, &[], b"").await }
    });
    assert!(!blocked.is_finished());
    say_part(&author, FIRST, 1);
    let answer = blocked.await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains(&format!("{FIRST}.1.1.m4s\"\n")), "{}", answer.text());
    assert!(answer.header("cache-control").unwrap().contains("max-age=24"));
    assert_eq!(hinted.await.unwrap().body, part_bytes(&Rendition::video(), FIRST, 1));
    for query in
        ["_HLS_msn=99999999999", "_HLS_part=1", "_HLS_msn=x", &format!("_HLS_msn={FIRST}&_HLS_part=77")]
    {
        assert_eq!(get(&node, &format!("{path}?{query}")).await.status, 400, "{query}");
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_edges_agree_and_a_restarted_one_gives_the_same_bytes() {
    let world = World::new().await;
    let (a, author) = (world.edge().await, world.author().await);
    let path = world.path("video/index.m3u8");
    get(&a, &path).await;
    for msn in FIRST..FIRST + 3 {
        say_segment(&author, msn);
    }
    say_part(&author, FIRST + 3, 0);
    let ask = format!("{path}?_HLS_msn={}&_HLS_part=0", FIRST + 3);
    let first = until(&a, &ask, |x| x.status == 200).await;
    // Joins late: snapshot and repair.
    let b = world.edge().await;
    assert_eq!(until(&b, &ask, |x| x.status == 200).await.body, first.body);
    let tag = |x: &Answer| x.header("etag").map(str::to_owned);
    assert_eq!(tag(&get(&b, &path).await), tag(&get(&a, &path).await));

    let segment = uri(&world, &author, "video", &format!("{FIRST}.1.m4s"));
    let bytes = get(&a, &segment).await.body;
    assert_eq!(bytes, segment_bytes(&Rendition::video(), FIRST));
    let part = uri(&world, &author, "audio", &format!("{}.1.0.m4s", FIRST + 3));
    let init = uri(&world, &author, "video", "init-0.mp4");
    let before = (get(&a, &part).await.body, get(&a, &init).await.body);
    a.drain().await;
    let again = world.edge().await;
    assert_eq!(until(&again, &ask, |x| x.status == 200).await.body, first.body);
    assert_eq!(get(&again, &segment).await.body, bytes);
    assert_eq!((get(&again, &part).await.body, get(&again, &init).await.body), before);
    again.drain().await;
    b.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_facts_are_repaired() {
    let world = World::new().await;
    let (node, author) = (world.edge().await, world.author().await);
    let path = world.path("video/index.m3u8");
    say_part(&author, FIRST, 0);
    until(&node, &path, |a| a.status == 200).await;
    for rendition in [Rendition::video(), Rendition::audio()] {
        let bytes = part_bytes(&rendition, FIRST, 1);
        author.lost_part(rendition, (FIRST, 1), PART_MS, false, bytes);
    }
    say_part(&author, FIRST, 2);
    let answer = get(&node, &format!("{path}?_HLS_msn={FIRST}&_HLS_part=2")).await;
    assert_eq!(answer.status, 200);
    let part = uri(&world, &author, "video", &format!("{FIRST}.1.1.m4s"));
    assert_eq!(get(&node, &part).await.body, part_bytes(&Rendition::video(), FIRST, 1));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_that_left_memory_come_from_the_store_by_one_read() {
    let world = World::new().await;
    let node = world.edge().await;
    let key = format!("live/{}/video/17/55.3.m4s", world.playback);
    let body = Bytes::from(vec![9; 100_000]);
    world.store.put(&key, body.clone().into(), Meta::default()).await.unwrap();
    let path = format!("/{key}");
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let (addr, path) = (node.addr(), path.clone());
            tokio::spawn(async move { request(addr, "GET", &path, &[], b"").await })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap().body, body);
    }
    let metrics = get(&node, "/metrics").await.text();
    assert!(metrics.contains("millrace_edge_store_reads_total 1\n"), "{metrics}");
    assert_eq!(node.cache().cached_bytes(), body.len());
    assert_eq!(get(&node, &world.path("video/17/56.3.m4s")).await.status, 404);
    node.drain().await;
}

/// An author that dies after writing what it has stored of its last state.
async fn leave(world: &World, author: LogWriter, msns: std::ops::Range<u64>) {
    for rendition in [Rendition::video(), Rendition::audio()] {
        for msn in msns.clone() {
            let key = uri(world, &author, rendition.as_str(), &format!("{msn}.1.m4s"));
            let body = segment_bytes(&rendition, msn);
            world.store.put(&key[1..], body.into(), Meta::default()).await.unwrap();
            author.stored(rendition.clone(), msn);
        }
        let key = uri(world, &author, rendition.as_str(), "init-0.mp4");
        let body = Bytes::from(format!("{rendition} init"));
        world.store.put(&key[1..], body.into(), Meta::default()).await.unwrap();
    }
    keep(world, &author).await;
    author.die().await;
}

async fn keep(world: &World, author: &LogWriter) {
    let rest = checkpoint::at_rest(&author.view(), &BTreeSet::new(), 600);
    let tx = Tx::new().put(state_keys::snapshot(world.stream), topic::encode(&rest).unwrap());
    world.state.commit(tx).await.unwrap();
}

/// The lines of a media playlist that name complete segments.
fn segment_lines(answer: &Answer) -> Vec<String> {
    answer.text().lines().filter(|l| l.strip_suffix(".m4s").is_some()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_edge_serves_what_nobody_remembers_but_the_stores() {
    let world = World::new().await;
    let (before, author) = (world.edge().await, world.author().await);
    let path = world.path("video/index.m3u8");
    (FIRST..FIRST + 3).for_each(|msn| say_segment(&author, msn));
    say_part(&author, FIRST + 3, 0);
    let last = format!("{}.1.m4s", FIRST + 2);
    let seen = until(&before, &path, |a| a.text().contains(&last)).await;
    before.drain().await;
    leave(&world, author.clone(), FIRST..FIRST + 3).await;

    // What was shown of the open segment is nowhere: nothing is shown rather than less.
    let cold = world.edge_holding(1).await;
    let refused = get(&cold, &path).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));

    author.gap(FIRST + 3);
    author.seal();
    keep(&world, &author).await;
    // Control says that no newer epoch has been opened.
    let refused = get(&cold, &path).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    author.announce_epoch();
    let answer = until(&cold, &path, |a| a.status == 200).await;
    assert_eq!(segment_lines(&answer)[..4], segment_lines(&seen)[..]);
    assert!(!answer.text().contains("#EXT-X-ENDLIST"), "{}", answer.text());
    let (old, new) =
        (MediaPlaylist::parse(&seen.text()).unwrap(), MediaPlaylist::parse(&answer.text()).unwrap());
    assert_eq!(old.media_sequence, new.media_sequence);
    let mut checker = Checker::new();
    assert_eq!(checker.check(&seen.text()), []);
    assert_eq!(checker.check(&answer.text()), []);
    for msn in FIRST..FIRST + 3 {
        let path = uri(&world, &author, "audio", &format!("{msn}.1.m4s"));
        assert_eq!(get(&cold, &path).await.body, segment_bytes(&Rendition::audio(), msn));
    }
    let init = uri(&world, &author, "video", "init-0.mp4");
    assert_eq!(get(&cold, &init).await.body, Bytes::from_static(b"video init"));
    assert_eq!(get(&cold, &world.path("index.m3u8")).await.status, 200);

    // The end becomes known later, and is there at once for an edge that starts then.
    author.end();
    keep(&world, &author).await;
    let ended = until(&cold, &path, |a| a.text().contains("#EXT-X-ENDLIST")).await;
    assert_eq!(segment_lines(&ended), segment_lines(&answer));
    assert_eq!(checker.check(&ended.text()), []);
    let again = world.edge().await;
    assert_eq!(until(&again, &path, |a| a.status == 200).await.body, ended.body);
    cold.drain().await;
    again.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_ranges_and_headers() {
    let world = World::new().await;
    let (node, author) = (world.edge().await, world.author().await);
    let playlist = world.path("video/index.m3u8");
    say_segment(&author, FIRST);
    until(&node, &playlist, |a| a.status == 200).await;
    let path = uri(&world, &author, "video", &format!("{FIRST}.1.m4s"));
    let whole = until(&node, &path, |a| a.status == 200).await;
    let size = whole.body.len();
    let etag = whole.header("etag").unwrap().to_owned();
    assert_eq!(whole.header("access-control-allow-origin"), Some("*"));
    assert!(whole.header("cache-control").unwrap().contains("immutable"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    for (method, headers, status, length) in [
        ("GET", vec![], 200, size),
        ("GET", vec![("range", "bytes=0-9")], 206, 10),
        ("GET", vec![("range", "bytes=-5")], 206, 5),
        ("GET", vec![("range", "bytes=5-")], 206, size - 5),
        ("GET", vec![("range", "bytes=99999999-")], 416, 0),
        ("GET", vec![("range", "bytes=0-1,3-4")], 200, size),
        ("GET", vec![("range", "bytes=0-9"), ("if-range", "\"other\"")], 200, size),
        ("GET", vec![("if-none-match", etag.as_str())], 304, 0),
        ("HEAD", vec![], 200, 0),
        ("OPTIONS", vec![("access-control-request-method", "GET")], 204, 0),
        ("DELETE", vec![], 405, 19),
    ] {
        let answer = request(node.addr(), method, &path, &headers, b"").await;
        assert_eq!((answer.status, answer.body.len()), (status, length), "{method} {headers:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{method} {headers:?}");
    }
    let head = request(node.addr(), "HEAD", &path, &[], b"").await;
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
    let part = request(node.addr(), "GET", &path, &[("range", "bytes=2-4")], b"").await;
    assert_eq!(part.header("content-range"), Some(format!("bytes 2-4/{size}").as_str()));
    assert_eq!(part.body, whole.body.slice(2..5));
    let zipped = request(node.addr(), "GET", &playlist, &[("accept-encoding", "gzip")], b"").await;
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert_eq!(zipped.header("content-type"), Some("application/vnd.apple.mpegurl"));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_what_does_not_exist_costs_nothing() {
    let world = World::new().await;
    let node = world.edge().await;
    let mut client = client::KeepAlive::connect(node.addr()).await;
    for i in 0..10_000_u32 {
        let path = match i % 3 {
            0 => "/live/ffffffffffffffffffffffffffffffff/index.m3u8".to_owned(),
            1 => format!("/live/{i:032x}/video/index.m3u8"),
            _ => format!("/live/{i:032x}/video/1/{i}.1.m4s"),
        };
        assert_eq!(client.get(&path).await.status, 404, "{path}");
    }
    assert_eq!(node.registry().len(), 0);
    assert!(node.registry().unknown_len() <= 16_384);
    assert!(node.cache().is_empty());
    for bad in ["/live/../etc/passwd", "/live/%2e%2e/x.m4s", "/live/x", "/live//index.m3u8", "/nothing"] {
        assert_eq!(get(&node, bad).await.status, 404, "{bad}");
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_health() {
    let world = World::new().await;
    let node = world.edge().await;
    for path in ["/", &format!("/watch/{}", world.playback)] {
        let page = get(&node, path).await;
        assert_eq!(page.status, 200);
        assert!(page.header("content-type").unwrap().starts_with("text/html"));
    }
    assert_eq!(get(&node, "/assets/nothing.js").await.status, 404);
    assert_eq!(get(&node, "/healthz").await.status, 200);
    until(&node, "/readyz", |a| a.status == 200).await;
    node.drain().await;
}
