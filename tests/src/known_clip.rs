//! Clips to push, and every unit they hold. Numbered pictures come from the test kit; what it does not make is made here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use millrace_media::container::flv::file::{Reader, TagKind};
use millrace_media::container::flv::{FlvAudio, FlvVideo};
pub use millrace_testkit::ClipSpec;
use millrace_testkit::ffmpeg;

/// Every access unit and audio frame of a clip, in the order they are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Units {
    /// Access units, NAL units with length prefixes.
    pub video: Vec<Bytes>,
    /// The AAC frames of the clip.
    pub audio: Vec<Bytes>,
}

/// A clip on disk, and what it holds.
#[derive(Debug, Clone)]
pub struct Clip {
    /// The path of the FLV file.
    pub path: PathBuf,
    /// The access units and audio frames in it.
    pub units: Units,
}

/// Returns the clip that most tests push: 2 s from keyframe to keyframe, B-frames, sound.
pub fn seconds(seconds: u32) -> ClipSpec {
    ClipSpec { frames: 30 * seconds, gop: 60, ..ClipSpec::default() }
}

impl Clip {
    /// Numbered pictures, made unless a test made them before.
    pub async fn numbered(spec: ClipSpec) -> Result<Self> {
        Self::open(&millrace_testkit::Clip::flv(spec).await?.path)
    }

    /// Makes a tone without pictures.
    pub async fn tone(seconds: u32) -> Result<Self> {
        let source = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
        let arguments = ["-f", "lavfi", "-i", &source, "-c:a", "aac", "-b:a", "96k", "-ac", "2"];
        Self::made(&format!("tone-{seconds}.flv"), &arguments).await
    }

    /// Makes the clip of load tests: 720p at 30 frames a second, 2.5 Mb/s with sound, keyframes every 2 s.
    pub async fn load(seconds: u32) -> Result<Self> {
        let picture = format!("testsrc2=size=1280x720:rate=30:duration={seconds}");
        let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
        let inputs = ["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone];
        let video = "-pix_fmt yuv420p -c:v libx264 -preset veryfast -sc_threshold 0 -g 60 -keyint_min 60 -bf 2 \
                     -b:v 2400k -maxrate 2400k -bufsize 2400k -c:a aac -b:a 96k -ac 2";
        let arguments: Vec<&str> = inputs.into_iter().chain(video.split_whitespace()).collect();
        Self::made(&format!("load-{seconds}.flv"), &arguments).await
    }

    /// Makes a clip of open GOPs: only its first picture is an IDR picture, and B-frames refer over each keyframe.
    pub async fn open_gop(seconds: u32) -> Result<Self> {
        let picture = format!("testsrc2=size=640x360:rate=30:duration={seconds}");
        let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
        let inputs = ["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone];
        let video = "-pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 60 -bf 2 -b:v 800k \
                     -x264-params open-gop=1:keyint=60:scenecut=0 -c:a aac -b:a 96k -ac 2";
        let arguments: Vec<&str> = inputs.into_iter().chain(video.split_whitespace()).collect();
        Self::made(&format!("open-gop-{seconds}.flv"), &arguments).await
    }

    /// Makes a clip without keyframes: its pictures are refreshed column by column, and its first one, which would be an IDR
    /// picture, is left out, as for who comes after it has left the window.
    pub async fn intra_refresh(seconds: u32) -> Result<Self> {
        let picture = format!("testsrc2=size=640x360:rate=30:duration={seconds}");
        let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
        let inputs = ["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone];
        let video = "-pix_fmt yuv420p -c:v libx264 -preset ultrafast -bf 0 -b:v 800k \
                     -x264-params intra-refresh=1:keyint=60:scenecut=0 -bsf:v noise=drop=not(n) -c:a aac -b:a 96k -ac 2";
        let arguments: Vec<&str> = inputs.into_iter().chain(video.split_whitespace()).collect();
        Self::made(&format!("intra-refresh-{seconds}.flv"), &arguments).await
    }

    async fn made(name: &str, arguments: &[&str]) -> Result<Self> {
        let folder = std::env::temp_dir().join("millrace-clips");
        std::fs::create_dir_all(&folder).context("the folder of clips")?;
        let path = folder.join(name);
        if !path.is_file() {
            // Made under another name and moved: tests run side by side.
            let unfinished =
                tempfile::Builder::new().suffix(".flv").tempfile_in(&folder).context("a new clip")?;
            let mut command = ffmpeg::ffmpeg();
            command.args(arguments).arg(unfinished.path());
            ffmpeg::output(command).await?;
            unfinished.persist(&path).context("keeping a clip")?;
        }
        Self::open(&path)
    }

    /// Reads an FLV file from disk.
    pub fn open(path: &Path) -> Result<Self> {
        let file = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), units: Units::from_flv(file.into())? })
    }
}

impl Units {
    /// The media of an FLV file.
    pub fn from_flv(file: Bytes) -> Result<Self> {
        let mut units = Self::default();
        for tag in Reader::new(file)? {
            let tag = tag?;
            match tag.kind {
                TagKind::Video => {
                    if let Some(FlvVideo::Nalus { data, .. }) = FlvVideo::parse(tag.body)? {
                        units.video.push(data.contiguous());
                    }
                }
                TagKind::Audio => {
                    if let Some(FlvAudio::Raw(data)) = FlvAudio::parse(tag.body)? {
                        units.audio.push(data.contiguous());
                    }
                }
                TagKind::Script => {}
            }
        }
        Ok(units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clip_holds_the_frames_asked_for() {
        let clip = Clip::numbered(seconds(2)).await.unwrap();
        assert_eq!(clip.units.video.len(), 60);
        // 2 s of 48 kHz in frames of 1024, and what the encoder adds at both ends.
        assert!((93..=97).contains(&clip.units.audio.len()), "{}", clip.units.audio.len());
    }
}
