//! Header values of the answers, made once.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

/// Media never change under their name, so caches may keep them for ever.
pub(super) const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// The newest playlist: a CDN may answer requests of the same second with it.
pub(super) const NEWEST: HeaderValue = HeaderValue::from_static("public, max-age=1");
/// The answer to a blocking reload: its URL names the segment or part it contains, so it may be cached for as long as that
/// segment stays in any window of the length that the API sets (60 s), the time in a shared cache included.
pub(super) const BLOCKED: HeaderValue = HeaderValue::from_static("public, max-age=24");
/// The newest picture of a stream: another follows about every ten seconds.
pub(super) const PICTURE: HeaderValue = HeaderValue::from_static("public, max-age=10");
/// A playback id that does not exist now may exist in a second; until then a CDN may answer for it.
pub(super) const UNKNOWN_STREAM: HeaderValue = HeaderValue::from_static("public, max-age=1");
/// An answer that no cache may keep.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

pub(super) const MPEGURL: HeaderValue = HeaderValue::from_static("application/vnd.apple.mpegurl");
pub(super) const SEGMENT: HeaderValue = HeaderValue::from_static("video/iso.segment");
pub(super) const MP4: HeaderValue = HeaderValue::from_static("video/mp4");
pub(super) const VTT: HeaderValue = HeaderValue::from_static("text/vtt; charset=utf-8");
pub(super) const JPEG: HeaderValue = HeaderValue::from_static("image/jpeg");
pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The response headers that scripts of other origins may read.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("accept-ranges, age, content-length, content-range, date, etag, retry-after");

/// The request headers that scripts of other origins may send: those of players beyond the ones that need no permission.
/// hls.js, Shaka and dash.js send CMCD (CTA-5004) in the four headers of its name, AVPlayer its session id; frameworks and
/// debugging tools add the others. `*` allows whatever an application adds, in requests without credentials.
const ALLOWED: HeaderValue = HeaderValue::from_static(
    "accept, cache-control, cmcd-object, cmcd-request, cmcd-session, cmcd-status, content-type, if-modified-since, \
     if-none-match, if-range, origin, pragma, range, x-playback-session-id, x-requested-with, *",
);
/// Seconds for which a browser need not ask again; browsers use at most one or two hours of it.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("86400");

/// Allows scripts of any origin to read the answer. No identity is in cookies, so no origin gains anything by it.
pub(super) fn cors(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
    // Players measure the bandwidth by the browser's resource timing.
    headers.insert(HeaderName::from_static("timing-allow-origin"), HeaderValue::from_static("*"));
}

/// Adds the headers that answer a CORS preflight.
pub(super) fn preflight(headers: &mut HeaderMap) {
    cors(headers);
    let methods = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
}

/// Makes a header value of bytes that are known to be printable.
pub(super) fn value(bytes: &Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes.clone()).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Returns true if `If-None-Match` names this entity (RFC 9110 §13.1.2, weak comparison).
pub(super) fn matches(header: Option<&HeaderValue>, etag: &[u8]) -> bool {
    let Some(list) = header.and_then(|h| h.to_str().ok()) else { return false };
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/").as_bytes() == etag)
}
