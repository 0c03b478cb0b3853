//! The origins of pages whose scripts may read answers (CORS): any, or those of a list.

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::AllowOrigin;

const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// Narrows an answer that any origin may read to the configured origins: it names the one that asked, and caches keep an
/// answer for each.
pub(super) fn narrow(allowed: &AllowOrigin, request: &HttpRequest, out: &mut HeaderMap) {
    if allowed.is_any() || !out.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    let asked = request.headers().get(header::ORIGIN);
    if let Some(origin) = asked.filter(|origin| origin.to_str().is_ok_and(|origin| allowed.allows(origin))) {
        out.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        out.insert(TIMING_ALLOW_ORIGIN, origin.clone());
    } else {
        out.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        out.remove(TIMING_ALLOW_ORIGIN);
    }
    out.append(header::VARY, HeaderValue::from_static("origin"));
}
