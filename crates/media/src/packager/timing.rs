//! How long parts are: measured once, frozen, handed over.

use crate::frame::{AAC_FRAME_SAMPLES, VideoConfig};

/// Aimed part duration in 90 kHz ticks (1/3 s): a low latency at a bearable rate of requests.
pub const PART_AIM: u32 = 30_000;
/// Longest aim, for audio of low rates whose frames are long. 90 kHz ticks (1 s).
const PART_AIM_MAX: u32 = 90_000;
/// A part may miss its end by one audio frame and must reach 85 % of PART-TARGET, which is one audio frame longer:
/// `(aim − a) ≥ 0.85 (aim + a)` holds from `aim = 12.34 a` on.
const AUDIO_FRAMES_PER_PART: u32 = 13;
/// Without audio an AAC frame of 44.1 kHz is allowed for: audio may come later. 90 kHz ticks.
const DEFAULT_AUDIO_FRAME: u32 = 2_090;
/// Frame rates that sources have; a measured one within [`RATE_TOLERANCE`] is taken for it.
const RATES: [(u32, u32); 14] = [
    (30, 1),
    (60, 1),
    (25, 1),
    (50, 1),
    (24, 1),
    (15, 1),
    (30_000, 1001),
    (60_000, 1001),
    (24_000, 1001),
    (120, 1),
    (20, 1),
    (10, 1),
    (48, 1),
    (5, 1),
];
/// Relative error of a measured frame time: a millisecond in a third of a second, and a little more.
const RATE_TOLERANCE: f64 = 0.006;

/// Everything about parts that a replacement must share. PART-TARGET never changes while a stream lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartTiming {
    /// The video init version the frame time belongs to; `None`: measured without video.
    pub init_version: Option<u32>,
    /// Nominal frame time in 90 kHz ticks.
    pub frame_ticks: u32,
    /// Frames per part.
    pub frames: u32,
    /// EXT-X-PART-INF:PART-TARGET in 90 kHz ticks.
    pub part_target: u32,
}

impl PartTiming {
    /// Nominal duration of a part in 90 kHz ticks.
    pub const fn part_ticks(&self) -> i64 {
        self.frame_ticks as i64 * self.frames as i64
    }

    /// `pictures`: decoding times of the first part, or what there is of it.
    pub(super) fn measure(
        init_version: Option<u32>,
        pictures: &[i64],
        video: Option<&VideoConfig>,
        audio_frame: Option<u32>,
        target: Option<u32>,
    ) -> Self {
        let allowance = audio_frame.unwrap_or(DEFAULT_AUDIO_FRAME).max(1);
        let frame_ticks = match init_version {
            Some(_) => frame_ticks(pictures, video.and_then(|video| video.frame_rate)),
            None => allowance,
        };
        // A frozen target leaves room for the same allowance; a frame that does not fit is a part on its own.
        let room = target.map(|target| target.saturating_sub(allowance).max(1));
        let frames = if let Some(room) = room {
            (room / frame_ticks).max(1)
        } else {
            let aim = PART_AIM.max(AUDIO_FRAMES_PER_PART * allowance).min(PART_AIM_MAX);
            ((aim + frame_ticks / 2) / frame_ticks).max(1)
        };
        let part_target = target.unwrap_or(frames * frame_ticks + allowance);
        Self { init_version, frame_ticks, frames, part_target }
    }
}

/// True when the pictures so far, the last one's own time included, make a part.
pub(super) fn spans_a_part(pictures: &[i64]) -> bool {
    let [first, .., last] = pictures else { return false };
    let mean = (last - first) / (pictures.len() as i64 - 1);
    last - first + mean + mean / 2 >= i64::from(PART_AIM)
}

/// The frame time: what the SPS says when the pictures agree, else a usual rate near the measured one, else that.
fn frame_ticks(pictures: &[i64], declared: Option<(u32, u32)>) -> u32 {
    let ticks = |(rate, scale): (u32, u32)| 90_000.0 * f64::from(scale) / f64::from(rate.max(1));
    let round = |ticks: f64| (ticks.round() as u32).clamp(90, PART_AIM_MAX);
    let Some(measured) = median_step(pictures) else {
        return round(declared.map_or(3_000.0, ticks));
    };
    declared
        .into_iter()
        .chain(RATES)
        .map(ticks)
        .find(|candidate| (candidate - measured).abs() <= candidate * RATE_TOLERANCE)
        .map_or_else(|| round(measured), round)
}

/// The mean step, after steps far from the median (lost pictures, pauses) are left out.
fn median_step(pictures: &[i64]) -> Option<f64> {
    let mut steps: Vec<i64> = pictures.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.sort_unstable();
    let median = *steps.get(steps.len() / 2)?;
    let near: Vec<i64> = steps.into_iter().filter(|step| (step - median).abs() * 2 <= median).collect();
    Some(near.iter().sum::<i64>() as f64 / near.len().max(1) as f64)
}

/// Duration of an AAC frame in 90 kHz ticks, rounded up so that PART-TARGET holds it.
pub(super) const fn audio_frame_ticks(rate: u32) -> u32 {
    (AAC_FRAME_SAMPLES * 90_000).div_ceil(if rate == 0 { 1 } else { rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(rate: f64, count: usize) -> Vec<i64> {
        (0..count).map(|n| (n as f64 * 1000.0 / rate).round() as i64 * 90).collect()
    }

    #[test]
    fn finds_the_rate_behind_millisecond_timestamps() {
        for (rate, ticks, frames) in [
            (30.0, 3000, 10),
            (25.0, 3600, 8),
            (60.0, 1500, 20),
            (24.0, 3750, 8),
            (50.0, 1800, 17),
            (15.0, 6000, 5),
        ] {
            let params = PartTiming::measure(Some(0), &millis(rate, 21), None, Some(1920), None);
            assert_eq!((params.frame_ticks, params.frames), (ticks, frames), "{rate} fps");
            assert_eq!(params.part_target, ticks * frames + 1920);
        }
        assert_eq!(frame_ticks(&millis(29.97, 11), Some((30_000, 1001))), 3003);
        assert_eq!(frame_ticks(&millis(30.0, 11), Some((60, 1))), 3000, "the SPS may count fields");
        assert_eq!(frame_ticks(&millis(1.0, 3), None), 90_000);
        assert_eq!(frame_ticks(&[5], Some((25, 1))), 3600);
        assert_eq!(frame_ticks(&[], None), 3000);
        assert_eq!(frame_ticks(&[0, 3000, 6000, 36_000, 39_000], None), 3000, "a pause");
    }

    #[test]
    fn a_frozen_target_is_kept_at_another_rate() {
        let first = PartTiming::measure(Some(0), &millis(30.0, 10), None, Some(1920), None);
        for rate in [10.0, 24.0, 25.0, 50.0, 60.0] {
            let next =
                PartTiming::measure(Some(1), &millis(rate, 20), None, Some(1920), Some(first.part_target));
            assert_eq!(next.part_target, first.part_target);
            assert!(next.part_ticks() + 1920 <= i64::from(next.part_target));
        }
    }

    #[test]
    fn slow_audio_gets_longer_parts() {
        let params = PartTiming::measure(None, &[], None, Some(audio_frame_ticks(22_050)), None);
        let (part, frame) = (params.part_ticks() as f64, f64::from(audio_frame_ticks(22_050)));
        assert!(part - frame >= 0.85 * f64::from(params.part_target));
    }
}
