//! Header values that every answer carries, made once.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

/// Media never change under their name.
pub(super) const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// A playlist as it is now: a CDN may give it to those who ask within the same second.
pub(super) const NOW: HeaderValue = HeaderValue::from_static("public, max-age=1");
/// The answer to a blocking reload: its URL names the state asked for, so it may live as long as the segment it
/// names stays in any window (six target durations of the default 4 s).
pub(super) const BLOCKED: HeaderValue = HeaderValue::from_static("public, max-age=24");
/// Missing now, perhaps not in a second.
pub(super) const MISSING: HeaderValue = HeaderValue::from_static("public, max-age=1");
/// Never to be kept.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

pub(super) const MPEGURL: HeaderValue = HeaderValue::from_static("application/vnd.apple.mpegurl");
pub(super) const SEGMENT: HeaderValue = HeaderValue::from_static("video/iso.segment");
pub(super) const MP4: HeaderValue = HeaderValue::from_static("video/mp4");
pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What scripts of other origins may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("content-length, content-range, etag, date, age");

/// Everyone may play: identity never rides on cookies.
pub(super) fn cors(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
}

/// The answer to a preflight.
pub(super) fn preflight(headers: &mut HeaderMap) {
    cors(headers);
    let methods = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let allowed = HeaderValue::from_static("range, if-none-match, content-type");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
}

/// A value made elsewhere of printable characters.
pub(super) fn value(bytes: &Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes.clone()).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Whether `If-None-Match` names this entity (RFC 9110 §13.1.2; weak comparison).
pub(super) fn matches(header: Option<&HeaderValue>, etag: &[u8]) -> bool {
    let Some(list) = header.and_then(|h| h.to_str().ok()) else { return false };
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/").as_bytes() == etag)
}
