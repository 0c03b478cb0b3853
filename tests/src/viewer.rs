//! A viewer that keeps everything: it polls the media playlists, fetches each segment once, and records every
//! fault that a player would meet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use millrace_media::container::cmaf::demux::{parse_fragments, parse_init};
use millrace_media::hls::checker::Checker;
use tokio::task::JoinHandle;

use crate::playlist::{Media, Multivariant, Segment};
use millrace_testkit::{http, wait};

/// The interval between two requests of a playlist; far below a segment, so that none leaves the window
/// unseen.
const POLL: Duration = Duration::from_millis(150);
/// Time for the first playable playlist.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Half of the target duration of 2 s, in seconds.
const SHORTEST_MEASURED: f64 = 1.0;
/// A playlist that does not change for so long is stuck.
const STUCK_LIMIT: Duration = Duration::from_secs(30);

/// The end of a playlist at one time.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// The time at which the playlist was read.
    pub at: Instant,
    /// Seconds of media from the first segment that was ever listed to the end of the newest part.
    pub end: f64,
}

/// One rendition as it was served.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// URL of the media playlist.
    pub url: String,
    /// Segments by media sequence number, with their bytes (none for gaps).
    pub segments: BTreeMap<u64, (Segment, Option<Bytes>)>,
    /// Initialisation sections by the references of the playlists.
    pub inits: BTreeMap<String, Bytes>,
    /// Every different playlist text, in order.
    pub playlists: Vec<String>,
    /// The media that was listed, and when.
    pub growth: Vec<Growth>,
    /// The promises that the playlists broke.
    pub violations: Vec<String>,
    /// Requests that failed (an edge that was away), and were tried again.
    pub failures: u64,
}

impl Track {
    /// The samples of all segments in order: access units or audio frames, byte for byte.
    pub fn samples(&self) -> Result<Vec<Bytes>> {
        self.samples_where(|_| true)
    }

    /// The samples of the segments that `choose` takes.
    pub fn samples_where(&self, choose: impl Fn(&Segment) -> bool) -> Result<Vec<Bytes>> {
        let mut samples = Vec::new();
        for (segment, bytes) in self.segments.values().filter(|(segment, _)| choose(segment)) {
            let Some(bytes) = bytes else { continue };
            let fragments = parse_fragments(bytes).with_context(|| segment.uri.clone())?;
            samples.extend(fragments.into_iter().flat_map(|part| part.samples).map(|sample| sample.data));
        }
        Ok(samples)
    }

    /// Returns the number of discontinuities between the first and the last segment.
    pub fn discontinuities(&self) -> usize {
        self.segments.values().skip(1).filter(|(segment, _)| segment.discontinuity).count()
    }

    /// Fails when anything a player would choke on was served.
    pub fn check(&self) -> Result<()> {
        self.check_but(&[])
    }

    /// The same but for these rules of the checker, by name.
    pub fn check_but(&self, excused: &[&str]) -> Result<()> {
        if !self.violations.is_empty() {
            bail!("{}: {:#?}", self.url, self.violations);
        }
        let mut checker = Checker::new();
        let mut before = "";
        for text in &self.playlists {
            let broken = checker.check(text).into_iter().map(|one| one.to_string());
            let broken: Vec<String> =
                broken.filter(|one| !excused.iter().any(|rule| one.starts_with(rule))).collect();
            if !broken.is_empty() {
                bail!("{}: {broken:#?}\n--- served:\n{text}\n--- after:\n{before}", self.url);
            }
            before = text;
        }
        let numbers: Vec<u64> = self.segments.keys().copied().collect();
        for (before, after) in numbers.iter().zip(numbers.iter().skip(1)) {
            if *after != before + 1 {
                bail!("{}: segments between {before} and {after} were never listed", self.url);
            }
        }
        Ok(())
    }
}

/// Both tracks of a watched stream.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The media playlist of the first variant.
    pub video: Track,
    /// The media playlist of the first audio rendition.
    pub audio: Track,
    /// BANDWIDTH of the first variant at the end.
    pub bandwidth: u64,
}

