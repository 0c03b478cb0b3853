//! The duration of parts: measured once, then the same for every worker.

use std::ops::RangeInclusive;

use crate::frame::{AudioConfig, VideoConfig};
use crate::time::Timescale;

/// Part durations that a stream may ask for, in milliseconds. Below, requests cost more than the
/// latency gains; above, the latency is that of whole segments.
pub const PART_MS: RangeInclusive<u32> = 200..=1_000;
/// Longest frame time, and longest part of audio of low rates. 90 kHz ticks (1 s).
const MAX_FRAME_TICKS: u32 = 90_000;
/// Fewest audio frames in a part. Audio parts end at the first frame boundary at or after the end
/// of the video part, so their number of frames varies by one, and PART-TARGET is the longer one. A
/// part must reach 85 % of PART-TARGET (RFC 8216bis §4.4.4.9): 6 of 7 frames do, 5 of 6 do not.
const MIN_AUDIO_FRAMES: u64 = 6;
/// Audio that is allowed for in a stream without any, because it may come later: AAC at these
/// rates.
const USUAL_AUDIO: [AudioFrames; 2] =
    [AudioFrames { samples: 1_024, rate: 44_100 }, AudioFrames { samples: 1_024, rate: 48_000 }];
/// Frame rates of usual sources. A measured one within [`RATE_TOLERANCE`] is taken for it.
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
/// Largest relative error of a measured frame time: the shortest part (200 ms) has five frame times
/// of 25 to 30 pictures per second, 167 ms, in which two timestamps are off by a millisecond each.
/// Usual rates are 4 % apart.
const RATE_TOLERANCE: f64 = 0.012;

/// The timing of parts, which every worker of a stream must share. PART-TARGET never changes while
/// a stream lives, because players give up if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartTiming {
    /// The video init version that the frame time was measured with; `None` if there was no video.
    pub init_version: Option<u32>,
    /// Nominal frame time in 90 kHz ticks.
    pub frame_ticks: u32,
    /// The number of video frames in a part.
    pub frames: u32,
    /// EXT-X-PART-INF:PART-TARGET in 90 kHz ticks.
    pub part_target: u32,
}

/// The length that parts must have, in 90 kHz ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartLength {
    /// About as long as the stream's setting asks for; PART-TARGET follows.
    About(u32),
    /// No longer than this PART-TARGET, which stays.
    Target(u32),
}

impl PartLength {
    /// Returns the length that a stream's setting asks for, the limits of [`PART_MS`] applied.
    pub(super) fn of_setting(part_ms: u32) -> Self {
        Self::About(part_ms.clamp(*PART_MS.start(), *PART_MS.end()) * 90)
    }

    /// Returns its figure in 90 kHz ticks.
    pub(super) const fn ticks(self) -> u32 {
        match self {
            Self::About(ticks) | Self::Target(ticks) => ticks,
        }
    }
}

impl PartTiming {
    /// Returns the nominal duration of a part in 90 kHz ticks.
    pub const fn part_ticks(&self) -> i64 {
        self.frame_ticks as i64 * self.frames as i64
    }

    /// Returns the frame rate in thousandths of a picture per second: that of `declared`, the fraction in the codec's
    /// configuration, or of a usual rate, if its frame time is [`Self::frame_ticks`] but for rounding; else that of the ticks.
    pub fn frame_rate_milli(&self, declared: Option<(u32, u32)>) -> u32 {
        let frame_ticks = f64::from(self.frame_ticks.max(1));
        let milli = |(rate, scale): (u32, u32)| 1000.0 * f64::from(rate) / f64::from(scale.max(1));
        let known = declared
            .into_iter()
            .chain(RATES)
            .find(|rate| (ticks(*rate) - frame_ticks).abs() < 1.0)
            .map_or_else(|| 90_000_000.0 / frame_ticks, milli);
        known.round() as u32
    }

    /// Measures the frame time and settles the length of parts. `pictures` are the decoding times
    /// of the first part, or of what there is of it, and `init_version` and `video` belong to them;
    /// without video, frames are those of the audio.
    pub(super) fn measure(
        init_version: Option<u32>,
        pictures: &[i64],
        video: Option<&VideoConfig>,
        audio: Option<&AudioConfig>,
        length: PartLength,
    ) -> Self {
        let tracks = match audio {
            Some(audio) => vec![AudioFrames { samples: audio.frame_samples, rate: audio.rate }],
            None => USUAL_AUDIO.to_vec(),
        };
        let frame_ticks = match init_version {
            Some(_) => frame_ticks(pictures, video.and_then(|video| video.frame_rate)),
            // Rounded down, so that a whole number of frames does not fall short of the part.
            None => {
                tracks[0].span(1).min(u64::from(MAX_FRAME_TICKS)) as u32 - u32::from(!tracks[0].is_exact())
            }
        };
        let longest = |frames: u32| {
            let video = u64::from(frames) * u64::from(frame_ticks);
            tracks.iter().map(|audio| audio.longest_part(video)).max().unwrap_or(0).max(video)
        };
        let (frames, part_target) = match length {
            PartLength::About(aim) => {
                let audio = tracks.iter().map(|audio| audio.span(MIN_AUDIO_FRAMES)).max().unwrap_or(0);
                let fewest = audio.min(u64::from(MAX_FRAME_TICKS)).div_ceil(u64::from(frame_ticks)) as u32;
                let frames = ((aim + frame_ticks / 2) / frame_ticks).max(fewest).max(1);
                (frames, longest(frames) as u32)
            }
            PartLength::Target(target) => {
                // A frame that does not fit is a part of its own.
                let fitting =
                    (1..=target / frame_ticks).rfind(|frames| longest(*frames) <= u64::from(target));
                (fitting.unwrap_or(1), target)
            }
        };
        Self { init_version, frame_ticks, frames, part_target }
    }
}

