//! The watch page, its assets and the landing page, all embedded in the binary.

use std::time::Duration;

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use millrace_wire::ids::PlaybackId;

use super::app::App;
use super::playlist::accepts_gzip;
use super::{error_response, headers, picture};

/// The longest wait for the title of a stream that is not in the catalogue yet. Without it the page is served with a general
/// title: a viewer is to see the picture even while the state store does not answer.
const TITLE_LIMIT: Duration = Duration::from_millis(300);
/// The title of a page whose stream is unknown or whose title is.
const UNTITLED: &str = "Live stream";
/// The place in the built page where the stream's title stands.
const TITLE_PLACE: &str = "{{title}}";

/// The longest wait for the answer whether the stream has a picture. The page must not wait for a slow store.
const POSTER_LIMIT: Duration = Duration::from_millis(100);
/// The place in the built page where the stream's picture stands, if it has one.
const POSTER_PLACE: &str = "{{poster}}";

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

fn secure(out: &mut HeaderMap, content_type: &'static str, cache: HeaderValue) {
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    out.insert(header::CACHE_CONTROL, cache);
    out.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    out.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// Sends a file, in its compressed form if there is one and the client takes it.
fn send(name: &str, cache: HeaderValue, request: &HttpRequest) -> HttpResponse {
    let Some((_, content_type, plain)) = find(name) else { return error_response::not_found() };
    let zipped = find(&format!("{name}.gz")).map(|(.., zipped)| zipped);
    let takes = request.headers().get(header::ACCEPT_ENCODING).is_some_and(accepts_gzip);
    let mut response = HttpResponse::Ok();
    if zipped.is_some() {
        response.insert_header((header::VARY, HeaderValue::from_static("accept-encoding")));
    }
    let mut response = match zipped.filter(|_| takes) {
        Some(zipped) => {
            response.insert_header((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
            response.body(Bytes::from_static(zipped))
        }
        None => response.body(Bytes::from_static(plain)),
    };
    secure(response.headers_mut(), content_type, cache);
    response
}

/// Serves the watch page with the stream's title. Its header tells the browser to ask for the multivariant playlist at once,
/// while it still loads the player.
pub(super) async fn watch(app: Data<App>, playback: Path<String>) -> HttpResponse {
    let Some((_, content_type, page)) = find("watch.html") else { return error_response::not_found() };
    let playback: Option<PlaybackId> = playback.parse().ok();
    let (title, poster) = match playback {
        Some(playback) => tokio::join!(title(&app, playback), poster(&app, playback)),
        None => (None, String::new()),
    };
    let shown = escape(title.as_deref().unwrap_or(UNTITLED));
    let page = String::from_utf8_lossy(page).replace(TITLE_PLACE, &shown).replace(POSTER_PLACE, &poster);
    let mut response = HttpResponse::Ok().body(page);
    let out = response.headers_mut();
    secure(out, content_type, headers::NEWEST);
    if let Some(playback) = playback {
        let preload = format!("</live/{playback}/index.m3u8>; rel=preload; as=fetch; crossorigin");
        out.insert(header::LINK, headers::value(&preload.into()));
    }
    response
}

async fn title(app: &App, playback: PlaybackId) -> Option<String> {
    let found = tokio::time::timeout(TITLE_LIMIT, app.catalog.find(playback)).await;
    found.ok()?.ok()?.title.clone()
}

/// Returns the element that shows the stream's newest picture until it plays; nothing if there is none, because a browser would
/// report it as missing.
async fn poster(app: &App, playback: PlaybackId) -> String {
    let found = tokio::time::timeout(POSTER_LIMIT, picture::has_thumbnail(app, playback)).await;
    if found.unwrap_or(false) {
        format!(
            "<img class=\"poster\" src=\"/live/{playback}/thumbnail.jpg\" alt=\"\" fetchpriority=\"low\">"
        )
    } else {
        String::new()
    }
}

/// Escapes a text for HTML, inside and outside of attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Serves scripts and styles, which the page names by a hash of their content.
pub(super) async fn asset(request: HttpRequest, name: Path<String>) -> HttpResponse {
    if request.method().is_safe() {
        send(&name, headers::IMMUTABLE, &request)
    } else {
        error_response::method_not_allowed()
    }
}

/// Serves the page that explains what this host is.
pub(super) async fn landing(request: HttpRequest) -> HttpResponse {
    send("index.html", headers::NEWEST, &request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_is_escaped_inside_and_outside_of_attributes() {
        assert_eq!(escape("Ben & <b>\"Jo's\"</b>"), "Ben &amp; &lt;b&gt;&quot;Jo&#39;s&quot;&lt;/b&gt;");
    }

    #[test]
    fn watch_page_has_a_place_for_its_title_and_a_compressed_script() {
        // A build without the page serves an explanation instead.
        let Some((.., page)) = find("watch.html").filter(|_| embedded::FILES.len() > 2) else { return };
        assert!(String::from_utf8_lossy(page).contains(TITLE_PLACE));
        assert!(String::from_utf8_lossy(page).contains(POSTER_PLACE));
        assert!(embedded::FILES.iter().any(|(name, ..)| name.ends_with(".js.gz")));
    }
}
