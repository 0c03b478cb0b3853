//! `GET /ws`: a WebSocket by which a site's page says that its viewer watches. A viewer counts from its message `watch` on until the
//! connection ends, or until nothing has come for a while: the edge asks every four seconds.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderName};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures::StreamExt as _;
use millrace_wire::ids::PlaybackId;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::app::App;
use super::{error_response, viewers};
use crate::audience::counting::client;
use crate::audience::frames::{Frame, Frames, Refused, accept, close, ping, pong, text};
use crate::audience::identity::{Client, Identity};
use crate::live::stream::LiveStream;

/// Pause between two looks for a changed count, of which the page is told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause between two pings. It is shorter than the time between two looks at a connection, so that each of them finds one that is in
/// use.
const PING_EVERY: Duration = Duration::from_secs(4);
/// A connection on which nothing has come for so long is over: two pings without an answer.
const SILENCE: Duration = Duration::from_secs(10);
/// Videos that one connection may watch at once: those of a page with several players.
const MAX_WATCHED: usize = 8;
/// The longest id of a viewer in bytes.
const MAX_VIEWER_ID: usize = 128;
/// Frames that wait for a client that does not read; further ones end the connection.
const QUEUE: usize = 16;
/// The codes with which the server closes (RFC 6455 §7.4.1).
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;

const SEC_WEBSOCKET_KEY: HeaderName = header::SEC_WEBSOCKET_KEY;

/// A message of a page. The video site names its kind `type`, other clients `event`.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type", alias = "event")]
    kind: String,
    #[serde(rename = "videoId")]
    video: String,
    #[serde(rename = "viewerId", default)]
    viewer: Option<String>,
}

/// Answers the handshake (RFC 6455 §4.2) and serves the connection in a task of its own.
pub(super) async fn open(app: Data<App>, request: HttpRequest, payload: Payload) -> HttpResponse {
    let headers = request.headers();
    let has = |name: HeaderName, token: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let is_upgrade = has(header::UPGRADE, "websocket") && has(header::SEC_WEBSOCKET_VERSION, "13");
    let Some(key) = key.filter(|_| is_upgrade) else { return error_response::bad_request() };
    // A page of another origin may watch where it may read playlists.
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    if origin.is_some_and(|origin| !app.allow_origin.allows(origin)) {
        return error_response::forbidden();
    }
    let Ok(permit) = app.sockets.clone().try_acquire_owned() else { return error_response::unavailable() };
    let Some(from) = viewers::origin(&app, &request) else { return error_response::bad_request() };
    let (out, frames) = mpsc::channel::<Vec<u8>>(QUEUE);
    let session = Session {
        app: app.into_inner(),
        address: from.address,
        agent: from.agent.to_vec(),
        out,
        watched: HashMap::new(),
        _permit: permit,
    };
    let accept = accept(key);
    actix_web::rt::spawn(session.run(payload));
    let frames = futures::stream::unfold(frames, async |mut frames| {
        let frame = frames.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), frames))
    });
    HttpResponse::SwitchingProtocols()
        .upgrade("websocket")
        .insert_header((header::SEC_WEBSOCKET_ACCEPT, accept))
        .streaming(frames)
}

/// A video that a connection watches.
struct Watching {
    stream: Arc<LiveStream>,
    viewer: String,
    /// The count that the page was told last.
    told: Option<u64>,
}

/// One connection.
struct Session {
    app: Arc<App>,
    address: std::net::IpAddr,
    agent: Vec<u8>,
    out: mpsc::Sender<Vec<u8>>,
    watched: HashMap<PlaybackId, Watching>,
    _permit: OwnedSemaphorePermit,
}

impl Session {
    async fn run(mut self, payload: Payload) {
        let code = self.serve(payload).await;
        for watching in self.watched.values() {
            self.announce(watching, false);
        }
        // Without room the client does not read, and the connection ends as well.
        let _ = self.out.try_send(close(code));
    }

