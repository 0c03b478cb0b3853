//! Encoders: ffmpeg pushing a clip in real time.

use std::path::Path;

use anyhow::Result;
use millrace_testkit::ffmpeg;

use crate::known_clip::Clip;
use millrace_testkit::Process;
use millrace_testkit::programs::spawn;

/// Pushes `clip` to `url` at its own pace, unchanged. The process ends with the clip.
pub fn push(clip: &Clip, url: &str, folder: &Path) -> Result<Process> {
    let mut command = ffmpeg::ffmpeg();
    command.arg("-re").arg("-i").arg(&clip.path).args(["-c", "copy", "-f", "flv", url]);
    spawn("ffmpeg", folder, command)
}
