//! Answers without content: small, and short-lived in caches.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};

use super::headers;
use crate::catalog::NotServed;

fn error(status: StatusCode, text: &'static str, cache: HeaderValue) -> HttpResponse {
    let mut response = HttpResponse::build(status).body(text);
    let headers = response.headers_mut();
    headers::cors(headers);
    headers.insert(header::CACHE_CONTROL, cache);
    headers.insert(header::CONTENT_TYPE, headers::TEXT);
    response
}

/// Answers 404: the resource does not exist at this moment.
pub(super) fn not_found() -> HttpResponse {
    error(StatusCode::NOT_FOUND, "not found\n", headers::NOT_FOUND)
}

/// Answers 400: a malformed request, or a delivery directive that a client must not send (RFC 8216bis §6.2.5).
pub(super) fn bad_request() -> HttpResponse {
    error(StatusCode::BAD_REQUEST, "bad delivery directive\n", headers::NO_STORE)
}

/// Answers 403: this release does not know the stream's access policy.
pub(super) fn forbidden() -> HttpResponse {
    error(StatusCode::FORBIDDEN, "access policy not supported\n", headers::NO_STORE)
}

/// Answers 405 with the methods that are allowed.
pub(super) fn method_not_allowed() -> HttpResponse {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n", headers::NO_STORE);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}

/// Answers 503 with `Retry-After`: the client comes again in a second.
pub(super) fn unavailable() -> HttpResponse {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "try again\n", headers::NO_STORE);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Answers for a stream that is not served.
pub(super) fn not_served(reason: NotServed) -> HttpResponse {
    match reason {
        NotServed::Unknown => not_found(),
        NotServed::Busy => unavailable(),
        NotServed::Forbidden => forbidden(),
    }
}
