//! The watch page, its assets and a word of greeting, all part of the binary.

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::Path;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;

use super::{headers, refuse};

/// Name, content type and bytes of each built file: from `web/dist`, or a page that says how to build it.
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/page.rs"));
}

/// Scripts, styles and connections of this origin only; media come through blobs.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; img-src 'self' data:; base-uri 'none'; \
     form-action 'none'; object-src 'none'",
);

fn find(name: &str) -> Option<&'static (&'static str, &'static str, &'static [u8])> {
    embedded::FILES.iter().find(|(n, _, _)| *n == name)
}

fn send(name: &str, cache: HeaderValue) -> HttpResponse {
    let Some((_, content_type, bytes)) = find(name) else { return refuse::missing() };
    let mut answer = HttpResponse::Ok().body(Bytes::from_static(bytes));
    let out = answer.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    out.insert(header::CACHE_CONTROL, cache);
    out.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

/// The page for any stream: it reads the playback id from its own address, so it is one file for all.
pub(super) async fn watch() -> HttpResponse {
    send("watch.html", headers::NOW)
}

/// Scripts and styles; the page names them with a hash of their content.
pub(super) async fn asset(request: HttpRequest, name: Path<String>) -> HttpResponse {
    if request.method().is_safe() { send(&name, headers::IMMUTABLE) } else { refuse::method() }
}

/// What this host is.
pub(super) async fn landing() -> HttpResponse {
    send("index.html", headers::NOW)
}
