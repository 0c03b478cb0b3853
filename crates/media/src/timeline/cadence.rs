//! The rate behind the times of pictures, and the steady grid that jittering times are put on.
//!
//! Phones and software encoders stamp pictures when they were captured or sent, so that their times scatter
//! by 10 to 30 ms around a steady rate. A [`Cadence`] follows the times with a line of growing memory
//! (least squares over all pictures so far, then over about [`MEMORY`] of them) and compares each time with
//! the line's prediction. It needs no picture ahead, so that it adds no latency.
//!
//! - Times on the line, but for a harmless scatter, are left alone, and so is a picture rate that truly varies.
//! - Times that scatter around the line are replaced by it. Scatter shows in the steps: a step that is too
//!   long is followed by one that is too short. Where the rate itself varies, steps have no such memory.
//! - A picture that comes whole frame times late follows pictures that were left out; their places stay
//!   empty.
//! - A lasting deviation is another phase or another rate: the memory is shortened and the line follows.

/// Largest deviation of times of a clean source, in 90 kHz ticks (2 ms): RTMP rounds to milliseconds, and so
/// may the encoder.
const CLEAN: f64 = 180.0;
/// Scatter of steps that is left alone: a tenth of the frame time, but no less and no more than this, in 90
/// kHz ticks (1.3 and 4 ms). Players smooth it, and exact times are better than smooth ones.
const HARMLESS: (f64, f64) = (120.0, 360.0);
/// Largest scatter that is taken for jitter, in 90 kHz ticks (40 ms). Pictures are never moved further.
const JITTER_LIMIT: f64 = 3_600.0;
/// Pictures that the line remembers: 3 s at 30 pictures per second. It follows the drift of a clock within
/// seconds, and the scatter of 30 ms moves the line by less than a millisecond.
const MEMORY: u32 = 96;
/// Pictures after which the scatter is judged.
const LEARN: u32 = 12;
/// Pictures after which the line is trusted to tell that pictures were left out.
const TRUSTED: u32 = 6;
/// Pictures without scatter after which times are left alone again.
const CALM: u32 = 200;
/// Pictures that the line remembers when a lasting deviation has been found.
const SHORT_MEMORY: u32 = 5;
/// Pictures within which a second lasting deviation means another rate, not another phase.
const RATE_CHANGE_WINDOW: u32 = 24;
/// Pictures within which places that were left empty are given back.
const SKIP_WINDOW: u32 = 8;
/// Longest step that is enforced between two pictures, in 90 kHz ticks (22 ms): half a frame at 24 pictures
/// per second. A slow source that becomes a fast one must not be held back.
const MAX_FLOOR: f64 = 2_000.0;
/// Shortest step that is enforced, in 90 kHz ticks (1 ms, the resolution of RTMP).
const MIN_FLOOR: f64 = 90.0;

/// The line through the times of pictures; the module describes the rules.
#[derive(Debug, Default)]
pub(super) struct Cadence {
    /// Frame time that the encoder declares, in 90 kHz ticks.
    declared: Option<f64>,
    /// The line: the place of the most recent picture and the frame time, in 90 kHz ticks.
    place: f64,
    period: f64,
    /// Pictures that the place and the frame time are estimated from.
    place_memory: u32,
    period_memory: u32,
    last: f64,
    scatter: Scatter,
    /// Mean of the latest deviations: far from zero if the phase or the rate has changed.
    bias: f64,
    since_deviation: u32,
    /// Places that were left empty lately, and the pictures since then.
    skipped: u32,
    since_skip: u32,
    /// Pictures for which times are replaced unless scatter is seen again.
    steady_for: u32,
}

/// The statistics of deviations, each a mean over the latest pictures.
#[derive(Debug, Default)]
struct Scatter {
    /// About the largest deviation from the line: twice the mean one.
    reach: f64,
    /// Mean square of the deviations from the line.
    from_line: f64,
    /// Mean square of the deviations of steps from the frame time.
    of_steps: f64,
    /// Mean product of one step's deviation and the next one's.
    of_neighbours: f64,
    last_step: f64,
    /// Mean square of steps' deviations that is harmless.
    harmless: f64,
}

