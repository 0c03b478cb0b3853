//! Taking messages: our own pull loop with short heartbeats, for the library's notices a lost request only after
//! half a minute.

use std::time::Duration;

use async_nats::Subscriber;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::link::Link;
use crate::BusError;
use crate::queue::JobControl;

/// The server's sign of life while a pull request waits.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// One pull request at the server; renewed until the caller's time is over.
const MAX_EXPIRES: Duration = Duration::from_secs(5);
/// Shorter waits ask without waiting at the server.
const MIN_EXPIRES: Duration = Duration::from_millis(50);
/// For the server's answer after a request has expired there.
const GRACE: Duration = Duration::from_millis(250);
/// Before asking again a server whose JetStream has no leader.
const PAUSE: Duration = Duration::from_millis(100);
/// For the confirmation of an acknowledgement.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// The stream and consumer that messages are pulled from.
pub(super) struct Source<'a> {
    pub(super) stream: &'a str,
    pub(super) consumer: &'a str,
    /// Given up when delivered more often; 0: never.
    pub(super) max_deliver: u32,
}

/// One message as it was pulled.
pub(super) struct Pulled {
    pub(super) subject: String,
    pub(super) payload: Bytes,
    pub(super) attempt: u64,
    pub(super) control: Box<dyn JobControl>,
}

enum Answer {
    Message(async_nats::Message),
    /// Nothing this time: expired, no messages.
    Empty,
    /// The server or its JetStream is away.
    Away,
}

/// The next message, or none when `wait` is over. A future dropped in between may leave a message to come back after
/// the consumer's `ack_wait`.
pub(super) async fn pull(
    link: &Link,
    source: &Source<'_>,
    wait: Duration,
) -> Result<Option<Pulled>, BusError> {
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = if link.is_connected() { ask(link, source, left).await? } else { Answer::Away };
        match answer {
            Answer::Message(message) => {
                if let Some(pulled) = accept(link, source, message) {
                    return Ok(Some(pulled));
                }
                continue;
            }
            Answer::Empty => {}
            Answer::Away => tokio::time::sleep(PAUSE.min(left)).await,
        }
        if Instant::now() >= deadline {
            return if link.is_connected() { Ok(None) } else { Err(BusError::Disconnected) };
        }
    }
}

/// One pull request to the server.
async fn ask(link: &Link, source: &Source<'_>, left: Duration) -> Result<Answer, BusError> {
    let inbox = link.new_inbox();
    let mut replies = link.listen(&inbox, None).await?;
    let expires = left.min(MAX_EXPIRES);
    let beats = expires >= 2 * HEARTBEAT;
    let request = if expires < MIN_EXPIRES {
        json!({"batch": 1, "no_wait": true})
    } else if beats {
        json!({"batch": 1, "expires": nanos(expires), "idle_heartbeat": nanos(HEARTBEAT)})
    } else {
        json!({"batch": 1, "expires": nanos(expires)})
    };
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", source.stream, source.consumer);
    match link.publish(&subject, Some(&inbox), Bytes::from(request.to_string())) {
        Err(BusError::Disconnected | BusError::Overflow) => return Ok(Answer::Away),
        other => other?,
    }
    let silence = if beats { 2 * HEARTBEAT + GRACE } else { expires.max(HEARTBEAT) + GRACE };
    Ok(read(&mut replies, silence).await)
}

async fn read(replies: &mut Subscriber, silence: Duration) -> Answer {
    loop {
        let Ok(Some(message)) = timeout(silence, replies.next()).await else { return Answer::Away };
        match message.status.map(|status| status.as_u16()) {
            None => return Answer::Message(message),
            Some(100) => {}
            // No messages; request expired.
            Some(404 | 408) => return Answer::Empty,
            // No responders; leadership change, consumer deleted, too many waiting.
            Some(_) => return Answer::Away,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// A delivered message; `None`: delivered once too often, given up.
fn accept(link: &Link, source: &Source<'_>, message: async_nats::Message) -> Option<Pulled> {
    let ack = message.reply?;
    let attempt = attempt(ack.as_str()).unwrap_or(1);
    let subject = message.subject.to_string();
    if source.max_deliver != 0 && attempt > u64::from(source.max_deliver) {
        tracing::warn!(queue = source.stream, %subject, "job given up after its last delivery");
        if let Err(error) = link.publish(&ack, None, Bytes::from_static(b"+TERM")) {
            tracing::debug!(%error, "job will be given up at its next delivery");
        }
        return None;
    }
    let control = Box::new(NatsControl { client: link.client().clone(), ack: ack.to_string() });
    Some(Pulled { subject, payload: message.payload, attempt, control })
}

/// The delivery's number, in the subject that acknowledgements go to:
/// `$JS.ACK.[domain.account.]stream.consumer.delivered.…`.
fn attempt(ack: &str) -> Option<u64> {
    let tokens: Vec<&str> = ack.split('.').collect();
    let at = if tokens.len() < 11 { 4 } else { 6 };
    tokens.get(at)?.parse().ok()
}

struct NatsControl {
    client: async_nats::Client,
    ack: String,
}

impl NatsControl {
    /// Sends the acknowledgement and waits for the server's confirmation.
    async fn tell(&self, what: String) -> Result<(), BusError> {
        let request = async_nats::Request::new()
            .payload(what.into())
            .inbox(self.client.new_inbox())
            .timeout(Some(ACK_TIMEOUT));
        match self.client.send_request(self.ack.clone(), request).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == async_nats::RequestErrorKind::TimedOut => {
                Err(BusError::Timeout { what: "acknowledgement".into() })
            }
            Err(error) => Err(BusError::Other(error.to_string())),
        }
    }
}

#[async_trait]
impl JobControl for NatsControl {
    async fn ack(&self) -> Result<(), BusError> {
        self.tell("+ACK".into()).await
    }

    async fn nak(&self, delay: Duration) -> Result<(), BusError> {
        let words = match nanos(delay) {
            0 => "-NAK".into(),
            delay => format!("-NAK {}", json!({"delay": delay})),
        };
        self.tell(words).await
    }

    async fn in_progress(&self) -> Result<(), BusError> {
        self.tell("+WPI".into()).await
    }

    async fn term(&self) -> Result<(), BusError> {
        self.tell("+TERM".into()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_acknowledgement_subject_are_read() {
        assert_eq!(attempt("$JS.ACK.JOBS.workers.3.10.12.1700000000.0"), Some(3));
        assert_eq!(attempt("$JS.ACK._.ACCHASH.JOBS.workers.4.10.12.1700000000.0.tok"), Some(4));
        assert_eq!(attempt("$JS.ACK"), None);
    }
}
