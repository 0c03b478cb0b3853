//! The checks of journals that every bus passes.

use std::time::Duration;

use bytes::Bytes;
use millrace_bus::{BusError, JournalConfig, JournalEntry, ReaderConfig, SharedBus};

use super::{QUIET, SOON, bytes, name, next};

pub async fn all(bus: &SharedBus) {
    facts_are_kept_for_each_reader(bus).await;
    a_fact_said_again_is_known(bus).await;
    facts_come_again_until_acknowledged(bus).await;
    a_reader_has_a_filter(bus).await;
    the_oldest_go_past_the_limits(bus).await;
    facts_in_flight_are_bounded(bus).await;
    subscribers_hear_facts_too(bus).await;
    a_journal_is_read_from_any_position(bus).await;
    what_is_not_declared_is_an_error(bus).await;
}

/// A journal of its own, and the first token of its subjects.
pub async fn journal(bus: &SharedBus, change: impl FnOnce(&mut JournalConfig)) -> (String, String) {
    let (journal, prefix) = (name("JOURNAL"), name("fact"));
    // A server's disk may be small.
    let mut config =
        JournalConfig { max_bytes: 1 << 20, ..JournalConfig::new(&journal, [format!("{prefix}.>")]) };
    change(&mut config);
    bus.journal_declare(&config).await.unwrap();
    bus.journal_declare(&config).await.unwrap();
    (journal, prefix)
}

pub async fn reader(bus: &SharedBus, journal: &str, change: impl FnOnce(&mut ReaderConfig)) -> String {
    let mut config = ReaderConfig::new(name("reader"), ">");
    change(&mut config);
    bus.journal_reader(journal, &config).await.unwrap();
    bus.journal_reader(journal, &config).await.unwrap();
    config.name
}

async fn say(bus: &SharedBus, (journal, prefix): &(String, String), text: &str) {
    let new = bus.journal_append(journal, &format!("{prefix}.a"), &name("id"), bytes(text)).await;
    assert_eq!(new, Ok(true));
}

pub async fn entry(bus: &SharedBus, journal: &str, reader: &str) -> JournalEntry {
    bus.journal_next(journal, reader, SOON).await.unwrap().expect("a fact")
}

async fn text(bus: &SharedBus, journal: &str, reader: &str) -> String {
    let entry = entry(bus, journal, reader).await;
    entry.ack().await.unwrap();
    String::from_utf8(entry.payload.to_vec()).unwrap()
}

async fn empty(bus: &SharedBus, journal: &str, reader: &str) {
    assert!(bus.journal_next(journal, reader, QUIET).await.unwrap().is_none());
}

async fn facts_are_kept_for_each_reader(bus: &SharedBus) {
    let journal = journal(bus, |_| {}).await;
    let early = reader(bus, &journal.0, |_| {}).await;
    for text in ["1", "2", "3"] {
        say(bus, &journal, text).await;
    }
    let late = reader(bus, &journal.0, |_| {}).await;
    for reader in [early, late] {
        for expected in ["1", "2", "3"] {
            assert_eq!(text(bus, &journal.0, &reader).await, expected);
        }
        empty(bus, &journal.0, &reader).await;
    }
}

async fn a_fact_said_again_is_known(bus: &SharedBus) {
    let (journal, prefix) = journal(bus, |_| {}).await;
    let reader = reader(bus, &journal, |_| {}).await;
    let subject = format!("{prefix}.a");
    assert!(bus.journal_append(&journal, &subject, "x", bytes("1")).await.unwrap());
    assert!(!bus.journal_append(&journal, &subject, "x", bytes("2")).await.unwrap());
    assert_eq!(text(bus, &journal, &reader).await, "1");
    empty(bus, &journal, &reader).await;
}

async fn facts_come_again_until_acknowledged(bus: &SharedBus) {
    let journal = journal(bus, |_| {}).await;
    let reader = reader(bus, &journal.0, |reader| reader.ack_wait = Duration::from_millis(400)).await;
    say(bus, &journal, "x").await;
    drop(entry(bus, &journal.0, &reader).await);
    let again = entry(bus, &journal.0, &reader).await;
    assert_eq!((again.attempt, again.payload.clone()), (2, bytes("x")));
    again.nak(Duration::ZERO).await.unwrap();
    let again = entry(bus, &journal.0, &reader).await;
    assert_eq!((again.attempt, again.subject.clone()), (3, format!("{}.a", journal.1)));
    again.ack().await.unwrap();
    let long = bus.journal_next(&journal.0, &reader, Duration::from_millis(600)).await.unwrap();
    assert!(long.is_none(), "an acknowledged fact came again");
}