impl Scatter {
    /// Takes a deviation from the line and that of the step to it, at this frame time; `learning` while the
    /// line is young.
    fn add(&mut self, deviation: f64, step: f64, period: f64, learning: bool) {
        const WEIGHT: f64 = 1.0 / 32.0;
        self.harmless = (period / 10.0).clamp(HARMLESS.0, HARMLESS.1).powi(2);
        let limit = (2.0 * self.reach).max(CLEAN);
        let (near, step) =
            (deviation.clamp(-2.0 * limit, 2.0 * limit), step.clamp(-4.0 * limit, 4.0 * limit));
        self.from_line += (near * near - self.from_line) * WEIGHT;
        self.of_steps += (step * step - self.of_steps) * WEIGHT;
        self.of_neighbours += (step * self.last_step - self.of_neighbours) * WEIGHT;
        self.last_step = step;
        let size = deviation.abs().min(1.5 * self.reach + 2.0 * CLEAN);
        self.reach += (2.0 * size - self.reach) / if learning { 8.0 } else { 24.0 };
    }

    /// True if times deviate by more than a clean source's.
    fn is_seen(&self) -> bool {
        self.of_steps > self.harmless
    }

    /// True if times scatter around the line: long steps are made up for by short ones.
    fn is_jitter(&self) -> bool {
        self.is_seen()
            && self.from_line <= self.of_steps
            && self.of_neighbours <= -0.3 * self.of_steps
            && self.reach <= JITTER_LIMIT
    }

    /// True if the deviations of steps are not made up for.
    fn is_wander(&self) -> bool {
        self.is_seen() && self.of_neighbours > -0.1 * self.of_steps
    }
}

impl Cadence {
    /// Takes the frame rate that the encoder declares; a hint until there is a line.
    pub(super) fn declare(&mut self, rate: Option<(u32, u32)>) {
        let frame = |(rate, scale): (u32, u32)| 90_000.0 * f64::from(scale) / f64::from(rate.max(1));
        self.declared = rate.map(frame);
    }

    /// Returns the place of the picture at `time`: the time itself, or the line's if times scatter around it.
    pub(super) fn place(&mut self, time: i64) -> i64 {
        let exact = time as f64;
        if self.place_memory == 0 {
            (self.place, self.last) = (exact, exact);
            (self.place_memory, self.period_memory) = (1, self.period_memory.max(1));
            return time;
        }
        let step = exact - std::mem::replace(&mut self.last, exact);
        let slots = self.empty_places(exact - (self.place + self.period), step);
        let deviation = exact - (self.place + self.period * (1.0 + slots));
        if self.period_memory >= 3 {
            let counted = if step > 1.5 * self.period { slots.max(0.0) } else { 0.0 };
            let step = step - self.period * (1.0 + counted);
            self.scatter.add(deviation, step, self.period, self.period_memory < 24);
            self.bias += (deviation - self.bias) / 6.0;
        }
        self.follow(deviation, slots);
        self.follow_changes(exact);
        self.judge();
        if self.is_steady() { self.place.round() as i64 } else { time }
    }

    /// Begins a new line at the next picture: the clock has jumped. The frame time is kept as a hint.
    pub(super) fn restart(&mut self) {
        self.place_memory = 0;
        self.period_memory = self.period_memory.min(SHORT_MEMORY);
        self.bias = 0.0;
    }

    /// True while the line's places replace the times.
    pub(super) const fn is_steady(&self) -> bool {
        self.steady_for > 0
    }

    /// Returns the frame time in 90 kHz ticks; `None` until it is known.
    pub(super) fn period(&self) -> Option<i64> {
        (self.period_memory >= TRUSTED).then_some(self.period.round() as i64)
    }

