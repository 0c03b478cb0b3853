//! A ladder's CPU time, memory and looks, beside ffmpeg doing the same.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use millrace_testkit::ffmpeg::{ffmpeg, output};
use serde::Deserialize;
use tokio::process::Command;

use crate::report::{Report, Row};

/// Subjects take turns, so that what else the machine does falls on both.
const ROUNDS: usize = 3;
/// Ladders at once.
const AT_ONCE: [usize; 2] = [2, 4];
/// Heights and bit rates in kb/s: the template `standard`.
const RUNGS: [(u32, u32); 3] = [(720, 2800), (480, 1400), (360, 800)];
/// The bar: this part of ffmpeg's CPU time.
const BAR: f64 = 0.85;

/// What one run took.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Cost {
    cpu_s: f64,
    peak_kb: u64,
    media_s: f64,
}

impl Cost {
    fn per_second(self) -> f64 {
        self.cpu_s / self.media_s
    }
}

/// Measures a ladder of 1080p30 → 720p, 480p, 360p.
pub(crate) async fn against_ffmpeg() -> Result<Report> {
    let source = source().await?;
    let folder = tempfile::tempdir()?;
    let (ours, named, theirs) =
        (folder.path().join("ours"), folder.path().join("named"), folder.path().join("theirs"));
    for path in [&ours, &named, &theirs] {
        std::fs::create_dir(path)?;
    }
    let (mut own, mut preset, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        own.push(engine(&source, &ours, None).await?);
        peer.push(command_line(&source, &theirs).await?);
        preset.push(engine(&source, &named, Some("veryfast")).await?);
    }
    let (own, preset, peer) = (middle(own), middle(preset), middle(peer));
    let mut report = Report::new("ladder", "ladder");
    let cpu = "CPU seconds per second of 1080p30 → 720p, 480p, 360p";
    let (engine_name, named_name) = ("transcoder, default preset", "transcoder, preset veryfast");
    let peer_name = "ffmpeg, veryfast zerolatency";
    report.push(Row::new(cpu, engine_name, own.per_second()).against(peer.per_second(), BAR));
    report.push(Row::new(cpu, named_name, preset.per_second()).against(peer.per_second(), BAR));
    report.push(Row::new(cpu, peer_name, peer.per_second()));
    let memory = "peak memory of that ladder, MB";
    for (name, cost) in [(engine_name, own), (named_name, preset), (peer_name, peer)] {
        report.push(Row::new(memory, name, cost.peak_kb as f64 / 1024.0));
    }
    for (height, _) in RUNGS {
        let what = format!("loss of the {height}p rung, 1000 × (1 − SSIM)");
        let least = loss(&source, &theirs, height).await?;
        report.push(Row::new(&what, engine_name, loss(&source, &ours, height).await?).at_most(least));
        report.push(Row::new(&what, named_name, loss(&source, &named, height).await?).at_most(least));
        report.push(Row::new(&what, peer_name, least));
    }
    for count in AT_ONCE {
        let one = at_once(&source, folder.path(), count).await?;
        let what = format!("CPU seconds per second of each of {count} such ladders at once");
        report.push(Row::new(&what, engine_name, one));
    }
    Ok(report)
}

/// Makes the clip, unless it is there: five seconds of fine moving detail with grain, and five of sharp edges, as OBS would send them.
async fn source() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join("millrace-clips");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("ladder-1080p30-10.flv");
    if !path.is_file() {
        let detail = "mandelbrot=s=1920x1080:r=30:maxiter=1000:start_scale=0.3:end_scale=0.02:end_pts=300,\
                      format=yuv420p,noise=alls=5:allf=t,trim=duration=5,setsar=1";
        let edges = "testsrc2=s=1920x1080:r=30:d=5,format=yuv420p,setsar=1";
        let encode = "-filter_complex [0:v][1:v]concat=n=2:v=1 -c:v libx264 -preset veryfast -b:v 6M -maxrate 6M \
                      -bufsize 6M -g 60 -keyint_min 60 -sc_threshold 0 -bf 2 -pix_fmt yuv420p";
        let unfinished = tempfile::Builder::new().suffix(".flv").tempfile_in(&folder)?;
        let mut command = ffmpeg();
        command.args(["-f", "lavfi", "-i", detail, "-f", "lavfi", "-i", edges]);
        command.args(encode.split_whitespace()).arg(unfinished.path());
        output(command).await?;
        unfinished.persist(&path)?;
    }
    Ok(path)
}

