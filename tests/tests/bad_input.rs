//! Bad input costs its sender only: whatever comes in on the RTMP port, a neighbour stream loses no frame, and the sender's
//! connection is closed (or kept waiting at its own cost).
#![forbid(unsafe_code)]
#![allow(clippy::expect_used)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_tests::clip::{Clip, seconds};
use millrace_tests::compare::same;
use millrace_tests::process::tail;
use millrace_tests::publish::push;
use millrace_tests::standalone::{Standalone, address};
use millrace_tests::viewer::Viewer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest deadline a silent or slow peer is given before it is closed, with room for a busy machine.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// Peers that connect and say nothing.
const IDLE_PEERS: usize = 1000;

/// What a peer of the table sends, and then only waits.
struct Row {
    name: &'static str,
    sends: Vec<u8>,
}

/// C0 and C1 of a plain handshake (Adobe RTMP 1.0, §5.2), followed by a C2 of zeros.
fn handshake() -> Vec<u8> {
    let mut bytes = vec![0; 1 + 2 * 1536];
    bytes[0] = 3;
    bytes
}

fn after_handshake(bytes: &[u8]) -> Vec<u8> {
    [&handshake()[..], bytes].concat()
}

/// A type-0 chunk header on chunk stream 3: timestamp 0, message stream 0.
fn chunk(message_length: u32, message_type: u8, payload: &[u8]) -> Vec<u8> {
    let length = message_length.to_be_bytes();
    let mut bytes = vec![3, 0, 0, 0, length[1], length[2], length[3], message_type, 0, 0, 0, 0];
    bytes.extend_from_slice(payload);
    bytes
}

fn table() -> Vec<Row> {
    const AMF0_COMMAND: u8 = 20;
    const SET_CHUNK_SIZE: u8 = 1;
    let deep_object = [3_u8, 0, 1, b'a'].repeat(5000);
    let long_string = [&[12_u8, 0x7f, 0xff, 0xff, 0xff][..], &[b'x'; 64]].concat();
    vec![
        Row { name: "an HTTP request", sends: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec() },
        Row {
            name: "noise",
            sends: (0..8192_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        },
        Row { name: "an unknown handshake version", sends: [vec![77], vec![0; 1536]].concat() },
        Row { name: "a truncated handshake", sends: handshake()[..700].to_vec() },
        Row { name: "a handshake and silence", sends: handshake() },
        Row {
            name: "a 16 MB message announced",
            sends: after_handshake(&chunk(0xff_ffff, AMF0_COMMAND, &[2; 128])),
        },
        Row { name: "a chunk size of zero", sends: after_handshake(&chunk(4, SET_CHUNK_SIZE, &[0; 4])) },
        Row {
            name: "a chunk size above the limit",
            sends: after_handshake(&chunk(4, SET_CHUNK_SIZE, &[0x7f, 0xff, 0xff, 0xff])),
        },
        Row { name: "a continuation of nothing", sends: after_handshake(&[0xc3; 256]) },
        Row {
            name: "an AMF string longer than its message",
            sends: after_handshake(&chunk(69, AMF0_COMMAND, &long_string)),
        },
        Row {
            name: "AMF objects nested without end",
            sends: after_handshake(&{
                let mut chunks = chunk(deep_object.len() as u32, AMF0_COMMAND, &deep_object[..128]);
                for rest in deep_object[128..].chunks(128) {
                    chunks.push(0xc3);
                    chunks.extend_from_slice(rest);
                }
                chunks
            }),
        },
    ]
}

/// Sends the row's bytes and waits for the server to close.
async fn closed_by_server(address: &str, row: &Row) -> Result<()> {
    let mut socket = TcpStream::connect(address).await.context("connecting")?;
    // A server that already closed may refuse the rest.
    let _ = socket.write_all(&row.sends).await;
    let drained = async {
        let mut buffer = vec![0; 65536];
        while matches!(socket.read(&mut buffer).await, Ok(n) if n > 0) {}
    };
    tokio::time::timeout(CLOSE_LIMIT, drained)
        .await
        .with_context(|| format!("{}: still connected after {CLOSE_LIMIT:?}", row.name))
}

async fn a_byte_at_a_time(address: &str) -> Result<()> {
    let mut socket = TcpStream::connect(address).await?;
    let slow = async {
        for byte in handshake() {
            if socket.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(CLOSE_LIMIT, slow).await.context("a slow writer was never closed")
}

/// How an encoder with this URL ends: quickly, and not well.
async fn refused(server: &Standalone, clip: &Clip, what: &str, url: &str) -> Result<()> {
    let folder = server.folder().join(what);
    std::fs::create_dir_all(&folder)?;
    let mut encoder = push(clip, url, &folder)?;
    let status = encoder.wait(CLOSE_LIMIT).await?;
    ensure!(!status.success(), "{what}: the encoder was let in\n{}", tail(&encoder));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_peers_are_closed_and_the_neighbour_loses_nothing() -> Result<()> {
    let mut server = Standalone::start().await?;
    let api = server.api();
    let clip = Clip::numbered(seconds(30)).await?;
    let neighbour = api.create("neighbour").await?;
    let mut encoder = push(&clip, &neighbour.push_url(), server.folder())?;
    let viewer = Viewer::watch(&neighbour.hls_url).await.context(tail(&encoder))?;

    let rtmp = address(&server.ready().rtmp)?;
    let mut peers = tokio::task::JoinSet::new();
    for row in table() {
        let rtmp = rtmp.clone();
        peers.spawn(async move { closed_by_server(&rtmp, &row).await });
    }
    let slow = rtmp.clone();
    peers.spawn(async move { a_byte_at_a_time(&slow).await });
    let base = server.ready().rtmp.clone();
    let wrong_key = format!("{base}/00000000000000000000000000000000");
    refused(&server, &clip, "wrong-key", &wrong_key).await?;
    let wrong_app = format!("{}/nowhere/{}", base.trim_end_matches("/live"), neighbour.stream_key);
    refused(&server, &clip, "wrong-app", &wrong_app).await?;
    let mut idle = Vec::new();
    for _ in 0..IDLE_PEERS {
        // Connections over the limit per address may be refused: that is the point of the limit.
        idle.extend(TcpStream::connect(&rtmp).await.ok());
    }
    while let Some(peer) = peers.join_next().await {
        peer.context("a peer's task")??;
    }

    let status = encoder.wait(Duration::from_mins(1)).await?;
    ensure!(status.success(), "the neighbour's encoder failed\n{}", tail(&encoder));
    api.stop(&neighbour.id).await?;
    let recording = viewer.finish().await?;
    drop(idle);
    recording.video.check()?;
    recording.audio.check()?;
    same("the neighbour's access units", &clip.units.video, &recording.video.samples()?)?;
    same("the neighbour's audio frames", &clip.units.audio, &recording.audio.samples()?)?;
    ensure!(server.process().is_running(), "the server ended");
    Ok(())
}
