//! Helpers shared by the tests of this crate.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use bytes::{Bytes, BytesMut};
use millrace_rtmp::chunk::ChunkReader;
use millrace_rtmp::{
    ClientConfig, ClientEvent, ClientSession, Event, Limits, Message, MessageType, RtmpError, ServerSession,
};
use std::time::Duration;

/// Makes a message on message stream 1.
pub fn message(chunk_stream: u32, kind: MessageType, timestamp: u32, payload: &[u8]) -> Message {
    Message { chunk_stream, kind, stream: 1, timestamp, payload: Bytes::copy_from_slice(payload).into() }
}

/// Reads every message in `wire`.
pub fn read_all(wire: &mut BytesMut, limits: Limits) -> Result<Vec<Message>, RtmpError> {
    let mut reader = ChunkReader::new(limits, 0);
    let mut out = Vec::new();
    while let Some(message) = reader.read(wire)? {
        out.push(message);
    }
    Ok(out)
}

/// A client and a server connected back to back, on a clock that the test moves.
pub struct Pair {
    pub client: ClientSession,
    pub server: ServerSession,
    pub to_client: BytesMut,
    pub to_server: BytesMut,
    /// All bytes the client has sent.
    pub wire: Vec<u8>,
    pub now: Duration,
    pub events: Vec<Event>,
    pub client_events: Vec<ClientEvent>,
}

impl Pair {
    pub fn new(url: &str) -> Self {
        Self::with(ClientConfig::from_url(url).unwrap(), Limits::default())
    }

    pub fn with(config: ClientConfig, limits: Limits) -> Self {
        Self {
            client: ClientSession::new(config, Duration::ZERO).unwrap(),
            server: ServerSession::new(limits, Duration::ZERO),
            to_client: BytesMut::new(),
            to_server: BytesMut::new(),
            wire: Vec::new(),
            now: Duration::ZERO,
            events: Vec::new(),
            client_events: Vec::new(),
        }
    }

    /// Moves bytes both ways until nothing moves, accepting everything.
    pub fn run(&mut self) -> Result<(), RtmpError> {
        loop {
            let mut moved = self.step()?;
            while let Some(event) = self.server.next_event(self.now, &mut self.to_server)? {
                match event {
                    Event::ConnectRequested(_) => self.server.accept_connect()?,
                    Event::PublishRequested(_) => self.server.accept_publish(self.now)?,
                    _ => {}
                }
                self.events.push(event);
                moved = true;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// Moves bytes both ways once and lets the client act; returns true if any moved.
    pub fn step(&mut self) -> Result<bool, RtmpError> {
        let mut moved = false;
        while let Some(bytes) = self.client.poll_transmit() {
            self.to_server.extend_from_slice(&bytes);
            self.wire.extend_from_slice(&bytes);
            moved = true;
        }
        while let Some(bytes) = self.server.poll_transmit() {
            self.to_client.extend_from_slice(&bytes);
            moved = true;
        }
        while let Some(event) = self.client.next_event(self.now, &mut self.to_client)? {
            self.client_events.push(event);
            moved = true;
        }
        Ok(moved)
    }
}

/// Returns the bytes that a whole valid publish sends to a server, including the handshake.
pub fn recorded_session(chunk_bytes: u32) -> Vec<u8> {
    let mut config = ClientConfig::from_url("rtmp://localhost/live/KEY").unwrap();
    config.chunk_bytes = chunk_bytes;
    let mut pair = Pair::with(config, Limits::default());
    pair.run().unwrap();
    pair.client.push_metadata(0, vec![("width".to_owned(), 640.0.into())]).unwrap();
    for i in 0..6u32 {
        pair.client.push_video(i * 40, Bytes::from(vec![0x17; 900 + 300 * i as usize])).unwrap();
        pair.client.push_audio(i * 40 + 3, Bytes::from(vec![0xaf; 200])).unwrap();
    }
    pair.client.send_ping(7).unwrap();
    pair.run().unwrap();
    pair.client.unpublish().unwrap();
    pair.run().unwrap();
    pair.wire
}

/// Feeds `wire` to a fresh server in pieces of the given sizes (cycled), accepting everything.
pub fn serve(wire: &[u8], pieces: &[usize], limits: Limits) -> (Vec<Event>, Result<(), RtmpError>) {
    let mut server = ServerSession::new(limits, Duration::ZERO);
    let (mut buf, mut events, mut rest) = (BytesMut::new(), Vec::new(), wire);
    for piece in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at(rest.len().min((*piece).max(1)));
        rest = later;
        server.prepare_read(&mut buf);
        buf.extend_from_slice(now);
        if let Err(error) = drain(&mut server, &mut buf, &mut events) {
            return (events, Err(error));
        }
        while server.poll_transmit().is_some() {}
    }
    (events, Ok(()))
}

fn drain(server: &mut ServerSession, buf: &mut BytesMut, events: &mut Vec<Event>) -> Result<(), RtmpError> {
    while let Some(event) = server.next_event(Duration::ZERO, buf)? {
        match event {
            Event::ConnectRequested(_) => server.accept_connect()?,
            Event::PublishRequested(_) => server.accept_publish(Duration::ZERO)?,
            _ => {}
        }
        events.push(event);
    }
    Ok(())
}
