//! The audience of a broadcast: its peak, unique viewers, watch time and course, made of samples of its count. It reads no clock: the
//! caller passes the time.

use millrace_wire::ids::{BroadcastId, UnixMillis};
use serde::{Deserialize, Serialize};

/// Milliseconds of a step of the course when a broadcast begins.
const FIRST_STEP_MS: u64 = 10_000;
/// Steps of the course. When they are full, two become one: a broadcast of a day has steps of about ten minutes.
pub const MAX_STEPS: usize = 240;
/// The longest time that one sample stands for: while no control led, or the state store was away, nothing was counted.
const MAX_SAMPLE_MS: u64 = 30_000;

/// The viewers during one step of the course.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The most viewers of any sample.
    pub peak: u64,
    /// Milliseconds watched by all viewers together.
    pub watch_ms: u64,
}

/// The record of a broadcast's audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroadcastAudience {
    /// The broadcast.
    pub broadcast: BroadcastId,
    /// The time of the first sample.
    pub began: UnixMillis,
    /// The time of the newest sample.
    pub sampled: UnixMillis,
    /// The number of viewers in the newest sample.
    pub viewers: u64,
    /// The most viewers of any sample.
    pub peak: u64,
    /// The estimated number of different viewers.
    pub unique: u64,
    /// Milliseconds watched by all viewers together.
    pub watch_ms: u64,
    /// Milliseconds of each step of the course.
    pub step_ms: u64,
    /// The course from `began` on.
    pub steps: Vec<Step>,
}

impl BroadcastAudience {
    /// Creates the record of a broadcast that is first looked at now.
    pub fn begin(broadcast: BroadcastId, now: UnixMillis) -> Self {
        Self {
            broadcast,
            began: now,
            sampled: now,
            viewers: 0,
            peak: 0,
            unique: 0,
            watch_ms: 0,
            step_ms: FIRST_STEP_MS,
            steps: Vec::new(),
        }
    }

    /// Adds a sample. The viewers of the sample before are taken to have watched until now. A clock that goes back adds nothing.
    pub fn sample(&mut self, viewers: u64, now: UnixMillis) {
        let past_ms = now.0.saturating_sub(self.sampled.0).min(MAX_SAMPLE_MS);
        let watched_ms = self.viewers.saturating_mul(past_ms);
        self.watch_ms = self.watch_ms.saturating_add(watched_ms);
        self.peak = self.peak.max(viewers);
        self.viewers = viewers;
        self.sampled = self.sampled.max(now);
        let mut at = self.step_of(self.sampled);
        while at >= MAX_STEPS {
            self.halve();
            at = self.step_of(self.sampled);
        }
        if self.steps.len() <= at {
            self.steps.resize(at + 1, Step::default());
        }
        if let Some(step) = self.steps.get_mut(at) {
            step.peak = step.peak.max(viewers);
            step.watch_ms = step.watch_ms.saturating_add(watched_ms);
        }
    }

    /// Notes the number of different viewers. The embedded store forgets them when it restarts, so the largest number counts.
    pub fn note_unique(&mut self, unique: u64) {
        self.unique = self.unique.max(unique);
    }

    fn step_of(&self, at: UnixMillis) -> usize {
        (at.0.saturating_sub(self.began.0) / self.step_ms) as usize
    }

    fn halve(&mut self) {
        let join = |pair: &[Step]| Step {
            peak: pair.iter().map(|step| step.peak).max().unwrap_or_default(),
            watch_ms: pair.iter().map(|step| step.watch_ms).sum(),
        };
        self.steps = self.steps.chunks(2).map(join).collect();
        self.step_ms *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROADCAST: BroadcastId = BroadcastId::from_u128(1);

    #[test]
    fn audience_adds_up_watch_time_and_keeps_the_peak_of_each_step() {
        let mut audience = BroadcastAudience::begin(BROADCAST, UnixMillis(1_000_000));
        for (second, viewers, unique) in [(0, 0, 0), (5, 3, 3), (10, 5, 7), (15, 2, 7), (20, 0, 2)] {
            audience.sample(viewers, UnixMillis(1_000_000 + second * 1_000));
            audience.note_unique(unique);
        }
        assert_eq!((audience.peak, audience.unique, audience.viewers), (5, 7, 0));
        assert_eq!(audience.watch_ms, (3 + 5 + 2) * 5_000);
        let peaks: Vec<u64> = audience.steps.iter().map(|step| step.peak).collect();
        assert_eq!(peaks, [3, 5, 0]);
        assert_eq!(audience.steps.iter().map(|step| step.watch_ms).sum::<u64>(), audience.watch_ms);
    }

    #[test]
    fn audience_of_a_long_broadcast_keeps_a_bounded_number_of_steps_and_its_sums() {
        let mut audience = BroadcastAudience::begin(BROADCAST, UnixMillis(0));
        let seconds = 30 * 24 * 3_600;
        for second in (0..=seconds).step_by(5) {
            audience.sample(if second == 100_000 { 9 } else { 4 }, UnixMillis(second * 1_000));
            assert!(audience.steps.len() <= MAX_STEPS);
        }
        assert_eq!(audience.watch_ms, 4 * seconds * 1_000 + 5 * 5_000);
        assert_eq!(audience.steps.iter().map(|step| step.watch_ms).sum::<u64>(), audience.watch_ms);
        assert_eq!(audience.steps.iter().filter(|step| step.peak == 9).count(), 1);
        assert!(audience.steps.len() * 2 > MAX_STEPS);
    }

    #[test]
    fn audience_counts_no_watch_time_for_a_pause_without_samples_or_a_clock_that_goes_back() {
        let mut audience = BroadcastAudience::begin(BROADCAST, UnixMillis(1_000_000));
        audience.sample(2, UnixMillis(1_000_000));
        audience.sample(2, UnixMillis(900_000));
        assert_eq!((audience.watch_ms, audience.sampled.0), (0, 1_000_000));
        audience.sample(2, UnixMillis(1_000_000 + 3_600_000));
        assert_eq!(audience.watch_ms, 2 * MAX_SAMPLE_MS);
    }
}
