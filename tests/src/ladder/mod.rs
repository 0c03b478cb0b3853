//! A viewer of every rendition of a stream, and the rules that the renditions of a ladder hold among them.

pub mod children;
pub mod pictures;
pub mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_media::container::cmaf::demux::{Fragment, parse_fragments};
use millrace_testkit::{http, wait};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::known_clip::ClipSpec;
use crate::playlist::{Media, Multivariant};
use crate::viewer::{Track, follow};

/// Time from the publish to a multivariant playlist with every rendition, on a busy two-core machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The name of the rendition that has the source's own pictures.
pub const COPY: &str = "video";
/// The names of the two rungs of [`small_rungs`].
pub const RUNGS: [&str; 2] = ["240p", "144p"];

/// Returns the rungs that most tests ask for: two cores encode several such ladders.
pub fn small_rungs() -> Value {
    json!([{ "height": 240, "bitrate": 400_000 }, { "height": 144, "bitrate": 200_000, "preset": "ultrafast" }])
}

/// Returns the clip that most tests push: 640 × 360, 2 s from keyframe to keyframe, B-frames, sound.
pub fn small_clip(seconds: u32) -> ClipSpec {
    ClipSpec { width: 640, height: 360, ..crate::known_clip::seconds(seconds) }
}

/// The renditions of a stream as they were served, by name.
#[derive(Debug, Clone)]
pub struct Ladder {
    /// The multivariant playlist with which the watch began.
    pub multivariant: Multivariant,
    /// Every rendition that the multivariant playlist named, video and audio.
    pub tracks: BTreeMap<String, Track>,
}

/// A viewer that follows all renditions at once.
#[derive(Debug)]
pub struct LadderWatch {
    multivariant: Multivariant,
    tracks: BTreeMap<String, JoinHandle<Result<Track>>>,
}

/// Returns the name of the rendition whose media playlist `reference` names: `240p/index.m3u8`.
fn rendition_of(reference: &str) -> String {
    reference.split('/').next().unwrap_or(reference).to_owned()
}

impl LadderWatch {
    /// Waits until the multivariant playlist has these renditions, and follows each of them in a task of its own.
    pub async fn begin(hls_url: &str, renditions: &[&str]) -> Result<Self> {
        let seen = std::cell::RefCell::new(String::new());
        let what = format!("{renditions:?} in {hls_url}");
        let found = wait::value(&what, START_LIMIT, || async {
            let text = http::get_text(hls_url).await.ok()?;
            let main = Multivariant::parse(&text).ok();
            *seen.borrow_mut() = text;
            let names: BTreeSet<String> = main.iter().flat_map(references).map(rendition_of).collect();
            renditions.iter().all(|name| names.contains(*name)).then_some(main).flatten()
        });
        let multivariant = found.await.with_context(|| format!("last: {}", seen.borrow()))?;
        let mut tracks = BTreeMap::new();
        for reference in references(&multivariant) {
            let url = http::resolve(hls_url, reference)?;
            tracks.entry(rendition_of(reference)).or_insert_with(|| tokio::spawn(follow(url)));
        }
        Ok(Self { multivariant, tracks })
    }

    /// Waits for ENDLIST in every rendition.
    pub async fn finish(self) -> Result<Ladder> {
        let mut tracks = BTreeMap::new();
        for (name, task) in self.tracks {
            let track = task.await.context("a viewer's task")?.with_context(|| name.clone())?;
            tracks.insert(name, track);
        }
        Ok(Ladder { multivariant: self.multivariant, tracks })
    }
}

fn references(main: &Multivariant) -> impl Iterator<Item = &str> {
    main.variants.iter().chain(&main.audio).map(String::as_str)
}

impl Ladder {
    /// Returns a rendition.
    pub fn track(&self, name: &str) -> Result<&Track> {
        self.tracks.get(name).with_context(|| format!("no rendition {name} in {:?}", self.tracks.keys()))
    }

    /// Returns the place of a rendition among the variants.
    pub fn variant(&self, name: &str) -> Result<usize> {
        let place = self.multivariant.variants.iter().position(|uri| rendition_of(uri) == name);
        place.with_context(|| format!("no variant {name} in {:?}", self.multivariant.variants))
    }

    /// Returns every segment that has bytes, as rendition and media sequence number.
    pub fn segments(&self) -> BTreeSet<(String, u64)> {
        let of_track = |(name, track): (&String, &Track)| {
            let held: Vec<_> = track.segments.iter().filter(|(_, (_, bytes))| bytes.is_some()).collect();
            held.into_iter().map(|(msn, _)| (name.clone(), *msn)).collect::<Vec<_>>()
        };
        self.tracks.iter().flat_map(of_track).collect()
    }
}

