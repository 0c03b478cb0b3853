//! Acknowledged, deduplicated publishes, which work queues and journals have in common.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{Context, ContextBuilder};
use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use super::link::Link;
use crate::BusError;

/// For one call of JetStream's own API; an election takes up to 5 s.
pub(super) const API_TIMEOUT: Duration = Duration::from_secs(6);
/// For one attempt to store a message. The id makes a second attempt harmless.
const PUSH_ATTEMPT: Duration = Duration::from_secs(1);
/// For all attempts together: longer than JetStream's election.
const PUSH_TIMEOUT: Duration = Duration::from_secs(8);
const PUSH_PAUSE: Duration = Duration::from_millis(100);
/// JetStream's error code for a stream that may hold no more (`JSStreamStoreFailedF`).
const ERR_STORE_FAILED: u64 = 10_077;

pub(super) fn other(error: impl std::fmt::Display) -> BusError {
    BusError::Other(error.to_string())
}

pub(super) fn context(link: &Link) -> Context {
    ContextBuilder::new().timeout(API_TIMEOUT).build(link.client().clone())
}

/// Publishes until `stream` acknowledges; `false`: it knew the id.
pub(super) async fn publish(
    link: &Link,
    stream: &str,
    subject: &str,
    id: &str,
    payload: Bytes,
) -> Result<bool, BusError> {
    let deadline = Instant::now() + PUSH_TIMEOUT;
    loop {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        headers.insert("Nats-Expected-Stream", stream);
        let answer = link.request(subject, Some(headers), payload.clone(), PUSH_ATTEMPT).await;
        match answer {
            Ok(answer) => return read_ack(&answer, stream),
            Err(error) if !error.is_retryable() || Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(PUSH_PAUSE).await,
        }
    }
}

/// True if the server stored the message and did not know its id already.
fn read_ack(answer: &[u8], stream: &str) -> Result<bool, BusError> {
    let answer: Value = serde_json::from_slice(answer).map_err(other)?;
    if let Some(error) = answer.get("error") {
        let code = error.get("err_code").and_then(Value::as_u64);
        return Err(match code {
            Some(ERR_STORE_FAILED) => BusError::QueueFull { queue: stream.to_owned() },
            _ => other(error),
        });
    }
    Ok(!answer.get("duplicate").and_then(Value::as_bool).unwrap_or(false))
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
