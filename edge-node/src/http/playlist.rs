//! Playlists: as they are now, or once they hold what a blocking reload asks for.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use millrace_wire::ids::PlaybackId;

use super::{App, headers, refuse};
use crate::registry::NoStream;
use crate::stream::LiveStream;
use crate::text::Text;
use crate::view::{BlockingDecision, MediaView, View};

/// A blocking reload waits at most three target durations (RFC 8216bis §6.2.5.2); of a stream whose target duration is
/// unknown this.
const UNKNOWN_TARGET_S: u64 = 4;

/// `_HLS_msn` and `_HLS_part`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Reload {
    msn: Option<u64>,
    part: Option<u32>,
}

impl Reload {
    /// `None`: a malformed directive, 400.
    fn parse(query: &str) -> Option<Self> {
        let mut reload = Self::default();
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("_HLS_msn", n)) => reload.msn = Some(n.parse().ok()?),
                Some(("_HLS_part", n)) => reload.part = Some(n.parse().ok()?),
                _ => {}
            }
        }
        // A part without its segment means nothing (RFC 8216bis §6.2.5.2).
        (reload.part.is_none() || reload.msn.is_some()).then_some(reload)
    }
}

/// Answers for a playlist: `rendition` names a media playlist, none the multivariant one.
pub(super) async fn serve(
    app: &App,
    request: &HttpRequest,
    playback: PlaybackId,
    rendition: Option<&str>,
) -> HttpResponse {
    let stream = match app.registry.follow(playback).await {
        Ok(stream) => stream,
        Err(NoStream::Unknown) => return refuse::missing(),
        Err(NoStream::Busy) => return refuse::busy(),
    };
    let Some(reload) = Reload::parse(request.query_string()) else { return refuse::malformed() };
    let find = |view: &View| match rendition {
        None => view.multivariant(),
        Some(name) => view.rendition(name).map(MediaView::playlist),
    };
    // A starting stream: hold the first requests rather than refuse them.
    if find(&stream.view()).is_none() {
        let held = app.wait(&stream, app.limits.start_hold, |view| find(view).is_some()).await;
        if held.is_err() {
            return refuse::busy();
        }
    }
    match (rendition, reload.msn) {
        (Some(name), Some(msn)) => blocking(app, request, &stream, name, (msn, reload.part)).await,
        _ => {
            find(&stream.view()).map_or_else(refuse::missing, |text| send(app, request, &text, headers::NOW))
        }
    }
}

async fn blocking(
    app: &App,
    request: &HttpRequest,
    stream: &Arc<LiveStream>,
    rendition: &str,
    (msn, part): (u64, Option<u32>),
) -> HttpResponse {
    let media = |view: &View| view.rendition(rendition).cloned();
    let reach = |media: &MediaView| media.head.reach(msn, part);
    let view = stream.view();
    let Some(now) = media(&view) else { return refuse::missing() };
    match reach(&now) {
        // Behind its author, an edge cannot tell too far from not here yet: 503 lets the client come again.
        BlockingDecision::TooFar if view.current => return refuse::malformed(),
        BlockingDecision::TooFar => return refuse::busy(),
        BlockingDecision::Now => return send(app, request, &now.playlist(), headers::BLOCKED),
        BlockingDecision::Later => {}
    }
    let limit = Duration::from_secs(3 * view.target_duration_s().unwrap_or(UNKNOWN_TARGET_S));
    if app
        .wait(stream, limit, |view| media(view).is_none_or(|media| reach(&media) != BlockingDecision::Later))
        .await
        .is_err()
    {
        return refuse::busy();
    }
    match media(&stream.view()) {
        Some(now) if reach(&now) == BlockingDecision::Now => {
            send(app, request, &now.playlist(), headers::BLOCKED)
        }
        // A new broadcast may have begun below what was asked for.
        Some(_) => refuse::busy(),
        None => refuse::missing(),
    }
}

fn send(app: &App, request: &HttpRequest, text: &Text, cache: HeaderValue) -> HttpResponse {
    let sent = request.headers();
    let mut answer = if headers::matches(sent.get(header::IF_NONE_MATCH), text.etag()) {
        HttpResponse::NotModified().finish()
    } else {
        let gzip = sent.get(header::ACCEPT_ENCODING).is_some_and(takes_gzip);
        let zipped = gzip.then(|| text.gzip()).flatten();
        let mut answer = HttpResponse::Ok();
        if zipped.is_some() {
            answer.insert_header((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        }
        let body = zipped.unwrap_or_else(|| text.plain());
        app.metrics.sent_bytes.add(body.len() as u64);
        answer.body(body)
    };
    let out = answer.headers_mut();
    headers::cors(out);
    out.insert(header::CACHE_CONTROL, cache);
    out.insert(header::CONTENT_TYPE, headers::MPEGURL);
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    out.insert(header::ETAG, headers::value(text.etag()));
    answer
}

/// Whether `Accept-Encoding` lists gzip without refusing it (`q=0`).
fn takes_gzip(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|list| {
        list.split(',').any(|item| {
            let (name, rest) = item.split_once(';').unwrap_or((item, ""));
            let refused =
                rest.trim().strip_prefix("q=").and_then(|q| q.parse().ok()).is_some_and(|q: f32| q <= 0.0);
            matches!(name.trim(), "gzip" | "*") && !refused
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives() {
        let parse = Reload::parse;
        assert_eq!(parse(""), Some(Reload::default()));
        assert_eq!(parse("a=b&_HLS_msn=5&_HLS_part=2"), Some(Reload { msn: Some(5), part: Some(2) }));
        assert_eq!(parse("_HLS_part=2"), None);
        assert_eq!(parse("_HLS_msn=-1"), None);
        assert_eq!(parse("_HLS_msn=x"), None);
    }

    #[test]
    fn encodings() {
        for (list, yes) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5, br", true),
            ("*", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(&HeaderValue::from_str(list).unwrap()), yes, "{list}");
        }
    }
}
