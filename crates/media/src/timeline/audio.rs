//! The audio's sample count beside its times: which of the two is right.
//!
//! Decoders play samples one after the other, whatever their times say. So audio is placed by its count, and
//! its times only tell where the count must be corrected. [`AudioCount`] compares each frame's time with the
//! count; where they part by more than [`AUDIO_SLACK`], a third clock decides: the pictures that came so far,
//! or the time that passed since frames arrived.
//!
//! - **A hole** shows as a step of the times that the third clock confirms. It is closed at once.
//! - **Times that stray** (rounded steps, bundles under one time, a clock that is off) leave the third clock
//!   in agreement with the count. The count goes on, and the times' offset is corrected.
//! - **Samples that are too many or too few** leave the third clock in agreement with the times. A frame is
//!   left out, or a silent one added, at most one in each [`WINDOW`], so that nothing is lost in bursts. From
//!   [`HOLE`] on it is no drift any more: what is missing or too much is made up for at once.
//! - **Late audio**: frames whose times have been replaced by silence already are left out until their times
//!   have caught up with it; if they lag by more than [`LATE_LIMIT`], their clock is taken for another one,
//!   and they follow the silence.

use super::limits::{AUDIO_SLACK, MAX_SILENCE};

/// Time over which audio is judged, in 90 kHz ticks (500 ms): it holds a bundle of the largest usual size,
/// and one frame in it corrects a drift of 4 %.
const WINDOW: i64 = 45_000;
/// Step of the times beyond those before that tells of a hole, in 90 kHz ticks (60 ms).
const HOLE_STEP: i64 = 5_400;
/// Distance from which missing samples are made up for at once and not frame by frame, in 90 kHz ticks (250
/// ms): it is a hole that was not seen as one.
const HOLE: i64 = 22_500;
/// Furthest that audio may be sent behind the silence that stands in for it, in 90 kHz ticks (3 s).
pub(super) const LATE_LIMIT: i64 = 270_000;

/// A third clock at the arrival of an audio frame, in 90 kHz ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Witness {
    /// The decoding time of the most recent picture.
    Pictures(i64),
    /// The time of day at which the frame arrived, from any origin.
    Arrival(i64),
}

impl Witness {
    const fn time(self) -> i64 {
        match self {
            Self::Pictures(time) | Self::Arrival(time) => time,
        }
    }
}

/// The decision about an audio frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The frame follows the one before.
    Follows,
    /// The frame follows the one before, and its times are off by so many 90 kHz ticks.
    Strays(i64),
    /// The frame follows a hole that ends at its time.
    Hole,
    /// The frame follows one silent frame: there are too few samples.
    TooFew,
    /// The frame is left out: there are too many samples.
    TooMany,
    /// The frame is left out: silence has been sent for its time.
    Late,
}

/// One audio frame as it arrives, in 90 kHz ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arriving {
    /// Its time, and the time at which the count puts it.
    pub(super) actual: i64,
    pub(super) expected: i64,
    /// Its duration.
    pub(super) length: i64,
    pub(super) witness: Option<Witness>,
    /// The time since the frame before arrived; `None` without a clock.
    pub(super) gap: Option<i64>,
}

/// The comparison of times and count; the module describes the rules.
#[derive(Debug, Default)]
pub(super) struct AudioCount {
    window: Option<Window>,
    /// The greatest deviation of the window before.
    before: i64,
    /// The witness's lead over the count as it was at first.
    lead: Option<Witness>,
    /// Ticks of audio left out since silence ended; `None` once audio has caught up with it.
    late: Option<i64>,
    /// True if frames are left out because they are too many, not because silence was sent.
    is_overlap: bool,
}

/// The deviations of the frames since `start`.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: i64,
    least: i64,
    greatest: i64,
    /// The smallest lead of the witness.
    lead: Option<Witness>,
}

impl AudioCount {
    /// Forgets what was compared: times and count begin anew.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Audio comes after silence: frames whose times it covers are late.
    pub(super) fn end_silence(&mut self) {
        *self = Self { late: Some(0), ..Self::default() };
    }

