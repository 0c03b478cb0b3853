//! State in a real Redis: the conformance suite, and a server that dies or hangs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test panics")]

mod conformance;

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_state::{RedisConfig, RedisState, StateError, StateStore, Tx};
use millrace_testkit::{RedisServer, wait};

const SOON: Duration = Duration::from_secs(10);

async fn connect(server: &RedisServer, namespace: &str) -> RedisState {
    let mut config = RedisConfig::new(server.url());
    config.namespace = namespace.into();
    RedisState::connect(&config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let server = RedisServer::start().await;
    conformance::all(Arc::new(connect(&server, "suite").await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_are_apart() {
    let server = RedisServer::start().await;
    let (a, b) = (connect(&server, "a").await, connect(&server, "b").await);
    a.commit(Tx::new().put("k", "1")).await.unwrap();
    assert_eq!(b.get("k").await.unwrap(), None);
    assert!(b.scan("", None, 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_comes_back() {
    let mut server = RedisServer::start().await;
    let state = connect(&server, "m").await;
    state.commit(Tx::new().put("k", "1")).await.unwrap();
    server.process().kill();
    let start = Instant::now();
    assert!(matches!(state.get("k").await, Err(StateError::Unavailable { .. })));
    assert!(start.elapsed() < Duration::from_secs(4));
    server.restart().await;
    let start = Instant::now();
    wait::until(SOON, || async { state.ready().await.is_ok() }).await;
    println!("redis: usable {:?} after the server's return", start.elapsed());
    assert!(state.get("k").await.unwrap().is_some());

    server.process().pause();
    let start = Instant::now();
    assert!(matches!(state.get("k").await, Err(StateError::Unavailable { .. })));
    assert!(start.elapsed() < Duration::from_secs(4), "a frozen server is given up in time");
    server.process().resume();
    wait::until(SOON, || async { state.get("k").await.is_ok() }).await;
}

#[tokio::test]
async fn a_server_that_is_away_at_first_is_found_later() {
    let mut server = RedisServer::start().await;
    server.process().kill();
    let state = connect(&server, "m").await;
    assert!(matches!(state.ready().await, Err(StateError::Unavailable { .. })));
    server.restart().await;
    wait::until(SOON, || async { state.ready().await.is_ok() }).await;
}

/// Sends one command in the inline form and waits for its answer.
async fn tell(server: &RedisServer, command: &str) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = server.url().replace("redis://", "");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 64];
    let count = socket.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"+OK"), "{}", String::from_utf8_lossy(&answer[..count]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_without_memory_answers_reads_and_refuses_changes_until_there_is_room() {
    let server = RedisServer::start().await;
    let state = connect(&server, "full").await;
    state.commit(Tx::new().put("k", "1")).await.unwrap();
    tell(&server, "CONFIG SET maxmemory 1").await;
    for _ in 0..2 {
        let refused = state.commit(Tx::new().put("k", "2")).await;
        assert!(matches!(refused, Err(StateError::NotWritable { .. })), "{refused:?}");
    }
    assert!(matches!(state.ready().await, Err(StateError::NotWritable { .. })));
    assert_eq!(state.get("k").await.unwrap().unwrap().value, "1");
    tell(&server, "CONFIG SET maxmemory 0").await;
    state.ready().await.unwrap();
    state.commit(Tx::new().put("k", "2")).await.unwrap();
}
