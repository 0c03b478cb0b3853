//! Playlists: the newest one, or the one that a blocking reload asks for once it exists.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use millrace_wire::ids::{Airing, PlaybackId};

use super::app::App;
use super::{error_response, headers};
use crate::live::playlists::{BlockingDecision, Following, RenditionPlaylist, StreamPlaylists};
use crate::live::rendered::RenderedPlaylist;
use crate::live::stream::LiveStream;

/// The target duration in seconds that bounds a blocking reload while the stream's own is unknown. A blocking reload waits at
/// most three target durations (RFC 8216bis §6.2.5.2).
const UNKNOWN_TARGET_S: u64 = 4;

/// A request for the multivariant playlist of a broadcast that has just begun is held this long for the rungs of its ladder, which
/// come a moment after the source's own rendition.
const LADDER_HOLD: Duration = Duration::from_secs(2);

/// The delivery directives `_HLS_msn` and `_HLS_part` of a blocking reload (RFC 8216bis §6.2.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Reload {
    msn: Option<u64>,
    part: Option<u32>,
}

impl Reload {
    /// Reads the directives of a query string; `None` for a malformed one. Other parameters are ignored.
    fn parse(query: &str) -> Option<Self> {
        let mut reload = Self::default();
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("_HLS_msn", number)) => reload.msn = Some(number.parse().ok()?),
                Some(("_HLS_part", number)) => reload.part = Some(number.parse().ok()?),
                _ => {}
            }
        }
        // A part number without a media sequence number is an error (RFC 8216bis §6.2.5.2).
        (reload.part.is_none() || reload.msn.is_some()).then_some(reload)
    }
}

/// The name of a media playlist: its rendition, and the broadcast that it is of.
type MediaName<'a> = (&'a str, Airing);

/// Answers for a playlist: a media playlist, or the multivariant playlist.
pub(super) async fn serve(
    app: &App,
    request: &HttpRequest,
    playback: PlaybackId,
    media: Option<MediaName<'_>>,
) -> HttpResponse {
    let stream = match app.open(playback).await {
        Ok(stream) => stream,
        Err(reason) => return error_response::not_served(reason),
    };
    let Some(reload) = Reload::parse(request.query_string()) else { return error_response::bad_request() };
    let answer = match (media, reload.msn) {
        (Some(name), Some(msn)) => blocking(app, request, &stream, name, (msn, reload.part)).await,
        _ => newest(app, request, &stream, media).await,
    };
    match media {
        // Whatever the request waited for, the broadcast is over, and another one is shown.
        Some(name) if stream.playlists().is_after(name.1) => past(app, request, &stream, name).await,
        _ => answer,
    }
}

/// Answers with a media playlist of an earlier broadcast, which has ended.
async fn past(
    app: &App,
    request: &HttpRequest,
    stream: &LiveStream,
    (rendition, airing): MediaName<'_>,
) -> HttpResponse {
    let playlists = app.registry.past(stream, airing).await;
    let rendered = playlists.and_then(|past| past.media(rendition, airing)?.rendered());
    rendered.map_or_else(error_response::not_found, |text| send(app, request, &text, headers::NEWEST))
}

/// Answers with the newest playlist. The request is held while the stream has none yet and while the stream lags behind
/// its log, since another edge may show more; after that time it is refused with 503.
async fn newest(
    app: &App,
    request: &HttpRequest,
    stream: &Arc<LiveStream>,
    media: Option<MediaName<'_>>,
) -> HttpResponse {
    let playlist = |playlists: &StreamPlaylists| match media {
        None => playlists.multivariant(),
        Some((name, airing)) => playlists.media(name, airing).and_then(RenditionPlaylist::rendered),
    };
    let lacks = |playlists: &StreamPlaylists| {
        media.is_some_and(|(name, airing)| playlists.is_after(airing) || playlists.lacks(name, airing))
    };
    let ready = |playlists: &StreamPlaylists| {
        lacks(playlists) || (playlists.following != Following::Lagging && playlist(playlists).is_some())
    };
    if !ready(&stream.playlists()) && app.wait(stream, app.limits.start_hold, ready).await.is_err() {
        return error_response::unavailable();
    }
    if media.is_none() && stream.playlists().awaits_renditions() {
        // What there is by then is served.
        let _ = app.wait(stream, LADDER_HOLD, |playlists| !playlists.awaits_renditions()).await;
    }
    let playlists = stream.playlists();
    playlist(&playlists)
        .map_or_else(error_response::not_found, |rendered| send(app, request, &rendered, headers::NEWEST))
}

