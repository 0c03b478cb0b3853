//! A work queue as a JetStream stream with one durable pull consumer.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use bytes::Bytes;
use serde_json::Value;

use super::jetstream::{self, API_TIMEOUT, context, other};
use super::link::Link;
use super::pull::{self as pulling, Pulled, Source};
use crate::{BusError, Job, QueueConfig, QueueDepth};

/// The consumer all workers of a queue share.
const CONSUMER: &str = "workers";

pub(super) async fn declare(link: &Link, queue: &QueueConfig, replicas: usize) -> Result<(), BusError> {
    let context = context(link);
    let stream = Config {
        name: queue.name.clone(),
        subjects: vec![format!("{}.>", queue.subject_prefix)],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_messages: i64::from(queue.max_jobs),
        duplicate_window: queue.dedup_window,
        num_replicas: replicas,
        ..Config::default()
    };
    context.create_or_update_stream(stream).await.map_err(other)?;
    let consumer = pull::Config {
        durable_name: Some(CONSUMER.into()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: queue.ack_wait,
        // One more than asked for: that delivery removes the job, which JetStream would keep for ever.
        max_deliver: if queue.max_deliver == 0 { -1 } else { i64::from(queue.max_deliver) + 1 },
        max_ack_pending: i64::from(queue.max_in_flight),
        ..pull::Config::default()
    };
    context.create_consumer_on_stream(consumer, &queue.name).await.map_err(other)?;
    Ok(())
}

pub(super) async fn push(
    link: &Link,
    queue: &QueueConfig,
    id: &str,
    payload: Bytes,
) -> Result<bool, BusError> {
    let subject = format!("{}.{id}", queue.subject_prefix);
    jetstream::publish(link, &queue.name, &subject, id, payload).await
}

pub(super) async fn pull(link: &Link, queue: &QueueConfig, wait: Duration) -> Result<Option<Job>, BusError> {
    let source = Source { stream: &queue.name, consumer: CONSUMER, max_deliver: queue.max_deliver };
    let Some(Pulled { subject, payload, attempt, control }) = pulling::pull(link, &source, wait).await?
    else {
        return Ok(None);
    };
    let id = subject.rsplit('.').next().unwrap_or_default().to_owned();
    Ok(Some(Job::new(id, payload, attempt, control)))
}

pub(super) async fn depth(link: &Link, queue: &QueueConfig) -> Result<QueueDepth, BusError> {
    let subject = format!("$JS.API.CONSUMER.INFO.{}.{CONSUMER}", queue.name);
    let answer = link.request(&subject, None, Bytes::new(), API_TIMEOUT).await?;
    let info: Value = serde_json::from_slice(&answer).map_err(other)?;
    let number = |name: &str| info.get(name).and_then(Value::as_u64);
    match (number("num_pending"), number("num_ack_pending")) {
        (Some(waiting), Some(in_flight)) => Ok(QueueDepth { waiting, in_flight }),
        _ => Err(other(info.get("error").unwrap_or(&Value::Null))),
    }
}
