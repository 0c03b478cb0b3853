//! The phase and the tracks of a stream, as players hear of them.

use std::time::Duration;

use bytes::Bytes;
use millrace_edge::Node;
use millrace_wire::fact::MediaDuration;
use millrace_wire::ids::Rendition;
use serde_json::{Value, json};

use crate::client::request;
use crate::log_writer::{FIRST, audio_info, video_info};
use crate::world::*;

/// Sends a beacon without a session; `known` is the last answer, if the player waits for another one.
async fn beacon(node: &Node, world: &World, known: Option<&Value>) -> Value {
    let body = known.map_or_else(String::new, |known| json!({ "state": known["state"] }).to_string());
    let answer = request(node.addr(), "POST", &world.path("beacon"), &[], body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// Returns a task that sends a beacon which is held until something other than `known` is to be told.
fn held(node: &Node, world: &World, known: &Value) -> tokio::task::JoinHandle<Value> {
    let (addr, path, body) =
        (node.addr(), world.path("beacon"), json!({ "state": known["state"] }).to_string());
    tokio::spawn(async move {
        let answer = request(addr, "POST", &path, &[], body.as_bytes()).await;
        serde_json::from_slice(&answer.body).unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_beacon_of_a_cold_edge_says_live_of_a_running_stream() {
    let world = World::new().await;
    let writer = world.writer().await;
    append_segment(&writer, FIRST);
    append_part(&writer, FIRST + 1, 0);
    for _ in 0..9 {
        let cold = world.edge().await;
        let first = beacon(&cold, &world, None).await;
        assert_eq!((first["phase"].as_str(), &first["tracks"]), (Some("live"), &json!(["audio", "video"])));
        cold.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_beacon_tells_each_phase_of_a_broadcast_when_it_begins() {
    let world = World::new().await;
    let node = world.edge().await;
    let waiting = beacon(&node, &world, None).await;
    assert_eq!((waiting["phase"].as_str(), &waiting["tracks"]), (Some("waiting"), &json!([])));
    let next = held(&node, &world, &waiting);
    let writer = world.writer().await;
    let starting = next.await.unwrap();
    assert_eq!(starting["phase"], "starting");
    // The tracks become known, then the first part comes.
    let mut last = starting;
    let next = held(&node, &world, &last);
    append_part(&writer, FIRST, 0);
    last = next.await.unwrap();
    while last["phase"] != "live" {
        last = beacon(&node, &world, Some(&last)).await;
    }
    assert_eq!(last["tracks"], json!(["audio", "video"]));

    // The publisher leaves: control announces it.
    let next = held(&node, &world, &last);
    writer.announce_away();
    let away = next.await.unwrap();
    assert_eq!(away["phase"], "away");
    assert_eq!(get(&node, &world.path("video/index.m3u8")).await.status, 200, "the playlists stay");
    // An open epoch alone does not bring it back; a part does.
    let mut next = held(&node, &world, &away);
    writer.announce_epoch();
    let mut part = 1;
    let back = loop {
        append_part(&writer, FIRST, part);
        part += 1;
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(PART_MS), &mut next).await {
            break answer.unwrap();
        }
    };
    assert_eq!(back["phase"], "live");

    let next = held(&node, &world, &back);
    writer.seal();
    writer.end();
    assert_eq!(next.await.unwrap()["phase"], "ended");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_beacon_tells_that_media_stands_still_without_an_announcement() {
    let world = World::new().await;
    let (node, writer) = (world.edge().await, world.writer().await);
    append_part(&writer, FIRST, 0);
    let live = beacon(&node, &world, None).await;
    assert_eq!(live["phase"], "live");
    let next = held(&node, &world, &live);
    let still = tokio::time::timeout(Duration::from_secs(3), next).await.expect("within a moment").unwrap();
    assert_eq!(still["phase"], "away");
    let next = held(&node, &world, &still);
    append_part(&writer, FIRST, 1);
    assert_eq!(next.await.unwrap()["phase"], "live");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn track_that_joins_late_is_told_and_in_the_multivariant_playlist_at_once() {
    let world = World::new().await;
    let (node, writer) = (world.edge().await, world.writer().await);
    append_part(&writer, FIRST, 0);
    let before = beacon(&node, &world, None).await;
    let multivariant = get(&node, &world.path("index.m3u8")).await;
    assert!(!multivariant.text().contains("commentary"));
    let next = held(&node, &world, &before);
    let commentary: Rendition = "commentary".parse().unwrap();
    writer.add_track(
        commentary,
        (audio_info(), Bytes::from_static(b"init")),
        MediaDuration::from_millis(220),
    );
    let after = next.await.unwrap();
    assert_eq!(after["tracks"], json!(["audio", "commentary", "video"]));
    let grown = get(&node, &world.path("index.m3u8")).await;
    assert!(grown.text().contains("commentary/index.m3u8"), "{}", grown.text());
    assert_ne!(grown.header("etag"), multivariant.header("etag"));
    node.drain().await;
}

/// Returns how many requests have been held.
async fn waits(node: &Node) -> String {
    metric(node, "millrace_edge_wait_seconds_count").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rendition_that_a_running_stream_does_not_have_is_not_found_at_once() {
    let world = World::new().await;
    let (node, writer) = (world.edge().await, world.writer().await);
    append_part(&writer, FIRST, 0);
    until(&node, &world.path("video/index.m3u8"), |answer| answer.status == 200).await;
    let before = waits(&node).await;
    for tail in ["nothing/index.m3u8", "nothing/index.m3u8?_HLS_msn=1000&_HLS_part=1", "%00/index.m3u8"] {
        let answer = get(&node, &world.path(tail)).await;
        assert_eq!((answer.status, answer.header("cache-control")), (404, Some("no-store")), "{tail}");
    }
    assert_eq!(waits(&node).await, before, "no request was held");
    // A rendition that is announced is held until its first part.
    let info = video_info(64, 64, "avc1.64001e");
    let small: Rendition = "small".parse().unwrap();
    let target = MediaDuration::from_millis(220);
    writer.add_track(small.clone(), (info, Bytes::from_static(b"init")), target);
    until(&node, &world.path("index.m3u8"), |answer| answer.text().contains("small")).await;
    let asked = tokio::spawn({
        let (addr, path) = (node.addr(), world.path("small/index.m3u8"));
        async move { request(addr, "GET", &path, &[], b"").await }
    });
    writer.part(small, (FIRST, 0), PART_MS, true, Bytes::from_static(b"part"));
    assert_eq!(asked.await.unwrap().status, 200);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn object_that_is_neither_listed_nor_hinted_is_not_found_at_once_and_in_no_cache() {
    let world = World::new().await;
    let (node, writer) = (world.edge().await, world.writer().await);
    append_segment(&writer, FIRST);
    writer.gap(FIRST + 1);
    append_part(&writer, FIRST + 2, 0);
    let open = FIRST + 2;
    let reload = world.path(&format!("video/index.m3u8?_HLS_msn={open}&_HLS_part=0"));
    until(&node, &reload, |answer| answer.status == 200).await;
    let before = waits(&node).await;
    for file in [
        format!("{FIRST}.1.{PARTS}.m4s"),
        format!("{FIRST}.2.0.m4s"),
        format!("{FIRST}.2.m4s"),
        format!("{FIRST}.0.m4s"),
        format!("{}.1.m4s", FIRST + 1),
        format!("{}.1.0.m4s", FIRST + 1),
        format!("{}.0.m4s", FIRST - 2),
        format!("{open}.1.m4s"),
        format!("{open}.1.5.m4s"),
        format!("{open}.0.1.m4s"),
        format!("{}.1.7.m4s", open + 1),
        format!("{}.1.0.m4s", open + 2),
        "init-9.mp4".to_owned(),
    ] {
        let answer = get(&node, &uri(&world, &writer, "video", &file)).await;
        assert_eq!((answer.status, answer.header("cache-control")), (404, Some("no-store")), "{file}");
    }
    // A GAP answers: clients that do not know the tag ask for it.
    let empty = millrace_media::container::cmaf::fragment_header(0, 0, &[]);
    let empty = empty.slice(..empty.len() - b"size".len() - b"mdat".len());
    for (rendition, file) in [
        ("video", format!("{}.0.m4s", FIRST - 1)),
        ("video", format!("{}.0.m4s", FIRST + 1)),
        ("audio", format!("{}.0.3.m4s", FIRST + 1)),
    ] {
        let answer = get(&node, &uri(&world, &writer, rendition, &file)).await;
        assert_eq!((answer.status, &answer.body), (200, &empty), "{rendition} {file}");
        assert!(answer.header("cache-control").unwrap().contains("immutable"));
    }
    assert_eq!(waits(&node).await, before, "no request was held");

    // A hinted part that does not come is not found as soon as its segment ends without it.
    let hinted = tokio::spawn({
        let (addr, path) = (node.addr(), uri(&world, &writer, "video", &format!("{open}.1.1.m4s")));
        async move { request(addr, "GET", &path, &[], b"").await }
    });
    until(&node, "/metrics", |answer| answer.text().contains("millrace_edge_waiters 1\n")).await;
    for rendition in [Rendition::video(), Rendition::audio()] {
        let size = part_bytes(&rendition, open, 0).len() as u64;
        writer.segment(rendition, open, 1, PART_MS, true, size);
    }
    assert_eq!(hinted.await.unwrap().status, 404);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publisher_who_is_away_for_longer_than_the_window_is_still_away() {
    let world = World::new().await;
    let (node, writer) = (world.edge().await, world.writer().await);
    append_segment(&writer, FIRST);
    writer.announce_away();
    writer.seal();
    writer.gap(FIRST + 1);
    writer.gap(FIRST + 2);
    let mut last = beacon(&node, &world, None).await;
    while last["phase"] != "away" {
        last = beacon(&node, &world, Some(&last)).await;
    }
    writer.trim(FIRST + 1);
    let gone = uri(&world, &writer, "video", &format!("{FIRST}.1.m4s"));
    until(&node, &gone, |answer| answer.status == 404).await;
    assert_eq!(beacon(&node, &world, None).await["phase"], "away");
    node.drain().await;
}
