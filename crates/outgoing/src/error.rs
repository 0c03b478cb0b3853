//! The ways in which a request gets no answer.

use std::error::Error;

use crate::destinations::Forbidden;

/// The reason why a request got no usable answer. Every HTTP status is an answer, also 3xx and 5xx. No text names more of
/// the URL than its origin.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The destination is not among the allowed ones.
    #[error("{origin} is no address that requests may go to")]
    Forbidden {
        /// Scheme, host and port of the request.
        origin: String,
    },
    /// No connection came about: the name is unknown, the port is closed, TLS failed, or the time to connect ran out.
    #[error("{origin} cannot be reached: {detail}")]
    Unreachable {
        /// Scheme, host and port of the request.
        origin: String,
        /// The innermost cause in words.
        detail: String,
    },
    /// The answer was not complete within the time limit.
    #[error("{origin} did not answer in time")]
    Slow {
        /// Scheme, host and port of the request.
        origin: String,
    },
    /// The answer is longer than the limit.
    #[error("the answer of {origin} is longer than {limit} bytes")]
    TooLong {
        /// Scheme, host and port of the request.
        origin: String,
        /// The largest accepted number of bytes.
        limit: usize,
    },
    /// The connection broke, or its bytes are no HTTP.
    #[error("{origin} gave no HTTP answer: {detail}")]
    Broken {
        /// Scheme, host and port of the request.
        origin: String,
        /// The innermost cause in words.
        detail: String,
    },
}

impl RequestError {
    /// Returns the stable code in metrics and records.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "forbidden_address",
            Self::Unreachable { .. } => "unreachable",
            Self::Slow { .. } => "slow",
            Self::TooLong { .. } => "answer_too_long",
            Self::Broken { .. } => "broken_answer",
        }
    }

    /// Sorts an error of the HTTP client. Its own text is left out: it may repeat the whole URL.
    pub(crate) fn of(error: &reqwest::Error, origin: String) -> Self {
        let causes = || std::iter::successors(error.source(), |cause| (*cause).source());
        if causes().any(<dyn std::error::Error + 'static>::is::<Forbidden>) {
            return Self::Forbidden { origin };
        }
        let detail = causes().last().map_or_else(|| "unknown cause".to_owned(), ToString::to_string);
        if error.is_connect() {
            Self::Unreachable { origin, detail }
        } else if error.is_timeout() {
            Self::Slow { origin }
        } else {
            Self::Broken { origin, detail }
        }
    }
}
