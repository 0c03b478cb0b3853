//! The bodies of the fuzz targets; `tests/corpus.rs` replays their corpora on the stable toolchain.

use bytes::{Bytes, BytesMut};
use millrace_rtmp::chunk::{ChunkReader, ChunkWriter};
use millrace_rtmp::{ClientConfig, ClientSession, Event, Limits, Message, MessageType, ServerSession};
use std::time::Duration;

/// Reads the input twice, split differently: the split must not change the outcome. The first byte is the chunk size.
pub fn chunk_reader(input: &[u8]) {
    let Some((&selector, wire)) = input.split_first() else { return };
    let size = [1, 7, 128, 4096, 60_000][usize::from(selector) % 5];
    let cut = wire.len() * usize::from(selector) / 256;
    assert_eq!(read(size, &[wire]), read(size, &[&wire[..cut], &wire[cut..]]));
}

fn read(size: u32, pieces: &[&[u8]]) -> (Vec<Message>, bool) {
    let limits = Limits { message_bytes: 1 << 20, buffered_bytes: 2 << 20, ..Limits::default() };
    let mut reader = ChunkReader::new(limits, 0);
    let (mut buf, mut messages) = (BytesMut::new(), Vec::new());
    ChunkWriter::default().set_chunk_bytes(size, &mut buf);
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match reader.read(&mut buf) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, false),
            }
            assert!(reader.buffered() <= limits.buffered_bytes);
        }
    }
    (messages, true)
}

/// Feeds the input to a server. The first byte selects how far a valid client got before it.
pub fn server_session(input: &[u8]) {
    let Some((&selector, wire)) = input.split_first() else { return };
    let mut server = ServerSession::new(Limits::default(), Duration::ZERO);
    let mut buf = BytesMut::new();
    if selector & 3 != 0 {
        let connected = selector & 3 > 1;
        introduce(&mut server, connected, selector & 3 > 2);
    }
    for piece in wire.chunks(if selector & 4 == 0 { 4096 } else { 13 }) {
        server.prepare_read(&mut buf);
        buf.extend_from_slice(piece);
        if drain(&mut server, &mut buf).is_none() {
            return;
        }
        assert!(server.pending_transmit() <= (64 << 10) + (64 << 10));
        if selector & 8 == 0 {
            while server.poll_transmit().is_some() {}
        }
    }
}

/// Sends a valid handshake, and then `connect` and `publish` if asked to.
fn introduce(server: &mut ServerSession, connected: bool, publishing: bool) {
    let Ok(config) = ClientConfig::from_url("rtmp://h/live/KEY") else { return };
    let Ok(mut client) = ClientSession::new(config, Duration::ZERO) else { return };
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    for step in 0..4 {
        if step == 2 && !connected || step == 3 && !publishing {
            return;
        }
        while let Some(bytes) = client.poll_transmit() {
            to_server.extend_from_slice(&bytes);
        }
        // After the handshake alone, `connect` must not have been seen.
        if step == 1 && !connected {
            to_server.truncate(1536);
        }
        let _ = drain(server, &mut to_server);
        while let Some(bytes) = server.poll_transmit() {
            to_client.extend_from_slice(&bytes);
        }
        while let Ok(Some(_)) = client.next_event(Duration::ZERO, &mut to_client) {}
    }
    if publishing {
        assert!(server.is_publishing());
        let early = Bytes::from_static(b"\x17\x01");
        let _ = client.send_message(&Message {
            chunk_stream: 6,
            kind: MessageType::VIDEO,
            stream: 1,
            timestamp: 0,
            payload: early.into(),
        });
    }
}

fn drain(server: &mut ServerSession, buf: &mut BytesMut) -> Option<()> {
    while let Some(event) = server.next_event(Duration::ZERO, buf).ok()? {
        match event {
            Event::ConnectRequested(_) => server.accept_connect().ok()?,
            Event::PublishRequested(_) => server.accept_publish(Duration::ZERO).ok()?,
            _ => {}
        }
    }
    Some(())
}
