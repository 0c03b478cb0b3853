//! Clips that the suites of sources start from. Each is encoded once and kept in the temporary folder.

use anyhow::{Context as _, Result};
use millrace_testkit::{Clip, ClipSpec, ffmpeg};

use super::Tape;

impl Tape {
    /// Numbered pictures (30 a second, 320 × 180, keyframes every 2 s) and a tone.
    pub async fn numbered(seconds: u32, b_frames: u32) -> Result<Self> {
        Self::of(ClipSpec { frames: 30 * seconds, gop: 60, b_frames, ..ClipSpec::default() }).await
    }

    /// A clip of numbered pictures.
    pub async fn of(spec: ClipSpec) -> Result<Self> {
        Self::open(&Clip::flv(spec).await?.path)
    }

    /// Numbered pictures encoded anew with ffmpeg's arguments (`-c:v …`), and sound (`-c:a …`) if `spec` has it.
    pub async fn encoded(name: &str, spec: ClipSpec, arguments: &str) -> Result<Self> {
        let clip = Clip::mp4(spec).await?;
        Self::made(name, &format!("-i {} {arguments}", clip.path.display())).await
    }

    /// Numbered pictures of which the encoder got only those that ffmpeg's expression `choose` selects, by their number
    /// `n` or time `t`: their times tell the rest. A keyframe comes every 2 s.
    pub async fn selected(name: &str, seconds: u32, choose: &str) -> Result<Self> {
        let spec = ClipSpec { frames: 30 * seconds, gop: 1, b_frames: 0, ..ClipSpec::default() };
        let choose = choose.replace(',', "\\,");
        let arguments = format!(
            "-vf select={choose} -fps_mode passthrough -c:a copy -c:v libx264 -preset veryfast -crf 26 -bf 0 -g 600 \
             -sc_threshold 0 -force_key_frames expr:gte(t,n_forced*2)"
        );
        Self::encoded(&format!("selected-{name}-{seconds}"), spec, &arguments).await
    }

    /// A clip from ffmpeg's own arguments, as on its command line, without the output's name.
    pub async fn made(name: &str, arguments: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join("millrace-clips");
        std::fs::create_dir_all(&folder).context("the folder of clips")?;
        let path = folder.join(format!("tape-{name}.flv"));
        if !path.is_file() {
            // Made under another name and moved: tests run side by side.
            let unfinished = tempfile::Builder::new().suffix(".flv").tempfile_in(&folder)?;
            let mut command = ffmpeg::ffmpeg();
            command.args(arguments.split_whitespace()).arg(unfinished.path());
            ffmpeg::output(command).await.with_context(|| name.to_owned())?;
            unfinished.persist(&path).context("keeping a clip")?;
        }
        Self::open(&path)
    }
}
