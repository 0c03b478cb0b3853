//! A journal as a JetStream stream with limits and a durable pull consumer for each reader.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, RawMessageErrorKind, RetentionPolicy, StorageType,
};

use super::jetstream::{context, other};
use super::link::Link;
use super::pull::{self as pulling, Pulled, Source};
use crate::{BusError, JournalConfig, JournalEntry, JournalRecord, ReaderConfig};

pub(super) async fn declare(link: &Link, journal: &JournalConfig, replicas: usize) -> Result<(), BusError> {
    let stream = Config {
        name: journal.name.clone(),
        subjects: journal.subjects.clone(),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_age: journal.max_age,
        max_bytes: i64::try_from(journal.max_bytes).unwrap_or(i64::MAX),
        max_messages: i64::try_from(journal.max_messages).unwrap_or(i64::MAX),
        duplicate_window: journal.dedup_window,
        num_replicas: replicas,
        ..Config::default()
    };
    context(link).create_or_update_stream(stream).await.map_err(other)?;
    Ok(())
}

pub(super) async fn add_reader(
    link: &Link,
    journal: &JournalConfig,
    reader: &ReaderConfig,
) -> Result<(), BusError> {
    let consumer = pull::Config {
        durable_name: Some(reader.name.clone()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: reader.ack_wait,
        max_ack_pending: i64::from(reader.max_in_flight),
        filter_subject: reader.filter.clone(),
        ..pull::Config::default()
    };
    context(link).create_consumer_on_stream(consumer, &journal.name).await.map_err(other)?;
    Ok(())
}

pub(super) async fn read(
    link: &Link,
    journal: &JournalConfig,
    filter: &str,
    from: u64,
) -> Result<Option<JournalRecord>, BusError> {
    let stream = context(link).get_stream_no_info(&journal.name).await.map_err(other)?;
    match stream.get_first_raw_message_by_subject(filter, from.max(1)).await {
        Ok(found) => {
            let (position, subject) = (found.sequence, found.subject.to_string());
            Ok(Some(JournalRecord { position, subject, payload: found.payload }))
        }
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(other(error)),
    }
}

pub(super) async fn end(link: &Link, journal: &JournalConfig) -> Result<u64, BusError> {
    let stream = context(link).get_stream(&journal.name).await.map_err(other)?;
    Ok(stream.cached_info().state.last_sequence)
}

pub(super) async fn next(
    link: &Link,
    journal: &JournalConfig,
    reader: &str,
    wait: Duration,
) -> Result<Option<JournalEntry>, BusError> {
    let source = Source { stream: &journal.name, consumer: reader, max_deliver: 0 };
    let pulled = pulling::pull(link, &source, wait).await?;
    Ok(pulled.map(|Pulled { subject, payload, attempt, control }| {
        JournalEntry::new(subject, payload, attempt, control)
    }))
}
