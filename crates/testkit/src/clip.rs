//! Clips whose frames carry their number as black and white blocks.
//!
//! The upper half of each picture is a grid of 8 × 3 cells: 16 bits of number, the most significant first, and
//! 8 bits of check. Cells are fractions of the picture, so the number survives encoding and scaling.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;

use crate::ffmpeg::{ffmpeg, output};

const COLUMNS: usize = 8;
const ROWS: usize = 3;
/// The grid takes the upper half.
const ROWS_OF_PICTURE: usize = 2 * ROWS;
/// Luma above is white, below the other black; between, the picture is not to be trusted.
const WHITE: u32 = 150;
const BLACK: u32 = 100;
/// Mixed into the check, so that an all-black or all-white picture has no number.
const CHECK_SALT: u8 = 0xa5;

/// The content of a generated clip.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClipSpec {
    /// Pictures, at most 65 536.
    pub frames: u32,
    /// The pictures in each second.
    pub fps: u32,
    /// The width of the picture in pixels.
    pub width: u32,
    /// The height of the picture in pixels.
    pub height: u32,
    /// Pictures from keyframe to keyframe.
    pub gop: u32,
    /// The B-frames between two reference pictures.
    pub b_frames: u32,
    /// Slices of each picture.
    pub slices: u32,
    /// True if the clip has AAC sound, a tone.
    pub audio: bool,
    /// The number in the first picture.
    pub first: u32,
}

impl Default for ClipSpec {
    /// 10 s at 30 pictures a second, 320 × 180, keyframes every second, two B-frames, sound.
    fn default() -> Self {
        Self {
            frames: 300,
            fps: 30,
            width: 320,
            height: 180,
            gop: 30,
            b_frames: 2,
            slices: 1,
            audio: true,
            first: 0,
        }
    }
}

/// A generated clip on disk.
#[derive(Debug, Clone)]
pub struct Clip {
    /// The path of the file.
    pub path: PathBuf,
    /// The content of the clip.
    pub spec: ClipSpec,
}

impl Clip {
    /// The clip as FLV, made unless a test made it before.
    pub async fn flv(spec: ClipSpec) -> anyhow::Result<Self> {
        Self::make(spec, "flv").await
    }

    /// The clip as MP4, made unless a test made it before.
    pub async fn mp4(spec: ClipSpec) -> anyhow::Result<Self> {
        Self::make(spec, "mp4").await
    }

    async fn make(spec: ClipSpec, extension: &str) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join("millrace-clips");
        std::fs::create_dir_all(&dir)?;
        let ClipSpec { frames, fps, width, height, gop, b_frames, slices, audio, first } = spec;
        let sound = if audio { "sound" } else { "mute" };
        let name = format!(
            "v1-{frames}-{fps}-{width}x{height}-{gop}-{b_frames}-{slices}-{first}-{sound}.{extension}"
        );
        let path = dir.join(name);
        if !path.is_file() {
            let tmp = tempfile::Builder::new().suffix(&format!(".{extension}")).tempfile_in(&dir)?;
            let (made, out) = (spec.clone(), tmp.path().to_path_buf());
            tokio::task::spawn_blocking(move || encode(&made, &out)).await??;
            tmp.persist(&path)?;
        }
        Ok(Self { path, spec })
    }

    /// Returns the duration in seconds.
    pub fn seconds(&self) -> f64 {
        f64::from(self.spec.frames) / f64::from(self.spec.fps)
    }
}

fn encode(spec: &ClipSpec, out: &Path) -> anyhow::Result<()> {
    let size = format!("{}x{}", spec.width, spec.height);
    let seconds = format!("{:.6}", f64::from(spec.frames) / f64::from(spec.fps));
    let mut command = ffmpeg();
    command.args(["-f", "rawvideo", "-pix_fmt", "gray", "-s", &size, "-r", &spec.fps.to_string(), "-i", "-"]);
    if spec.audio {
        let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
        command.args(["-f", "lavfi", "-i", &tone, "-c:a", "aac", "-b:a", "96k", "-ac", "2"]);
    }
    let x264 = format!(
        "keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:bframes={b}:b-adapt=0:slices={slices}",
        gop = spec.gop,
        b = spec.b_frames,
        slices = spec.slices
    );
    command.args(["-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-pix_fmt", "yuv420p"]);
    command.args(["-x264-params", &x264]).arg(out);
    command.stdin(Stdio::piped());
    let mut child = command.spawn().context("start ffmpeg (apt-get install ffmpeg)")?;
    let mut pipe = child.stdin.take().context("ffmpeg's input")?;
    for index in 0..spec.frames {
        pipe.write_all(&picture(spec, index))?;
    }
    drop(pipe);
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "ffmpeg could not encode the clip: {status}");
    Ok(())
}

