//! Each limit of a node: a connection beyond it is closed with the limit's reason, and its permit is free again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper fails its test by panicking")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use millrace_bus::MemBus;
use millrace_ingest::Config;
use millrace_media::container::flv::file::{Tag, TagKind};
use millrace_rtmp::{ClientConfig, ClientSession};
use millrace_testkit::ClipSpec;
use millrace_wire::close_reason::CloseReason;
use support::{LIMIT, Pusher, World, config, eventually, tags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DENIED: Option<&str> = Some("NetStream.Publish.Denied");
/// A deadline far beyond the end of every test.
const NEVER_S: u32 = 3_600;

async fn world(config: Config) -> World {
    World::with(config, Arc::new(MemBus::new())).await
}

/// Length of S0, S1 and S2 in bytes (RTMP 5.2).
const HANDSHAKE: usize = 1 + 2 * 1536;

/// Runs a client that sends only while `goes_on` holds for the bytes it has received, and then reads until it is closed;
/// returns the bytes received.
async fn stalled(addr: SocketAddr, goes_on: impl Fn(usize) -> bool) -> usize {
    let url = format!("rtmp://{addr}/live/00112233445566778899aabbccddeeff");
    let mut session = ClientSession::new(ClientConfig::from_url(&url).unwrap(), Duration::ZERO).unwrap();
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let (mut buf, mut got) = (BytesMut::new(), 0);
    loop {
        let mut flight = Vec::new();
        while let Some(bytes) = session.poll_transmit() {
            flight.extend_from_slice(&bytes);
        }
        if goes_on(got) {
            socket.write_all(&flight).await.unwrap();
        }
        let read = tokio::time::timeout(LIMIT, socket.read_buf(&mut buf)).await.expect("never closed");
        match read {
            Ok(count @ 1..) => got += count,
            _ => return got,
        }
        while session.next_event(Duration::ZERO, &mut buf).unwrap().is_some() {}
    }
}

async fn expect_closed(world: &World, reason: CloseReason, count: i64) {
    let name = format!("millrace_ingest_closed_total{{reason=\"{reason}\"}}");
    eventually("the connections' end", async || (world.metric(&name) == count).then_some(())).await;
    eventually("their places", async || (world.metric("millrace_ingest_connections") == 0).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_handshake_is_closed_with_timeout() {
    let world = world(Config { handshake_timeout_s: 1, publish_timeout_s: NEVER_S, ..config() }).await;
    let addr = world.node.rtmp_addr();
    let (silent, halfway) = tokio::join!(stalled(addr, |_| false), stalled(addr, |got| got == 0));
    assert_eq!(silent, 0);
    assert_eq!(halfway, HANDSHAKE);
    expect_closed(&world, CloseReason::Timeout, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_publish_is_closed_with_timeout() {
    let world = world(Config { handshake_timeout_s: NEVER_S, publish_timeout_s: 1, ..config() }).await;
    let received = stalled(world.node.rtmp_addr(), |got| got <= HANDSHAKE).await;
    assert!(received > HANDSHAKE, "its connect is answered: {received}");
    expect_closed(&world, CloseReason::Timeout, 1).await;
    assert!(world.control.seen.lock().unwrap().claims.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_without_media_is_closed_with_idle() {
    let world = world(Config { idle_timeout_s: 1, ..config() }).await;
    let (_clip, tags) = tags(ClipSpec { frames: 30, ..ClipSpec::default() }).await;
    for sent in [&tags[..0], &tags[..]] {
        let (stream, key) = world.control.stream();
        let mut pusher = Pusher::publish(&world.url(&key), 0).await.unwrap();
        pusher.push(sent).await.unwrap();
        // Metadata is no media.
        pusher.metadata(&[("width", 640.0.into())]).await;
        assert_eq!(pusher.refusal().await.as_deref(), DENIED);
        assert_eq!(world.control.released(stream).await.reason, CloseReason::Idle);
    }
    expect_closed(&world, CloseReason::Idle, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_without_keyframes_is_closed_after_the_longest_interval() {
    let world = world(Config { max_keyframe_interval_s: 10, ..config() }).await;
    // 12 s, and one keyframe.
    let (_clip, tags) = tags(ClipSpec { frames: 360, gop: 360, audio: false, ..ClipSpec::default() }).await;
    let until =
        |ms: u32| tags.iter().filter(move |tag| tag.timestamp_ms <= ms).cloned().collect::<Vec<Tag>>();
    let (stream, key) = world.control.stream();
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    let _ = pusher.push(&tags).await;
    assert_eq!(pusher.refusal().await.as_deref(), DENIED);
    assert_eq!(world.control.released(stream).await.reason, CloseReason::KeyframeInterval);
    // Ten seconds are allowed: this publisher leaves in order.
    let (stream, key) = world.control.stream();
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&until(10_000)).await.unwrap();
    pusher.unpublish().await;
    assert_eq!(world.control.released(stream).await.reason, CloseReason::PublisherLeft);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_never_sends_a_keyframe_is_closed_after_the_longest_interval() {
    let world = world(Config { max_keyframe_interval_s: 10, ..config() }).await;
    let (_clip, mut tags) =
        tags(ClipSpec { frames: 360, gop: 360, audio: true, ..ClipSpec::default() }).await;
    // FLV VIDEODATA: frame type 1 is a keyframe, AVCPacketType 1 is coded pictures.
    let first = tags.iter().position(|tag| {
        let body = &tag.body;
        tag.kind == TagKind::Video && body.first() == Some(&0x17) && body.get(1) == Some(&1)
    });
    tags.remove(first.unwrap());
    let (stream, key) = world.control.stream();
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    let _ = pusher.push(&tags).await;
    assert_eq!(pusher.refusal().await.as_deref(), DENIED);
    assert_eq!(world.control.released(stream).await.reason, CloseReason::KeyframeInterval);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_bitrate_limit_closes_a_publisher_with_bitrate_exceeded() {
    let world = world(Config { max_bitrate: 8_000, ..config() }).await;
    let (_clip, tags) = tags(ClipSpec { frames: 150, ..ClipSpec::default() }).await;
    let (stream, key) = world.control.stream();
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    let _ = pusher.push(&tags).await;
    assert_eq!(pusher.refusal().await.as_deref(), DENIED);
    assert_eq!(world.control.released(stream).await.reason, CloseReason::BitrateExceeded);
}

/// Expects a new connection to be closed before a byte is read or sent.
async fn expect_turned_away(world: &World, limit: &str) {
    let mut socket = TcpStream::connect(world.node.rtmp_addr()).await.unwrap();
    let read = tokio::time::timeout(LIMIT, socket.read(&mut [0; 1])).await.expect("still open");
    assert!(!matches!(read, Ok(1..)), "answered");
    let name = format!("millrace_ingest_turned_away_connections_total{{limit=\"{limit}\"}}");
    assert_eq!(world.metric(&name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_total_or_pending_limit_are_closed_unanswered() {
    for (limit, config) in [
        ("connections", Config { max_connections: 2, ..config() }),
        ("pending_connections", Config { max_pending: 1, ..config() }),
    ] {
        let world = world(config).await;
        let (_, key) = world.control.stream();
        let publisher = Pusher::publish(&world.url(&key), 0).await.unwrap();
        let idle = TcpStream::connect(world.node.rtmp_addr()).await.unwrap();
        eventually("both connections", async || {
            (world.metric("millrace_ingest_connections") == 2).then_some(())
        })
        .await;
        expect_turned_away(&world, limit).await;
        drop(idle);
        // The publisher keeps its permit; the other connection's is free again.
        let (_, other) = world.control.stream();
        eventually("room", async || Pusher::publish(&world.url(&other), 0).await.ok()).await;
        drop(publisher);
    }
}
