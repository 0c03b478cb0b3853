//! The decode clock: decoding times without holes for pictures whose times are not known in advance.
//!
//! A part is closed with its last picture, before the next one has come, so the duration of a
//! picture has to be final when the picture is sent. The clock gives each picture the decoding time
//! at which the picture before it ended, and ends it where the next one is expected. Where pictures
//! are lost or come at an uneven rate, the next picture starts early or late and its own duration
//! makes up for it; its presentation time stays exact. So decoding times are contiguous over parts
//! and segments: a player that takes a decoding time more than two durations away for a
//! discontinuity (W3C Media Source Extensions, coded frame processing) never drops pictures.

/// Longest duration of a picture of a usual rate, in 90 kHz ticks (149 ms), so that no picture exceeds
/// PART-TARGET. A larger error is made up for over several pictures.
const LONGEST_PICTURE: i64 = 13_400;
/// Largest error that is made up for, in 90 kHz ticks (1 s). Pictures that pause for longer leave a
/// hole, because the duration of a segment would exceed the target duration.
const LARGEST_ERROR: i64 = 90_000;
/// The same at a keyframe (300 ms): a player drops nothing there, and a segment that begins late would
/// be too long.
const LARGEST_KEYFRAME_ERROR: i64 = 27_000;
/// Steps that the frame time is measured on: 2 s of 30 pictures per second.
const STEPS: usize = 64;
/// The frame time is measured again after so many pictures; the first ones are measured each.
const MEASURE_EVERY: u64 = 16;
/// Frame times that are believed, in 90 kHz ticks: 240 to 0.2 pictures per second.
const FRAME_TICKS: std::ops::RangeInclusive<i64> = 375..=450_000;
/// The frame time before any step is known: 30 pictures per second.
const USUAL_FRAME: i64 = 3_000;
/// Frame times of usual rates in 90 kHz ticks; a measured one within [`RATE_TOLERANCE`] is taken for
/// it, so that parts are equal although the times of RTMP are rounded to milliseconds.
const USUAL_FRAMES: [i64; 14] =
    [3_000, 1_500, 3_600, 1_800, 3_750, 6_000, 3_003, 750, 4_500, 9_000, 1_875, 18_000, 45_000, 90_000];
/// Largest relative distance from a usual frame time, in thousandths.
const RATE_TOLERANCE: i64 = 2;
/// Largest error of a time that is rounded to a millisecond, at both ends of a measurement, in 90 kHz
/// ticks.
const ROUNDING: i64 = 90;
/// After so many pictures without a loss their mean tells 30 from 29.97 pictures per second.
const PRECISE_AFTER: i64 = 256;

/// The place of one picture on the decode timeline, in 90 kHz ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// Decoding time: the end of the picture before.
    pub(super) dts: i64,
    /// Decoding time to the next picture.
    pub(super) duration: u32,
    /// True if the pictures paused for so long that a hole is left before this one.
    pub(super) follows_hole: bool,
}

/// The decode clock of one publish; the module describes the rules.
#[derive(Debug, Default)]
pub(super) struct DecodeClock {
    /// The end of the newest picture.
    end: Option<i64>,
    /// Longest duration of a picture, if pauses can be filled.
    longest: Option<i64>,
    frame: FrameTime,
}

impl DecodeClock {
    /// Returns the end of the newest picture; `None` before the first one.
    pub(super) const fn end(&self) -> Option<i64> {
        self.end
    }

    /// Returns the frame time.
    pub(super) const fn frame_ticks(&self) -> i64 {
        self.frame.ticks
    }

    /// Returns how long a picture lasts unless the next one shows otherwise.
    pub(super) fn step(&self) -> i64 {
        self.longest.map_or(self.frame.ticks, |longest| longest.min(self.frame.ticks))
    }

    /// Uses the rate that a configuration declares until one has been measured. `longest` is the
    /// longest duration of a picture where a pause can be filled with others.
    pub(super) fn declare(&mut self, frame_rate: Option<(u32, u32)>, longest: Option<i64>) {
        self.frame.declare(frame_rate);
        self.longest = longest;
    }