/// The frames of an audio track.
#[derive(Debug, Clone, Copy)]
struct AudioFrames {
    samples: u32,
    rate: u32,
}

impl AudioFrames {
    /// Returns the duration of `count` frames in 90 kHz ticks, rounded up.
    fn span(self, count: u64) -> u64 {
        let video = u64::from(Timescale::VIDEO.ticks_per_second());
        (count * u64::from(self.samples) * video).div_ceil(u64::from(self.rate.max(1)))
    }

    /// True if a frame is a whole number of 90 kHz ticks.
    fn is_exact(self) -> bool {
        (u64::from(self.samples) * u64::from(Timescale::VIDEO.ticks_per_second()))
            .is_multiple_of(u64::from(self.rate.max(1)))
    }

    /// Returns the duration of the longest audio part beside video parts of `video` ticks, in 90
    /// kHz ticks rounded up: as many frames as reach from one end of a video part to the next.
    fn longest_part(self, video: u64) -> u64 {
        let ticks = u64::from(self.samples) * u64::from(Timescale::VIDEO.ticks_per_second());
        self.span((video * u64::from(self.rate)).div_ceil(ticks.max(1)))
    }
}

/// True if the pictures so far span a part of `length` ticks, the last one's own frame time
/// included.
pub(super) fn spans_a_part(pictures: &[i64], length: u32) -> bool {
    let [first, .., last] = pictures else { return false };
    let mean = (last - first) / (pictures.len() as i64 - 1);
    last - first + mean + mean / 2 >= i64::from(length)
}

/// Returns the exact frame time in 90 kHz ticks of a rate in pictures per second.
fn ticks((rate, scale): (u32, u32)) -> f64 {
    90_000.0 * f64::from(scale) / f64::from(rate.max(1))
}

/// Returns the frame time in 90 kHz ticks: the declared one if the pictures agree, else that of a
/// usual rate near the measured one, else the measured one.
fn frame_ticks(pictures: &[i64], declared: Option<(u32, u32)>) -> u32 {
    let round = |ticks: f64| (ticks.round() as u32).clamp(90, MAX_FRAME_TICKS);
    let Some(measured) = mean_step(pictures) else {
        return round(declared.map_or(3_000.0, ticks));
    };
    declared
        .into_iter()
        .chain(RATES)
        .map(ticks)
        .find(|candidate| (candidate - measured).abs() <= candidate * RATE_TOLERANCE)
        .map_or_else(|| round(measured), round)
}