/// Answers a blocking reload (RFC 8216bis §6.2.5.2) once the playlist has the segment or part it names.
async fn blocking(
    app: &App,
    request: &HttpRequest,
    stream: &Arc<LiveStream>,
    (rendition, airing): MediaName<'_>,
    (msn, part): (u64, Option<u32>),
) -> HttpResponse {
    let find = |playlists: &StreamPlaylists| playlists.media(rendition, airing).cloned();
    let lacks =
        |playlists: &StreamPlaylists| playlists.is_after(airing) || playlists.lacks(rendition, airing);
    let decide = |playlist: &RenditionPlaylist| playlist.position.decide(msn, part);
    // The first requests of a starting stream are held rather than refused.
    if find(&stream.playlists()).is_none() && !lacks(&stream.playlists()) {
        let started = |playlists: &StreamPlaylists| find(playlists).is_some() || lacks(playlists);
        if app.wait(stream, app.limits.start_hold, started).await.is_err() {
            return error_response::unavailable();
        }
    }
    let playlists = stream.playlists();
    let Some(playlist) = find(&playlists) else { return error_response::not_found() };
    match decide(&playlist) {
        // An edge that lags cannot distinguish a request too far ahead from one that the log already answers: with 503 the
        // client comes again.
        BlockingDecision::BadRequest if playlists.following == Following::Current => {
            return error_response::bad_request();
        }
        BlockingDecision::BadRequest => return error_response::unavailable(),
        BlockingDecision::Ready => return send_blocked(app, request, &playlist),
        BlockingDecision::Wait => {}
    }
    let limit = Duration::from_secs(3 * playlists.target_duration_s().unwrap_or(UNKNOWN_TARGET_S));
    let decided = |playlists: &StreamPlaylists| {
        find(playlists).is_none_or(|playlist| decide(&playlist) != BlockingDecision::Wait)
    };
    if app.wait(stream, limit, decided).await.is_err() {
        return error_response::unavailable();
    }
    match find(&stream.playlists()) {
        Some(playlist) if decide(&playlist) == BlockingDecision::Ready => {
            send_blocked(app, request, &playlist)
        }
        // The feed may have begun anew below the numbers asked for.
        Some(_) => error_response::unavailable(),
        None => error_response::not_found(),
    }
}

fn send_blocked(app: &App, request: &HttpRequest, playlist: &RenditionPlaylist) -> HttpResponse {
    let rendered = playlist.rendered();
    rendered.map_or_else(error_response::not_found, |text| send(app, request, &text, headers::BLOCKED))
}

fn send(app: &App, request: &HttpRequest, playlist: &RenderedPlaylist, cache: HeaderValue) -> HttpResponse {
    let sent = request.headers();
    let mut response = if headers::matches(sent.get(header::IF_NONE_MATCH), playlist.etag()) {
        HttpResponse::NotModified().finish()
    } else {
        let accepts_gzip = sent.get(header::ACCEPT_ENCODING).is_some_and(accepts_gzip);
        let zipped = accepts_gzip.then(|| playlist.gzip()).flatten();
        let mut response = HttpResponse::Ok();
        if zipped.is_some() {
            response.insert_header((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        }
        let body = zipped.unwrap_or_else(|| playlist.plain());
        app.metrics.sent_bytes.add(body.len() as u64);
        response.body(body)
    };
    let out = response.headers_mut();
    headers::cors(out);
    out.insert(header::CACHE_CONTROL, cache);
    out.insert(header::CONTENT_TYPE, headers::MPEGURL);
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    out.insert(header::ETAG, headers::value(playlist.etag()));
    response
}

/// Returns true if `Accept-Encoding` lists gzip without refusing it (`q=0`).
pub(super) fn accepts_gzip(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|list| {
        list.split(',').any(|item| {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let refused = parameters
                .trim()
                .strip_prefix("q=")
                .and_then(|weight| weight.parse().ok())
                .is_some_and(|weight: f32| weight <= 0.0);
            matches!(name.trim(), "gzip" | "*") && !refused
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reload_reads_delivery_directives_and_refuses_malformed_ones() {
        let parse = Reload::parse;
        assert_eq!(parse(""), Some(Reload::default()));
        assert_eq!(parse("a=b&_HLS_msn=5&_HLS_part=2"), Some(Reload { msn: Some(5), part: Some(2) }));
        assert_eq!(parse("_HLS_part=2"), None);
        assert_eq!(parse("_HLS_msn=-1"), None);
        assert_eq!(parse("_HLS_msn=x"), None);
    }

    #[test]
    fn accept_encoding_lists_gzip_unless_its_weight_is_zero() {
        for (list, yes) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5, br", true),
            ("*", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(&HeaderValue::from_str(list).unwrap()), yes, "{list}");
        }
    }
}
