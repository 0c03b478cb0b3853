//! Peers that send bytes no encoder would, and are closed without a word.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::CLOSE_LIMIT;

/// S0 and S1 answer C0 (Adobe RTMP 1.0, §5.2).
const HANDSHAKE_BEGUN: usize = 1 + 1536;
/// The server's S2 answers the client's C1.
const HANDSHAKE_ANSWER: usize = HANDSHAKE_BEGUN + 1536;

/// The bytes a peer sends, and the number of bytes it gets before its connection is closed: no RTMP message
/// in either case.
pub(crate) struct Row {
    name: &'static str,
    sends: Vec<u8>,
    gets: usize,
}

impl Row {
    /// Bytes that are no handshake.
    fn refused(name: &'static str, sends: Vec<u8>) -> Self {
        Self { name, sends, gets: 0 }
    }

    /// A whole handshake, answered, and then `sends`.
    fn greeted(name: &'static str, sends: &[u8]) -> Self {
        Self { name, sends: [&handshake()[..], sends].concat(), gets: HANDSHAKE_ANSWER }
    }

    /// Sends the bytes, waits for the server to close, and compares the answer.
    pub(crate) async fn run(self, address: String) -> Result<()> {
        let name = self.name;
        let mut socket = TcpStream::connect(address).await.context("connecting")?;
        // A server that already closed may refuse the rest.
        let _ = socket.write_all(&self.sends).await;
        let got = until_closed(&mut socket).await.context(name)?;
        ensure!(got == self.gets, "{name}: the server said {got} bytes, not {}", self.gets);
        Ok(())
    }
}

/// Returns the number of bytes received until the server closes, in order or with a reset.
pub(crate) async fn until_closed(socket: &mut TcpStream) -> Result<usize> {
    let drained = async {
        let (mut buffer, mut total) = (vec![0; 4096], 0);
        while let Ok(count @ 1..) = socket.read(&mut buffer).await {
            total += count;
        }
        total
    };
    tokio::time::timeout(CLOSE_LIMIT, drained)
        .await
        .with_context(|| format!("still connected after {CLOSE_LIMIT:?}"))
}

/// C0 and C1 of a plain handshake (Adobe RTMP 1.0, §5.2), followed by a C2 of zeros.
fn handshake() -> Vec<u8> {
    let mut bytes = vec![0; 1 + 2 * 1536];
    bytes[0] = 3;
    bytes
}

/// A type-0 chunk header on chunk stream 3: timestamp 0, message stream 0.
fn chunk(message_length: u32, message_type: u8, payload: &[u8]) -> Vec<u8> {
    let length = message_length.to_be_bytes();
    let mut bytes = vec![3, 0, 0, 0, length[1], length[2], length[3], message_type, 0, 0, 0, 0];
    bytes.extend_from_slice(payload);
    bytes
}

/// A message cut into chunks of the protocol's first size, 128.
fn message(message_type: u8, payload: &[u8]) -> Vec<u8> {
    let mut pieces = payload.chunks(128);
    let mut bytes = chunk(payload.len() as u32, message_type, pieces.next().unwrap_or_default());
    for piece in pieces {
        bytes.push(0xc3);
        bytes.extend_from_slice(piece);
    }
    bytes
}

pub(crate) fn table() -> Vec<Row> {
    const AMF0_COMMAND: u8 = 20;
    const SET_CHUNK_SIZE: u8 = 1;
    let noise = (0..8192_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let deep_object = [3_u8, 0, 1, b'a'].repeat(5000);
    let long_string = [&[12_u8, 0x7f, 0xff, 0xff, 0xff][..], &[b'x'; 64]].concat();
    vec![
        Row::refused("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        Row::refused("noise", noise),
        Row::refused("an unknown handshake version", [vec![77], vec![0; 1536]].concat()),
        Row { name: "a truncated handshake", sends: handshake()[..700].to_vec(), gets: HANDSHAKE_BEGUN },
        Row::greeted("a handshake and silence", &[]),
        Row::greeted("a 16 MB message announced", &chunk(0xff_ffff, AMF0_COMMAND, &[2; 128])),
        Row::greeted("a chunk size of zero", &chunk(4, SET_CHUNK_SIZE, &[0; 4])),
        Row::greeted("a chunk size above the limit", &chunk(4, SET_CHUNK_SIZE, &[0xff; 4])),
        Row::greeted("a continuation of nothing", &[0xc3; 256]),
        Row::greeted("an AMF string longer than its message", &message(AMF0_COMMAND, &long_string)),
        Row::greeted("AMF objects nested without end", &message(AMF0_COMMAND, &deep_object)),
    ]
}

/// A handshake that never ends, though bytes keep coming.
pub(crate) async fn a_byte_at_a_time(address: String) -> Result<()> {
    let mut socket = TcpStream::connect(address).await?;
    let slow = async {
        for byte in handshake() {
            if socket.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(CLOSE_LIMIT, slow).await.context("a slow writer was never closed")?;
    let got = until_closed(&mut socket).await?;
    ensure!(got == HANDSHAKE_BEGUN, "a slow writer got {got} bytes");
    Ok(())
}
