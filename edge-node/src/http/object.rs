//! Init sections, segments and parts.

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use millrace_wire::objects::{ObjectKind, ObjectName};

use super::{App, headers, range, refuse};
use crate::cache::Object;
use crate::fetch::Outcome;
use crate::registry::NoStream;
use crate::stream::{LiveStream, Phase, Reach};

/// Answers for the object under `key`, the path without its leading slash.
pub(super) async fn serve(app: &App, request: &HttpRequest, key: &str) -> HttpResponse {
    if let Some(object) = app.cache.get(key) {
        app.metrics.cache_hits.inc();
        return send(app, request, key, &object);
    }
    app.metrics.cache_misses.inc();
    let Ok(name) = key.parse::<ObjectName>() else { return refuse::missing() };
    if let ObjectKind::Part(msn, _, part) = name.kind {
        return awaited_part(app, request, key, &name, (msn.0, part.0)).await;
    }
    // Who invents paths must not reach the store: only streams that exist have objects.
    match app.registry.follow(name.playback).await {
        Ok(_) => {}
        Err(NoStream::Unknown) => return refuse::missing(),
        Err(NoStream::Busy) => return refuse::busy(),
    }
    match app.fetcher.get(key).await {
        Outcome::Found(object) => send(app, request, key, &object),
        Outcome::Missing => refuse::missing(),
        Outcome::Failed => refuse::busy(),
    }
}

/// A part not in memory: the one a preload hint names is waited for (RFC 8216bis §6.2.6), others are gone.
async fn awaited_part(
    app: &App,
    request: &HttpRequest,
    key: &str,
    name: &ObjectName,
    at: (u64, u32),
) -> HttpResponse {
    let stream = match app.registry.follow(name.playback).await {
        Ok(stream) => stream,
        Err(NoStream::Unknown) => return refuse::missing(),
        Err(NoStream::Busy) => return refuse::busy(),
    };
    if !hinted(&stream, name, at) {
        return refuse::missing();
    }
    let came = app.wait(&stream, app.limits.part_hold, |_| !hinted(&stream, name, at)).await;
    if came.is_err() {
        return refuse::busy();
    }
    app.cache.get(key).map_or_else(refuse::missing, |object| send(app, request, key, &object))
}

/// Whether the part is the next one of its rendition.
fn hinted(stream: &LiveStream, name: &ObjectName, (msn, part): (u64, u32)) -> bool {
    let view = stream.view();
    let head = view.rendition(name.rendition.as_str()).map(|m| m.head);
    view.phase == Phase::Live && head.is_some_and(|h| {
        let next = (h.open_msn, h.open_parts);
        (msn, part) == next && h.reach(msn, Some(part)) == Reach::Later
    })
}

fn send(app: &App, request: &HttpRequest, key: &str, object: &Object) -> HttpResponse {
    let sent = request.headers();
    let mut answer = if headers::matches(sent.get(header::IF_NONE_MATCH), &object.etag) {
        HttpResponse::NotModified().finish()
    } else {
        // If-Range with another tag asks for the whole (RFC 9110 §13.1.5).
        let same = sent.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == &object.etag[..]);
        let wanted = sent.get(header::RANGE).filter(|_| same).and_then(|r| r.to_str().ok());
        body(app, object, &range::parse(wanted, object.bytes.len()))
    };
    let out = answer.headers_mut();
    headers::cors(out);
    out.insert(header::CACHE_CONTROL, headers::IMMUTABLE);
    out.insert(header::ETAG, headers::value(&object.etag));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CONTENT_TYPE, if key.ends_with(".mp4") { headers::MP4 } else { headers::SEGMENT });
    answer
}

fn body(app: &App, object: &Object, wanted: &range::Wanted) -> HttpResponse {
    let size = object.bytes.len();
    match wanted {
        range::Wanted::Whole => {
            app.metrics.sent_bytes.add(size as u64);
            HttpResponse::Ok().body(object.bytes.clone())
        }
        range::Wanted::Part(part) => {
            app.metrics.sent_bytes.add(part.len() as u64);
            HttpResponse::PartialContent()
                .insert_header((header::CONTENT_RANGE, format!("bytes {}-{}/{size}", part.start, part.end - 1)))
                .body(object.bytes.slice(part.clone()))
        }
        range::Wanted::Unsatisfiable => HttpResponse::RangeNotSatisfiable()
            .insert_header((header::CONTENT_RANGE, format!("bytes */{size}")))
            .finish(),
    }
}
