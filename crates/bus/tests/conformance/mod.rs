//! The conformance suite of the bus trait. Each implementation's test runs `all` on its own bus.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod journals;
pub mod queues;

use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{BusError, SharedBus, Subscription};
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

/// Asserts that the subscription has received nothing: a marker published now on a subject it receives must
/// be its next message, for a bus keeps the order of one publisher.
async fn nothing(bus: &SharedBus, subscription: &mut Subscription, subject: &str) {
    bus.publish(subject, bytes("marker")).unwrap();
    assert_eq!(next(subscription).await, "marker", "an unexpected message");
}

/// Runs every check of the suite.
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
    queues::all(&bus).await;
    journals::all(&bus).await;
}

async fn exact_subjects(bus: &SharedBus) {
    let s = name("exact");
    let mut a = bus.subscribe(&s, 8).await.unwrap();
    let mut b = bus.subscribe(&s, 8).await.unwrap();
    let mut other = bus.subscribe(&format!("{s}.x"), 8).await.unwrap();
    bus.publish(&s, bytes("1")).unwrap();
    assert_eq!(next(&mut a).await, "1");
    assert_eq!(next(&mut b).await, "1");
    nothing(bus, &mut other, &format!("{s}.x")).await;
}

async fn wildcards(bus: &SharedBus) {
    let s = name("wild");
    let mut star = bus.subscribe(&format!("{s}.*.end"), 8).await.unwrap();
    let mut rest = bus.subscribe(&format!("{s}.>"), 8).await.unwrap();
    for subject in [format!("{s}.a.end"), format!("{s}.a.b.end"), s.clone()] {
        bus.publish(&subject, bytes(&subject)).unwrap();
    }
    assert_eq!(next(&mut star).await, format!("{s}.a.end"));
    let message = timeout(SOON, rest.recv()).await.unwrap().unwrap();
    assert_eq!(*message.subject, *format!("{s}.a.end"));
    assert_eq!(next(&mut rest).await, format!("{s}.a.b.end"));
    nothing(bus, &mut star, &format!("{s}.z.end")).await;
    assert_eq!(next(&mut rest).await, "marker", "an unexpected message");
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
    // The last message is a marker: once one member has received it, everything before it has been delivered.
    for number in 0..=100 {
        bus.publish(&s, bytes(&number.to_string())).unwrap();
    }
    for number in 0..=100 {
        assert_eq!(next(&mut plain).await, number.to_string());
    }
    let (mut seen, mut marked) = (Vec::new(), false);
    let (mut of_a, mut of_b) = (0, 0);
    while !marked || seen.len() < 100 {
        let (message, count) = tokio::select! {
            message = a.recv() => (message, &mut of_a),
            message = b.recv() => (message, &mut of_b),
            () = tokio::time::sleep(SOON) => panic!("{} of 100 came", seen.len()),
        };
        let number = String::from_utf8(message.unwrap().payload.to_vec()).unwrap().parse::<u32>().unwrap();
        if number == 100 {
            marked = true;
        } else {
            *count += 1;
            seen.push(number);
        }
    }
    assert!(a.try_recv().is_none() && b.try_recv().is_none(), "more than was sent");
    assert!(of_a > 0 && of_b > 0, "a member got nothing: {of_a} and {of_b}");
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
