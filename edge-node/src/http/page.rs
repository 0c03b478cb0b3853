//! The watch page, its assets and the landing page, all embedded in the binary.

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Path;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;

use super::{error_response, headers};

/// Name, content type and bytes of each built file: from `web/dist`, or a page that explains how to build it.
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/page.rs"));
}

/// The content security policy: scripts, styles and connections of this origin only; media come through blobs.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; img-src 'self' data:; base-uri 'none'; \
     form-action 'none'; object-src 'none'",
);

fn find(name: &str) -> Option<&'static (&'static str, &'static str, &'static [u8])> {
    embedded::FILES.iter().find(|(file, ..)| *file == name)
}

fn send(name: &str, cache: HeaderValue) -> HttpResponse {
    let Some((_, content_type, bytes)) = find(name) else { return error_response::not_found() };
    let mut response = HttpResponse::Ok().body(Bytes::from_static(bytes));
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    out.insert(header::CACHE_CONTROL, cache);
    out.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Serves the watch page. The page reads the playback id from its own address, so it is one file for all streams.
pub(super) async fn watch() -> HttpResponse {
    send("watch.html", headers::NEWEST)
}

/// Serves scripts and styles, which the page names by a hash of their content.
pub(super) async fn asset(request: HttpRequest, name: Path<String>) -> HttpResponse {
    if request.method().is_safe() {
        send(&name, headers::IMMUTABLE)
    } else {
        error_response::method_not_allowed()
    }
}

/// Serves the page that explains what this host is.
pub(super) async fn landing() -> HttpResponse {
    send("index.html", headers::NEWEST)
}
