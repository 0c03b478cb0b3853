//! The judge of a publish's media, without I/O and clock: counts go in once a second, words for the stream's health come
//! out once a condition has lasted.
//!
//! The judge looks at three things: how many frames arrive and how many of them can be used, which repairs are made, and
//! how far keyframes are apart. It also decides when a publish of which nothing can be used ends.

use std::cmp::Reverse;
use std::time::Duration;

use millrace_media::repair::{Repair, RepairClass, RepairCounts};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::message::control::HealthNote;

use super::message_builder::FrameCounts;
use super::source::PublishEnd;

/// Interval of observations. A second holds at least one frame of any stream but a slide show.
pub(crate) const SAMPLE: Duration = Duration::from_secs(1);
/// A condition is told once it has lasted this long: shorter ones are hiccups that need no operator.
pub(crate) const LASTED: Duration = Duration::from_secs(5);
/// A condition is over when it did not show for this long: the longest segment (10 s) and a second, because repairs at
/// boundaries show once in a segment.
const QUIET: Duration = Duration::from_secs(11);
/// Observations in which a repair must have been made before it counts as lasting: two repairs far apart are two hiccups.
const MIN_SAMPLES: u32 = 3;
/// Distance of keyframes beyond the target duration with which every segment still begins with one, because EXTINF is rounded,
/// in 90 kHz ticks (400 ms).
const KEYFRAME_SLACK: i64 = 36_000;

/// The counts of one publish since its beginning, and the newest times of its tracks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Observation {
    /// Frames that arrived, readable or not.
    pub(crate) received: FrameCounts,
    /// Frames of the source that were sent on; silence is none.
    pub(crate) usable: FrameCounts,
    /// Repairs of all stages.
    pub(crate) repairs: RepairCounts,
    /// The distance of the two newest keyframes in 90 kHz ticks.
    pub(crate) keyframe_distance: Option<i64>,
}

/// A condition that shows in some observations.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    since: Option<Duration>,
    last: Duration,
    samples: u32,
}

impl Run {
    /// Takes one observation; a condition that was quiet for long begins anew.
    fn observe(&mut self, now: Duration, shows: bool, quiet: Duration) {
        if self.since.is_some() && now.saturating_sub(self.last) > quiet {
            *self = Self::default();
        }
        if shows {
            self.since.get_or_insert(now.saturating_sub(SAMPLE));
            self.last = now;
            self.samples += 1;
        }
    }

    /// Returns the time from the first to the last observation that showed the condition.
    fn lasted(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| self.last.saturating_sub(since))
    }
}

/// A track of which frames arrive and none can be used.
#[derive(Debug, Clone, Copy, Default)]
struct Stall {
    run: Run,
    /// The repairs when it began, which tell the cause.
    repairs: RepairCounts,
}

impl Stall {
    /// Takes one observation; true if a usable frame ended a stall that had lasted.
    fn observe(&mut self, now: Duration, received: u64, usable: u64, before: &RepairCounts) -> bool {
        if usable > 0 {
            return std::mem::take(self).run.lasted() >= LASTED;
        }
        if received > 0 && self.run.since.is_none() {
            self.repairs = *before;
        }
        // Only usable frames end it, so the time without any frame belongs to it.
        self.run.observe(now, received > 0, Duration::MAX);
        false
    }

    /// Returns the drop that most of the track's frames met.
    fn cause(&self, repairs: &RepairCounts, is_audio: bool) -> Option<Repair> {
        let since = repairs.since(&self.repairs);
        let drops = since
            .iter()
            .filter(|(repair, _)| repair.class() == RepairClass::Dropped && repair.is_audio() == is_audio)
            .filter(|(repair, _)| !repair.is_routine());
        // Of two counts of the same messages the one declared first says more.
        drops.max_by_key(|(repair, count)| (*count, Reverse(*repair))).map(|(repair, _)| repair)
    }
}

/// Judges one publish.
#[derive(Debug)]
pub(crate) struct HealthJudge {
    /// Target duration in 90 kHz ticks, and in seconds.
    target: (i64, u32),
    /// A publish without usable media ends after this long.
    limit: Duration,
    last: Observation,
    runs: Vec<Run>,
    pictures: Stall,
    audio: Stall,
    far_keyframes: Run,
    /// The first observation with a frame since the last usable one.
    nothing_usable_since: Option<Duration>,
    notes: Vec<HealthNote>,
}

impl HealthJudge {
    /// Creates the judge of a publish of a stream with `target_duration` seconds. `limit` is the longest time without
    /// usable media.
    pub(crate) fn new(target_duration: u32, limit: Duration) -> Self {
        Self {
            target: (i64::from(target_duration) * 90_000, target_duration),
            limit,
            last: Observation::default(),
            runs: vec![Run::default(); Repair::ALL.len()],
            pictures: Stall::default(),
            audio: Stall::default(),
            far_keyframes: Run::default(),
            nothing_usable_since: None,
            notes: Vec::new(),
        }
    }

