//! Pictures of a stream: the newest one, which pages show as its poster, and the storyboard.

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use millrace_wire::ids::PlaybackId;
use millrace_wire::object_names;

use super::app::App;
use super::{error_response, headers};
use crate::objects::fetch::Outcome;
use crate::objects::fresh::Fresh;

/// Answers for a picture, the storyboard or one of its sheets; `tail` is the path below the stream's own.
pub(super) async fn serve(
    app: &App,
    request: &HttpRequest,
    playback: PlaybackId,
    tail: &str,
) -> HttpResponse {
    // Invented ids must not reach the store.
    if app.registry.get(playback).is_none()
        && let Err(reason) = app.catalog.find(playback).await
    {
        return error_response::not_served(reason);
    }
    match tail {
        "thumbnail.jpg" => newest(app, request, &object_names::thumbnail(playback), headers::JPEG).await,
        "storyboard.vtt" => newest(app, request, &object_names::storyboard(playback), headers::VTT).await,
        sheet if object_names::is_storyboard_sheet(sheet) => {
            let key = format!("{}{sheet}", object_names::stream_prefix(playback));
            match app.fetcher.get(&key).await {
                Outcome::Found(object) => {
                    let bytes = object.media.bytes().contiguous();
                    send(app, request, (bytes, &object.etag), headers::JPEG, headers::IMMUTABLE)
                }
                Outcome::Missing => error_response::no_picture(),
                Outcome::Failed => error_response::unavailable(),
            }
        }
        _ => error_response::not_found(),
    }
}

/// Answers with an object that writers replace.
async fn newest(app: &App, request: &HttpRequest, key: &str, content_type: HeaderValue) -> HttpResponse {
    match app.fresh.get(key).await {
        Fresh::Found(copy) => send(app, request, (copy.bytes, &copy.etag), content_type, headers::PICTURE),
        Fresh::Missing => error_response::no_picture(),
        Fresh::Failed => error_response::unavailable(),
    }
}

fn send(
    app: &App,
    request: &HttpRequest,
    (bytes, etag): (Bytes, &Bytes),
    content_type: HeaderValue,
    cache: HeaderValue,
) -> HttpResponse {
    let mut response = if headers::matches(request.headers().get(header::IF_NONE_MATCH), etag) {
        HttpResponse::NotModified().finish()
    } else {
        app.metrics.sent_bytes.add(bytes.len() as u64);
        HttpResponse::Ok().body(bytes)
    };
    let out = response.headers_mut();
    headers::cors(out);
    out.insert(header::CACHE_CONTROL, cache);
    out.insert(header::CONTENT_TYPE, content_type);
    out.insert(header::ETAG, headers::value(etag));
    response
}

/// Returns true if the stream is known to have a picture.
pub(super) async fn has_thumbnail(app: &App, playback: PlaybackId) -> bool {
    matches!(app.fresh.get(&object_names::thumbnail(playback)).await, Fresh::Found(_))
}