    /// Returns the shortest step to the next picture's decoding time, in 90 kHz ticks.
    pub(super) fn floor(&self) -> i64 {
        let measured = if self.period_memory >= TRUSTED { self.period } else { 0.0 };
        // Of times that scatter, a few tell the rate only roughly.
        let is_rough = self.period_memory < RATE_CHANGE_WINDOW && self.scatter.is_seen();
        let period = match self.declared {
            Some(declared) if measured == 0.0 || is_rough => declared.max(measured),
            _ => measured,
        };
        let fraction = if self.is_steady() { 0.5 } else { 0.45 };
        (period * fraction).clamp(MIN_FLOOR, MAX_FLOOR) as i64
    }

    /// Returns the number of places that stay empty before a picture which is `deviation` behind the
    /// prediction; -1 if one that was left empty before is given back.
    fn empty_places(&mut self, deviation: f64, step: f64) -> f64 {
        self.since_skip = self.since_skip.saturating_add(1);
        if self.period_memory < TRUSTED {
            return 0.0;
        }
        let half = 0.55 * self.period;
        // The scatter is not well known yet, and may be as large as the frame time.
        let is_unsure = self.period_memory < 64 && self.scatter.reach > 0.3 * self.period;
        let spread = 1.45 * self.scatter.reach + if is_unsure { 0.7 } else { 0.2 } * self.period;
        if deviation > half.max(spread) && step > 1.4 * self.period {
            let places = (deviation / self.period).round().max(1.0);
            (self.skipped, self.since_skip) = (places as u32, 0);
            return places;
        }
        if deviation < -half.max(self.scatter.reach) && self.since_skip <= SKIP_WINDOW && self.skipped > 0 {
            self.skipped -= 1;
            self.scatter.reach = self.scatter.reach.max(0.7 * self.period);
            return -1.0;
        }
        0.0
    }

    /// Moves the line to the picture: the gains are those of a least-squares line over its memory.
    fn follow(&mut self, deviation: f64, slots: f64) {
        let (place, period) = (f64::from(self.place_memory), f64::from(self.period_memory));
        let gain = 2.0 * (2.0 * place + 1.0) / ((place + 1.0) * (place + 2.0));
        self.place += self.period * (1.0 + slots) + gain * deviation;
        self.period = (self.period + 6.0 / ((period + 1.0) * (period + 2.0)) * deviation).max(MIN_FLOOR);
        self.place_memory = (self.place_memory + 1).min(MEMORY);
        self.period_memory = (self.period_memory + 1).min(MEMORY);
    }

    /// Shortens the memory at a lasting deviation, and gives the line up at one beyond all jitter.
    fn follow_changes(&mut self, time: f64) {
        self.since_deviation = self.since_deviation.saturating_add(1);
        if self.place_memory <= TRUSTED {
            return;
        }
        if self.bias.abs() > (0.25 * self.period).max(0.75 * self.scatter.reach).max(CLEAN) {
            if self.since_deviation <= RATE_CHANGE_WINDOW {
                // Scatter as large as the frame time tells the rate only slowly.
                let is_wide = self.scatter.reach > 0.3 * self.period;
                self.period_memory =
                    self.period_memory.min(if is_wide { RATE_CHANGE_WINDOW } else { SHORT_MEMORY });
            }
            self.place_memory = SHORT_MEMORY;
            (self.bias, self.since_deviation) = (0.0, 0);
        }
        if (time - self.place).abs() > JITTER_LIMIT * 1.2 {
            (self.place, self.place_memory) = (time, 2);
            self.period_memory = self.period_memory.min(TRUSTED);
            self.scatter = Scatter { reach: self.scatter.reach.min(JITTER_LIMIT), ..Scatter::default() };
            self.steady_for = 0;
        }
    }

    /// Decides whether times are replaced.
    fn judge(&mut self) {
        if self.period_memory >= LEARN && self.scatter.is_jitter() {
            self.steady_for = CALM;
        } else if self.scatter.is_wander() {
            self.steady_for = 0;
        } else if self.is_steady() {
            let seen = self.scatter.is_seen();
            self.steady_for = if seen { CALM } else { self.steady_for - 1 };
        }
    }
}
