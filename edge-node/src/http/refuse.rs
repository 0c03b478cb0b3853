//! Answers that give nothing: small, without allocation, and short-lived in caches.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};

use super::headers;

fn refuse(status: StatusCode, text: &'static str, cache: HeaderValue) -> HttpResponse {
    let mut answer = HttpResponse::build(status).body(text);
    let out = answer.headers_mut();
    headers::cors(out);
    out.insert(header::CACHE_CONTROL, cache);
    out.insert(header::CONTENT_TYPE, headers::TEXT);
    answer
}

/// 404: not here now.
pub(super) fn missing() -> HttpResponse {
    refuse(StatusCode::NOT_FOUND, "not found\n", headers::MISSING)
}

/// 400: a reload that asks for what a client must not ask for.
pub(super) fn malformed() -> HttpResponse {
    refuse(StatusCode::BAD_REQUEST, "bad delivery directive\n", headers::NO_STORE)
}

/// 405.
pub(super) fn method() -> HttpResponse {
    let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n", headers::NO_STORE);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    answer
}

/// 503: come again in a second.
pub(super) fn busy() -> HttpResponse {
    let mut answer = refuse(StatusCode::SERVICE_UNAVAILABLE, "try again\n", headers::NO_STORE);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}
