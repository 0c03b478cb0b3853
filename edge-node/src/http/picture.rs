//! Pictures of a stream: the newest one, which pages show as its poster.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use millrace_wire::ids::PlaybackId;
use millrace_wire::object_names;

use super::app::App;
use super::{error_response, headers};
use crate::objects::fresh::Fresh;

/// Answers with the newest picture of a stream.
pub(super) async fn thumbnail(app: &App, request: &HttpRequest, playback: PlaybackId) -> HttpResponse {
    // Invented ids must not reach the store.
    if app.registry.get(playback).is_none()
        && let Err(reason) = app.catalog.find(playback).await
    {
        return error_response::not_served(reason);
    }
    let copy = match app.fresh.get(&object_names::thumbnail(playback)).await {
        Fresh::Found(copy) => copy,
        Fresh::Missing => return error_response::no_picture(),
        Fresh::Failed => return error_response::unavailable(),
    };
    let mut response = if headers::matches(request.headers().get(header::IF_NONE_MATCH), &copy.etag) {
        HttpResponse::NotModified().finish()
    } else {
        app.metrics.sent_bytes.add(copy.bytes.len() as u64);
        HttpResponse::Ok().body(copy.bytes)
    };
    let out = response.headers_mut();
    headers::cors(out);
    out.insert(header::CACHE_CONTROL, headers::PICTURE);
    out.insert(header::CONTENT_TYPE, headers::JPEG);
    out.insert(header::ETAG, headers::value(&copy.etag));
    response
}

/// Returns true if the stream is known to have a picture.
pub(super) async fn has_thumbnail(app: &App, playback: PlaybackId) -> bool {
    matches!(app.fresh.get(&object_names::thumbnail(playback)).await, Fresh::Found(_))
}
