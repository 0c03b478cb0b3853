//! One row from the publish to the evaluation.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use millrace_media::container::cmaf::demux::parse_init;
use millrace_media::hls::checker::Checker;
use millrace_testkit::http;
use millrace_tests::api::Api;
use millrace_tests::standalone::Standalone;
use millrace_tests::tape::send::{Told, send};
use millrace_tests::tape::{TagKind, Tape};
use serde_json::{Value, json};

use crate::browser::Page;
use crate::decode::{Decoded, decode, files};
use crate::judge::{Measured, apart, measure};
use crate::operator::{HealthLog, health_words};
use crate::want::Want;
use crate::watch::{Served, Track, Watch, Watched};

/// Time in which the end of a publish shows in the livestream's status.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// One row of the table: a publish and what becomes of it.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) tape: Tape,
    /// The same media as classic RTMP, if the tape has another form.
    pub(crate) classic: Option<Tape>,
    pub(crate) want: Want,
    /// Chromium appends the served media too.
    pub(crate) chromium: bool,
    /// The viewer comes so long after the publish began.
    pub(crate) join_after: Duration,
    /// The watch page is open from the start; seconds by which it must decode both tracks without standing still.
    pub(crate) page_within: Option<f64>,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, tape: Tape, want: Want) -> Self {
        Self {
            name: name.into(),
            tape,
            classic: None,
            want,
            chromium: false,
            join_after: Duration::ZERO,
            page_within: None,
        }
    }

    /// Chromium must hold all of it in one range.
    #[must_use]
    pub(crate) fn in_chromium(self) -> Self {
        Self { chromium: true, ..self }
    }
}

/// Everything that a publish led to.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) told: Told,
    pub(crate) watched: Option<Watched>,
    /// The reason for which nothing was watched.
    pub(crate) trouble: Option<String>,
    pub(crate) video: Measured,
    pub(crate) audio: Measured,
    pub(crate) apart: f64,
    pub(crate) playlists_apart: f64,
    pub(crate) playlist_faults: Vec<String>,
    pub(crate) decoded: Decoded,
    pub(crate) health: Vec<String>,
    pub(crate) last_status: Value,
    pub(crate) multivariant_at_end: String,
    pub(crate) page_faults: Vec<String>,
}

/// Publishes, watches, ends the livestream and measures.
pub(crate) async fn run(case: &Case, server: &Standalone, folder: &Path) -> Result<Seen> {
    let api = server.api();
    let live = api.create_with(json!({ "title": case.name })).await?;
    let watch = Watch::start(&live.hls_url, case.join_after);
    let health = HealthLog::start(api.clone(), live.id.clone());
    let edge = server.ready().edge.trim_end_matches('/');
    let page = case
        .page_within
        .map(|_| Page::open(&format!("{edge}/watch/{}", live.playback_id), &case.tape, folder));
    let mut seen = Seen { told: send(&case.tape, &live.push_url()).await?, ..Seen::default() };
    // The media that were sent last become parts before the stop ends the stream.
    tokio::time::sleep(Duration::from_millis(500)).await;
    if let (Some(page), Some(within)) = (page, case.page_within) {
        seen.page_faults = page?.faults(within).await?;
    }
    let statuses = health.finish().await?;
    seen.health = health_words(&statuses);
    seen.last_status = status_at_end(&api, &live.id, case.want.ends.is_some()).await?;
    seen.multivariant_at_end = http::get(&live.hls_url).await?.text();
    if case.want.ends.is_some() {
        // A publish of which nothing was usable has not even begun the livestream.
        let _ = api.stop(&live.id).await;
        // What was served before the end is not this row's concern.
        watch.give_up();
        return Ok(seen);
    }
    api.stop(&live.id).await?;
    match watch.finish().await {
        Err(error) => seen.trouble = Some(format!("{error:#}")),
        Ok(watched) => evaluate(&mut seen, watched, case, folder).await?,
    }
    Ok(seen)
}

