//! Init sections, segments and parts.

use std::sync::Arc;

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use millrace_media::container::cmaf::demux::part_of;
use millrace_media::container::cmaf::fragment_header;
use millrace_runtime::http::connection;
use millrace_wire::ids::PartIndex;
use millrace_wire::object_names::{ObjectKind, ObjectName};

use super::app::App;
use super::body::MediaBody;
use super::{error_response, headers, range};
use crate::live::playlists::{PlaylistPosition, StreamPlaylists};
use crate::live::stream::LiveStream;
use crate::objects::cache::Object;
use crate::objects::fetch::Outcome;

/// Answers for the object under `key`, which is the path without its leading slash. A stored object is served without a feed;
/// one that is neither in memory nor in the store may be on its way to this edge, so its stream is opened.
pub(super) async fn serve(app: &App, request: &HttpRequest, key: &str) -> HttpResponse {
    if let Some(object) = app.cache.get(key) {
        app.metrics.cache_hits.inc();
        return send(app, request, key, &object);
    }
    app.metrics.cache_misses.inc();
    let Ok(name) = key.parse::<ObjectName>() else { return error_response::not_found() };
    let open = app.registry.get(name.playback);
    // Invented paths must not reach the store: only the catalogue's streams have objects.
    if open.is_none()
        && let Err(reason) = app.catalog.find(name.playback).await
    {
        return error_response::not_served(reason);
    }
    let stored = match name.kind {
        ObjectKind::Part(_, _, part) => stored_part(app, open.as_deref(), key, &name, part).await,
        ObjectKind::Init(_) | ObjectKind::Segment(..) => app.fetcher.get(key).await,
    };
    match stored {
        Outcome::Found(object) => return send(app, request, key, &object),
        Outcome::Missing => {}
        Outcome::Failed => return error_response::unavailable(),
    }
    let stream = match open {
        Some(stream) => stream,
        None => match app.open(name.playback).await {
            Ok(stream) => stream,
            Err(reason) => return error_response::not_served(reason),
        },
    };
    expect(app, request, key, &stream, &name).await
}

/// Reads a part from the store. Parts are not stored, but a stored segment is its parts laid end to end. A part of the open
/// segment is not read: the part that a preload hint names is waited for (RFC 8216bis §6.2.6).
async fn stored_part(
    app: &App,
    stream: Option<&LiveStream>,
    key: &str,
    name: &ObjectName,
    part: PartIndex,
) -> Outcome {
    let ObjectKind::Part(msn, generation, _) = name.kind else { return Outcome::Missing };
    let playlists = stream.map(LiveStream::playlists);
    let position = playlists.as_ref().and_then(|playlists| position(playlists, name));
    if position.is_some_and(|position| msn.0 >= position.open_msn) {
        return Outcome::Missing;
    }
    let segment_key = ObjectName { kind: ObjectKind::Segment(msn, generation), ..name.clone() }.key();
    let segment = match app.cache.get(&segment_key) {
        Some(segment) => segment,
        None => match app.fetcher.get(&segment_key).await {
            Outcome::Found(segment) => segment,
            // The part may still come from the feed.
            Outcome::Missing | Outcome::Failed => return Outcome::Missing,
        },
    };
    let Some(bytes) = part_of(&segment.media.bytes().contiguous(), part.0) else { return Outcome::Missing };
    let object = Object::new(key, bytes);
    app.cache.hold(&object);
    Outcome::Found(object)
}

/// Waits for an object that the playlist lists or hints and whose bytes have not arrived yet.
async fn expect(
    app: &App,
    request: &HttpRequest,
    key: &str,
    stream: &Arc<LiveStream>,
    name: &ObjectName,
) -> HttpResponse {
    // A feed that was started for this request does not know yet which objects there are.
    let expected = |playlists: &StreamPlaylists| !playlists.is_known() || playlists.expects(name);
    if stream.playlists().is_gap(name) {
        return send(app, request, key, &gap(key));
    }
    if !expected(&stream.playlists()) {
        return error_response::not_found();
    }
    let ready = |playlists: &StreamPlaylists| {
        app.cache.contains(key) || playlists.is_gap(name) || !expected(playlists)
    };
    // The cache is asked after a timeout too: the object may have arrived this moment.
    let _ = app.wait(stream, app.limits.part_hold, ready).await;
    match app.cache.get(key) {
        Some(object) => send(app, request, key, &object),
        None if stream.playlists().is_gap(name) => send(app, request, key, &gap(key)),
        None => error_response::not_found(),
    }
}

/// Returns the object of a GAP: a movie fragment without samples and without media data. Clients that know no EXT-X-GAP ask
/// for the URI, and ask again without a pause while it is 404 (GStreamer 1.22, older ffmpeg); after this fragment they go on
/// with what follows. An empty `mdat` behind it would make GStreamer's demuxer refuse the next segment.
fn gap(key: &str) -> Object {
    let fragment = fragment_header(0, 0, &[]);
    let moof = fragment.first_chunk().map_or(0, |size: &[u8; 4]| u32::from_be_bytes(*size) as usize);
    Object::new(key, fragment.slice(..moof.min(fragment.len())))
}

fn position(playlists: &StreamPlaylists, name: &ObjectName) -> Option<PlaylistPosition> {
    playlists.rendition(name.rendition.as_str()).map(|playlist| playlist.position)
}

/// Returns true for init sections, which are `.mp4`; segments and parts are `.m4s`.
fn is_init(key: &str) -> bool {
    key.as_bytes().ends_with(b".mp4")
}

fn send(app: &App, request: &HttpRequest, key: &str, object: &Object) -> HttpResponse {
    let sent = request.headers();
    let mut response = if headers::matches(sent.get(header::IF_NONE_MATCH), &object.etag) {
        HttpResponse::NotModified().finish()
    } else {
        // If-Range with another tag asks for the whole object (RFC 9110 §13.1.5).
        let same = sent.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == &object.etag[..]);
        let wanted = sent.get(header::RANGE).filter(|_| same).and_then(|range| range.to_str().ok());
        content(app, request, object, &range::parse(wanted, object.media.len()))
    };
    let out = response.headers_mut();
    headers::cors(out);
    out.insert(header::CACHE_CONTROL, headers::IMMUTABLE);
    out.insert(header::ETAG, headers::value(&object.etag));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CONTENT_TYPE, if is_init(key) { headers::MP4 } else { headers::SEGMENT });
    response
}

fn content(app: &App, request: &HttpRequest, object: &Object, wanted: &range::Wanted) -> HttpResponse {
    let size = object.media.len();
    let body = |range| MediaBody::new(object.media.clone(), range, &app.answers, connection(request));
    match wanted {
        range::Wanted::Whole => {
            app.metrics.sent_bytes.add(size as u64);
            HttpResponse::Ok().body(body(None))
        }
        range::Wanted::Part(part) => {
            app.metrics.sent_bytes.add(part.len() as u64);
            let content_range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            HttpResponse::PartialContent()
                .insert_header((header::CONTENT_RANGE, content_range))
                .body(body(Some(part.clone())))
        }
        range::Wanted::Unsatisfiable => HttpResponse::RangeNotSatisfiable()
            .insert_header((header::CONTENT_RANGE, format!("bytes */{size}")))
            .finish(),
    }
}
