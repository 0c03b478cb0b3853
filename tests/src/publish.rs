//! Encoders: ffmpeg pushing a clip in real time.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::clip::Clip;
use crate::process::Process;

/// Pushes `clip` to `url` at its own pace, unchanged. The process ends with the clip.
pub fn push(clip: &Clip, url: &str, folder: &Path) -> Result<Process> {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "warning", "-nostdin", "-re", "-i"]).arg(&clip.path);
    command.args(["-c", "copy", "-flvflags", "no_duration_filesize", "-f", "flv", url]);
    Process::spawn("ffmpeg", folder, &mut command)
}
