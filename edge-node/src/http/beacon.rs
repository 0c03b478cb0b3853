//! `POST /live/{playback_id}/beacon`: the player says that it watches and learns how many do.

use std::net::IpAddr;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Bytes;
use millrace_wire::ids::PlaybackId;
use serde::{Deserialize, Serialize};

use super::{App, headers, refuse};
use crate::registry::NoStream;
use crate::view::Phase;
use crate::viewers::BEAT_S;

/// A session id and two words of JSON.
pub(super) const MAX_BODY: usize = 512;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Beat {
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

/// Answers a beat.
pub(super) async fn serve(
    app: &App,
    playback: PlaybackId,
    address: Option<IpAddr>,
    body: &Bytes,
) -> HttpResponse {
    let beat = match body.len() {
        0 => Beat::default(),
        n if n > MAX_BODY => return refuse::malformed(),
        _ => match serde_json::from_slice(body) {
            Ok(beat) => beat,
            Err(_) => return refuse::malformed(),
        },
    };
    let stream = match app.registry.follow(playback).await {
        Ok(stream) => stream,
        Err(NoStream::Unknown) => return refuse::missing(),
        Err(NoStream::Busy) => return refuse::busy(),
    };
    let given = beat.session.filter(|s| app.signer.check(stream.id, s).is_some());
    // A new session counts from its second beat: one that never comes back was no viewer.
    let session = given.clone().unwrap_or_else(|| app.signer.issue(stream.id));
    if let Some(id) = given.as_deref().and_then(|s| app.signer.check(stream.id, s)) {
        // Over a limit the viewer watches on, uncounted.
        let counted = address.is_some_and(|a| app.viewers.beat(&stream, a, id, !beat.leaving));
        app.metrics.beats_uncounted.add(u64::from(!counted));
    }
    let phase = match stream.view().phase() {
        Phase::Waiting => "waiting",
        Phase::Live => "live",
        Phase::Ended => "ended",
    };
    let answer = Answer { session, viewers: stream.viewers(), phase, interval_s: BEAT_S };
    let mut response = HttpResponse::Ok().json(answer);
    let out = response.headers_mut();
    headers::cors(out);
    out.insert(header::CACHE_CONTROL, headers::NO_STORE);
    out.insert(header::CONTENT_TYPE, headers::JSON);
    response
}
