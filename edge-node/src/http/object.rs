//! Init sections, segments and parts.

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use millrace_media::container::cmaf::demux::part_of;
use millrace_wire::ids::PartIndex;
use millrace_wire::object_names::{ObjectKind, ObjectName};

use super::body::ChainBody;
use super::{App, headers, range, refuse};
use crate::cache::Object;
use crate::fetch::Outcome;
use crate::registry::NoStream;
use crate::stream::LiveStream;
use crate::view::{Phase, PlaylistPosition, View};

/// Segments below the open one whose bytes may still be on their way here.
const RECENT: u64 = 4;

/// Answers for the object under `key`, the path without its leading slash.
pub(super) async fn serve(app: &App, request: &HttpRequest, key: &str) -> HttpResponse {
    if let Some(object) = app.cache.get(key) {
        app.metrics.cache_hits.inc();
        return send(app, request, key, &object);
    }
    app.metrics.cache_misses.inc();
    let Ok(name) = key.parse::<ObjectName>() else { return refuse::missing() };
    // Who invents paths must not reach the store: only streams that exist have objects.
    let stream = match app.registry.follow(name.playback).await {
        Ok(stream) => stream,
        Err(NoStream::Unknown) => return refuse::missing(),
        Err(NoStream::Busy) => return refuse::busy(),
    };
    if let ObjectKind::Part(msn, _, part) = name.kind {
        // The one a preload hint names is waited for (RFC 8216bis §6.2.6).
        let open = |head: PlaylistPosition| msn.0 >= head.open_msn;
        if stream.view().rendition(name.rendition.as_str()).is_none_or(|m| !open(m.head))
            && let Some(object) = stored_part(app, key, &name, part).await
        {
            return send(app, request, key, &object);
        }
        return soon(app, request, key, &stream, &name).await;
    }
    match app.fetcher.get(key).await {
        Outcome::Found(object) => send(app, request, key, &object),
        Outcome::Missing => soon(app, request, key, &stream, &name).await,
        Outcome::Failed => refuse::busy(),
    }
}

/// Parts are not stored, but a stored segment is its parts laid end to end.
async fn stored_part(app: &App, key: &str, name: &ObjectName, part: PartIndex) -> Option<Object> {
    let ObjectKind::Part(msn, generation, _) = name.kind else { return None };
    let segment = ObjectName { kind: ObjectKind::Segment(msn, generation), ..name.clone() }.key();
    let whole = match app.cache.get(&segment) {
        Some(whole) => whole,
        None => match app.fetcher.get(&segment).await {
            Outcome::Found(whole) => whole,
            Outcome::Missing | Outcome::Failed => return None,
        },
    };
    part_of(&whole.payload.contiguous(), part.0).map(|bytes| Object::new(key, bytes))
}

/// Neither in memory nor in the store: what the playlist lists is under way to this edge.
async fn soon(
    app: &App,
    request: &HttpRequest,
    key: &str,
    stream: &LiveStream,
    name: &ObjectName,
) -> HttpResponse {
    if !expected(&stream.view(), name) {
        return refuse::missing();
    }
    let ready = |view: &View| app.cache.contains(key) || !expected(view, name);
    // On time-out too: it may have come this moment.
    let _ = app.wait(stream, app.limits.part_hold, ready).await;
    app.cache.get(key).map_or_else(refuse::missing, |object| send(app, request, key, &object))
}

/// Whether the name is listed or hinted near the end of its rendition's playlist.
fn expected(view: &View, name: &ObjectName) -> bool {
    let Some(head) = view.rendition(name.rendition.as_str()).map(|m| m.head) else { return false };
    match name.kind {
        ObjectKind::Init(_) => view.phase() == Phase::Live,
        ObjectKind::Segment(msn, _) => msn.0 < head.open_msn && msn.0 + RECENT >= head.open_msn,
        ObjectKind::Part(msn, _, part) => {
            let hinted = (msn.0, part.0) == (head.open_msn, head.open_parts) && view.phase() == Phase::Live;
            let listed =
                msn.0 + RECENT >= head.open_msn && (msn.0, part.0) < (head.open_msn, head.open_parts);
            hinted || listed
        }
    }
}

/// Init sections are `.mp4`, segments and parts `.m4s`: names have one spelling.
fn is_init(key: &str) -> bool {
    key.as_bytes().ends_with(b".mp4")
}

fn send(app: &App, request: &HttpRequest, key: &str, object: &Object) -> HttpResponse {
    let sent = request.headers();
    let mut answer = if headers::matches(sent.get(header::IF_NONE_MATCH), &object.etag) {
        HttpResponse::NotModified().finish()
    } else {
        // If-Range with another tag asks for the whole (RFC 9110 §13.1.5).
        let same = sent.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == &object.etag[..]);
        let wanted = sent.get(header::RANGE).filter(|_| same).and_then(|r| r.to_str().ok());
        body(app, object, &range::parse(wanted, object.payload.len()))
    };
    let out = answer.headers_mut();
    headers::cors(out);
    out.insert(header::CACHE_CONTROL, headers::IMMUTABLE);
    out.insert(header::ETAG, headers::value(&object.etag));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CONTENT_TYPE, if is_init(key) { headers::MP4 } else { headers::SEGMENT });
    answer
}

fn body(app: &App, object: &Object, wanted: &range::Wanted) -> HttpResponse {
    let size = object.payload.len();
    match wanted {
        range::Wanted::Whole => {
            app.metrics.sent_bytes.add(size as u64);
            HttpResponse::Ok().body(ChainBody(object.payload.clone()))
        }
        range::Wanted::Part(part) => {
            app.metrics.sent_bytes.add(part.len() as u64);
            HttpResponse::PartialContent()
                .insert_header((
                    header::CONTENT_RANGE,
                    format!("bytes {}-{}/{size}", part.start, part.end - 1),
                ))
                .body(ChainBody(object.payload.slice(part.clone())))
        }
        range::Wanted::Unsatisfiable => HttpResponse::RangeNotSatisfiable()
            .insert_header((header::CONTENT_RANGE, format!("bytes */{size}")))
            .finish(),
    }
}