/// The status when the publish is over; with the reason of its end, if it has one to tell.
async fn status_at_end(api: &Api, id: &str, has_reason: bool) -> Result<Value> {
    let began = Instant::now();
    loop {
        let status = api.status(id).await?;
        if !has_reason || !status["last_disconnect"].is_null() || began.elapsed() > STATUS_LIMIT {
            return Ok(status);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn evaluate(seen: &mut Seen, watched: Watched, case: &Case, folder: &Path) -> Result<()> {
    let (video, audio) = if is_sound(&watched.video)? {
        // The only variant of sound alone is the sound.
        (Track::default(), watched.video.clone())
    } else {
        (watched.video.clone(), watched.audio.clone())
    };
    let sent = case.classic.as_ref().unwrap_or(&case.tape);
    seen.video = measure(&video, sent, TagKind::Video)?;
    seen.audio = measure(&audio, sent, TagKind::Audio)?;
    seen.apart = apart(&seen.video, &seen.audio);
    seen.playlists_apart = playlists_apart(&video.served, &audio.served);
    for track in [&video, &audio] {
        let mut checker = Checker::new();
        for served in &track.served {
            let broken = checker.check(&served.text);
            for fault in broken.iter().map(ToString::to_string).chain(uneven_sums(&served.text)) {
                if !seen.playlist_faults.contains(&fault) {
                    seen.playlist_faults.push(fault);
                }
            }
        }
    }
    let pictures = files(&video, folder, "video")?;
    let sounds = files(&audio, folder, "audio")?;
    seen.decoded = decode(&pictures, &sounds).await?;
    seen.watched = Some(Watched { video, audio, ..watched });
    Ok(())
}

/// Segments whose parts, GAPs among them, do not add up to their EXTINF.
fn uneven_sums(text: &str) -> Vec<String> {
    let (mut parts, mut faults) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if let Some((_, rest)) =
            line.strip_prefix("#EXT-X-PART:").and_then(|list| list.split_once("DURATION="))
        {
            parts.extend(rest.split(',').next().and_then(|value| value.parse::<f64>().ok()));
        } else if let Some(value) = line.strip_prefix("#EXTINF:") {
            let duration: f64 =
                value.split(',').next().and_then(|value| value.parse().ok()).unwrap_or_default();
            let sum: f64 = parts.drain(..).sum();
            if sum > 0.0 && (sum - duration).abs() > SUM_TOLERANCE_S {
                faults.push(format!("parts of {sum:.3} s under an EXTINF of {duration:.3}"));
            }
        }
    }
    faults
}

/// Durations are written to the microsecond, a dozen parts to a segment.
const SUM_TOLERANCE_S: f64 = 0.001;

fn is_sound(track: &Track) -> Result<bool> {
    let init = track.inits.values().next().map(parse_init).transpose()?;
    Ok(init.is_some_and(|init| init.handler == *b"soun"))
}

/// The widest distance between the media times at the ends of both playlists, looked at whenever one is new.
fn playlists_apart(video: &[Served], audio: &[Served]) -> f64 {
    let behind = |(leading, other): (&[Served], &[Served])| {
        // The end closes both at once, but they are not asked for at once.
        let live = leading.iter().filter(|one| !one.ended);
        let last = |one: &Served| other.iter().rev().find(|other| other.at <= one.at).map(|other| other.end);
        live.filter_map(|one| last(one).map(|end| one.end - end)).fold(0.0, f64::max)
    };
    [(video, audio), (audio, video)].into_iter().map(behind).fold(0.0, f64::max)
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = match &self.told.refused {
            Some((code, description)) => format!("{code}: {description}"),
            None if self.told.closed => "closed without a status".to_owned(),
            None => "nothing".to_owned(),
        };
        writeln!(
            f,
            "  encoder told: {told} (after {:.1} s, {} messages)",
            self.told.lasted.as_secs_f64(),
            self.told.sent
        )?;
        if let Some(watched) = &self.watched {
            writeln!(f, "  video: {}", self.video)?;
            writeln!(f, "  audio: {}", self.audio)?;
            let hints: Vec<_> = watched.video.hints.iter().chain(&watched.audio.hints).collect();
            let broken = hints.iter().filter(|hint| hint.is_broken()).count();
            writeln!(
                f,
                "  playable after {:.2} s; pictures and sound apart {:.1} ms; ends of playlists apart {:.2} s; {} of {} hints broken",
                watched.playable_after.as_secs_f64(),
                self.apart,
                self.playlists_apart,
                broken,
                hints.len()
            )?;
        }
        write!(f, "  health: {:?}", self.health)
    }
}
