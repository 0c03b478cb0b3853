//! Playlists over HTTP: a log writer publishes facts on an in-process bus, a raw client reads the answers.

use std::collections::BTreeSet;

use bytes::Bytes;
use millrace_edge::{Config, Node};
use millrace_media::hls::MediaPlaylist;
use millrace_media::hls::checker::Checker;
use millrace_protocol::state::checkpoint;
use millrace_runtime::{Order, Process};
use millrace_state::{StateStore, Tx};
use millrace_store::Meta;
use millrace_wire::catalog::PlaybackRecord;
use millrace_wire::fact::MediaDuration;
use millrace_wire::ids::{Rendition, StreamId};
use millrace_wire::ladder::{LadderPlan, LadderRung};
use millrace_wire::{state_keys, topic};

use crate::client::{Answer, request};
use crate::log_writer::{FIRST, LogWriter, audio_info, video_info};
use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn playlists_of_a_starting_stream_are_held_and_never_go_back() {
    let world = World::new().await;
    let node = world.edge().await;
    let path = world.path("video/index.m3u8");
    let held = tokio::spawn({
        let (addr, path) = (node.addr(), path.clone());
        async move { request(addr, "GET", &path, &[], b"").await }
    });
    let writer = world.writer().await;
    append_part(&writer, FIRST, 0);
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
                append_part(&writer, msn, part);
            }
            let answer = get(&node, &format!("{path}?_HLS_msn={msn}&_HLS_part={part}")).await;
            assert_eq!(answer.status, 200, "{msn} {part}");
            assert_eq!(checker.check(&answer.text()), [], "{}", answer.text());
        }
        complete(&writer, msn);
        if msn > FIRST + 5 {
            writer.trim(msn - 5);
        }
    }
    let multivariant = get(&node, &world.path("index.m3u8")).await.text();
    assert!(multivariant.contains("avc1.64001e,mp4a.40.2") && multivariant.contains("audio/index.m3u8"));
    writer.end();
    let last = until(&node, &path, |answer| answer.text().contains("#EXT-X-ENDLIST")).await;
    assert_eq!(checker.check(&last.text()), []);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_reload_waits_for_the_part_and_is_refused_when_too_far_ahead() {
    let world = World::new().await;
    let (node, writer) = (world.edge().await, world.writer().await);
    let path = world.path("video/index.m3u8");
    append_part(&writer, FIRST, 0);
    until(&node, &path, |answer| answer.status == 200).await;
    let blocked = tokio::spawn({
        let (addr, path) = (node.addr(), format!("{path}?_HLS_msn={FIRST}&_HLS_part=1"));
        async move { request(addr, "GET", &path, &[], b"").await }
    });
    // The request for the hinted part is held as well.
    let name = uri(&world, &writer, "video", &format!("{FIRST}.1.1.m4s"));
    let hinted = tokio::spawn({
        let (addr, name) = (node.addr(), name.clone());
        async move { request(addr, "GET", &name, &[], b"").await }
    });
    assert!(!blocked.is_finished());
    append_part(&writer, FIRST, 1);
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
async fn multivariant_of_a_beginning_ladder_is_held_until_its_rung_is_described() {
    let world = World::new().await;
    let rung = LadderRung { height: 240, bitrate: 400_000, fps: None, preset: None, codec: None };
    let (node, writer) = (world.edge().await, world.writer_of(LadderPlan::of_rungs(vec![rung])).await);
    append_part(&writer, FIRST, 0);
    until(&node, &world.path("video/index.m3u8"), |answer| answer.status == 200).await;
    let held = tokio::spawn({
        let (addr, path) = (node.addr(), world.path("index.m3u8"));
        async move { request(addr, "GET", &path, &[], b"").await }
    });
    append_part(&writer, FIRST, 1);
    let reload = format!("video/index.m3u8?_HLS_msn={FIRST}&_HLS_part=1");
    assert_eq!(get(&node, &world.path(&reload)).await.status, 200);
    assert!(!held.is_finished(), "the source's renditions are playable, and the rung is awaited");
    let rendition: Rendition = "240p".parse().unwrap();
    let init = (video_info(426, 240, "avc1.640015"), Bytes::from_static(b"rung init"));
    writer.add_track(rendition, init, MediaDuration::from_millis(220));
    let text = held.await.unwrap().text();
    assert!(text.contains("240p/index.m3u8") && text.contains("video/index.m3u8"), "{text}");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multivariant_is_served_without_rungs_that_did_not_come() {
    let world = World::new().await;
    let rung = LadderRung { height: 240, bitrate: 400_000, fps: None, preset: None, codec: None };
    let (node, writer) = (world.edge().await, world.writer_of(LadderPlan::of_rungs(vec![rung])).await);
    append_part(&writer, FIRST, 0);
    // The request is held for its bounded time, and then answered with what there is.
    let text = get(&node, &world.path("index.m3u8")).await.text();
    assert!(text.contains("video/index.m3u8") && !text.contains("240p"), "{text}");
    for msn in FIRST..FIRST + 3 {
        (u32::from(msn == FIRST)..PARTS).for_each(|part| append_part(&writer, msn, part));
        complete(&writer, msn);
    }
    let reload = format!("video/index.m3u8?_HLS_msn={}", FIRST + 2);
    assert_eq!(get(&node, &world.path(&reload)).await.status, 200);
    let begin = std::time::Instant::now();
    assert_eq!(get(&node, &world.path("index.m3u8")).await.status, 200);
    assert!(begin.elapsed().as_millis() < 1_500, "later requests are not held");
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_edges_and_a_restarted_one_serve_the_same_bytes() {
    let world = World::new().await;
    let (a, writer) = (world.edge().await, world.writer().await);
    let path = world.path("video/index.m3u8");
    get(&a, &path).await;
    for msn in FIRST..FIRST + 3 {
        append_segment(&writer, msn);
    }
    append_part(&writer, FIRST + 3, 0);
    let ask = format!("{path}?_HLS_msn={}&_HLS_part=0", FIRST + 3);
    let first = until(&a, &ask, |answer| answer.status == 200).await;
    // The second edge joins late, by snapshot and repair.
    let b = world.edge().await;
    assert_eq!(until(&b, &ask, |answer| answer.status == 200).await.body, first.body);
    let tag = |x: &Answer| x.header("etag").map(str::to_owned);
    assert_eq!(tag(&get(&b, &path).await), tag(&get(&a, &path).await));

    let segment = uri(&world, &writer, "video", &format!("{FIRST}.1.m4s"));
    let bytes = get(&a, &segment).await.body;
    assert_eq!(bytes, segment_bytes(&Rendition::video(), FIRST));
    let part = uri(&world, &writer, "audio", &format!("{}.1.0.m4s", FIRST + 3));
    let init = uri(&world, &writer, "video", "init-0.mp4");
    let before = (get(&a, &part).await.body, get(&a, &init).await.body);
    a.drain().await;
    let again = world.edge().await;
    assert_eq!(until(&again, &ask, |answer| answer.status == 200).await.body, first.body);
    assert_eq!(get(&again, &segment).await.body, bytes);
    assert_eq!((get(&again, &part).await.body, get(&again, &init).await.body), before);
    again.drain().await;
    b.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_repairs_a_lost_fact() {
    let world = World::new().await;
    let (node, writer) = (world.edge().await, world.writer().await);
    let path = world.path("video/index.m3u8");
    append_part(&writer, FIRST, 0);
    until(&node, &path, |answer| answer.status == 200).await;
    for rendition in [Rendition::video(), Rendition::audio()] {
        let bytes = part_bytes(&rendition, FIRST, 1);
        writer.lost_part(rendition, (FIRST, 1), PART_MS, false, bytes);
    }
    append_part(&writer, FIRST, 2);
    let answer = get(&node, &format!("{path}?_HLS_msn={FIRST}&_HLS_part=2")).await;
    assert_eq!(answer.status, 200);
    let part = uri(&world, &writer, "video", &format!("{FIRST}.1.1.m4s"));
    assert_eq!(get(&node, &part).await.body, part_bytes(&Rendition::video(), FIRST, 1));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lagging_stream_answers_503_for_itself_and_the_node_stays_ready() {
    let world = World::new().await;
    let (node, writer) = (world.edge_holding(1).await, world.writer().await);
    let (other, other_playback) =
        (StreamId::from_u128(10), "ffeeddccbbaa99887766554433221100".parse().unwrap());
    let record = PlaybackRecord::public(other).encode().unwrap();
    let record = Tx::new().put(state_keys::playback(other_playback), record);
    world.state.commit(record).await.unwrap();
    let healthy = LogWriter::new(world.shared_bus(), other, other_playback).await;
    healthy.announce();
    let video = (video_info(640, 360, "avc1.64001e"), Bytes::from_static(b"video init"));
    healthy.open(video, (audio_info(), Bytes::from_static(b"audio init")), MediaDuration::from_millis(220));
    append_part(&healthy, FIRST, 0);
    append_part(&writer, FIRST, 0);
    let path = world.path("video/index.m3u8");
    until(&node, &path, |answer| answer.status == 200).await;
    until(&node, "/readyz", |answer| answer.status == 200).await;

    // The log writer dies with its publisher, and a fact is lost: no request for repair or a snapshot is answered.
    writer.stop_answering().await;
    let lost = part_bytes(&Rendition::video(), FIRST, 1);
    writer.lost_part(Rendition::video(), (FIRST, 1), PART_MS, false, lost);
    append_part(&writer, FIRST, 2);
    let refused = until(&node, &path, |answer| answer.status == 503).await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(get(&node, &world.path("index.m3u8")).await.status, 503);
    let ready = get(&node, "/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    let others = get(&node, &format!("/live/{other_playback}/video/index.m3u8")).await;
    assert_eq!(others.status, 200, "{}", others.text());
    assert_eq!(metric(&node, "millrace_edge_feeds_lagging").await.as_deref(), Some("1"));
    let named = format!("millrace_edge_feed_lag_since_timestamp_seconds{{stream=\"{}\"}}", world.stream);
    let since: u64 = metric(&node, &named).await.expect("the lagging stream is named").parse().unwrap();
    assert!(since > 1_700_000_000, "{since} is a unix time");
    // A blocking reload that the playlist satisfies already is answered as ever.
    assert_eq!(get(&node, &format!("{path}?_HLS_msn={FIRST}&_HLS_part=0")).await.status, 200);

    // The log writer answers again, and the missing facts are repaired.
    writer.answer().await;
    let repaired = until(&node, &path, |answer| answer.status == 200).await;
    assert!(repaired.text().contains(&format!("{FIRST}.1.2.m4s")), "{}", repaired.text());
    assert_eq!(metric(&node, "millrace_edge_feeds_lagging").await.as_deref(), Some("0"));
    assert_eq!(metric(&node, &named).await, None);
    node.drain().await;
}

/// Stores the segments `msns` and the checkpoint, then stops the log writer, as after the death of its node.
async fn die_after_storing(world: &World, writer: LogWriter, msns: std::ops::Range<u64>) {
    for rendition in [Rendition::video(), Rendition::audio()] {
        for msn in msns.clone() {
            let key = uri(world, &writer, rendition.as_str(), &format!("{msn}.1.m4s"));
            let body = segment_bytes(&rendition, msn);
            world.store.put(&key[1..], body.into(), Meta::default()).await.unwrap();
            writer.stored(rendition.clone(), msn);
        }
        let key = uri(world, &writer, rendition.as_str(), "init-0.mp4");
        let body = Bytes::from(format!("{rendition} init"));
        world.store.put(&key[1..], body.into(), Meta::default()).await.unwrap();
    }
    store_checkpoint(world, &writer).await;
    writer.stop_answering().await;
}

async fn store_checkpoint(world: &World, writer: &LogWriter) {
    let checkpoint = checkpoint::checkpoint_of(&writer.state(), &BTreeSet::new(), 600);
    let tx = Tx::new().put(state_keys::snapshot(world.stream), topic::encode(&checkpoint).unwrap());
    world.state.commit(tx).await.unwrap();
}

/// Returns the lines of a media playlist that name complete segments.
fn segment_lines(answer: &Answer) -> Vec<String> {
    answer.text().lines().filter(|line| line.strip_suffix(".m4s").is_some()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_edge_serves_a_closed_checkpoint_without_a_log_writer() {
    let world = World::new().await;
    let (before, writer) = (world.edge().await, world.writer().await);
    let path = world.path("video/index.m3u8");
    (FIRST..FIRST + 3).for_each(|msn| append_segment(&writer, msn));
    append_part(&writer, FIRST + 3, 0);
    let last = format!("{}.1.m4s", FIRST + 2);
    let seen = until(&before, &path, |answer| answer.text().contains(&last)).await;
    before.drain().await;
    die_after_storing(&world, writer.clone(), FIRST..FIRST + 3).await;

    // The checkpoint has less than viewers saw of the open segment: nothing is shown rather than less.
    let cold = world.edge_holding(1).await;
    let refused = get(&cold, &path).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));

    writer.gap(FIRST + 3);
    writer.seal();
    store_checkpoint(&world, &writer).await;
    // The checkpoint is shown once control has announced that no newer epoch has been opened.
    let refused = get(&cold, &path).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    writer.announce_epoch();
    let answer = until(&cold, &path, |answer| answer.status == 200).await;
    assert_eq!(segment_lines(&answer)[..4], segment_lines(&seen)[..]);
    assert!(!answer.text().contains("#EXT-X-ENDLIST"), "{}", answer.text());
    let (old, new) =
        (MediaPlaylist::parse(&seen.text()).unwrap(), MediaPlaylist::parse(&answer.text()).unwrap());
    assert_eq!(old.media_sequence, new.media_sequence);
    let mut checker = Checker::new();
    assert_eq!(checker.check(&seen.text()), []);
    assert_eq!(checker.check(&answer.text()), []);
    for msn in FIRST..FIRST + 3 {
        let path = uri(&world, &writer, "audio", &format!("{msn}.1.m4s"));
        assert_eq!(get(&cold, &path).await.body, segment_bytes(&Rendition::audio(), msn));
    }
    let init = uri(&world, &writer, "video", "init-0.mp4");
    assert_eq!(get(&cold, &init).await.body, Bytes::from_static(b"video init"));
    assert_eq!(get(&cold, &world.path("index.m3u8")).await.status, 200);

    // The end becomes known later, and an edge that starts then shows it at once.
    writer.end();
    store_checkpoint(&world, &writer).await;
    let ended = until(&cold, &path, |answer| answer.text().contains("#EXT-X-ENDLIST")).await;
    assert_eq!(segment_lines(&ended), segment_lines(&answer));
    assert_eq!(checker.check(&ended.text()), []);
    let again = world.edge().await;
    assert_eq!(until(&again, &path, |answer| answer.status == 200).await.body, ended.body);
    cold.drain().await;
    again.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feed_is_a_named_actor_whose_kick_follows_the_stream_anew() {
    let world = World::new().await;
    let listen = ([127, 0, 0, 1], 0).into();
    let config = Config { listen, metrics_listen: Some(listen), workers: 1, ..Config::default() };
    let process = Process::default();
    let (node, writer) = (world.edge_of(config, process.clone()).await, world.writer().await);
    let path = world.path("video/index.m3u8");
    append_part(&writer, FIRST, 0);
    until(&node, &path, |answer| answer.status == 200).await;
    let operations = node.operations_addr().unwrap();
    let listed = request(operations, "GET", "/actors?kind=feed", &[], b"").await.text();
    let state = format!("following epoch {} generation {}", writer.epoch, writer.generation);
    assert!(listed.contains(&state) && listed.contains(&world.stream.to_string()), "{listed}");
    assert_eq!(get(&node, "/actors").await.status, 404, "viewers do not see the actors");

    let kick = Order::Kick { reason: "a test".to_owned() };
    process.actors.order("feed", &world.stream.to_string(), kick).await.unwrap();
    append_part(&writer, FIRST, 1);
    let reload = format!("{path}?_HLS_msn={FIRST}&_HLS_part=1");
    until(&node, &reload, |answer| answer.status == 200).await;
    node.drain().await;
}

/// Waits until the list of actors shows `state` for the feed.
async fn until_feed_shows(node: &Node, state: &str) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let operations = node.operations_addr().unwrap();
        let listed = request(operations, "GET", "/actors?kind=feed", &[], b"").await.text();
        if listed.contains(state) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{listed}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kicked_feed_keeps_playlists_and_parts_until_a_log_is_at_least_as_far() {
    let world = World::new().await;
    let process = Process::default();
    let listen = ([127, 0, 0, 1], 0).into();
    let config = Config { listen, metrics_listen: Some(listen), workers: 1, ..Config::default() };
    let (node, writer) = (world.edge_of(config, process.clone()).await, world.writer().await);
    let path = world.path("video/index.m3u8");
    append_part(&writer, FIRST, 0);
    append_part(&writer, FIRST, 1);
    let newest = uri(&world, &writer, "video", &format!("{FIRST}.1.1.m4s"));
    let seen = until(&node, &path, |answer| answer.text().contains(&format!("{FIRST}.1.1.m4s"))).await;
    assert_eq!(get(&node, &newest).await.status, 200);

    writer.stop_answering().await;
    let kick = Order::Kick { reason: "a test".to_owned() };
    process.actors.order("feed", &world.stream.to_string(), kick).await.unwrap();
    until_feed_shows(&node, "no log adopted").await;
    assert_eq!(get(&node, &newest).await.body, part_bytes(&Rendition::video(), FIRST, 1));
    assert_eq!(get(&node, &path).await.body, seen.body);

    // A log of the same epoch that has less is adopted and not shown: the playlist never goes back.
    let shorter = world.writer().await;
    append_part(&shorter, FIRST, 0);
    until_feed_shows(&node, "following epoch").await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(300);
    while tokio::time::Instant::now() < deadline {
        assert_eq!(get(&node, &path).await.body, seen.body);
    }
    append_part(&shorter, FIRST, 1);
    append_part(&shorter, FIRST, 2);
    let reload = format!("{path}?_HLS_msn={FIRST}&_HLS_part=2");
    until(&node, &reload, |answer| answer.status == 200).await;
    node.drain().await;
}
