//! Peers that keep a finished connection open, or send what costs the server more than them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper fails its test by panicking")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use millrace_media::container::flv::file::{Tag, TagKind};
use millrace_rtmp::chunk::ChunkWriter;
use millrace_rtmp::{Message, MessageType, Value, amf};
use millrace_runtime::actors::ActorFilter;
use millrace_testkit::ClipSpec;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::message::control::Kick;
use millrace_wire::message::media::Track;
use millrace_wire::{topic, topics};
use support::{Consumer, LIMIT, Pusher, World, eventually, frames, pushed, tags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The longest time from a session's last answer to the connection's end, with room for a busy machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(4);
/// What a peer tries to send into a finished session.
const FLOOD_BYTES: usize = 48 * 1024 * 1024;

/// A command with transaction id 1.
fn command(name: &str, arguments: &[Value]) -> Message {
    let mut payload = BytesMut::new();
    amf::encode(&[name.into(), 1.0.into()], &mut payload);
    amf::encode(arguments, &mut payload);
    let payload = payload.freeze().into();
    Message { chunk_stream: 3, kind: MessageType::COMMAND_AMF0, stream: 1, timestamp: 0, payload }
}

/// The bytes of a handshake, a `connect`, and the command in place of a publish.
fn introduction(last: &Message) -> BytesMut {
    let mut bytes = BytesMut::from(&[3_u8][..]);
    bytes.resize(1 + 2 * 1536, 0);
    let properties = Value::Object(vec![("app".to_owned(), "live".into())]);
    let mut writer = ChunkWriter::default();
    writer.write(&command("connect", &[properties]), &mut bytes).unwrap();
    writer.write(last, &mut bytes).unwrap();
    bytes
}

/// Connects, sends the command in place of a publish, and when `status` has come floods the connection or stays silent.
/// Returns the open socket, the bytes that could be sent after it, and the time until the server closed its side.
async fn finish_with(
    addr: SocketAddr,
    last: &Message,
    status: &str,
    flood: bool,
) -> (TcpStream, usize, Duration) {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(&introduction(last)).await.unwrap();
    let mut got = Vec::new();
    while !got.windows(status.len()).any(|bytes| bytes == status.as_bytes()) {
        let read = tokio::time::timeout(LIMIT, socket.read_buf(&mut got)).await.expect("no answer");
        assert!(matches!(read, Ok(1..)), "closed without {status}: {}", String::from_utf8_lossy(&got));
    }
    let (answered, mut sent) = (Instant::now(), 0);
    let chunk = vec![0; 64 * 1024];
    let closed = async {
        while flood && sent < FLOOD_BYTES {
            match socket.write(&chunk).await {
                Ok(count) => sent += count,
                Err(_) => return,
            }
        }
        while matches!(socket.read(&mut [0; 4_096]).await, Ok(1..)) {}
    };
    tokio::time::timeout(LIMIT, closed).await.expect("never closed");
    (socket, sent, answered.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_connection_is_closed_within_a_second_and_read_no_further() {
    let world = World::start().await;
    let addr = world.node.rtmp_addr();
    let play = command("play", &[Value::Null, "stream".into()]);
    let mut held = Vec::new();
    let no_name = command("publish", &[Value::Null, "".into(), "live".into()]);
    for (last, expected) in
        [(&play, "NetStream.Play.StreamNotFound"), (&no_name, "NetStream.Publish.BadName")]
    {
        for flood in [false, true] {
            let (socket, sent, after) = finish_with(addr, last, expected, flood).await;
            // The peer does not close: the server does not wait for it.
            held.push(socket);
            assert!(after < CLOSED_WITHIN, "closed after {after:?}");
            // The server reads 4 MB at most; the rest is in the sockets' buffers.
            assert!(sent < FLOOD_BYTES, "all {sent} bytes were taken");
        }
    }
    for (reason, count) in [(CloseReason::PlayRefused, 2), (CloseReason::UnknownKey, 2)] {
        let name = format!("millrace_ingest_closed_total{{reason=\"{reason}\"}}");
        eventually("the connections' end", async || (world.metric(&name) == count).then_some(())).await;
    }
    eventually("their places", async || (world.metric("millrace_ingest_connections") == 0).then_some(()))
        .await;
}

/// An FLV VIDEODATA body of one byte: an information frame of H.264 without content.
fn empty_video(ms: u32) -> Tag {
    Tag { kind: TagKind::Video, timestamp_ms: ms, body: Bytes::from_static(&[0x57]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_beyond_the_message_rate_is_closed_with_its_reason() {
    let world = World::start().await;
    let (stream, key) = world.control.stream();
    let mut pusher = Pusher::publish(&world.url(&key), 0).await.unwrap();
    let tags: Vec<Tag> = (0..30_000).map(empty_video).collect();
    let _ = pusher.push(&tags).await;
    let (status, text) = pusher.refused().await.expect("a status");
    assert_eq!(status, "NetStream.Publish.Denied");
    assert!(text.contains("more than 2000 messages per second"), "{text}");
    assert_eq!(world.control.released(stream).await.reason, CloseReason::MessageRateExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_that_does_not_read_its_answers_is_closed() {
    let world = World::start().await;
    // A small window: answers wait in the server's socket, and then in its memory.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1_024).unwrap();
    let mut socket = socket.connect(world.node.rtmp_addr()).await.unwrap();
    let mut bytes = BytesMut::from(&[3_u8][..]);
    bytes.resize(1 + 2 * 1536, 0);
    let ping = Message {
        chunk_stream: 2,
        kind: MessageType::USER_CONTROL,
        stream: 0,
        timestamp: 0,
        payload: Bytes::from_static(&[0, 6, 0, 0, 0, 1]).into(),
    };
    let mut writer = ChunkWriter::default();
    (0..30_000).for_each(|_| writer.write(&ping, &mut bytes).unwrap());
    let _ = socket.write_all(&bytes).await;
    eventually("its end", async || (world.metric("millrace_ingest_connections") == 0).then_some(())).await;
    let closed = |reason: &str| world.metric(&format!("millrace_ingest_closed_total{{reason=\"{reason}\"}}"));
    // Whichever bound is reached first: its answers wait too long, are too many, or it has sent too much.
    assert_eq!(closed("timeout") + closed("protocol_error") + closed("message_rate_exceeded"), 1);
    drop(socket);
}

#[tokio::test(flavor = "multi_thread")]
async fn media_that_wait_in_the_socket_are_published_before_a_kick_ends_the_publish() {
    let world = World::start().await;
    let (_clip, tags) = tags(ClipSpec { frames: 150, ..ClipSpec::default() }).await;
    for _ in 0..20 {
        let (stream, key) = world.control.stream();
        let mut consumer = Consumer::of(&world.bus, stream).await;
        let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
        eventually("its actor", async || {
            let filter = ActorFilter { kind: Some("publisher"), ..ActorFilter::default() };
            let actors = world.actors.list(filter, 100).actors;
            actors.iter().any(|actor| actor.id.starts_with(&stream.to_string())).then_some(())
        })
        .await;
        let session = world.control.seen.lock().unwrap().holders[&stream];
        // The kick comes over another path than the media, and may overtake them.
        pusher.push(&tags).await.unwrap();
        let kick = topic::encode(&Kick { session, reason: CloseReason::Stopped }).unwrap();
        world.bus.publish(topics::kick(session).subject(), kick).unwrap();
        let messages = consumer.read_to_end().await;
        for track in [Track::Video, Track::Audio] {
            assert_eq!(frames(messages, track).len(), pushed(&tags, track).len(), "{track:?}");
        }
    }
}