fn check(number: u16) -> u8 {
    let [high, low] = number.to_be_bytes();
    high.rotate_left(3) ^ low ^ CHECK_SALT
}

fn picture(spec: &ClipSpec, index: u32) -> Vec<u8> {
    let number = (spec.first + index) as u16;
    draw_number(number, index as usize * 5, spec.width as usize, spec.height as usize)
}

/// Draws a picture's luma, `width × height` bytes: the coded number, and below it a bar, which stands at the column `bar`.
pub fn draw_number(number: u16, bar: usize, width: usize, height: usize) -> Vec<u8> {
    let bits = u32::from(number) << 8 | u32::from(check(number));
    let mut out = vec![0; width * height];
    let bar = bar % width;
    for (y, line) in out.chunks_exact_mut(width).enumerate() {
        let row = y * ROWS_OF_PICTURE / height;
        for (x, pixel) in line.iter_mut().enumerate() {
            *pixel = if row < ROWS {
                let cell = row * COLUMNS + x * COLUMNS / width;
                if bits >> (COLUMNS * ROWS - 1 - cell) & 1 == 1 { 255 } else { 0 }
            } else if x.abs_diff(bar) < width / 16 {
                220
            } else {
                (64 + (x + y) % 64) as u8
            };
        }
    }
    out
}

/// Reads the number from a decoded picture's luma, `width × height` bytes; `None` if it can't be trusted.
pub fn read_number(luma: &[u8], width: usize, height: usize) -> Option<u16> {
    let mut bits = 0u32;
    for cell in 0..COLUMNS * ROWS {
        let (row, column) = (cell / COLUMNS, cell % COLUMNS);
        // The middle half of the cell: its rim is blurred.
        let span =
            |at: usize, of: usize, len: usize| (4 * at + 1) * len / (4 * of)..(4 * at + 3) * len / (4 * of);
        let (xs, ys) = (span(column, COLUMNS, width), span(row, ROWS_OF_PICTURE, height));
        let (mut sum, mut count) = (0u32, 0u32);
        for y in ys {
            for pixel in luma.get(y * width + xs.start..y * width + xs.end)? {
                sum += u32::from(*pixel);
                count += 1;
            }
        }
        bits = bits << 1
            | match sum.checked_div(count)? {
                mean if mean > WHITE => 1,
                mean if mean < BLACK => 0,
                _ => return None,
            };
    }
    let number = (bits >> 8) as u16;
    (check(number) == bits as u8).then_some(number)
}

/// Decodes a file or URL and reads each picture's number, in the order they are shown.
pub async fn read_numbers(input: &str, width: usize, height: usize) -> anyhow::Result<Vec<Option<u16>>> {
    let mut command = ffmpeg();
    let filter = format!("scale={width}:{height}");
    command.args(["-i", input, "-map", "0:v:0", "-vf", &filter, "-fps_mode", "passthrough"]);
    command.args(["-f", "rawvideo", "-pix_fmt", "gray", "-"]);
    let raw = output(command).await?;
    Ok(raw.chunks_exact(width * height).map(|luma| read_number(luma, width, height)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_numbers_are_read() {
        let spec = ClipSpec::default();
        for index in [0, 1, 2, 255, 256, 4711, 65_535] {
            assert_eq!(read_number(&picture(&spec, index), 320, 180), Some(index as u16));
        }
        assert_eq!(read_number(&vec![0; 320 * 180], 320, 180), None);
        assert_eq!(read_number(&vec![255; 320 * 180], 320, 180), None);
        assert_eq!(read_number(&[], 320, 180), None);
    }

    #[tokio::test]
    async fn numbers_survive_encoding_and_scaling() -> anyhow::Result<()> {
        let spec = ClipSpec { frames: 45, gop: 15, first: 1000, ..ClipSpec::default() };
        let clip = Clip::flv(spec).await?;
        let input = clip.path.to_string_lossy().into_owned();
        let expected: Vec<Option<u16>> = (1000..1045).map(Some).collect();
        assert_eq!(read_numbers(&input, 320, 180).await?, expected);
        assert_eq!(read_numbers(&input, 160, 90).await?, expected);
        crate::ffmpeg::decode_cleanly(&input).await
    }
}
