//! Sends one delivery: resolves its endpoint, signs the body, and reads the answer.

use std::time::{Duration, Instant};

use millrace_node::Sealer;
use millrace_outgoing::{Client, Destinations, Limits, Request, Target};
use millrace_runtime::Secret;
use millrace_wire::ids::UnixMillis;

use crate::domain::delivery::Outcome;
use crate::domain::event::PublicEvent;
use crate::domain::webhook::{Webhook, signature_header};

/// The bounds of one attempt: a receiver that needs longer than ten seconds should take the event and work later. Its answer is
/// not used, and pages of errors fit.
const LIMITS: Limits =
    Limits { connect: Duration::from_secs(5), total: Duration::from_secs(10), answer_bytes: 64 * 1024 };

/// The pause in an answer's `Retry-After` is heeded up to a day, as seconds.
const MAX_RETRY_AFTER_S: u64 = 86_400;

/// An endpoint that deliveries go to, ready to be used.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) target: Target,
    /// The addresses that its URL may lead to.
    pub(crate) destinations: Destinations,
    /// The secrets that sign, the newest first.
    pub(crate) secrets: Vec<Secret<String>>,
}

/// The result of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempted {
    /// The status of the answer; `None` without one.
    pub(crate) status: Option<u16>,
    /// The failure in words; empty after a success.
    pub(crate) error: String,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

impl Attempted {
    /// Returns an attempt that failed before it was sent.
    pub(crate) fn unsent(error: impl Into<String>) -> Self {
        let outcome = Outcome::Failed { retry_after_ms: None };
        Self { status: None, error: error.into(), outcome, took: Duration::ZERO }
    }
}

/// Sends deliveries; see the module.
pub(crate) struct Sender {
    public: Client,
    any: Client,
    sealer: Sealer,
}

impl Sender {
    pub(crate) fn new(sealer: Sealer) -> anyhow::Result<Self> {
        let public = Client::new(LIMITS, Destinations::Public)?;
        Ok(Self { public, any: Client::new(LIMITS, Destinations::Any)?, sealer })
    }

    /// Returns what seals the secrets of webhooks.
    pub(crate) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Returns the endpoint of a stored webhook, or the reason in words why nothing can be sent to it.
    pub(crate) fn endpoint(&self, webhook: &Webhook, now: UnixMillis) -> Result<Endpoint, String> {
        let target = webhook.url.parse().map_err(|error| format!("the URL of the webhook: {error}"))?;
        let open = |sealed| self.sealer.open(webhook.id.as_str(), sealed);
        let secrets: Option<Vec<_>> = webhook.signing_secrets(now).map(open).collect();
        // The cluster's secret was replaced: a rotation seals a new one.
        let secrets = secrets.filter(|secrets| !secrets.is_empty());
        let secrets = secrets.ok_or("the secret of the webhook cannot be read: rotate it")?;
        let is_owned = webhook.owner.is_some();
        let destinations = if is_owned { Destinations::Public } else { Destinations::Any };
        Ok(Endpoint { target, destinations, secrets })
    }

    /// Posts an event, signed.
    pub(crate) async fn post(
        &self,
        endpoint: &Endpoint,
        event: &PublicEvent,
        attempt: u32,
        now: UnixMillis,
    ) -> Attempted {
        let body = event.to_json();
        let secrets = endpoint.secrets.iter().map(|secret| secret.expose().as_str());
        let signature = signature_header(secrets, now.as_secs(), body.as_bytes());
        let request = Request::post_json(endpoint.target.clone(), body)
            .header("millrace-signature", &signature)
            .header("millrace-event", event.type_name())
            .header("millrace-event-id", event.id())
            .header("millrace-attempt", &attempt.to_string());
        self.send(endpoint.destinations, request).await
    }

    async fn send(&self, destinations: Destinations, request: Request) -> Attempted {
        let client = if destinations == Destinations::Any { &self.any } else { &self.public };
        let start = Instant::now();
        let sent = client.send(request).await;
        let took = start.elapsed();
        match sent {
            Ok(answer) if answer.is_success() => {
                let (status, error) = (Some(answer.status), String::new());
                Attempted { status, error, outcome: Outcome::Taken, took }
            }
            Ok(answer) => {
                let seconds = answer.header("retry-after").and_then(|value| value.trim().parse::<u64>().ok());
                let retry_after_ms = seconds.map(|seconds| seconds.min(MAX_RETRY_AFTER_S) * 1_000);
                let error = format!("the endpoint answered with status {}", answer.status);
                let outcome = Outcome::Failed { retry_after_ms };
                Attempted { status: Some(answer.status), error, outcome, took }
            }
            Err(error) => Attempted { took, ..Attempted::unsent(error.to_string()) },
        }
    }
}
