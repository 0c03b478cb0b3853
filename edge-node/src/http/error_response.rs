//! Answers without content: small, and short-lived in caches.

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{ConnectionType, StatusCode};

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

/// Answers 404: the resource does not exist at this moment. No cache keeps the answer: the part that a client asks for too
/// early exists in the next moment, for everyone.
pub(super) fn not_found() -> HttpResponse {
    error(StatusCode::NOT_FOUND, "not found\n", headers::NO_STORE)
}

/// Answers 404 for the picture of a stream that has none yet.
pub(super) fn no_picture() -> HttpResponse {
    error(StatusCode::NOT_FOUND, "the stream has no picture yet\n", headers::UNKNOWN_STREAM)
}

/// Answers 404 for a playback id that no livestream has.
fn unknown_stream() -> HttpResponse {
    error(StatusCode::NOT_FOUND, "not found\n", headers::UNKNOWN_STREAM)
}

/// Answers 408 and closes the connection: the request's body did not come.
pub(super) fn request_timeout() -> HttpResponse {
    let mut response = error(StatusCode::REQUEST_TIMEOUT, "the body did not come\n", headers::NO_STORE);
    response.head_mut().set_connection_type(ConnectionType::Close);
    response
}

/// Answers 413: the body is longer than a heartbeat can be.
pub(super) fn too_large() -> HttpResponse {
    error(StatusCode::PAYLOAD_TOO_LARGE, "body too large\n", headers::NO_STORE)
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
        NotServed::Unknown => unknown_stream(),
        NotServed::Busy => unavailable(),
        NotServed::Forbidden => forbidden(),
    }
}
