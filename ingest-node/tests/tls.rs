//! RTMPS with ffmpeg as the encoder.

mod support;

use std::path::Path;
use std::sync::Arc;

use millrace_bus::MemBus;
use millrace_ingest::Config;
use millrace_testkit::{ClipSpec, FfmpegPublisher};
use millrace_wire::message::media::Track;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::{Consumer, LIMIT, World, check_order, config, frames, pushed, tags};

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_publishes_over_tls() {
    let data = Path::new("tests/data");
    let config = Config {
        rtmps: Some(([127, 0, 0, 1], 0).into()),
        tls_cert: Some(data.join("localhost.crt")),
        tls_key: Some(data.join("localhost.key")),
        ..config()
    };
    let world = World::with(config, Arc::new(MemBus::new())).await;
    let (clip, tags) = tags(ClipSpec { frames: 90, ..ClipSpec::default() }).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let addr = world.node.rtmps_addr().unwrap();
    let url = format!("rtmps://{addr}/live/{}", key.reveal());
    let mut ffmpeg = FfmpegPublisher::push(&url, &clip.path, false).unwrap();
    let messages = consumer.read_to_end().await;
    check_order(messages);
    for track in [Track::Video, Track::Audio] {
        assert_eq!(frames(messages, track), pushed(&tags, track), "{track:?}");
    }
    assert!(ffmpeg.process().wait(LIMIT).await.unwrap().success());
    assert_eq!(world.control.seen.lock().unwrap().claims[0].protocol, "rtmps");
    // A plain connection to the TLS port is closed.
    let mut plain = tokio::net::TcpStream::connect(addr).await.unwrap();
    plain.write_all(&[3; 1537]).await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(LIMIT, plain.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_tls_handshake_is_closed_at_its_deadline() {
    let data = Path::new("tests/data");
    let config = Config {
        rtmps: Some(([127, 0, 0, 1], 0).into()),
        tls_cert: Some(data.join("localhost.crt")),
        tls_key: Some(data.join("localhost.key")),
        handshake_timeout_s: 1,
        ..config()
    };
    let world = World::with(config, Arc::new(MemBus::new())).await;
    let mut silent = tokio::net::TcpStream::connect(world.node.rtmps_addr().unwrap()).await.unwrap();
    // The head of a record of 16 KB that never comes.
    silent.write_all(&[22, 3, 1, 0x40, 0]).await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(LIMIT, silent.read_to_end(&mut answer)).await;
    assert!(closed.is_ok() && answer.is_empty(), "{closed:?}: {answer:?}");
}
