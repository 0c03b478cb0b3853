//! A work queue as a JetStream stream with one durable pull consumer.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ContextBuilder};
use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use super::link::Link;
use crate::{BusError, QueueConfig, QueueDepth};

/// The consumer all workers of a queue share.
pub(super) const CONSUMER: &str = "workers";
/// For one call of JetStream's own API; an election takes up to 5 s.
const API_TIMEOUT: Duration = Duration::from_secs(6);
/// For one attempt to store a job. The id makes a second attempt harmless.
const PUSH_ATTEMPT: Duration = Duration::from_secs(1);
/// For all attempts together: longer than JetStream's election.
const PUSH_TIMEOUT: Duration = Duration::from_secs(8);
const PUSH_PAUSE: Duration = Duration::from_millis(100);
/// JetStream's error code for a stream that may hold no more (`JSStreamStoreFailedF`).
const ERR_STORE_FAILED: u64 = 10_077;

fn other(error: impl std::fmt::Display) -> BusError {
    BusError::Other(error.to_string())
}

fn context(link: &Link) -> Context {
    ContextBuilder::new().timeout(API_TIMEOUT).build(link.client().clone())
}

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
    let deadline = Instant::now() + PUSH_TIMEOUT;
    loop {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let answer = link.request(&subject, Some(headers), payload.clone(), PUSH_ATTEMPT).await;
        match answer {
            Ok(answer) => return read_ack(&answer, &queue.name),
            Err(error) if !error.is_retryable() || Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(PUSH_PAUSE).await,
        }
    }
}

/// Whether the job was stored, and not known already.
fn read_ack(answer: &[u8], queue: &str) -> Result<bool, BusError> {
    let answer: Value = serde_json::from_slice(answer).map_err(other)?;
    if let Some(error) = answer.get("error") {
        let code = error.get("err_code").and_then(Value::as_u64);
        return Err(match code {
            Some(ERR_STORE_FAILED) => BusError::QueueFull { queue: queue.to_owned() },
            _ => other(error),
        });
    }
    Ok(!answer.get("duplicate").and_then(Value::as_bool).unwrap_or(false))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_read() {
        assert_eq!(read_ack(br#"{"stream":"S","seq":1}"#, "q"), Ok(true));
        assert_eq!(read_ack(br#"{"stream":"S","seq":1,"duplicate":true}"#, "q"), Ok(false));
        let full = br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#;
        assert_eq!(read_ack(full, "q"), Err(BusError::QueueFull { queue: "q".into() }));
        assert!(matches!(read_ack(br#"{"error":{"code":500}}"#, "q"), Err(BusError::Other(_))));
        assert!(read_ack(b"", "q").is_err());
    }
}
