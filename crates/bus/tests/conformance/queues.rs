//! The checks of work queues that every bus passes.

use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{BusError, Job, QueueConfig, QueueDepth, SharedBus};
use tokio::time::Instant;

use super::{QUIET, SOON, bytes, name};

pub async fn all(bus: &SharedBus) {
    jobs_are_delivered_once_acknowledged(bus).await;
    duplicates_are_known(bus).await;
    jobs_come_back(bus).await;
    in_progress_keeps_a_job(bus).await;
    a_job_is_given_up(bus).await;
    a_full_queue_refuses(bus).await;
    a_waiting_pull_gets_a_later_job(bus).await;
    jobs_in_flight_are_bounded(bus).await;
    unknown_queues_are_errors(bus).await;
}

pub async fn queue(bus: &SharedBus, change: impl FnOnce(&mut QueueConfig)) -> String {
    let queue = name("QUEUE");
    let mut config = QueueConfig::new(&queue, format!("backlog{queue}"));
    config.ack_wait = Duration::from_secs(20);
    change(&mut config);
    bus.queue_declare(&config).await.unwrap();
    bus.queue_declare(&config).await.unwrap();
    queue
}

pub async fn pull(bus: &SharedBus, queue: &str) -> Job {
    bus.queue_pull(queue, SOON).await.unwrap().expect("a job")
}

async fn empty(bus: &SharedBus, queue: &str) {
    assert!(bus.queue_pull(queue, QUIET).await.unwrap().is_none());
}

async fn jobs_are_delivered_once_acknowledged(bus: &SharedBus) {
    let q = queue(bus, |_| {}).await;
    assert!(bus.queue_pull(&q, Duration::ZERO).await.unwrap().is_none());
    for id in ["a", "b"] {
        assert!(bus.queue_push(&q, id, bytes(id)).await.unwrap());
    }
    assert_eq!(bus.queue_depth(&q).await.unwrap(), QueueDepth { waiting: 2, in_flight: 0 });
    let (a, b) = (pull(bus, &q).await, bus.queue_pull(&q, Duration::ZERO).await.unwrap().unwrap());
    assert_eq!((a.id.as_str(), a.attempt, b.id.as_str()), ("a", 1, "b"));
    assert_eq!(a.payload, bytes("a"));
    assert_eq!(bus.queue_depth(&q).await.unwrap(), QueueDepth { waiting: 0, in_flight: 2 });
    a.ack().await.unwrap();
    b.ack().await.unwrap();
    assert_eq!(bus.queue_depth(&q).await.unwrap(), QueueDepth::default());
    empty(bus, &q).await;
}

async fn duplicates_are_known(bus: &SharedBus) {
    let q = queue(bus, |_| {}).await;
    assert!(bus.queue_push(&q, "x", bytes("1")).await.unwrap());
    assert!(!bus.queue_push(&q, "x", bytes("2")).await.unwrap());
    pull(bus, &q).await.ack().await.unwrap();
    // Done jobs are still known.
    assert!(!bus.queue_push(&q, "x", bytes("3")).await.unwrap());
    empty(bus, &q).await;
}

async fn jobs_come_back(bus: &SharedBus) {
    let q = queue(bus, |config| config.ack_wait = Duration::from_millis(400)).await;
    bus.queue_push(&q, "x", bytes("x")).await.unwrap();
    drop(pull(bus, &q).await);
    let again = pull(bus, &q).await;
    assert_eq!((again.id.as_str(), again.attempt), ("x", 2));
    again.nak(Duration::ZERO).await.unwrap();
    let again = pull(bus, &q).await;
    assert_eq!(again.attempt, 3);
    let start = Instant::now();
    again.nak(Duration::from_millis(300)).await.unwrap();
    let again = pull(bus, &q).await;
    assert_eq!(again.attempt, 4);
    assert!(start.elapsed() >= Duration::from_millis(290));
    again.ack().await.unwrap();
    empty(bus, &q).await;
}

async fn in_progress_keeps_a_job(bus: &SharedBus) {
    let q = queue(bus, |config| config.ack_wait = Duration::from_millis(800)).await;
    bus.queue_push(&q, "x", bytes("x")).await.unwrap();
    let job = pull(bus, &q).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1600) {
        job.in_progress().await.unwrap();
        empty(bus, &q).await;
    }
    job.ack().await.unwrap();
}

async fn a_job_is_given_up(bus: &SharedBus) {
    let q = queue(bus, |config| config.max_deliver = 2).await;
    bus.queue_push(&q, "x", bytes("x")).await.unwrap();
    for attempt in 1..=2 {
        let job = pull(bus, &q).await;
        assert_eq!(job.attempt, attempt);
        job.nak(Duration::ZERO).await.unwrap();
    }
    empty(bus, &q).await;
    assert_eq!(bus.queue_depth(&q).await.unwrap(), QueueDepth::default());
    bus.queue_push(&q, "y", bytes("y")).await.unwrap();
    pull(bus, &q).await.term().await.unwrap();
    empty(bus, &q).await;
}

async fn a_full_queue_refuses(bus: &SharedBus) {
    let q = queue(bus, |config| config.max_jobs = 2).await;
    for id in ["a", "b"] {
        bus.queue_push(&q, id, bytes(id)).await.unwrap();
    }
    let refused = bus.queue_push(&q, "c", bytes("c")).await;
    assert_eq!(refused, Err(BusError::QueueFull { queue: q.clone() }));
    pull(bus, &q).await.ack().await.unwrap();
    assert!(bus.queue_push(&q, "d", bytes("d")).await.unwrap());
}

async fn a_waiting_pull_gets_a_later_job(bus: &SharedBus) {
    let q = queue(bus, |_| {}).await;
    let (puller, queue) = (bus.clone(), q.clone());
    let waiting = tokio::spawn(async move { pull(&puller, &queue).await.id });
    // So that it waits already; either order must work.
    tokio::time::sleep(QUIET).await;
    bus.queue_push(&q, "late", bytes("x")).await.unwrap();
    let start = Instant::now();
    assert_eq!(waiting.await.unwrap(), "late");
    assert!(start.elapsed() < SOON / 2);
}

async fn jobs_in_flight_are_bounded(bus: &SharedBus) {
    let q = queue(bus, |config| config.max_in_flight = 1).await;
    for id in ["a", "b"] {
        bus.queue_push(&q, id, bytes(id)).await.unwrap();
    }
    let first = pull(bus, &q).await;
    empty(bus, &q).await;
    first.ack().await.unwrap();
    assert_eq!(pull(bus, &q).await.id, "b");
}

async fn unknown_queues_are_errors(bus: &SharedBus) {
    let unknown = Err(BusError::UnknownQueue { queue: "NONE".into() });
    assert_eq!(bus.queue_push("NONE", "x", Bytes::new()).await, unknown);
    let q = queue(bus, |_| {}).await;
    assert!(matches!(bus.queue_push(&q, "a.b", Bytes::new()).await, Err(BusError::InvalidSubject { .. })));
}