/// Returns the number of segments that a rendition has bytes of.
pub fn held(track: &Track) -> usize {
    track.segments.values().filter(|(_, bytes)| bytes.is_some()).count()
}

/// Returns the media sequence numbers that a rendition lists as GAP although the copied one has their media.
pub fn gaps(copy: &Track, track: &Track) -> Vec<u64> {
    let has_copy = |msn: &u64| copy.segments.get(msn).is_some_and(|(_, bytes)| bytes.is_some());
    let gaps = track.segments.iter().filter(|(msn, (segment, _))| segment.gap && has_copy(msn));
    gaps.map(|(msn, _)| *msn).collect()
}

/// Waits until a segment after `complete` others is open and has some parts, and returns its number.
pub async fn until_mid_segment(playlist_url: &str, complete: usize, limit: Duration) -> Result<u64> {
    wait::value("a segment that is half done", limit, || async {
        let playlist = Media::parse(&http::get_text(playlist_url).await.ok()?).ok()?;
        let open = playlist.media_sequence + playlist.segments.len() as u64;
        (playlist.segments.len() >= complete && (3..=6).contains(&playlist.open_parts)).then_some(open)
    })
    .await
}

/// The pauses of a rendition around the time `at`, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    /// The longest time without a new part.
    pub pause: f64,
    /// From `at` until the playlist is as close to the live edge again as it was.
    pub back_at_edge: f64,
}

/// The playlist may be so much further behind its publisher than before, and counts as back at the live edge: two requests of
/// the viewer, and a part.
const EDGE_TOLERANCE: f64 = 0.75;

/// Measures the outage of a rendition that began at `at`.
pub fn outage(track: &Track, at: Instant) -> Result<Outage> {
    let seconds = |time: Instant| time.duration_since(at).as_secs_f64();
    // Before the outage: how far the clock was ahead of the media, at the best of times.
    let before = track.growth.iter().filter(|growth| growth.at < at);
    let lead = before.map(|growth| -at.duration_since(growth.at).as_secs_f64() - growth.end);
    let lead = lead.fold(f64::INFINITY, f64::min);
    ensure!(lead.is_finite(), "{}: no media before the outage", track.url);
    let pause = longest_pause(track, at);
    // Behind the longest pause, because the first parts after `at` may have been made before it.
    let times = track.growth.iter().zip(track.growth.iter().skip(1)).filter(|(growth, _)| growth.at >= at);
    let paused =
        times.max_by(|(a, b), (c, d)| (b.at - a.at).cmp(&(d.at - c.at))).map(|(growth, _)| growth.at);
    let paused = paused.with_context(|| format!("{} did not go on", track.url))?;
    let mut after = track.growth.iter().filter(|growth| growth.at > paused);
    let back = after.find(|growth| seconds(growth.at) - growth.end <= lead + EDGE_TOLERANCE);
    let back = back.with_context(|| format!("{} did not come back", track.url))?;
    Ok(Outage { pause, back_at_edge: seconds(back.at) })
}

/// Returns the longest time in seconds between two parts from `from` on.
pub fn longest_pause(track: &Track, from: Instant) -> f64 {
    let times: Vec<Instant> = track.growth.iter().map(|growth| growth.at).filter(|at| *at >= from).collect();
    let pauses = times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64());
    pauses.fold(0.0, f64::max)
}

/// The media of one segment, from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMedia {
    /// Decoding time of the first sample.
    pub start: i64,
    /// The samples.
    pub samples: usize,
    /// The sum of their durations.
    pub duration: u64,
    /// Decoding times at which parts begin.
    pub parts: Vec<i64>,
    /// The first sample.
    pub first: bytes::Bytes,
}

/// Reads the media of a segment.
pub fn media_of(bytes: &bytes::Bytes) -> Result<SegmentMedia> {
    let fragments = parse_fragments(bytes)?;
    let first =
        fragments.first().and_then(|part| part.samples.first()).context("a segment without samples")?;
    Ok(SegmentMedia {
        start: first.dts,
        samples: fragments.iter().map(|part| part.samples.len()).sum(),
        duration: fragments.iter().map(Fragment::duration).sum(),
        parts: fragments.iter().map(|part| part.start).collect(),
        first: first.data.clone(),
    })
}
