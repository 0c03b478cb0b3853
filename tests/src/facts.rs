//! The events and index facts that a cluster's JetStream keeps of a livestream.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_bus::{Bus, JournalConfig, JournalEntry, NatsBus, NatsConfig, ReaderConfig};
use millrace_wire::ids::StreamId;
use millrace_wire::message::announce::IndexFact;
use millrace_wire::message::control::{LifecycleEvent, LifecycleKind};
use millrace_wire::{topic, topics};

/// The last facts of a stream are kept within moments; an election of JetStream takes seconds.
const LIMIT: Duration = Duration::from_secs(20);

/// A reader of what the nodes keep.
pub struct Facts {
    bus: NatsBus,
    stream: StreamId,
}

impl Facts {
    /// Reads with the bus at `url`.
    pub async fn of(url: &str, stream: &str) -> Result<Self> {
        let bus = NatsBus::connect(NatsConfig::new([url])).await?;
        let stream = stream.parse()?;
        let journals = [
            JournalConfig::new(topics::EVENTS_STREAM, topics::EVENTS_SUBJECTS),
            JournalConfig::new(topics::INDEX_STREAM, topics::INDEX_SUBJECTS),
        ];
        for journal in &journals {
            bus.journal_declare(journal).await?;
        }
        let read =
            async |journal, subject| bus.journal_reader(journal, &ReaderConfig::new("tests", subject)).await;
        read(topics::EVENTS_STREAM, topics::events(stream).into_subject()).await?;
        read(topics::INDEX_STREAM, topics::index(stream).into_subject()).await?;
        Ok(Self { bus, stream })
    }

    async fn next(&self, journal: &str, missing: &str) -> Result<JournalEntry> {
        let next = self.bus.journal_next(journal, "tests", LIMIT).await?;
        let entry = next.with_context(|| format!("{journal} lacks {missing} of {}", self.stream))?;
        entry.ack().await?;
        Ok(entry)
    }

    /// Waits until the stream's whole life is kept: each event once and in order, its start first and its end last. Returns it
    /// from its start on.
    pub async fn whole_life(&self) -> Result<Vec<LifecycleKind>> {
        let mut events: Vec<LifecycleEvent> = Vec::new();
        while !matches!(events.last().map(|event| &event.kind), Some(LifecycleKind::Ended { .. })) {
            let entry = self.next(topics::EVENTS_STREAM, "the end").await?;
            events.push(topic::decode(&entry.payload)?);
        }
        let ids: BTreeSet<String> = events.iter().map(LifecycleEvent::id).collect();
        ensure!(ids.len() == events.len(), "an event is kept twice: {events:?}");
        let in_order = events.iter().zip(1..).all(|(event, sequence)| event.sequence == sequence);
        ensure!(in_order, "events are missing or out of order: {events:?}");
        let life = events.into_iter().map(|event| event.kind);
        let life: Vec<_> = life.skip_while(|kind| !matches!(kind, LifecycleKind::Started { .. })).collect();
        ensure!(!life.is_empty(), "the end came without a start");
        Ok(life)
    }

    /// Waits until each of these segments of a rendition is known to be stored; no fact may be kept twice.
    pub async fn segments(&self, mut wanted: BTreeSet<(String, u64)>) -> Result<()> {
        let mut ids = BTreeSet::new();
        while !wanted.is_empty() {
            let entry = self.next(topics::INDEX_STREAM, &format!("{wanted:?}")).await?;
            let fact: IndexFact = topic::decode(&entry.payload)?;
            wanted.remove(&(fact.segment.rendition.to_string(), fact.segment.msn.0));
            ensure!(ids.insert(fact.id()), "{} is kept twice", fact.id());
        }
        Ok(())
    }
}
