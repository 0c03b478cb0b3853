//! Redirects from a URL with a stream key to the one with the public id, so that no media URL carries the key.

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use millrace_wire::ids::PlaybackId;

use super::app::App;
use super::{error_response, headers, viewers};
use crate::catalog::NotServed;

/// Answers for the multivariant playlist of a name that is no known playback id; `None` if the name is one, or keys are not
/// taken here.
pub(super) async fn serve(app: &App, request: &HttpRequest, name: &str) -> Option<HttpResponse> {
    let aliases = app.aliases.as_ref()?;
    if let Ok(playback) = name.parse::<PlaybackId>()
        && (app.registry.get(playback).is_some()
            || !matches!(app.catalog.find(playback).await, Err(NotServed::Unknown)))
    {
        return None;
    }
    let found = aliases.find(name, viewers::address(app, request)).await;
    Some(match found {
        Ok(playback) => redirect(playback, request.query_string()),
        Err(reason) => error_response::not_served(reason),
    })
}

fn redirect(playback: PlaybackId, query: &str) -> HttpResponse {
    let mut location = format!("/live/{playback}/index.m3u8");
    if !query.is_empty() {
        location = format!("{location}?{query}");
    }
    let mut response = HttpResponse::Found().finish();
    let out = response.headers_mut();
    headers::cors(out);
    // A cache in front of the edge must not keep the key, and the key may belong to another livestream later.
    out.insert(header::CACHE_CONTROL, headers::NO_STORE);
    out.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(location) = HeaderValue::from_str(&location) {
        out.insert(header::LOCATION, location);
    }
    response
}