async fn a_reader_has_a_filter(bus: &SharedBus) {
    let (journal, prefix) = journal(bus, |_| {}).await;
    let reader = reader(bus, &journal, |reader| reader.filter = format!("{prefix}.b.*")).await;
    for (id, subject) in ["a", "b.1", "c", "b.2"].into_iter().enumerate() {
        let subject = format!("{prefix}.{subject}");
        bus.journal_append(&journal, &subject, &id.to_string(), bytes(&subject)).await.unwrap();
    }
    for expected in ["b.1", "b.2"] {
        assert_eq!(text(bus, &journal, &reader).await, format!("{prefix}.{expected}"));
    }
    empty(bus, &journal, &reader).await;
}

async fn the_oldest_go_past_the_limits(bus: &SharedBus) {
    let few = journal(bus, |journal| journal.max_messages = 2).await;
    let small = journal(bus, |journal| journal.max_bytes = 1000).await;
    for text in ["1", "2", "3"] {
        say(bus, &few, text).await;
        let padded = format!("{text}{}", " ".repeat(400));
        say(bus, &small, &padded).await;
    }
    let reader_of_few = reader(bus, &few.0, |_| {}).await;
    assert_eq!(text(bus, &few.0, &reader_of_few).await, "2");
    let reader_of_small = reader(bus, &small.0, |_| {}).await;
    assert_ne!(text(bus, &small.0, &reader_of_small).await.trim(), "1");
    let brief = journal(bus, |journal| {
        journal.max_age = Duration::from_millis(200);
        journal.dedup_window = Duration::from_millis(150);
    });
    let brief = brief.await;
    say(bus, &brief, "old").await;
    millrace_testkit::wait::until(SOON, || async {
        // A reader that finds nothing takes no fact out.
        let late = reader(bus, &brief.0, |_| {}).await;
        bus.journal_next(&brief.0, &late, Duration::ZERO).await.unwrap().is_none()
    })
    .await;
}

async fn facts_in_flight_are_bounded(bus: &SharedBus) {
    let journal = journal(bus, |_| {}).await;
    let reader = reader(bus, &journal.0, |reader| reader.max_in_flight = 1).await;
    for text in ["1", "2"] {
        say(bus, &journal, text).await;
    }
    let first = entry(bus, &journal.0, &reader).await;
    empty(bus, &journal.0, &reader).await;
    first.ack().await.unwrap();
    assert_eq!(text(bus, &journal.0, &reader).await, "2");
}

async fn subscribers_hear_facts_too(bus: &SharedBus) {
    let journal = journal(bus, |_| {}).await;
    let mut plain = bus.subscribe(&format!("{}.>", journal.1), 8).await.unwrap();
    say(bus, &journal, "heard").await;
    assert_eq!(next(&mut plain).await, "heard");
}

async fn a_journal_is_read_from_any_position(bus: &SharedBus) {
    let (journal, prefix) = journal(bus, |_| {}).await;
    assert_eq!(bus.journal_end(&journal).await, Ok(0));
    for (id, subject) in ["a", "b", "a"].into_iter().enumerate() {
        let subject = format!("{prefix}.{subject}");
        bus.journal_append(&journal, &subject, &id.to_string(), bytes(&id.to_string())).await.unwrap();
    }
    assert_eq!(bus.journal_end(&journal).await, Ok(3));
    let read = async |filter: &str, from| {
        let found = bus.journal_read(&journal, &format!("{prefix}.{filter}"), from).await.unwrap();
        found.map(|record| (record.position, String::from_utf8(record.payload.to_vec()).unwrap()))
    };
    let fact = |position, text: &str| Some((position, text.to_owned()));
    assert_eq!((read(">", 0).await, read(">", 1).await), (fact(1, "0"), fact(1, "0")));
    assert_eq!((read("a", 2).await, read("b", 1).await), (fact(3, "2"), fact(2, "1")));
    assert_eq!((read("b", 3).await, read(">", 4).await), (None, None));
}

async fn what_is_not_declared_is_an_error(bus: &SharedBus) {
    let unknown = BusError::UnknownJournal { name: "NONE".into() };
    assert_eq!(bus.journal_append("NONE", "a", "x", Bytes::new()).await, Err(unknown.clone()));
    let of_none = bus.journal_reader("NONE", &ReaderConfig::new("r", ">")).await;
    assert_eq!(of_none, Err(unknown.clone()));
    let (journal, prefix) = journal(bus, |_| {}).await;
    assert_eq!(bus.journal_next(&journal, "NONE", QUIET).await.err(), Some(unknown));
    for (subject, id) in
        [("elsewhere".into(), "x"), (format!("{prefix}.a"), "a.b"), (format!("{prefix}.*"), "x")]
    {
        let refused = bus.journal_append(&journal, &subject, id, Bytes::new()).await;
        assert!(matches!(refused, Err(BusError::InvalidSubject { .. })), "{subject} {id}");
    }
}