    /// Decides about a frame.
    pub(super) fn judge(&mut self, frame: Arriving) -> Verdict {
        let deviation = frame.actual - frame.expected;
        if let Some(left_out) = self.late {
            if deviation < -AUDIO_SLACK {
                return self.judge_late(deviation, left_out, frame.length);
            }
            self.restart();
        }
        if self.is_hole(&frame, deviation) {
            self.restart();
            return Verdict::Hole;
        }
        let lead = frame.witness.map(|witness| witness.minus(frame.expected));
        let window = self.window.get_or_insert(Window {
            start: frame.expected,
            least: deviation,
            greatest: deviation,
            lead,
        });
        window.least = window.least.min(deviation);
        window.greatest = window.greatest.max(deviation);
        window.lead = lesser(window.lead, lead);
        if frame.expected + frame.length - window.start < WINDOW {
            return Verdict::Follows;
        }
        let window = *window;
        self.window = None;
        self.before = window.greatest;
        self.judge_window(window)
    }

    /// Late frames are left out until they fit, unless they do not catch up.
    fn judge_late(&mut self, deviation: i64, left_out: i64, length: i64) -> Verdict {
        let lag = -deviation;
        if lag > LATE_LIMIT || left_out > MAX_SILENCE {
            self.restart();
            return Verdict::Strays(deviation);
        }
        self.late = Some(left_out + length);
        if self.is_overlap { Verdict::TooMany } else { Verdict::Late }
    }

    /// True if the frame's time lies beyond the count by a step, and as much time has passed.
    fn is_hole(&self, frame: &Arriving, deviation: i64) -> bool {
        let known = self.window.map_or(self.before, |window| self.before.max(window.greatest));
        if deviation <= AUDIO_SLACK || deviation <= known + HOLE_STEP {
            return false;
        }
        // Without a clock there is no reason to doubt the times.
        let Some(gap) = frame.gap else { return true };
        let by_witness = self.passed(frame.witness.map(|witness| witness.minus(frame.expected)));
        [by_witness, Some(gap - frame.length)].into_iter().flatten().any(|passed| passed * 2 >= deviation)
    }

    /// Decides about a window of frames that has ended.
    fn judge_window(&mut self, window: Window) -> Verdict {
        let deviation = if window.greatest < -AUDIO_SLACK {
            window.greatest
        } else if window.least > AUDIO_SLACK {
            window.least
        } else {
            0
        };
        let passed = self.passed(window.lead);
        let is_first = passed.is_none() && window.lead.is_some();
        if is_first {
            self.lead = window.lead;
        }
        if deviation == 0 || is_first {
            return Verdict::Follows;
        }
        let passed = passed.unwrap_or_default();
        let is_confirmed = passed.signum() == deviation.signum() && passed.abs() * 2 >= deviation.abs();
        if !is_confirmed {
            self.before -= deviation;
            return Verdict::Strays(deviation);
        }
        match (deviation > 0, deviation.abs() >= HOLE) {
            (true, true) => {
                self.restart();
                Verdict::Hole
            }
            (true, false) => Verdict::TooFew,
            (false, is_large) => {
                if is_large {
                    *self = Self { late: Some(0), is_overlap: true, ..Self::default() };
                }
                Verdict::TooMany
            }
        }
    }

    /// Returns by how much the witness's lead over the count has grown; `None` if it is another witness.
    const fn passed(&self, lead: Option<Witness>) -> Option<i64> {
        match (self.lead, lead) {
            (Some(Witness::Pictures(first)), Some(Witness::Pictures(now)))
            | (Some(Witness::Arrival(first)), Some(Witness::Arrival(now))) => Some(now - first),
            _ => None,
        }
    }
}

impl Witness {
    /// Returns the witness's lead over a time.
    const fn minus(self, time: i64) -> Self {
        match self {
            Self::Pictures(now) => Self::Pictures(now - time),
            Self::Arrival(now) => Self::Arrival(now - time),
        }
    }
}

/// Returns the smaller of two leads of one kind of witness, else the newer one.
fn lesser(old: Option<Witness>, new: Option<Witness>) -> Option<Witness> {
    match (old, new) {
        (Some(Witness::Pictures(_)), Some(Witness::Pictures(_)))
        | (Some(Witness::Arrival(_)), Some(Witness::Arrival(_)))
            if old.map(Witness::time) < new.map(Witness::time) =>
        {
            old
        }
        _ => new,
    }
}
