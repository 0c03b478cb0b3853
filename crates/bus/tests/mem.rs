//! The in-process bus: the conformance suite, plain and behind a wrapper that does no harm, and the harm.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test panics")]

mod conformance;

use std::sync::Arc;
use std::time::Duration;

use conformance::{bytes, next};
use millrace_bus::{Bus, BusError, FaultPlan, FaultyBus, MemBus, SharedBus};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    conformance::all(Arc::new(MemBus::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_are_shared_not_copied() {
    let bus = MemBus::new();
    let mut sub = bus.subscribe("a", 1).await.unwrap();
    let body = bytes("shared");
    bus.publish("a", body.clone()).unwrap();
    assert_eq!(sub.recv().await.unwrap().payload.as_ptr(), body.as_ptr());
}

fn faulty(seed: u64) -> (FaultyBus, SharedBus) {
    let inner: SharedBus = Arc::new(MemBus::new());
    (FaultyBus::new(inner.clone(), seed), inner)
}

/// What comes of 1000 numbered messages.
async fn received(seed: u64, plan: FaultPlan) -> Vec<u32> {
    let (bus, _) = faulty(seed);
    bus.set(plan);
    let mut sub = bus.subscribe("s.n", 4000).await.unwrap();
    for number in 0..1000 {
        bus.publish("s.n", bytes(&number.to_string())).unwrap();
    }
    let mut out = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(200), sub.recv()).await {
        out.push(String::from_utf8(message.payload.to_vec()).unwrap().parse().unwrap());
    }
    out
}

#[tokio::test]
async fn faults_strike_by_seed() {
    let clean: Vec<u32> = (0..1000).collect();
    assert_eq!(received(1, FaultPlan::default()).await, clean);
    let lossy = FaultPlan { lose: 0.1, ..FaultPlan::default() };
    let (a, b, c) =
        (received(1, lossy.clone()).await, received(1, lossy.clone()).await, received(2, lossy).await);
    assert_eq!(a, b);
    assert_ne!(a, c);
    assert!(a.len() > 800 && a.len() < 980, "{}", a.len());
    let double = received(3, FaultPlan { double: 0.1, ..FaultPlan::default() }).await;
    assert!(double.len() > 1020 && double.is_sorted());
    let mut swapped = received(4, FaultPlan { swap: 0.1, ..FaultPlan::default() }).await;
    assert!(!swapped.is_sorted());
    swapped.sort_unstable();
    assert_eq!(swapped, clean);
    let other = FaultPlan { lose: 1.0, subject_prefix: "x".into(), ..FaultPlan::default() };
    assert_eq!(received(5, other).await, clean);
    let late = FaultPlan { delay: 0.01, max_delay: Duration::from_millis(5), ..FaultPlan::default() };
    assert_eq!(received(6, late).await, clean);
}

#[tokio::test]
async fn a_partition_ends() {
    let (bus, _) = faulty(1);
    let mut sub = bus.subscribe("a", 10).await.unwrap();
    bus.set(FaultPlan { away: true, ..FaultPlan::default() });
    assert!(!*bus.connected().borrow());
    assert_eq!(bus.publish("a", bytes("lost")), Err(BusError::Disconnected));
    assert_eq!(bus.request("a", bytes("?"), Duration::from_secs(1)).await, Err(BusError::Disconnected));
    bus.set(FaultPlan::default());
    assert!(*bus.connected().borrow());
    bus.publish("a", bytes("back")).unwrap();
    assert_eq!(next(&mut sub).await, "back");
    bus.set(FaultPlan { fail: 1.0, ..FaultPlan::default() });
    assert!(matches!(bus.publish("a", bytes("x")), Err(BusError::Other(_))));
}
