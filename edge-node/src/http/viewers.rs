//! The viewers that requests show: their origin, and the ids they carry.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpRequest, HttpResponse};
use millrace_wire::ids::PlaybackId;

use super::app::App;
use crate::audience::cmcd;
use crate::audience::counting::{Watched, client};
use crate::audience::identity::{Client, Identity};
use crate::live::stream::LiveStream;

/// The session of CMCD (CTA-5004).
const CMCD_SESSION: HeaderName = HeaderName::from_static("cmcd-session");
/// A request of a cache for its many clients (RFC 8586).
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// The target duration in seconds of a stream whose own is unknown.
const UNKNOWN_TARGET_S: u64 = 4;

impl LiveStream {
    /// Returns the stream as far as counting knows it.
    pub(super) fn watched(&self) -> Watched<'_> {
        Watched { playback: self.playback, stream: self.id, count: self.viewers() }
    }
}

/// Returns the origin of a request.
pub(super) fn origin<'a>(app: &App, request: &'a HttpRequest) -> Option<Client<'a>> {
    let agent = request.headers().get(header::USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
    Some(client(address(app, request)?, agent))
}

/// Returns the viewer's address: the one that trusted proxies name, or the TCP peer.
pub(super) fn address(app: &App, request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip();
    if !app.trusted_proxies.trusts(peer) {
        return Some(peer);
    }
    let values = request.headers().get_all(app.forwarded_header.name());
    let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    Some(app.trusted_proxies.client_by(app.forwarded_header, peer, values.into_iter()))
}

/// Returns the session of CMCD that a request carries.
fn sid(request: &HttpRequest) -> Option<Cow<'_, str>> {
    let in_header =
        request.headers().get(CMCD_SESSION).and_then(|value| cmcd::sid_in_header(value.to_str().ok()?));
    in_header.map(Cow::Borrowed).or_else(|| cmcd::sid_in_query(request.query_string()))
}

/// Returns true if the request is a viewer's own as far as it tells, or a proxy's that names the viewer.
fn is_of_viewer(app: &App, request: &HttpRequest) -> bool {
    let is_cache = || request.headers().contains_key(CDN_LOOP);
    !is_cache() || request.peer_addr().is_some_and(|peer| app.trusted_proxies.trusts(peer.ip()))
}

/// Notes a request that shows a viewer; `is_media` says whether it is for media, by which a viewer begins to count.
async fn note(app: &App, request: &HttpRequest, playback: PlaybackId, is_media: bool) {
    let sid = sid(request);
    let identity = match sid.as_deref() {
        Some(sid) => Identity::Cmcd(sid),
        None if app.counts_requests && is_of_viewer(app, request) => Identity::Requests,
        None => return,
    };
    let Some(client) = origin(app, request) else { return };
    if app.counting.seen(playback, &identity, &client) || !is_media {
        return;
    }
    if let Some(stream) = app.registry.get(playback) {
        let target_s = stream.playlists().target_duration_s().unwrap_or(UNKNOWN_TARGET_S);
        app.counting.requests(stream.watched(), identity, client, target_s);
    } else if let Ok(record) = app.catalog.find(playback).await {
        // Another edge answers for the playlists. A stored object starts no feed.
        let of = Watched { playback, stream: record.stream, count: &Arc::default() };
        app.counting.requests(of, identity, client, UNKNOWN_TARGET_S);
    }
}

/// Notes a request for a playlist: a viewer that counts goes on to. A request for a playlist alone begins none, as many a tool
/// makes it that plays nothing.
pub(super) async fn asks_for_playlist(app: &App, request: &HttpRequest, playback: PlaybackId) {
    note(app, request, playback, false).await;
}

/// Notes a request for a segment or part that was answered with media.
pub(super) async fn got_media(app: &App, request: &HttpRequest, key: &str, response: &HttpResponse) {
    let is_answered = response.status().is_success() || response.status().is_redirection();
    let playback = key.split('/').nth(1).and_then(|text| text.parse().ok());
    let is_media = matches!(key.rsplit_once('.'), Some((_, "m4s")));
    if let Some(playback) = playback.filter(|_| is_answered && is_media) {
        note(app, request, playback, true).await;
    }
}
