//! The JSON that the API returns for livestreams.

use std::collections::BTreeMap;

use jiff::Timestamp;
use millrace_wire::ids::{BroadcastId, PlaybackId, StreamId, StreamKey, UnixMillis};
use millrace_wire::message::control::{AwayPolicy, Ladder, Takeover};
use millrace_wire::object_names;
use serde::Serialize;

use crate::Config;
use crate::domain::access::Owner;
use crate::domain::stream::{Status, Stream};
use crate::domain::validate::TakesEffect;

/// The URLs for publishers and viewers: configured, or made from the host of the API request.
#[derive(Debug, Clone)]
pub(crate) struct Urls {
    rtmp_url: Option<String>,
    edge_url: Option<String>,
    rtmp_port: u16,
    edge_port: u16,
}

impl Urls {
    pub(crate) fn new(config: &Config) -> Self {
        let trim = |url: &Option<String>| url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
        Self {
            rtmp_url: trim(&config.rtmp_url),
            edge_url: trim(&config.edge_url),
            rtmp_port: config.rtmp_port,
            edge_port: config.edge_port,
        }
    }

    fn rtmp(&self, authority: &str) -> String {
        self.rtmp_url.clone().unwrap_or_else(|| format!("rtmp://{}:{}/live", host(authority), self.rtmp_port))
    }

    /// Returns the base of playback URLs.
    pub(crate) fn edge(&self, authority: &str) -> String {
        self.edge_url.clone().unwrap_or_else(|| format!("http://{}:{}", host(authority), self.edge_port))
    }
}

/// Returns the host of `host:port` or `[v6]:port`.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct StreamView {
    id: StreamId,
    playback_id: PlaybackId,
    /// The owner; `None` in the answers to viewers.
    owner: Option<Owner>,
    title: String,
    description: String,
    status: Status,
    scheduled_at: Option<Timestamp>,
    created_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    /// The time an operator marked it as ready to go live.
    ready_at: Option<Timestamp>,
    /// True if its keys begin another broadcast after one has ended.
    reusable: bool,
    /// The broadcast that is on, or the last one.
    broadcast_id: Option<BroadcastId>,
    record: bool,
    publish_playlist: bool,
    takeover: Takeover,
    away: AwayPolicy,
    reconnect_window_s: u32,
    target_duration_s: u32,
    part_ms: u32,
    list_segments: Option<u32>,
    ladder: Ladder,
    /// The URL for publishers; `None` in the answers to viewers.
    rtmp_url: Option<String>,
    /// The URL for players; `None` unless the livestream is live, save in the answer that creates it.
    hls_url: Option<String>,
    watch_url: String,
    thumbnail_url: String,
    /// The stream key, in the answer that creates or replaces it and in no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_key: Option<String>,
}

impl StreamView {
    pub(crate) fn new(stream: &Stream, urls: &Urls, authority: &str) -> Self {
        let (edge, playback) = (urls.edge(authority), stream.playback_id);
        Self {
            id: stream.id,
            playback_id: playback,
            owner: stream.owner.clone(),
            title: stream.title.clone(),
            description: stream.description.clone(),
            status: stream.status,
            scheduled_at: stream.scheduled_at.and_then(timestamp),
            created_at: timestamp(stream.created_at),
            started_at: stream.started_at.and_then(timestamp),
            ended_at: stream.ended_at.and_then(timestamp),
            ready_at: stream.ready_at.and_then(timestamp),
            reusable: stream.airings.reusable,
            broadcast_id: stream.broadcast,
            record: stream.settings.record,
            publish_playlist: stream.settings.publish_playlist,
            takeover: stream.settings.takeover,
            away: stream.settings.away,
            reconnect_window_s: stream.settings.reconnect_window,
            target_duration_s: stream.settings.target_duration,
            part_ms: stream.settings.part_ms,
            list_segments: stream.settings.list_segments,
            ladder: stream.settings.ladder.clone(),
            rtmp_url: Some(urls.rtmp(authority)),
            hls_url: (stream.status == Status::Live).then(|| hls_url(&edge, playback)),
            watch_url: format!("{edge}/watch/{playback}"),
            thumbnail_url: format!("{edge}/{}", object_names::thumbnail(playback)),
            stream_key: None,
        }
    }

    /// Returns the livestream as viewers see it: without its owner and its ingest URL.
    pub(crate) fn for_viewers(self) -> Self {
        Self { owner: None, rtmp_url: None, stream_key: None, ..self }
    }

    /// Returns the answer that creates the livestream: with the key, and with the URL for players from its first picture on.
    pub(crate) fn created(self, urls: &Urls, authority: &str, key: &StreamKey) -> Self {
        let url = hls_url(&urls.edge(authority), self.playback_id);
        Self { hls_url: Some(url), ..self.with_key(key) }
    }

    pub(crate) fn with_key(self, key: &StreamKey) -> Self {
        Self { stream_key: Some(key.reveal()), ..self }
    }
}

fn hls_url(edge: &str, playback: PlaybackId) -> String {
    format!("{edge}/live/{playback}/index.m3u8")
}

/// A changed livestream.
#[derive(Debug, Serialize)]
pub(crate) struct Updated {
    #[serde(flatten)]
    pub(crate) livestream: StreamView,
    /// The changed fields, and the times at which their changes take effect.
    pub(crate) takes_effect: BTreeMap<&'static str, TakesEffect>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Page {
    pub(crate) livestreams: Vec<StreamView>,
    /// The value of `cursor` for the next page; null on the last one.
    pub(crate) next_cursor: Option<StreamId>,
}

pub(super) fn timestamp(at: UnixMillis) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_configured_or_made_from_the_host_of_the_request() {
        let urls = Urls::new(&Config::default());
        assert_eq!(urls.rtmp("example.com:8080"), "rtmp://example.com:1935/live");
        assert_eq!(urls.edge("[::1]:8080"), "http://[::1]:8000");
        assert_eq!(urls.edge("[::1]"), "http://[::1]:8000");
        let given = Config { edge_url: Some("https://cdn.example.com/".to_owned()), ..Config::default() };
        assert_eq!(Urls::new(&given).edge("x"), "https://cdn.example.com");
    }
}
