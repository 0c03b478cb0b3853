//! What Chromium's SourceBuffers hold of the served media.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use millrace_testkit::Process;
use millrace_testkit::programs::spawn;
use millrace_tests::tape::Tape;
use serde::{Deserialize, Serialize};

use crate::seen::{Case, Seen};

/// Start of the browser and a few seconds for each row, on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);
/// Shown and held time may differ by so much: the first composition offset, the last frame.
const TOLERANCE_S: f64 = 0.25;

/// The files of one row to append.
#[derive(Debug, Serialize)]
pub(crate) struct Job {
    name: String,
    video: Source,
    audio: Source,
}

#[derive(Debug, Serialize)]
struct Source {
    mime: String,
    files: Vec<String>,
}

/// What Chromium held and showed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Held {
    name: String,
    video: Vec<(f64, f64)>,
    audio: Vec<(f64, f64)>,
    width: u32,
    height: u32,
    frames: u64,
    /// Media time at which playing at speed stopped.
    reached: f64,
    error: Option<String>,
}

impl Job {
    pub(crate) fn new(case: &Case, seen: &Seen, folder: &Path) -> Option<Self> {
        let watched = seen.watched.as_ref()?;
        let codecs = watched.multivariant.split_once("CODECS=\"")?.1.split('"').next()?;
        let codec = |audio: bool| {
            let is_audio = |codec: &&str| codec.starts_with("mp4a") == audio;
            codecs
                .split(',')
                .find(is_audio)
                .map(|codec| format!("{}/mp4; codecs=\"{codec}\"", if audio { "audio" } else { "video" }))
        };
        let source = |name: &str, mime: Option<String>| {
            let files =
                (0..).map(|n| folder.join(format!("{name}-{n}.mp4"))).take_while(|path| path.is_file());
            Source {
                mime: mime.unwrap_or_default(),
                files: files.map(|path| path.display().to_string()).collect(),
            }
        };
        let (video, audio) = (source("video", codec(false)), source("audio", codec(true)));
        Some(Self { name: case.name.clone(), video, audio })
    }
}

/// Appends each job's files in one Chromium; its findings by the jobs' names.
pub(crate) async fn hold(jobs: &[Job], folder: &Path) -> Result<HashMap<String, Held>> {
    if jobs.is_empty() {
        return Ok(HashMap::new());
    }
    let (input, output) = (folder.join("jobs.json"), folder.join("held.json"));
    std::fs::write(&input, serde_json::to_vec(jobs)?)?;
    let mut command = Command::new("node");
    command.arg(std::env::current_dir()?.join("browser/buffered.mjs")).arg(&input).arg(&output);
    let mut browser = spawn("buffered", folder, command)?;
    let status = browser.wait(LIMIT).await?;
    anyhow::ensure!(status.success(), "Chromium: {status}\n{}", browser.output());
    let held: Vec<Held> = serde_json::from_slice(&std::fs::read(&output)?).context("what Chromium held")?;
    Ok(held.into_iter().map(|held| (held.name.clone(), held)).collect())
}

/// One range of each track, as long as the track; all of it plays.
pub(crate) fn faults(held: Option<&Held>, seen: &Seen, case: &Case) -> Vec<String> {
    let Some(held) = held else { return vec!["Chromium got nothing".to_owned()] };
    let mut faults: Vec<String> = held.error.iter().map(|error| format!("Chromium: {error}")).collect();
    for (name, ranges, track) in [("video", &held.video, &seen.video), ("audio", &held.audio, &seen.audio)] {
        let (Some(first), Some(last)) = (track.units.first(), track.units.last()) else { continue };
        let length = (last.dts + last.duration - first.dts) / 1000.0;
        match ranges[..] {
            // Browsers let the last picture stand for as long as one before it.
            [(start, end)] if end - start > length - TOLERANCE_S => {}
            _ => {
                faults
                    .push(format!("Chromium holds {name} at {ranges:?}, {length:.2} s in one range wanted"));
            }
        }
    }
    if let Some((_, end)) = held.video.last().filter(|_| case.want.ends.is_none())
        && held.reached < end - TOLERANCE_S
    {
        faults.push(format!("Chromium stopped at {:.2} s of {end:.2}", held.reached));
    }
    let size = format!("RESOLUTION={}x{}", held.width, held.height);
    let watched = seen.watched.as_ref();
    if !seen.video.units.is_empty() && !watched.is_some_and(|watched| watched.multivariant.contains(&size)) {
        faults.push(format!("Chromium shows {}x{}, the playlist says otherwise", held.width, held.height));
    }
    faults
}

/// A watch page in a Chromium of its own, from before the stream starts to its end.
pub(crate) struct Page {
    browser: Process,
    report: PathBuf,
}

/// The page's findings; times in seconds since it was opened.
#[derive(Debug, Deserialize)]
struct Report {
    moved: Option<f64>,
    sound: Option<f64>,
    picture: Option<f64>,
    #[serde(rename = "longestStill")]
    longest_still: f64,
    console: Vec<String>,
}

/// A player that takes up a new track may stand still for so long, on a machine that runs the whole table beside it.
const LONGEST_STILL_S: f64 = 6.0;
/// The page is looked at until so long before the publish ends.
const PAGE_MARGIN: Duration = Duration::from_secs(1);

impl Page {
    pub(crate) fn open(url: &str, tape: &Tape, folder: &Path) -> Result<Self> {
        let report = folder.join("page.json");
        let seconds = tape.length().saturating_sub(PAGE_MARGIN).as_secs_f64();
        let mut command = Command::new("node");
        command.arg(std::env::current_dir()?.join("browser/late.mjs")).arg(url).arg(&report);
        command.arg(seconds.to_string());
        Ok(Self { browser: spawn("page", folder, command)?, report })
    }

    pub(crate) async fn faults(mut self, within: f64) -> Result<Vec<String>> {
        let status = self.browser.wait(LIMIT).await?;
        anyhow::ensure!(status.success(), "watch page: {status}\n{}", self.browser.output());
        let report: Report = serde_json::from_slice(&std::fs::read(&self.report)?)?;
        let late = |at: Option<f64>| at.is_none_or(|at| at > within);
        let mut faults = report.console.clone();
        if late(report.moved)
            || late(report.sound)
            || late(report.picture)
            || report.longest_still > LONGEST_STILL_S
        {
            faults.push(format!(
                "the watch page has not both tracks within {within} s, or stands still: {report:?}"
            ));
        }
        Ok(faults)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "video {:.2?}, audio {:.2?}, {}x{}, {} frames, played to {:.2} s",
            self.video, self.audio, self.width, self.height, self.frames, self.reached
        )
    }
}
