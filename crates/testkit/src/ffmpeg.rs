//! ffmpeg as a publisher and as a judge.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::process::Process;

/// An ffmpeg that pushes a file over RTMP.
#[derive(Debug)]
pub struct FfmpegPublisher {
    process: Process,
    /// Keeps the folder with the log.
    _dir: TempDir,
}

impl FfmpegPublisher {
    /// Pushes `clip` to `url` without encoding it, at its own speed or as fast as it is taken.
    pub fn push(url: &str, clip: &Path, realtime: bool) -> anyhow::Result<Self> {
        let mut command = ffmpeg();
        if realtime {
            command.arg("-re");
        }
        command.arg("-i").arg(clip).args(["-c", "copy", "-f", "flv", url]);
        Self::run(command)
    }

    /// As [`FfmpegPublisher::push`], over and over until stopped.
    pub fn push_forever(url: &str, clip: &Path) -> anyhow::Result<Self> {
        let mut command = ffmpeg();
        command.args(["-re", "-stream_loop", "-1", "-i"]).arg(clip).args(["-c", "copy", "-f", "flv", url]);
        Self::run(command)
    }

    /// Runs any ffmpeg command line.
    pub fn run(command: Command) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("millrace-ffmpeg-")?;
        let process = Process::spawn(command, dir.path().join("log"))?;
        Ok(Self { process, _dir: dir })
    }

    /// The process, to wait for, kill or freeze.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// An ffmpeg command line that asks nothing and prints only errors.
pub fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-y"]);
    command
}

/// Runs a command to its end and returns its standard output; the error carries its standard error.
pub async fn output(command: Command) -> anyhow::Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = tokio::process::Command::from(command).kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&done.stderr);
    anyhow::ensure!(done.status.success(), "{name} failed with {}: {said}", done.status);
    Ok(done.stdout)
}

/// Decodes everything in a file or at a URL; an error if ffmpeg found anything to complain of.
pub async fn decode_cleanly(input: &str) -> anyhow::Result<()> {
    let mut command = ffmpeg();
    // Pictures keep the timescale they came with: in the frame rate's, two that are a millisecond apart would be one time.
    command.args(["-xerror", "-err_detect", "explode", "-i", input]);
    command.args(["-enc_time_base:v", "-1", "-f", "null", "-"]);
    let done = tokio::process::Command::from(command).kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&done.stderr);
    anyhow::ensure!(done.status.success() && said.trim().is_empty(), "ffmpeg says of {input}: {said}");
    Ok(())
}

/// Returns the streams and the format that ffprobe finds in a file or URL, as JSON.
pub async fn probe(input: &str) -> anyhow::Result<serde_json::Value> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-of", "json", "-show_streams", "-show_format", input]);
    Ok(serde_json::from_slice(&output(command).await?)?)
}
