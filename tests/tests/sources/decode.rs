//! What a decoder makes of the served media.

use std::path::{Path, PathBuf};

use anyhow::Result;
use millrace_testkit::clip::read_numbers;
use millrace_testkit::ffmpeg;

use crate::watch::Track;

/// Size at which the pictures' numbers are read.
const NUMBERED: (usize, usize) = (320, 180);

/// A track's media in files, one for each run of segments with the same initialisation section.
pub(crate) fn files(track: &Track, folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let mut files: Vec<(String, PathBuf, Vec<u8>)> = Vec::new();
    for (segment, bytes) in track.segments.values() {
        let Some(bytes) = bytes else { continue };
        if files.last().is_none_or(|(init, ..)| *init != segment.init) {
            let path = folder.join(format!("{name}-{}.mp4", files.len()));
            files.push((segment.init.clone(), path, track.inits[&segment.init].to_vec()));
        }
        if let Some((.., content)) = files.last_mut() {
            content.extend_from_slice(bytes);
        }
    }
    for (_, path, content) in &files {
        std::fs::write(path, content)?;
    }
    Ok(files.into_iter().map(|(_, path, _)| path).collect())
}

/// The decoder's findings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Decoded {
    /// Pictures in the order they are shown, with the number in each that has one.
    pub(crate) pictures: Vec<Option<u16>>,
    pub(crate) complaints: Vec<String>,
    /// Audio samples per channel.
    pub(crate) sound_samples: usize,
}

/// Decodes both tracks with ffmpeg.
pub(crate) async fn decode(video: &[PathBuf], audio: &[PathBuf]) -> Result<Decoded> {
    let mut decoded = Decoded::default();
    for path in video {
        let path = path.to_string_lossy();
        decoded.complain(ffmpeg::decode_cleanly(&path).await);
        decoded.pictures.extend(read_numbers(&path, NUMBERED.0, NUMBERED.1).await?);
    }
    for path in audio {
        let path = path.to_string_lossy();
        decoded.complain(ffmpeg::decode_cleanly(&path).await);
        let mut command = ffmpeg::ffmpeg();
        command.args(["-i", &path, "-map", "0:a", "-ac", "1", "-f", "s16le", "-"]);
        decoded.sound_samples += ffmpeg::output(command).await?.len() / 2;
    }
    Ok(decoded)
}

impl Decoded {
    fn complain(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.complaints.push(format!("{error:#}").chars().take(400).collect());
        }
    }
}