    /// Places the picture that the source decodes at `exact`.
    pub(super) fn place(&mut self, exact: i64, is_keyframe: bool) -> Placed {
        self.frame.observe(exact);
        let frame = self.step();
        let largest = if is_keyframe { LARGEST_KEYFRAME_ERROR } else { LARGEST_ERROR };
        let follows_hole = self.end.is_some_and(|end| exact - end > largest.max(frame));
        let dts = self.end.filter(|_| !follows_hole).unwrap_or(exact);
        let error = exact - dts;
        // Rounded times stray around a steady rate: its pictures have equal durations.
        let slack = if self.frame.is_settled() { frame / 2 } else { frame / 8 };
        let wanted = if error.abs() <= slack { frame } else { frame + error };
        let duration = wanted.clamp((frame / 2).max(1), LONGEST_PICTURE.max(frame));
        self.end = Some(dts + duration);
        Placed { dts, duration: duration as u32, follows_hole }
    }
}

/// The frame time, measured on the newest steps.
#[derive(Debug)]
struct FrameTime {
    ticks: i64,
    /// The frame time before any step was known.
    first: i64,
    last: Option<i64>,
    steps: [i64; STEPS],
    count: u64,
    /// The time since which every step was near the frame time, and the pictures since then.
    steady: (i64, i64),
}

impl Default for FrameTime {
    fn default() -> Self {
        Self {
            ticks: USUAL_FRAME,
            first: USUAL_FRAME,
            last: None,
            steps: [0; STEPS],
            count: 0,
            steady: (0, 0),
        }
    }
}

impl FrameTime {
    fn declare(&mut self, frame_rate: Option<(u32, u32)>) {
        if let Some((rate, scale)) = frame_rate.filter(|_| self.count == 0) {
            let ticks = 90_000 * i64::from(scale) / i64::from(rate.max(1));
            self.ticks = ticks.clamp(*FRAME_TICKS.start(), *FRAME_TICKS.end());
            self.first = self.ticks;
        }
    }

    const fn is_settled(&self) -> bool {
        self.count >= MEASURE_EVERY
    }

    fn observe(&mut self, exact: i64) {
        let Some(last) = self.last.replace(exact) else {
            self.steady = (exact, 0);
            return;
        };
        let step = exact - last;
        let is_near = (step - self.ticks).abs() * 2 <= self.ticks;
        self.steady = if is_near { (self.steady.0, self.steady.1 + 1) } else { (exact, 0) };
        if !(1..=*FRAME_TICKS.end()).contains(&step) {
            return;
        }
        self.steps[(self.count % STEPS as u64) as usize] = step;
        self.count += 1;
        // Of times that scatter, one or two small steps tell little.
        let is_told = self.count >= 3 || step > self.ticks;
        if self.count < MEASURE_EVERY && is_told || self.count.is_multiple_of(MEASURE_EVERY) {
            let shortest = if self.is_settled() { *FRAME_TICKS.start() } else { self.first / 2 };
            self.ticks = self.measure(exact).clamp(shortest, *FRAME_TICKS.end());
        }
    }

    /// Returns the mean of the steps near the median, or the usual frame time near it; lost pictures
    /// and pauses do not count.
    fn measure(&self, now: i64) -> i64 {
        let (since, pictures) = self.steady;
        if pictures >= PRECISE_AFTER {
            let mean = divide(now - since, pictures);
            return Self::usual_near(mean, 0).unwrap_or(mean);
        }
        let count = self.count.min(STEPS as u64) as usize;
        let mut sorted = self.steps;
        let steps = &mut sorted[..count];
        let (_, median, _) = steps.select_nth_unstable(count / 2);
        let median = *median;
        let near = steps.iter().filter(|step| (**step - median).abs() * 2 <= median);
        let (sum, number) = near.fold((0, 0), |(sum, number), step| (sum + step, number + 1));
        // Of times that scatter widely, all steps count.
        let is_scattered = number * 2 < count as i64;
        let mean = if is_scattered { divide(steps.iter().sum(), count as i64) } else { divide(sum, number) };
        let slack = mean * RATE_TOLERANCE / 1_000 + ROUNDING / number.max(1);
        // A rate that has been found, or was declared, stays while the steps agree.
        let is_kept = (self.ticks - mean).abs() <= slack;
        if is_kept { self.ticks } else { Self::usual_near(mean, slack).unwrap_or(mean) }
    }

