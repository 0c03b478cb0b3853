//! CPU cost of reading: a 2.5 Mb/s stream, per chunk size, through `ServerSession`, beside rml_rtmp's reader.
//!
//! `cargo run --release -p millrace-rtmp --example read_cost`. The copy into the read buffer stands for the
//! kernel's; each frame is copied into a message for the bus, and the last two seconds of those are held, as a node's ring
//! does.
#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use millrace_rtmp::{ClientConfig, ClientSession, Event, Limits, ServerSession};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// One read's worth: about what arrives between two wake-ups at this rate.
const READ: usize = 12 * 1024;
const FRAMES: u32 = 30 * 120;
const HELD: usize = 150;

fn main() {
    println!("chunk bytes | ours, us per MB | rml_rtmp, us per MB | % of a core at 2.5 Mb/s, ours");
    for chunk in [128, 4096, 60_000] {
        let wire = record(chunk);
        let megabytes = wire.len() as f64 / 1e6;
        let ours = best(|| ours(&wire)) / megabytes;
        let theirs = best(|| theirs(&wire[3073..])) / megabytes;
        println!("{chunk:11} | {ours:15.1} | {theirs:19.1} | {:.4}", ours * 2.5 / 8.0 / 1e4);
    }
}

fn best(run: impl Fn() -> usize) -> f64 {
    let time = |_| {
        let start = Instant::now();
        assert!(run() > FRAMES as usize);
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..5).map(time).fold(f64::INFINITY, f64::min)
}

fn ours(wire: &[u8]) -> usize {
    let mut server = ServerSession::new(Limits::default(), Duration::ZERO);
    let (mut buf, mut held, mut count) = (BytesMut::new(), VecDeque::<Bytes>::with_capacity(HELD + 1), 0);
    for piece in wire.chunks(READ) {
        server.prepare_read(&mut buf);
        buf.extend_from_slice(piece);
        while let Some(event) = server.next_event(Duration::ZERO, &mut buf).unwrap() {
            match event {
                Event::ConnectRequested(_) => server.accept_connect().unwrap(),
                Event::PublishRequested(_) => server.accept_publish(Duration::ZERO).unwrap(),
                Event::Video { data, .. } | Event::Audio { data, .. } => {
                    count += 1;
                    held.push_back(bus_message(data.iter()));
                    if held.len() > HELD {
                        held.pop_front();
                    }
                }
                _ => {}
            }
        }
        while server.poll_transmit().is_some() {}
    }
    count
}

fn bus_message<'a>(pieces: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let mut message = BytesMut::with_capacity(pieces.clone().map(Bytes::len).sum());
    pieces.for_each(|piece| message.extend_from_slice(piece));
    message.freeze()
}

fn theirs(wire: &[u8]) -> usize {
    let mut reader = rml_rtmp::chunk_io::ChunkDeserializer::new();
    let (mut held, mut count) = (VecDeque::with_capacity(HELD + 1), 0);
    for piece in wire.chunks(READ) {
        let mut input = piece;
        while let Some(message) = reader.get_next_message(input).unwrap() {
            input = &[];
            if message.type_id == 1 {
                let size = u32::from_be_bytes(*message.data.first_chunk().unwrap());
                reader.set_max_chunk_size(size as usize).unwrap();
            }
            count += 1;
            held.push_back(bus_message([&message.data].into_iter()));
            if held.len() > HELD {
                held.pop_front();
            }
        }
    }
    count
}

/// Records the bytes that a publisher sends in two minutes.
fn record(chunk_bytes: u32) -> Vec<u8> {
    let mut config = ClientConfig::from_url("rtmp://h/live/KEY").unwrap();
    config.chunk_bytes = chunk_bytes;
    let mut client = ClientSession::new(config, Duration::ZERO).unwrap();
    let mut server = ServerSession::new(Limits::default(), Duration::ZERO);
    let (mut to_server, mut to_client, mut wire) = (BytesMut::new(), BytesMut::new(), Vec::new());
    while !client.is_publishing() {
        while let Some(bytes) = client.poll_transmit() {
            wire.extend_from_slice(&bytes);
            to_server.extend_from_slice(&bytes);
        }
        while let Some(event) = server.next_event(Duration::ZERO, &mut to_server).unwrap() {
            match event {
                Event::ConnectRequested(_) => server.accept_connect().unwrap(),
                Event::PublishRequested(_) => server.accept_publish(Duration::ZERO).unwrap(),
                _ => {}
            }
        }
        while let Some(bytes) = server.poll_transmit() {
            to_client.extend_from_slice(&bytes);
        }
        while client.next_event(Duration::ZERO, &mut to_client).unwrap().is_some() {}
    }
    for i in 0..FRAMES {
        let bytes = if i % 60 == 0 { 60_000 } else { 9_000 + (i as usize * 7919) % 1500 };
        client.push_video(i * 33, Bytes::from(vec![0x17; bytes])).unwrap();
        client.push_audio(i * 33 + 1, Bytes::from(vec![0xaf; 340])).unwrap();
        client.push_audio(i * 33 + 22, Bytes::from(vec![0xaf; 350])).unwrap();
        while let Some(bytes) = client.poll_transmit() {
            wire.extend_from_slice(&bytes);
        }
    }
    wire
}
