//! Refused publishers and connections: their status, and that other streams lose nothing.
#![allow(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

mod support;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use millrace_bus::MemBus;
use millrace_ingest::Config;
use millrace_media::container::flv::file::{Tag, TagKind};
use millrace_testkit::ClipSpec;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::StreamKey;
use millrace_wire::message::control::PublishLimits;
use millrace_wire::message::media::Track;
use support::{Consumer, LIMIT, Pusher, World, check_order, config, eventually, frames, pushed, tags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn short() -> ClipSpec {
    ClipSpec { frames: 90, ..ClipSpec::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_gets_the_status_of_its_reason() {
    let world = World::start().await;
    let base = format!("rtmp://{}", world.node.rtmp_addr());
    let (_, revoked) = world.control.stream_with(Err(CloseReason::RevokedKey));
    let (_, ended) = world.control.stream_with(Err(CloseReason::StreamEnded));
    let (_, good) = world.control.stream();
    for (path, code) in [
        ("live/ffffffffffffffffffffffffffffffff".to_owned(), "NetStream.Publish.BadName"),
        ("live/not-a-key".to_owned(), "NetStream.Publish.BadName"),
        (format!("live/{}", revoked.reveal()), "NetStream.Publish.BadName"),
        (format!("live/{}", ended.reveal()), "NetStream.Publish.BadName"),
        (format!("other/{}", good.reveal()), "NetConnection.Connect.InvalidApp"),
    ] {
        let refused = Pusher::publish(&format!("{base}/{path}"), 0).await.err();
        assert_eq!(refused.as_deref(), Some(code), "{path}");
    }
    assert_eq!(world.metric("millrace_ingest_refused_total{reason=\"unknown_key\"}"), 2);
    assert_eq!(world.metric("millrace_ingest_refused_total{reason=\"wrong_app\"}"), 1);
    // A text that is no stream key never reaches control.
    assert_eq!(world.control.seen.lock().unwrap().claims.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_key_delays_the_next_answer() {
    let world = World::start().await;
    let url = format!("rtmp://{}/live/ffffffffffffffffffffffffffffffff", world.node.rtmp_addr());
    let mut times = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        assert!(Pusher::publish(&url, 0).await.is_err());
        times.push(began.elapsed().as_millis());
    }
    assert!(times[0] >= 250 && times[1] >= 500 && times[2] >= 1_000, "{times:?}");
    // A good key is accepted all the same.
    let (_, key) = world.control.stream();
    assert!(Pusher::publish(&world.url(&key), 0).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_publisher_disconnects_the_older_one() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut older = Pusher::publish(&world.url(&key), 0).await.unwrap();
    older.push(&tags[..20]).await.unwrap();
    let mut newer = Pusher::publish(&world.url(&key), 0).await.unwrap();
    newer.push(&tags).await.unwrap();
    assert_eq!(older.refusal().await.as_deref(), Some("NetStream.Publish.BadName"));
    assert_eq!(older.event().await, None);
    newer.unpublish().await;
    let ends =
        |messages: &[millrace_wire::message::media::MediaMessage]| messages.iter().filter(|m| m.end).count();
    consumer.until(|messages| ends(messages) == 2).await;
    let epoch = consumer.messages.iter().map(|message| message.epoch).max().unwrap();
    let of_newer: Vec<_> = consumer.messages.iter().filter(|m| m.epoch == epoch).cloned().collect();
    assert_eq!(frames(&of_newer, Track::Video), pushed(&tags, Track::Video));
    // Control ended the older lease itself: the newer publisher alone releases one.
    let release = world.control.released(stream).await;
    assert_eq!((release.epoch, release.reason), (epoch, CloseReason::PublisherLeft));
}

/// A newer publisher of `key` that sends `sent` and nothing more; returns the status and description that it was refused with.
async fn refused_newcomer(world: &World, key: &StreamKey, sent: &[Tag]) -> (String, String) {
    let mut newer = Pusher::publish(&world.url(key), 0).await.unwrap();
    for tag in sent {
        // The server may have refused it before its last message.
        if newer.tag(tag).await.is_err() {
            break;
        }
    }
    newer.refused().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_publisher_whose_media_are_refused_costs_the_running_one_no_frame() {
    let config = Config { publish_timeout_s: 2, ..config() };
    let world = World::with(config, Arc::new(MemBus::new())).await;
    let (_clip, tags) = tags(short()).await;
    let limits = PublishLimits { max_width: 400, max_height: 400, ..PublishLimits::default() };
    let (stream, key) = world.control.stream_with(Ok(limits));
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut running = Pusher::publish(&world.url(&key), 0).await.unwrap();
    let mut parts = tags.chunks(tags.len() / 6);
    running.push(parts.next().unwrap()).await.unwrap();
    let tag = |kind, body| Tag { kind, timestamp_ms: 0, body: Bytes::from_static(body) };
    let (_large, large) =
        self::tags(ClipSpec { width: 640, height: 360, frames: 10, ..ClipSpec::default() }).await;
    // Pictures alone, and none of them can be decoded: the keyframe and its configuration are missing.
    let late: Vec<Tag> =
        tags.iter().filter(|tag| tag.kind == TagKind::Video).skip(2).take(20).cloned().collect();
    for (sent, name) in [
        (vec![tag(TagKind::Video, b"\x90hvc1....")], "HEVC (hvc1)"),
        (vec![tag(TagKind::Audio, &[0x2f, 1, 2, 3])], "MP3"),
        (large, "the picture is 640x360"),
        (late, "no usable media for 2 s"),
    ] {
        let (code, description) = refused_newcomer(&world, &key, &sent).await;
        assert_eq!(code, "NetStream.Publish.Denied");
        assert!(description.contains(name), "{description}");
        running.push(parts.next().unwrap()).await.unwrap();
        eventually("the report to control", async || {
            let seen = world.control.seen.lock().unwrap();
            seen.refusals.iter().find(|report| report.text.contains(name)).map(drop)
        })
        .await;
    }
    // One that leaves before its media come has changed nothing either.
    drop(Pusher::publish(&world.url(&key), 0).await.unwrap());
    for rest in parts {
        running.push(rest).await.unwrap();
    }
    running.unpublish().await;
    let messages = consumer.read_to_end().await;
    check_order(messages);
    assert_eq!(frames(messages, Track::Video), pushed(&tags, Track::Video));
    assert_eq!(frames(messages, Track::Audio), pushed(&tags, Track::Audio));
    assert_eq!(world.metric("millrace_ingest_refused_total{reason=\"codec_not_accepted\"}"), 2);
    assert_eq!(world.control.seen.lock().unwrap().releases.len(), 1, "of the running publisher");
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_publisher_of_sound_alone_takes_over_from_one_with_pictures() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    let sound: Vec<Tag> = tags.iter().filter(|tag| tag.kind == TagKind::Audio).cloned().collect();
    let (_, key) = world.control.stream();
    let mut older = Pusher::publish(&world.url(&key), 0).await.unwrap();
    older.push(&tags[..20]).await.unwrap();
    let mut newer = Pusher::publish(&world.url(&key), 0).await.unwrap();
    newer.push(&sound).await.unwrap();
    assert_eq!(older.refusal().await.as_deref(), Some("NetStream.Publish.BadName"));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_closes_its_sender_alone() {
    let world = World::with(
        Config { handshake_timeout_s: 1, publish_timeout_s: 1, ..config() },
        Arc::new(MemBus::new()),
    )
    .await;
    let (_clip, tags) = tags(short()).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut pusher = Pusher::publish(&world.url(&key), 0).await.unwrap();
    let (before, after) = tags.split_at(tags.len() / 2);
    pusher.push(before).await.unwrap();
    let addr = world.node.rtmp_addr();
    let mut peers = tokio::task::JoinSet::new();
    let noise: Vec<u8> = (0..20_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let handshake = [vec![3], vec![0; 3_072]].concat();
    for sent in [
        Vec::new(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        noise.clone(),
        handshake[..700].to_vec(),
        handshake.clone(),
        [&handshake[..], &noise[..]].concat(),
        [&handshake[..], &[0xc3; 300]].concat(),
    ] {
        peers.spawn(async move {
            let mut socket = TcpStream::connect(addr).await.unwrap();
            let _ = socket.write_all(&sent).await;
            let mut answer = Vec::new();
            let closed = tokio::time::timeout(LIMIT, socket.read_to_end(&mut answer)).await;
            assert!(closed.is_ok(), "still open after {} bytes", sent.len());
        });
    }
    peers.join_all().await;
    pusher.push(after).await.unwrap();
    pusher.unpublish().await;
    assert_eq!(frames(consumer.read_to_end().await, Track::Video), pushed(&tags, Track::Video));
    assert_eq!(world.metric("millrace_ingest_panics_total"), 0);
    eventually("all connections closed but the publisher's", async || {
        (world.metric("millrace_ingest_connections") <= 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_of_an_address_are_closed_until_one_ends() {
    let world =
        World::with(Config { max_connections_per_address: 2, ..config() }, Arc::new(MemBus::new())).await;
    let (_, key) = world.control.stream();
    let addr = world.node.rtmp_addr();
    let idle = [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
    eventually("two connections", async || (world.metric("millrace_ingest_connections") == 2).then_some(()))
        .await;
    assert!(Pusher::publish(&world.url(&key), 0).await.is_err());
    drop(idle);
    eventually("room", async || Pusher::publish(&world.url(&key), 0).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_beyond_the_size_limit_ends_the_publish() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    let limits = PublishLimits { max_width: 160, max_height: 90, ..PublishLimits::default() };
    let (stream, key) = world.control.stream_with(Ok(limits));
    let mut pusher = Pusher::publish(&world.url(&key), 0).await.unwrap();
    let _ = pusher.push(&tags[..4]).await;
    assert!(pusher.refusal().await.is_some());
    assert_eq!(world.control.released(stream).await.reason, CloseReason::PictureTooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codec_that_is_not_accepted_ends_the_publish_and_is_named() {
    let world = World::start().await;
    for (kind, body, name) in [
        (TagKind::Video, &b"\x90hvc1...."[..], "HEVC (hvc1)"),
        (TagKind::Video, b"\x90av01....", "AV1 (av01)"),
        (TagKind::Audio, &[0x2f, 1, 2, 3], "MP3"),
    ] {
        let (stream, key) = world.control.stream();
        let mut pusher = Pusher::publish(&world.url(&key), 0).await.unwrap();
        pusher.tag(&Tag { kind, timestamp_ms: 0, body: Bytes::from_static(body) }).await.unwrap();
        let (code, description) = pusher.refused().await.unwrap();
        assert_eq!(code, "NetStream.Publish.Denied");
        assert!(description.contains(name), "{description}");
        assert_eq!(world.control.released(stream).await.reason, CloseReason::CodecNotAccepted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_refuses_new_publishers_and_ends_running_ones_after_its_time() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut pusher = Pusher::publish(&world.url(&key), 0).await.unwrap();
    pusher.push(&tags[..40]).await.unwrap();
    world.drain.start("test");
    let (_, other) = world.control.stream();
    eventually("new publishers refused", async || Pusher::publish(&world.url(&other), 0).await.err()).await;
    // The running publisher's media are still published.
    pusher.push(&tags[40..]).await.unwrap();
    consumer.until(|messages| frames(messages, Track::Video).len() >= 90).await;
    world.node.drain().await;
    assert!(pusher.refusal().await.is_some());
    assert_eq!(world.control.released(stream).await.reason, CloseReason::Draining);
    assert_eq!(world.metric("millrace_ingest_sessions"), 0);
}
