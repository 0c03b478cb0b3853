//! What every bus must do. Each implementation's test runs `all` on its own bus.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{BusError, Job, QueueConfig, QueueDepth, SharedBus, Subscription};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(5);
/// Long enough for a message that should not come to have come.
const QUIET: Duration = Duration::from_millis(150);

/// Subjects of this run only, for the server is shared by all checks.
pub fn name(what: &str) -> String {
    format!("{what}{}", rand::random::<u32>())
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub async fn next(subscription: &mut Subscription) -> String {
    let message = timeout(SOON, subscription.recv()).await.expect("a message soon").expect("an open bus");
    String::from_utf8(message.payload.to_vec()).unwrap()
}

async fn nothing(subscription: &mut Subscription) {
    assert!(timeout(QUIET, subscription.recv()).await.is_err(), "an unexpected message");
}

/// Every check.
pub async fn all(bus: SharedBus) {
    exact_subjects(&bus).await;
    wildcards(&bus).await;
    order_is_kept(&bus).await;
    queue_groups_share(&bus).await;
    requests_and_answers(&bus).await;
    gathering(&bus).await;
    a_slow_consumer_hurts_only_itself(&bus).await;
    limits(&bus).await;
    large_payloads(&bus).await;
    a_dropped_subscription_is_gone(&bus).await;
    assert!(bus.loopback(SOON).await.unwrap() < SOON);
    assert!(*bus.connected().borrow());
    queues(&bus).await;
}

pub async fn queues(bus: &SharedBus) {
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

async fn exact_subjects(bus: &SharedBus) {
    let s = name("exact");
    let mut a = bus.subscribe(&s, 8).await.unwrap();
    let mut b = bus.subscribe(&s, 8).await.unwrap();
    let mut other = bus.subscribe(&format!("{s}.x"), 8).await.unwrap();
    bus.publish(&s, bytes("1")).unwrap();
    assert_eq!(next(&mut a).await, "1");
    assert_eq!(next(&mut b).await, "1");
    nothing(&mut other).await;
}

async fn wildcards(bus: &SharedBus) {
    let s = name("wild");
    let mut star = bus.subscribe(&format!("{s}.*.end"), 8).await.unwrap();
    let mut rest = bus.subscribe(&format!("{s}.>"), 8).await.unwrap();
    for subject in [format!("{s}.a.end"), format!("{s}.a.b.end"), s.clone()] {
        bus.publish(&subject, bytes(&subject)).unwrap();
    }
    assert_eq!(next(&mut star).await, format!("{s}.a.end"));
    nothing(&mut star).await;
    let message = timeout(SOON, rest.recv()).await.unwrap().unwrap();
    assert_eq!(*message.subject, *format!("{s}.a.end"));
    assert_eq!(next(&mut rest).await, format!("{s}.a.b.end"));
    nothing(&mut rest).await;
}

async fn order_is_kept(bus: &SharedBus) {
    // Of the media connection too.
    for s in [name("order"), format!("media.{}", name("order"))] {
        let mut sub = bus.subscribe(&s, 1000).await.unwrap();
        for number in 0..500 {
            bus.publish(&s, bytes(&number.to_string())).unwrap();
        }
        for number in 0..500 {
            assert_eq!(next(&mut sub).await, number.to_string());
        }
        assert_eq!(sub.dropped(), 0);
    }
}

async fn queue_groups_share(bus: &SharedBus) {
    let s = name("group");
    let mut a = bus.queue_subscribe(&s, "g", 200).await.unwrap();
    let mut b = bus.queue_subscribe(&s, "g", 200).await.unwrap();
    let mut plain = bus.subscribe(&s, 200).await.unwrap();
    for number in 0..100 {
        bus.publish(&s, bytes(&number.to_string())).unwrap();
    }
    for number in 0..100 {
        assert_eq!(next(&mut plain).await, number.to_string());
    }
    let mut seen = Vec::new();
    for sub in [&mut a, &mut b] {
        let before = seen.len();
        while let Ok(message) = timeout(QUIET, sub.recv()).await {
            seen.push(String::from_utf8(message.unwrap().payload.to_vec()).unwrap().parse::<u32>().unwrap());
        }
        assert!(seen.len() > before, "a member got nothing");
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

async fn requests_and_answers(bus: &SharedBus) {
    let s = name("ask");
    let start = Instant::now();
    let refused = bus.request(&s, bytes("?"), SOON).await;
    assert_eq!(refused, Err(BusError::NoResponders { subject: s.clone() }));
    assert!(start.elapsed() < SOON / 2, "no responders is known at once");
    let mut asked = bus.subscribe(&s, 8).await.unwrap();
    let silent = bus.request(&s, bytes("?"), Duration::from_millis(50)).await;
    assert_eq!(silent, Err(BusError::Timeout { what: s.clone() }));
    assert_eq!(next(&mut asked).await, "?");
    let answering = bus.clone();
    let task = tokio::spawn(async move {
        let message = asked.recv().await.unwrap();
        answering.respond(message.reply.as_deref().unwrap(), message.payload).unwrap();
    });
    assert_eq!(bus.request(&s, bytes("echo"), SOON).await.unwrap(), bytes("echo"));
    task.await.unwrap();
}

async fn gathering(bus: &SharedBus) {
    let s = name("gather");
    let none = bus.gather(&s, bytes("?"), QUIET, 5).await.unwrap();
    assert!(none.is_empty());
    let mut tasks = Vec::new();
    for answer in ["a", "b", "c"] {
        let mut sub = bus.subscribe(&s, 8).await.unwrap();
        let bus = bus.clone();
        tasks.push(tokio::spawn(async move {
            while let Some(message) = sub.recv().await {
                bus.respond(message.reply.as_deref().unwrap(), bytes(answer)).unwrap();
            }
        }));
    }
    let mut all = bus.gather(&s, bytes("?"), SOON, 3).await.unwrap();
    all.sort();
    assert_eq!(all, [bytes("a"), bytes("b"), bytes("c")]);
    assert_eq!(bus.gather(&s, bytes("?"), SOON, 2).await.unwrap().len(), 2);
    assert_eq!(bus.gather(&s, bytes("?"), QUIET, 9).await.unwrap().len(), 3);
    for task in &tasks {
        task.abort();
    }
}

async fn a_slow_consumer_hurts_only_itself(bus: &SharedBus) {
    let s = format!("live.{}", name("slow"));
    let before = bus.stats().slow_consumer;
    let mut slow = bus.subscribe(&s, 10).await.unwrap();
    let mut fast = bus.subscribe(&s, 1000).await.unwrap();
    for number in 0..100 {
        bus.publish(&s, bytes(&number.to_string())).unwrap();
    }
    for number in 0..100 {
        assert_eq!(next(&mut fast).await, number.to_string());
    }
    millrace_testkit::wait::until(SOON, || async { slow.dropped() == 90 }).await;
    assert_eq!(fast.dropped(), 0);
    assert_eq!(bus.stats().slow_consumer - before, 90);
    // What it holds is the oldest, and then it goes on.
    for number in 0..10 {
        assert_eq!(next(&mut slow).await, number.to_string());
    }
    bus.publish(&s, bytes("on")).unwrap();
    assert_eq!(next(&mut slow).await, "on");
}

async fn limits(bus: &SharedBus) {
    for bad in ["", "a b", "a..b", ".a", "a.*", ">"] {
        let refused = bus.publish(bad, Bytes::new());
        assert!(matches!(refused, Err(BusError::InvalidSubject { .. })), "{bad:?}");
    }
    assert!(matches!(bus.subscribe("a.>.b", 1).await, Err(BusError::InvalidSubject { .. })));
    assert!(matches!(bus.queue_subscribe("a", "g g", 1).await, Err(BusError::InvalidSubject { .. })));
    let limit = bus.max_payload();
    let size = limit + 1;
    let refused = bus.publish("a", Bytes::from(vec![0; size]));
    assert_eq!(refused, Err(BusError::TooLarge { size, limit }));
}

async fn large_payloads(bus: &SharedBus) {
    let s = format!("media.{}", name("large"));
    let mut sub = bus.subscribe(&s, 4).await.unwrap();
    let body = Bytes::from(vec![7; bus.max_payload().min(1 << 20)]);
    bus.publish(&s, body.clone()).unwrap();
    let message = timeout(SOON, sub.recv()).await.unwrap().unwrap();
    assert!(message.payload == body);
}

async fn a_dropped_subscription_is_gone(bus: &SharedBus) {
    let s = name("gone");
    drop(bus.subscribe(&s, 1).await.unwrap());
    millrace_testkit::wait::until(SOON, || async {
        matches!(bus.request(&s, Bytes::new(), QUIET).await, Err(BusError::NoResponders { .. }))
    })
    .await;
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
