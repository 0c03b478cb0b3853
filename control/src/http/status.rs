//! The JSON that the API returns for the status of a livestream: its health in words, and its last disconnect.

use std::net::IpAddr;

use jiff::Timestamp;
use millrace_wire::ids::{BroadcastId, Epoch, NodeId, Rendition, StreamId, UnixMillis};
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::control::{HealthNote, Ladder};
use millrace_wire::message::ladder_health::{LadderHealth, RungHealth, RungState};
use serde::Serialize;

use super::dto::timestamp;
use crate::domain::claim::{Claim, Presence};
use crate::domain::disconnect::Disconnect;
use crate::domain::stream::{Status, Stream};

/// The consequence of a state store that takes no changes for a livestream.
const STATE_TEXT: &str = "a running publish goes on, a new one is refused until there is room, and this status may be out of date.";

#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    id: StreamId,
    status: Status,
    viewer_count: u64,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    health: Health,
    last_disconnect: Option<DisconnectView>,
}

#[derive(Debug, Serialize)]
struct Health {
    /// One of `idle`, `waiting_for_publisher`, `waiting_for_media`, `reconnecting`, `degraded` and `ok`.
    state: &'static str,
    /// The state in words for operators, e.g. `degraded: no capacity`.
    message: String,
    /// The conditions of the media that last, the worst first.
    notes: Vec<HealthNote>,
    /// The encoded rungs; `None` for a livestream that encodes nothing, or whose worker has reported nothing yet.
    ladder: Option<LadderView>,
    publisher: Option<Publisher>,
}

/// The encoded rungs of a livestream, as its worker reported them last.
#[derive(Debug, Serialize)]
struct LadderView {
    rungs: Vec<RungView>,
    decoder_waiting_ms: u32,
}

/// One encoded rung.
#[derive(Debug, Serialize)]
struct RungView {
    name: Rendition,
    state: RungState,
    encoder: Option<String>,
    /// Pictures per second of media.
    fps: f64,
    /// Bits per second of media.
    bitrate: u64,
    /// Seconds of media that the encoder makes in a second of CPU time.
    speed: f64,
    waiting_ms: u32,
}

impl LadderView {
    fn new(health: &LadderHealth) -> Self {
        let rung = |rung: &RungHealth| RungView {
            name: rung.rendition.clone(),
            state: rung.state,
            encoder: rung.encoder.clone(),
            fps: f64::from(rung.fps_milli) / 1_000.0,
            bitrate: rung.bitrate,
            speed: f64::from(rung.speed_percent) / 100.0,
            waiting_ms: rung.waiting_ms,
        };
        let rungs = health.rungs.iter().map(rung).collect();
        Self { rungs, decoder_waiting_ms: health.decoder_waiting_ms }
    }
}

#[derive(Debug, Serialize)]
struct Publisher {
    connected: bool,
    protocol: String,
    addr: Option<IpAddr>,
    node: NodeId,
    broadcast: BroadcastId,
    epoch: Epoch,
    connected_at: Option<Timestamp>,
}

/// The last refusal or end of a publish.
#[derive(Debug, Serialize)]
struct DisconnectView {
    code: String,
    text: String,
    at: Option<Timestamp>,
    protocol: String,
    addr: Option<IpAddr>,
    refused: bool,
}

impl StatusView {
    /// `refusal` is the reason for which the state store takes no changes, if it takes none.
    pub(crate) fn new(
        stream: &Stream,
        claim: Option<&Claim>,
        viewer_count: u64,
        refusal: Option<&str>,
        now: UnixMillis,
    ) -> Self {
        let claim = claim.filter(|_| matches!(stream.status, Status::Live | Status::Scheduled));
        Self {
            id: stream.id,
            status: stream.status,
            viewer_count,
            started_at: stream.started_at.and_then(timestamp),
            ended_at: stream.ended_at.and_then(timestamp),
            health: Health::new(stream, claim, refusal, now),
            last_disconnect: stream.last_disconnect.as_ref().map(DisconnectView::new),
        }
    }
}

impl StatusView {
    /// Returns the status as viewers see it: the state of the livestream without its publisher, without reasons and without notes.
    pub(crate) fn for_viewers(mut self) -> Self {
        let message = self.health.state.replace('_', " ");
        self.health = Health { message, notes: Vec::new(), ladder: None, publisher: None, ..self.health };
        Self { last_disconnect: None, ..self }
    }

    /// Returns the status of a livestream whose ladder names a template that is not configured.
    pub(crate) fn with_unknown_template(mut self, stream: &Stream) -> Self {
        let Ladder::Template(name) = &stream.settings.ladder else { return self };
        if !matches!(stream.status, Status::Live | Status::Scheduled) {
            return self;
        }
        let text = format!(
            "The ladder {name} is not among the configured templates: publishes are copied, nothing is encoded. \
             Configure it, or give the livestream another ladder."
        );
        let note = HealthNote::new("unknown_template", &text);
        if self.health.state == "ok" {
            self.health.state = "degraded";
            self.health.message = format!("degraded: {}", note.text);
        }
        self.health.notes.truncate(HealthNote::MAX - 1);
        self.health.notes.push(note);
        self
    }
}

