//! The in-process bus: the conformance suite, plain and behind a wrapper that does no harm, and the harm.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test panics")]

mod conformance;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conformance::{bytes, next};
use millrace_bus::{
    Bus, BusError, FaultPlan, FaultyBus, JournalConfig, JournalWriter, MemBus, Outcome, ReaderConfig,
    SharedBus,
};

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

/// Returns the outcomes of 1000 numbered messages.
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

/// The outcomes of the facts given to a writer.
#[derive(Default)]
struct Outcomes(Mutex<HashMap<Outcome, u32>>);

impl Outcomes {
    fn writer(self: &Arc<Self>, bus: SharedBus) -> JournalWriter {
        let told = self.clone();
        JournalWriter::start(bus, JournalConfig::new("FACTS", ["f.>"]), move |outcome| {
            *told.0.lock().unwrap().entry(outcome).or_default() += 1;
        })
    }

    fn of(&self, outcome: Outcome) -> u32 {
        self.0.lock().unwrap().get(&outcome).copied().unwrap_or_default()
    }
}

/// Every fact that the journal keeps.
async fn kept(bus: &SharedBus) -> Vec<(String, u32)> {
    bus.journal_reader("FACTS", &ReaderConfig::new("all", ">")).await.unwrap();
    let mut kept = Vec::new();
    while let Some(entry) = bus.journal_next("FACTS", "all", Duration::ZERO).await.unwrap() {
        entry.ack().await.unwrap();
        kept.push((entry.subject.clone(), String::from_utf8_lossy(&entry.payload).parse().unwrap()));
    }
    kept
}

fn write(writer: &JournalWriter, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let subject = format!("f.{}", number % 7);
        writer.append(subject, format!("id-{number}"), bytes(&number.to_string()));
    }
}

#[tokio::test(start_paused = true)]
async fn written_facts_are_kept_once_and_in_order_whatever_gets_lost() {
    for seed in 0..20 {
        let (bus, inner) = faulty(seed);
        bus.set(FaultPlan { fail: 0.3, lose: 0.3, ..FaultPlan::default() });
        let outcomes = Arc::new(Outcomes::default());
        let writer = outcomes.writer(Arc::new(bus));
        write(&writer, 0..500);
        assert!(writer.flush(Duration::from_hours(1)).await);
        let facts = kept(&inner).await;
        let mut numbers: Vec<u32> = facts.iter().map(|(_, number)| *number).collect();
        for subject in 0..7 {
            let of_subject = |number: &&u32| **number % 7 == subject;
            assert!(numbers.iter().filter(of_subject).is_sorted(), "seed {seed}");
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..500).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(outcomes.of(Outcome::Stored) + outcomes.of(Outcome::Known), 500);
        assert!(outcomes.of(Outcome::Known) > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_without_a_journal_gives_up_counts_and_goes_on_after() {
    let (bus, inner) = faulty(1);
    bus.set(FaultPlan { away: true, ..FaultPlan::default() });
    let outcomes = Arc::new(Outcomes::default());
    let writer = outcomes.writer(Arc::new(bus.clone()));
    write(&writer, 0..20_000);
    let over = outcomes.of(Outcome::Overflow);
    assert!(over > 0 && over < 10_000, "what waits is bounded: {over}");
    assert!(!writer.flush(Duration::from_secs(30)).await, "an absence of seconds costs nothing");
    assert_eq!(outcomes.of(Outcome::GivenUp), 0);
    assert!(writer.flush(Duration::from_hours(1)).await);
    assert_eq!(outcomes.of(Outcome::GivenUp), 20_000 - over);
    bus.set(FaultPlan::default());
    write(&writer, 0..10);
    assert!(writer.flush(Duration::from_mins(1)).await);
    assert_eq!(kept(&inner).await.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_journal_in_memory_stays_small() {
    let bus: SharedBus = Arc::new(MemBus::new());
    bus.journal_declare(&JournalConfig::new("FACTS", ["f.>"])).await.unwrap();
    for number in 0..2000 {
        let body = bytes(&format!("{number:010000}"));
        bus.journal_append("FACTS", "f.x", &number.to_string(), body).await.unwrap();
    }
    let facts = kept(&bus).await;
    assert!(facts.len() < 500, "{}", facts.len());
    assert_eq!(facts.last().unwrap().1, 1999, "the newest stay");
}
