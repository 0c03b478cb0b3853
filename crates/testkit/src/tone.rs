//! A pure tone, to hear clicks by: the share of decoded sound that is not the tone, over its course.

use std::f64::consts::TAU;
use std::io::Write as _;

use anyhow::Context as _;

use crate::ffmpeg::{ffmpeg, output};

/// Samples of a window: half a click of one sample is 20 dB above what an encoder leaves in it.
const WINDOW: usize = 512;
/// Samples from one window to the next.
const STEP: usize = 128;

/// The least amplitude of a tone that sounds.
const AUDIBLE: f64 = 0.001;

/// The tone that fits samples best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Its amplitude; full scale is 1.
    pub amplitude: f64,
    /// Its phase at sample number 0.
    pub phase: f64,
    /// The largest rest of a sample.
    pub worst: f64,
}

/// Decodes a media file that holds sound, and returns the samples of its first channel; full scale is 1.
pub async fn samples(file: &[u8]) -> anyhow::Result<Vec<f64>> {
    let mut media = tempfile::Builder::new().suffix(".mp4").tempfile().context("a file to decode")?;
    media.write_all(file)?;
    media.flush()?;
    let mut command = ffmpeg();
    command.arg("-i").arg(media.path()).args(["-map", "0:a", "-af", "pan=mono|c0=c0", "-f", "f32le", "-"]);
    let bytes = output(command).await?;
    let sample = |bytes: &[u8]| bytes.try_into().map(f32::from_le_bytes).map_or(0.0, f64::from);
    Ok(bytes.chunks_exact(4).map(sample).collect())
}

/// Returns the loudest rest for each window of samples, as a share of the tone's amplitude: the line of `frequency` in the
/// window's Fourier transform is taken out, and what is left is no tone. A window without the tone gives 1.
pub fn rests(samples: &[f64], frequency: f64, rate: f64) -> Vec<f64> {
    let starts = (0..samples.len().saturating_sub(WINDOW)).step_by(STEP);
    let rest = |start: usize| {
        let Fit { amplitude, worst, .. } = fit(&samples[start..start + WINDOW], 0, TAU * frequency / rate);
        // Against nothing, everything is loud.
        if amplitude > AUDIBLE { worst / amplitude } else { 1.0 }
    };
    starts.map(rest).collect()
}

/// Returns the first sample of a window by its number.
pub const fn start_of(window: usize) -> usize {
    window * STEP
}

/// Fits a tone of `angle` radians a sample to samples, the first of which has the number `first`.
pub fn fit(samples: &[f64], first: i64, angle: f64) -> Fit {
    let wave = |number: usize| (angle * (first + number as i64) as f64).sin_cos();
    let (mut ss, mut cc, mut sc, mut xs, mut xc) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (number, sample) in samples.iter().enumerate() {
        let (sine, cosine) = wave(number);
        ss += sine * sine;
        cc += cosine * cosine;
        sc += sine * cosine;
        xs += sample * sine;
        xc += sample * cosine;
    }
    let determinant = ss * cc - sc * sc;
    let (of_sine, of_cosine) = ((xs * cc - xc * sc) / determinant, (xc * ss - xs * sc) / determinant);
    let rest = samples.iter().enumerate().map(|(number, sample)| {
        let (sine, cosine) = wave(number);
        (sample - of_sine * sine - of_cosine * cosine).abs()
    });
    Fit {
        amplitude: of_sine.hypot(of_cosine),
        phase: of_cosine.atan2(of_sine),
        worst: rest.fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(skip: usize) -> Vec<f64> {
        let sample = |number: usize| {
            let number = if number < 10_000 { number } else { number + skip };
            0.125 * (TAU * 997.0 * number as f64 / 48_000.0).sin()
        };
        (0..20_000).map(sample).collect()
    }

    fn loudest(samples: &[f64]) -> f64 {
        rests(samples, 997.0, 48_000.0).into_iter().fold(0.0, f64::max)
    }

    #[test]
    fn rest_of_a_tone_shows_each_step_in_it() {
        assert!(loudest(&tone(0)) < 0.0001);
        assert!(loudest(&tone(1)) > 0.05, "one sample is missing: {}", loudest(&tone(1)));
        let mut quiet = tone(0);
        quiet[10_000..10_064].fill(0.0);
        assert!(loudest(&quiet) > 0.5);
    }
}
