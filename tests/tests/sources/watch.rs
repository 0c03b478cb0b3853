//! A low-latency player that keeps everything: it follows both tracks by blocking reload, asks for each preload
//! hint at once, and keeps what it was answered and when.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use millrace_testkit::http;
use millrace_tests::playlist::{Media, Multivariant, Segment};
use reqwest::StatusCode;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

/// Time for the first playable playlist; streams that may take long say so in their row.
const START_LIMIT: Duration = Duration::from_secs(40);
/// A playlist that does not change for so long is stuck.
const STUCK_LIMIT: Duration = Duration::from_secs(20);
/// Pause between plain requests of a playlist.
const POLL: Duration = Duration::from_millis(150);
/// Time in which a blocking reload or a hint must be answered: three target durations and more (RFC 8216bis, 6.2.5.2).
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// One playlist as it was served.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// Time since the watch began.
    pub(crate) at: Duration,
    pub(crate) text: String,
    /// Media time at the end of the playlist in seconds, counted from the first segment ever listed.
    pub(crate) end: f64,
    pub(crate) ended: bool,
}

/// The answer to a preload hint.
#[derive(Debug, Clone)]
pub(crate) struct Hint {
    pub(crate) uri: String,
    pub(crate) status: u16,
    pub(crate) took: Duration,
    /// True if the hint was asked for when the stream was about to end.
    pub(crate) at_the_end: bool,
    /// True if the part was listed later: the machine, not the hint, was at fault.
    pub(crate) came: bool,
}

impl Hint {
    /// True if the hint named a part that never came.
    pub(crate) fn is_broken(&self) -> bool {
        self.status != StatusCode::OK.as_u16() && !self.at_the_end && !self.came
    }
}

/// One rendition as it was served.
#[derive(Debug, Clone, Default)]
pub(crate) struct Track {
    pub(crate) url: String,
    /// Segments by media sequence number with their bytes (none for gaps).
    pub(crate) segments: BTreeMap<u64, (Segment, Option<Bytes>)>,
    /// Initialisation sections by their URI.
    pub(crate) inits: BTreeMap<String, Bytes>,
    pub(crate) served: Vec<Served>,
    pub(crate) violations: Vec<String>,
    pub(crate) hints: Vec<Hint>,
    /// Listed references that were not answered with 200, GAPs among them: some players ask for them too.
    pub(crate) unanswered: Vec<String>,
}

/// A stream as it was watched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    pub(crate) multivariant: String,
    /// Time from the first request to the first playable multivariant playlist.
    pub(crate) playable_after: Duration,
    pub(crate) video: Track,
    pub(crate) audio: Track,
}

/// A viewer in a task of its own.
pub(crate) struct Watch {
    task: JoinHandle<Result<Watched>>,
}

impl Watch {
    /// Watches until ENDLIST on every track.
    pub(crate) fn start(hls_url: &str, after: Duration) -> Self {
        let hls_url = hls_url.to_owned();
        Self {
            task: tokio::spawn(async move {
                sleep(after).await;
                watch(hls_url).await
            }),
        }
    }

    pub(crate) async fn finish(self) -> Result<Watched> {
        self.task.await.context("a viewer's task")?
    }

    /// Ends a watch of a stream that never plays; true if it did play.
    pub(crate) fn give_up(self) -> bool {
        let played = self.task.is_finished();
        self.task.abort();
        played
    }
}

async fn watch(hls_url: String) -> Result<Watched> {
    let began = Instant::now();
    let multivariant = loop {
        let answer = http::fetch(http::shared_client().get(&hls_url)).await?;
        if answer.status == StatusCode::OK.as_u16() {
            break answer.text();
        }
        if began.elapsed() > START_LIMIT {
            bail!("no playable playlist within {START_LIMIT:?}: {} {}", answer.status, answer.text());
        }
        sleep(POLL).await;
    };
    let playable_after = began.elapsed();
    let main = Multivariant::parse(&multivariant)?;
    let mut tracks = Vec::new();
    for reference in main.variants.iter().take(1).chain(main.audio.iter().take(1)) {
        tracks.push(tokio::spawn(follow(http::resolve(&hls_url, reference)?, began)));
    }
    let mut found = Vec::new();
    for track in tracks {
        found.push(track.await.context("a track's task")??);
    }
    let mut found = found.into_iter();
    Ok(Watched {
        multivariant,
        playable_after,
        video: found.next().unwrap_or_default(),
        audio: found.next().unwrap_or_default(),
    })
}

