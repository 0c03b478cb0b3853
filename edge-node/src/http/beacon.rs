//! `POST /live/{playback_id}/beacon`: a player's heartbeat, which is answered with the stream's phase and number of viewers.

use std::net::IpAddr;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Bytes;
use millrace_wire::ids::PlaybackId;
use serde::{Deserialize, Serialize};

use super::app::App;
use super::{error_response, headers};
use crate::audience::heartbeat::{HEARTBEAT_S, Heartbeat};
use crate::live::playlists::Phase;

/// The longest request body in bytes: a session id and two JSON members.
pub(super) const MAX_BODY: usize = 512;

/// The body of a request; an empty one asks for a new session.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    session: Option<String>,
    leaving: bool,
}

#[derive(Serialize)]
struct Answer {
    session: String,
    viewers: u64,
    phase: &'static str,
    interval_s: u64,
}

/// Answers a heartbeat with the stream's phase and its number of viewers.
pub(super) async fn serve(
    app: &App,
    playback: PlaybackId,
    address: Option<IpAddr>,
    body: &Bytes,
) -> HttpResponse {
    let sent = match body.len() {
        0 => Body::default(),
        length if length > MAX_BODY => return error_response::bad_request(),
        _ => match serde_json::from_slice(body) {
            Ok(sent) => sent,
            Err(_) => return error_response::bad_request(),
        },
    };
    let stream = match app.open(playback).await {
        Ok(stream) => stream,
        Err(reason) => return error_response::not_served(reason),
    };
    let signed = sent.session.filter(|session| app.signer.check(stream.id, session).is_some());
    // A new session counts from its second heartbeat: a client that sends one and never comes back is no viewer.
    let session = signed.clone().unwrap_or_else(|| app.signer.issue(stream.id));
    if let Some(id) = signed.as_deref().and_then(|session| app.signer.check(stream.id, session)) {
        // Over a limit the viewer watches on, uncounted.
        let watching = !sent.leaving;
        let counted = address.is_some_and(|address| {
            let heartbeat = Heartbeat { stream: stream.id, session: id, address, watching };
            app.heartbeats.heartbeat(&heartbeat, stream.viewers())
        });
        app.metrics.heartbeats_uncounted.add(u64::from(!counted));
    }
    let phase = match stream.playlists().phase() {
        Phase::Waiting => "waiting",
        Phase::Live => "live",
        Phase::Ended => "ended",
    };
    let answer = Answer { session, viewers: stream.viewers().get(), phase, interval_s: HEARTBEAT_S };
    let mut response = HttpResponse::Ok().json(answer);
    let out = response.headers_mut();
    headers::cors(out);
    out.insert(header::CACHE_CONTROL, headers::NO_STORE);
    out.insert(header::CONTENT_TYPE, headers::JSON);
    response
}