    /// Takes the next observation; true if the notes have changed. An error ends the publish.
    pub(crate) fn observe(&mut self, now: Duration, seen: &Observation) -> Result<bool, PublishEnd> {
        let last = std::mem::replace(&mut self.last, *seen);
        let received = seen.received.since(last.received);
        let usable = seen.usable.since(last.usable);
        let ended = [
            self.pictures.observe(now, received.video, usable.video, &last.repairs),
            self.audio.observe(now, received.audio, usable.audio, &last.repairs),
        ];
        let repairs = seen.repairs.since(&last.repairs);
        for (run, repair) in self.runs.iter_mut().zip(Repair::ALL) {
            // The drops of a stall end with it.
            if repair.class() == RepairClass::Dropped && ended[usize::from(repair.is_audio())] {
                *run = Run::default();
            }
            run.observe(now, repairs.get(*repair) > 0, QUIET);
        }
        if usable.video + usable.audio > 0 {
            self.nothing_usable_since = None;
        } else if received.video + received.audio > 0 {
            self.nothing_usable_since.get_or_insert(now.saturating_sub(SAMPLE));
        }
        self.far_keyframes.observe(now, self.far_keyframe().is_some(), 2 * SAMPLE);
        self.check_usable(now)?;
        let notes = self.judge();
        let changed = notes != self.notes;
        self.notes = notes;
        Ok(changed)
    }

    /// Returns the distance of the two newest keyframes if it is too large for every segment to begin with one.
    fn far_keyframe(&self) -> Option<i64> {
        self.last.keyframe_distance.filter(|distance| *distance > self.target.0 + KEYFRAME_SLACK)
    }

    /// Returns the conditions that last, the worst first.
    pub(crate) fn notes(&self) -> &[HealthNote] {
        &self.notes
    }

    /// Ends a publish of which nothing, no picture or no audio can be used for the limit.
    fn check_usable(&self, now: Duration) -> Result<(), PublishEnd> {
        let cause = |stall: &Stall, is_audio| stall.cause(&self.last.repairs, is_audio);
        let limit = self.limit.as_secs();
        let end = |what: &str, cause: Option<Repair>| match cause {
            Some(Repair::PictureBeforeKeyframe) => {
                let text = format!("no keyframe for {limit} s: set the encoder's keyframe interval to 2 s");
                Err(PublishEnd { reason: CloseReason::KeyframeInterval, text })
            }
            cause => {
                let why = cause.map_or("none can be decoded", Repair::cause);
                let text = format!("no usable {what} for {limit} s: {why}");
                Err(PublishEnd { reason: CloseReason::NoUsableMedia, text })
            }
        };
        if self.nothing_usable_since.is_some_and(|since| now.saturating_sub(since) >= self.limit) {
            return end("media", cause(&self.pictures, false).or(cause(&self.audio, true)));
        }
        if self.pictures.run.lasted() >= self.limit {
            return end("picture", cause(&self.pictures, false));
        }
        if self.audio.run.lasted() >= self.limit {
            return end("audio", cause(&self.audio, true));
        }
        Ok(())
    }

    fn judge(&self) -> Vec<HealthNote> {
        let mut notes = Vec::new();
        for (code, stall, what, is_audio) in [
            ("no_usable_picture", &self.pictures, "picture", false),
            ("no_usable_audio", &self.audio, "audio", true),
        ] {
            if stall.run.lasted() >= LASTED {
                let cause = stall.cause(&self.last.repairs, is_audio);
                let why = cause.map_or("none can be decoded", Repair::cause);
                notes.push(HealthNote::new(code, &format!("No usable {what} for 5 s: {why}.")));
            }
        }
        let (_, seconds) = self.target;
        // A keyframe that is lost on the way doubles one distance.
        let far = self.far_keyframe().filter(|_| self.far_keyframes.lasted() >= LASTED);
        if let Some(distance) = far {
            let text = format!(
                "Keyframes are {:.1} s apart, more than the target duration of {seconds} s: set the encoder's keyframe interval to 2 s.",
                distance as f64 / 90_000.0
            );
            notes.push(HealthNote::new("keyframe_distance", &text));
        }
        for (run, repair) in self.runs.iter().zip(Repair::ALL) {
            let is_told = match repair {
                // The words for the track, or for the distance of keyframes, tell it already.
                Repair::SegmentWithoutKeyframe => far.is_some(),
                repair if repair.is_routine() => true,
                repair if repair.class() == RepairClass::Dropped => {
                    let stall = if repair.is_audio() { &self.audio } else { &self.pictures };
                    stall.run.lasted() >= LASTED
                }
                _ => false,
            };
            if !is_told && run.lasted() >= LASTED && run.samples >= MIN_SAMPLES {
                notes.push(HealthNote::new(repair.code(), repair.text()));
            }
        }
        notes.truncate(HealthNote::MAX);
        notes
    }
}

#[cfg(test)]
mod tests;
