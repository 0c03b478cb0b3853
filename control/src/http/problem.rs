//! Errors of the API as problem documents (RFC 9457).

use std::fmt;

use actix_web::error::JsonPayloadError;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use millrace_state::StateError;
use serde::Serialize;

use crate::auth::TooMany;
use crate::domain::access::Denied;
use crate::domain::validate::FieldError;
use crate::livestreams::CommandError;
use crate::repo::RepoError;

/// The media type of a problem document (RFC 9457 §6.1).
const PROBLEM_TYPE: &str = "application/problem+json";

/// A problem document (RFC 9457 §3). Its texts are boxed, which keeps the results of handlers small.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: Box<str>,
    title: &'static str,
    status: u16,
    detail: Box<str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    denied: Option<Denied>,
    #[serde(skip)]
    allow: Option<Box<str>>,
    /// True if a token was presented and is not accepted.
    #[serde(skip)]
    is_bad_token: bool,
    #[serde(skip)]
    retry_after: Option<Box<str>>,
}

impl Problem {
    fn new(status: StatusCode, name: &str, title: &'static str, detail: &str) -> Self {
        Self {
            kind: format!("urn:millrace:problem:{name}").into(),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            denied: None,
            allow: None,
            is_bad_token: false,
            retry_after: None,
        }
    }

    pub(crate) fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub(crate) fn bad_request(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "Bad request", detail)
    }

    pub(crate) fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized", detail)
    }

    /// Returns 401 for a token that is not accepted, and says why in the challenge (RFC 6750 §3.1).
    pub(crate) fn bad_token(detail: &str) -> Self {
        Self { is_bad_token: true, ..Self::unauthorized(detail) }
    }

    /// Returns 429 with the time after which the caller may ask again.
    pub(crate) fn too_many(many: TooMany, detail: &str) -> Self {
        // Rounded up: who comes a moment early is refused again.
        let seconds = many.retry_after.as_millis().div_ceil(1_000).max(1);
        let detail = format!("{detail}; try again in {seconds} s");
        let problem =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", &detail);
        Self { retry_after: Some(seconds.to_string().into()), ..problem }
    }

    pub(crate) fn conflict(detail: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Not possible now", detail)
    }

    pub(crate) fn invalid_token(errors: Vec<FieldError>) -> Self {
        Self { title: "Invalid token", ..Self::invalid(errors) }
    }

    pub(crate) fn forbidden(denied: &Denied) -> Self {
        let problem = Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", &denied.to_string());
        Self { denied: Some(denied.clone()), ..problem }
    }

    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = FieldError::list(&errors);
        Self {
            errors,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid livestream", &detail)
        }
    }

    pub(crate) fn unavailable(detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable", detail)
    }

    pub(crate) fn timeout() -> Self {
        let detail = "the request was not answered in time";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "Timed out", detail)
    }

    pub(crate) fn json(error: &JsonPayloadError) -> Self {
        match error {
            JsonPayloadError::Overflow { limit } | JsonPayloadError::OverflowKnownLength { limit, .. } => {
                let detail = format!("the body is larger than {limit} bytes");
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Body too large", &detail)
            }
            JsonPayloadError::ContentType => {
                let detail = "the body must be application/json";
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "Unsupported media type", detail)
            }
            // The JSON is well-formed and does not match the schema of the request.
            JsonPayloadError::Deserialize(error) if error.is_data() => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid body", &error.to_string())
            }
            error => Self::bad_request(&error.to_string()),
        }
    }
}

/// Returns 405 with the methods that the resource allows.
pub(crate) fn method_not_allowed(allow: &str) -> Result<HttpResponse, Problem> {
    let detail = format!("allowed here: {allow}");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "Method not allowed", &detail);
    Err(Problem { allow: Some(allow.into()), ..problem })
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Invalid(errors) => Self::invalid(errors),
            CommandError::Repo(error) => error.into(),
        }
    }
}

impl From<RepoError> for Problem {
    fn from(error: RepoError) -> Self {
        match error {
            RepoError::NotFound | RepoError::NoSuchKey => Self::not_found(&error.to_string()),
            RepoError::TooManyKeys(_) => {
                Self::new(StatusCode::CONFLICT, "too-many-keys", "Too many keys", &error.to_string())
            }
            RepoError::Changed => {
                Self::new(StatusCode::PRECONDITION_FAILED, "changed", "Changed meanwhile", &error.to_string())
            }
            RepoError::Fields(ref fields) => {
                let problem = Self::new(
                    StatusCode::CONFLICT,
                    "illegal-move",
                    "Not possible in this state",
                    &error.to_string(),
                );
                Self { errors: fields.clone(), ..problem }
            }
            RepoError::InvalidTransition(_) => Self::new(
                StatusCode::CONFLICT,
                "illegal-move",
                "Not possible in this state",
                &error.to_string(),
            ),
            RepoError::State(StateError::NotWritable { .. }) => {
                tracing::debug!(%error, "request failed at the state store; answered with 503");
                Self::unavailable(&format!("{error}; make room for it, then try again"))
            }
            RepoError::State(_) => {
                tracing::warn!(%error, "request failed at the state store; answered with 503");
                Self::unavailable("the state store did not answer; try again")
            }
            RepoError::Corrupt { .. } => {
                tracing::error!(%error, "stored record cannot be read; request answered with 500");
                let detail = "a stored record cannot be read";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if self.status_code() == StatusCode::UNAUTHORIZED {
            let error = format!(", error=\"invalid_token\", error_description=\"{}\"", self.detail);
            let error = if self.is_bad_token { &*error } else { "" };
            let challenge = format!("Bearer realm=\"millrace\"{error}");
            response.insert_header((header::WWW_AUTHENTICATE, challenge));
        }
        if let Some(denied) = &self.denied {
            let challenge = format!(
                "Bearer realm=\"millrace\", error=\"insufficient_scope\", scope=\"{}\"",
                denied.scope
            );
            response.insert_header((header::WWW_AUTHENTICATE, challenge));
        }
        if let Some(seconds) = &self.retry_after {
            response.insert_header((header::RETRY_AFTER, &**seconds));
        }
        if let Some(allow) = &self.allow {
            response.insert_header((header::ALLOW, &**allow));
        }
        response.content_type(PROBLEM_TYPE).body(serde_json::to_string(self).unwrap_or_default())
    }
}
