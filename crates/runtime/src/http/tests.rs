//! Clients that are too slow, over real sockets.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest, HttpResponse};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::Metrics;

/// Larger than all buffers of a connection.
const LARGE: usize = 32 << 20;

struct World {
    server: HttpHandle,
    metrics: Metrics,
    connections: Arc<Mutex<Vec<Arc<Connection>>>>,
    admitted: Arc<AtomicUsize>,
}

/// Serves `/large`, which remembers its connection, and `/echo`, with deadlines of a tenth of a second.
fn world() -> World {
    let metrics = Metrics::new();
    let connections: Arc<Mutex<Vec<Arc<Connection>>>> = Arc::default();
    let admitted = Arc::new(AtomicUsize::new(0));
    let counted = admitted.clone();
    let admit: Admit = Arc::new(move |_| {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Some(Box::new(Counted(counted.clone())))
    });
    let short = Duration::from_millis(100);
    let options = ServerOptions {
        workers: 1,
        max_connections: 100,
        shutdown: Duration::from_secs(1),
        metrics: metrics.clone(),
        admit: Some(admit),
        deadlines: Deadlines { look: short / 2, head: short, write_window: short, ..Deadlines::default() },
    };
    let (listener, _) = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let remembered = connections.clone();
    let server = listen(listener, options, move || {
        let remembered = remembered.clone();
        let large = move |request: HttpRequest| {
            remembered.lock().unwrap().extend(connection(&request));
            async { HttpResponse::Ok().body(Bytes::from(vec![7; LARGE])) }
        };
        App::new()
            .route("/large", web::get().to(large))
            .route("/echo", web::post().to(|body: Bytes| async { HttpResponse::Ok().body(body) }))
    });
    World { server: server.unwrap(), metrics, connections, admitted }
}

impl World {
    /// Waits until the server counts a cut connection.
    async fn until_cut(&self, reason: Cut) {
        let line = format!("http_connections_cut_total{{reason=\"{}\"}} 1\n", reason.as_str());
        self.until(|world| world.metrics.render().contains(&line)).await;
    }

    async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !holds(self) {
            assert!(std::time::Instant::now() < deadline, "{}", self.metrics.render());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Connects with a receive buffer of 4 KB and sends `request`.
fn send(addr: SocketAddr, request: &[u8]) -> std::net::TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.connect(&addr.into()).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    stream.write_all(request).unwrap();
    stream
}

const LARGE_REQUEST: &[u8] = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn client_that_does_not_read_its_answer_is_cut_and_gives_its_place_back() {
    let world = world();
    let client = send(world.server.addr(), LARGE_REQUEST);
    world.until_cut(Cut::SlowReader).await;
    world.until(|world| world.admitted.load(Ordering::Relaxed) == 0).await;
    drop(client);
    world.server.stop().await;
}

#[tokio::test]
async fn client_that_reads_its_answer_is_not_cut() {
    let world = world();
    let addr = world.server.addr();
    let read = tokio::task::spawn_blocking(move || {
        let mut client = send(addr, b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        answer.len()
    });
    assert!(read.await.unwrap() > LARGE);
    assert!(world.connections.lock().unwrap()[0].reason().is_none());
    world.server.stop().await;
}

#[tokio::test]
async fn connection_is_cut_through_its_handle() {
    let world = world();
    let client = send(world.server.addr(), LARGE_REQUEST);
    world.until(|world| !world.connections.lock().unwrap().is_empty()).await;
    world.connections.lock().unwrap()[0].cut(Cut::Memory);
    world.until_cut(Cut::Memory).await;
    drop(client);
    world.server.stop().await;
}

#[tokio::test]
async fn second_head_that_is_not_finished_is_cut() {
    let world = world();
    let addr = world.server.addr();
    let first = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi";
    let client = tokio::task::spawn_blocking(move || {
        let mut client = send(addr, first);
        let mut answer = [0; 15];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        client.write_all(b"GET /large HT").unwrap();
        client
    });
    let client = client.await.unwrap();
    world.until_cut(Cut::SlowHead).await;
    drop(client);
    world.server.stop().await;
}

#[tokio::test]
async fn request_whose_body_does_not_come_is_answered_408_and_closed() {
    let world = world();
    let addr = world.server.addr();
    let read = tokio::task::spawn_blocking(move || {
        let mut client = send(addr, b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n12345");
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = read.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    world.server.stop().await;
}

#[tokio::test]
async fn malformed_request_is_counted_and_closed() {
    let world = world();
    let addr = world.server.addr();
    let read = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        send(addr, b"\x16\x03\x01 not HTTP\r\n\r\n").read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(read.await.unwrap().starts_with("HTTP/1.1 400 "));
    world.until(|world| world.metrics.render().contains("http_malformed_requests_total 1\n")).await;
    world.server.stop().await;
}
