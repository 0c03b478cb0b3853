//! The settings of the check.

use std::time::Duration;

use millrace_outgoing::Target;
use millrace_runtime::Secret;
use serde::Deserialize;

/// The form in which the service is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyCheckShape {
    /// `POST …/api/v1/streaming/validate` with `{"stream_key": "…"}`.
    #[default]
    Validate,
    /// `GET …/api/streams/{stream_key}`.
    Lookup,
}

/// The policy while the service cannot be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenDown {
    /// Publishers are refused, and are told to try again.
    #[default]
    Refuse,
    /// A key that the service accepted lately is accepted again; others are refused.
    AcceptRecent,
}

/// The settings of the requests, and of what follows from their answers.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The base URL of the service.
    pub(crate) service: Target,
    /// The form in which it is asked.
    pub(crate) shape: KeyCheckShape,
    /// The bearer token that is sent to it; none if empty.
    pub(crate) secret: Secret<String>,
    /// The time it has to answer.
    pub(crate) time_limit: Duration,
    /// The settings of the decision.
    pub(crate) gate: GateOptions,
}

/// The settings of the decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GateOptions {
    /// Time for which an accepted key is accepted again without a request.
    pub(crate) fresh: Duration,
    /// Time for which an accepted key counts as accepted lately.
    pub(crate) recent: Duration,
    /// The policy while the service is down.
    pub(crate) when_down: WhenDown,
}
