//! `POST /live/{playback_id}/beacon`: a player's heartbeat, which is answered with the stream's phase, tracks and number of
//! viewers.
//!
//! A player that sends the `state` of its last answer gets the next one when the state has changed, at the latest after an
//! interval: it hears at once that the publisher is away or that a track was added, for one request in each interval.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures::StreamExt as _;
use millrace_runtime::running_sleep;
use millrace_wire::ids::{PlaybackId, Rendition};
use serde::{Deserialize, Serialize};

use super::app::App;
use super::{error_response, headers, viewers};
use crate::audience::counting::HEARTBEAT_S;
use crate::audience::identity::Identity;
use crate::live::playlists::Status;
use crate::live::stream::LiveStream;

/// The longest request body in bytes: a session id, a state and the names of a few JSON members.
const MAX_BODY: usize = 512;
/// The time in which the body must come. Players send it with the head.
const BODY_LIMIT: Duration = Duration::from_secs(5);
/// The time for which the first answer waits until the edge has found out what the stream is: a feed's two requests for
/// snapshots and its look at the checkpoint, with room for a loaded machine.
const FIRST_HOLD: Duration = Duration::from_secs(1);

/// The body of a request; an empty one asks for a new session.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    session: Option<String>,
    leaving: bool,
    state: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    session: String,
    viewers: u64,
    phase: &'static str,
    tracks: Vec<&'a str>,
    state: String,
    interval_s: u64,
}

/// Answers a heartbeat with the stream's phase, its tracks and its number of viewers.
pub(super) async fn serve(
    app: &App,
    playback: PlaybackId,
    request: &HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let sent = match read(payload).await {
        Ok(body) if body.is_empty() => Body::default(),
        Ok(body) => match serde_json::from_slice(&body) {
            Ok(sent) => sent,
            Err(_) => return error_response::bad_request(),
        },
        Err(Unread::Malformed) => return error_response::bad_request(),
        Err(Unread::TooLong) => return error_response::too_large(),
        Err(Unread::Late) => return error_response::request_timeout(),
    };
    let stream = match app.open(playback).await {
        Ok(stream) => stream,
        Err(reason) => return error_response::not_served(reason),
    };
    let Body { session, leaving, state } = sent;
    let signed = session.filter(|session| app.signer.check(stream.id, session).is_some());
    // A new session counts from its second heartbeat: a client that sends one and never comes back is no viewer.
    let session = signed.clone().unwrap_or_else(|| app.signer.issue(stream.id));
    if let Some(id) = signed.as_deref().and_then(|session| app.signer.check(stream.id, session)) {
        let id = u128::from_str_radix(id, 16).map(Identity::Beacon);
        if let Some((client, id)) = viewers::origin(app, request).zip(id.ok()) {
            app.counting.announced(stream.watched(), id, client, !leaving);
        }
    }
    if !leaving {
        hold(app, &stream, state.as_deref()).await;
    }
    answer(&stream, session)
}

/// The reason why a body could not be read.
enum Unread {
    Malformed,
    TooLong,
    Late,
}

/// Reads the body.
async fn read(mut payload: Payload) -> Result<Bytes, Unread> {
    let read = async {
        let mut body = BytesMut::new();
        while let Some(piece) = payload.next().await {
            let Ok(piece) = piece else { return Err(Unread::Malformed) };
            if body.len() + piece.len() > MAX_BODY {
                return Err(Unread::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    };
    millrace_runtime::timeout(BODY_LIMIT, read).await.unwrap_or(Err(Unread::Late))
}

/// Waits until the stream's status differs from the one that the player knows, or is known at all.
async fn hold(app: &App, stream: &LiveStream, known: Option<&str>) {
    let tag = known.and_then(|state| u64::from_str_radix(state, 16).ok());
    let limit = if tag.is_some() { Duration::from_secs(HEARTBEAT_S) } else { FIRST_HOLD };
    let is_news = |status: &Status| tag.map_or(status.known, |tag| status.tag != tag);
    let mut status = stream.watch_status();
    if is_news(&status.borrow()) {
        return;
    }
    // Without room among those that wait, the answer comes at once and the player asks again after the interval.
    let Ok(_permit) = app.held_beacons.try_acquire() else { return };
    tokio::select! {
        _ = status.wait_for(is_news) => {}
        () = running_sleep(limit) => {}
        () = app.stop.cancelled() => {}
    }
}

fn answer(stream: &LiveStream, session: String) -> HttpResponse {
    let playlists = stream.playlists();
    let Status { phase, tag, .. } = playlists.status();
    let answer = Answer {
        session,
        viewers: stream.viewers().get(),
        phase: phase.as_str(),
        tracks: playlists.tracks().map(Rendition::as_str).collect(),
        state: format!("{tag:016x}"),
        interval_s: HEARTBEAT_S,
    };
    let mut response = HttpResponse::Ok().json(answer);
    let out = response.headers_mut();
    headers::cors(out);
    out.insert(header::CACHE_CONTROL, headers::NO_STORE);
    out.insert(header::CONTENT_TYPE, headers::JSON);
    response
}