    /// Returns the usual frame time within `slack`, or within a tick, of `mean`; the first one counts.
    fn usual_near(mean: i64, slack: i64) -> Option<i64> {
        USUAL_FRAMES.into_iter().find(|usual| (usual - mean).abs() <= slack.max(1))
    }
}

/// Divides and rounds to nearest.
const fn divide(sum: i64, number: i64) -> i64 {
    if number <= 0 { sum } else { (2 * sum + number) / (2 * number) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn placed(exact: impl IntoIterator<Item = i64>) -> Vec<Placed> {
        let mut clock = DecodeClock::default();
        exact.into_iter().map(|exact| clock.place(exact, false)).collect()
    }

    fn assert_contiguous(placed: &[Placed]) {
        for pair in placed.windows(2) {
            assert_eq!(pair[1].dts, pair[0].dts + i64::from(pair[0].duration), "{pair:?}");
        }
    }

    /// Times of RTMP: rounded to milliseconds.
    fn millis(frame: f64, count: u32) -> Vec<i64> {
        (0..count).map(|n| (f64::from(n) * frame / 90.0).round() as i64 * 90).collect()
    }

    #[test]
    fn pictures_of_a_steady_rate_have_equal_durations() {
        for frame in USUAL_FRAMES {
            let placed = placed(millis(frame as f64, 300));
            assert_contiguous(&placed);
            for place in &placed[60..] {
                let near = (i64::from(place.duration) - frame).abs() * 500 <= frame;
                assert!(near, "{frame}: {place:?}");
            }
        }
    }

    #[test]
    fn picture_after_lost_ones_starts_where_the_last_one_ended_and_lasts_longer() {
        for lost in 1..4 {
            let kept = (0..120i64).filter(|n| !(60..60 + lost).contains(n)).map(|n| n * 3_000);
            let placed = placed(kept);
            assert_contiguous(&placed);
            assert_eq!((placed[60].dts, i64::from(placed[60].duration)), (180_000, 3_000 * (1 + lost)));
            assert_eq!(placed[61].dts, (61 + lost) * 3_000, "exact again");
        }
    }

    #[test]
    fn pause_beyond_the_largest_error_leaves_one_hole() {
        let times = (0..60i64).map(|n| n * 3_000 + if n < 30 { 0 } else { 270_000 });
        let placed = placed(times);
        assert_contiguous(&placed[..30]);
        assert_contiguous(&placed[30..]);
        assert!(placed[30].follows_hole && placed[30].dts == 360_000);
        assert_eq!(placed.iter().filter(|place| place.follows_hole).count(), 1);
    }

    proptest! {
        #[test]
        fn decode_times_are_contiguous_and_near_the_source_for_any_losses_and_jitter(
            frame in 2_700i64..6_000, jitter in 0i64..2_700, loss in 0u32..30, seed: u64
        ) {
            // Of slower pictures that are lost so often, the mean step comes close to the longest picture, and errors are
            // not made up for: the segmenter repeats pictures or leaves a hole there.
            let mut state = seed | 1;
            let mut random = || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state };
            let mut exact = Vec::new();
            let mut pauses = 0;
            for n in 0..400i64 {
                let lost = random() % 100 < u64::from(loss) && pauses < 3;
                pauses = if lost { pauses + 1 } else { 0 };
                if !lost {
                    let stray = if jitter > 0 { (random() % (2 * jitter as u64)) as i64 - jitter } else { 0 };
                    let time: i64 = n * frame + stray;
                    exact.push(exact.last().map_or(time, |last: &i64| time.max(last + 90)));
                }
            }
            let placed = placed(exact.clone());
            assert_contiguous(&placed);
            let shortest = placed.iter().map(|place| place.duration).min().unwrap();
            prop_assert!(i64::from(shortest) * 10 >= frame, "{shortest} of {frame}");
            for (place, exact) in placed.iter().zip(&exact) {
                let error = (place.dts - exact).abs();
                prop_assert!(error <= LARGEST_ERROR, "{place:?} for {exact}");
                prop_assert!(i64::from(place.duration) <= LONGEST_PICTURE.max(8 * frame));
            }
        }
    }
}
