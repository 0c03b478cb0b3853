//! Viewers that ask for segments and do not read them, over sockets with small receive buffers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use millrace_edge::Config;
use millrace_runtime::Process;
use millrace_store::Meta;
use socket2::{Domain, Socket, Type};

use crate::world::*;

/// Larger than the buffers of a connection in the kernel.
const SEGMENT: usize = 11 << 20;
const READERS: u64 = 25;

/// Connects with a receive buffer of 4 KB, asks for `path` and reads no more than the status.
fn ask(addr: SocketAddr, path: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&addr.into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.write_all(format!("GET {path} HTTP/1.1\r\nhost: edge\r\n\r\n").as_bytes()).unwrap();
    let mut status = [0; 15];
    client.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    client
}

/// Returns true if the server has reset the connection.
fn is_reset(mut client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let mut rest = vec![0; 1 << 20];
    loop {
        match client.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_that_do_not_read_hold_a_bounded_amount_of_media_and_the_oldest_are_closed_first() {
    let world = World::new().await;
    let listen = ([127, 0, 0, 1], 0).into();
    let (cache_bytes, held_bytes) = (2 * SEGMENT, 8 * SEGMENT);
    let config = Config { listen, workers: 1, cache_bytes, held_bytes, ..Config::default() };
    let node = world.edge_of(config, Process::default()).await;
    let mut paths = Vec::new();
    for msn in 0..READERS {
        let key = format!("live/{}/video/17/{msn}.3.m4s", world.playback);
        world.store.put(&key, Bytes::from(vec![msn as u8; SEGMENT]).into(), Meta::default()).await.unwrap();
        paths.push(format!("/{key}"));
    }
    let addr = node.addr();
    let readers =
        tokio::task::spawn_blocking(move || paths.iter().map(|path| ask(addr, path)).collect::<Vec<_>>());
    let readers = readers.await.unwrap();
    let held =
        || async { metric(&node, "millrace_edge_held_bytes").await.unwrap().parse::<usize>().unwrap() };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while held().await > held_bytes {
        assert!(tokio::time::Instant::now() < deadline, "{} bytes held", held().await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let cut = metric(&node, "millrace_edge_http_connections_cut_total{reason=\"memory\"}").await;
    let cut: usize = cut.unwrap().parse().unwrap();
    assert!(cut >= READERS as usize - 8 - 2, "{cut}");
    let reset: Vec<bool> = readers.iter().map(is_reset).collect();
    assert!(reset[..cut].iter().all(|reset| *reset), "the oldest: {reset:?}");
    assert!(!reset[READERS as usize - 1], "the newest answer goes on: {reset:?}");
    // All others are served, and what the readers held is given back when they leave.
    assert_eq!(get(&node, &world.path("video/17/3.3.m4s")).await.body.len(), SEGMENT);
    drop(readers);
    until(&node, "/metrics", |answer| answer.text().contains("millrace_edge_held_bytes 0\n")).await;
    assert!(node.answers().is_empty());
    node.drain().await;
}
