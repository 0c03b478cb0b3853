//! The rhythm of a source whose pictures come rarely: when the next one is due.

use super::pause::LEAD;

/// The two newest distances between pictures of the source, and the newest picture; in 90 kHz ticks.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    distance: i64,
    before: i64,
    /// Decoding time and arrival.
    newest: Option<(i64, i64)>,
}

impl Rhythm {
    /// Takes a picture of the source that is decoded at `dts`, and its arrival if there is a clock.
    pub(super) fn observe(&mut self, dts: i64, arrival: Option<i64>) {
        let Some(arrival) = arrival else { return };
        if let Some((last, _)) = self.newest.replace((dts, arrival)) {
            self.before = std::mem::replace(&mut self.distance, dts - last);
        }
    }

    /// True if pictures come rarely and at equal distances.
    pub(super) const fn is_slow(&self) -> bool {
        self.distance > LEAD && (self.distance - self.before).abs() * 4 <= self.distance
    }

    /// Returns the time up to which the newest picture stands at `now`, an arrival, but at most until the next one is due:
    /// if that does not come, the network may have stalled, and what it sends afterwards needs its place.
    pub(super) fn stands_until(&self, now: i64) -> Option<i64> {
        let (dts, arrival) = self.newest.filter(|_| self.is_slow())?;
        let distance = if self.distance < self.before { self.distance } else { self.before };
        Some(dts + (now - arrival).clamp(0, distance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rhythm_of_slow_pictures_is_followed_until_the_next_one_is_due() {
        let mut rhythm = Rhythm::default();
        for second in [0, 2, 4] {
            assert_eq!(rhythm.stands_until(900_000), None, "no rhythm yet");
            rhythm.observe(second * 90_000, Some(second * 90_000 + 500));
        }
        assert_eq!(rhythm.stands_until(360_500), Some(360_000));
        assert_eq!(rhythm.stands_until(405_500), Some(405_000));
        assert_eq!(rhythm.stands_until(990_000), Some(540_000), "the next one is late");
        assert_eq!(rhythm.stands_until(0), Some(360_000));
    }

    #[test]
    fn pictures_that_come_often_or_unevenly_have_no_rhythm() {
        for times in [[0, 3_000, 6_000], [0, 180_000, 270_000], [0, 3_000, 180_000]] {
            let mut rhythm = Rhythm::default();
            times.into_iter().for_each(|time| rhythm.observe(time, Some(time)));
            assert_eq!(rhythm.stands_until(1_000_000), None, "{times:?}");
        }
        let mut rhythm = Rhythm::default();
        [0, 180_000, 360_000].into_iter().for_each(|time| rhythm.observe(time, None));
        assert_eq!(rhythm.stands_until(1_000_000), None, "no clock");
    }
}
