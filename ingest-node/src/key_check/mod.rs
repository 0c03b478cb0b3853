//! The check of stream keys at a service outside the cluster, which the operator names (ADR 12).
//!
//! `answer` reads the service's answers, `gate` decides what follows from them and remembers accepted keys; both are sans-IO.
//! The [`KeyCheck`] here sends the requests. The plain key is in the request alone: the gate knows its hash.

mod answer;
mod breaker;
mod gate;
mod options;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use millrace_outgoing::{Client, Destinations, Limits, Request, RequestError};
use millrace_runtime::{Clock, LogLimit};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{KeyHash, UnixMillis};
use millrace_wire::message::control::AcceptedKey;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::answer::{Answer, Failure};
use self::gate::{Gate, Step};
pub(crate) use self::options::{GateOptions, Options};
pub use self::options::{KeyCheckShape, WhenDown};
use crate::limits;
use crate::metrics::IngestMetrics;

/// The outcome of a check that the service was down for, and that accepted a key of lately.
const WHILE_DOWN: &str = "accepted_while_down";

/// Asks the service, through the gate.
pub(crate) struct KeyCheck {
    options: Options,
    client: Client,
    gate: Mutex<Gate>,
    /// Bounds the requests that are open at once.
    places: Semaphore,
    failures: LogLimit,
}

impl KeyCheck {
    /// Creates the check with an empty cache.
    pub(crate) fn new(options: Options) -> Result<Self, RequestError> {
        let bounds = Limits {
            connect: options.time_limit,
            total: options.time_limit,
            answer_bytes: limits::MAX_KEY_CHECK_ANSWER,
        };
        Ok(Self {
            // The operator named the service; it usually has a private address.
            client: Client::new(bounds, Destinations::Any)?,
            gate: Mutex::new(Gate::new(options.gate)),
            places: Semaphore::new(limits::MAX_KEY_CHECKS),
            failures: LogLimit::default(),
            options,
        })
    }

    /// Returns scheme, host and port of the service.
    pub(crate) fn service(&self) -> String {
        self.options.service.origin()
    }

    /// Decides on a key that is none of the cluster's own: accepted with what the service said about it, or refused for the
    /// reason.
    pub(crate) async fn decide(
        &self,
        key: &str,
        hash: KeyHash,
        clock: &dyn Clock,
        metrics: &IngestMetrics,
    ) -> Result<AcceptedKey, CloseReason> {
        let now = || Duration::from_millis(clock.now_ms());
        let step = self.gate().begin(hash, now(), UnixMillis(clock.unix_ms()));
        let (outcome, decided) = match step {
            Step::Accept(accepted) => ("cached", Ok(accepted)),
            Step::AcceptWhileDown(accepted) => (WHILE_DOWN, Ok(accepted)),
            Step::Refuse(failure) => ("not_asked", Err(failure.reason())),
            Step::Ask => {
                let asked = Instant::now();
                let answer = self.ask(key, UnixMillis(clock.unix_ms())).await;
                metrics.key_check.observe(asked.elapsed().as_secs_f64());
                let outcome = answer.code();
                self.log_failure(&answer);
                let decided = self.gate().answered(hash, &answer, now(), UnixMillis(clock.unix_ms()));
                match decided {
                    Ok(accepted) if outcome != Answer::ACCEPTED => {
                        metrics.key_checks.with(&[outcome]).inc();
                        (WHILE_DOWN, Ok(accepted))
                    }
                    decided => (outcome, decided),
                }
            }
        };
        metrics.key_checks.with(&[outcome]).inc();
        metrics.key_check_open.set(i64::from(self.gate().is_open()));
        if outcome == WHILE_DOWN {
            tracing::warn!(service = %self.service(),
                "the key check service is down; a key that it accepted lately is accepted without it");
        }
        decided
    }

    /// Asks the service once, within the time limit.
    async fn ask(&self, key: &str, wall_clock: UnixMillis) -> Answer {
        let asked = async {
            let Ok(_place) = self.places.acquire().await else { return Answer::Failed(Failure::Slow) };
            match self.client.send(self.request(key)).await {
                Ok(response) => {
                    let kind = response.header("content-type").unwrap_or_default();
                    answer::read(response.status, kind, &response.body, wall_clock)
                }
                Err(error) => Answer::Failed(Failure::of(&error)),
            }
        };
        // The wait for a place counts as well: the encoder waits for both.
        let limited = tokio::time::timeout(self.options.time_limit, asked).await;
        limited.unwrap_or(Answer::Failed(Failure::Slow))
    }

    fn request(&self, key: &str) -> Request {
        let Options { service, shape, secret, .. } = &self.options;
        let request = match shape {
            KeyCheckShape::Validate => {
                let body = serde_json::json!({ "stream_key": key }).to_string();
                Request::post_json(service.with_path(["api", "v1", "streaming", "validate"]), body)
            }
            KeyCheckShape::Lookup => Request::get(service.with_path(["api", "streams", key])),
        };
        request.header("accept", "application/json").bearer(secret)
    }

    fn log_failure(&self, answer: &Answer) {
        if let Answer::Failed(failure) = answer
            && let Some(suppressed) = self.failures.due()
        {
            tracing::warn!(service = %self.service(), fault = %failure, suppressed,
                "the key check service did not decide on a key; publishers with keys it knows are refused meanwhile");
        }
    }

    fn gate(&self) -> std::sync::MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
