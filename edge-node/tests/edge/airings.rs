//! A stream that airs again: each broadcast keeps its media playlists, and the multivariant playlist names those of the newest.

use bytes::Bytes;
use millrace_media::hls::MediaPlaylist;
use millrace_media::hls::checker::Checker;
use millrace_state::{StateStore, Tx};
use millrace_wire::fact::{MediaDuration, StreamState};
use millrace_wire::ids::Airing;
use millrace_wire::{state_keys, topic};

use crate::client::request;
use crate::log_writer::{AIRING_STEP, FIRST, LogWriter, audio_info, video_info};
use crate::world::*;

async fn second_writer(world: &World) -> LogWriter {
    let writer = LogWriter::of_airing(world.shared_bus(), world.stream, world.playback, Airing(1)).await;
    writer.announce();
    let video = (video_info(640, 360, "avc1.64001e"), Bytes::from_static(b"video init"));
    let audio = (audio_info(), Bytes::from_static(b"audio init"));
    writer.open(video, audio, MediaDuration::from_millis(220));
    writer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_broadcast_has_playlists_of_its_own_and_the_ended_ones_keep_endlist() {
    let world = World::new().await;
    let (node, first) = (world.edge().await, world.writer().await);
    let (one, two) = (world.path("video/index.m3u8"), world.path("video/index-1.m3u8"));
    let mut checker = Checker::new();
    for msn in FIRST..FIRST + 3 {
        append_segment(&first, msn);
    }
    let running = until(&node, &one, |answer| answer.text().contains(&format!("/{}.1.m4s", FIRST + 2))).await;
    assert_eq!(checker.check(&running.text()), []);
    // A player waits for a part that never comes: the broadcast ends instead.
    let waiting = tokio::spawn({
        let (addr, path) = (node.addr(), format!("{one}?_HLS_msn={}", FIRST + 3));
        async move { request(addr, "GET", &path, &[], b"").await }
    });
    first.end();
    let ended = until(&node, &one, |answer| answer.text().contains("#EXT-X-ENDLIST")).await;
    assert_eq!(checker.check(&ended.text()), []);
    assert!(waiting.await.unwrap().text().contains("#EXT-X-ENDLIST"));

    let early = tokio::spawn({
        let (addr, path) = (node.addr(), two.clone());
        async move { request(addr, "GET", &path, &[], b"").await }
    });
    let second = second_writer(&world).await;
    let begin = FIRST + AIRING_STEP;
    append_part(&second, begin, 0);
    let held = early.await.unwrap();
    assert_eq!(held.status, 200, "a request for a broadcast that begins is held");
    let playlist = MediaPlaylist::parse(&held.text()).unwrap();
    let last = MediaPlaylist::parse(&ended.text()).unwrap();
    assert!(playlist.media_sequence >= last.next_msn(), "{} {}", playlist.media_sequence, last.next_msn());
    assert!(playlist.discontinuity_sequence > last.discontinuity_sequence);
    assert!(!held.text().contains("#EXT-X-ENDLIST"));
    assert_eq!(get(&node, &one).await.text(), ended.text(), "the ended playlist stays as it was");
    for query in ["_HLS_msn=99999999999", &format!("_HLS_msn={begin}&_HLS_part=0")] {
        let late = get(&node, &format!("{one}?{query}")).await;
        assert_eq!((late.status, late.text()), (200, ended.text()), "{query}");
    }
    let multivariant = get(&node, &world.path("index.m3u8")).await.text();
    assert!(
        multivariant.contains("video/index-1.m3u8") && !multivariant.contains("index.m3u8"),
        "{multivariant}"
    );
    let mut checker = Checker::new();
    assert_eq!(checker.check(&held.text()), [], "{}", held.text());
    append_segment_after_its_first_part(&second, begin);
    let reloaded = until(&node, &two, |answer| answer.text().contains(&format!("/{begin}.1.m4s"))).await;
    assert_eq!(checker.check(&reloaded.text()), [], "{}", reloaded.text());
    assert!(reloaded.text().contains("../audio/index-1.m3u8"), "reports name the same broadcast");
    for absent in ["video/index-0.m3u8", "video/index-01.m3u8", "video/index-x.m3u8", "none/index.m3u8"] {
        assert_eq!(get(&node, &world.path(absent)).await.status, 404, "{absent}");
    }
    node.drain().await;
}

fn append_segment_after_its_first_part(writer: &LogWriter, msn: u64) {
    (1..PARTS).for_each(|part| append_part(writer, msn, part));
    complete(writer, msn);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edge_that_never_showed_the_last_broadcast_serves_its_end_from_the_kept_checkpoint() {
    let world = World::new().await;
    let first = world.writer().await;
    for msn in FIRST..FIRST + 3 {
        append_segment(&first, msn);
    }
    first.end();
    first.stop_answering().await;
    let kept = StreamState { ended: true, ..first.state() };
    let key = state_keys::past_snapshot(world.stream, Airing::FIRST);
    world.state.commit(Tx::new().put(key, topic::encode(&kept).unwrap())).await.unwrap();
    let node = world.edge().await;
    let second = second_writer(&world).await;
    append_part(&second, FIRST + AIRING_STEP, 0);
    until(&node, &world.path("video/index-1.m3u8"), |answer| answer.status == 200).await;
    let old = get(&node, &world.path("video/index.m3u8")).await;
    assert_eq!(old.status, 200);
    assert!(old.text().contains("#EXT-X-ENDLIST") && old.text().contains(&format!("/{}.1.m4s", FIRST + 2)));
    assert_eq!(get(&node, &world.path("none/index.m3u8")).await.status, 404);
    node.drain().await;
}