async fn follow(url: String, began: Instant) -> Result<Track> {
    let mut track = Track { url, ..Track::default() };
    let mut hints: JoinSet<Hint> = JoinSet::new();
    let mut last: Option<Media> = None;
    let mut asked = String::new();
    let mut changed = Instant::now();
    loop {
        let url = last.as_ref().map_or_else(|| track.url.clone(), |list| blocking(&track.url, list));
        let text = match timeout(ANSWER_LIMIT, http::get_text(&url)).await {
            Ok(Ok(text)) => text,
            // Stopped streams and absent parts are answered without the wait: the plain playlist tells.
            _ => http::get_text(&track.url).await.with_context(|| track.url.clone())?,
        };
        if track.served.last().is_none_or(|served| served.text != text) {
            changed = Instant::now();
            let at = began.elapsed();
            let list = Media::parse(&text)?;
            if let Some(earlier) = &last {
                track.violations.extend(list.violations_after(earlier));
            }
            fetch_new(&mut track, &list).await?;
            let end = end_of(&track, &list, &text);
            track.served.push(Served { at, text: text.clone(), end, ended: list.ended });
            if list.ended {
                break;
            }
            if let Some(uri) = hint_of(&text).filter(|uri| *uri != asked) {
                uri.clone_into(&mut asked);
                hints.spawn(ask(http::resolve(&track.url, uri)?));
            }
            last = Some(list);
        } else {
            sleep(POLL).await;
        }
        if changed.elapsed() > STUCK_LIMIT {
            bail!("{} did not change for {STUCK_LIMIT:?}; last: {text}", track.url);
        }
    }
    while let Some(hint) = hints.join_next().await {
        track.hints.push(hint.context("a hint's task")?);
    }
    for hint in track.hints.iter_mut().filter(|hint| hint.status != StatusCode::OK.as_u16()) {
        let name = hint.uri.rsplit('/').next().unwrap_or_default().to_owned();
        let lists = |line: &str| line.starts_with("#EXT-X-PART:") && line.contains(&format!("/{name}\""));
        hint.came = track.served.iter().any(|served| served.text.lines().any(lists));
    }
    // The hint of the last live playlist is for media that an end makes impossible.
    let last = asked.rsplit('/').next().unwrap_or_default();
    for hint in track.hints.iter_mut().filter(|hint| hint.uri.ends_with(last)) {
        hint.at_the_end = true;
    }
    Ok(track)
}

/// The request that is answered when the next part is there (RFC 8216bis, 6.2.5.2).
fn blocking(url: &str, list: &Media) -> String {
    let next = list.media_sequence + list.segments.len() as u64;
    format!("{url}?_HLS_msn={next}&_HLS_part={}", list.open_parts)
}

fn hint_of(text: &str) -> Option<&str> {
    let line = text.lines().find(|line| line.starts_with("#EXT-X-PRELOAD-HINT:TYPE=PART"))?;
    line.split_once("URI=\"")?.1.split('"').next()
}

async fn ask(url: String) -> Hint {
    let began = Instant::now();
    let answer = timeout(ANSWER_LIMIT, http::fetch(http::shared_client().get(&url))).await;
    let status = answer.map_or(0, |answer| answer.map_or(0, |answer| answer.status));
    Hint { uri: url, status, took: began.elapsed(), at_the_end: false, came: false }
}

/// Media time at the playlist's end: the segments listed ever, and the parts of the open one.
fn end_of(track: &Track, list: &Media, text: &str) -> f64 {
    let segments: f64 = track.segments.values().map(|(segment, _)| segment.duration).sum();
    let open = text.lines().filter(|line| line.starts_with("#EXT-X-PART:")).rev().take(list.open_parts);
    let duration = |line: &str| line.split_once("DURATION=")?.1.split(',').next()?.parse::<f64>().ok();
    segments + open.filter_map(duration).sum::<f64>()
}

async fn fetch_new(track: &mut Track, list: &Media) -> Result<()> {
    for segment in &list.segments {
        if track.segments.contains_key(&segment.msn) {
            continue;
        }
        let mut bytes = None;
        if segment.gap {
            let url = http::resolve(&track.url, &segment.uri)?;
            let status = http::get(&url).await?.status;
            if status != StatusCode::OK.as_u16() {
                track.unanswered.push(format!("the GAP {} was answered {status}", segment.uri));
            }
        } else {
            if !track.inits.contains_key(&segment.init) {
                let init = http::get_ok(&http::resolve(&track.url, &segment.init)?).await?;
                track.inits.insert(segment.init.clone(), init);
            }
            bytes = Some(http::get_ok(&http::resolve(&track.url, &segment.uri)?).await?);
        }
        track.segments.insert(segment.msn, (segment.clone(), bytes));
    }
    Ok(())
}