    /// Serves until the client leaves; returns the code to close with.
    async fn serve(&mut self, mut payload: Payload) -> u16 {
        let mut frames = Frames::default();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let (mut heard, mut pinged) = (tokio::time::Instant::now(), tokio::time::Instant::now());
        let app = self.app.clone();
        loop {
            tokio::select! {
                piece = payload.next() => {
                    let Some(Ok(piece)) = piece else { return NORMAL };
                    heard = tokio::time::Instant::now();
                    match self.take(&mut frames, &piece).await {
                        Ok(true) => {}
                        Ok(false) => return NORMAL,
                        Err(Refused(code)) => return code,
                    }
                }
                now = looks.tick() => {
                    if heard.elapsed() >= SILENCE || self.out.is_closed() {
                        return GOING_AWAY;
                    }
                    if now - pinged >= PING_EVERY {
                        pinged = now;
                        if self.out.try_send(ping()).is_err() {
                            return GOING_AWAY;
                        }
                    }
                    self.tell();
                }
                () = app.stop.cancelled() => return GOING_AWAY,
            }
        }
    }

    /// Takes bytes of the client; false once it closes.
    async fn take(&mut self, frames: &mut Frames, piece: &[u8]) -> Result<bool, Refused> {
        frames.push(piece)?;
        while let Some(frame) = frames.read()? {
            match frame {
                Frame::Text(message) => self.hear(&message).await,
                Frame::Ping(body) => drop(self.out.try_send(pong(&body))),
                Frame::Pong => {}
                Frame::Close => return Ok(false),
            }
        }
        // Whatever came shows that the viewer is there.
        self.watched.values().for_each(|watching| self.announce(watching, true));
        Ok(true)
    }

    async fn hear(&mut self, message: &str) {
        let Ok(Message { kind, video, viewer }) = serde_json::from_str(message) else {
            return self.refuse("not a message of this protocol");
        };
        let Ok(playback) = video.parse::<PlaybackId>() else { return self.refuse("unknown video") };
        match kind.as_str() {
            // A page that gives its viewer no id has one viewer for each connection.
            "watch" => {
                let viewer = viewer.filter(|id| !id.is_empty());
                self.watch(playback, viewer.unwrap_or_else(|| rand::random::<u128>().to_string())).await;
            }
            "leave" | "unwatch" => {
                if let Some(watching) = self.watched.remove(&playback) {
                    self.announce(&watching, false);
                }
            }
            _ => self.refuse("unknown type of message"),
        }
    }

    async fn watch(&mut self, playback: PlaybackId, viewer: String) {
        if viewer.len() > MAX_VIEWER_ID || self.watched.len() >= MAX_WATCHED {
            return self.refuse("too long an id, or too many videos on one connection");
        }
        let Ok(stream) = self.app.open(playback).await else { return self.refuse("unknown video") };
        if let Some(before) = self.watched.insert(playback, Watching { stream, viewer, told: None })
            && self.watched.get(&playback).is_some_and(|now| now.viewer != before.viewer)
        {
            self.announce(&before, false);
        }
        self.watched.values().for_each(|watching| self.announce(watching, true));
        self.tell();
    }

    /// Counts the viewer of a video, or no longer.
    fn announce(&self, watching: &Watching, is_there: bool) {
        let from: Client<'_> = client(self.address, &self.agent);
        let identity = Identity::Watch(&watching.viewer);
        self.app.counting.announced(watching.stream.watched(), identity, from, is_there);
    }

    /// Tells the page the counts that have changed.
    fn tell(&mut self) {
        for (video, watching) in &mut self.watched {
            let viewers = watching.stream.viewers().get();
            let message =
                serde_json::json!({ "type": "viewers", "videoId": video.to_string(), "viewers": viewers });
            if watching.told != Some(viewers) && self.out.try_send(text(&message.to_string())).is_ok() {
                watching.told = Some(viewers);
            }
        }
    }

    fn refuse(&self, reason: &str) {
        let message = serde_json::json!({ "type": "error", "error": reason });
        let _ = self.out.try_send(text(&message.to_string()));
    }
}
