//! The bus over real servers: the conformance suite on each supported nats-server, and what happens when one
//! dies or hangs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test panics")]

mod conformance;

use std::sync::Arc;
use std::time::Duration;

use conformance::{bytes, next};
use millrace_bus::{
    Bus, BusError, FaultyBus, JournalConfig, JournalWriter, NatsBus, NatsConfig, ReaderConfig, SharedBus,
};
use millrace_testkit::{NatsKind, NatsServer, wait};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(10);

async fn connect(server: &NatsServer) -> NatsBus {
    NatsBus::connect(NatsConfig::new([server.url()])).await.expect("connect to nats-server")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_every_supported_server() {
    for kind in NatsKind::all() {
        let server = NatsServer::start(kind).await;
        let bus = connect(&server).await;
        println!("nats-server {}", bus.server_version());
        conformance::all(Arc::new(bus)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_behind_a_harmless_wrapper() {
    let server = NatsServer::start_any().await;
    let bus: SharedBus = Arc::new(connect(&server).await);
    conformance::all(Arc::new(FaultyBus::new(bus, 1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_meet() {
    let server = NatsServer::start_any().await;
    let (a, b) = (connect(&server).await, connect(&server).await);
    let mut sub = b.subscribe("media.s.1", 100).await.unwrap();
    a.publish("media.s.1", bytes("over the wire")).unwrap();
    assert_eq!(next(&mut sub).await, "over the wire");
}

#[tokio::test]
async fn no_server_is_an_error_after_the_start_timeout() {
    let mut config = NatsConfig::new([format!("nats://127.0.0.1:{}", millrace_testkit::ports::free())]);
    config.start_timeout = Duration::from_millis(300);
    assert_eq!(NatsBus::connect(config).await.err(), Some(BusError::Disconnected));
}

/// The bus is whole again within a second of the server's return, and publishing never waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_comes_back() {
    for kind in NatsKind::all() {
        let mut server = NatsServer::start(kind).await;
        let (sender, receiver) = (connect(&server).await, connect(&server).await);
        let mut sub = receiver.subscribe("media.s.1", 100).await.unwrap();
        let shared: SharedBus = Arc::new(sender.clone());
        let queue = conformance::queues::queue(&shared, |_| {}).await;
        shared.queue_push(&queue, "durable", bytes("x")).await.unwrap();

        server.process().kill();
        // Each connection notices on its own; this is the one that media leave on.
        let refused = || sender.publish("media.s.1", bytes("lost")) == Err(BusError::Disconnected);
        wait::until(SOON, async || refused()).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..5000 {
            let start = Instant::now();
            assert_eq!(sender.publish("media.s.1", bytes("lost")), Err(BusError::Disconnected));
            slowest = slowest.max(start.elapsed());
        }
        println!("slowest publish while away: {slowest:?}");
        assert!(sender.stats().dropped_disconnected >= 5000);

        server.restart().await;
        let back = Instant::now();
        wait::until(SOON, async || {
            let _ = sender.publish("media.s.1", bytes("again"));
            sub.try_recv().is_some_and(|message| message.payload == bytes("again"))
        })
        .await;
        println!("nats {kind:?}: receiving {:?} after the server's return", back.elapsed());
        assert!(back.elapsed() < Duration::from_secs(1));
        assert!(sender.stats().reconnects >= 1);
        assert_eq!(conformance::queues::pull(&shared, &queue).await.id, "durable");
    }
}

/// A pull that waits while the server dies gets a job pushed after its return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_pull_outlives_the_server() {
    let mut server = NatsServer::start_any().await;
    let bus: SharedBus = Arc::new(connect(&server).await);
    let queue = conformance::queues::queue(&bus, |_| {}).await;
    let (puller, name) = (bus.clone(), queue.clone());
    let waiting = tokio::spawn(async move { puller.queue_pull(&name, SOON).await.unwrap().unwrap().id });
    server.process().kill();
    server.restart().await;
    bus.queue_push(&queue, "after", bytes("x")).await.unwrap();
    let pushed = Instant::now();
    assert_eq!(waiting.await.unwrap(), "after");
    assert!(pushed.elapsed() < Duration::from_secs(3), "{:?}", pushed.elapsed());
}

/// A frozen server is noticed by its silence; publishes are dropped meanwhile, not awaited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_noticed() {
    let mut server = NatsServer::start_any().await;
    let bus = connect(&server).await;
    server.process().pause();
    let start = Instant::now();
    let body = bytes(&"x".repeat(60_000));
    let mut overflowed = false;
    for _ in 0..4000 {
        overflowed |= bus.publish("media.s.1", body.clone()).is_err();
    }
    assert!(overflowed, "the outgoing buffer is bounded");
    assert!(start.elapsed() < Duration::from_secs(2), "publishing waited");
    wait::until(SOON, || async { !*bus.connected().borrow() }).await;
    println!("frozen server noticed after {:?}", start.elapsed());
    server.process().resume();
    wait::until(SOON, || async { bus.loopback(Duration::from_millis(200)).await.is_ok() }).await;
}

/// Facts written while the server is away are kept after its return, those of before are still there, and nothing waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_outlive_the_server() {
    for kind in NatsKind::all() {
        let mut server = NatsServer::start(kind).await;
        let bus: SharedBus = Arc::new(connect(&server).await);
        let config = JournalConfig { max_bytes: 1 << 20, ..JournalConfig::new("FACTS", ["f.>"]) };
        let writer = JournalWriter::start(bus.clone(), config, |_| {});
        let write = |numbers: std::ops::Range<u32>| {
            for number in numbers {
                writer.append("f.x".into(), number.to_string(), bytes(&number.to_string()));
            }
        };
        write(0..50);
        assert!(writer.flush(SOON).await);
        server.process().kill();
        let start = Instant::now();
        write(50..100);
        assert!(start.elapsed() < Duration::from_millis(100), "writing waited");
        server.restart().await;
        assert!(writer.flush(2 * SOON).await);
        bus.journal_reader("FACTS", &ReaderConfig::new("all", "f.*")).await.unwrap();
        for number in 0..100 {
            let entry = conformance::journals::entry(&bus, "FACTS", "all").await;
            entry.ack().await.unwrap();
            assert_eq!(entry.payload, bytes(&number.to_string()), "{kind:?}");
        }
        let more = bus.journal_next("FACTS", "all", Duration::ZERO).await.unwrap();
        assert!(more.is_none(), "{kind:?}: a fact came twice");
    }
}

/// A journal that the server has lost is declared again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_journal_is_declared_again() {
    let server = NatsServer::start_any().await;
    let bus: SharedBus = Arc::new(connect(&server).await);
    let config = JournalConfig { max_bytes: 1 << 20, ..JournalConfig::new("FACTS", ["f.>"]) };
    let writer = JournalWriter::start(bus.clone(), config, |_| {});
    writer.append("f.x".into(), "1".into(), bytes("1"));
    assert!(writer.flush(SOON).await);
    let gone = bus.request("$JS.API.STREAM.DELETE.FACTS", bytes(""), SOON).await.unwrap();
    assert!(String::from_utf8_lossy(&gone).contains("true"));
    writer.append("f.x".into(), "2".into(), bytes("2"));
    assert!(writer.flush(2 * SOON).await);
    bus.journal_reader("FACTS", &ReaderConfig::new("all", ">")).await.unwrap();
    assert_eq!(conformance::journals::entry(&bus, "FACTS", "all").await.payload, bytes("2"));
}

/// A server whose JetStream is off: a journal is an error that may pass, and neither media nor the writer's caller waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_jetstream_media_flow_and_facts_wait() {
    for kind in NatsKind::all() {
        let server = NatsServer::start_plain(kind).await;
        let bus: SharedBus = Arc::new(connect(&server).await);
        let config = JournalConfig::new("FACTS", ["f.>"]);
        let refused = bus.journal_declare(&config).await.unwrap_err();
        assert!(refused.is_retryable(), "{kind:?}: {refused}");
        let writer = JournalWriter::start(bus.clone(), config, |_| {});
        let mut sub = bus.subscribe("media.s.1", 1000).await.unwrap();
        let start = Instant::now();
        for number in 0..500 {
            writer.append("f.x".into(), number.to_string(), bytes("x"));
            bus.publish("media.s.1", bytes("x")).unwrap();
        }
        assert!(start.elapsed() < Duration::from_millis(500), "{kind:?}: a publish waited");
        for _ in 0..500 {
            assert_eq!(next(&mut sub).await, "x");
        }
    }
}
