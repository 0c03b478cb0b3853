//! The distance between keyframes: when the next one is to be expected.

use super::limits::BOUNDARY_SLACK;

/// The keyframes of one publish so far; times in 90 kHz ticks.
#[derive(Debug, Default)]
pub(super) struct Keyframes {
    last: Option<i64>,
    /// The two latest distances; 0 before there is one.
    distance: i64,
    before: i64,
}

impl Keyframes {
    /// Takes the decoding time of a keyframe and returns its distance from the one before.
    pub(super) fn observe(&mut self, dts: i64) -> i64 {
        self.before = self.distance;
        self.distance = self.last.map_or(0, |last| dts - last);
        self.last = Some(dts);
        self.distance
    }

    /// Returns the latest distance between keyframes; 0 before there is one.
    pub(super) const fn distance(&self) -> i64 {
        self.distance
    }

    /// Returns the decoding time at which the next keyframe is due; `None` if they have no usual distance.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.last.filter(|_| self.is_regular()).map(|last| last + self.distance)
    }

    /// True if the latest distances are alike.
    const fn is_regular(&self) -> bool {
        self.distance > 0 && (self.before == 0 || (self.distance - self.before).abs() <= BOUNDARY_SLACK)
    }

    /// True if a picture at `time` may well be a keyframe: the usual distance has passed, or there is
    /// no usual one.
    pub(super) fn is_expected_at(&self, time: i64) -> bool {
        !self.is_regular() || self.last.is_none_or(|last| time - last >= self.distance - BOUNDARY_SLACK)
    }
}