fn middle(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|left, right| left.cpu_s.total_cmp(&right.cpu_s));
    costs[costs.len() / 2]
}

fn runner(source: &Path, folder: &Path, preset: Option<&str>) -> Result<Command> {
    let program = std::env::current_exe()?.with_file_name("ladder-run");
    let mut command = Command::new(program);
    command.arg(source).arg(folder).args(preset).stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

async fn engine(source: &Path, folder: &Path, preset: Option<&str>) -> Result<Cost> {
    let done = runner(source, folder, preset)?.output().await.context("ladder-run")?;
    ensure!(done.status.success(), "ladder-run: {}", done.status);
    serde_json::from_slice(&done.stdout).context("ladder-run's figures")
}

/// Runs ladders at once, and returns the mean CPU seconds per second of media.
async fn at_once(source: &Path, folder: &Path, count: usize) -> Result<f64> {
    let mut running = Vec::new();
    for number in 0..count {
        let own = folder.join(format!("{count}-{number}"));
        std::fs::create_dir(&own)?;
        running.push(runner(source, &own, None)?.spawn().context("ladder-run")?);
    }
    let mut sum = 0.0;
    for child in running {
        let done = child.wait_with_output().await?;
        ensure!(done.status.success(), "ladder-run: {}", done.status);
        let cost: Cost = serde_json::from_slice(&done.stdout).context("ladder-run's figures")?;
        sum += cost.per_second();
    }
    Ok(sum / count as f64)
}

/// Lets ffmpeg do the same, the copy included.
async fn command_line(source: &Path, folder: &Path) -> Result<Cost> {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-y", "-benchmark", "-i"]).arg(source);
    command.args(["-map", "0:v", "-c:v", "copy"]).arg(folder.join("copy.mp4"));
    for (height, rate) in RUNGS {
        let (rate, size, buffer) =
            (format!("{rate}k"), format!("scale=-2:{height}"), format!("{}k", rate / 2));
        command.args([
            "-map",
            "0:v",
            "-vf",
            &size,
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-tune",
            "zerolatency",
        ]);
        command.args(["-b:v", &rate, "-maxrate", &rate, "-bufsize", &buffer]);
        command.args(["-g", "60", "-keyint_min", "60", "-sc_threshold", "0"]);
        command.arg(folder.join(format!("{height}.h264")));
    }
    let done = command.kill_on_drop(true).output().await.context("start ffmpeg (apt-get install ffmpeg)")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{said}");
    let figure = |name: &str| -> Result<f64> {
        let (_, rest) = said.rsplit_once(name).with_context(|| format!("{name} in {said}"))?;
        let digits: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        digits.parse().with_context(|| name.to_owned())
    };
    let cpu_s = figure("utime=")? + figure("stime=")?;
    Ok(Cost { cpu_s, peak_kb: figure("maxrss=")? as u64, media_s: 10.0 })
}

/// Returns 1000 × (1 − SSIM) of a rung against the source scaled to its size.
async fn loss(source: &Path, folder: &Path, height: u32) -> Result<f64> {
    let filter = format!(
        "[0:v]setpts=N/30/TB[rung];[1:v]setpts=N/30/TB,scale=-2:{height}:flags=bicubic[source];[rung][source]ssim"
    );
    let mut command = Command::new("ffmpeg");
    command
        .args(["-hide_banner", "-nostdin", "-framerate", "30", "-i"])
        .arg(folder.join(format!("{height}.h264")));
    command.arg("-i").arg(source).args(["-lavfi", &filter, "-f", "null", "-"]);
    let done = command.kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&done.stderr);
    let (_, rest) = said.rsplit_once("All:").with_context(|| format!("an SSIM in {said}"))?;
    let ssim: f64 = rest.split_whitespace().next().context("an SSIM")?.parse()?;
    Ok(1000.0 * (1.0 - ssim))
}