/// Returns the mean step between pictures. Steps far from the median (lost pictures, pauses) do not
/// count.
fn mean_step(pictures: &[i64]) -> Option<f64> {
    let mut steps: Vec<i64> = pictures.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.sort_unstable();
    let median = *steps.get(steps.len() / 2)?;
    let near: Vec<i64> = steps.into_iter().filter(|step| (step - median).abs() * 4 <= median).collect();
    Some(near.iter().sum::<i64>() as f64 / near.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(rate: f64, count: usize) -> Vec<i64> {
        (0..count).map(|n| (n as f64 * 1000.0 / rate).round() as i64 * 90).collect()
    }

    #[test]
    fn frame_rate_is_exact_to_a_thousandth_for_usual_and_divided_rates() {
        let of = |frame_ticks, declared| {
            PartTiming { init_version: Some(0), frame_ticks, frames: 6, part_target: 18_000 }
                .frame_rate_milli(declared)
        };
        // The frame times that are measured: a fraction of a tick is rounded.
        for (frame_ticks, declared, milli) in [
            (3_003, Some((30_000, 1001)), 29_970),
            (3_754, Some((24_000, 1001)), 23_976),
            (1_502, Some((60_000, 1001)), 59_940),
            (751, Some((120_000, 1001)), 119_880),
            (3_003, None, 29_970),
            (3_754, None, 23_976),
            (1_502, None, 59_940),
            (3_000, Some((30, 1)), 30_000),
            // Half of 59.94, whose frame time is rounded before it is doubled.
            (3_004, Some((29_970, 1000)), 29_970),
            // A declared rate that the pictures do not have.
            (3_000, Some((24, 1)), 30_000),
            (2_800, Some((24, 1)), 32_143),
            (2_800, None, 32_143),
        ] {
            assert_eq!(of(frame_ticks, declared), milli, "{frame_ticks} {declared:?}");
        }
    }

    fn aac(rate: u32) -> AudioConfig {
        AudioConfig::aac_lc(rate, 2).unwrap()
    }

    fn measure(rate: f64, audio: u32, length: PartLength) -> PartTiming {
        PartTiming::measure(Some(0), &millis(rate, 21), None, Some(&aac(audio)), length)
    }

    #[test]
    fn timing_finds_the_rate_behind_millisecond_timestamps() {
        for (rate, ticks, frames, audio_frames) in [
            (30.0, 3000, 10, 16),
            (25.0, 3600, 8, 15),
            (60.0, 1500, 20, 16),
            (24.0, 3750, 8, 16),
            (50.0, 1800, 17, 16),
            (15.0, 6000, 5, 16),
        ] {
            let timing = measure(rate, 48_000, PartLength::of_setting(333));
            assert_eq!((timing.frame_ticks, timing.frames), (ticks, frames), "{rate} fps");
            assert_eq!(timing.part_target, (ticks * frames).max(audio_frames * 1920));
        }
        assert_eq!(frame_ticks(&millis(29.97, 11), Some((30_000, 1001))), 3003);
        assert_eq!(frame_ticks(&millis(30.0, 11), Some((60, 1))), 3000, "the SPS may count fields");
        assert_eq!(frame_ticks(&millis(1.0, 3), None), 90_000);
        assert_eq!(frame_ticks(&[5], Some((25, 1))), 3600);
        assert_eq!(frame_ticks(&[], None), 3000);
        assert_eq!(frame_ticks(&[0, 3000, 6000, 36_000, 39_000], None), 3000, "a pause");
    }

    #[test]
    fn timing_measured_on_the_shortest_part_finds_every_usual_rate() {
        for (rate, scale) in RATES {
            let per_second = f64::from(rate) / f64::from(scale);
            for start in 0..40 {
                // Milliseconds that round differently with every start.
                let times =
                    (0..).map(|n| (f64::from(start) / 40.0 + f64::from(n) * 1000.0 / per_second).round());
                let mut pictures = Vec::new();
                for time in times {
                    pictures.push(time as i64 * 90);
                    if spans_a_part(&pictures, 18_000) {
                        break;
                    }
                }
                let found = f64::from(frame_ticks(&pictures, None));
                let exact = 90_000.0 / per_second;
                assert!((found - exact).abs() <= exact * 0.002, "{per_second}: {found} for {exact}");
            }
        }
    }

    #[test]
    fn parts_heed_the_setting_within_its_limits() {
        let frames = |part_ms| measure(30.0, 48_000, PartLength::of_setting(part_ms)).frames;
        assert_eq!([200, 333, 500, 1_000].map(frames), [6, 10, 15, 30]);
        assert_eq!([0, 199, 1_001, u32::MAX].map(frames), [6, 6, 30, 30]);
    }

    #[test]
    fn audio_parts_reach_85_percent_of_part_target_at_every_rate() {
        for part_ms in [200, 250, 333, 500, 1_000] {
            for audio in [96_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 11_025, 8_000, 7_350] {
                for rate in [5.0, 15.0, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0] {
                    let timing = measure(rate, audio, PartLength::of_setting(part_ms));
                    let frame = 1_024.0 * 90_000.0 / f64::from(audio);
                    let (part, target) = (timing.part_ticks() as f64, f64::from(timing.part_target));
                    // One frame less than the most, unless every part has the same number.
                    let most = (part / frame).ceil();
                    let fewest = if (part / frame).fract() == 0.0 { most } else { most - 1.0 };
                    assert!(most * frame <= target && part <= target, "{part_ms} {audio} {rate}");
                    assert!(fewest * frame >= 0.85 * target, "{part_ms} {audio} {rate}: {timing:?}");
                    assert!(part >= 0.85 * target, "{part_ms} {audio} {rate}: {timing:?}");
                }
            }
        }
    }

    #[test]
    fn frozen_target_is_kept_at_another_frame_rate() {
        let first = measure(30.0, 48_000, PartLength::of_setting(200));
        for rate in [10.0, 24.0, 25.0, 50.0, 60.0] {
            let next = measure(rate, 48_000, PartLength::Target(first.part_target));
            assert_eq!(next.part_target, first.part_target);
            let part = next.part_ticks() as u64;
            let audio = AudioFrames { samples: 1_024, rate: 48_000 }.longest_part(part);
            assert!(part.max(audio) <= u64::from(next.part_target));
        }
    }

    #[test]
    fn audio_alone_has_parts_of_equal_length() {
        for rate in [48_000, 44_100, 22_050] {
            let timing = PartTiming::measure(None, &[], None, Some(&aac(rate)), PartLength::of_setting(200));
            let frames = AudioFrames { samples: 1_024, rate }.span(u64::from(timing.frames));
            assert_eq!(u64::from(timing.part_target), frames, "{rate}");
            assert!(timing.frames >= 6);
        }
    }
}
