//! Clips to push: short FLV files whose frames carry their number, made once per content and cached.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use millrace_media::flv::file::{Reader, TagKind};
use millrace_media::flv::{FlvAudio, FlvVideo};

/// Bits of the frame number drawn as blocks.
const NUMBER_BITS: usize = 16;

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipSpec {
    /// Length in seconds.
    pub seconds: u32,
    /// Width and height.
    pub size: (u32, u32),
    /// Frames per second.
    pub rate: u32,
    /// B-frames in a row at most; 0 for none.
    pub b_frames: u32,
    /// Frames between keyframes.
    pub keyframe_interval: u32,
    /// Video bit rate, kbit/s.
    pub kbps: u32,
    /// With a video track.
    pub video: bool,
    /// With an audio track.
    pub audio: bool,
}

impl Default for ClipSpec {
    fn default() -> Self {
        Self {
            seconds: 12,
            size: (320, 180),
            rate: 30,
            b_frames: 2,
            keyframe_interval: 60,
            kbps: 400,
            video: true,
            audio: true,
        }
    }
}

/// Every access unit and audio frame of a clip, in the order they are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Units {
    /// Access units, NAL units with length prefixes.
    pub video: Vec<Bytes>,
    /// AAC frames.
    pub audio: Vec<Bytes>,
}

/// A clip on disk, and what it holds.
#[derive(Debug, Clone)]
pub struct Clip {
    /// The FLV file.
    pub path: PathBuf,
    /// Its units.
    pub units: Units,
}

impl Clip {
    /// Makes the clip, or takes it from the cache.
    pub fn make(spec: &ClipSpec) -> Result<Self> {
        let folder = std::env::temp_dir().join("millrace-clips");
        std::fs::create_dir_all(&folder).context("the folder of clips")?;
        let path = folder.join(spec.file_name());
        if !path.is_file() {
            // Made under another name and moved: tests run side by side.
            let unfinished =
                tempfile::Builder::new().suffix(".flv").tempfile_in(&folder).context("a new clip")?;
            encode(spec, unfinished.path())?;
            unfinished.persist(&path).context("keeping a clip")?;
        }
        Self::open(&path)
    }

    /// Reads an FLV file.
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
                        units.video.push(data);
                    }
                }
                TagKind::Audio => {
                    if let Some(FlvAudio::Raw(data)) = FlvAudio::parse(tag.body)? {
                        units.audio.push(data);
                    }
                }
                TagKind::Script => {}
            }
        }
        Ok(units)
    }
}

impl ClipSpec {
    /// What load is made of: 720p at 30 frames per second, 2.5 Mb/s, keyframes every 2 s.
    pub fn load(seconds: u32) -> Self {
        Self { seconds, size: (1280, 720), kbps: 2400, ..Self::default() }
    }

    fn file_name(&self) -> String {
        let Self { seconds, size: (w, h), rate, b_frames, keyframe_interval, kbps, video, audio } = self;
        let tracks = match (video, audio) {
            (true, false) => "v",
            (false, true) => "a",
            _ => "av",
        };
        format!("1-{tracks}-{seconds}s-{w}x{h}-{rate}-b{b_frames}-g{keyframe_interval}-{kbps}k.flv")
    }

    /// Bit `i` of the frame number is a block: white when set, else black.
    fn number_filter(&self) -> String {
        let side = self.size.0 / (NUMBER_BITS as u32 + 1);
        let blocks = (0..NUMBER_BITS).map(|bit| {
            let x = side / 2 + side * bit as u32;
            let place = format!("x={x}:y=4:w={side}:h={side}:t=fill");
            format!(
                "drawbox={place}:color=black,drawbox={place}:color=white:enable='mod(floor(n/{}),2)'",
                1 << bit
            )
        });
        blocks.collect::<Vec<_>>().join(",")
    }
}

fn encode(spec: &ClipSpec, to: &Path) -> Result<()> {
    let (width, height) = spec.size;
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]);
    let length = spec.seconds.to_string();
    if spec.video {
        let picture = format!("testsrc2=size={width}x{height}:rate={}:duration={length}", spec.rate);
        command.args(["-f", "lavfi", "-i", &picture]);
    }
    if spec.audio {
        let tone = format!("sine=frequency=440:sample_rate=48000:duration={length}");
        command.args(["-f", "lavfi", "-i", &tone]);
    }
    if spec.video {
        let (interval, bit_rate) = (spec.keyframe_interval.to_string(), format!("{}k", spec.kbps));
        command.args(["-vf", &format!("{},format=yuv420p", spec.number_filter())]);
        command.args(["-c:v", "libx264", "-preset", "veryfast", "-threads", "1", "-sc_threshold", "0"]);
        command.args(["-g", &interval, "-keyint_min", &interval, "-bf", &spec.b_frames.to_string()]);
        command.args(["-b:v", &bit_rate, "-maxrate", &bit_rate, "-bufsize", &bit_rate]);
    }
    if spec.audio {
        command.args(["-c:a", "aac", "-b:a", "96k", "-ac", "2"]);
    }
    let output = command
        .args(["-f", "flv"])
        .arg(to)
        .output()
        .context("ffmpeg, which makes the clips, does not run")?;
    if !output.status.success() {
        bail!("ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_holds_the_frames_asked_for() {
        let spec = ClipSpec { seconds: 2, ..ClipSpec::default() };
        let clip = Clip::make(&spec).unwrap();
        assert_eq!(clip.units.video.len(), 60);
        // 2 s of 48 kHz in frames of 1024, and what the encoder adds at both ends.
        assert!((93..=97).contains(&clip.units.audio.len()), "{}", clip.units.audio.len());
    }
}
