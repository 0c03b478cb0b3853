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