impl Recording {
    /// Fails when the segments need more than BANDWIDTH declares, beyond the tenth that players are to expect
    /// (HLS authoring specification, 1.26).
    pub fn check_bandwidth(&self) -> Result<()> {
        for (msn, (segment, bytes)) in &self.video.segments {
            let audio = self.audio.segments.get(msn).and_then(|(_, bytes)| bytes.as_ref());
            let bytes = bytes.as_ref().map_or(0, Bytes::len) + audio.map_or(0, Bytes::len);
            let rate = bytes as f64 * 8.0 / segment.duration;
            // Shorter ones are no measure of a rate (RFC 8216, 4.3.4.2).
            if segment.duration >= SHORTEST_MEASURED && rate > self.bandwidth as f64 * 1.1 {
                bail!("segment {msn} has {rate:.0} b/s, BANDWIDTH is {}", self.bandwidth);
            }
        }
        Ok(())
    }
}

/// A viewer that is following a stream.
#[derive(Debug)]
pub struct Viewer {
    hls_url: String,
    tracks: Vec<JoinHandle<Result<Track>>>,
}

impl Viewer {
    /// Opens the multivariant playlist (waiting for the stream to start) and follows what it names, in tasks of their own.
    pub async fn watch(hls_url: &str) -> Result<Self> {
        let text = wait::value(&format!("{hls_url} to play"), START_LIMIT, || async {
            http::get_text(hls_url).await.ok()
        })
        .await?;
        let main = Multivariant::parse(&text)?;
        let mut tracks = Vec::new();
        for reference in main.variants.iter().take(1).chain(main.audio.iter().take(1)) {
            let url = http::resolve(hls_url, reference)?;
            tracks.push(tokio::spawn(follow(url)));
        }
        Ok(Self { hls_url: hls_url.to_owned(), tracks })
    }

    /// Waits for ENDLIST on every track. A stream without audio gives an empty audio track.
    pub async fn finish(self) -> Result<Recording> {
        let mut tracks = Vec::new();
        for task in self.tracks {
            tracks.push(task.await.context("a viewer's task")??);
        }
        let mut tracks = tracks.into_iter();
        let video = tracks.next().unwrap_or_default();
        let main = Multivariant::parse(&http::get_text(&self.hls_url).await?)?;
        let bandwidth = main.bandwidths.first().copied().unwrap_or_default();
        Ok(Recording { video, audio: tracks.next().unwrap_or_default(), bandwidth })
    }
}

/// Follows one media playlist to its end.
pub(crate) async fn follow(url: String) -> Result<Track> {
    let mut track = Track { url, ..Track::default() };
    let mut last: Option<Media> = None;
    let mut changed = Instant::now();
    loop {
        match http::get_text(&track.url).await {
            Err(_) => track.failures += 1,
            Ok(text) if track.playlists.last() == Some(&text) => {}
            Ok(text) => {
                changed = Instant::now();
                let playlist = Media::parse(&text)?;
                if let Some(earlier) = &last {
                    track.violations.extend(playlist.violations_after(earlier));
                }
                fetch_new(&mut track, &playlist).await?;
                let listed: f64 = track.segments.values().map(|(segment, _)| segment.duration).sum();
                track.growth.push(Growth { at: changed, end: listed + playlist.open_seconds });
                track.playlists.push(text);
                if playlist.ended {
                    return Ok(track);
                }
                last = Some(playlist);
            }
        }
        if changed.elapsed() > STUCK_LIMIT {
            bail!("{} did not change for {STUCK_LIMIT:?}; last: {:?}", track.url, track.playlists.last());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn fetch_new(track: &mut Track, playlist: &Media) -> Result<()> {
    for segment in &playlist.segments {
        if track.segments.contains_key(&segment.msn) {
            continue;
        }
        let bytes = if segment.gap { None } else { Some(fetch_segment(track, segment).await?) };
        track.segments.insert(segment.msn, (segment.clone(), bytes));
    }
    Ok(())
}

/// A listed segment must be there; an edge that is being restarted gets a few seconds.
async fn fetch_segment(track: &mut Track, segment: &Segment) -> Result<Bytes> {
    let init = http::resolve(&track.url, &segment.init)?;
    let url = http::resolve(&track.url, &segment.uri)?;
    let bytes = wait::value(&url, START_LIMIT, || async { http::get_ok(&url).await.ok() }).await?;
    if !track.inits.contains_key(&segment.init) {
        let bytes = wait::value(&init, START_LIMIT, || async { http::get_ok(&init).await.ok() }).await?;
        parse_init(&bytes).with_context(|| init.clone())?;
        track.inits.insert(segment.init.clone(), bytes);
    }
    Ok(bytes)
}