impl Health {
    fn new(stream: &Stream, claim: Option<&Claim>, refusal: Option<&str>, now: UnixMillis) -> Self {
        let (mut state, mut message) = words(stream, claim, now);
        let publisher = claim.map(|claim| Publisher {
            connected: claim.is_held(now),
            protocol: claim.protocol.clone(),
            addr: claim.addr,
            node: claim.node.clone(),
            broadcast: claim.broadcast,
            epoch: claim.epoch,
            connected_at: timestamp(claim.granted_at),
        });
        let mut notes = claim.map(notes).unwrap_or_default();
        if let Some(refusal) = refusal.filter(|_| matches!(stream.status, Status::Live | Status::Scheduled)) {
            let note = HealthNote::new("state", &format!("{refusal}: {STATE_TEXT}"));
            (state, message) = ("degraded", format!("degraded: {}", note.text));
            notes.insert(0, note);
        }
        let ladder = claim.and_then(|claim| claim.ladder.as_deref()).map(LadderView::new);
        Self { state, message, notes, ladder, publisher }
    }
}

/// Returns the conditions that last: those of the media as ingest and worker note them, the rungs that are left out, and what the
/// decoder sees.
fn notes(claim: &Claim) -> Vec<HealthNote> {
    let ladder = claim.ladder.as_deref();
    let left_out =
        ladder.and_then(LadderHealth::words).map(|words| HealthNote::new("rungs_left_out", &words));
    let conditions = ladder.into_iter().flat_map(|ladder| &ladder.conditions);
    let conditions = conditions.map(|condition| HealthNote::new(condition.code(), condition.text()));
    let all = claim.notes.iter().cloned().chain(left_out).chain(conditions);
    all.take(HealthNote::MAX).collect()
}

/// Returns the state of a livestream and its words.
fn words(stream: &Stream, claim: Option<&Claim>, now: UnixMillis) -> (&'static str, String) {
    let (state, text) = match (stream.status, claim) {
        (Status::Live | Status::Scheduled, Some(claim)) => return words_of_claim(stream, claim, now),
        (Status::Live, None) => ("waiting_for_publisher", "no publisher has connected yet"),
        (Status::Scheduled, None) if stream.ready_at.is_some() => {
            ("waiting_for_publisher", "ready, and no publisher has connected yet")
        }
        (Status::Scheduled, None) => ("waiting_for_publisher", "not started"),
        (Status::Cancelled, _) => ("idle", "cancelled"),
        (Status::Ended, _) if stream.airs_again() => {
            ("waiting_for_publisher", "over: the next publish with one of its keys begins another broadcast")
        }
        (Status::Ended, _) => ("idle", "over: its keys are refused; reopen it for another broadcast"),
        (Status::Archived, _) => (
            "idle",
            "over and archived: its keys are refused, and it does not start again; create a new livestream",
        ),
    };
    let refused = stream.last_disconnect.as_ref().filter(|_| state == "waiting_for_publisher");
    let message = match refused {
        Some(last) if last.refused => format!("{text}; the last publisher was refused: {}", last.text),
        Some(last) => format!("{text}; the last publish ended before usable media came: {}", last.text),
        None => text.to_owned(),
    };
    (state, message)
}

fn words_of_claim(stream: &Stream, claim: &Claim, now: UnixMillis) -> (&'static str, String) {
    // The note of the rungs that are left out says which ones they are.
    let is_noted = claim.ladder.as_deref().and_then(LadderHealth::words).is_some();
    let of_rungs = |code: &Degraded| matches!(code, Degraded::EncodersFailing | Degraded::RungsShed);
    let degraded = claim.degraded.filter(|code| !(is_noted && of_rungs(code)));
    match (claim.presence, degraded, notes(claim).first()) {
        (Presence::Publishing, Some(degraded), _) => ("degraded", degraded.text().to_owned()),
        (Presence::Publishing, None, Some(note)) => ("degraded", format!("degraded: {}", note.text)),
        (Presence::Publishing, None, None) if !claim.begun => {
            ("waiting_for_media", "a publisher is connected, and no usable media have come yet".to_owned())
        }
        (Presence::Publishing, None, None) => ("ok", "on the air".to_owned()),
        (Presence::Away { .. }, ..) if !claim.begun => ("waiting_for_publisher", "not started".to_owned()),
        (Presence::Away { since }, ..) => {
            let gone_s = now.0.saturating_sub(since.0) / 1_000;
            let left_s = u64::from(claim.settings.reconnect_window).saturating_sub(gone_s);
            let why = stream.last_disconnect.as_ref().map_or("", |last| last.text.as_str());
            let text =
                format!("the publisher is away, and the livestream ends in {left_s} s without it: {why}");
            ("reconnecting", text.trim_end_matches(": ").to_owned())
        }
        (Presence::Ended { .. }, ..) => ("idle", "over".to_owned()),
    }
}

impl DisconnectView {
    fn new(last: &Disconnect) -> Self {
        let Disconnect { code, text, at, protocol, addr, refused } = last.clone();
        Self { code, text, at: timestamp(at), protocol, addr, refused }
    }
}
